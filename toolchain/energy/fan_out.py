"""How many synapses a source neuron has into a target population: exact, borders, stride, dilation and groups included.

A spike costs one synaptic operation per synapse it reaches, so a neuron at the border of a map costs less than one in the
middle, and ``C_out x kH x kW`` overstates both. Rows and columns are independent, so a convolution's fan-out is a product of two
tables of which inputs are read (:func:`snn_export.export.linear_maps.axis_readers`), summed over the kernel.

A matrix that stands for convolutions or poolings (:class:`snn_export.export.deployment.MergedLayers`, ``sparse``) holds zeros
where those have no synapse: of it only the entries that are not zero are synapses, which is how it is placed on cores too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, weights_in
from snn_export.export.graph import CONV_TYPES, SYNAPSE_TYPES, Connection
from snn_export.export.linear_maps import conv_readers
from snn_export.models.diagnostics import UserError

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FanOut:
    """Synapses of one connection, per source neuron.

    Attributes:
        structural: (*source features), every kernel or matrix position, zero weights included unless they are no synapses.
        effective: (*source features), positions with a nonzero weight only.
    """

    structural: Counts
    effective: Counts

    @property
    def synapses(self) -> int:
        """Synapses of the connection."""
        return int(self.structural.sum())

    @property
    def nonzero_synapses(self) -> int:
        """Synapses with a nonzero weight."""
        return int(self.effective.sum())


def fan_out(deployment: Deployment, connection: Connection) -> FanOut:
    """Fan-out of every source neuron of a connection, int64.

    Quantised deployments count the zeros of the integer weights, float deployments those of the NIR nodes.

    Raises:
        UserError: SNX320 where the connection is not exactly one weight layer: how many synapses a pooling layer or two
            weight layers in a row become is decided by the pass that merges them.
    """
    weight_node = _only_weight_node(deployment, connection)
    position = connection.path.index(weight_node)
    before = connection.path[position - 1] if position else connection.source
    given, produced = deployment.shapes[before], deployment.shapes[weight_node]
    found = _of_node(deployment.graph.nodes[weight_node], weights_in(deployment, weight_node), given, produced)
    source = deployment.shapes[connection.source]
    effective = found.effective.reshape(source) * _passes(deployment, connection.path[:position], source)
    structural = found.effective if is_sparse(deployment, weight_node) else found.structural
    return FanOut(structural.reshape(source), effective)


def is_sparse(deployment: Deployment, weight_node: str) -> bool:
    """Whether the zeros of a weight node are no synapses, because it is a matrix with the synapses of windows."""
    merged = deployment.merged.get(weight_node)
    return merged is not None and merged.sparse


def stored_weights(deployment: Deployment, weight_node: str) -> int:
    """Weights that a node stores: all, or those that are not zero where the others are no synapses."""
    weights = weights_in(deployment, weight_node)
    return int(np.count_nonzero(weights) if is_sparse(deployment, weight_node) else weights.size)


def dense_macs(deployment: Deployment, connection: Connection) -> int:
    """Multiplications of an ordinary ANN for a connection on one input, zeros included and padding not.

    Layers that passes merged are carried out one after the other, pooling first. Scales beside other weights are none: they are
    factors of those. Paths that the host computes may hold several weight layers, and pooling.
    """
    nodes, found, before = deployment.graph.nodes, 0, connection.source
    weights = [name for name in connection.path if isinstance(nodes[name], SYNAPSE_TYPES)]
    multiplied = [name for name in weights if not isinstance(nodes[name], nir.Scale)] or weights
    for name in connection.path:
        if name in multiplied:
            merged, given, made = deployment.merged.get(name), deployment.shapes[before], deployment.shapes[name]
            found += merged.macs if merged else _of_node(nodes[name], weights_in(deployment, name), given, made).synapses
        before = name
    return found


def dense_weights(deployment: Deployment, weight_node: str) -> int:
    """Weights that an ordinary ANN stores for a node: those of the layers that it was merged from."""
    merged = deployment.merged.get(weight_node)
    return merged.weights if merged else int(weights_in(deployment, weight_node).size)


def _of_node(node: nir.NIRNode, weights: NDArray[Any], given: tuple[int, ...], produced: tuple[int, ...]) -> FanOut:
    """Fan-out of every input of a weight node with these weights."""
    nonzero = weights != 0
    if isinstance(node, CONV_TYPES):
        return FanOut(
            _conv_fan_out(node, np.ones_like(nonzero), given, produced),
            _conv_fan_out(node, nonzero, given, produced),
        )
    if isinstance(node, nir.Scale):
        ones = np.ones(given, np.int64)
        return FanOut(ones, ones * np.broadcast_to(nonzero, given))
    return FanOut(np.full(given, produced[0], np.int64), nonzero.sum(axis=0, dtype=np.int64))


def _only_weight_node(deployment: Deployment, connection: Connection) -> str:
    nodes = deployment.graph.nodes
    scales = [name for name in connection.path if isinstance(nodes[name], nir.Scale)]
    weights = [name for name in connection.path if isinstance(nodes[name], SYNAPSE_TYPES) and name not in scales]
    if not weights and len(scales) == 1:  # a synapse per neuron; beside other weights it only scales them
        weights, scales = scales, []
    kinds = (nir.Flatten, nir.Delay)
    others = [name for name in connection.path if name not in (*weights, *scales) and not isinstance(nodes[name], kinds)]
    silenced = [
        name
        for name in connection.path[connection.path.index(weights[-1]) if weights else 0 :]
        if name in scales and not np.all(nodes[name].scale)
    ]
    if len(weights) != 1 or others or silenced:
        raise UserError(
            "SNX320",
            f"synapses from {connection.source} to {connection.target} cannot be counted",
            where=" -> ".join((connection.source, *connection.path, connection.target)),
            why="a synapse is one entry of one weight layer; here stand pooling, several weight layers, none, or a scale of zero",
            fix="absorb pooling into the next layer first (the export does so), and put a population between two weight layers",
        )
    return weights[0]


def _passes(deployment: Deployment, path: tuple[str, ...], source: tuple[int, ...]) -> Counts:
    """1 where a source neuron's signal reaches the weight node, 0 where a Scale node before it multiplies by zero."""
    passes = np.ones(source, np.int64)
    for name in path:
        node = deployment.graph.nodes[name]
        if isinstance(node, nir.Scale):
            given = np.ones(deployment.shapes[name], np.int64) * (np.asarray(node.scale) != 0)
            passes = passes * given.reshape(source)
    return passes


def _conv_fan_out(
    node: nir.Conv1d | nir.Conv2d, present: NDArray[np.bool_], given: tuple[int, ...], produced: tuple[int, ...]
) -> Counts:
    """Fan-out (in channels, *positions) of the kernel entries marked in ``present`` (out, in/groups, *kernel)."""
    out_channels, in_per_group, *kernel = present.shape
    groups = int(node.groups)
    grouped = present.reshape(groups, out_channels // groups, in_per_group, *kernel)
    kernels = grouped.sum(axis=1, dtype=np.int64).reshape(groups * in_per_group, *kernel)
    read = [(readers >= 0).astype(np.int64) for readers in conv_readers(node, given, produced)]
    subscripts = "ci,ir->cr" if len(read) == 1 else "cij,ir,jk->crk"
    reached: NDArray[Any] = np.einsum(subscripts, kernels, *read)
    return reached.astype(np.int64)
