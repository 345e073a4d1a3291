"""IDSNN: weights sampled down from a deeper teacher to begin with, then distillation of logits.

The initialisation: :mod:`snn_export.training.weight_sampling`.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.logits import CrossEntropy, KnowledgeDistillation
from snn_export.training.weight_sampling import take_weights

RECIPE = Recipe(
    name="idsnn",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(KnowledgeDistillation(tau=4.0), 0.3),
    ),
    citation=(
        "Fan et al., IDSNN: towards high-performance and low-latency SNN training via initialization and distillation, "
        "Biomimetics 8(4), 375, 2023"
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
    summary="weights from a deeper teacher, then logits",
    published="CIFAR-10 94.22 %, CIFAR-100 75.41 %; 14 times faster convergence than direct training; abstract of the source",
    student={"steps": 4},
    inferred=(
        "which layers and channels are taken: even sampling",
        "batch-norm goes along with its running statistics; no weight is rescaled",
        "settings and neuron",
    ),
    prepare=take_weights,
)
