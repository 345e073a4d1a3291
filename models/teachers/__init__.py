"""Ordinary (non-spiking) teachers, built by name."""
