"""Chains of linear nodes between two populations, and the one weight node each of them amounts to.

A chip has one layer of synapses between two populations, and each such layer has one source and one target. A NIR graph may
hold anything linear there: pooling, scaling, layers behind layers, a layer that several sources share or that drives several
targets. Linear maps distribute over sums, so every connection can be written as a chain of its own, and every chain as one
node; what a chain adds (biases) belongs to the population it ends in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count, pairwise
from types import MappingProxyType
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import MergedLayers
from snn_export.export.graph import (
    CONV_TYPES,
    POOL_TYPES,
    SYNAPSE_TYPES,
    Connection,
    Edge,
    Shape,
    connections,
    delay_steps,
    is_population,
    weight_array,
)
from snn_export.export.linear import apply
from snn_export.export.linear_maps import composed, convolution, matrix, multiplications, window_of
from snn_export.export.populations import broadcast
from snn_export.export.wiring import weight_node
from snn_export.models.diagnostics import UserError

Array = NDArray[Any]
MATRIX_LIMIT = 1 << 25
"""Entries of a matrix that a chain may become: 256 MiB of float64."""

EMPTY: Mapping[str, Any] = MappingProxyType({})
_UNIFORM = 1e-12
"""Relative difference up to which the bias of a channel is the same at all its positions."""


@dataclass(frozen=True, eq=False)
class Step:
    """One linear node of a chain with the shapes of its input and output; flattens and delays are no steps."""

    name: str
    node: nir.NIRNode
    given: Shape
    made: Shape

    @property
    def size(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return int(np.prod(self.made)), int(np.prod(self.given))


@dataclass(frozen=True, eq=False)
class Chain:
    """A connection taken apart.

    Attributes:
        connection: source, path, target.
        steps: its linear nodes in order of flow.
        before: steps of delay of what enters, one number or the shape of the source.
        after: steps of delay of what leaves, one number or the shape of the last step's output.
        bias: what its biases add behind the last step, in the shape of that output.
        magnitude: sum of absolute values behind ``bias``; the error bound of a float sum needs it.
    """

    connection: Connection
    steps: tuple[Step, ...]
    before: Array | int
    after: Array | int
    bias: Array
    magnitude: Array


def chain_of(
    graph: nir.NIRGraph,
    shapes: Mapping[str, Shape],
    dt: float,
    connection: Connection,
    counted: set[str],
    folded: Mapping[str, Array],
) -> Chain:
    """Take a connection apart. Biases of nodes in ``counted`` are left out; those of this chain are added to it.

    Raises:
        UserError: SNX264 for a delay per feature between two weight layers, SNX248 for one that is no number of steps.
    """
    steps: list[Step] = []
    shift, before, after = 0, None, None
    given = shapes[connection.source]
    bias, magnitude = np.zeros(given), np.zeros(given)
    for name in connection.path:
        node = graph.nodes[name]
        if isinstance(node, nir.Flatten):
            given = shapes[name]
        elif isinstance(node, nir.Delay):
            delay = np.broadcast_to(delay_steps(name, node, dt), given)
            if delay.min() == delay.max():
                shift += int(delay.flat[0])
            elif steps:
                after = delay.ravel() + (0 if after is None else after)
            else:
                before = delay.ravel() + (0 if before is None else before)
        else:
            if after is not None:
                raise _delay_inside(name, connection)
            steps.append(Step(name, node, given, shapes[name]))
            bias, magnitude = _through(steps[-1], bias, magnitude, name not in counted, folded)
            counted.add(name)
            given = shapes[name]
    if before is None and after is not None:
        after, shift = after + shift, 0
    source_shape, last = shapes[connection.source], steps[-1].made if steps else given
    return Chain(
        connection,
        tuple(steps),
        shift if before is None else (before + shift).reshape(source_shape),
        0 if after is None else after.reshape(last),
        bias.reshape(last),
        magnitude.reshape(last),
    )


def _through(step: Step, bias: Array, magnitude: Array, own: bool, folded: Mapping[str, Array]) -> tuple[Array, Array]:
    """Biases behind a node: those before it through its weights, and its own."""
    node, name = step.node, step.name
    bias, magnitude = bias.reshape(1, *step.given), magnitude.reshape(1, *step.given)
    if isinstance(node, POOL_TYPES):
        return apply(name, node, bias)[0], apply(name, node, magnitude)[0]
    weight = node.scale if isinstance(node, nir.Scale) else node.weight
    zeros = np.zeros(len(weight)) if hasattr(node, "bias") else None
    through = apply(name, node, bias, weight, zeros)[0], apply(name, node, magnitude, np.abs(weight), zeros)[0]
    if zeros is None or not own:
        return through
    channels = (-1, *(1,) * (len(step.made) - 1))
    return (
        through[0] + np.reshape(node.bias, channels),
        through[1] + np.reshape(np.abs(node.bias) + folded.get(name, 0.0), channels),
    )


def reduced(steps: tuple[Step, ...]) -> Step:
    """One linear step that does what all of them do, biases aside.

    Convolutions, pools and scales are joined where the result is a convolution or a scale again and exact; then neighbours
    become a matrix, the smallest first.

    Raises:
        UserError: SNX260 where the matrix would be larger than ``MATRIX_LIMIT``.
    """
    left = list(steps)
    while len(left) > 1:
        joined = next(((i, found) for i in range(len(left) - 1) if (found := _join(left[i], left[i + 1]))), None)
        if joined is None:
            sizes = [left[i + 1].size[0] * left[i].size[1] for i in range(len(left) - 1)]
            place = int(np.argmin(sizes))
            joined = place, _as_matrix(left[place], left[place + 1])
        left[joined[0] : joined[0] + 2] = [joined[1]]
    return left[0]


def _join(first: Step, then: Step) -> Step | None:
    """Two neighbours as one convolution or scale; None where that is not possible."""
    name = then.name if not isinstance(then.node, (*POOL_TYPES, nir.Scale)) else first.name
    scales = isinstance(first.node, nir.Scale), isinstance(then.node, nir.Scale)
    if all(scales):
        factor = np.broadcast_to(first.node.scale, first.given).ravel() * np.broadcast_to(then.node.scale, then.given).ravel()
        return Step(name, nir.Scale(factor.reshape(first.given)), first.given, first.given)
    node: nir.NIRNode | None
    if any(scales):
        node = _scaled(first, then) if scales[1] else _scaled(then, first, inputs=True)
    else:
        windows = window_of(first.node, first.given, first.made), window_of(then.node, then.given, then.made)
        if windows[0] is None or windows[1] is None or first.made != then.given:
            return None
        found = composed(windows[0], windows[1])
        node = None if found is None else convolution(found, np.zeros(len(found.kernel)))
    return None if node is None else Step(name, node, first.given, then.made)


def _scaled(step: Step, scale: Step, inputs: bool = False) -> nir.NIRNode | None:
    """A weight node with its outputs (or inputs) scaled; None where a convolution would need a factor per position."""
    factor = np.broadcast_to(scale.node.scale, scale.given).astype(np.float64)
    if isinstance(step.node, nir.Affine | nir.Linear):
        return nir.Linear(step.node.weight * (factor.reshape(1, -1) if inputs else factor.reshape(-1, 1)))
    channels = _per_channel(factor.reshape(step.given if inputs else step.made))
    if channels is None:
        return None
    kernel = step.node.weight if isinstance(step.node, CONV_TYPES) else np.ones((step.given[0], 1, 1, 1))
    groups = int(step.node.groups) if isinstance(step.node, CONV_TYPES) else step.given[0]
    axes = (1,) * (kernel.ndim - 2)
    if inputs:
        rows = np.repeat(np.arange(groups), len(kernel) // groups)
        kernel = kernel * channels.reshape(groups, -1)[rows].reshape(*kernel.shape[:2], *axes)
    else:
        kernel = kernel * channels.reshape(-1, 1, *axes)
    if isinstance(step.node, CONV_TYPES):
        return _convolution_with(step.node, np.zeros(len(kernel)), kernel)
    window = window_of(step.node, step.given, step.made)
    return None if window is None else convolution(replace(window, kernel=window.kernel * kernel), np.zeros(len(kernel)))


def _per_channel(values: Array) -> Array | None:
    """One value per channel of a map (C, *positions); None where they differ within a channel."""
    flat = values.reshape(len(values), -1)
    spread = np.abs(flat - flat[:, :1]).max(initial=0.0)
    return flat[:, 0] if spread <= _UNIFORM * np.abs(flat).max(initial=0.0) else None


def _as_matrix(first: Step, then: Step | None = None) -> Step:
    last = first if then is None else then
    name = last.name if isinstance(last.node, (*CONV_TYPES, nir.Affine, nir.Linear)) else first.name
    entries = last.size[0] * first.size[1]
    if entries > MATRIX_LIMIT:
        raise _too_large(first, last, entries)
    weight = matrix(first.name, first.node, first.given, first.made)
    if then is not None:
        weight = matrix(then.name, then.node, then.given, then.made) @ weight
    return Step(name, nir.Linear(weight.toarray()), (first.size[1],), (last.size[0],))


def weight_of(chain: Chain) -> Step:
    """The chain as one weight node, biases included: Linear, Affine, Conv1d, Conv2d or Scale.

    Raises:
        UserError: SNX260 as :func:`reduced`.
    """
    step = reduced(chain.steps)
    if isinstance(step.node, POOL_TYPES):
        window = window_of(step.node, step.given, step.made)
        step = replace(step, node=None if window is None else convolution(window, np.zeros(len(window.kernel))))
    if isinstance(step.node, CONV_TYPES):
        channels = _per_channel(chain.bias)
        if channels is not None:
            return replace(step, node=_convolution_with(step.node, channels))
        step = _as_matrix(step)
    if isinstance(step.node, nir.Scale):
        if not np.any(chain.bias):
            return step
        step = _as_matrix(step)
    bias = chain.bias.ravel()
    affine = np.any(bias) or any(isinstance(s.node, (*CONV_TYPES, nir.Affine)) for s in chain.steps)
    weight = step.node.weight
    return replace(step, node=nir.Affine(weight=weight, bias=bias) if affine else nir.Linear(weight=weight))


def _convolution_with(node: nir.NIRNode, bias: Array, weight: Array | None = None) -> nir.NIRNode:
    kernel = node.weight if weight is None else weight
    return type(node)(node.input_shape, kernel, node.stride, node.padding, node.dilation, node.groups, bias.copy())


def rewired(
    graph: nir.NIRGraph,
    shapes: Mapping[str, Shape],
    dt: float,
    folded: Mapping[str, Array] = EMPTY,
    merged: Mapping[str, MergedLayers] = EMPTY,
) -> tuple[nir.NIRGraph, dict[str, Array], dict[str, MergedLayers]]:
    """The graph with one weight node of its own per connection, and the fold magnitudes and merged layers that belong to it.

    A connection that is that already keeps its nodes. Edges keep their order, which decides where a loop is closed.

    Raises:
        UserError: SNX260, SNX264, SNX248 where a chain has no such form.
    """
    found = [connection for incoming in connections(graph).values() for connection in incoming]
    uses = Counter(name for connection in found for name in connection.path)
    own = {id(c): (w := weight_node(graph, c)) is not None and uses[w] == 1 for c in found}
    if all(own.values()) and len({name for c in found for name in c.path}) == _linear_nodes(graph):
        return graph, dict(folded), dict(merged)
    position = {edge: i for i, edge in enumerate(graph.edges)}
    nodes = {name: broadcast(node, shapes[name]) for name, node in graph.nodes.items() if _kept(node)}
    taken = set(graph.nodes)
    magnitudes: dict[str, Array] = {}
    layers: dict[str, MergedLayers] = {}
    placed: list[tuple[tuple[int, ...], list[Edge]]] = [
        ((i,), [edge]) for edge, i in position.items() if all(_kept(graph.nodes[name]) for name in edge)
    ]
    counted: dict[str, set[str]] = {}
    for connection in found:
        links = (connection.source, *connection.path, connection.target)
        order = tuple(position[edge] for edge in pairwise(links))
        if own[id(connection)]:
            path = {name: graph.nodes[name] for name in connection.path}
            magnitudes |= {name: folded[name] for name in connection.path if name in folded}
            layers |= {name: merged[name] for name in connection.path if name in merged}
        elif connection.path:
            chain = chain_of(graph, shapes, dt, connection, counted.setdefault(connection.target, set()), folded)
            path, magnitude = _built(chain, shapes, dt, taken)
            magnitudes |= magnitude
            layers |= _merged(chain, path, merged)
        else:
            continue  # an edge between two populations, already placed
        nodes |= path
        chained = (connection.source, *path, connection.target)
        placed.append((order, list(pairwise(chained))))
    edges = [edge for _, some in sorted(placed, key=lambda item: item[0]) for edge in some]
    return nir.NIRGraph(nodes, list(dict.fromkeys(edges)), metadata=graph.metadata, type_check=False), magnitudes, layers


def _merged(chain: Chain, path: Mapping[str, nir.NIRNode], merged: Mapping[str, MergedLayers]) -> dict[str, MergedLayers]:
    """What the weight node of a chain's new path stands for, where it is not one layer as it was."""
    (name,) = (name for name, node in path.items() if isinstance(node, SYNAPSE_TYPES))
    windows = [step for step in chain.steps if isinstance(step.node, (*CONV_TYPES, *POOL_TYPES))]
    sparse = bool(windows) and not isinstance(path[name], CONV_TYPES)
    first = chain.steps[0]
    if len(chain.steps) == 1 and not sparse and not isinstance(first.node, POOL_TYPES) and first.name not in merged:
        return {}
    parts = [merged.get(step.name) or _one_layer(step) for step in chain.steps]
    macs, weights = sum(part.macs for part in parts), sum(part.weights for part in parts)
    return {name: MergedLayers(macs, weights, sparse or any(part.sparse for part in parts))}


