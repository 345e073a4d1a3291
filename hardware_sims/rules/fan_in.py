"""How many source neurons each neuron hears, counted exactly: borders, strides, groups and weights of zero included.

A neuron's synapses lie on its own core, and each source neuron takes one input axon there, over however many weight layers; so do
the sources that carry the biases of a current. Nothing is written out as a matrix: the axes of a convolution are counted apart
(:func:`snn_export.export.linear_maps.axis_readers`) and multiplied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, weights_in
from snn_export.export.graph import CONV_TYPES
from snn_export.export.linear_maps import conv_readers
from snn_export.export.wiring import Wire
from snn_export.hardware_sims.placement.reach import Box
from snn_export.hardware_sims.placement.resources import PopulationNeeds, always_on

Counts = NDArray[np.int64]

EXACTLY = 256
"""Neurons of a population that are counted one by one, where several weight layers lead from one source and may overlap."""


@dataclass(frozen=True)
class Listener:
    """The neuron of a population that hears the most source neurons. index: in the population's shape."""

    index: tuple[int, ...]
    sources: int


def fan_in(deployment: Deployment, wire: Wire) -> Counts:
    """Synapses of every neuron on one wire, (neurons,) in C-order."""
    node, present = deployment.graph.nodes[wire.weight], weights_in(deployment, wire.weight) != 0
    made = deployment.shapes[wire.weight]
    if isinstance(node, nir.Scale):
        return np.asarray(np.broadcast_to(present, made).reshape(-1), np.int64)
    if not isinstance(node, CONV_TYPES):
        return np.asarray(present.sum(axis=1), np.int64)
    place = wire.connection.path.index(wire.weight)
    given = deployment.shapes[(wire.source, *wire.connection.path)[place]]
    counts = present.sum(axis=1).astype(np.float64)  # whole numbers far below 2^53
    for readers, outputs in zip(conv_readers(node, given, made), made[1:], strict=True):
        read = np.zeros((outputs, len(readers)))
        position, at = np.nonzero(readers >= 0)
        read[readers[position, at], position] = 1.0
        counts = np.tensordot(counts, read, axes=(1, 1))  # the axis of the kernel becomes one of the outputs
    return np.asarray(np.rint(counts), np.int64).reshape(-1)


def total_synapses(deployment: Deployment, population: str) -> Counts:
    """Synapses of every neuron, those from always-on sources included, (neurons,)."""
    total = always_on(deployment, population)
    for wire in deployment.wires[population]:
        total = total + fan_in(deployment, wire)
    return total


def busiest(deployment: Deployment, population: str, needs: PopulationNeeds | None, limit: int) -> Listener:
    """The neuron that hears the most source neurons.

    Args:
        deployment: one weight layer per connection.
        population: its name.
        needs: of the population; None where they cannot be worked out.
        limit: source neurons up to which it does not matter whether weight layers from one source overlap.

    Returns:
        The count is exact where it exceeds ``limit``.
    """
    shape, bound = deployment.shapes[population], total_synapses(deployment, population)
    layers = Counter(wire.source for wire in deployment.wires[population])
    if bound.max(initial=0) <= limit or max(layers.values(), default=1) == 1:
        return _listener(int(np.argmax(bound)), int(bound.max(initial=0)), shape)
    nearest = np.argsort(-bound, kind="stable")[:EXACTLY]
    exact = [0 if needs is None else _distinct(needs, int(neuron)) for neuron in nearest]
    best = int(np.argmax(exact))
    return _listener(int(nearest[best]), exact[best], shape)


def box_of(needs: PopulationNeeds, neuron: int) -> Box:
    """One neuron, given by its place in C-order, as a part."""
    return tuple((int(at), int(at) + 1) for at in np.unravel_index(neuron, needs.shape))


def _distinct(needs: PopulationNeeds, neuron: int) -> int:
    box = box_of(needs, neuron)
    return sum(int(needs.heard(box, source).sum()) for source in needs.sources)


def _listener(neuron: int, sources: int, shape: tuple[int, ...]) -> Listener:
    return Listener(tuple(int(at) for at in np.unravel_index(neuron, shape)), sources)
