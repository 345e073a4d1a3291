"""Simulated Loihi: integer arithmetic, bit for bit."""
