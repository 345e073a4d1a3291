"""Neurons that live in an environment of their own: the graph is walked here, the cells are stepped there."""
