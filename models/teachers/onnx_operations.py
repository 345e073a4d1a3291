"""The operations of ONNX that a teacher may use, one by one, as torch modules.

Each function takes a :class:`Node` whose constants are numbers already and returns the module that maps its activations to its
output, with the shape of that output. A form that a teacher cannot have - a norm in training, a reshape across samples - is
refused, and the node named.

Source: the ONNX operator specification, https://onnx.ai/onnx/operators/, operator sets 7 to 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.onnx_layers import (
    AveragePool,
    Clip,
    FixedNorm,
    MaxPool,
    Offset,
    Padded,
    Reshaped,
    SpatialMean,
    Sum,
    Window,
)

SIZE_LIMIT = 1 << 16
"""Largest kernel, stride, dilation or padding: beyond lies no network, only a damaged file."""
VALUES_LIMIT = 1 << 28
"""Most values that one sample may have between two layers (1 GiB of float32)."""

OPSET_AXES_AS_INPUT = 18
"""From this operator set on ReduceMean takes its axes as an input."""


Made = tuple[nn.Module | None, tuple[int, ...]]
"""A module and the shape of its output for one sample; None in place of a module that passes its input on."""


@dataclass(frozen=True)
class Node:
    """A node of an ONNX graph.

    Attributes:
        name: that the user sees.
        operation: its type.
        opset: version of the operator set it was written for.
        attributes: of the node, as Python values.
        constants: one entry per input: its value where it is a constant, None where it is an activation or left out.
        shapes: one entry per input: its shape without the batch where it is an activation, else None.
        batch: number of samples that the file was written for; None where it leaves that open.
        outputs: how many of its outputs are used.
    """

    name: str
    operation: str
    opset: int
    attributes: Mapping[str, Any]
    constants: tuple[NDArray[Any] | None, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    batch: int | None
    outputs: int = 1

    def refused(self, what: str, fix: str) -> UserError:
        """SNX271: this form of the operation cannot be read."""
        return UserError(
            "SNX271", f"{self.operation} '{self.name}' {what}", where=self.name,
            why="a teacher is a plain feed-forward network in evaluation mode, read exactly or not at all", fix=fix,
        )  # fmt: skip

    def mixes(self, what: str) -> UserError:
        """SNX277: the operation mixes samples."""
        return UserError(
            "SNX277", f"{self.operation} '{self.name}' {what}", where=self.name,
            why="each sample of a batch must be answered for itself, whatever the size of the batch",
            fix="export with a batch of one sample, or with its size left open, and flatten with axis 1",
        )  # fmt: skip

    def invalid(self, what: str) -> UserError:
        """SNX151: the numbers of the node are none that the operation can have."""
        return UserError(
            "SNX151", f"{self.operation} '{self.name}' {what}", where=self.name,
            why="the file contradicts itself or the standard",
            fix="export the model again; onnx.checker and onnxruntime tell more about the file",
        )  # fmt: skip

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """Shape of an input that must be an activation."""
        found = self.shapes[position] if position < len(self.shapes) else None
        if found is None:
            raise self.refused(
                f"takes a constant as input {position}", "fold constants before the export, for instance with onnxsim"
            )
        return found

    def optional(self, position: int) -> NDArray[Any] | None:
        """Value of an input that is constant or left out."""
        if position >= len(self.constants):
            return None
        if self.shapes[position] is not None:
            raise self.refused(f"computes its input {position} from the data", "keep weights and sizes as constants of the file")
        return self.constants[position]

    def array(self, position: int) -> NDArray[Any]:
        """Value of an input that must be a constant."""
        found = self.optional(position)
        if found is None:
            raise self.invalid(f"has no input {position}")
        return found

    def weights(self, position: int) -> Tensor:
        """Constant input as float32, with at least one value, all of them finite."""
        found = self.array(position)
        if found.dtype != np.float32:
            raise self.refused(f"holds weights of type {found.dtype}", "export the model in float32")
        if found.size == 0 or not np.isfinite(found).all():
            raise self.invalid(f"has an input {position} that is empty or holds NaN or infinity")
        return torch.from_numpy(found.copy())

    def integers(self, position: int) -> tuple[int, ...]:
        """Constant input as whole numbers."""
        found = self.array(position)
        if found.dtype.kind != "i" or found.ndim > 1 or found.size > 16:
            raise self.invalid(f"has sizes {found.shape} of type {found.dtype} as input {position}")
        return tuple(int(value) for value in found.reshape(-1))

    def sizes(self, key: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
        """Attribute with one whole number per entry of ``default``, from ``least`` to SIZE_LIMIT."""
        found = tuple(int(value) for value in self.attributes.get(key, default))
        if len(found) != len(default) or min(found) < least or max(found) > SIZE_LIMIT:
            raise self.invalid(f"has {key} = {list(found)}: {len(default)} numbers from {least} to {SIZE_LIMIT} are expected")
        return found


# --- layers with weights -----------------------------------------------------------------------------------------------


def _conv(node: Node) -> Made:
    shape, weight = node.shape(), node.weights(1)
    axes = len(shape) - 1
    if axes not in (1, 2) or weight.ndim != axes + 2:
        raise node.refused(
            f"has an input of shape {shape} and weights of shape {tuple(weight.shape)}", "use 1-D or 2-D convolutions"
        )
    kernel = tuple(weight.shape[2:])
    if node.sizes("kernel_shape", kernel, 1) != kernel:
        raise node.invalid(f"has kernel_shape {node.attributes['kernel_shape']} and weights of shape {tuple(weight.shape)}")
    window = _window(node, kernel)
    groups = int(node.attributes.get("group", 1))
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != shape[0]:
        raise node.invalid(f"has {groups} groups, {shape[0]} channels and weights of shape {tuple(weight.shape)}")
    bias = node.weights(2) if node.optional(2) is not None else None
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    layer: nn.Conv1d | nn.Conv2d = kind(
        shape[0], weight.shape[0], kernel, window.strides, window.begins if window.symmetric() else 0,  # type: ignore[arg-type]
        window.dilations, groups, bias is not None, device="meta",  # type: ignore[arg-type]
    )  # fmt: skip
    _give(node, layer, weight, bias)
    made = layer if window.symmetric() else Padded(window.padding(), layer)
    return made, (len(weight), *window.outputs())


def _gemm(node: Node) -> Made:
    shape, weight = node.shape(), node.weights(1)
    if node.attributes.get("transA", 0):
        raise node.refused("transposes its first input", "keep the samples in the first axis")
    if len(shape) != 1 or weight.ndim != 2:
        raise node.invalid(f"has an input of shape {shape} and weights of shape {tuple(weight.shape)}: both are matrices")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    bias = node.weights(2) if node.optional(2) is not None else None
    if bias is not None:
        bias = float(node.attributes.get("beta", 1.0)) * _per_output(node, bias, len(weight))
    return _linear(node, float(node.attributes.get("alpha", 1.0)) * weight, bias)


def _matmul(node: Node) -> Made:
    weight = node.weights(1)
    if weight.ndim != 2:
        raise node.refused(f"multiplies by an array of shape {tuple(weight.shape)}", "multiply by one matrix (in, out)")
    return _linear(node, weight.T, None)


def _linear(node: Node, weight: Tensor, bias: Tensor | None) -> Made:
    shape = node.shape()
    if shape[-1:] != weight.shape[1:]:
        raise node.invalid(f"has an input of shape {shape} and weights for {weight.shape[1]} values")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    _give(node, layer, weight.contiguous(), bias)
    return layer, (*shape[:-1], len(weight))


def _give(node: Node, layer: nn.Conv1d | nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Put weights in the place of a layer's meta tensors."""
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise node.invalid(f"has {weight.shape[0]} outputs and a bias of shape {tuple(bias.shape)}")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)


