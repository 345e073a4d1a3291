"""Attention transfer, layer by layer: where in the image the networks respond, whatever their channels are.

    Q = vec(sum_c F_c^2),      L = sum_j beta_j / 2 || Q_student / ||Q_student|| - Q_teacher / ||Q_teacher|| ||

over stages j, with F the student's firing rates and the teacher's features; Euclidean norms, mean over the batch. beta_j is beta
divided by the number of positions of the stage's map.

Source: Hong et al., LaSNN, arXiv 2304.09101, 2023, which names attention as the bridge between networks of different layers. No
code was released; form and size of beta are those of Zagoruyko and Komodakis, Paying more attention to attention, ICLR 2017,
arXiv 1612.03928.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.parameters import check_range
from snn_export.training.terms.stage_features import check_maps, check_sizes, compared_stages, is_map, resized

NORM_FLOOR = 1e-6
"""A map whose norm is below this counts as one without responses. The smallest of a spiking map is 1 / T^2."""


def attention(features: Tensor) -> Tensor:
    """``sum_c F_c^2`` as a unit vector over the positions: (B, C, H, W) to (B, H W); 0 where there is no response at all."""
    return _direction(features.square().sum(dim=1))


def attention_distance(features: Tensor, target: Tensor) -> Tensor:
    """``1/2 || attention(F) - attention(target) ||``, mean over the batch, in 0..sqrt(2)/2. The target carries no gradient.

    features (B, C, H, W), target (B, D, h, w) with h, w multiples or fractions of H, W: the attention is brought to its size.
    """
    squares = resized(features.square().sum(dim=1, keepdim=True), tuple(target.shape[2:]))
    apart: Tensor = torch.linalg.vector_norm(_direction(squares) - attention(target.detach()), dim=1)
    return apart.mean() / 2


def _direction(maps: Tensor) -> Tensor:
    """Maps (B, ..., H, W) as unit vectors (B, N)."""
    found: Tensor = functional.normalize(maps.flatten(1), dim=1, eps=NORM_FLOOR)
    return found


@dataclass(frozen=True)
class AttentionTransfer(LossTerm):
    """Attention transfer over all stages that are feature maps, each with weight ``beta`` / (H W) of the teacher's map."""

    beta: float = 1000.0
    name: ClassVar[str] = "attention_transfer"
    needs: ClassVar[Needs] = Needs(taps=True, teacher_taps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "beta", self.beta, 0.0)

    def companion(self, pairing: Pairing) -> None:
        """None; UserError SNX342 where no stage is a feature map in both networks, or the sizes of one cannot be joined."""
        stages = compared_stages(self.name, pairing)
        maps = [(stage, shape) for stage, shape in stages if is_map(stage.shape) and is_map(shape)]
        for stage, shape in maps:
            check_sizes(self.name, stage, shape)
        if not maps:
            check_maps(self.name, *stages[-1])

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The sum over stages, a scalar."""
        pairs = zip(outputs.taps, outputs.teacher_taps, strict=True)
        maps = [(mine, theirs) for mine, theirs in pairs if is_map(tuple(mine.shape[1:])) and is_map(tuple(theirs.shape[1:]))]
        values = [attention_distance(mine, theirs) / (theirs.shape[2] * theirs.shape[3]) for mine, theirs in maps]
        return self.beta * torch.stack(values).sum()
