"""NIR's linear nodes as torch modules on (N, *features), float32: what a backend that runs on torch shares with the others."""

from __future__ import annotations

import copy
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export.graph import CONV_TYPES, POOL_TYPES, Shape, conv_padding, pair, per_axis, unsupported


class Scale(nn.Module):
    """Multiply by fixed factors, one or one per feature: NIR's Scale. (N, *features) -> (N, *features)."""

    def __init__(self, factors: NDArray[Any]) -> None:
        """``factors`` must broadcast to the features."""
        super().__init__()
        self.factors: Tensor
        self.register_buffer("factors", float32(factors))

    def forward(self, x: Tensor) -> Tensor:
        """X times the factors."""
        return x * self.factors


def float32(values: Any) -> Tensor:
    """Float64 parameters as float32."""
    return torch.from_numpy(np.array(values, np.float32))


def layer_of(name: str, node: nir.NIRNode, given: Shape) -> nn.Module:
    """The torch module of a linear node, in evaluation mode and without gradients.

    Args:
        name: node name, for errors.
        node: Affine, Linear, Conv1d, Conv2d, AvgPool2d, SumPool2d, Flatten or Scale.
        given: features that enter it.

    Raises:
        UserError: SNX201 for a node without a rule.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        bias = getattr(node, "bias", None)
        outputs, inputs = node.weight.shape
        layer: nn.Module = _with_parameters(nn.Linear(inputs, outputs, bias=bias is not None), node.weight, bias)
    elif isinstance(node, CONV_TYPES):
        layer = _convolution(node)
    elif isinstance(node, POOL_TYPES):
        layer = _pool(node)
    elif isinstance(node, nir.Flatten):
        start, end = (int(axis) % len(given) for axis in (node.start_dim, node.end_dim))
        layer = nn.Flatten(start + 1, end + 1)  # NIR counts from the first feature axis, torch from the batch
    elif isinstance(node, nir.Scale):
        layer = Scale(node.scale)
    else:
        raise unsupported(name, node)
    return layer.eval().requires_grad_(False)


def without_bias(layer: nn.Module) -> nn.Module:
    """A copy that adds no bias: for the second source of a weight node, whose bias counts once."""
    found = copy.copy(layer) if not isinstance(layer, nn.Sequential) else nn.Sequential(*(without_bias(inner) for inner in layer))
    if getattr(layer, "bias", None) is not None:
        found._parameters = {**layer._parameters, "bias": None}  # shares the weights, not the table that names them
    return found


def _with_parameters(layer: Any, weight: NDArray[Any], bias: NDArray[Any] | None) -> Any:
    layer.weight = nn.Parameter(float32(weight), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(float32(bias), requires_grad=False)
    return layer


def _convolution(node: nir.Conv1d | nir.Conv2d) -> nn.Module:
    axes, groups = int(node.weight.ndim) - 2, int(node.groups)
    padding = conv_padding(node)
    even = all(before == after for before, after in padding)
    make: Any = nn.Conv1d if axes == 1 else nn.Conv2d  # torch's types name every number of axes apart
    layer: nn.Module = make(
        node.weight.shape[1] * groups,
        node.weight.shape[0],
        tuple(node.weight.shape[2:]),
        stride=per_axis(node.stride, axes),
        padding=tuple(before for before, _ in padding) if even else 0,
        dilation=per_axis(node.dilation, axes),
        groups=groups,
        bias=node.bias is not None,
    )
    _with_parameters(layer, node.weight, node.bias)
    return layer if even else nn.Sequential(_zeros_around(padding), layer)


def _pool(node: nir.AvgPool2d | nir.SumPool2d) -> nn.Module:
    kernel, stride, padding = pair(node.kernel_size), pair(node.stride), pair(node.padding)
    divisor = 1 if isinstance(node, nir.SumPool2d) else None
    if all(2 * pad <= size for pad, size in zip(padding, kernel, strict=True)):
        return nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)
    around = _zeros_around(tuple((size, size) for size in padding))
    return nn.Sequential(around, nn.AvgPool2d(kernel, stride, divisor_override=divisor))


def _zeros_around(padding: tuple[tuple[int, int], ...]) -> nn.Module:
    """Zeros before and after each spatial axis; torch names the last axis first."""
    sizes = tuple(size for before, after in reversed(padding) for size in (before, after))
    make: Any = nn.ConstantPad1d if len(padding) == 1 else nn.ConstantPad2d
    found: nn.Module = make(sizes, 0.0)
    return found
