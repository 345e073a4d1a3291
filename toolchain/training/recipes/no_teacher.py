"""The baseline every distilled student is held against: the same student, cross-entropy alone."""

from __future__ import annotations

from snn_export.training.losses import CrossEntropy
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm

RECIPE = Recipe(
    name="no_teacher",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(CrossEntropy()),),
    citation="surrogate gradients through time: Neftci, Mostafa and Zenke, IEEE Signal Processing Magazine 36(6), 2019",
)
