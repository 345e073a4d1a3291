"""TSER: every step is taught by labels and teacher, and kept from being too sure by its entropy.

Terms and their sources: :mod:`snn_export.training.terms.per_step`. Needs backpropagation through time.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.per_step import EntropyRegularisedSteps

RECIPE = Recipe(
    name="tser",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(EntropyRegularisedSteps(alpha=0.5, gamma=0.1, tau=4.0)),),
    citation=(
        "Yu et al., Temporal separation with entropy regularization for knowledge distillation in spiking neural networks, "
        "CVPR 2025, arXiv 2503.03144"
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
    summary="every step taught, with an entropy bonus",
    published="ResNet-18, CIFAR-100: 78.30 %",
    student={"steps": 4},
    inferred=(
        "alpha 0.5, gamma 0.1",
        "tau 4, in the middle of the 2 to 6 of the source",
        "settings and neuron",
    ),
)
