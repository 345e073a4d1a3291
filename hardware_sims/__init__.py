"""Backends that run a Deployment and return a Trace. Imports nothing: pick the module you need."""
