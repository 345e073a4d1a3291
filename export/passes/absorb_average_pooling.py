"""Absorb average pooling into the weight layer behind it.

A chip has synapses, not poolings. Average pooling with kernel = stride = p followed by a convolution (kernel k, stride s,
padding q, dilation 1) is one convolution with kernel k p, stride s p, padding q p, in which every weight is repeated p x p
times and divided by p^2. Followed by a flatten and a matrix it is one matrix whose columns are repeated likewise.
"""

from __future__ import annotations

from typing import ClassVar, final

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.graph import conv_padding, pair, predecessors, remove_node, successors, topological_order
from snn_export.export.passes.pass_ import Exactness
from snn_export.models.diagnostics import UserError


@final
class AbsorbAveragePooling:
    """Remove every AvgPool2d and SumPool2d that stands before a Conv2d, or before a Flatten and a Linear or Affine.

    Exact in real arithmetic iff kernel == stride, no pool padding, dilation 1 in the convolution, and rows and columns
    divisible by the kernel or a convolution without padding. Anything else is refused, because 40 to 55 % of the outputs
    would be wrong.
    """

    name: ClassVar[str] = "absorb_average_pooling"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment without pooling nodes. Raises SNX243 for a pooling that cannot be absorbed exactly."""
        while True:
            nodes = deployment.graph.nodes
            pools = [n for n in topological_order(deployment.graph) if isinstance(nodes[n], nir.AvgPool2d | nir.SumPool2d)]
            if not pools:
                return deployment
            deployment = _absorb(deployment, pools[-1])  # the last in flow: a pooling behind another one needs no weights between


def _absorb(deployment: Deployment, name: str) -> Deployment:
    graph, pool = deployment.graph, deployment.graph.nodes[name]
    kernel, given = pair(pool.kernel_size), deployment.shapes[name]
    if kernel != pair(pool.stride) or pair(pool.padding) != (0, 0):
        raise _refuse(name, f"its kernel is {kernel}, its stride {pair(pool.stride)}, its padding {pair(pool.padding)}")
    divisor = kernel[0] * kernel[1] if isinstance(pool, nir.AvgPool2d) else 1
    target = _only_successor(deployment, name)
    node = graph.nodes[target]
    if isinstance(node, nir.Conv2d):
        _check_conv(deployment, name, node, kernel)
        return deployment.replace(graph=remove_node(graph, name, {target: _wider_conv(deployment, name, node, kernel, divisor)}))
    if isinstance(node, nir.Flatten):
        matrix = _only_successor(deployment, target)
        if isinstance(graph.nodes[matrix], nir.Linear | nir.Affine):
            before = deployment.shapes[_only_source(deployment, name)]
            flatten = nir.Flatten({"input": np.array(before)}, start_dim=0, end_dim=-1)
            wider = _wider_matrix(graph.nodes[matrix], given, before, kernel, divisor)
            return deployment.replace(graph=remove_node(graph, name, {target: flatten, matrix: wider}))
    raise _refuse(name, f"it is followed by {target}, which is a {type(node).__name__}")


def _only_successor(deployment: Deployment, name: str) -> str:
    after = successors(deployment.graph, name)
    if len(after) != 1:
        raise _refuse(name, f"it feeds {len(after)} nodes")
    return after[0]


def _only_source(deployment: Deployment, name: str) -> str:
    before = predecessors(deployment.graph, name)
    if len(before) != 1:
        raise _refuse(name, f"{len(before)} nodes feed it")
    return before[0]


def _check_conv(deployment: Deployment, name: str, conv: nir.Conv2d, kernel: tuple[int, int]) -> None:
    before = deployment.shapes[_only_source(deployment, name)]
    padded = conv_padding(conv) != ((0, 0), (0, 0))
    if pair(conv.dilation) != (1, 1):
        raise _refuse(name, "the convolution behind it is dilated")
    if padded and any(size % k for size, k in zip(before[1:], kernel, strict=True)):
        raise _refuse(name, f"{before[1:]} is not divisible by {kernel} and the convolution behind it is padded")
    (top, bottom), (left, right) = conv_padding(conv)
    if top != bottom or left != right:
        raise _refuse(name, "the convolution behind it is padded unevenly")


def _wider_conv(deployment: Deployment, name: str, conv: nir.Conv2d, kernel: tuple[int, int], divisor: int) -> nir.Conv2d:
    (top, _), (left, _) = conv_padding(conv)
    stride = pair(conv.stride)
    return nir.Conv2d(
        input_shape=deployment.shapes[_only_source(deployment, name)][1:],
        weight=conv.weight.repeat(kernel[0], axis=2).repeat(kernel[1], axis=3) / divisor,
        stride=(stride[0] * kernel[0], stride[1] * kernel[1]),
        padding=(top * kernel[0], left * kernel[1]),
        dilation=(1, 1),
        groups=conv.groups,
        bias=conv.bias,
    )


def _wider_matrix(
    node: nir.Linear | nir.Affine,
    pooled: tuple[int, ...],
    before: tuple[int, ...],
    kernel: tuple[int, int],
    divisor: int,
) -> nir.NIRNode:
    """Columns repeated over each window; rows and columns the pooling left over get weight zero."""
    weight = node.weight.reshape(len(node.weight), *pooled).repeat(kernel[0], axis=2).repeat(kernel[1], axis=3) / divisor
    rest = [(0, before[axis] - weight.shape[1 + axis]) for axis in (1, 2)]
    weight = np.pad(weight, ((0, 0), (0, 0), *rest)).reshape(len(node.weight), -1)
    return nir.Linear(weight=weight) if isinstance(node, nir.Linear) else nir.Affine(weight=weight, bias=node.bias)


def _refuse(name: str, why: str) -> UserError:
    return UserError(
        "SNX243",
        f"the pooling {name} cannot be absorbed exactly",
        where=name,
        why=why,
        fix="pool with kernel = stride and no padding, right before a Conv2d without dilation or a Flatten and Linear, "
        "on sizes divisible by the kernel; or use a strided convolution",
    )
