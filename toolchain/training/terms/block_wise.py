"""Hybrid block-wise replacement: the student's rates of a stage, carried on through the teacher's remaining layers.

With r^i the firing rates of the student's stage i and A_1 .. A_L, h the teacher's blocks and head,

    y^i = h(A_L(... A_{i+1}(phi_i(r^i))))
    L = sum_i  w_ce CE(y^i, label) + w_kd tau^2 KL(p_tau(teacher) || p_tau(y^i))

so that features are judged by the logits they lead to, and early stages get gradients through exact derivatives. phi_i learns and
is dropped at inference; the teacher's layers are frozen and stay in the graph.

Source: Yang et al., Efficient ANN-guided distillation: aligning rate-based features of spiking neural networks through hybrid
block-wise replacement, CVPR 2025, arXiv 2503.16572. The form of phi, tau and the weights are not given there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing, Shape, StagePair
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import cross_entropy, knowledge_distillation
from snn_export.training.terms.parameters import check_range
from snn_export.training.terms.stage_features import Aligned, check_sizes, compared_stages


def bridge(shape: Shape, teacher_shape: Shape) -> nn.Module:
    """phi: (B, *shape) -> (B, *teacher_shape). Convolution 1x1 - BN - ReLU for maps, linear - BN - ReLU for dense features.

    Maps are brought to the teacher's size first (:func:`~snn_export.training.terms.stage_features.resized`).
    """
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], teacher_shape[0], bias=False), nn.BatchNorm1d(teacher_shape[0]), nn.ReLU())
    layers = (nn.Conv2d(shape[0], teacher_shape[0], 1, bias=False), nn.BatchNorm2d(teacher_shape[0]), nn.ReLU())
    return Aligned(nn.Sequential(*layers), tuple(teacher_shape[1:]))


@dataclass(frozen=True)
class BlockWise(LossTerm):
    """Cross-entropy and distillation of the logits that the teacher makes of each stage of the student.

    ce, kd: weights of the two per stage; tau: temperature. All stages take part that have layers of the teacher behind them.
    """

    ce: float = 1.0
    kd: float = 0.3
    tau: float = 3.0
    name: ClassVar[str] = "block_wise"
    needs: ClassVar[Needs] = Needs(teacher=True, taps=True, onward=True)

    def __post_init__(self) -> None:
        check_range(self.name, "ce", self.ce, 0.0)
        check_range(self.name, "kd", self.kd, 0.0)
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)

    def companion(self, pairing: Pairing) -> nn.Module:
        """The phi of every stage that takes part, by its number; UserError SNX311, SNX342 where there is none."""
        teacher = pairing.teacher_network()
        stages = [(stage, shape) for stage, shape in compared_stages(self.name, pairing) if _goes_on(teacher, stage, shape)]
        if not stages:
            raise UserError(
                "SNX342", f"the loss term '{self.name}' does not fit these networks: the teacher ends where it is tapped",
                where=f"recipe, term {self.name}", why="a stage's features are carried on through the layers behind it",
                fix="tap layers in front of the teacher's classifier with teacher_taps",
            )  # fmt: skip
        for stage, shape in stages:
            check_sizes(self.name, stage, shape)
        numbers = {stage.student: str(index) for index, stage in enumerate(pairing.stages)}
        return nn.ModuleDict({numbers[stage.student]: bridge(stage.shape, shape) for stage, shape in stages})

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The sum over stages, a scalar."""
        pairing, target = outputs.of_pairing(), outputs.of_teacher()
        teacher = pairing.teacher_network()
        values = []
        for number, phi in outputs.of_companion().named_children():
            tap = pairing.stages[int(number)].teacher or ""
            logits = teacher.onward(tap, phi(outputs.taps[int(number)]))
            values.append(
                self.ce * cross_entropy(logits, outputs.labels) + self.kd * knowledge_distillation(logits, target, self.tau)
            )
        return torch.stack(values).sum()


def _goes_on(teacher: TeacherNetwork, stage: StagePair, shape: Shape) -> bool:
    """Whether the teacher has layers behind its stage: the rest of it is not empty."""
    place = next(iter(teacher.parameters()), torch.zeros(0)) if isinstance(teacher, nn.Module) else torch.zeros(0)
    features = torch.zeros((1, *shape), device=place.device, dtype=place.dtype)
    with torch.no_grad():
        return teacher.onward(stage.teacher or "", features) is not features
