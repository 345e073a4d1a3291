"""Loss terms, one file per published idea."""
