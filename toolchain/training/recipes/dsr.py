"""DSR: gradients through the closed-form rate map of the neurons; no teacher.

The slope and its source: :mod:`snn_export.models.rate_based.dsr`. Trained through time it is ``no_teacher`` with these settings.
"""

from __future__ import annotations

from snn_export.models.rate_based.dsr import SpikeRepresentation
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.logits import CrossEntropy

RECIPE = Recipe(
    name="dsr",
    forward_mode=ForwardMode.RATE,
    terms=(WeightedTerm(CrossEntropy()),),
    citation=(
        "Meng et al., Training high-performance low-latency spiking neural networks by differentiation on spike representation, "
        "CVPR 2022"
    ),
    settings=TrainingSettings(
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.05,
        weight_decay=5e-4,
        schedule="cosine",
        epochs=200,
        batch_size=128,
        augmentation=("crop", "flip"),
        max_shift=0,
    ),
    summary="gradients through the rate map of the neurons",
    published="PreAct-ResNet-18 on CIFAR-10 and CIFAR-100, T = 20, integrate-and-fire or leaky; results not found",
    student={"steps": 20, "dv": 0, "threshold": 6.0, "reset": "subtract"},
    inferred=(
        "the threshold is fixed; in the source every layer learns its own, from 6 (integrate-and-fire) or 0.3 (leaky) on",
        "neurons fire above the threshold; in the source above half of it, as if the membrane started half full",
        "the slope of leaky neurons, and of a reset to zero",
        "the first 400 steps of a rising learning rate are left out",
    ),
    slopes=SpikeRepresentation(),
    scale_gradient=False,
)
