"""Reading a NIR graph: order, loops, shapes, and the connections between populations.

A *population* is a node with state (LIF, IF, LI, I, CubaLIF, CubaLI, Threshold). A *connection* is the chain of linear nodes
between two populations, or between the input and a population. Backends think in these two words; NIR nodes are the storage.

A loop needs a step of delay somewhere. Nothing in NIR says where, so it is decided here, from the structure alone: walking
from the input depth first, the edge that returns to a node on the current walk closes the loop, and the connection it belongs
to is *recurrent*: what it carries arrives at least one step later.

nir 1.0.8 infers wrong shapes for non-square and grouped convolutions and then refuses the graph, so graphs are read and
built with ``type_check=False`` and their shapes are computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError

Shape = tuple[int, ...]
Edge = tuple[str, str]

POPULATION_TYPES = (nir.LIF, nir.IF, nir.LI, nir.I, nir.CubaLIF, nir.CubaLI, nir.Threshold)
SPIKING_TYPES = (nir.LIF, nir.IF, nir.CubaLIF, nir.Threshold)
SYNAPSE_TYPES = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d, nir.Scale)
"""Nodes that hold weights; each is one layer of synapses on a chip (a Scale is a diagonal one)."""
POOL_TYPES = (nir.AvgPool2d, nir.SumPool2d)
CONV_TYPES = (nir.Conv1d, nir.Conv2d)
PATH_LIMIT = 100_000
"""Nodes on all connections together, counted once per connection: a bound on time for graphs of parallel linear nodes."""
DELAY_TOLERANCE = 1e-6
"""Part of a step up to which a delay counts as a whole number of steps (it is stored in seconds)."""


@dataclass(frozen=True)
class Connection:
    """Linear nodes from ``source`` (a population, or an input node) to ``target`` (a population), in order of flow.

    recurrent: it closes a loop.
    """

    source: str
    path: tuple[str, ...]
    target: str
    recurrent: bool = False


def weight_array(node: nir.NIRNode) -> NDArray[Any]:
    """Weights of a synapse node: ``weight``, or ``scale`` of a Scale."""
    found: NDArray[Any] = node.scale if isinstance(node, nir.Scale) else node.weight
    return found


def loop_edges(graph: nir.NIRGraph) -> frozenset[Edge]:
    """Edges that close a loop, found by walking depth first from the input, then from any node not yet reached.

    Raises:
        UserError: SNX104 for an edge that names no node or stands twice.
    """
    after = _outgoing(graph)
    starts = sorted(graph.nodes, key=lambda name: not isinstance(graph.nodes[name], nir.Input))
    closing: set[Edge] = set()
    seen: set[str] = set()
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        walk: dict[str, Iterator[str]] = {start: iter(after[start])}
        while walk:
            name = next(reversed(walk))
            following = next(walk[name], None)
            if following is None:
                del walk[name]
            elif following in walk:
                closing.add((name, following))
            elif following not in seen:
                seen.add(following)
                walk[following] = iter(after[following])
    return frozenset(closing)


def topological_order(graph: nir.NIRGraph) -> tuple[str, ...]:
    """Node names, sources first, as if the edges that close loops were not there. Ties keep the order of the node table.

    Raises:
        UserError: SNX104 for an edge that names no node or stands twice.
    """
    closing = loop_edges(graph)
    inputs: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for edge in graph.edges:
        if edge not in closing:
            inputs[edge[1]].append(edge[0])
    return tuple(TopologicalSorter(inputs).static_order())


def _outgoing(graph: nir.NIRGraph) -> dict[str, list[str]]:
    """Targets by node, in edge order; checks the edge list."""
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    seen: set[Edge] = set()
    for source, target in graph.edges:
        missing = [name for name in (source, target) if name not in after]
        if missing:
            raise UserError(
                "SNX104",
                f"the edge {source} -> {target} names a node that does not exist: {missing[0]}",
                where="graph.edges",
                why="every edge must join two nodes of the graph",
                fix="write the graph again; its node table and edge list do not belong together",
            )
        if (source, target) in seen:
            raise UserError(
                "SNX104",
                f"the edge {source} -> {target} stands twice",
                where="graph.edges",
                why="NIR's edges are a set; counted twice, the connection would have twice its weights",
                fix="write the graph again with each edge once",
            )
        seen.add((source, target))
        after[source].append(target)
    return after


def predecessors(graph: nir.NIRGraph, name: str) -> tuple[str, ...]:
    """Sources of the edges that end in ``name``, in edge order."""
    return tuple(source for source, target in graph.edges if target == name)


def successors(graph: nir.NIRGraph, name: str) -> tuple[str, ...]:
    """Targets of the edges that start in ``name``, in edge order."""
    return tuple(target for source, target in graph.edges if source == name)


def is_population(node: nir.NIRNode) -> bool:
    """True for a node with state of its own."""
    return isinstance(node, POPULATION_TYPES)


def input_node(graph: nir.NIRGraph) -> str:
    """Name of the graph's only Input node. Raises SNX205 where there is not exactly one."""
    return _only(graph, nir.Input, "input")


