"""Rockpool 3.1's torch neurons, in an environment of their own."""
