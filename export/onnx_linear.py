"""The linear nodes of NIR as ONNX nodes: what ``export/linear.py`` does, on values of a graph.

onnxruntime convolves in float32 only. In float64 a convolution is the matrix product it is: one Gather collects what each
output position reads, MatMul sums it.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import CONV_TYPES, POOL_TYPES, Shape, conv_padding, pair, per_axis, unsupported
from snn_export.export.onnx_graph import Graph, Value

Array = NDArray[Any]


def apply(graph: Graph, name: str, node: nir.NIRNode, x: Value, given: Shape, made: Shape, weight: Array | None) -> Value:
    """One linear node without its bias, on x (N, *given); the result is (N, *made), in the numbers of x.

    Args:
        graph: gets the nodes.
        name: of the NIR node.
        node: supplies geometry.
        x: float32 or float64.
        given: features before.
        made: features behind.
        weight: of a node that has one.

    Raises:
        UserError: SNX201 for a node that is not linear.
    """
    if isinstance(node, nir.Flatten):
        return graph.reshaped(x, made)
    if isinstance(node, POOL_TYPES):
        return _pool(graph, node, x, given, made)
    if weight is not None and isinstance(node, nir.Affine | nir.Linear):
        return graph.node("MatMul", x, graph.constant(weight.T, x.dtype, f"{name}.weight"))
    if weight is not None and isinstance(node, CONV_TYPES):
        axes = weight.ndim - 2
        window = Window(per_axis(node.stride, axes), per_axis(node.dilation, axes), conv_padding(node), int(node.groups))
        return _convolve(graph, name, window, x, weight, given, made)
    if weight is not None and isinstance(node, nir.Scale):
        scale = np.asarray(weight)
        return graph.node("Mul", x, graph.constant(scale.reshape(-1)[0] if scale.size == 1 else scale, x.dtype, f"{name}.scale"))
    raise unsupported(name, node)


class Window:
    """Geometry of a convolution: one number per spatial axis, padding before and after it."""

    def __init__(
        self, stride: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[tuple[int, int], ...], groups: int
    ) -> None:
        self.stride, self.dilation, self.padding, self.groups = stride, dilation, padding, groups

    @property
    def pads(self) -> list[int]:
        """Padding as ONNX lists it: before every axis, then behind every axis."""
        return [before for before, _ in self.padding] + [after for _, after in self.padding]


def _pool(graph: Graph, node: nir.AvgPool2d | nir.SumPool2d, x: Value, given: Shape, made: Shape) -> Value:
    """A sum over windows of every channel by itself; an average divides it, zeros of the padding included."""
    size, padding = pair(node.kernel_size), pair(node.padding)
    window = Window(pair(node.stride), (1, 1), tuple((p, p) for p in padding), given[0])
    total = _convolve(graph, "pool", window, x, np.ones((given[0], 1, *size)), given, made)
    return graph.node("Div", total, graph.constant(prod(size), x.dtype)) if isinstance(node, nir.AvgPool2d) else total


def _convolve(graph: Graph, name: str, window: Window, x: Value, weight: Array, given: Shape, made: Shape) -> Value:
    if x.dtype == np.float64:
        return _gathered(graph, name, window, x, weight, given, made)
    attributes = {
        "pads": window.pads, "strides": list(window.stride), "dilations": list(window.dilation), "group": window.groups,
        "kernel_shape": list(weight.shape[2:]),
    }  # fmt: skip
    return graph.node("Conv", x, graph.constant(weight, x.dtype, f"{name}.weight"), attributes=attributes)


def _gathered(graph: Graph, name: str, window: Window, x: Value, weight: Array, given: Shape, made: Shape) -> Value:
    """A convolution as a matrix product, (N, groups, out/groups, positions) = W (groups, out/groups, k) times what is read."""
    channels, groups = given[0], window.groups
    if any(window.pads):
        axes = len(window.stride)
        pads = [0, 0, *window.pads[:axes], 0, 0, *window.pads[axes:]]
        x = graph.node("Pad", x, graph.constant(pads, np.int64))
    padded = tuple(size + sum(pad) for size, pad in zip(given[1:], window.padding, strict=True))
    flat = graph.reshaped(x, (channels, prod(padded)))
    places = graph.constant(_places(window, padded, weight.shape[2:], made[1:]), np.int64)
    read = graph.node("Gather", flat, places, attributes={"axis": 2})
    columns = graph.reshaped(read, (groups, weight[0].size, prod(made[1:])))
    matrix = graph.constant(weight.reshape(groups, len(weight) // groups, -1), x.dtype, f"{name}.weight")
    return graph.reshaped(graph.node("MatMul", matrix, columns, hint="conv"), made)


def _places(window: Window, padded: Shape, kernel: Shape, positions: Shape) -> NDArray[np.int64]:
    """(kernel positions, output positions): which of the flattened padded input an output reads there."""
    found = []
    for offset in product(*map(range, kernel)):
        index: NDArray[np.int64] = np.zeros((), np.int64)
        for axis, o in enumerate(offset):
            line = np.arange(positions[axis]) * window.stride[axis] + o * window.dilation[axis]
            index = index[..., None] * padded[axis] + line
        found.append(index.ravel())
    return np.stack(found)
