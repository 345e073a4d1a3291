"""Placement: populations cut onto cores under all limits of a chip, and cores arranged on its mesh."""
