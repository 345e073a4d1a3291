"""Spyx as a backend: its neurons run in an environment of their own."""
