"""Deployments (NIR graph + execution contract), passes and file formats. Imports nothing: pick the module you need."""
