"""Noise-smoothed logit distillation (NLD): the student's logits are softened by noise of their own size before the comparison.

For each sample, with mean and std over its classes and n drawn from a standard normal distribution,

    paper   z_soft = z + lambda (mean + std n),             p = softmax(z_soft / tau)
    code    p = (1 - lambda) softmax(z / tau) + lambda softmax((mean + std^2 n) / tau)

and the loss is ``tau^2 KL(p_tau(teacher) || p)``.

Source: Liu et al., CKDSNN, AAAI 2026, arXiv 2511.06902, and its released code, which differ in this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import knowledge_distillation
from snn_export.training.terms.parameters import check_choice, check_range

FORMS = ("paper", "code")


def smoothed(logits: Tensor, noise: Tensor, weight: float) -> Tensor:
    """``z + weight (mean + std noise)``, mean and std over the classes; all (B, K)."""
    return logits + weight * (logits.mean(dim=1, keepdim=True) + logits.std(dim=1, keepdim=True) * noise)


def mixed_divergence(logits: Tensor, target_logits: Tensor, noise: Tensor, weight: float, tau: float) -> Tensor:
    """``tau^2 KL(p_tau(target) || p)`` with probabilities p mixed as in the released code; mean over the batch; all (B, K)."""
    disturbed = logits.mean(dim=1, keepdim=True) + logits.var(dim=1, keepdim=True) * noise
    target = functional.log_softmax(target_logits.detach() / tau, dim=1)
    mine = functional.log_softmax(logits / tau, dim=1)
    if 0.0 < weight < 1.0:
        # The logarithm of the mixture, computed from logarithms: no probability is rounded to 0 on the way.
        other = functional.log_softmax(disturbed / tau, dim=1)
        mine = torch.logaddexp(mine + math.log1p(-weight), other + math.log(weight))
    elif weight == 1.0:
        mine = functional.log_softmax(disturbed / tau, dim=1)
    return tau**2 * (target.exp() * (target - mine)).sum(dim=1).mean()


@dataclass(frozen=True)
class NoiseSmoothedLogits(LossTerm):
    """NLD with noise of weight ``noise`` (lambda), at temperature ``tau``, in the form of the "paper" or of its "code".

    The noise comes from torch's global random state, which training seeds in every epoch.
    """

    noise: float = 0.1
    tau: float = 2.0
    form: str = "paper"
    name: ClassVar[str] = "noise_smoothed_logits"
    needs: ClassVar[Needs] = Needs(teacher=True)

    def __post_init__(self) -> None:
        check_range(self.name, "noise", self.noise, 0.0, 1.0)
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)
        check_choice(self.name, "form", self.form, FORMS)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar; UserError SNX311 without a teacher."""
        logits, target = outputs.logits, outputs.of_teacher()
        noise = torch.randn(logits.shape, dtype=logits.dtype, device=logits.device)
        if self.form == "code":
            return mixed_divergence(logits, target, noise, self.noise, self.tau)
        return knowledge_distillation(smoothed(logits, noise, self.noise), target, self.tau)
