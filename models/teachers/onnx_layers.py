"""What ONNX computes and no torch module does: uneven padding, pools that count what they cover, norms that never learn.

All of them take activations (B, ...) and leave the batch alone. Sizes of windows are tuples with one entry per spatial axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Window:
    """A sliding window over an input of known size; one entry per spatial axis in each field.

    Attributes:
        sides: of the input.
        kernel: of the window, before dilation.
        strides: from one window to the next.
        dilations: from one cell of a window to the next.
        begins: padding before the input.
        ends: padding behind it.
        ceil: whether a last window that reaches over the end counts, if it begins within the input or the padding before it.
    """

    sides: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    ceil: bool = False

    def outputs(self) -> tuple[int, ...]:
        """Number of windows per axis; 0 or less where the kernel is larger than what it slides over."""
        counts = []
        for side, kernel, stride, dilation, begin, end in self._axes():
            room = side + begin + end - (dilation * (kernel - 1) + 1)
            count = room // stride + 1
            if self.ceil and room >= 0:
                count = -(-room // stride) + 1
                count -= (count - 1) * stride >= side + begin
            counts.append(count)
        return tuple(counts)

    def padding(self) -> tuple[int, ...]:
        """(begin, end, ...) from the last axis to the first, as ``functional.pad`` takes it, with what ``ceil`` reaches over."""
        found: list[int] = []
        for (side, kernel, stride, dilation, begin, end), count in reversed(list(zip(self._axes(), self.outputs(), strict=True))):
            reach = (count - 1) * stride + dilation * (kernel - 1) + 1
            found += [begin, max(end, reach - side - begin)]
        return tuple(found)

    def symmetric(self) -> bool:
        """Whether torch's own padding of a layer says the same."""
        padding = self.padding()
        return self.begins == self.ends and padding[::2] == padding[1::2]

    def covered(self, axis: int, with_padding: bool) -> list[int]:
        """How many cells each window covers along ``axis``: of the input, or of input and padding (never what lies beyond)."""
        side, kernel, stride, _, begin, end = list(self._axes())[axis]
        low, high = (0, begin + side + end) if with_padding else (begin, begin + side)
        starts = (index * stride for index in range(self.outputs()[axis]))
        return [min(start + kernel, high) - max(start, low) for start in starts]

    def _axes(self) -> Sequence[tuple[int, ...]]:
        fields = (self.sides, self.kernel, self.strides, self.dilations, self.begins, self.ends)
        return list(zip(*fields, strict=True))


class Padded(nn.Module):
    """``layer`` behind a padding with zeros, which may be uneven: ``padding`` as in ``functional.pad``."""

    def __init__(self, padding: tuple[int, ...], layer: nn.Module) -> None:
        super().__init__()
        self.padding = padding
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *sides) -> output of the layer."""
        outputs: Tensor = self.layer(functional.pad(inputs, self.padding))
        return outputs


class AveragePool(nn.Module):
    """Mean over the cells that a window covers: of the input alone, or (``with_padding``) of input and padding."""

    counts: Tensor

    def __init__(self, window: Window, with_padding: bool) -> None:
        super().__init__()
        self.window = window
        counts = torch.ones(())
        for axis in range(len(window.sides)):
            along = torch.tensor(window.covered(axis, with_padding), dtype=torch.float32)
            counts = counts.unsqueeze(-1) * along
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *sides) -> (B, C, *windows)."""
        padded = functional.pad(inputs, self.window.padding())
        pool = functional.avg_pool1d if len(self.window.sides) == 1 else functional.avg_pool2d
        mean: Tensor = pool(padded, self.window.kernel, self.window.strides)
        return mean * (math.prod(self.window.kernel) / self.counts)


class MaxPool(nn.Module):
    """Largest value that a window covers; padding never wins."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *sides) -> (B, C, *windows)."""
        window = self.window
        padded = functional.pad(inputs, window.padding(), value=-math.inf)
        pool = functional.max_pool1d if len(window.sides) == 1 else functional.max_pool2d
        largest: Tensor = pool(padded, window.kernel, window.strides, 0, window.dilations)
        return largest


class SpatialMean(nn.Module):
    """Mean over all spatial axes; ``keep`` leaves them with size 1."""

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, *sides) -> (B, C, 1, ...) or (B, C)."""
        return inputs.mean(dim=tuple(range(2, inputs.ndim)), keepdim=self.keep)


class FixedNorm(nn.Module):
    """Batch normalisation as it is after training: y = (x - mean) / sqrt(variance + epsilon) * weight + bias per channel.

    It never takes the statistics of a batch, also where the module that holds it is set to training.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        return functional.batch_norm(inputs, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.epsilon)


class Clip(nn.Module):
    """Values held between ``low`` and ``high``; None leaves that side open."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> the same shape."""
        return inputs if self.low is None and self.high is None else inputs.clamp(self.low, self.high)


class Sum(nn.Module):
    """Sum of two activations."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two activations of one rank -> their sum."""
        return first + second


class Offset(nn.Module):
    """A constant added to an activation."""

    def __init__(self, constant: Tensor) -> None:
        super().__init__()
        self.constant = nn.Parameter(constant)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return inputs + self.constant


class Reshaped(nn.Module):
    """The values of each sample in another ``shape``, sample by sample."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, *shape)."""
        return inputs.reshape(inputs.shape[0], *self.shape)
