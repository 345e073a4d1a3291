"""Layers that a chip would run for nothing, and states that may leave their registers: warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.bounds import highest_membrane, highest_real_membrane, overflow_findings
from snn_export.export.deployment import Deployment, biases_in, weights_in
from snn_export.export.gains import threshold_array
from snn_export.export.graph import is_population
from snn_export.hardware_sims.rules.network import Network
from snn_export.models.arithmetic import STATE_SHIFT
from snn_export.models.diagnostics import Diagnostic


def states_cannot_overflow(network: Network) -> list[Diagnostic]:
    """No input of the declared range takes u or v beyond 24 bits, by bounds over the weights of every neuron."""
    deployment = network.on_chip
    if deployment is None:
        return []
    return overflow_findings(deployment, [name for name in deployment.layers if network.holds(name)])


def thresholds_can_be_reached(network: Network) -> Iterator[Diagnostic]:
    """Some neuron of every spiking population can fire: with every source firing in every step it passes its threshold."""
    deployment = network.on_chip
    if deployment is None:
        return
    for name in deployment.layers:
        if not deployment.contract.neurons[name].spiking or not network.holds(name):
            continue
        reached = _nearest(deployment, name)
        if reached is not None:
            yield Diagnostic(
                "SNX484",
                f"no neuron of {name} can fire: a membrane reaches {reached[0]:,.6g} at most, the threshold is {reached[1]:,.6g}",
                where=name,
                why="with every source firing in every step the positive weights do not add up to more; a network that was read "
                "with another dt than it was written with looks like this",
                fix=f"lower the threshold of {name} or raise its weights, or state the dt of the file it was read from",
            )


def _nearest(deployment: Deployment, name: str) -> tuple[float, float] | None:
    """(membrane, threshold) of the neuron that comes closest to firing where none can; None where one can, or nobody knows."""
    threshold: NDArray[Any]
    if name in deployment.populations:
        threshold = np.asarray(deployment.populations[name].threshold << STATE_SHIFT)
        membrane = np.floor(highest_membrane(deployment, name))  # membranes are whole numbers
        fires = membrane > threshold
    else:
        found = highest_real_membrane(deployment, name)
        if found is None:
            return None
        membrane, threshold = found, threshold_array(deployment.graph.nodes[name])
        fires = membrane >= threshold  # on the threshold rounding decides
    if fires.any() or not fires.size:
        return None
    limits = np.broadcast_to(threshold, membrane.shape).reshape(-1)
    nearest = int(np.argmin(limits - membrane.reshape(-1)))
    return float(membrane.reshape(-1)[nearest]), float(limits[nearest])


def weights_connect(network: Network) -> Iterator[Diagnostic]:
    """A weight layer has weights other than zero, or at least a bias to add."""
    deployment = network.on_chip
    if deployment is None:
        return
    for wire in (wire for incoming in deployment.wires.values() for wire in incoming):
        weights = weights_in(deployment, wire.weight)
        if not any(np.any(part) for part in (weights, *biases_in(deployment, wire.weight))):
            yield Diagnostic(
                "SNX486",
                f"0 of the {weights.size:,} weights of {wire.weight} differ from zero; it takes 1 to connect",
                where=wire.weight,
                why=f"nothing that {wire.source} does reaches {wire.target} on this way",
                fix="take the layer out, or quantise with more weight bits where it was not zero before",
            )


def populations_are_heard(network: Network) -> Iterator[Diagnostic]:
    """From every population a way leads to the output."""
    graph = network.deployment.graph
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        if source in before and target in before:
            before[target].append(source)
    waiting = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
    heard = set(waiting)
    while waiting:
        new = [source for source in before[waiting.pop()] if source not in heard]
        heard.update(new)
        waiting += new
    for name, node in graph.nodes.items():
        if is_population(node) and name not in heard:
            yield Diagnostic(
                "SNX485",
                f"0 ways lead from {name} to the output, and it takes 1 to be heard",
                where=name,
                why="its cores would work for nothing",
                fix="take it out of the network, or connect it",
            )
