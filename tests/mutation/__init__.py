"""The verifier verified: faults put into backends, each of which must be caught and found in the layer it was put into."""
