"""The sub-commands of ``snn-export``, one module each. ``cli.py`` lists them and imports one only when it is called."""
