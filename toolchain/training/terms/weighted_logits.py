"""Distillation that weighs a sample by how much more the student has to learn from it than the teacher had.

    L = mean_b  w_b tau^2 KL(p_tau(teacher) || p_tau(student)),      w = 1 - exp(-CE_student / (CE_teacher + 1e-7))

The weights carry no gradient.

Source: the logit part of Xu et al., BKDSNN, ECCV 2024 (released code; there with the cross-entropy in place of the divergence,
whose gradient is the same), after Zhou et al., Rethinking soft labels for knowledge distillation, ICLR 2021, arXiv 2102.00650.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import divergence
from snn_export.training.terms.parameters import check_range

TEACHER_FLOOR = 1e-7
"""Added to the teacher's cross-entropy, which may be 0."""


def learning_weights(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Weight of every sample, in 0..1: logits (B, K), labels (B,) to (B,). Detached."""
    mine = functional.cross_entropy(logits.detach(), labels, reduction="none")
    theirs = functional.cross_entropy(teacher_logits.detach(), labels, reduction="none")
    return -torch.expm1(-mine / (theirs + TEACHER_FLOOR))


@dataclass(frozen=True)
class WeightedLogits(LossTerm):
    """Weighted logit distillation at temperature ``tau``."""

    tau: float = 2.0
    name: ClassVar[str] = "weighted_logits"
    needs: ClassVar[Needs] = Needs(teacher=True)

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar; UserError SNX311 without a teacher."""
        target = outputs.of_teacher()
        weights = learning_weights(outputs.logits, target, outputs.labels)
        return (weights * divergence(outputs.logits, target, self.tau)).mean()
