"""Loss terms: pure functions of logits, labels and teacher logits.

A term of a published method goes into a file of its own beside this one, with the same call signature (:class:`LossTerm`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional

from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class BatchOutputs:
    """What a loss term may look at, for one batch.

    logits (B, K) with gradient; labels (B,) int64; teacher_logits (B, K) detached, or None where there is no teacher.
    """

    logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None


class LossTerm(Protocol):
    """One term of a loss: a scalar from a batch's outputs. ``needs_teacher`` asks the loop for teacher logits."""

    @property
    def name(self) -> str:
        """Short name, shown in reports and part of a checkpoint's fingerprint (with every parameter)."""

    @property
    def needs_teacher(self) -> bool:
        """Whether teacher_logits must be there."""

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss, a scalar tensor with gradient."""


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


@dataclass(frozen=True)
class CrossEntropy:
    """:func:`cross_entropy` as a loss term."""

    needs_teacher: ClassVar[bool] = False
    name: ClassVar[str] = "cross_entropy"

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch."""
        return cross_entropy(outputs.logits, outputs.labels)


@dataclass(frozen=True)
class KnowledgeDistillation:
    """:func:`knowledge_distillation` at temperature ``tau`` as a loss term."""

    tau: float = 4.0
    needs_teacher: ClassVar[bool] = True
    name: ClassVar[str] = "knowledge_distillation"

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch; UserError SNX311 without a teacher."""
        if outputs.teacher_logits is None:
            raise UserError(
                "SNX311", "knowledge distillation without a teacher", where="recipe",
                why="the term compares the student's logits with a teacher's",
                fix="train a teacher first, or choose the recipe no_teacher",
            )  # fmt: skip
        return knowledge_distillation(outputs.logits, outputs.teacher_logits, self.tau)
