"""The quantised, clipped ReLU whose levels are the firing rates of an integrate-and-fire neuron."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError

PUBLISHED_THRESHOLD = 8.0
"""Initial threshold of the released code."""


class QcfsActivation(nn.Module):
    """Quantisation clip-floor-shift: a staircase of L steps up to a learnable threshold theta.

    forward    h(x) = theta clip(floor(x L / theta + 1/2) / L, 0, 1)
    to x       dh/dx = 1 where 0 <= x <= theta, else 0
    to theta   dh/dtheta = (h - x) / theta where 0 <= x <= theta; 1 above, 0 below; summed over all elements

    The gradients are those of the clip, with the floor taken for the identity (straight through). An integrate-and-fire neuron
    with threshold theta, spikes of size theta, reset by subtraction and a membrane of theta/2 before the first step, given x in
    every one of T = L steps, puts out h(x) on average over time. The one exception is a tie, x L / theta + 1/2 a whole number:
    this rounds up, as does a neuron that fires at u >= theta, the released code's; one that fires at u > theta, as
    :class:`snn_export.models.neurons.lif.Lif` and Loihi do, rounds down (``tests/toolchain/test_conversion_qcfs.py``).

    Shapes: any; theta is one number per layer, a parameter of shape (1,) in the unit of x.

    Source: Bu, Fang, Ding, Dai, Yu and Huang, Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural
    networks, ICLR 2022. The paper's gradient has its borders half a step lower, at -theta/2L and theta - theta/2L; here stand
    those of the released code, which clips before it rounds.
    """

    def __init__(self, levels: int = 8, threshold: float = PUBLISHED_THRESHOLD) -> None:
        """Begin with ``threshold``; UserError SNX354 for fewer than one level or a threshold that is not positive and finite."""
        super().__init__()
        if levels < 1 or not (threshold > 0 and math.isfinite(threshold)):
            raise UserError(
                "SNX354", f"there is no staircase of {levels} steps up to {threshold}", where="QcfsActivation",
                why="it needs at least one step, and a positive, finite height", fix="use levels = 4 or 8 and threshold = 8.0",
            )  # fmt: skip
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor([float(threshold)]))

    def forward(self, x: Tensor) -> Tensor:
        """H(x), same shape."""
        clipped = (x / self.threshold).clamp(0.0, 1.0)
        rounded: Tensor = _Floor.apply(clipped * self.levels + 0.5)  # type: ignore[no-untyped-call]
        return rounded / self.levels * self.threshold

    def extra_repr(self) -> str:
        """The number of steps; the threshold is a parameter."""
        return f"levels={self.levels}"


class _Floor(torch.autograd.Function):
    """Floor with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.floor()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0]
