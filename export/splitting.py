"""Split a population whose neurons differ into populations with equal parameters.

A chip has one decay and one threshold per population. Neurons that share them become a population of their own; every
connection is cut into blocks, one per pair of populations, with the rows of its target and the columns of its source.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.chains import MATRIX_LIMIT, Chain, Step, chain_of, explicit, fresh, numbered, rewired, weight_of
from snn_export.export.graph import CONV_TYPES, Connection, Edge, Shape, connections, is_population, shapes, weight_array
from snn_export.export.linear_maps import matrix
from snn_export.export.populations import constants, uniform_groups, with_constants
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Part:
    """Some neurons of a population (or of the input: all): their indices, flattened, and the shape they have as a population."""

    name: str
    index: Array
    shape: Shape
    channels: Array | None


def split(graph: nir.NIRGraph, dt: float) -> tuple[nir.NIRGraph, dict[str, tuple[str, ...]]]:
    """The graph with every population uniform, and the parts of each population that was split.

    Populations whose neurons differ by whole channels stay maps, and convolutions between them stay convolutions.

    Raises:
        UserError: SNX261 for a population that leads to the output, or whose connections would be too large as matrices.
    """
    found = shapes(graph)
    groups = {name: uniform_groups(node, found[name]) for name, node in graph.nodes.items() if is_population(node)}
    uneven = [name for name, parts in groups.items() if len(parts) > 1]
    if not uneven:
        return graph, {}
    refused = list(uneven_readouts(graph, found))
    if refused:
        raise UserError.from_diagnostics(tuple(refused))
    explicit_graph = explicit(graph, found)
    plain, *_ = rewired(explicit_graph, shapes(explicit_graph), dt)
    found = shapes(plain)
    taken = {*graph.nodes, *plain.nodes}
    parts = {name: _parts(name, found[name], groups.get(name), taken) for name, node in plain.nodes.items() if _stays(node)}
    nodes: dict[str, nir.NIRNode] = {}
    for name, some in parts.items():
        for part in some:
            nodes[part.name] = plain.nodes[name] if len(some) == 1 else _constants_of(plain.nodes[name], part)
    position = {edge: i for i, edge in enumerate(plain.edges)}
    placed: list[tuple[tuple[int, ...], list[Edge]]] = [
        ((i,), [edge]) for edge, i in position.items() if all(name in parts for name in edge)
    ]
    for incoming in connections(plain).values():
        for connection in incoming:
            links = (connection.source, *connection.path, connection.target)
            order = tuple(position[edge] for edge in pairwise(links))
            if len(parts[connection.source]) == len(parts[connection.target]) == 1:
                nodes |= {name: plain.nodes[name] for name in connection.path}
                placed.append((order, list(pairwise(links))))
                continue
            for path, source, target in _cut(plain, found, dt, connection, parts, taken):
                nodes |= path
                placed.append((order, list(pairwise((source, *path, target)))))
    # Edges keep their order, which decides where a loop is closed.
    edges = [edge for _, some in sorted(placed, key=lambda item: item[0]) for edge in some]
    result = nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)
    whole = {part.name: name for name, some in parts.items() for part in some}
    if _silent_steps(plain, {}, uneven) != _silent_steps(result, whole, uneven):
        fix = "put a Delay of one step on the connections that close the loops"
        raise _refuse(uneven[0], len(groups[uneven[0]]), "cut up, its loops would be closed elsewhere", fix)
    return result, {name: tuple(part.name for part in parts[name]) for name in uneven}


def uneven_readouts(graph: nir.NIRGraph, found: Mapping[str, Shape]) -> Iterator[Diagnostic]:
    """Populations that lead to the output and would have to be split (SNX261): a readout is one population."""
    for source, target in graph.edges:
        if isinstance(graph.nodes[target], nir.Output) and is_population(graph.nodes[source]):
            groups = uniform_groups(graph.nodes[source], found[source])
            if len(groups) > 1:
                yield from _refuse(source, len(groups), "it is the readout, which is one population", "").diagnostics


def _silent_steps(graph: nir.NIRGraph, whole: Mapping[str, str], cut: Collection[str]) -> set[Edge]:
    """Connections between uncut populations that have a step of delay because they close a loop, without a Delay node.

    Connections of cut populations count only behind the cut: there they all state it, and none may have it silently.
    """
    found = set()
    for incoming in connections(graph).values():
        for c in incoming:
            ends = (whole.get(c.source, c.source), whole.get(c.target, c.target))
            silent = c.recurrent and not any(isinstance(graph.nodes[name], nir.Delay) for name in c.path)
            if silent and not (set(ends) & set(cut) and not whole):
                found.add(ends)
    return found


def _stays(node: nir.NIRNode) -> bool:
    return is_population(node) or isinstance(node, nir.Input | nir.Output)


def _parts(name: str, shape: Shape, groups: list[Array] | None, taken: set[str]) -> list[_Part]:
    """Parts of a population, under names that are not ``taken`` yet; one that holds everything where it is not split."""
    if groups is None or len(groups) == 1:
        size = int(np.prod(shape))
        return [_Part(name, np.arange(size), shape, np.arange(shape[0]) if shape else None)]
    positions = int(np.prod(shape[1:]))
    whole = len(shape) > 1 and all(_whole_channels(index, positions) for index in groups)
    found = []
    for index in groups:
        channels = index[::positions] // positions if whole else None
        made = (len(index) // positions, *shape[1:]) if whole else (len(index),)
        found.append(_Part(numbered(f"{name}.part", taken), index, made, channels))
    return found


def _whole_channels(index: Array, positions: int) -> bool:
    return len(index) % positions == 0 and bool(
        np.all(index.reshape(-1, positions) // positions == index[::positions, None] // positions)
    )


def _constants_of(node: nir.NIRNode, part: _Part) -> nir.NIRNode:
    return with_constants(node, **{key: value.ravel()[part.index].reshape(part.shape) for key, value in constants(node).items()})


def _cut(
    graph: nir.NIRGraph,
    found: Mapping[str, Shape],
    dt: float,
    connection: Connection,
    parts: Mapping[str, list[_Part]],
    taken: set[str],
) -> Iterator[tuple[dict[str, nir.NIRNode], str, str]]:
    """The blocks of one connection: the nodes of a path, its source and its target."""
    chain = chain_of(graph, found, dt, connection, set(), {})
    weights = weight_of(chain)
    sources, targets = parts[connection.source], parts[connection.target]
    before = np.broadcast_to(chain.before, found[connection.source]).ravel()
    if connection.recurrent and not np.any(chain.before) and not np.any(chain.after):
        before = before + 1  # the step a loop has by itself: between two parts of it, it must be said
    after = np.broadcast_to(chain.after, weights.made).ravel()
    dense = None if _convolves(weights, *sources, *targets) else _dense(connection, weights)
    blocks: dict[tuple[_Part, _Part], nir.NIRNode] = {}
    for source, target in product(sources, targets):
        if dense is None:
            node = _convolution_block(weights, source if len(sources) > 1 else None, target if len(targets) > 1 else None)
        else:
            node = _matrix_block(dense, chain, source, target)
        if source is not sources[0] and hasattr(node, "bias"):
            node.bias = node.bias * 0  # a bias belongs to the target, once
        blocks[source, target] = node
    for (source, target), node in blocks.items():
        silent = not np.any(weight_array(node)) and not np.any(getattr(node, "bias", 0))
        if silent and (connection.recurrent or any(np.any(weight_array(blocks[other, target])) for other in sources)):
            continue  # nothing flows here, and the target is connected otherwise
        ends = ((source, sources), (target, targets))
        name = fresh(".".join((weights.name, *(part.name.rpartition(".")[2] for part, some in ends if len(some) > 1))), taken)
        path: dict[str, nir.NIRNode] = {}
        if np.any(before[source.index]):
            path[fresh(f"{name}.delay", taken)] = nir.Delay(before[source.index].reshape(source.shape) * dt)
        if isinstance(node, nir.Affine | nir.Linear) and len(source.shape) > 1:
            path[fresh(f"{name}.flatten", taken)] = nir.Flatten({"input": np.array(source.shape)}, 0, -1)
        path[name] = node
        if np.any(after[target.index]):
            arrives = target.shape if isinstance(node, CONV_TYPES) else (len(target.index),)
            path[fresh(f"{name}.arrival", taken)] = nir.Delay(after[target.index].reshape(arrives) * dt)
        yield path, source.name, target.name


def _convolves(weights: Step, *parts: _Part) -> bool:
    """True where the blocks of a convolution are convolutions: cut along whole channels only, without groups."""
    plain = isinstance(weights.node, CONV_TYPES) and int(weights.node.groups) == 1
    return plain and all(part.channels is not None for part in parts)


def _convolution_block(weights: Step, source: _Part | None, target: _Part | None) -> nir.NIRNode:
    """A convolution between the channels of two parts; None stands for all channels."""
    node = weights.node
    rows = slice(None) if target is None else target.channels
    columns = slice(None) if source is None else source.channels
    fields = (node.stride, node.padding, node.dilation, 1)
    return type(node)(node.input_shape, node.weight[rows][:, columns].copy(), *fields, node.bias[rows].copy())


def _dense(connection: Connection, weights: Step) -> Array:
    if weights.size[0] * weights.size[1] > MATRIX_LIMIT:
        raise _refuse(connection.target, 2, f"{weights.name} would become a matrix of {weights.size[0]} x {weights.size[1]}", "")
    return np.asarray(matrix(weights.name, weights.node, weights.given, weights.made).toarray())


def _matrix_block(dense: Array, chain: Chain, source: _Part, target: _Part) -> nir.NIRNode:
    block = dense[np.ix_(target.index, source.index)]
    bias = chain.bias.ravel()[target.index]
    if not np.any(bias) and source.shape == target.shape and np.array_equal(block, np.diag(np.diag(block))):
        return nir.Scale(np.diag(block).reshape(source.shape).copy())
    return nir.Affine(block, bias.copy())


def _refuse(name: str, groups: int, why: str, fix: str) -> UserError:
    return UserError(
        "SNX261", f"{name} cannot be split into populations with equal parameters", where=name,
        why=f"its neurons have {groups} or more different decays or thresholds, a chip has one of each per population, and {why}",
        fix=fix
        or "give its neurons one tau and one threshold; a threshold may be moved into each neuron's weights",
    )  # fmt: skip
