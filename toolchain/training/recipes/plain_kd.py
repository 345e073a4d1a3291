"""Plain knowledge distillation: cross-entropy on the labels plus the teacher's softened logits at temperature 4."""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.terms.logits import CrossEntropy, KnowledgeDistillation

RECIPE = Recipe(
    name="plain_kd",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(CrossEntropy()), WeightedTerm(KnowledgeDistillation(tau=4.0))),
    citation="Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531, 2015",
    summary="labels and the teacher's softened logits",
    inferred=("temperature 4 and equal weights: usual choices, not those of one paper", "settings: those of this program"),
)
