"""Synaptic sums as dense products: torch's convolutions and matrix products, exact.

Floating point adds integers exactly, in any order, while no partial sum can reach 2^24 (float32) or 2^53 (float64). The bound
comes from the weights and the declared range of the input: sum |w| x_max. A layer runs in the narrower type that it allows;
``rules.py`` refuses one that neither can hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from snn_export.export.graph import Shape, conv_padding, per_axis
from snn_export.hardware_sims.loihi.fan_out import Ends, inverse, storage_order
from snn_export.models.arithmetic import FLOAT32_EXACT


def sum_bound(node: nir.NIRNode, weight: NDArray[np.int64], largest: int) -> int:
    """Largest |partial sum| of any output, for inputs in -largest..largest."""
    if isinstance(node, nir.Scale):
        return int(np.abs(weight).max(initial=0)) * largest
    return int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0)) * largest


@dataclass(frozen=True, eq=False)
class DenseDrive:
    """One weight node as a dense product.

    Attributes:
        weight: float32 or float64, in the layout torch takes; a matrix has its rows and columns in stored order.
        geometry: stride, padding, dilation, groups of a convolution; None for a matrix or a Scale.
        maps: (channels, rows, columns) of a convolution's input.
        channels_last: the source is stored with its channel last.
        gather: position in the source of each value the node takes, where they are not in order already.
        scatter: position in the output of each value of the target, likewise.
    """

    weight: torch.Tensor
    geometry: tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int] | None = None
    maps: Shape = ()
    channels_last: bool = False
    gather: torch.Tensor | None = None
    scatter: torch.Tensor | None = None

    def in_float64(self) -> DenseDrive:
        """The same drive in double precision."""
        return replace(self, weight=self.weight.double())

    def to(self, device: torch.device) -> DenseDrive:
        """The same drive on another device."""
        gather, scatter = (None if x is None else x.to(device) for x in (self.gather, self.scatter))
        return replace(self, weight=self.weight.to(device), gather=gather, scatter=scatter)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Sums (S, targets) of a signal (S, sources), both in stored order; any numeric dtype in, the weight's out."""
        x = x.to(self.weight.dtype)
        if self.gather is not None:
            x = x[:, self.gather]
        if self.geometry is not None:
            out = self._convolve(x)
        elif self.weight.ndim == 1:
            out = x * self.weight
        else:
            out = functional.linear(x, self.weight)
        return out if self.scatter is None else out[:, self.scatter]

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        """As stored maps with the channel last."""
        stride, padding, dilation, groups = self.geometry or ((), (), (), 1)
        channels, rows, columns = self.maps
        if self.channels_last:
            maps = x.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)
        else:
            maps = x.reshape(-1, channels, rows, columns)
        (top, bottom), (left, right) = padding
        if top == bottom and left == right:
            out = functional.conv2d(maps, self.weight, None, stride, (top, left), dilation, groups)
        else:
            out = functional.conv2d(
                functional.pad(maps, (left, right, top, bottom)), self.weight, None, stride, 0, dilation, groups
            )
        return out.permute(0, 2, 3, 1).reshape(len(x), -1)


def dense_drive(node: nir.NIRNode, weight: NDArray[np.int64], ends: Ends, largest: int) -> DenseDrive:
    """The dense form of a weight node with integer weights, for inputs in -largest..largest; delays are left to the caller."""
    number = np.float32 if sum_bound(node, weight, largest) < FLOAT32_EXACT else np.float64
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _convolution(node, weight.astype(number), ends)
    if isinstance(node, nir.Scale):
        scale = np.broadcast_to(weight, ends.before_shape).reshape(-1)[ends.source_order].astype(number)
        position = inverse(ends.source_order)[ends.target_order]
        return DenseDrive(torch.from_numpy(scale), scatter=_moves(position))
    matrix = np.ascontiguousarray(weight[ends.target_order][:, ends.source_order].astype(number))
    return DenseDrive(torch.from_numpy(matrix))


def _moves(position: NDArray[np.int64]) -> torch.Tensor | None:
    return None if np.array_equal(position, np.arange(len(position))) else torch.from_numpy(position)


def _convolution(node: nir.Conv1d | nir.Conv2d, weight: NDArray[np.floating], ends: Ends) -> DenseDrive:
    flat = isinstance(node, nir.Conv1d)
    stride, dilation, padding = per_axis(node.stride, 2), per_axis(node.dilation, 2), conv_padding(node)
    given = ends.before_shape
    if flat:
        stride, dilation, padding = (1, stride[1]), (1, dilation[1]), ((0, 0), *padding)
        weight, given = weight[:, :, None], (given[0], 1, given[1])
    last = storage_order(ends.before_shape)
    channels_last = np.array_equal(ends.source_order, last)
    in_order = channels_last or np.array_equal(ends.source_order, np.arange(len(last)))
    gather = None if in_order else torch.from_numpy(inverse(ends.source_order)[last])
    kernels = torch.from_numpy(np.ascontiguousarray(weight)).contiguous(memory_format=torch.channels_last)
    scatter = _moves(inverse(storage_order(ends.after_shape))[ends.target_order])
    return DenseDrive(
        kernels, (stride, padding, dilation, int(node.groups)), given, channels_last or not in_order, gather, scatter
    )
