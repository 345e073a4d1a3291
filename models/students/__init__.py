"""Spiking students, built by name."""
