"""Everything that keeps a float deployment from being put on a chip, told at once.

``prepare`` and ``quantize`` stop at the first thing they cannot do. Here every rule is asked; what one rule finds is mended in
a copy where it can be (an unknown node passes its input on, a delay is rounded), so that it does not hide what others find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

import nir
import numpy as np

from snn_export.export import encoding, grid
from snn_export.export.chains import chain_of, explicit, rewired, weight_of
from snn_export.export.deployment import Deployment
from snn_export.export.graph import (
    POOL_TYPES,
    SYNAPSE_TYPES,
    Connection,
    Shape,
    connections,
    delay_steps,
    input_node,
    is_population,
    latencies,
    output_node,
    replace_nodes,
    shapes,
    unsupported,
)
from snn_export.export.passes.pass_ import with_graph
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.populations import constant_findings
from snn_export.export.splitting import split, uneven_readouts
from snn_export.models.diagnostics import Diagnostic, diagnostics_of
from snn_export.models.weight_grid import DELAY_MAX

CheckTarget = Literal["loihi1", "loihi2", "loihi", "lava", "netx"]
PROGRAMMABLE = ("loihi2", "loihi")
"""Targets whose neurons may be programs of their own, which reset by subtraction."""


def findings(deployment: Deployment, target: CheckTarget = "loihi2") -> list[Diagnostic]:
    """Why a float deployment cannot be expressed on a target; empty where ``quantize`` has everything it needs.

    Args:
        deployment: float; as it was read, or prepared.
        target: a chip ("loihi1", "loihi2") or a backend ("loihi", "lava", "netx").

    Returns:
        Findings with codes SNX107, SNX201 to SNX209, SNX230, SNX242, SNX247 to SNX249, SNX260 to SNX265, SNX278.
    """
    found = [*_neurons(deployment, target), *input_findings(deployment, target)]
    graph, mended = _mended(deployment.graph, deployment.contract.dt)
    found += mended
    read: tuple[Callable[[nir.NIRGraph], object], ...] = (connections, input_node, output_node)
    broken = [item for question in read for item in diagnostics_of(partial(question, graph))]
    broken = broken or diagnostics_of(lambda: shapes(graph))
    unknown = any(item.code == "SNX201" for item in mended)
    found += [item for item in broken if not (unknown and item.code == "SNX206")]  # what an unknown node makes is unknown
    if not broken:
        found += [*encoding.filtered_host_findings(deployment), *_paths(deployment.replace(graph=graph))]
    return list({(item.code, item.where): item for item in found}.values())


def _neurons(deployment: Deployment, target: CheckTarget) -> Iterator[Diagnostic]:
    """Resets, constants and decays."""
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name)
        if finding is not None and not (spec.microcode and target in PROGRAMMABLE):
            yield finding
        node = deployment.graph.nodes.get(name)
        if node is None or not is_population(node):
            continue
        yield from constant_findings(name, node)
        alone = deployment.contract.model_copy(update={"neurons": {name: spec}})
        yield from diagnostics_of(partial(grid.check_decays, deployment.replace(contract=alone)))


def input_findings(deployment: Deployment, target: CheckTarget) -> Iterator[Diagnostic]:
    """An input that the target's first synapses cannot see (SNX247)."""
    encoder = deployment.contract.encoder
    graded = encoder.kind == "direct" if encoder.gain is None else encoder.kind != "bias" and not encoder.binary
    if target == "loihi1" and graded:
        yield encoding.graded_input_finding(f"{encoder.kind} input")


def _mended(graph: nir.NIRGraph, dt: float) -> tuple[nir.NIRGraph, list[Diagnostic]]:
    """The graph with unknown nodes passing their input on and delays rounded, and what that hides."""
    known = (*SYNAPSE_TYPES, *POOL_TYPES, nir.Flatten, nir.Delay, nir.Input, nir.Output)
    found: list[Diagnostic] = []
    nodes: dict[str, nir.NIRNode] = {}
    for name, node in graph.nodes.items():
        if not isinstance(node, known) and not is_population(node):
            found += unsupported(name, node).diagnostics
            nodes[name] = nir.Scale(np.ones(1))
        elif isinstance(node, nir.Delay) and (wrong := diagnostics_of(partial(delay_steps, name, node, dt))):
            found += wrong
            steps = np.maximum(np.rint(np.nan_to_num(np.asarray(node.delay, np.float64)) / dt), 0)
            nodes[name] = nir.Delay(steps * dt)
    return replace_nodes(graph, nodes), found


def _paths(deployment: Deployment) -> list[Diagnostic]:
    """What stands between populations: loops, chains without an exact form, waits, neurons that differ."""
    dt = deployment.contract.dt
    slow = diagnostics_of(lambda: latencies(deployment.graph, dt))
    graph = explicit(deployment.graph, deployment.shapes)
    made = shapes(graph)
    found = list(uneven_readouts(graph, made))
    chained = [c for incoming in connections(graph).values() for c in incoming]
    long = [item for c in chained for item in diagnostics_of(partial(_as_one, graph, made, dt, c))]
    if not long:
        composed = deployment.replace(graph=rewired(graph, made, dt, {})[0], fold_magnitude={})
        found += diagnostics_of(lambda: split(composed.graph, dt)) + diagnostics_of(lambda: PortableForm()(composed))
        if not slow:
            found += _waits(with_graph(composed, composed.graph))
    return slow + long + found


def _as_one(graph: nir.NIRGraph, made: Mapping[str, Shape], dt: float, connection: Connection) -> None:
    """Raise what keeps a connection from being one weight node."""
    weight_of(chain_of(graph, made, dt, connection, set(), {}))


def _waits(deployment: Deployment) -> Iterator[Diagnostic]:
    """Delays beyond what a synapse holds; what a shorter path waits for a longer one counts."""
    for incoming in deployment.wires.values():
        for wire in incoming:
            total = wire.most + deployment.latency_gap(wire)
            if total > DELAY_MAX:
                yield Diagnostic(
                    "SNX230",
                    f"a spike from {wire.source} has to wait {total} steps on its way to {wire.target}",
                    where=f"{wire.source} -> {wire.target}",
                    why=f"a synapse delays by up to {DELAY_MAX} steps; {wire.most} are the network's own, the rest "
                    "makes up for a shorter path",
                    fix="shorten the delay, or put a population that only relays spikes into the way",
                )
