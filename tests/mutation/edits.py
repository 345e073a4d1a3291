"""Changes of a deployment: one weight, one bias, one edge, one number, of a quantised network or of one in floats."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.graph import SYNAPSE_TYPES, Connection, latencies, replace_nodes, weight_array
from snn_export.models.diagnostics import UserError

Array = NDArray[Any]


def synapses(deployment: Deployment, layer: str) -> list[tuple[Connection, str]]:
    """Connections into a layer that have a weight node, with its name; the last one where there are several."""
    found = []
    for connection in deployment.connections[layer]:
        names = [name for name in connection.path if isinstance(deployment.graph.nodes[name], SYNAPSE_TYPES)]
        if names:
            found.append((connection, names[-1]))
    return found


def weights(deployment: Deployment, name: str) -> Array:
    """A weight node's integers, or its floats."""
    return np.array(deployment.synapses[name].weight if deployment.quantised else weight_array(deployment.graph.nodes[name]))


def with_node(deployment: Deployment, name: str, **fields: Any) -> Deployment:
    """A node with some fields exchanged."""
    node = copy(deployment.graph.nodes[name])
    for key, value in fields.items():
        setattr(node, key, value)
    return deployment.replace(graph=replace_nodes(deployment.graph, {name: node}))


def with_weights(deployment: Deployment, name: str, values: Array, **fields: Any) -> Deployment:
    """Other weights in a node, and other geometry where they need it."""
    key = "scale" if isinstance(deployment.graph.nodes[name], nir.Scale) else "weight"
    changed = with_node(deployment, name, **{key: values.astype(np.float64)}, **fields)
    return with_synapse(changed, name, weight=values.astype(np.int16)) if deployment.quantised else changed


def with_synapse(deployment: Deployment, name: str, **fields: Any) -> Deployment:
    """A weight node with other integers."""
    return deployment.replace(synapses={**deployment.synapses, name: replace(deployment.synapses[name], **fields)})


def with_population(deployment: Deployment, layer: str, **fields: Any) -> Deployment:
    """A layer with other integers."""
    return deployment.replace(populations={**deployment.populations, layer: replace(deployment.populations[layer], **fields)})


def with_spec(deployment: Deployment, layer: str, **fields: Any) -> Deployment:
    """A layer with other semantics."""
    neurons = {**deployment.contract.neurons, layer: replace(deployment.contract.neurons[layer], **fields)}
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


def with_biases(deployment: Deployment, layer: str, change: Callable[[Array], Array]) -> Deployment | None:
    """The biases of all connections into a layer changed; None where it has none, or a register cannot hold the new ones."""
    found, biased = deployment, False
    for _, name in synapses(deployment, layer):
        held = (
            deployment.synapses[name].bias_mantissa
            if deployment.quantised
            else getattr(deployment.graph.nodes[name], "bias", None)
        )
        if held is None or not np.any(held):
            continue
        biased, values = True, change(np.asarray(held, np.int64 if deployment.quantised else np.float64))
        if not deployment.quantised:
            found = with_node(found, name, bias=values)
        elif np.abs(values).max() > 4095:
            return None
        else:
            found = with_synapse(found, name, bias_mantissa=values.astype(np.int16))
    return found if biased else None


def without(deployment: Deployment, connection: Connection) -> Deployment:
    """A connection taken out, with the nodes that nothing else needs."""
    chain = (connection.source, *connection.path, connection.target)
    edges, nodes = list(deployment.graph.edges), dict(deployment.graph.nodes)
    for source, target in reversed(list(pairwise(chain))):
        if target != connection.target and any(first == target for first, _ in edges):
            break  # somebody else hears this node
        edges.remove((source, target))
        if target != connection.target:
            del nodes[target]
    return rewired(deployment, nodes, edges)


def later(deployment: Deployment, layer: str, steps: int) -> Deployment:
    """Whatever reaches a layer from others reaches it some steps later."""
    nodes, edges = dict(deployment.graph.nodes), list(deployment.graph.edges)
    for number, (source, target) in enumerate(deployment.graph.edges):
        if target == layer:
            name = f"{layer}.late{number}"
            nodes[name] = nir.Delay(np.atleast_1d(steps * deployment.contract.dt))
            edges.remove((source, target))
            edges += [(source, name), (name, target)]
    return rewired(deployment, nodes, edges)


def rewired(deployment: Deployment, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> Deployment:
    """Another graph of the same layers. Its latency on a chip follows from it, where a chip can have it at all."""
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    try:
        latency = latencies(graph, deployment.contract.dt)
    except UserError:
        latency = deployment.contract.latency
    held = {name: synapse for name, synapse in deployment.synapses.items() if name in nodes}
    return deployment.replace(graph=graph, contract=deployment.contract.model_copy(update={"latency": latency}), synapses=held)


def delays(deployment: Deployment, connection: Connection) -> list[str]:
    """Its Delay nodes."""
    return [name for name in connection.path if isinstance(deployment.graph.nodes[name], nir.Delay)]


def same_network(first: Deployment, second: Deployment) -> bool:
    """Whether two quantised deployments hold the same numbers, and so do the same on every input.

    Edges, geometry, weights after their exponent, biases as they reach each neuron, delays, decays, thresholds, resets.
    """
    if list(first.graph.edges) != list(second.graph.edges) or first.contract != second.contract:
        return False
    for name in first.layers:
        if first.populations[name] != second.populations[name]:
            return False
        if (
            not np.array_equal(first.bias(name), second.bias(name))
            or first.current_bias(name).any() != second.current_bias(name).any()
        ):
            return False
    if any(first.current_bias(name).any() for name in first.layers):
        return False  # none of the networks has such biases
    for name, node in first.graph.nodes.items():
        other, held = second.graph.nodes[name], name in first.synapses
        if held and not np.array_equal(effective(first, name), effective(second, name)):
            return False
        left_out = {"weight", "scale", "bias", "input_type", "output_type", "metadata"} if held else {"input_type", "output_type"}
        geometry = [
            {key: np.asarray(value).tolist() for key, value in vars(n).items() if key not in left_out} for n in (node, other)
        ]
        if geometry[0] != geometry[1]:
            return False
    return True


def effective(deployment: Deployment, name: str) -> Array:
    """Weights after their exponent."""
    synapse = deployment.synapses[name]
    return synapse.weight.astype(np.int64) << synapse.weight_exponent
