"""Everything that keeps a float deployment from being put on a chip, told at once.

``prepare`` and ``quantize`` stop at the first thing they cannot do. Here every rule is asked; what one rule finds is mended in
a copy where it can be (an unknown node passes its input on, a delay is rounded), so that it does not hide what others find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import nir
import numpy as np

from snn_export.export import encoding, grid
from snn_export.export.chains import chain_of, explicit, rewired, weight_of
from snn_export.export.chips import chip_of
from snn_export.export.deployment import Deployment
from snn_export.export.graph import (
    POOL_TYPES,
    SYNAPSE_TYPES,
    Connection,
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
from snn_export.export.passes.split_populations import SplitPopulations
from snn_export.export.populations import constant_findings
from snn_export.export.splitting import split, uneven_readouts
from snn_export.export.targets import CheckTarget
from snn_export.models.diagnostics import Diagnostic, diagnostics_of
from snn_export.models.weight_grid import DELAY_MAX

LINEAR_TYPES = (*SYNAPSE_TYPES, *POOL_TYPES, nir.Flatten, nir.Delay)
"""Nodes between populations that have an exact rule here."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network and what it is to be put on, with copies in which what one rule finds hides nothing from the others.

    Attributes:
        deployment: as it was read, or prepared.
        target: a chip ("loihi1", "loihi2") or a backend ("loihi", "lava", "netx").
    """

    deployment: Deployment
    target: CheckTarget = "loihi2"

    @cached_property
    def mended(self) -> nir.NIRGraph:
        """The graph with unknown nodes passing their input on, and delays rounded to whole steps."""
        graph, dt = self.deployment.graph, self.deployment.contract.dt
        nodes: dict[str, nir.NIRNode] = {}
        for name, node in graph.nodes.items():
            if not _is_known(node):
                nodes[name] = nir.Scale(np.ones(1))
            elif isinstance(node, nir.Delay) and diagnostics_of(partial(delay_steps, name, node, dt)):
                steps = np.maximum(np.rint(np.nan_to_num(np.asarray(node.delay, np.float64)) / dt), 0)
                nodes[name] = nir.Delay(steps * dt)
        return replace_nodes(graph, nodes)

    @cached_property
    def broken(self) -> tuple[Diagnostic, ...]:
        """Why the mended graph's connections, ends and shapes cannot be read; empty where they can."""
        read: tuple[Callable[[nir.NIRGraph], object], ...] = (connections, input_node, output_node)
        found = [item for question in read for item in diagnostics_of(partial(question, self.mended))]
        return tuple(found or diagnostics_of(lambda: shapes(self.mended)))

    @cached_property
    def slow(self) -> tuple[Diagnostic, ...]:
        """Loops that a chip is too slow for, where the graph can be read."""
        return tuple(diagnostics_of(lambda: latencies(self.mended, self.deployment.contract.dt)))

    @cached_property
    def explicit(self) -> nir.NIRGraph:
        """The mended graph with weights on every connection."""
        return explicit(self.mended, shapes(self.mended))

    @cached_property
    def long(self) -> tuple[Diagnostic, ...]:
        """Connections that are no one weight layer, where the graph can be read."""
        graph, dt = self.explicit, self.deployment.contract.dt
        made = shapes(graph)
        chained = [c for incoming in connections(graph).values() for c in incoming]

        def as_one(connection: Connection) -> object:
            return weight_of(chain_of(graph, made, dt, connection, set(), {}))

        return tuple(item for c in chained for item in diagnostics_of(partial(as_one, c)))

    @cached_property
    def composed(self) -> Deployment | None:
        """The network with one weight layer per connection; None where it cannot be read or composed."""
        if self.broken or self.long:
            return None
        graph, *_ = rewired(self.explicit, shapes(self.explicit), self.deployment.contract.dt)
        return self.deployment.replace(graph=graph, fold_magnitude={})

    @cached_property
    def on_chip(self) -> Deployment | None:
        """The network as it would lie on a chip, uneven populations split where they can be; None where it cannot be composed."""
        if self.composed is None or self.slow:
            return None
        whole = with_graph(self.composed, self.composed.graph)
        return whole if any(populations_can_be_uniform(self)) else SplitPopulations()(whole)


CandidateRule = Callable[[Candidate], Iterable[Diagnostic]]


def resets_are_possible(network: Candidate) -> Iterator[Diagnostic]:
    """Spiking populations reset to zero in the step of the spike, or by subtraction where neurons are programmable."""
    for name, spec in network.deployment.contract.neurons.items():
        finding = spec.reset_finding(name, chip_of(network.target).programmable_neurons)
        if finding is not None:
            yield finding


def constants_are_canonical(network: Candidate) -> Iterator[Diagnostic]:
    """Neurons rest at zero and are reset to zero; their constants are numbers, resistances and thresholds positive ones."""
    for name, node in _populations(network):
        yield from constant_findings(name, node)