def _one_layer(step: Step) -> MergedLayers:
    macs = multiplications(step.node, step.given, step.made)
    return MergedLayers(macs, int(weight_array(step.node).size) if macs else 0, sparse=False)


def explicit(graph: nir.NIRGraph, shapes: Mapping[str, Shape]) -> nir.NIRGraph:
    """The graph with a Scale of ones on every connection without weights and pooling, right behind its source."""
    nodes, edges = dict(graph.nodes), list(graph.edges)
    for incoming in connections(graph).values():
        for connection in incoming:
            first = connection.path[0] if connection.path else connection.target
            bare = not any(isinstance(graph.nodes[name], (*SYNAPSE_TYPES, *POOL_TYPES)) for name in connection.path)
            if bare and (connection.source, first) in edges:  # else another connection through the same edge has its Scale
                name = f"{first}.from.{connection.source}"
                nodes[name] = nir.Scale(np.ones(shapes[connection.source]))
                place = edges.index((connection.source, first))
                edges[place : place + 1] = [(connection.source, name), (name, first)]
    if len(nodes) == len(graph.nodes):
        return graph
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)


def _built(
    chain: Chain, shapes: Mapping[str, Shape], dt: float, taken: set[str]
) -> tuple[dict[str, nir.NIRNode], dict[str, Array]]:
    """Nodes of a chain's new path in order, under names of their own, and the fold magnitude of its weight node."""
    if not chain.steps:
        raise no_weights(chain.connection)
    source, target = shapes[chain.connection.source], shapes[chain.connection.target]
    step = weight_of(chain)
    name = _free(step.name, chain.connection, taken)
    path: dict[str, nir.NIRNode] = {}
    if np.any(chain.before):
        path[fresh(f"{name}.delay", taken)] = nir.Delay(np.broadcast_to(chain.before, source) * dt)
    if isinstance(step.node, nir.Affine | nir.Linear) and len(source) > 1:
        path[fresh(f"{name}.flatten", taken)] = nir.Flatten({"input": np.array(source)}, start_dim=0, end_dim=-1)
    path[name] = nir.Scale(np.broadcast_to(step.node.scale, source).copy()) if isinstance(step.node, nir.Scale) else step.node
    if np.any(chain.after):
        path[fresh(f"{name}.arrival", taken)] = nir.Delay(np.asarray(chain.after).reshape(step.made) * dt)
    if isinstance(step.node, CONV_TYPES) and len(target) == 1:
        path[fresh(f"{name}.maps", taken)] = nir.Flatten({"input": np.array(step.made)}, start_dim=0, end_dim=-1)
    if not np.any(chain.magnitude):
        return path, {}
    magnitude = (
        chain.magnitude.reshape(len(chain.magnitude), -1).max(axis=1) if isinstance(step.node, CONV_TYPES) else chain.magnitude
    )
    return path, {name: magnitude.ravel()}


