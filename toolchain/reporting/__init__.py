"""The report as one object, and what renders it: terminal, JSON, HTML."""
