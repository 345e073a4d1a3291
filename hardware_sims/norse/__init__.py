"""Norse as a backend; the only place where it is imported."""
