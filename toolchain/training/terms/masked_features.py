"""Blurred feature distillation: the teacher's last features, generated from a masked copy of the student's.

    L = || G(M A(R)) - F max(A(R)) / max(F) ||^2 / B

with R the student's firing rates, A a 1x1 convolution where the channels differ, M dropping whole channels of a sample, G two 3x3
convolutions with a ReLU between, F the teacher's features, brought to the range of the student's.

Source: Xu et al., BKDSNN: enhancing the performance of learning-based spiking neural networks training with blurred knowledge
distillation, ECCV 2024, and its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing, Shape
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.parameters import check_range
from snn_export.training.terms.stage_features import Aligned, check_sizes, compared_stages


def channel_mask(features: Tensor, keep: float) -> Tensor:
    """0 or 1 for every sample and channel, 1 with probability ``keep``: (B, C, 1, ...) for features (B, C, ...)."""
    drawn = torch.rand((*features.shape[:2], *(1,) * (features.ndim - 2)), dtype=features.dtype, device=features.device)
    return (drawn < keep).to(features.dtype)


def matched_range(target: Tensor, features: Tensor) -> Tensor:
    """``target`` with the largest value of ``features``, both over the whole batch; 0 where target has no positive value."""
    largest = target.max()
    scale = torch.where(largest > 0, features.detach().max() / largest.clamp(min=torch.finfo(target.dtype).tiny), 0.0)
    return target.detach() * scale


def squared_distance(features: Tensor, target: Tensor) -> Tensor:
    """``|| features - target ||^2`` summed over everything but the batch, mean over the batch; both (B, *shape)."""
    return (features - target.detach()).square().flatten(1).sum(dim=1).mean()


class Generator(nn.Module):
    """A and G: student features to features of the teacher's shape, in two parts because the mask comes between them."""

    def __init__(self, shape: Shape, teacher_shape: Shape) -> None:
        super().__init__()
        mine, theirs = shape[0], teacher_shape[0]
        self.align: nn.Module
        if len(shape) == 1:
            self.align = nn.Linear(mine, theirs) if mine != theirs else nn.Identity()
            self.generate = nn.Sequential(nn.Linear(theirs, theirs), nn.ReLU(), nn.Linear(theirs, theirs))
            return
        layer = nn.Conv2d(mine, theirs, 1) if mine != theirs else nn.Identity()
        self.align = Aligned(layer, tuple(teacher_shape[1:]))
        self.generate = nn.Sequential(nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1))


@dataclass(frozen=True)
class MaskedFeatures(LossTerm):
    """Blurred feature distillation of the last stage; ``keep`` is the probability that a channel is left."""

    keep: float = 0.85
    name: ClassVar[str] = "masked_features"
    needs: ClassVar[Needs] = Needs(taps=True, teacher_taps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "keep", self.keep, 0.0, 1.0, open_end=True)

    def companion(self, pairing: Pairing) -> nn.Module:
        """The generator; UserError SNX342 where the last stages are no pair of maps of joinable sizes, or of dense features."""
        stage, shape = compared_stages(self.name, pairing)[-1]
        check_sizes(self.name, stage, shape)
        return Generator(stage.shape, shape)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar."""
        generator = outputs.of_companion()
        aligned = generator.get_submodule("align")(outputs.taps[-1])
        generated = generator.get_submodule("generate")(aligned * channel_mask(aligned, self.keep))
        return squared_distance(generated, matched_range(outputs.teacher_taps[-1], aligned))
