"""Temporal decoupling: every step is taught by labels, teacher and the ensemble of all steps; one model for any T' <= T.

Terms and their sources: :mod:`snn_export.training.terms.per_step`. Needs backpropagation through time.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.per_step import DecoupledSteps

RECIPE = Recipe(
    name="temporal_decoupling",
    forward_mode=ForwardMode.BPTT,
    terms=(WeightedTerm(DecoupledSteps(alpha=0.2, beta=0.5, tau=3.0)),),
    citation=(
        "Yu et al., Efficient logit-based knowledge distillation of deep spiking neural networks for full-range timestep "
        "deployment, ICML 2025, arXiv 2501.15925"
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
    summary="every step taught by the teacher and the ensemble of steps",
    published="ResNet-18 from a ResNet-34, CIFAR-100, T = 6; results not found",
    student={"steps": 6, "dv": 2048, "threshold": 1.0, "reset": "zero", "detach_reset": False},
    inferred=(
        "the ensemble is the mean of all steps; that of the correct ones, which the released code may mean, is an option",
        "no gradient reaches the ensemble as a target, as in the code",
        "surrogate: that of this program",
    ),
)
