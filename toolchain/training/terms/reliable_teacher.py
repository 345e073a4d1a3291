"""Enhanced self-distillation (ESD): light branches on the student's stages, taught by those heads that are right.

Heads are the student's own classifier and one light branch of ordinary (not spiking) layers on the rates of every stage but the
last. The teacher of a sample is the mean of the logits of those heads that classify it correctly; where none does, the sample
takes no part in the second sum.

    L = alpha sum_k CE(z_k, label) + beta sum_k tau^2 KL(p_tau(reliable) || p_tau(z_k))

with k over the branches in the first sum, over all heads in the second, the mean over the samples that have a teacher. The
student's own cross-entropy is a term of its own. Branches are dropped at inference.

Source: Zhao et al., Enhanced self-distillation framework for efficient spiking neural network training, NeurIPS 2025,
arXiv 2510.06254, and its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing, Shape
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import cross_entropy, divergence
from snn_export.training.terms.parameters import check_range
from snn_export.training.terms.stage_features import MAP_AXES, stages_of_student


def reliable_logits(heads: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean logits of the heads that are right, and where there is one: (N, B, K), (B,) to (B, K), boolean (B,). Detached.

    Rows of samples that no head classifies correctly are 0.
    """
    heads = heads.detach()
    right = (heads.argmax(dim=2) == labels).unsqueeze(2)
    count = right.sum(dim=0)
    return torch.where(right, heads, 0.0).sum(dim=0) / count.clamp(min=1), count.squeeze(1) > 0


def reliable_divergence(heads: Tensor, labels: Tensor, tau: float) -> Tensor:
    """``sum_k tau^2 KL(p_tau(reliable) || p_tau(z_k))``, mean over the samples with a teacher; exactly 0 where none has one.

    heads (N, B, K) with gradient, labels (B,).
    """
    target, known = reliable_logits(heads, labels)
    each = divergence(heads, target.expand_as(heads), tau).sum(dim=0)
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


class SeparableBlock(nn.Module):
    """Two depthwise separable 3x3 convolutions, the first with ``stride``, and a 1x1 shortcut: (B, C, H, W) to (B, D, H', W')."""

    def __init__(self, channels: int, wider: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, stride=stride, bias=False), nn.BatchNorm2d(wider))

    def forward(self, features: Tensor) -> Tensor:
        """The block's output, at least 0."""
        found: Tensor = (self.main(features) + self.shortcut(features)).relu()
        return found


def branch(shapes: tuple[Shape, ...], classes: int) -> nn.Module:
    """A light branch on features of ``shapes[0]``: one block for each step to the next of ``shapes``, average, linear layer.

    Maps narrow as those of the student do; dense features go through linear - BN - ReLU. (B, *shapes[0]) to (B, classes).
    """
    layers: list[nn.Module] = []
    for (channels, *size), (wider, *smaller) in pairwise(shapes):
        if len(size) + 1 == MAP_AXES and len(smaller) + 1 == MAP_AXES:
            stride = [max(mine // wanted, 1) for mine, wanted in zip(size, smaller, strict=True)]
            layers.append(SeparableBlock(channels, wider, (stride[0], stride[1])))
        else:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if len(size) + 1 == MAP_AXES else []
            layers += [nn.Linear(channels, wider, bias=False), nn.BatchNorm1d(wider), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if len(shapes[-1]) == MAP_AXES else []
    return nn.Sequential(*layers, nn.Linear(shapes[-1][0], classes))


@dataclass(frozen=True)
class ReliableTeacher(LossTerm):
    """ESD: ``alpha`` weighs the branches' cross-entropy, ``beta`` the distillation from the reliable teacher at ``tau``."""

    alpha: float = 1.0
    beta: float = 0.3
    tau: float = 3.0
    name: ClassVar[str] = "reliable_teacher"
    needs: ClassVar[Needs] = Needs(taps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0.0)
        check_range(self.name, "beta", self.beta, 0.0)
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)

    def companion(self, pairing: Pairing) -> nn.Module:
        """A branch for every stage but the last; UserError SNX342 where there are not two, or one is neither map nor dense."""
        shapes = tuple(stage.shape for stage in stages_of_student(self.name, pairing))
        # Features may turn from maps to dense ones on the way to the classifier, never back.
        axes = [len(shape) for shape in shapes]
        if len(shapes) < 2 or any(count not in (1, MAP_AXES) for count in axes) or axes != sorted(axes, reverse=True):
            raise UserError(
                "SNX342", f"the loss term '{self.name}' does not fit this student: its stages are {shapes}",
                where=f"recipe, term {self.name}",
                why="a branch sits on every stage but the last, which is (C, H, W) or dense (N,), so it takes two stages",
                fix="name at least two populations with taps, or choose a recipe without branches",
            )  # fmt: skip
        return nn.ModuleList(branch(shapes[index:], pairing.classes) for index in range(len(shapes) - 1))

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar."""
        branches = [layers(tap) for layers, tap in zip(outputs.of_companion().children(), outputs.taps, strict=False)]
        hard = torch.stack([cross_entropy(logits, outputs.labels) for logits in branches]).sum()
        soft = reliable_divergence(torch.stack([*branches, outputs.logits]), outputs.labels, self.tau)
        return self.alpha * hard + self.beta * soft
