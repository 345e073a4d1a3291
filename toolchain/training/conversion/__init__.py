"""Conversion of trained ReLU networks into spiking ones: the baselines that a distilled student is held against."""
