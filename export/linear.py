"""The linear nodes of NIR in NumPy: exact for integers, plain float64 otherwise.

Every function takes and returns (N, *features); N is any flattened mix of time and batch. Integer input with integer
weights is summed in int64, so results are exact. Loops run over kernel positions, never over samples.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import conv_padding, pair, per_axis, unsupported

Array = NDArray[Any]


def apply(name: str, node: nir.NIRNode, x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
    """One linear node on (N, *features).

    Args:
        name: node name, for errors.
        node: the NIR node; supplies geometry, and weight and bias where they are not given.
        x: (N, *features), float64 or int64.
        weight: replaces the node's weight (same shape): integers, or magnitudes for an error bound.
        bias: replaces the node's bias, (out,); pass zeros to leave it out.

    Raises:
        UserError: SNX201 for a node that is not linear.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        w = node.weight if weight is None else weight
        given = node.bias if isinstance(node, nir.Affine) and bias is None else bias
        product: Array = x @ w.T
        return product if given is None else np.asarray(product + given)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _convolve(node, x, node.weight if weight is None else weight, node.bias if bias is None else bias)
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        return _pool(node, x)
    if isinstance(node, nir.Flatten):
        return _flatten(node, x)
    if isinstance(node, nir.Scale):
        return np.asarray(x * (node.scale if weight is None else weight))
    raise unsupported(name, node)


def _convolve(node: nir.Conv1d | nir.Conv2d, x: Array, weight: Array, bias: Array | None) -> Array:
    """Cross-correlation as torch and NIR define it; weight (out, in/groups, kH, kW), a Conv1d as one with a single row."""
    stride, dilation, padding = per_axis(node.stride, 2), per_axis(node.dilation, 2), conv_padding(node)
    if isinstance(node, nir.Conv1d):
        flat = _convolve_maps(
            x[:, :, None], weight[:, :, None], (1, stride[1]), (1, dilation[1]), ((0, 0), padding[0]), int(node.groups)
        )
        out = flat[:, :, 0]
    else:
        out = _convolve_maps(x, weight, stride, dilation, padding, int(node.groups))
    return out if bias is None else out + np.asarray(bias).reshape(1, -1, *(1,) * (out.ndim - 2))


def _convolve_maps(
    x: Array, weight: Array, stride: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[tuple[int, int], ...], groups: int
) -> Array:
    (stride_h, stride_w), (dil_h, dil_w) = stride, dilation
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    out_channels, in_per_group, k_h, k_w = weight.shape
    rows = (padded.shape[2] - (k_h - 1) * dil_h - 1) // stride_h + 1
    columns = (padded.shape[3] - (k_w - 1) * dil_w - 1) // stride_w + 1
    grouped = padded.reshape(len(x), groups, in_per_group, *padded.shape[2:])
    kernels = weight.reshape(groups, out_channels // groups, in_per_group, k_h, k_w)
    out = np.zeros((len(x), groups, out_channels // groups, rows, columns), np.result_type(x, weight))
    for i in range(k_h):
        for j in range(k_w):
            window = grouped[:, :, :, i * dil_h :, j * dil_w :][:, :, :, ::stride_h, ::stride_w][:, :, :, :rows, :columns]
            out += np.einsum("ngchw,goc->ngohw", window, kernels[..., i, j])
    return out.reshape(len(x), out_channels, rows, columns)


def _pool(node: nir.AvgPool2d | nir.SumPool2d, x: Array) -> Array:
    """Sum or average over windows; padding counts as zeros in the average (torch's count_include_pad)."""
    (k_h, k_w), (s_h, s_w), (p_h, p_w) = pair(node.kernel_size), pair(node.stride), pair(node.padding)
    padded = np.pad(x, ((0, 0), (0, 0), (p_h, p_h), (p_w, p_w)))
    rows, columns = (padded.shape[2] - k_h) // s_h + 1, (padded.shape[3] - k_w) // s_w + 1
    out = np.zeros((*x.shape[:2], rows, columns), x.dtype)
    for i in range(k_h):
        for j in range(k_w):
            out = out + padded[:, :, i::s_h, j::s_w][:, :, :rows, :columns]
    return out / (k_h * k_w) if isinstance(node, nir.AvgPool2d) else out


def _flatten(node: nir.Flatten, x: Array) -> Array:
    """Flatten without the batch axis: NIR counts start_dim and end_dim from the first feature axis."""
    features = x.shape[1:]
    start, end = int(node.start_dim) % len(features), int(node.end_dim) % len(features)
    return x.reshape(len(x), *features[:start], -1, *features[end + 1 :])
