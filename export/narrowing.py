"""A network with fewer neurons, input features, channels or positions: everything that belongs to the others is cut out.

What is *kept* of a node's output is one array of indices per axis of its shape: (features,) or (channels, rows, columns).
It is carried from node to node: a matrix loses the columns of what no longer arrives, a convolution the channels; neurons keep
their constants. Positions (rows, columns) of maps are kept as ranges, and only from the input on: the outputs that remain
follow from the geometry. Padding stays, so neurons at a new edge see zeros where they saw their neighbours: the result is a
network of its own and not a part of the old one that would compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.deployment import Deployment, IntegerSynapse
from snn_export.export.graph import (
    CONV_TYPES,
    POOL_TYPES,
    SYNAPSE_TYPES,
    Shape,
    conv_padding,
    input_node,
    is_population,
    loop_edges,
    pair,
    per_axis,
    predecessors,
    replace_nodes,
    topological_order,
)
from snn_export.export.populations import constants

Indices = NDArray[np.int64]
Kept = tuple[Indices, ...]
"""Indices that stay, one array per axis."""
Cut = Callable[[NDArray[Any]], NDArray[Any]]


class CannotNarrowError(Exception):
    """This choice of neurons leaves no network: shapes no longer fit, or nothing is left."""


def everything(shape: Shape) -> Kept:
    """All of an output of this shape."""
    return tuple(np.arange(size) for size in shape)


def kept_input(inputs: NDArray[Any], kept: Kept) -> NDArray[Any]:
    """Inputs (S, B, *shape) of a network whose input keeps these indices."""
    return np.ascontiguousarray(inputs[np.ix_(np.arange(inputs.shape[0]), np.arange(inputs.shape[1]), *kept)])


def choice(deployment: Deployment, population: str, kept: Kept) -> dict[str, Kept]:
    """What must be chosen for a population to keep these neurons: the outputs of the weight nodes in front of it as well.

    Raises:
        CannotNarrowError: where what is in front of it mixes positions, or cannot lose single outputs.
    """
    found = {population: kept}
    waiting = _in_front(deployment, population, kept)
    while waiting:
        name, wanted = waiting.pop()
        node, shape = deployment.graph.nodes[name], deployment.shapes[name]
        if isinstance(node, CONV_TYPES):
            if any(len(index) != size for index, size in zip(wanted[1:], shape[1:], strict=True)):
                raise CannotNarrowError(f"{name} gives maps: its positions follow from its input")
        elif isinstance(node, (*POOL_TYPES, nir.Flatten, nir.Delay, nir.Scale)):
            waiting += _in_front(deployment, name, _before(deployment, name, wanted))
            continue
        if _conflicts(found.get(name), wanted):
            raise CannotNarrowError(f"{name} would have to keep two different sets of outputs")
        if is_population(node) and name not in found:
            waiting += _in_front(deployment, name, wanted)
        found[name] = wanted
    return found


def _in_front(deployment: Deployment, name: str, kept: Kept) -> list[tuple[str, Kept]]:
    """What the nodes in front of one must give for it to receive ``kept``."""
    shape = deployment.shapes[name]
    if not is_population(deployment.graph.nodes[name]):
        return [(before, kept) for before in predecessors(deployment.graph, name)]
    return [(before, _reshaped(kept, shape, deployment.shapes[before])) for before in predecessors(deployment.graph, name)]


def _conflicts(before: Kept | None, now: Kept) -> bool:
    return before is not None and not _same(before, now)


def _same(first: Kept, second: Kept) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _before(deployment: Deployment, name: str, wanted: Kept) -> Kept:
    """What a node without weights of its own must receive to give ``wanted``."""
    node = deployment.graph.nodes[name]
    given = deployment.shapes[predecessors(deployment.graph, name)[0]]
    if isinstance(node, POOL_TYPES):
        if any(len(index) != size for index, size in zip(wanted[1:], deployment.shapes[name][1:], strict=True)):
            raise CannotNarrowError(f"{name} gives maps: its positions follow from its input")
        return (wanted[0], *everything(given)[1:])
    return _reshaped(wanted, deployment.shapes[name], given) if isinstance(node, nir.Flatten) else wanted


def _reshaped(kept: Kept, had: Shape, shape: Shape) -> Kept:
    """The same neurons in another shape; both count them in C order. Only whole channels can be kept of a map."""
    if had == shape:
        return kept
    if len(had) != 1 or len(shape) == 1:
        raise CannotNarrowError(f"neurons of shape {had} cannot be cut out of the shape {shape}")
    positions = int(np.prod(shape[1:]))
    flat = kept[0]
    channels = flat[::positions] // positions
    whole = (channels[:, None] * positions + np.arange(positions)).ravel()
    if not np.array_equal(whole, flat):
        raise CannotNarrowError("of a map only whole channels can be kept")
    return (channels, *everything(shape)[1:])


def narrowed(deployment: Deployment, chosen: Mapping[str, Kept], unpadded: Collection[str] = ()) -> Deployment:
    """The deployment in which the input, the populations and the weight nodes of ``chosen`` keep these outputs.

    Args:
        deployment: float or quantised.
        chosen: by node; populations by way of :func:`choice`, the input as it is.
        unpadded: convolutions that lose their padding.

    Raises:
        CannotNarrowError: where the choice leaves no network.
    """
    if any(not len(index) for kept in chosen.values() for index in kept):
        raise CannotNarrowError("nothing would be left")
    work = _Narrowing(deployment, chosen, unpadded)
    for name in topological_order(deployment.graph):
        work.visit(name)
    work.check_loops()
    return work.deployment()


class _Narrowing:
    """Nodes of the new graph as they are made, sources first, and what is kept of the output of each."""

    def __init__(self, deployment: Deployment, chosen: Mapping[str, Kept], unpadded: Collection[str]) -> None:
        self._old, self._chosen, self._unpadded = deployment, chosen, unpadded
        self._closing = loop_edges(deployment.graph)
        self._entered: dict[str, Kept] = {}
        self._nodes: dict[str, nir.NIRNode] = {}
        self._synapses: dict[str, IntegerSynapse] = dict(deployment.synapses)
        self._folded = dict(deployment.fold_magnitude)
        self.kept: dict[str, Kept] = {}

    def visit(self, name: str) -> None:
        """Narrow one node to what arrives."""
        node, shape = self._old.graph.nodes[name], self._old.shapes[name]
        if isinstance(node, nir.Input):
            self.kept[name] = self._chosen.get(name, everything(shape))
            self._nodes[name] = nir.Input({"input": np.array([len(index) for index in self.kept[name]])})
            return
        given = self._given(name)
        arriving = [_in_shape(self.kept[before], self._old.shapes[before], given) for before in self._sources(name)]
        if any(not _same(arriving[0], other) for other in arriving[1:]):
            raise CannotNarrowError(f"what arrives at {name} does not fit together")
        entering = self._entered[name] = arriving[0]
        if isinstance(node, nir.Output):
            self._nodes[name] = nir.Output({"output": np.array([len(index) for index in entering])})
            self.kept[name] = entering
        elif is_population(node):
            self._population(name, node, entering)
        elif isinstance(node, SYNAPSE_TYPES):
            self._weights(name, node, entering)
        else:
            self._plain(name, node, entering)

    def _sources(self, name: str) -> list[str]:
        return [before for before in predecessors(self._old.graph, name) if (before, name) not in self._closing]

    def _given(self, name: str) -> Shape:
        return self._old.shapes[self._sources(name)[0]]

    def _population(self, name: str, node: nir.NIRNode, entering: Kept) -> None:
        shape = self._old.shapes[name]
        kept = _in_shape(entering, self._given(name), shape)
        if _conflicts(self._chosen.get(name), kept):
            raise CannotNarrowError(f"{name} would keep other neurons than were chosen")
        fields = {
            key: value if value.size == 1 and value.ndim <= 1 else np.broadcast_to(_as(value, shape), shape)[np.ix_(*kept)].copy()
            for key, value in constants(node).items()
        }
        self._nodes[name], self.kept[name] = type(node)(**fields), kept

    def _plain(self, name: str, node: nir.NIRNode, entering: Kept) -> None:
        given = self._given(name)
        if isinstance(node, nir.Flatten):
            self.kept[name] = _flattened(node, entering, given)
            sizes = np.array([len(index) for index in entering])
            self._nodes[name] = nir.Flatten({"input": sizes}, node.start_dim, node.end_dim)
        elif isinstance(node, nir.Delay):
            self.kept[name], delay = entering, np.asarray(node.delay)
            self._nodes[name] = node if delay.size == 1 else nir.Delay(np.broadcast_to(delay, given)[np.ix_(*entering)].copy())
        elif isinstance(node, POOL_TYPES):
            kernel, stride, padding = pair(node.kernel_size), pair(node.stride), pair(node.padding)
            around = tuple((p, p) for p in padding)
            self.kept[name] = (entering[0], *_positions(name, entering[1:], kernel, stride, around, self._old.shapes[name][1:]))
            self._nodes[name] = node
        else:
            raise CannotNarrowError(f"{name} is a {type(node).__name__}")

    def _weights(self, name: str, node: nir.NIRNode, entering: Kept) -> None:
        """A weight node: columns by what arrives, rows by what was chosen; its integers with it."""
        rows, cut = self._cut(name, node, entering)
        if name in self._folded:
            self._folded[name] = np.asarray(self._folded[name])[rows]
        if name in self._synapses:
            synapse = self._synapses[name]
            mantissa, current = synapse.bias_mantissa, synapse.current_bias
            self._synapses[name] = IntegerSynapse(
                cut(synapse.weight),
                synapse.weight_exponent,
                None if mantissa is None else mantissa[rows],
                None if current is None else current[rows],
            )

    def _cut(self, name: str, node: nir.NIRNode, entering: Kept) -> tuple[Indices, Cut]:
        """Outputs that stay, and what takes their weights out of an array of the node's weights."""
        chosen, shape = self._chosen.get(name), self._old.shapes[name]
        if isinstance(node, CONV_TYPES):
            return self._convolution(name, node, entering, None if chosen is None else chosen[0])
        cut: Cut
        if isinstance(node, nir.Scale):
            if np.size(node.scale) == 1:
                cut = lambda weight: weight
            else:
                cut = lambda weight: np.broadcast_to(weight, shape)[np.ix_(*entering)].copy()
            self.kept[name], self._nodes[name] = entering, nir.Scale(cut(node.scale))
            return entering[0], cut
        rows = np.arange(shape[0]) if chosen is None else chosen[0]
        cut = lambda weight: weight[np.ix_(rows, entering[0])].copy()
        bias = getattr(node, "bias", None)
        self.kept[name] = (rows,)
        self._nodes[name] = grid.with_parameters(node, cut(node.weight), None if bias is None else np.asarray(bias)[rows])
        return rows, cut

    def _convolution(self, name: str, node: nir.NIRNode, entering: Kept, rows: Indices | None) -> tuple[Indices, Cut]:
        axes, groups = node.weight.ndim - 2, int(node.groups)
        given = self._given(name)
        dilation, stride = per_axis(node.dilation, axes), per_axis(node.stride, axes)
        reach = tuple((k - 1) * d + 1 for k, d in zip(node.weight.shape[2:], dilation, strict=True))
        bare = name in self._unpadded
        around = ((0, 0),) * axes if bare else conv_padding(node)
        spatial = _positions(name, entering[1:], reach, stride, around, self._old.shapes[name][1:])
        outputs = np.arange(len(node.weight)) if rows is None else rows
        cut: Cut
        if groups == 1:
            cut = lambda weight: weight[np.ix_(outputs, entering[0])].copy()
        else:
            groups, outputs = _groups(name, groups, entering[0], given[0], outputs, len(node.weight), free=rows is None)
            cut = lambda weight: weight[outputs].copy()
        self.kept[name] = (outputs, *spatial)
        sizes = tuple(len(index) for index in entering[1:])
        size: Any = None if node.input_shape is None else sizes[0] if axes == 1 else sizes
        fields = (node.stride, 0 if bare else node.padding, node.dilation, groups)
        self._nodes[name] = type(node)(size, cut(node.weight), *fields, np.asarray(node.bias)[outputs])
        return outputs, cut

    def check_loops(self) -> None:
        """What comes back on an edge that closes a loop must be what the node was narrowed for."""
        for source, name in self._closing:
            if not _same(_in_shape(self.kept[source], self._old.shapes[source], self._given(name)), self._entered[name]):
                raise CannotNarrowError(f"the loop from {source} to {name} does not fit")

    def deployment(self) -> Deployment:
        """The result; a quantised one gets the real-unit parameters of its integers."""
        graph = replace_nodes(self._old.graph, self._nodes)
        made = self._old.replace(graph=graph, synapses=self._synapses, fold_magnitude=self._folded, merged={})
        return grid.on_grid(made, made.contract.encoder, made.synapses, made.populations) if made.quantised else made


