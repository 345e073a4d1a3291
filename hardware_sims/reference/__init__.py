"""The float64 interpreter as a simulator."""
