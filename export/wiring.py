"""Wires: connections of a network as a chip has them, one layer of weights each, with the steps a spike travels.

Local time removes the step that every connection costs on a chip, so a wire of a feed-forward network has no delay at all.
What is left is what the network itself means: Delay nodes, and the step of a connection that closes a loop::

    a_i[t] = sum_j w_ij s_j[t - before_j - after_i]        s = 0 before the first step

On hardware a spike of j reaches i ``1 + before_j + after_i + gap`` steps after it was fired, with
``gap = latency(target) - latency(source) - 1``: what a shorter path has to wait so that all paths arrive together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import SYNAPSE_TYPES, Connection, Shape, connections, delay_steps, least_delay
from snn_export.models.diagnostics import UserError

Delays = int | NDArray[np.int64]
"""Steps: one number for all, or one per feature, in the shape of the features."""


@dataclass(frozen=True, eq=False)
class Wire:
    """One weight node between two populations, or between the input and a population.

    Attributes:
        connection: the chain of nodes it stands in.
        weight: name of its weight node.
        before: steps of delay of every feature that enters the weight node, loop step included.
        after: steps of delay of every feature that leaves it.
    """

    connection: Connection
    weight: str
    before: Delays = 0
    after: Delays = 0

    @property
    def source(self) -> str:
        """Population, or the input node."""
        return self.connection.source

    @property
    def target(self) -> str:
        """Population."""
        return self.connection.target

    @property
    def recurrent(self) -> bool:
        """True where it closes a loop."""
        return self.connection.recurrent

    @property
    def uniform(self) -> bool:
        """True where all its synapses have one delay."""
        return isinstance(self.before, int) and isinstance(self.after, int)

    @property
    def most(self) -> int:
        """Longest delay."""
        return int(np.max(self.before)) + int(np.max(self.after))


def wires(graph: nir.NIRGraph, shapes: Mapping[str, Shape], dt: float, host: Collection[str] = ()) -> dict[str, tuple[Wire, ...]]:
    """Wires into every population, in edge order.

    Args:
        graph: the network.
        shapes: output shape of every node.
        dt: seconds per step.
        host: weight nodes that a host computes; connections through them are left out.

    Raises:
        UserError: SNX209 for a connection that is not one weight node beside flattens and delays; SNX248, SNX249.
    """
    found: dict[str, tuple[Wire, ...]] = {}
    for target, incoming in connections(graph).items():
        found[target] = tuple(_wire(graph, shapes, dt, c) for c in incoming if not any(name in host for name in c.path))
    return found


def weight_node(graph: nir.NIRGraph, connection: Connection) -> str | None:
    """The one weight node of a connection that is nothing else but flattens and delays beside it; None for any other form."""
    weights = [name for name in connection.path if isinstance(graph.nodes[name], SYNAPSE_TYPES)]
    plain = all(isinstance(graph.nodes[name], (*SYNAPSE_TYPES, nir.Flatten, nir.Delay)) for name in connection.path)
    return weights[0] if plain and len(weights) == 1 else None


def _wire(graph: nir.NIRGraph, shapes: Mapping[str, Shape], dt: float, connection: Connection) -> Wire:
    weight = weight_node(graph, connection)
    if weight is None:
        raise UserError(
            "SNX209",
            f"between {connection.source} and {connection.target} stand {' -> '.join(connection.path) or 'no nodes'}",
            where=connection.target,
            why="a chip connection is exactly one weight layer; pooling, scaling and chains of layers must be made one first",
            fix="run snn_export.quantize on the float network: it composes them",
        )
    place = connection.path.index(weight)
    sources = (connection.source, *connection.path)
    before = _total(graph, shapes[sources[place]], dt, connection.path[:place])
    after = _total(graph, shapes[weight], dt, connection.path[place + 1 :])
    if connection.recurrent and least_delay(graph, connection, dt) == 1 and isinstance(before, int) and isinstance(after, int):
        before = before or 1 - after  # without Delay nodes: the step that a loop has by itself
    return Wire(connection, weight, before, after)


def _total(graph: nir.NIRGraph, shape: Shape, dt: float, path: tuple[str, ...]) -> Delays:
    """Sum of the Delay nodes of a part of a path; flattening changes their shape, never their order."""
    total: Delays = 0
    for name in path:
        if isinstance(graph.nodes[name], nir.Delay):
            steps = delay_steps(name, graph.nodes[name], dt)
            total = total + (int(steps.flat[0]) if steps.min() == steps.max() else _spread(steps, shape))
    return total


def _spread(steps: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    return steps.reshape(shape) if steps.size == np.prod(shape) else np.broadcast_to(steps, shape).copy()
