"""Linear nodes as matrices, and two of them as one.

A chain of linear layers between two populations is one linear map. Where it is a convolution again it stays one: pooling is a
convolution of every channel by itself, and a convolution of a convolution has the kernel

    K[o, c, u] = sum_m sum_j B[o, m, j] A[m, c, u - j s_A]        stride s_A s_B, padding p_A + p_B s_A

That is exact unless B pads: B's padding stands for zeros, where K would see whatever part of A's windows still lies on the
image. Everything else is a sparse matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from snn_export.export.graph import CONV_TYPES, POOL_TYPES, Shape, conv_padding, pair, per_axis, unsupported

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Window:
    """A convolution, or a pooling as the convolution it is.

    kernel (out, in/groups, *sizes) without dilation (spread with zeros); stride per axis; padding before and after each axis;
    given and made are the spatial shapes of its input and output.
    """

    kernel: Array
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    given: Shape
    made: Shape


def window_of(node: nir.NIRNode, given: Shape, made: Shape) -> Window | None:
    """A Conv1d, Conv2d, AvgPool2d or SumPool2d as a window; None for any other node. Shapes with channels."""
    if isinstance(node, CONV_TYPES):
        axes = node.weight.ndim - 2
        stride, dilation = per_axis(node.stride, axes), per_axis(node.dilation, axes)
        kernel = _spread(np.asarray(node.weight, np.float64), dilation)
        return Window(kernel, stride, conv_padding(node), int(node.groups), given[1:], made[1:])
    if isinstance(node, POOL_TYPES):
        size, padding = pair(node.kernel_size), pair(node.padding)
        weight = 1.0 / (size[0] * size[1]) if isinstance(node, nir.AvgPool2d) else 1.0
        kernel = np.full((given[0], 1, *size), weight)
        return Window(kernel, pair(node.stride), tuple((p, p) for p in padding), given[0], given[1:], made[1:])
    return None


def convolution(window: Window, bias: Array) -> nir.NIRNode | None:
    """The NIR node of a window; None where it would be padded unevenly, which NIR cannot say."""
    axes = len(window.stride)
    before = tuple(first for first, _ in window.padding)
    sizes = zip(window.given, before, window.kernel.shape[2:], window.stride, strict=True)
    if tuple((size + 2 * pad - k) // stride + 1 for size, pad, k, stride in sizes) != window.made:
        return None
    one = axes == 1
    return (nir.Conv1d if one else nir.Conv2d)(
        input_shape=window.given[0] if one else window.given,
        weight=window.kernel,
        stride=window.stride[0] if one else window.stride,
        padding=before[0] if one else before,
        dilation=1 if one else (1, 1),
        groups=window.groups,
        bias=bias,
    )


def composed(first: Window, then: Window) -> Window | None:
    """``then`` after ``first`` as one window; None where that would not be exact, for the reason in the module's docstring."""
    for axis, (before, after) in enumerate(then.padding):
        # Where `then` reads zeros, the composed kernel reads on through `first`: the nearest window behind the last one must
        # start behind the image, and the nearest before the first one must end before it.
        step, front = first.stride[axis], first.padding[axis][0]
        if after and first.made[axis] * step - front < first.given[axis]:
            return None
        if before and first.kernel.shape[2 + axis] > step + front:
            return None
    a, b, groups, inputs = _joined_groups(first, then)
    sizes = tuple((k_b - 1) * step + k_a for k_a, k_b, step in zip(a.shape[2:], b.shape[2:], first.stride, strict=True))
    kernel = np.zeros((b.shape[0], inputs, *sizes))
    for offset in product(*map(range, b.shape[2:])):
        here: Any = (..., *(slice(o * s, o * s + k) for o, s, k in zip(offset, first.stride, a.shape[2:], strict=True)))
        kernel[here] += _product(a, _at(b, offset), groups, inputs)
    padding = tuple(
        (p_a[0] + p_b[0] * s, p_a[1] + p_b[1] * s) for p_a, p_b, s in zip(first.padding, then.padding, first.stride, strict=True)
    )
    stride = tuple(s_a * s_b for s_a, s_b in zip(first.stride, then.stride, strict=True))
    return Window(kernel, stride, padding, groups, first.given, then.made)


