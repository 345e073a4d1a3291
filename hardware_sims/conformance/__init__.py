"""The conformance kit: small named checks that any Simulator can be put through."""
