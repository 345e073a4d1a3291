"""Let the shorter of two paths wait: relay neurons where a convolution would have to be delayed.

Every connection takes a step on a chip, so where paths of unequal depth meet, the shorter one waits. Dense and diagonal
synapses hold a delay each. A convolution does not (Lava has no delayed Conv): either it is written out as a sparse matrix with
delays, or its source is repeated by relay neurons, one layer of them per step, and the convolution stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import nir
import numpy as np

from snn_export.export.chains import fresh, numbered
from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES, is_population
from snn_export.export.linear_maps import synapse_count, window_of
from snn_export.export.passes.pass_ import Exactness, with_graph
from snn_export.export.wiring import Wire
from snn_export.models.spec import NeuronSpec

RELAY_THRESHOLD = 0.5
"""Half of what a relay receives for a spike: it fires for each one, and is back at zero afterwards."""


@final
@dataclass(frozen=True)
class BalanceLatency:
    """Insert relays before convolutions that would have to be delayed, where that is cheaper than writing them out.

    A relay is an IF neuron with one synapse of weight 1 and a threshold of 0.5: it fires in the step its source fires. In local
    time nothing changes (EXACT); on hardware it spends one step.

    Cost, in bytes of a core: n relays of N neurons each are n N (neuron_bytes + synapse_bytes); the convolutions they save,
    written out, are their synapses times synapse_bytes. A Loihi core holds 1,024 neurons and about 128 KiB of synapses, so a
    neuron stands for 128 bytes (Davies et al., IEEE Micro 2018); a synapse with weight, delay and target takes about four.

    Attributes:
        neuron_bytes: synapse memory that goes with a neuron.
        synapse_bytes: memory of a synapse that is not part of a convolution.
    """

    neuron_bytes: int = 128
    synapse_bytes: int = 4
    name: ClassVar[str] = "balance_latency"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment with relays; the same one where no convolution waits, or waiting in a matrix is cheaper.

        What is left to wait is ``deployment.latency_gap(wire)``, for the backend to realise with delays.
        """
        while True:
            waiting = _waiting(deployment)
            chosen = [(source, wires) for source, wires in waiting.items() if self._relays_pay(deployment, source, wires)]
            if not chosen:
                return deployment
            deployment = _with_relays(deployment, *chosen[0])  # relays change what waits behind them

    def _relays_pay(self, deployment: Deployment, source: str, wires: list[Wire]) -> bool:
        neurons = int(np.prod(deployment.shapes[source]))
        layers = max(deployment.latency_gap(wire) for wire in wires)
        relays = layers * neurons * (self.neuron_bytes + self.synapse_bytes)
        return relays < sum(_synapses(deployment, wire) for wire in wires) * self.synapse_bytes


def _waiting(deployment: Deployment) -> dict[str, list[Wire]]:
    """Convolutions behind spiking populations that would have to be delayed, by source; delays of their own stay theirs."""
    found: dict[str, list[Wire]] = {}
    for incoming in deployment.wires.values():
        for wire in incoming:
            delayed = not wire.recurrent and wire.most == 0 and deployment.latency_gap(wire) > 0
            convolves = isinstance(deployment.graph.nodes[wire.weight], CONV_TYPES)
            if delayed and convolves and is_population(deployment.graph.nodes[wire.source]):
                found.setdefault(wire.source, []).append(wire)
    return found


def _synapses(deployment: Deployment, wire: Wire) -> int:
    shapes = deployment.shapes
    window = window_of(deployment.graph.nodes[wire.weight], shapes[wire.source], shapes[wire.weight])
    return 0 if window is None else synapse_count(window)


def _with_relays(deployment: Deployment, source: str, wires: list[Wire]) -> Deployment:
    graph, contract, shape = deployment.graph, deployment.contract, deployment.shapes[source]
    nodes, edges, neurons = dict(graph.nodes), list(graph.edges), dict(contract.neurons)
    origin = dict(contract.origin)
    gaps = {wire.connection.path[0]: deployment.latency_gap(wire) for wire in wires}
    last, chain, taken = source, [source], set(nodes)
    for _ in range(max(gaps.values())):
        relay = numbered(f"{source}.relay", taken)
        weight = fresh(f"{relay}.weight", taken)
        nodes[weight] = nir.Scale(np.ones(shape))
        nodes[relay] = nir.IF(
            r=np.full(shape, 1.0 / contract.dt), v_threshold=np.full(shape, RELAY_THRESHOLD), v_reset=np.zeros(shape)
        )
        neurons[relay] = NeuronSpec(0)
        origin[relay] = origin.get(source, source)
        edges += [(last, weight), (weight, relay)]
        last = relay
        chain.append(relay)
    edges = [(chain[gaps[end]], end) if start == source and end in gaps else (start, end) for start, end in edges]
    return with_graph(
        deployment, nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False), neurons=neurons, origin=origin
    )
