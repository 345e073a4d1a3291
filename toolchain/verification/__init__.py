"""Comparing backends: tallies, the ladder, gates, and the report they become."""
