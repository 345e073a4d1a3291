"""Energy: exact operation counts, published coefficients, and estimates with ranges and sources."""
