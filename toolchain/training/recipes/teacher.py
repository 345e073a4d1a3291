"""Train a teacher: cross-entropy alone."""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.terms.logits import CrossEntropy

RECIPE = Recipe(
    name="teacher",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(CrossEntropy()),),
    citation="cross-entropy on the labels; no published method",
    summary="labels alone, for a teacher",
    inferred=("settings: those of this program",),
)