def _per_output(node: Node, bias: Tensor, outputs: int) -> Tensor:
    """A bias (outputs,) of one that has ones as leading sizes, or is one number for all."""
    if bias.numel() not in (1, outputs) or (bias.ndim and bias.shape[-1] != bias.numel()):
        raise node.refused(f"has a bias of shape {tuple(bias.shape)}", "give one bias per output")
    return bias.reshape(-1).expand(outputs).clone()


def with_bias(layer: object, node: Node, position: int) -> bool:
    """Whether the constant of an Add is the bias of the MatMul in front of it; if so ``layer`` has it from now on."""
    constant = node.optional(position)
    if constant is None or not isinstance(layer, nn.Linear) or "bias" in dict(layer.named_parameters()):
        return False
    if constant.size != layer.out_features or constant.ndim > 2 or constant.shape[-1:] != (layer.out_features,):
        return False
    layer.bias = nn.Parameter(node.weights(position).reshape(-1))
    return True


def _norm(node: Node) -> Made:
    if node.attributes.get("training_mode", 0) or node.outputs > 1:
        raise node.refused("is in training mode", "export the model in evaluation mode")
    if not node.attributes.get("spatial", 1):
        raise node.refused("normalises each position for itself", "normalise per channel (spatial=1)")
    parts = weight, bias, mean, variance = node.weights(1), node.weights(2), node.weights(3), node.weights(4)
    shape, epsilon = node.shape(), float(node.attributes.get("epsilon", 1e-5))
    if any(tuple(part.shape) != shape[:1] for part in parts) or not 0 <= epsilon < math.inf:
        raise node.invalid(f"has epsilon = {epsilon:g} and parameters of shapes {[tuple(part.shape) for part in parts]}")
    if bool((variance + epsilon <= 0).any()):
        raise node.invalid("has a variance that is not positive")
    return FixedNorm(weight, bias, mean, variance, epsilon), shape


