"""Data sets: images, events and recordings in their standard formats, the bundled digits, and a user's own arrays."""
