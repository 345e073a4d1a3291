"""Train a teacher: cross-entropy alone."""

from __future__ import annotations

from snn_export.training.losses import CrossEntropy
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm

RECIPE = Recipe(
    name="teacher",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(CrossEntropy()),),
    citation="cross-entropy on the labels; no published method",
)