# --- windows -----------------------------------------------------------------------------------------------------------


def _window(node: Node, kernel: tuple[int, ...]) -> Window:
    """Strides, dilations and padding of a convolution or a pool over the input of the node."""
    channels, *sides = node.shape()
    ones = (1,) * len(sides)
    strides, dilations = node.sizes("strides", ones, 1), node.sizes("dilations", ones, 1)
    pads = node.sizes("pads", (0,) * (2 * len(sides)), 0)
    mode = _text(node.attributes.get("auto_pad", "NOTSET"))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(sides, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    elif mode == "VALID":
        pads = (0,) * (2 * len(sides))
    elif mode != "NOTSET":
        raise node.invalid(f"has auto_pad = {mode}")
    begins, ends = pads[: len(sides)], pads[len(sides) :]
    window = Window(tuple(sides), kernel, strides, dilations, begins, ends, bool(node.attributes.get("ceil_mode", 0)))
    if min(window.outputs()) < 1:
        raise node.invalid(f"has a kernel {list(kernel)} that is larger than its input {sides} with padding {list(pads)}")
    padding = window.padding()
    padded = [side + before + behind for side, before, behind in zip(sides, padding[-2::-2], padding[-1::-2], strict=True)]
    if math.prod((channels, *padded)) > VALUES_LIMIT:
        raise node.invalid(f"pads its input to {padded}")
    return window


def _same(
    sides: list[int], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], upper: bool
) -> tuple[int, ...]:
    """Padding for which there are ceil(side / stride) windows; what is odd goes behind (upper) or before the input."""
    totals = [
        max((-(-side // stride) - 1) * stride + dilation * (size - 1) + 1 - side, 0)
        for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if upper else (*large, *small)


def _pool_window(node: Node) -> Window:
    axes = len(node.shape()) - 1
    if axes not in (1, 2):
        raise node.refused(f"has an input of shape {node.shape()}", "pool over one or two axes")
    if "kernel_shape" not in node.attributes:
        raise node.invalid("has no kernel_shape")
    window = _window(node, node.sizes("kernel_shape", (1,) * axes, 1))
    if any(pad >= size for pads in (window.begins, window.ends) for pad, size in zip(pads, window.kernel, strict=True)):
        raise node.invalid(f"pads as much as its kernel {list(window.kernel)} covers")
    return window


def _average_pool(node: Node) -> Made:
    window, with_padding = _pool_window(node), bool(node.attributes.get("count_include_pad", 0))
    shape = (node.shape()[0], *window.outputs())
    if max(window.dilations) > 1:
        raise node.refused(f"has dilations {list(window.dilations)}", "average over a window without gaps")
    if not any(window.padding()):
        kind = nn.AvgPool1d if len(window.sides) == 1 else nn.AvgPool2d
        return kind(window.kernel, window.strides), shape  # type: ignore[arg-type]
    return AveragePool(window, with_padding), shape


def _max_pool(node: Node) -> Made:
    if node.outputs > 1:
        raise node.refused("also gives the indices of its maxima", "use its first output only")
    window = _pool_window(node)
    shape = (node.shape()[0], *window.outputs())
    if not any(window.padding()):
        kind = nn.MaxPool1d if len(window.sides) == 1 else nn.MaxPool2d
        return kind(window.kernel, window.strides, 0, window.dilations), shape
    return MaxPool(window), shape


def _global_average(node: Node) -> Made:
    shape = node.shape()
    if len(shape) < 2:
        raise node.invalid(f"has an input of shape {shape}")
    return SpatialMean(keep=True), (shape[0], *(1 for _ in shape[1:]))


def _reduce_mean(node: Node) -> Made:
    shape = node.shape()
    rank = len(shape) + 1
    if node.opset >= OPSET_AXES_AS_INPUT:
        axes = node.integers(1) if node.optional(1) is not None else ()
    else:
        axes = tuple(node.attributes.get("axes", ()))
    if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        raise node.refused(f"takes the mean over axes {list(axes)} of {rank}", "take the mean over all spatial axes, no other")
    keep = bool(node.attributes.get("keepdims", 1))
    return SpatialMean(keep), (shape[0], *(1 for _ in shape[1:] if keep))


# --- without weights -----------------------------------------------------------------------------------------------------


def _relu(node: Node) -> Made:
    return nn.ReLU(), node.shape()


def _clip(node: Node) -> Made:
    low, high = (_bound(node, position, key) for position, key in ((1, "min"), (2, "max")))
    if low is not None and high is not None and low > high:
        raise node.invalid(f"holds values between {low:g} and {high:g}")
    return nn.ReLU() if (low, high) == (0.0, None) else Clip(low, high), node.shape()


def _bound(node: Node, position: int, key: str) -> float | None:
    """A bound of Clip: an attribute up to operator set 10, an input from 11 on."""
    constant = node.optional(position)
    if constant is not None and (constant.size != 1 or constant.dtype.kind != "f"):
        raise node.invalid(f"has a bound {key} of shape {constant.shape} and type {constant.dtype}")
    value = node.attributes.get(key) if constant is None else constant.reshape(())[()]
    if value is None:
        return None
    if math.isnan(float(value)):
        raise node.invalid(f"has a bound {key} that is no number")
    return float(value)


def _add(node: Node) -> Made:
    given = [shape for shape in node.shapes if shape is not None]
    if len(given) == 2:
        if len(given[0]) != len(given[1]):
            raise node.mixes(f"adds activations of shapes {given[0]} and {given[1]}, whose samples do not lie in one axis")
        return Sum(), _broadcast(node, *given)
    if not given:
        node.shape()
    constant = node.weights(1 if node.shapes[0] is not None else 0)
    if constant.ndim > len(given[0]) and (constant.ndim > len(given[0]) + 1 or constant.shape[0] != 1):
        raise node.mixes(f"adds a constant of shape {tuple(constant.shape)} across the samples")
    return Offset(constant), _broadcast(node, given[0], tuple(constant.shape)[-len(given[0]) :] if given[0] else ())


def _broadcast(node: Node, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(first, second)
    except ValueError as error:
        raise node.invalid(f"cannot add {first} and {second}") from error


def _flatten(node: Node) -> Made:
    rank, axis = len(node.shape()) + 1, int(node.attributes.get("axis", 1))
    if axis not in (1, 1 - rank):
        raise node.mixes(f"has axis {axis}")
    return nn.Flatten(), (math.prod(node.shape()),)


def _reshape(node: Node) -> Made:
    shape, target = node.shape(), node.integers(1)
    if node.attributes.get("allowzero", 0) and 0 in target:
        raise node.invalid(f"makes {list(target)}, which holds nothing")
    own = {0, -1} | ({node.batch} if node.batch is not None else set())
    if not target or target[0] not in own or target.count(-1) > 1:
        raise node.mixes(f"makes {list(target)} of a batch of {shape}")
    sizes = [shape[index] if size == 0 and index < len(shape) else size for index, size in enumerate(target[1:])]
    values, known = math.prod(shape), math.prod(size for size in sizes if size != -1)
    if known > 0 and -1 in sizes:
        sizes[sizes.index(-1)] = values // known
    if min(sizes, default=1) < 1 or math.prod(sizes) != values:
        raise node.mixes(f"makes {list(target)} of a batch of {shape}")
    return Reshaped(tuple(sizes)), tuple(sizes)


def _identity(node: Node) -> Made:
    return None, node.shape()


def _dropout(node: Node) -> Made:
    training = node.optional(2)
    if node.outputs > 1 or (training is not None and bool(training.any())):
        raise node.refused("is in training mode", "export the model in evaluation mode")
    return None, node.shape()


def _cast(node: Node) -> Made:
    if int(node.attributes.get("to", 0)) != 1:  # TensorProto.FLOAT: the type of all activations here
        raise node.refused("changes the type of activations", "export the model in float32")
    return None, node.shape()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


OPERATIONS: dict[str, Callable[[Node], Made]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
}
"""From the type of a node to the function that makes its module."""
