"""Saliency-scaled activation map distillation (SAMD): the student is to fire where the teacher looks.

The teacher's map is the ReLU of the class activation map of the class it predicts itself, ``sum_d w[class, d] F_d`` over the
channels d of its last features F. The student's is the number of spikes, summed over steps and channels. As distributions over
the H x W positions, at temperature tau,

    paper   tau^2 KL(P_teacher || P_student)
    code    KL(P_teacher || P_student) of maps scaled to 0..1 over the whole batch, without the factor

Source: Liu et al., CKDSNN, AAAI 2026, arXiv 2511.06902, and its released code, which differ in this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import divergence
from snn_export.training.terms.parameters import check_choice, check_range
from snn_export.training.terms.stage_features import check_maps, compared_stages, resized

FORMS = ("paper", "code")

SCALE_FLOOR = 1e-3
"""Added to a map's largest value in the released code before it is divided by it; so a map without any contrast becomes 0."""


def class_activation_map(teacher: TeacherNetwork, tap: str, features: Tensor) -> Tensor:
    """ReLU of the class activation map of the class the teacher predicts: features (B, D, H, W) of layer ``tap`` to (B, H, W).

    ``H W sum_d (d logit / d F_d) F_d``, by autograd through the rest of the teacher. Behind a global average and a linear layer
    the derivative is ``w[class, d] / (H W)`` everywhere, which makes it the ``sum_d w[class, d] F_d`` of the paper; other heads
    get the derivative at each position. Carries no gradient.
    """
    with torch.enable_grad():
        held = features.detach().requires_grad_()
        logits = teacher.onward(tap, held)
        chosen = logits.gather(1, logits.argmax(dim=1, keepdim=True))
        (slopes,) = torch.autograd.grad(chosen.sum(), held)
    positions = features.shape[2] * features.shape[3]
    return (positions * (slopes * features.detach()).sum(dim=1)).relu()


def scaled_to_batch(maps: Tensor) -> Tensor:
    """Maps (B, H, W) shifted and scaled to 0..1 by the smallest and largest value of the whole batch, as the code does."""
    shifted = maps - maps.min()
    return shifted / (shifted.max() + SCALE_FLOOR)


def map_divergence(maps: Tensor, target: Tensor, tau: float) -> Tensor:
    """``tau^2 KL`` between maps (B, H, W) as distributions over their positions, mean over the batch; in nats."""
    return divergence(maps.flatten(1), target.flatten(1), tau).mean()


@dataclass(frozen=True)
class ActivationMap(LossTerm):
    """SAMD on the last stage, at temperature ``tau``, in the form of the "paper" or of its released "code"."""

    tau: float = 2.0
    form: str = "paper"
    name: ClassVar[str] = "activation_map"
    needs: ClassVar[Needs] = Needs(teacher=True, taps=True, teacher_taps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)
        check_choice(self.name, "form", self.form, FORMS)

    def companion(self, pairing: Pairing) -> None:
        """None; UserError SNX342 unless the last stage of both networks is a feature map with more than one position."""
        stage, shape = compared_stages(self.name, pairing)[-1]
        check_maps(self.name, stage, shape)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar."""
        pairing = outputs.of_pairing()
        target = class_activation_map(pairing.teacher_network(), pairing.stages[-1].teacher or "", outputs.teacher_taps[-1])
        maps = pairing.steps * outputs.taps[-1].sum(dim=1, keepdim=True)
        maps = resized(maps, tuple(target.shape[1:])).squeeze(1)
        if self.form == "paper":
            return map_divergence(maps, target, self.tau)
        return map_divergence(scaled_to_batch(maps), scaled_to_batch(target), self.tau) / self.tau**2
