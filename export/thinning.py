"""A network with less in it: weights of zero, no bias, no delay. Shapes stay; the result is another network."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.deployment import Deployment, biases_in
from snn_export.export.graph import SYNAPSE_TYPES, latencies, remove_node, replace_nodes, weight_array
from snn_export.export.populations import with_constants


def weight_nodes(deployment: Deployment) -> tuple[str, ...]:
    """Names of the nodes that hold weights, in the order of the node table."""
    return tuple(name for name, node in deployment.graph.nodes.items() if isinstance(node, SYNAPSE_TYPES))


def with_weights(deployment: Deployment, name: str, kept: NDArray[np.bool_]) -> Deployment:
    """The deployment in which a node's weights are zero but where ``kept`` (its shape) is true."""
    if name in deployment.synapses:
        synapse = deployment.synapses[name]
        changed = replace(synapse, weight=np.where(kept, synapse.weight, 0).astype(np.int16))
        return _on_grid(deployment.replace(synapses={**deployment.synapses, name: changed}))
    node = deployment.graph.nodes[name]
    made = grid.with_parameters(node, np.where(kept, weight_array(node), 0.0), getattr(node, "bias", None))
    return deployment.replace(graph=replace_nodes(deployment.graph, {name: made}))


def biased_nodes(deployment: Deployment) -> tuple[str, ...]:
    """Weight nodes with a bias other than zero, and float populations whose rest adds one (v_leak)."""
    found = []
    for name, node in deployment.graph.nodes.items():
        held = biases_in(deployment, name)
        if not deployment.quantised or name in deployment.host_synapses:  # on a grid v_leak follows from the integers
            held = (*held, getattr(node, "v_leak", np.zeros(())))
        elif name not in deployment.synapses:
            continue
        if any(np.any(value) for value in held):
            found.append(name)
    return tuple(found)


def without_bias(deployment: Deployment, name: str) -> Deployment:
    """The deployment without the bias of one of :func:`biased_nodes`."""
    if name in deployment.synapses:
        changed = replace(deployment.synapses[name], bias_mantissa=None, current_bias=None)
        return _on_grid(deployment.replace(synapses={**deployment.synapses, name: changed}))
    node = deployment.graph.nodes[name]
    if isinstance(node, SYNAPSE_TYPES):
        made = grid.with_parameters(node, weight_array(node), np.zeros_like(node.bias))
    else:
        made = with_constants(node, v_leak=np.zeros_like(node.v_leak))
    folded = {key: value for key, value in deployment.fold_magnitude.items() if key != name}
    return deployment.replace(graph=replace_nodes(deployment.graph, {name: made}), fold_magnitude=folded)


def delays(deployment: Deployment) -> tuple[str, ...]:
    """Names of the Delay nodes."""
    return tuple(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Delay))


def without_delay(deployment: Deployment, name: str) -> Deployment:
    """The deployment without one of its Delay nodes; a loop keeps the step it has by itself.

    Raises:
        UserError: SNX207 for a loop that would be too fast for a chip, SNX206.
    """
    graph = remove_node(deployment.graph, name, {})
    latency = latencies(graph, deployment.contract.dt)
    return deployment.replace(graph=graph, contract=deployment.contract.model_copy(update={"latency": latency}))


def during(deployment: Deployment, steps: NDArray[np.int64]) -> Deployment:
    """The deployment that runs through these of its steps only; state starts from zero at the first one.

    Periodic resets stay at the steps they were at, counted from the first step that is left.
    """
    first, neurons = int(steps[0]), dict(deployment.contract.neurons)
    for name, spec in neurons.items():
        if spec.reset_interval:
            neurons[name] = replace(spec, reset_offset=(spec.reset_offset - first) % spec.reset_interval)
    return deployment.replace(contract=deployment.contract.model_copy(update={"steps": len(steps), "neurons": neurons}))


def _on_grid(deployment: Deployment) -> Deployment:
    return grid.on_grid(deployment, deployment.contract.encoder, deployment.synapses, deployment.populations)
