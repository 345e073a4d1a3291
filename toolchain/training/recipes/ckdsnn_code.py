"""CKDSNN as its authors' released code has it, which differs from the paper in both terms.

Terms and their sources: :mod:`snn_export.training.terms.activation_map`, :mod:`snn_export.training.terms.noise_smoothed_logits`.
The teacher stays in evaluation mode and the student fully spiking, unlike there.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.activation_map import ActivationMap
from snn_export.training.terms.logits import CrossEntropy
from snn_export.training.terms.noise_smoothed_logits import NoiseSmoothedLogits

RECIPE = Recipe(
    name="ckdsnn_code",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(ActivationMap(tau=2.0, form="code")),
        WeightedTerm(NoiseSmoothedLogits(noise=0.1, tau=2.0, form="code")),
    ),
    citation="Liu et al., CKDSNN, AAAI 2026, arXiv 2511.06902, released code",
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
    summary="CKDSNN as in its released code",
    published=(
        "ResNet-19: CIFAR-10 96.11 % (T = 1), 97.81 % (T = 4); CIFAR-100 79.11 %, 83.88 %; SEW-ResNet-34 on ImageNet "
        "73.05 % (T = 4); as a summary of the paper gives them"
    ),
    student={"steps": 4, "dv": 2048, "threshold": 1.0, "reset": "zero", "surrogate": "triangle", "slope": 1.0},
    inferred=(
        "the teacher is in evaluation mode; in the code it stays in training mode",
        "the student ends in spikes; in the code its last block ends in a ReLU",
        "the cutout of the code is random erasing of 2 % to 20 % of an image; here a square hole",
        "the gradient runs through mean and deviation of the noise, as in the code",
        "32-bit arithmetic; the code trains in mixed precision",
    ),
)
