"""LaSNN, reconstructed: attention transfer over all stages, and the teacher's logits.

Terms and their sources: :mod:`snn_export.training.terms.attention_transfer`.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.attention_transfer import AttentionTransfer
from snn_export.training.terms.logits import CrossEntropy, KnowledgeDistillation

RECIPE = Recipe(
    name="lasnn",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(KnowledgeDistillation(tau=4.0)),
        WeightedTerm(AttentionTransfer(beta=1000.0)),
    ),
    citation=(
        "Hong et al., LaSNN: layer-wise ANN-to-SNN distillation for effective and efficient training in deep spiking neural "
        "networks, arXiv 2304.09101, 2023"
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
    summary="attention of every stage, and logits",
    published=(
        "claimed: inference 20 times faster than converted networks of similar accuracy; the baseline is threshold-balanced "
        "conversion with about 2,000 steps, modern conversion needs 16 to 32"
    ),
    student={"steps": 4},
    inferred=(
        "the attention term as a whole: no code was released; its form and beta are those of arXiv 1612.03928",
        "distillation of logits: weight 1 at temperature 4, as in a successor by the same first author",
        "settings, T and mode: those usual on CIFAR for directly trained networks",
    ),
)
