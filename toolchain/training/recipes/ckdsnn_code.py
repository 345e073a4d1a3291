"""CKDSNN as its authors' released code has it, which differs from the paper in both terms.

Terms and their sources: :mod:`snn_export.training.terms.activation_map`, :mod:`snn_export.training.terms.noise_smoothed_logits`.
The teacher stays in evaluation mode and the student fully spiking, unlike there.
"""

from __future__ import annotations

from dataclasses import replace

from snn_export.training.recipe import WeightedTerm
from snn_export.training.recipes import ckdsnn
from snn_export.training.terms.activation_map import ActivationMap
from snn_export.training.terms.logits import CrossEntropy
from snn_export.training.terms.noise_smoothed_logits import NoiseSmoothedLogits

RECIPE = replace(
    ckdsnn.RECIPE,  # settings, student and results are those of the paper
    name="ckdsnn_code",
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(ActivationMap(tau=2.0, form="code")),
        WeightedTerm(NoiseSmoothedLogits(noise=0.1, tau=2.0, form="code")),
    ),
    citation="Liu et al., CKDSNN, AAAI 2026, arXiv 2511.06902, released code",
    summary="CKDSNN as in its released code",
    inferred=(
        "the teacher is in evaluation mode; in the code it stays in training mode",
        "the student ends in spikes; in the code its last block ends in a ReLU",
        "the cutout of the code is random erasing of 2 % to 20 % of an image; here a square hole",
        "the gradient runs through mean and deviation of the noise, as in the code",
        "32-bit arithmetic; the code trains in mixed precision",
    ),
)
