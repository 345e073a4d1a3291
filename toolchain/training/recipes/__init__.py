"""Training recipes, one file per published method."""
