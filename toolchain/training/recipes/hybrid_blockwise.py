"""ANN-guided distillation by hybrid block-wise replacement: rates of every stage, judged by the teacher's remaining layers.

Terms and their sources: :mod:`snn_export.training.terms.block_wise`.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.block_wise import BlockWise
from snn_export.training.terms.logits import CrossEntropy, KnowledgeDistillation

RECIPE = Recipe(
    name="hybrid_blockwise",
    forward_mode=ForwardMode.RATE,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(KnowledgeDistillation(tau=3.0), 0.3),
        WeightedTerm(BlockWise(ce=1.0, kd=0.3, tau=3.0)),
    ),
    citation=(
        "Yang et al., Efficient ANN-guided distillation: aligning rate-based features of spiking neural networks through hybrid "
        "block-wise replacement, CVPR 2025, arXiv 2503.16572"
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
    summary="rates of every stage through the teacher's remaining layers",
    published=(
        "claimed: comparable to or better than the state of the art in distillation for spiking networks, at less training cost "
        "than backpropagation through time; figures not found"
    ),
    student={
        "steps": 4,
        "dv": 3277,
        "threshold": 1.0,
        "reset": "subtract",
        "surrogate": "sigmoid",
        "slope": 4.0,
        "detach_reset": True,
    },
    inferred=(
        "phi: convolution 1x1, or a linear layer where features are dense, batch-norm, ReLU; of features that may be negative, "
        "as a GRU's, it reaches the positive half",
        "tau 3, weights 1 (cross-entropy) and 0.3 (distillation), per stage and for the student's own logits",
        "the last stage takes part too where the teacher has a head behind it",
        "settings and neuron: those of the same group's rate-based backpropagation, arXiv 2410.11488, T = 4",
    ),
)