def _free(name: str, connection: Connection, taken: set[str]) -> str:
    """The node's own name for the first connection through it, one that names source and target for every other."""
    claimed = f"\0{name}"  # names are file paths, so no node is called this
    if claimed not in taken:
        taken.add(claimed)
        return name
    return fresh(f"{name}.{connection.source}.{connection.target}", taken)


def fresh(name: str, taken: set[str]) -> str:
    """A name that no node has, the given one where it is free; it is added to ``taken``."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}.{number}", number + 1
    taken.add(free)
    return free


def numbered(stem: str, taken: set[str]) -> str:
    """The first of ``stem1``, ``stem2``, ... that no node has; it is added to ``taken``."""
    free = next(name for name in (f"{stem}{number}" for number in count(1)) if name not in taken)
    taken.add(free)
    return free


def _kept(node: nir.NIRNode) -> bool:
    return is_population(node) or isinstance(node, nir.Input | nir.Output)


def _linear_nodes(graph: nir.NIRGraph) -> int:
    return sum(not _kept(node) for node in graph.nodes.values())


def no_weights(connection: Connection) -> UserError:
    """The finding about a connection without a weight node."""
    return UserError(
        "SNX209", f"nothing with weights stands between {connection.source} and {connection.target}", where=connection.target,
        why="a chip connection is exactly one weight layer", fix="run the pass insert_weights first",
    )  # fmt: skip


def _delay_inside(name: str, connection: Connection) -> UserError:
    return UserError(
        "SNX264", f"a delay per feature stands before {name} and behind other weights, from {connection.source} to "
        f"{connection.target}", where=name,
        why="a chip has one layer of synapses there, with one delay for what enters and one for what leaves",
        fix="put the delay in front of the first weight layer, give all features one delay, or put a neuron in between",
    )  # fmt: skip


def _too_large(first: Step, last: Step, entries: int) -> UserError:
    chained = " and ".join(dict.fromkeys((first.name, last.name)))
    return UserError(
        "SNX260", f"{chained} would become one matrix of {last.size[0]} x {first.size[1]} = {entries} entries", where=last.name,
        why=f"they have no exact form as one convolution, and a matrix may have {MATRIX_LIMIT} entries",
        fix="avoid a convolution's padding behind windows that overlap or leave a rest: pool on sizes the kernel divides, or "
        "use a strided convolution in place of the pooling",
    )  # fmt: skip
