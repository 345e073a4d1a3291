"""A part of a network as a deployment of its own, driven by the spikes that reach it in the whole one.

A *cut* is a source (a population, or the input) and all populations between it and a last layer. Nothing else may lead into
them: then what the source sent, recorded in any run of the whole network, is all the part needs, and run on it the part does
what it does in the whole network, bit for bit, spikes and membranes. Populations of a loop hear each other, so a loop stays
together. The part's contract is the old one where it still speaks of the part; latencies are those of the new graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.chains import fresh
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Connection, input_node, latencies, output_node
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, ReadoutRule, ReadoutSpec

Array = NDArray[Any]
STEP = "extract"
"""How the lineage of a part calls this rewrite."""
SPIKES = EncoderSpec("events", gain=1.0, low=0, high=1)
"""Input of a quantised part behind a population: plain spikes, of weight 1 on every scale."""


@dataclass(frozen=True)
class Cut:
    """``populations``, sources first, of which the last layer is one; all that leads into them comes from ``source``."""

    source: str
    populations: tuple[str, ...]
    layer: str


def cuts(deployment: Deployment, layer: str) -> tuple[Cut, ...]:
    """All parts that end in a layer and hear one source, smallest first; the last one is everything that leads to the layer.

    Where a layer has several sources (two paths are added, say), the smallest part begins where these paths part.

    Raises:
        UserError: SNX512 for a layer that does not exist.
    """
    if layer not in deployment.connections:
        raise UserError(
            "SNX512", f"there is no layer {layer!r}", where="cuts(layer=...)",
            why=f"the network's layers are {', '.join(deployment.layers)}", fix="name one of them",
        )  # fmt: skip
    stage_of = {name: number for number, stage in enumerate(deployment.stages) for name in stage}
    found = []
    for source in (input_node(deployment.graph), *deployment.layers):
        between = _between(deployment, source, layer)
        if between is None or stage_of.get(source) in {stage_of[name] for name in between}:
            continue
        found.append(Cut(source, tuple(name for name in deployment.layers if name in between), layer))
    return tuple(sorted(found, key=lambda cut: (len(cut.populations), neurons(deployment, cut.populations))))


def neurons(deployment: Deployment, populations: tuple[str, ...] | None = None) -> int:
    """How many neurons these populations hold together; all of them for None."""
    names = deployment.layers if populations is None else populations
    return sum(int(np.prod(deployment.shapes[name])) for name in names)


def _between(deployment: Deployment, source: str, layer: str) -> set[str] | None:
    """Populations from which the layer is reached without passing the source; None where another source leads into them."""
    found, waiting = set[str](), [layer]
    while waiting:
        name = waiting.pop()
        if name == source or name in found:
            continue
        if name not in deployment.connections:
            return None  # the input, past the source
        found.add(name)
        waiting += [connection.source for connection in deployment.connections[name]]
    return found or None


def extract(deployment: Deployment, cut: Cut) -> Deployment:
    """The deployment of a cut.

    Its input node has the shape of what the source sends: the encoder is the old one behind the input itself, and events (T, B,
    *shape) behind a population, spikes of 0 and 1 where it is quantised. The last layer is the readout, by the old rule where it
    was the readout before, else by its spikes or, where it does not fire, its last membrane.

    Raises:
        UserError: SNX512 where the loops of the part would be closed elsewhere than in the whole network; SNX207.
    """
    graph, inside = deployment.graph, set(cut.populations)
    incoming = [connection for name in cut.populations for connection in deployment.connections[name]]
    outside = {connection.source for connection in incoming} - inside
    if outside != {cut.source}:
        raise _refused(cut.layer, f"{', '.join(sorted(outside - {cut.source})) or 'nothing'} leads into it beside {cut.source}")
    kept = inside | {name for connection in incoming for name in connection.path}
    first, last = input_node(graph), output_node(graph)
    taken = set(kept)
    start = first if cut.source == first else fresh("input", taken)
    end = fresh(last, taken | {start})
    shape = np.array(deployment.shapes[cut.source])
    nodes: dict[str, nir.NIRNode] = {start: nir.Input({"input": shape})}
    nodes |= {name: node for name, node in graph.nodes.items() if name in kept}
    nodes[end] = nir.Output({"output": np.array(deployment.shapes[cut.layer])})
    edges = [(start if a == cut.source else a, b) for a, b in graph.edges if b in kept and (a in kept or a == cut.source)]
    part = nir.NIRGraph(nodes, [*edges, (cut.layer, end)], metadata=graph.metadata, type_check=False)
    made = Deployment(
        part,
        _contract(deployment, cut, latencies(part, deployment.contract.dt)),
        {name: value for name, value in deployment.synapses.items() if name in kept},
        {name: value for name, value in deployment.populations.items() if name in kept},
        {name: value for name, value in deployment.fold_magnitude.items() if name in kept},
        {name: value for name, value in deployment.firing.items() if name in kept},
        {name: value for name, value in deployment.merged.items() if name in kept},
    )
    _check_loops(deployment, made, cut, start)
    return made


def _contract(deployment: Deployment, cut: Cut, latency: dict[str, int]) -> ExecutionContract:
    """The contract of a part; paths in the lineage would lead nowhere from a new file, so only parents are named."""
    old, kept = deployment.contract, set(cut.populations)
    quantisation = old.quantisation
    if quantisation is not None:
        scale = {name: value for name, value in quantisation.scale.items() if name in kept}
        binding = {name: value for name, value in quantisation.binding.items() if name in kept}
        quantisation = quantisation.model_copy(update={"scale": scale, "binding": binding})
    encoder = old.encoder
    if cut.source in deployment.connections:
        encoder = SPIKES if deployment.quantised else EncoderSpec("events")
    parents = (*old.lineage.parents, deployment.fingerprint)
    lineage = old.lineage.model_copy(update={"passes": (*old.lineage.passes, STEP), "parents": parents, "files": {}})
    return old.model_copy(update={
        "latency": latency,
        "neurons": {name: spec for name, spec in old.neurons.items() if name in kept},
        "origin": {name: origin for name, origin in old.origin.items() if name in kept},
        "readout": ReadoutSpec(cut.layer, _rule(deployment, cut.layer)),
        "encoder": encoder,
        "quantisation": quantisation,
        "lineage": lineage,
    })  # fmt: skip


def _rule(deployment: Deployment, layer: str) -> ReadoutRule:
    if layer == deployment.contract.readout.node:
        return deployment.contract.readout.rule
    return "spike_count" if deployment.contract.neurons[layer].spiking else "membrane_last"


def _check_loops(whole: Deployment, part: Deployment, cut: Cut, start: str) -> None:
    """Where a loop closes follows from the graph alone, and must be where it closed before: that is where its step is."""

    def closing(deployment: Deployment, old_name: str) -> set[Connection]:
        return {
            replace(connection, source=cut.source if connection.source == old_name else connection.source)
            for name in cut.populations
            for connection in deployment.connections[name]
        }

    if closing(whole, cut.source) != closing(part, start):
        raise _refused(cut.layer, "its loops would be closed at another place, and take their step of delay there")


def _refused(layer: str, why: str) -> UserError:
    return UserError(
        "SNX512", f"the part of the network that ends in {layer} cannot stand alone", where=layer, why=why,
        fix="take a larger part: snn_export.export.extracting.cuts(deployment, layer) lists those that can",
    )  # fmt: skip


def part_inputs(deployment: Deployment, cut: Cut, inputs: Array, sent: Mapping[str, Array]) -> Array:
    """What drives a cut: the inputs as they are, or what its source sent in a run of the whole network.

    Args:
        deployment: the whole network.
        cut: of it.
        inputs: of that run.
        sent: by population, (T, B, *features): ``LayerTrace.sent``.

    Returns:
        (T, B, *shape), or (1, B, *shape) where one input serves all steps.
    """
    if cut.source in deployment.connections:
        return np.asarray(sent[cut.source], np.float64)
    return encoding.shaped(deployment, inputs)


def with_input_over_time(deployment: Deployment, inputs: Array) -> tuple[Deployment, Array]:
    """The same network on the same signal with the time axis written out: events (T, B, *shape) in place of another encoder.

    Inputs that a host turns into biases have no such form, and events are what they are: both come back unchanged.
    """
    encoder, steps = deployment.contract.encoder, deployment.contract.steps
    if encoder.kind in ("events", "bias"):
        return deployment, inputs
    signal = encoding.signal(deployment, inputs)
    written = np.ascontiguousarray(np.broadcast_to(signal, (steps, *signal.shape[1:])))
    contract = deployment.contract.model_copy(update={"encoder": replace(encoder, kind="events")})
    return deployment.replace(contract=contract), written
