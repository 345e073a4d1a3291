"""SpikingJelly as a backend, in an environment of its own; only ``worker.py`` imports it."""
