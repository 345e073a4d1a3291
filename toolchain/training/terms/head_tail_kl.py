"""Head-tail-aware divergence (HTA-KL): both directions of KL, weighed by where student and teacher disagree.

The teacher's classes are sorted by probability; the head is the smallest set that holds half of it. With d_h, d_t the sums of
|p_teacher - p_student| over head and tail,

    L = tau^2 ( d_h / (d_h + d_t) KL(p_teacher || p_student) + d_t / (d_h + d_t) KL(p_student || p_teacher) )

The forward divergence sees the head best, the reverse one the tail.

Source: Zhang et al., Head-tail-aware KL divergence in knowledge distillation for spiking neural networks, arXiv 2504.20445, 2025.
The weights are those of Wu et al., Rethinking Kullback-Leibler divergence in knowledge distillation, arXiv 2404.02657.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.parameters import check_range


def head_mask(probabilities: Tensor, share: float) -> Tensor:
    """Whether a class is in the head: the most probable ones that together reach ``share``. (B, K) to boolean (B, K)."""
    ordered, places = probabilities.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, places, before < share)


def head_tail_divergence(logits: Tensor, teacher_logits: Tensor, tau: float, share: float = 0.5) -> Tensor:
    """The divergence above, mean over the batch; both logits (B, K), the teacher's without gradient; in nats.

    The weights carry no gradient, and are 1/2 each where the distributions are equal.
    """
    mine = functional.log_softmax(logits / tau, dim=1)
    target = functional.log_softmax(teacher_logits.detach() / tau, dim=1)
    apart = (target.exp() - mine.detach().exp()).abs()
    head = torch.where(head_mask(target.exp(), share), apart, 0.0).sum(dim=1)
    total = apart.sum(dim=1)
    weight = torch.where(total > 0, head / total.clamp(min=torch.finfo(total.dtype).tiny), 0.5)
    forward = (target.exp() * (target - mine)).sum(dim=1)
    reverse = (mine.exp() * (mine - target)).sum(dim=1)
    return tau**2 * (weight * forward + (1 - weight) * reverse).mean()


@dataclass(frozen=True)
class HeadTailKl(LossTerm):
    """HTA-KL at temperature ``tau``; ``share`` of the teacher's probability makes the head."""

    tau: float = 2.0
    share: float = 0.5
    name: ClassVar[str] = "head_tail_kl"
    needs: ClassVar[Needs] = Needs(teacher=True)

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)
        check_range(self.name, "share", self.share, 0.0, 1.0, open_end=True)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar; UserError SNX311 without a teacher."""
        return head_tail_divergence(outputs.logits, outputs.of_teacher(), self.tau, self.share)
