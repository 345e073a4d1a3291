"""Design rules: every constraint of a chip, and of the backends that stand for it, as a small function with a code."""
