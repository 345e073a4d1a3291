"""Enhanced self-distillation: light branches on the rates of the stages, taught by those heads that are right; no teacher.

Terms and their sources: :mod:`snn_export.training.terms.reliable_teacher`.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.logits import CrossEntropy
from snn_export.training.terms.reliable_teacher import ReliableTeacher

RECIPE = Recipe(
    name="esd",
    forward_mode=ForwardMode.RATE,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(ReliableTeacher(alpha=1.0, beta=0.3, tau=3.0)),
    ),
    citation=(
        "Zhao et al., Enhanced self-distillation framework for efficient spiking neural network training, NeurIPS 2025, "
        "arXiv 2510.06254"
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
    summary="light branches, taught by the heads that are right",
    published=(
        "ResNet-18, T = 6, CIFAR-100: 79.54 % after the last epoch, 80.20 % in the best one, chosen on test data; ResNet-34, "
        "T = 4, ImageNet: 70.70 % (alpha 0.7); logs of the released code"
    ),
    student={
        "steps": 6,
        "dv": 3277,
        "threshold": 1.0,
        "reset": "subtract",
        "surrogate": "sigmoid",
        "slope": 4.0,
        "detach_reset": True,
    },
    inferred=(
        "number and stride of a branch's blocks: one block for each later stage, as on the ResNet-18 of the code",
        "a batch without any reliable sample adds exactly 0; the code's loss is not a number there",
    ),
)
