"""NIR graphs inside NIR graphs, written out as one.

Exporters nest: snnTorch's ``RLeaky`` and ``RSynaptic`` become a graph of their own with a neuron and its recurrent weights. A
node ``inner`` of a nested graph ``outer`` becomes ``outer.inner``; its Input and Output are bridged.
"""

from __future__ import annotations

import nir

from snn_export.export.graph import Edge, predecessors, successors
from snn_export.models.diagnostics import UserError


def flattened(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The graph without nested graphs; the same one where there are none.

    Raises:
        UserError: SNX263 for a nested graph that does not have exactly one input and one output, or whose names or edges would
            fall together with others.
    """
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            return flattened(_opened(graph, name, flattened(node)))
    return graph


def _opened(graph: nir.NIRGraph, name: str, inner: nir.NIRGraph) -> nir.NIRGraph:
    """The graph with the nodes of one nested graph in its place."""
    doors = []
    for kind in (nir.Input, nir.Output):
        found = [key for key, node in inner.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise _refuse(name, f"it has {len(found)} {kind.__name__.lower()} nodes", "give it one Input and one Output node")
        doors.append(f"{name}.{found[0]}")
    renamed = {f"{name}.{key}": node for key, node in inner.nodes.items()}
    clash = sorted(renamed.keys() & graph.nodes.keys())
    if clash:
        raise _refuse(name, f"{clash[0]} is the name of another node", "rename one of them")
    nodes: dict[str, nir.NIRNode] = {}
    for key, node in graph.nodes.items():
        nodes |= renamed if key == name else {key: node}
    edges = [(doors[1] if source == name else source, doors[0] if target == name else target) for source, target in graph.edges]
    edges += [(f"{name}.{source}", f"{name}.{target}") for source, target in inner.edges]
    opened = nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)
    for door in reversed(doors):
        opened = _bridged(opened, door, name)
    return opened


def _bridged(graph: nir.NIRGraph, door: str, name: str) -> nir.NIRGraph:
    """Without the node ``door``: what leads to it leads to what it leads to."""
    if not predecessors(graph, door) or not successors(graph, door):
        raise _refuse(name, f"nothing leads to or from {door}", "connect it, inside and outside")
    edges: list[Edge] = []
    for source, target in graph.edges:
        if target == door:
            edges += [(source, after) for after in successors(graph, door)]
        elif source != door:
            edges.append((source, target))
    if len(set(edges)) != len(edges):
        twice = next(edge for edge in edges if edges.count(edge) > 1)
        raise _refuse(name, f"{twice[0]} would lead to {twice[1]} twice", "add a weight node to one of the two ways")
    nodes = {key: node for key, node in graph.nodes.items() if key != door}
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)


def _refuse(name: str, what: str, fix: str) -> UserError:
    return UserError(
        "SNX263", f"the nested graph {name} cannot be written out: {what}", where=name,
        why="backends see one flat graph; what enters a nested graph enters at its Input and leaves at its Output", fix=fix,
    )  # fmt: skip