def output_node(graph: nir.NIRGraph) -> str:
    """Name of the graph's only Output node. Raises SNX205 where there is not exactly one."""
    return _only(graph, nir.Output, "output")


def _only(graph: nir.NIRGraph, kind: type[nir.NIRNode], what: str) -> str:
    found: list[str] = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
    if len(found) != 1:
        raise UserError(
            "SNX205",
            f"the graph has {len(found)} {what} nodes",
            where=", ".join(found) or "graph.nodes",
            why=f"a deployment has exactly one {what}",
            fix=f"keep one {what} node",
        )
    return found[0]


def populations(graph: nir.NIRGraph) -> tuple[str, ...]:
    """Names of the nodes with state, sources first."""
    return tuple(name for name in topological_order(graph) if is_population(graph.nodes[name]))


def connections(graph: nir.NIRGraph) -> dict[str, tuple[Connection, ...]]:
    """Connections into each population, in edge order.

    A linear node with several sources has one connection per source: linear maps distribute over their inputs, and the
    bias is counted once (on the first).

    Raises:
        UserError: SNX104 as :func:`topological_order`, SNX204 for a loop without a population in it, SNX218 for too many ways.
    """
    closing = loop_edges(graph)
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)

    places = 0

    def paths_back(name: str, path: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
        """Sources from which ``path`` is reached through ``name``, each with its whole path."""
        nonlocal places
        places += 1
        if places > PATH_LIMIT:
            raise UserError(
                "SNX218",
                f"more than {PATH_LIMIT:,} nodes stand on the ways between populations",
                where=name,
                why="every way through nodes without state is a connection of its own, and parallel ones multiply",
                fix="join parallel linear nodes into one before writing the graph, or put neurons between them",
            )
        if is_population(graph.nodes[name]) or isinstance(graph.nodes[name], nir.Input):
            return [(name, path)]
        if name in path:
            loop = " -> ".join((name, *path[: path.index(name) + 1]))
            raise UserError(
                "SNX204",
                f"the graph has a loop without a neuron: {loop}",
                where=loop,
                why="nothing in it takes a step, so its value would depend on itself",
                fix="put a neuron into the loop, or remove the edge that closes it",
            )
        return [item for source in before[name] for item in paths_back(source, (name, *path))]

    found: dict[str, tuple[Connection, ...]] = {}
    for target in populations(graph):
        found[target] = tuple(
            Connection(source, path, target, _closes(closing, (source, *path, target)))
            for last in before[target]
            for source, path in paths_back(last, ())
        )
    return found


def _closes(closing: frozenset[Edge], chain: tuple[str, ...]) -> bool:
    return any(edge in closing for edge in pairwise(chain))


def stages(graph: nir.NIRGraph) -> tuple[tuple[str, ...], ...]:
    """Populations in groups, sources first: a group of several, or of one with a self-loop, must be stepped together.

    Two populations share a group iff each reaches the other. Of the groups that could come next, that of the population that
    :func:`populations` names first does.
    """
    into = connections(graph)
    layers = populations(graph)
    reach: dict[str, set[str]] = {}
    for name in layers:  # populations that lead to `name`
        found: set[str] = set()
        waiting = [c.source for c in into[name]]
        while waiting:
            source = waiting.pop()
            if source in into and source not in found:
                found.add(source)
                waiting += [c.source for c in into[source]]
        reach[name] = found
    groups = {name: tuple(n for n in layers if n == name or (n in reach[name] and name in reach[n])) for name in layers}
    grouped: list[tuple[str, ...]] = []
    waiting_for = dict(reach)
    while waiting_for:  # a loop's first population may come before what leads into the loop elsewhere
        placed = {name for group in grouped for name in group}
        group = next(groups[name] for name, before in waiting_for.items() if before <= placed.union(groups[name]))
        grouped.append(group)
        for name in group:
            del waiting_for[name]
    return tuple(grouped)


def shapes(graph: nir.NIRGraph) -> dict[str, Shape]:
    """Output shape of every node, without time and batch.

    A population has the shape of its parameters where that holds as many neurons as reach it, which is how NIR defines it: a
    matrix may thus drive a population of maps.

    Raises:
        UserError: SNX206 where two shapes do not fit, SNX201 for a node type without a rule.
    """
    closing, result = loop_edges(graph), dict[str, Shape]()
    for name in topological_order(graph):
        node = graph.nodes[name]
        before = [result[source] for source in predecessors(graph, name) if (source, name) not in closing]
        sizes = {int(np.prod(shape)) for shape in before} if is_population(node) else set(before)
        if len(sizes) > 1:
            raise _mismatch(name, f"its inputs have different shapes: {before}")
        if isinstance(node, nir.Input):
            result[name] = tuple(int(size) for size in node.input_type["input"])
        elif not before:
            raise _mismatch(name, "nothing leads to it")
        else:
            result[name] = _output_shape(name, node, before[0])
    for source, name in closing:
        if np.prod(result[source]) != np.prod(_expected_shape(graph, result, closing, name)):
            raise _mismatch(name, f"{source}, which closes a loop, has the shape {result[source]}")
    return result


def _expected_shape(graph: nir.NIRGraph, found: Mapping[str, Shape], closing: frozenset[Edge], name: str) -> Shape:
    """Shape that enters a node on the edges that close no loop."""
    return next(found[source] for source in predecessors(graph, name) if (source, name) not in closing)


def _output_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    if isinstance(node, nir.Output):
        return given
    if isinstance(node, POPULATION_TYPES):
        return _population_shape(name, node, given)
    if isinstance(node, nir.Affine | nir.Linear):
        if node.weight.ndim != 2 or (node.weight.shape[1],) != given:
            raise _mismatch(name, f"its weight has shape {node.weight.shape} and its input {given}")
        return (int(node.weight.shape[0]),)
    if isinstance(node, CONV_TYPES):
        return _conv_shape(name, node, given)
    if isinstance(node, POOL_TYPES):
        return _pool_shape(name, node, given)
    if isinstance(node, nir.Flatten):
        return _flatten_shape(node, given)
    if isinstance(node, nir.Scale | nir.Delay):
        values = np.asarray(node.scale if isinstance(node, nir.Scale) else node.delay)
        if values.size != 1 and not _broadcasts(values.shape, given):
            raise _mismatch(name, f"it has values of shape {values.shape} and an input of shape {given}")
        return given
    raise unsupported(name, node)


def _population_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    parameter = np.asarray(population_parameter(node))
    if parameter.size not in (1, int(np.prod(given))):
        raise _mismatch(name, f"it has {parameter.size} neurons and an input of shape {given}")
    several = parameter.size > 1 or parameter.ndim > 1
    return tuple(parameter.shape) if several and parameter.size == np.prod(given) else given


def population_parameter(node: nir.NIRNode) -> Any:
    """A parameter that every population of this type has, one value per neuron or one for all."""
    if isinstance(node, nir.Threshold):
        return node.threshold
    return node.tau_mem if isinstance(node, nir.CubaLIF | nir.CubaLI) else node.r


def _broadcasts(small: Shape, large: Shape) -> bool:
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(small[::-1], large[::-1], strict=False))


