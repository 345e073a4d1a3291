"""Head-tail-aware divergence in place of plain distillation.

Terms and their sources: :mod:`snn_export.training.terms.head_tail_kl`.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.head_tail_kl import HeadTailKl
from snn_export.training.terms.logits import CrossEntropy

RECIPE = Recipe(
    name="hta_kl",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(HeadTailKl(tau=2.0)),
    ),
    citation=(
        "Zhang et al., Head-tail-aware KL divergence in knowledge distillation for spiking neural networks, "
        "arXiv 2504.20445, 2025"
    ),
    settings=TrainingSettings(
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        epochs=300,
        batch_size=128,
        augmentation=("crop", "flip", "autoaugment", "cutout"),
        max_shift=0,
    ),
    summary="both directions of KL, weighed by head and tail",
    published="CIFAR-10, CIFAR-100 and Tiny ImageNet with ResNet-19 among others, T = 2 to 6; results not found",
    student={"steps": 4},
    inferred=(
        "the weights of the two directions: by the gaps in head and tail, as in adaptive KL, arXiv 2404.02657",
        "temperature 2, weight 1, and no gradient through the weights",
        "settings and neuron",
    ),
)