def decays_are_the_contracts(network: Candidate) -> Iterator[Diagnostic]:
    """Every time constant stands for the integer decay of the contract, one for all neurons of a population."""
    for name, _ in _populations(network):
        alone = network.deployment.contract.model_copy(update={"neurons": {name: network.deployment.contract.neurons[name]}})
        yield from diagnostics_of(partial(grid.check_decays, network.deployment.replace(contract=alone)))


def _populations(network: Candidate) -> Iterator[tuple[str, nir.NIRNode]]:
    nodes = network.deployment.graph.nodes
    return ((name, nodes[name]) for name in network.deployment.contract.neurons if name in nodes and is_population(nodes[name]))


def input_can_be_seen(network: Candidate) -> Iterator[Diagnostic]:
    """The target's first synapses see the input: only spikes, where a chip has no graded ones."""
    encoder = network.deployment.contract.encoder
    graded = encoder.kind == "direct" if encoder.gain is None else encoder.kind != "bias" and not encoder.binary
    if graded and not chip_of(network.target).graded_input_bits:
        yield encoding.graded_input_finding(f"{encoder.kind} input")


def node_types_are_known(network: Candidate) -> Iterator[Diagnostic]:
    """Every node is of a type that has an exact rule here."""
    for name, node in network.deployment.graph.nodes.items():
        if not _is_known(node):
            yield from unsupported(name, node).diagnostics


def _is_known(node: nir.NIRNode) -> bool:
    return isinstance(node, (*LINEAR_TYPES, nir.Input, nir.Output)) or is_population(node)


def delays_are_whole_steps(network: Candidate) -> Iterator[Diagnostic]:
    """A delay is a whole number of steps, 0 or more."""
    for name, node in network.deployment.graph.nodes.items():
        if isinstance(node, nir.Delay):
            yield from diagnostics_of(partial(delay_steps, name, node, network.deployment.contract.dt))


def graph_is_readable(network: Candidate) -> Iterator[Diagnostic]:
    """One input, one output, shapes that fit, a population in every loop."""
    unknown = any(node_types_are_known(network))
    return (item for item in network.broken if not (unknown and item.code == "SNX206"))  # what an unknown node makes is unknown


def hosts_do_not_filter(network: Candidate) -> Iterable[Diagnostic]:
    """A population whose input becomes its bias has no synaptic filter, which the bias would bypass."""
    return [] if network.broken else encoding.filtered_host_findings(network.deployment)


def loops_take_time(network: Candidate) -> Iterable[Diagnostic]:
    """A loop has as many steps of delay as connections: each of them takes a step on a chip."""
    return () if network.broken else network.slow


def connections_can_be_one_layer(network: Candidate) -> Iterable[Diagnostic]:
    """The linear nodes between two populations have an exact form as one layer of weights."""
    return () if network.broken else network.long


def readouts_are_uniform(network: Candidate) -> Iterable[Diagnostic]:
    """The population that leads to the output has one decay and one threshold: it cannot be split."""
    return () if network.broken else uneven_readouts(network.explicit, shapes(network.explicit))


def populations_can_be_uniform(network: Candidate) -> Iterable[Diagnostic]:
    """Neurons with different decays or thresholds can become populations of their own: a chip has one of each per population."""
    composed = network.composed
    return () if composed is None else diagnostics_of(lambda: split(composed.graph, composed.contract.dt))


def gains_can_be_folded(network: Candidate) -> Iterable[Diagnostic]:
    """A neuron's resistance and input weight can be moved into weights that are its own."""
    composed = network.composed
    return () if composed is None else diagnostics_of(lambda: PortableForm()(composed))


def waits_fit(network: Candidate) -> Iterator[Diagnostic]:
    """No spike waits longer than a synapse can hold it; what a shorter path waits for a longer one counts."""
    if network.composed is None or network.slow:
        return
    deployment = with_graph(network.composed, network.composed.graph)
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


RULES: tuple[CandidateRule, ...] = (
    resets_are_possible,
    constants_are_canonical,
    decays_are_the_contracts,
    input_can_be_seen,
    node_types_are_known,
    delays_are_whole_steps,
    graph_is_readable,
    hosts_do_not_filter,
    loops_take_time,
    connections_can_be_one_layer,
    readouts_are_uniform,
    populations_can_be_uniform,
    gains_can_be_folded,
    waits_fit,
)
"""Asked of every float network."""


def findings(deployment: Deployment, target: CheckTarget = "loihi2") -> list[Diagnostic]:
    """Why a float deployment cannot be expressed on a target; empty where ``quantize`` has everything it needs.

    Args:
        deployment: float; as it was read, or prepared.
        target: a chip ("loihi1", "loihi2") or a backend ("loihi", "lava", "netx").

    Returns:
        Findings with codes SNX107, SNX201 to SNX209, SNX230, SNX242, SNX247 to SNX249, SNX260 to SNX265, SNX278.
    """
    network = Candidate(deployment, target)
    return list({(item.code, item.where): item for rule in RULES for item in rule(network)}.values())