def unsupported(name: str, node: nir.NIRNode) -> UserError:
    """The error for a node type that has no rule here."""
    return UserError(
        "SNX201",
        f"node type {type(node).__name__} is not supported",
        where=name,
        why="the interpreter and the backends have no exact rule for it",
        fix="build it from Conv1d, Conv2d, Linear, Affine, AvgPool2d, SumPool2d, Flatten, Scale, Delay and NIR's neurons",
    )


def _mismatch(name: str, what: str) -> UserError:
    return UserError(
        "SNX206", f"shapes do not fit at {name}: {what}", where=name, why="a node's input must have the shape it was made for",
        fix="check input_shape, kernel sizes and the flatten before the first linear layer",
    )  # fmt: skip


def pair(value: object) -> tuple[int, int]:
    """A NIR size parameter as (rows, columns)."""
    sizes = [int(size) for size in np.ravel(np.asarray(value))]
    return (sizes[0], sizes[-1])


def conv_padding(node: nir.Conv1d | nir.Conv2d) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each spatial axis, ((top, bottom), (left, right)) for a Conv2d, ((before, after),) for a Conv1d.

    ``same`` puts an odd rest at the end, as torch does.
    """
    axes = int(node.weight.ndim) - 2
    if isinstance(node.padding, str):
        if node.padding == "valid":
            return ((0, 0),) * axes
        reach = [(k - 1) * d for k, d in zip(node.weight.shape[2:], per_axis(node.dilation, axes), strict=True)]
        return tuple((size // 2, size - size // 2) for size in reach)
    return tuple((size, size) for size in per_axis(node.padding, axes))


def per_axis(value: object, axes: int) -> tuple[int, ...]:
    """A NIR size parameter as one number per spatial axis."""
    sizes = [int(size) for size in np.ravel(np.asarray(value))]
    return tuple(sizes) if len(sizes) == axes else (sizes[0],) * axes


def _conv_shape(name: str, node: nir.Conv1d | nir.Conv2d, given: Shape) -> Shape:
    groups, axes = int(node.groups), 1 if isinstance(node, nir.Conv1d) else 2
    fits = len(given) == axes + 1 and node.weight.ndim == axes + 2 and groups > 0
    if not fits or node.weight.shape[1] * groups != given[0] or node.weight.shape[0] % groups:
        raise _mismatch(name, f"its weight has shape {node.weight.shape} in {groups} groups and its input {given}")
    stride, dilation = per_axis(node.stride, axes), per_axis(node.dilation, axes)
    if min(*stride, *dilation) < 1:
        raise _mismatch(name, f"its stride is {stride} and its dilation {dilation}")
    sizes = []
    for axis, (before, after) in enumerate(conv_padding(node)):
        reach = (node.weight.shape[2 + axis] - 1) * dilation[axis] + 1
        sizes.append((given[1 + axis] + before + after - reach) // stride[axis] + 1)
    if min(sizes) < 1:
        raise _mismatch(name, f"its kernel does not fit into its input {given}")
    return (int(node.weight.shape[0]), *sizes)


def _pool_shape(name: str, node: nir.AvgPool2d | nir.SumPool2d, given: Shape) -> Shape:
    if len(given) != 3:
        raise _mismatch(name, f"pooling needs (channels, rows, columns) and gets {given}")
    kernel, stride, padding = pair(node.kernel_size), pair(node.stride), pair(node.padding)
    sizes = tuple((given[1 + a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in (0, 1))
    if min(sizes) < 1:
        raise _mismatch(name, f"its window does not fit into its input {given}")
    return (given[0], *sizes)


def _flatten_shape(node: nir.Flatten, given: Shape) -> Shape:
    start, end = int(node.start_dim), int(node.end_dim)
    end = end + len(given) if end < 0 else end
    start = start + len(given) if start < 0 else start
    return (*given[:start], int(np.prod(given[start : end + 1])), *given[end + 1 :])


def delay_steps(name: str, node: nir.Delay, dt: float) -> NDArray[np.int64]:
    """Delay of a NIR Delay node in whole steps, the shape of its ``delay``.

    Raises:
        UserError: SNX248 for a delay that is negative or no whole number of steps.
    """
    exact = np.asarray(node.delay, np.float64) / dt
    steps = np.rint(exact)
    if not np.all(np.isfinite(exact)) or np.any(np.abs(exact - steps) > DELAY_TOLERANCE) or np.any(steps < 0):
        raise UserError(
            "SNX248",
            f"{name} delays by {float(np.ravel(exact)[np.argmax(np.abs(np.ravel(exact - steps)))]):g} steps",
            where=name,
            why=f"the network runs in steps of {dt:g} s, and a spike travels for a whole number of them",
            fix="round the delay to a multiple of dt, or choose another dt",
        )
    return steps.astype(np.int64)


def least_delay(graph: nir.NIRGraph, connection: Connection, dt: float) -> int:
    """Shortest delay of a connection in steps: that of its Delay nodes, and 1 on a recurrent one without any.

    Raises:
        UserError: SNX248; SNX249 for a recurrent connection whose Delay nodes leave a neuron without a step of delay.
    """
    nodes = [name for name in connection.path if isinstance(graph.nodes[name], nir.Delay)]
    total = sum(int(delay_steps(name, graph.nodes[name], dt).min()) for name in nodes)
    if not connection.recurrent or total > 0:
        return total
    if nodes:
        raise UserError(
            "SNX249",
            f"the recurrent connection {connection.source} -> {connection.target} has a delay of 0 steps",
            where=nodes[0],
            why="a spike cannot reach the step it was fired in; Delay nodes on a loop state its whole delay, one step included",
            fix="give it at least one step of delay, or leave the Delay node out: one step is what a loop has by itself",
        )
    return 1


def latencies(graph: nir.NIRGraph, dt: float) -> dict[str, int]:
    """Steps a spike needs from the input to each population where every connection costs one step (Loihi, Lava).

    The least L with L(target) >= L(source) + 1, and L(target) >= L(source) + 1 - delay on connections within a loop: a
    shorter path is made to wait, a loop may spend the delay it has anyway.

    Raises:
        UserError: SNX207 for a loop with more connections than steps of delay; SNX248, SNX249.
    """
    into = connections(graph)
    loop = {name: number for number, stage in enumerate(stages(graph)) for name in stage}
    gaps = [
        (c.source, target, 1 - (least_delay(graph, c, dt) if c.recurrent or loop.get(c.source) == loop[target] else 0))
        for target, found in into.items()
        for c in found
    ]
    result = dict.fromkeys(into, 1)
    for _ in range(len(into) + 1):
        late = [(s, t, g) for s, t, g in gaps if result.get(s, 0) + g > result[t]]
        if not late:
            return result
        for source, target, gap in late:
            result[target] = max(result[target], result.get(source, 0) + gap)
    where = next(f"{s} -> {t}" for s, t, _ in late)
    raise UserError(
        "SNX207",
        f"the loop through {where} is too fast for a chip",
        where=where,
        why="every connection takes a step there, and this loop has more connections than steps of delay",
        fix="put a Delay node into the loop: as many steps as it has connections",
    )


def replace_nodes(graph: nir.NIRGraph, nodes: Mapping[str, nir.NIRNode]) -> nir.NIRGraph:
    """A new graph in which the named nodes are exchanged and everything else is shared."""
    return nir.NIRGraph({**graph.nodes, **nodes}, list(graph.edges), metadata=graph.metadata, type_check=False)


def remove_node(graph: nir.NIRGraph, name: str, nodes: Mapping[str, nir.NIRNode]) -> nir.NIRGraph:
    """A new graph without ``name``: its sources lead to its targets; ``nodes`` are exchanged in the same move."""
    before, after = predecessors(graph, name), successors(graph, name)
    edges = []
    for source, target in graph.edges:
        if target == name:
            edges += [(source, next_target) for next_target in after]
        elif source != name:
            edges.append((source, target))
    if not before or not after:
        raise _mismatch(name, "it has no source or no target and cannot be bridged")
    kept = {key: nodes.get(key, node) for key, node in graph.nodes.items() if key != name}
    return nir.NIRGraph(kept, list(dict.fromkeys(edges)), metadata=graph.metadata, type_check=False)