def _at(kernel: Array, offset: tuple[int, ...]) -> Array:
    """Weights (out, in/groups) at one position of a kernel."""
    index: Any = (..., *offset)
    return np.asarray(kernel[index])


def _by_channel(window: Window) -> bool:
    """True where every channel is treated by itself."""
    return bool(window.kernel.shape[1] == 1 and window.groups == window.kernel.shape[0])


def _joined_groups(first: Window, then: Window) -> tuple[Array, Array, int, int]:
    """Both kernels, the groups of their composition and its input channels per group: few, where a kernel has groups."""
    if _by_channel(first):
        return first.kernel, then.kernel, then.groups, then.kernel.shape[1]
    if _by_channel(then) or first.groups == then.groups:
        return first.kernel, then.kernel, first.groups, first.kernel.shape[1]
    a, b = _ungrouped(first.kernel, first.groups), _ungrouped(then.kernel, then.groups)
    return a, b, 1, a.shape[1]


def _product(a: Array, b: Array, groups: int, inputs: int) -> Array:
    """One offset of the composed kernel, (out, in/groups, *sizes of a); b is (out, mid/groups)."""
    out, mid, ones = b.shape[0], a.shape[0], (1,) * (a.ndim - 2)
    if b.shape[1] == 1 and out == mid:  # the second treats every channel by itself: out = mid
        return np.asarray(a * b.reshape(out, 1, *ones))
    if mid == groups * inputs and a.shape[1] == 1:  # the first does: mid = in
        parts, weights = a.reshape(groups, 1, inputs, *a.shape[2:]), b.reshape(groups, out // groups, inputs, *ones)
        return np.asarray((parts * weights).reshape(out, inputs, *a.shape[2:]))
    left, right = b.reshape(groups, out // groups, mid // groups), a.reshape(groups, mid // groups, -1)
    return np.asarray(np.matmul(left, right).reshape(out, inputs, *a.shape[2:]))


def _spread(kernel: Array, dilation: tuple[int, ...]) -> Array:
    """A dilated kernel written out, zeros between its weights."""
    if all(step == 1 for step in dilation):
        return kernel
    sizes = [(k - 1) * step + 1 for k, step in zip(kernel.shape[2:], dilation, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *sizes), kernel.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, step) for step in dilation))] = kernel
    return wide


def _ungrouped(kernel: Array, groups: int) -> Array:
    """A grouped kernel as one over all input channels, (out, in, *sizes)."""
    if groups == 1:
        return kernel
    out, per_group = kernel.shape[:2]
    wide = np.zeros((out, per_group * groups, *kernel.shape[2:]), kernel.dtype)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        wide[rows, group * per_group : (group + 1) * per_group] = kernel[rows]
    return wide


