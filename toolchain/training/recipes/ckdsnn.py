"""CKDSNN in the form of its paper: activation maps of the last stage, and logits smoothed by noise.

Terms and their sources: :mod:`snn_export.training.terms.activation_map`, :mod:`snn_export.training.terms.noise_smoothed_logits`.
Backpropagation through time, as published; it can be trained on rates too, which is cheaper.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.activation_map import ActivationMap
from snn_export.training.terms.logits import CrossEntropy
from snn_export.training.terms.noise_smoothed_logits import NoiseSmoothedLogits

RECIPE = Recipe(
    name="ckdsnn",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(ActivationMap(tau=2.0)),
        WeightedTerm(NoiseSmoothedLogits(noise=0.1, tau=2.0)),
    ),
    citation="Liu et al., CKDSNN, AAAI 2026, arXiv 2511.06902",
    settings=TrainingSettings(
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.1,
        weight_decay=1e-4,
        schedule="cosine",
        epochs=400,
        batch_size=128,
        augmentation=("crop", "flip", "autoaugment", "cutout"),
        max_shift=0,
    ),
    summary="where the teacher looks, and logits smoothed by noise",
    published=(
        "ResNet-19: CIFAR-10 96.11 % (T = 1), 97.81 % (T = 4); CIFAR-100 79.11 %, 83.88 %; SEW-ResNet-34 on ImageNet "
        "73.05 % (T = 4); as a summary of the paper gives them"
    ),
    student={"steps": 4, "dv": 2048, "threshold": 1.0, "reset": "zero", "surrogate": "triangle", "slope": 1.0},
    inferred=(
        "maps of a teacher whose head is not an average and a linear layer: by gradients",
        "the cutout of the code is random erasing of 2 % to 20 % of an image; here a square hole",
        "the gradient runs through mean and deviation of the noise, as in the code",
        "32-bit arithmetic; the code trains in mixed precision",
    ),
)
