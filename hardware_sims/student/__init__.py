"""The trained module as a simulator."""
