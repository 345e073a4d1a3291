"""Reading a NIR graph: order, shapes, and the connections between populations.

A *population* is a node with state (LIF, IF, LI, I, CubaLIF, CubaLI). A *connection* is the chain of linear nodes between
two populations, or between the input and a population. Backends think in these two words; NIR nodes are the storage.

nir 1.0.8 infers wrong shapes for non-square and grouped convolutions and then refuses the graph, so graphs are read and
built with ``type_check=False`` and their shapes are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import nir
import numpy as np

from snn_export.models.diagnostics import UserError

Shape = tuple[int, ...]

POPULATION_TYPES = (nir.LIF, nir.IF, nir.LI, nir.I, nir.CubaLIF, nir.CubaLI)
SPIKING_TYPES = (nir.LIF, nir.IF, nir.CubaLIF)
SYNAPSE_TYPES = (nir.Affine, nir.Linear, nir.Conv2d)
POOL_TYPES = (nir.AvgPool2d, nir.SumPool2d)


@dataclass(frozen=True)
class Connection:
    """Linear nodes from ``source`` (a population, or an input node) to ``target`` (a population), in order of flow."""

    source: str
    path: tuple[str, ...]
    target: str


def topological_order(graph: nir.NIRGraph) -> tuple[str, ...]:
    """Node names, sources first. Ties keep the order of the graph's node table.

    Raises:
        UserError: SNX204 for a cycle, SNX104 for an edge that names no node.
    """
    inputs: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        missing = [name for name in (source, target) if name not in inputs]
        if missing:
            raise UserError(
                "SNX104",
                f"the edge {source} -> {target} names a node that does not exist: {missing[0]}",
                where="graph.edges",
                why="every edge must join two nodes of the graph",
                fix="write the graph again; its node table and edge list do not belong together",
            )
        if source in inputs[target]:
            raise UserError(
                "SNX104",
                f"the edge {source} -> {target} stands twice",
                where="graph.edges",
                why="NIR's edges are a set; counted twice, the connection would have twice its weights",
                fix="write the graph again with each edge once",
            )
        inputs[target].append(source)
    try:
        return tuple(TopologicalSorter(inputs).static_order())
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        raise UserError(
            "SNX204",
            f"the graph has a recurrent connection: {loop}",
            where=loop,
            why="this version runs feed-forward graphs; a loop needs its own latency and state clearing rules",
            fix="unroll or remove the recurrent connection",
        ) from error


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
    """
    topological_order(graph)
    found: dict[str, tuple[Connection, ...]] = {}
    for name in populations(graph):
        found[name] = tuple(
            Connection(source, path, name)
            for before in predecessors(graph, name)
            for source, path in _paths_back(graph, before, ())
        )
    return found


def _paths_back(graph: nir.NIRGraph, name: str, path: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    if is_population(graph.nodes[name]) or isinstance(graph.nodes[name], nir.Input):
        return [(name, path)]
    return [item for before in predecessors(graph, name) for item in _paths_back(graph, before, (name, *path))]


def shapes(graph: nir.NIRGraph) -> dict[str, Shape]:
    """Output shape of every node, without time and batch.

    Raises:
        UserError: SNX206 where two shapes do not fit, SNX201 for a node type without a rule.
    """
    result: dict[str, Shape] = {}
    for name in topological_order(graph):
        node = graph.nodes[name]
        before = [result[source] for source in predecessors(graph, name)]
        if len(set(before)) > 1:
            raise _mismatch(name, f"its inputs have different shapes: {before}")
        if isinstance(node, nir.Input):
            result[name] = tuple(int(size) for size in node.input_type["input"])
        elif not before:
            raise _mismatch(name, "nothing leads to it")
        else:
            result[name] = _output_shape(name, node, before[0])
    return result


def _output_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    if isinstance(node, nir.Output):
        return given
    if isinstance(node, POPULATION_TYPES):
        parameter = node.r if not isinstance(node, nir.CubaLIF | nir.CubaLI) else node.tau_mem
        if np.size(parameter) not in (1, int(np.prod(given))):
            raise _mismatch(name, f"it has {np.size(parameter)} neurons and an input of shape {given}")
        return given
    if isinstance(node, nir.Affine | nir.Linear):
        if node.weight.ndim != 2 or (node.weight.shape[1],) != given:
            raise _mismatch(name, f"its weight has shape {node.weight.shape} and its input {given}")
        return (int(node.weight.shape[0]),)
    if isinstance(node, nir.Conv2d):
        return _conv_shape(name, node, given)
    if isinstance(node, POOL_TYPES):
        return _pool_shape(name, node, given)
    if isinstance(node, nir.Flatten):
        return _flatten_shape(node, given)
    if isinstance(node, nir.Scale):
        return given
    raise unsupported(name, node)


def unsupported(name: str, node: nir.NIRNode) -> UserError:
    """The error for a node type that has no rule here."""
    return UserError(
        "SNX201",
        f"node type {type(node).__name__} is not supported",
        where=name,
        why="the interpreter and the backends have no exact rule for it",
        fix="build the network from Conv2d, Linear, Affine, AvgPool2d, SumPool2d, Flatten, Scale, LIF, IF, LI and I",
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


def conv_padding(node: nir.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of zeros as ((top, bottom), (left, right)); ``same`` puts an odd rest at the end, as torch does."""
    if isinstance(node.padding, str):
        if node.padding == "valid":
            return ((0, 0), (0, 0))
        reach = [(k - 1) * d for k, d in zip(node.weight.shape[2:], pair(node.dilation), strict=True)]
        return ((reach[0] // 2, reach[0] - reach[0] // 2), (reach[1] // 2, reach[1] - reach[1] // 2))
    rows, columns = pair(node.padding)
    return ((rows, rows), (columns, columns))


def _conv_shape(name: str, node: nir.Conv2d, given: Shape) -> Shape:
    groups = int(node.groups)
    if len(given) != 3 or node.weight.ndim != 4 or node.weight.shape[1] * groups != given[0] or node.weight.shape[0] % groups:
        raise _mismatch(name, f"its weight has shape {node.weight.shape} in {groups} groups and its input {given}")
    sizes = []
    for axis, (before, after) in enumerate(conv_padding(node)):
        reach = (node.weight.shape[2 + axis] - 1) * pair(node.dilation)[axis] + 1
        sizes.append((given[1 + axis] + before + after - reach) // pair(node.stride)[axis] + 1)
    if min(sizes) < 1:
        raise _mismatch(name, f"its kernel does not fit into its input {given}")
    return (int(node.weight.shape[0]), sizes[0], sizes[1])


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


def latencies(graph: nir.NIRGraph) -> dict[str, int]:
    """Steps a spike needs from the input to each population where every weight node costs one step (Loihi, Lava).

    Raises:
        UserError: SNX207 where two paths of different length meet: their spikes would arrive in different steps.
    """
    result: dict[str, int] = {}
    for target, incoming in connections(graph).items():
        lags = {result.get(c.source, 0) + sum(isinstance(graph.nodes[node], SYNAPSE_TYPES) for node in c.path) for c in incoming}
        if len(lags) != 1:
            raise UserError(
                "SNX207",
                f"paths of different length meet at {target}: {sorted(lags)} steps",
                where=target,
                why="on the chip every synapse takes a step, so the shorter path arrives early",
                fix="give all paths into the population the same number of weight layers",
            )
        result[target] = lags.pop()
    return result


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
