"""Data sets: the bundled digits and a user's own arrays."""
