"""The two loss terms that every method builds on: cross-entropy, and distillation from a teacher's logits.

A term of a published method goes into a file of its own under ``terms/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.parameters import check_range


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log softmax(z)[y]. logits (B, K), labels (B,) int64; in nats."""
    return functional.cross_entropy(logits, labels)


def knowledge_distillation(logits: Tensor, teacher_logits: Tensor, tau: float) -> Tensor:
    """``tau^2 KL(p_tau(teacher) || p_tau(student))``, mean over the batch, with p_tau(z) = softmax(z / tau); in nats.

    The factor tau^2 keeps the gradient's size independent of the temperature. Both logits (B, K); the teacher's carry no
    gradient. Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531 (2015), section 2.
    """
    student = functional.log_softmax(logits / tau, dim=1)
    teacher = functional.log_softmax(teacher_logits.detach() / tau, dim=1)
    return tau**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def divergence(logits: Tensor, target_logits: Tensor, tau: float) -> Tensor:
    """``tau^2 KL(p_tau(target) || p_tau(logits))`` of every sample: (..., K) and (..., K) to (...), in nats; at least 0.

    The same as :func:`knowledge_distillation` before the mean, with any leading axes. No gradient reaches the target.
    """
    mine = functional.log_softmax(logits / tau, dim=-1)
    target = functional.log_softmax(target_logits.detach() / tau, dim=-1)
    return tau**2 * (target.exp() * (target - mine)).sum(dim=-1)


@dataclass(frozen=True)
class CrossEntropy(LossTerm):
    """:func:`cross_entropy` as a loss term."""

    name: ClassVar[str] = "cross_entropy"

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch."""
        return cross_entropy(outputs.logits, outputs.labels)


@dataclass(frozen=True)
class KnowledgeDistillation(LossTerm):
    """:func:`knowledge_distillation` at temperature ``tau`` as a loss term."""

    tau: float = 4.0
    name: ClassVar[str] = "knowledge_distillation"
    needs: ClassVar[Needs] = Needs(teacher=True)

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch; UserError SNX311 without a teacher."""
        return knowledge_distillation(outputs.logits, outputs.of_teacher(), self.tau)
