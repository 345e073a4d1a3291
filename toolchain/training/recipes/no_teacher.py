"""The baseline every distilled student is held against: the same student, cross-entropy alone."""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.terms.logits import CrossEntropy

RECIPE = Recipe(
    name="no_teacher",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(CrossEntropy()),),
    citation="surrogate gradients through time: Neftci, Mostafa and Zenke, IEEE Signal Processing Magazine 36(6), 2019",
    summary="labels alone: the baseline",
    inferred=("settings: those of this program, for small data",),
)