def _as(value: NDArray[Any], shape: Shape) -> NDArray[Any]:
    return value.reshape(shape) if value.size == np.prod(shape) else value


def _in_shape(kept: Kept, given: Shape, shape: Shape) -> Kept:
    """Neurons kept in one shape, in another that counts the same neurons."""
    if given == shape:
        return kept
    if all(len(index) == size for index, size in zip(kept, given, strict=True)):
        return everything(shape)
    raise CannotNarrowError(f"neurons of shape {shape} are driven in the shape {given}, and cannot be cut out of it")


def _flattened(node: nir.Flatten, kept: Kept, given: Shape) -> Kept:
    start, end = int(node.start_dim) % len(given), int(node.end_dim) % len(given)
    merged = np.ravel_multi_index(np.ix_(*kept[start : end + 1]), given[start : end + 1])
    return (*kept[:start], np.ravel(merged).astype(np.int64), *kept[end + 1 :])


def _positions(
    name: str,
    kept: Kept,
    reach: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    made: Shape,
) -> Kept:
    """Output positions of a window on a range of input positions, as indices of the old output (whose constants they take)."""
    found = []
    for index, size, step, (before, after), most in zip(kept, reach, stride, padding, made, strict=True):
        count = (len(index) + before + after - size) // step + 1
        if count < 1 or count > most:
            raise CannotNarrowError(f"the window of {name} does not fit any more")
        first = min(int(index[0]) // step, most - count)
        found.append(np.arange(first, first + count))
    return tuple(found)


def _groups(
    name: str, groups: int, entering: Indices, inputs: int, outputs: Indices, made: int, *, free: bool
) -> tuple[int, Indices]:
    """Groups and outputs that stay of a grouped convolution: whole groups only, each with as many outputs as the others."""
    per_in, per_out = inputs // groups, made // groups
    stay = np.unique(entering // per_in)
    whole = (stay[:, None] * per_in + np.arange(per_in)).ravel()
    if not np.array_equal(whole, entering):
        raise CannotNarrowError(f"{name} has groups, which stay whole")
    left = outputs[np.isin(outputs // per_out, stay)] if free else outputs
    counts = [int(np.count_nonzero(left // per_out == group)) for group in stay]
    if min(counts) < 1 or len(set(counts)) > 1 or sum(counts) != len(left):
        raise CannotNarrowError(f"the groups of {name} would differ in size")
    return len(stay), left


def with_flat_input(deployment: Deployment, inputs: NDArray[Any]) -> tuple[Deployment, NDArray[Any]] | None:
    """The same network on flattened inputs, where a Flatten is the only node behind its input; None for any other."""
    graph, start = deployment.graph, input_node(deployment.graph)
    after = [b for a, b in graph.edges if a == start]
    if len(after) != 1 or not isinstance(graph.nodes[after[0]], nir.Flatten) or len(deployment.shapes[after[0]]) != 1:
        return None
    flatten = after[0]
    edges = [(start if a == flatten else a, b) for a, b in graph.edges if b != flatten]
    size = int(np.prod(deployment.input_shape))
    nodes = {name: node for name, node in graph.nodes.items() if name != flatten}
    nodes[start] = nir.Input({"input": np.array([size])})
    flat = nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)
    return deployment.replace(graph=flat), inputs.reshape(*inputs.shape[:2], size)
