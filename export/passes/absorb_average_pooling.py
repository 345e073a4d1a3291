"""Absorb average pooling into the weight layer behind it.

A chip has synapses, not poolings. Average pooling with kernel = stride = p followed by a convolution (kernel k, stride s,
padding q, dilation 1) is one convolution with kernel k p, stride s p, padding q p, in which every weight is repeated p x p
times and divided by p^2. Followed by a flatten and a matrix it is one matrix whose columns are repeated likewise.
"""

from __future__ import annotations

from typing import ClassVar, final

import nir
import numpy as np

from snn_export.export.deployment import Deployment, MergedLayers
from snn_export.export.graph import (
    Shape,
    conv_padding,
    pair,
    per_axis,
    predecessors,
    remove_node,
    successors,
    topological_order,
    weight_array,
)
from snn_export.export.linear_maps import multiplications
from snn_export.export.passes.pass_ import Exactness, with_graph


@final
class AbsorbAveragePooling:
    """Remove every AvgPool2d and SumPool2d that stands before a Conv2d, or before a Flatten and a Linear or Affine.

    Exact in real arithmetic iff kernel == stride, no pool padding, dilation 1 in the convolution, and rows and columns
    divisible by the kernel or a convolution without padding. Anything else is left for ``compose_linear``: absorbed like this,
    40 to 55 % of the outputs would be wrong.
    """

    name: ClassVar[str] = "absorb_average_pooling"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment without the pooling nodes that can be absorbed; the same one where there are none."""
        while True:
            nodes = deployment.graph.nodes
            pools = [n for n in topological_order(deployment.graph) if isinstance(nodes[n], nir.AvgPool2d | nir.SumPool2d)]
            # The last in flow first: a pooling behind another one needs no weights between.
            absorbed = next((found for name in reversed(pools) if (found := _absorb(deployment, name)) is not None), None)
            if absorbed is None:
                return deployment
            deployment = absorbed


def _absorb(deployment: Deployment, name: str) -> Deployment | None:
    """The deployment without the pooling ``name``; None where that would change what it computes."""
    graph, pool = deployment.graph, deployment.graph.nodes[name]
    kernel, given = pair(pool.kernel_size), deployment.shapes[name]
    sources, targets = predecessors(graph, name), successors(graph, name)
    if kernel != pair(pool.stride) or pair(pool.padding) != (0, 0) or len(sources) != 1 or len(targets) != 1:
        return None
    divisor = kernel[0] * kernel[1] if isinstance(pool, nir.AvgPool2d) else 1
    before, target = deployment.shapes[sources[0]], targets[0]
    node = graph.nodes[target]
    if predecessors(graph, target) != (name,):
        return None  # another source reaches those weights too, and is not pooled
    if isinstance(node, nir.Conv2d) and _absorbs(node, before, kernel):
        wide = remove_node(graph, name, {target: _wider_conv(node, before, kernel, divisor)})
        return with_graph(deployment, wide, merged=_with_layers(deployment, target))
    matrix = successors(graph, target)
    if isinstance(node, nir.Flatten) and len(matrix) == 1 and isinstance(graph.nodes[matrix[0]], nir.Linear | nir.Affine):
        if predecessors(graph, matrix[0]) != (target,):
            return None
        flatten = nir.Flatten({"input": np.array(before)}, start_dim=0, end_dim=-1)
        wider = _wider_matrix(graph.nodes[matrix[0]], given, before, kernel, divisor)
        wide = remove_node(graph, name, {target: flatten, matrix[0]: wider})
        return with_graph(deployment, wide, merged=_with_layers(deployment, matrix[0]))
    return None


def _with_layers(deployment: Deployment, name: str) -> dict[str, MergedLayers]:
    """The merged layers with a weight node that pools as well from now on: what it multiplied behind the pooling."""
    given, made = deployment.shapes[predecessors(deployment.graph, name)[0]], deployment.shapes[name]
    node = deployment.graph.nodes[name]
    behind = MergedLayers(multiplications(node, given, made), int(weight_array(node).size), sparse=False)
    return {**deployment.merged, name: deployment.merged.get(name, behind)}


def _absorbs(conv: nir.Conv2d, before: Shape, kernel: tuple[int, int]) -> bool:
    """True where the convolution's padding is the same on both sides and no window of the pooling is left over under it."""
    padding = conv_padding(conv)
    even = all(first == last for first, last in padding)
    covered = padding == ((0, 0), (0, 0)) or not any(size % k for size, k in zip(before[1:], kernel, strict=True))
    return even and covered and per_axis(conv.dilation, 2) == (1, 1)


def _wider_conv(conv: nir.Conv2d, before: Shape, kernel: tuple[int, int], divisor: int) -> nir.Conv2d:
    (top, _), (left, _) = conv_padding(conv)
    stride = per_axis(conv.stride, 2)
    return nir.Conv2d(
        input_shape=before[1:],
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