def matrix(name: str, node: nir.NIRNode, given: Shape, made: Shape) -> sparse.csr_array:
    """The linear part of a node on flattened features, (outputs, inputs), without its bias.

    Raises:
        UserError: SNX201 for a node that is not linear.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        return sparse.csr_array(np.asarray(node.weight, np.float64))
    if isinstance(node, nir.Scale):
        return sparse.csr_array(sparse.diags_array(np.broadcast_to(node.scale, given).astype(np.float64).ravel()))
    window = window_of(node, given, made)
    if window is None:
        raise unsupported(name, node)
    return _window_matrix(window)


def _window_matrix(window: Window) -> sparse.csr_array:
    """Sum over kernel positions of (channel weights) x (which input position each output position reads there)."""
    kernel = _ungrouped(window.kernel, window.groups)
    total = sparse.csr_array((kernel.shape[0] * _count(window.made), kernel.shape[1] * _count(window.given)))
    for offset in product(*map(range, kernel.shape[2:])):
        weights = _at(kernel, offset)
        if np.any(weights):
            total = total + sparse.kron(sparse.csr_array(weights), _reads(window, offset), format="csr")
    return total


def synapse_count(window: Window) -> int:
    """Synapses of a window written out as a matrix: weights that are not zero, at every position where they read the input."""
    kernel, total = _ungrouped(window.kernel, window.groups), 0
    places = [
        [int(np.count_nonzero(_readers_at(window, axis, o) >= 0)) for o in range(size)]
        for axis, size in enumerate(kernel.shape[2:])
    ]
    for offset in product(*map(range, kernel.shape[2:])):
        read = prod(places[axis][o] for axis, o in enumerate(offset))
        total += read * int(np.count_nonzero(_at(kernel, offset)))
    return total


def multiplications(node: nir.NIRNode, given: Shape, made: Shape) -> int:
    """Multiplications of a node with one input, zeros included and padding not; 0 for what has no weights, and for a Scale."""
    if isinstance(node, CONV_TYPES):
        window = window_of(node, given, made)
        if window is None:
            raise ValueError(f"a convolution without a window: {type(node).__name__}")
        ones = _spread(np.ones_like(node.weight), per_axis(node.dilation, node.weight.ndim - 2))
        return synapse_count(replace(window, kernel=ones))
    return int(node.weight.size) if isinstance(node, nir.Linear | nir.Affine) else 0


def _readers_at(window: Window, axis: int, position: int) -> NDArray[np.int64]:
    """(inputs,) along an axis: the output that reads an input through one position of the kernel, which is spread already."""
    before = window.padding[axis][0] - position
    return axis_readers(window.given[axis], window.made[axis], 1, window.stride[axis], 1, before).reshape(-1)


def _reads(window: Window, offset: tuple[int, ...]) -> sparse.csr_array:
    """(output positions, input positions): 1 where the output reads the input with the kernel's weight at ``offset``."""
    result = sparse.csr_array(np.ones((1, 1)))
    for axis, o in enumerate(offset):
        readers = _readers_at(window, axis, o)
        read = np.flatnonzero(readers >= 0)
        shape = (window.made[axis], window.given[axis])
        one = sparse.csr_array((np.ones(len(read)), (readers[read], read)), shape=shape)
        result = sparse.kron(result, one, format="csr")
    return result


def axis_readers(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, padding: int) -> NDArray[np.int64]:
    """Along one axis of a convolution, the output that reads an input through a kernel position.

    Output o reads input ``r = o stride + k dilation - padding`` through position k, so there is at most one for every r and k.
    What the border cuts off is not there: sums over a row, a column or all of it count synapses exactly.

    Args:
        inputs: positions of the input.
        outputs: positions of the output.
        kernel: positions of the kernel.
        stride: inputs from one output to the next.
        dilation: inputs from one kernel position to the next.
        padding: zeros in front of the first input.

    Returns:
        (kernel, inputs), -1 where no output reads.
    """
    offset = np.arange(inputs)[None] + padding - np.arange(kernel)[:, None] * dilation
    output, rest = np.divmod(offset, stride)
    readers: NDArray[np.int64] = np.where((rest == 0) & (output >= 0) & (output < outputs), output, -1).astype(np.int64)
    return readers


def conv_readers(node: nir.Conv1d | nir.Conv2d, given: Shape, made: Shape) -> tuple[NDArray[np.int64], ...]:
    """Of every spatial axis of a convolution, :func:`axis_readers`. given, made: shapes with channels."""
    axes, kernel = len(given) - 1, node.weight.shape[2:]
    stride, dilation, padding = per_axis(node.stride, axes), per_axis(node.dilation, axes), conv_padding(node)
    return tuple(
        axis_readers(given[1 + axis], made[1 + axis], kernel[axis], stride[axis], dilation[axis], padding[axis][0])
        for axis in range(axes)
    )


def _count(shape: Shape) -> int:
    return int(np.prod(shape))
