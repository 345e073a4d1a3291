"""Surrogate gradients: the slope that stands in for the step function's derivative while a spiking network learns.

The forward pass is always the step itself, s = 1 where x > 0. Each surrogate states its slope in closed form, so that the same
rule serves backpropagation through time (as an autograd function) and rate-based training (which needs the slope as a value).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion


@dataclass(frozen=True)
class Surrogate:
    """A surrogate by ``name`` with its ``slope``; call it like any of snnTorch's: ``spikes = surrogate(membrane - threshold)``.

    fast_sigmoid   1 / (1 + k |x|)^2             Zenke and Ganguli, SuperSpike, Neural Computation 30(6), 2018
    sigmoid        k S(kx) (1 - S(kx))           Neftci, Mostafa and Zenke, IEEE Signal Processing Magazine 36(6), 2019
    triangle       k max(0, 1 - k |x|)           Esser et al., PNAS 113(41), 2016; k = 1 in Liu et al., arXiv 2511.06902
    atan           1 / (1 + (pi k x / 2)^2)      Fang et al., ICCV 2021, up to the constant alpha / 2 there
    rectangle      k where |kx| < 1/2            Wu et al., Frontiers in Neuroscience 12, 2018

    x is the membrane minus the threshold, k the slope, S the logistic function. sigmoid with k = 4 and triangle and rectangle
    with k = 1 have a slope of 1 at the threshold, as fast_sigmoid and atan have for every k.

    Raises:
        UserError: SNX015 for an unknown name or a slope that is not positive and finite.
    """

    name: str
    slope: float

    def __post_init__(self) -> None:
        if self.name not in SLOPES or not (self.slope > 0 and math.isfinite(self.slope)):
            raise UserError(
                "SNX015", f"there is no surrogate {self.name!r} with slope {self.slope}", where="surrogate",
                why="a spiking network learns through a surrogate gradient of known shape and a positive, finite slope",
                fix=suggestion(self.name, SLOPES) if self.name not in SLOPES else "use a slope such as 4.0",
            )  # fmt: skip

    def derivative(self, x: Tensor) -> Tensor:
        """The slope at x = membrane - threshold, elementwise, same shape."""
        return SLOPES[self.name](x, self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """Spikes of x, 1 where x > 0, differentiated by this surrogate."""
        spikes: Tensor = _Step.apply(x, self)  # type: ignore[no-untyped-call]
        return spikes


class _Step(torch.autograd.Function):
    """The step function with a surrogate's slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.surrogate.derivative(x), None


def _fast_sigmoid(x: Tensor, slope: float) -> Tensor:
    return x.abs().mul_(slope).add_(1.0).square_().reciprocal_()


def _sigmoid(x: Tensor, slope: float) -> Tensor:
    value = torch.sigmoid(x * slope)
    return torch.addcmul(value, value, value, value=-1.0).mul_(slope)


def _triangle(x: Tensor, slope: float) -> Tensor:
    return x.abs().mul_(-slope * slope).add_(slope).clamp_(min=0.0)


def _atan(x: Tensor, slope: float) -> Tensor:
    return (x * (math.pi * slope / 2)).square_().add_(1.0).reciprocal_()


def _rectangle(x: Tensor, slope: float) -> Tensor:
    return (x.abs() < 0.5 / slope).to(x.dtype).mul_(slope)


SLOPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "fast_sigmoid": _fast_sigmoid,
    "sigmoid": _sigmoid,
    "triangle": _triangle,
    "atan": _atan,
    "rectangle": _rectangle,
}
