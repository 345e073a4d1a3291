"""Passes: rewrites of a deployment, one file each."""
