"""Weight layers with real parameters that act as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from snn_export.models.arithmetic import FLOAT32_EXACT
from snn_export.models.quantised.plan import BiasPlan, Geometry, LayerPlan
from snn_export.models.weight_grid import WeightGrid


class QuantisedLayer(nn.Module):
    """Weights and bias as real numbers, rounded to a chip's grid whenever they are used.

    forward    w_int = clip(step round(w / (unit step)), low, high),  acts as w_int 2^exponent
    backward   straight through; what lies outside the range feels only the pull back into it

    Shapes: inputs (N, *input_shape) to (N, *output_shape), whole numbers as floats. Sums are exact where no partial sum reaches
    2^24 in float32, 2^53 in float64; :func:`exact_type` chooses. The bias is no part of :meth:`apply_weight`: it belongs to the
    neuron.
    """

    def __init__(self, plan: LayerPlan) -> None:
        """Start exactly on the integers of ``plan``."""
        super().__init__()
        self._plan = plan
        self._factor = 2.0**plan.exponent
        self._unit = plan.unit * self._factor
        self.weight = nn.Parameter(torch.from_numpy(plan.weight * self._unit).to(torch.float32))
        self.biases = nn.ParameterList(torch.from_numpy(bias.values * bias.unit).to(torch.float32) for bias in plan.biases)

    @property
    def geometry(self) -> Geometry:
        """Shapes of what goes in and comes out."""
        return self._plan.geometry

    @property
    def grid(self) -> WeightGrid:
        """Integers of its weights."""
        return self._plan.grid

    @property
    def bias_plans(self) -> tuple[BiasPlan, ...]:
        """Where its biases go, in the order of :meth:`integer_biases`."""
        return self._plan.biases

    def integer_weight(self) -> Tensor:
        """Weights on the grid, before the exponent, float32 with the gradient of the real ones."""
        return _snap(self.weight, self._unit, self.grid.step, self.grid.low, self.grid.high)

    def integer_biases(self) -> tuple[Tensor, ...]:
        """Biases on their grids (mantissas, or units of the synaptic sum), (out,) each."""
        found = zip(self._plan.biases, self.biases, strict=True)
        return tuple(_snap(real, plan.unit, plan.step, plan.low, plan.high) for plan, real in found)

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """Synaptic sums (N, *output_shape) of x (N, *features) with integer weights, exponent included; dtype of the weight."""
        geometry = self.geometry
        x = x.reshape(len(x), *geometry.input_shape).to(weight.dtype)
        shifted = weight * self._factor
        if geometry.kind == "dense":
            return functional.linear(x, shifted)
        if geometry.kind == "scale":
            return x * shifted
        pads = [size for axis in reversed(geometry.padding) for size in axis]  # torch names the last axis first
        x = functional.pad(x, pads) if any(pads) else x
        convolve: Any = functional.conv1d if len(geometry.stride) == 1 else functional.conv2d
        result: Tensor = convolve(x, shifted, None, geometry.stride, 0, geometry.dilation, geometry.groups)
        return result

    def sum_bound(self, weight: Tensor, largest: int) -> float:
        """Largest |partial sum| of any output for inputs in -largest..largest, with the integer weights of the moment."""
        sizes = weight.detach().abs().double() * self._factor
        reach = sizes if self.geometry.kind == "scale" else sizes.reshape(len(sizes), -1).sum(dim=1)
        return float(reach.max()) * largest if reach.numel() else 0.0

    def spread_bias(self, bias: Tensor) -> Tensor:
        """A bias (out,) as it acts on every output, (*output_shape)."""
        shape = self.geometry.output_shape
        return bias.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape)

    def per_channel(self, factors: Tensor) -> Tensor:
        """Smallest of the factors (*output_shape) of the outputs that share a weight, in a shape that multiplies the weight."""
        if self.geometry.kind == "scale":
            small = (1,) * (factors.ndim - self.weight.ndim) + tuple(self.weight.shape)
            shared = [axis for axis, size in enumerate(small) if size == 1]
            return (factors.amin(dim=shared, keepdim=True) if shared else factors).reshape(self.weight.shape)
        return factors.reshape(len(factors), -1).amin(dim=1).reshape(-1, *(1,) * (self.weight.ndim - 1))

    def extra_repr(self) -> str:
        """All that decides its integers."""
        plan = self._plan
        biases = [f"{bias.onto} bias in steps of {bias.step} x {bias.unit!r} in {bias.low}..{bias.high}" for bias in plan.biases]
        return ", ".join(
            [plan.name, str(plan.geometry), str(plan.grid), f"exponent={plan.exponent}, unit={plan.unit!r}", *biases]
        )


def exact_type(bound: float) -> torch.dtype:
    """The narrower type that adds whole numbers exactly while no partial sum exceeds ``bound``."""
    return torch.float32 if bound < FLOAT32_EXACT else torch.float64


def as_integers(values: Tensor) -> NDArray[np.int64]:
    """Whole numbers held in a float tensor."""
    whole: NDArray[np.int64] = values.detach().cpu().numpy().astype(np.int64)
    return whole


def _snap(real: Tensor, unit: float, step: int, low: int, high: int) -> Tensor:
    snapped: Tensor = _Snap.apply(real, unit, step, low, high)  # type: ignore[no-untyped-call]
    return snapped


class _Snap(torch.autograd.Function):
    """Round to the grid, straight through."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, unit: float, step: int, low: int, high: int) -> Tensor:
        """Nearest multiple of ``step`` to real / unit within low..high; ties to even multiples, as NumPy rounds."""
        rounded = torch.round(real / (unit * step)) * step
        ctx.save_for_backward(rounded > high, rounded < low)
        ctx.unit = unit
        return rounded.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """D integer / d real = 1 / unit, except where it would carry a value further out of range."""
        (gradient,) = gradients
        above, below = ctx.saved_tensors
        further = (above & (gradient < 0)) | (below & (gradient > 0))
        return gradient.masked_fill(further, 0.0) / ctx.unit, None, None, None, None
