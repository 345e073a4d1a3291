"""Everything that was counted as one record of a report: an estimate reads this and a cost table, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_export.energy.counts import Counts, wrong_deployment
from snn_export.export.chips import CHIPS
from snn_export.export.deployment import Deployment
from snn_export.export.grid import is_filtered
from snn_export.hardware_sims.placement.journeys import TO_HOST
from snn_export.hardware_sims.placement.placement import Placement
from snn_export.hardware_sims.placement.resources import ALWAYS_ON
from snn_export.reporting.energy_records import (
    AnnOperations,
    Arrivals,
    CoreLoad,
    EnergyOperations,
    ExitOperations,
    LayerOperations,
    PacketJourney,
    StepOperations,
)

FLOAT_BITS = 32
"""Of a weight, a bias and a state variable of a network that is not quantised."""


@dataclass(frozen=True, eq=False)
class Beside:
    """What is known beside the counts of a run; everything may be missing.

    Attributes:
        by_step: operations of each step, and how many samples are right after it.
        early_exit: what an early exit does.
        teacher: what the teacher multiplies on the same samples.
        placement: where the network lies on a chip, placed with the activity of this run.
        unplaced: why there is no placement, where one was tried.
        validation_samples, validation_correct: samples that are no test samples, and how many are right after each step.
        cores: what the cores of that placement of which one is the busiest do in a step.
    """

    by_step: tuple[StepOperations, ...] = ()
    early_exit: ExitOperations | None = None
    teacher: AnnOperations | None = None
    placement: Placement | None = None
    unplaced: str = ""
    validation_samples: int = 0
    validation_correct: tuple[int, ...] = ()
    cores: tuple[CoreLoad, ...] = ()


NOTHING = Beside()


def operations_of(deployment: Deployment, counts: Counts, beside: Beside = NOTHING) -> EnergyOperations:
    """The record of a run.

    Raises:
        UserError: SNX321 where the counts, or the placement, belong to another deployment.
    """
    for fingerprint in (counts.fingerprint, *((beside.placement.fingerprint,) if beside.placement is not None else ())):
        if fingerprint != deployment.fingerprint:
            raise wrong_deployment(fingerprint, deployment.fingerprint)
    quantisation, readout = deployment.contract.quantisation, deployment.contract.readout
    target = None if quantisation is None else quantisation.target
    state_bits, bias_bits = _widths(target)
    return EnergyOperations(
        fingerprint=counts.fingerprint,
        target=target,
        weight_bits=FLOAT_BITS if quantisation is None else quantisation.weight_bits,
        state_bits=state_bits,
        bias_bits=bias_bits,
        steps=counts.steps,
        travel=max(deployment.contract.latency.values(), default=0),
        samples=counts.samples,
        binary_input=counts.binary_input,
        input_events=counts.input_events,
        input_frames=counts.input_frames,
        data_frames=counts.data_frames,
        encoded_values=counts.encoded_values,
        input_values=int(np.prod(deployment.input_shape)),
        host_macs=counts.host_macs,
        host_weights=counts.host_weights,
        host_biases=counts.host_biases,
        readout=readout.rule,
        readout_layer=readout.node,
        readout_values=_readout_values(deployment),
        layers=tuple(_layer(deployment, counts, name) for name in counts.layers),
        by_step=beside.by_step,
        early_exit=beside.early_exit,
        validation_samples=beside.validation_samples,
        validation_correct=beside.validation_correct,
        teacher=beside.teacher,
        cores=beside.cores,
        unplaced=beside.unplaced,
        **_placed(beside.placement),
    )


def _widths(target: str | None) -> tuple[int, int]:
    """Bits of a state variable and of a bias (mantissa and exponent) on a chip; of a float network where there is none."""
    if target is None:
        return FLOAT_BITS, FLOAT_BITS
    chip = next(chip for chip in CHIPS if chip.name == target)
    return chip.state_bits, sum((high - low).bit_length() for low, high in (chip.bias_mantissa, chip.bias_exponents))


def _readout_values(deployment: Deployment) -> int:
    """Values the host reads per inference: membranes of the last step or of every one, or a spike count per class."""
    readout = deployment.contract.readout
    return int(np.prod(deployment.shapes[readout.node])) * (deployment.contract.steps if reads_every_step(readout.rule) else 1)


def _layer(deployment: Deployment, counts: Counts, name: str) -> LayerOperations:
    return LayerOperations(
        layer=name,
        spiking=deployment.contract.neurons[name].spiking,
        state_variables=2 if is_filtered(deployment, name) else 1,
        **vars(counts.structure[name]),
        **vars(counts.layers[name]),
    )


def _placed(placement: Placement | None) -> dict[str, Any]:
    if placement is None:
        return {}
    journeys = tuple(
        PacketJourney(
            source=name, packets=item.packets, within_router=item.within_router, east_west=item.east_west,
            north_south=item.north_south, between_chips=item.between_chips,
        )
        for name, item in placement.journeys.items()
    )  # fmt: skip
    return {
        "placed_on": placement.chip.name,
        "placed_cores": len(placement.cores),
        "placed_tiles": len({(core.chip, core.row, core.column) for core in placement.cores}),
        "placed_chips": placement.chips,
        "journeys": journeys,
    }


@dataclass(frozen=True)
class Component:
    """One kind of operation: how often it happens per inference in each layer, and the smallest defensible count of it.

    Attributes:
        operation: as a cost table names it.
        title: as a report names it.
        counts, fewest: by layer; a name in parentheses is no layer, but where packets begin or end outside the cores.
        scales: what it grows with when an inference stops early, see :func:`amounts_until`; "" where it does not depend on the
            steps.
    """

    operation: str
    title: str
    counts: Mapping[str, float]
    fewest: Mapping[str, float] = field(default_factory=dict)
    scales: str = ""

    @property
    def total(self) -> float:
        """Of all layers."""
        return sum(self.counts.values())

    @property
    def least(self) -> float:
        """Smallest defensible count of all layers."""
        return sum((self.fewest or self.counts).values())

    def least_of(self, layer: str) -> float:
        """Smallest defensible count of one layer."""
        return (self.fewest or self.counts).get(layer, 0.0)


INPUT = "(input)"
"""Where input enters: no layer."""


def components(found: EnergyOperations) -> tuple[Component, ...]:
    """What a chip does in an inference, component by component, in the order of a report."""

    def mean(**amounts: int) -> dict[str, float]:
        return {name: amount / found.samples for name, amount in amounts.items()}

    def by_layer(name: str) -> dict[str, float]:
        return {layer.layer: getattr(layer, name) / found.samples for layer in found.layers}

    binary = found.binary_input

    def arrived(kind: Callable[[Arrivals, bool, bool], int], effective: bool) -> dict[str, float]:
        return {layer.layer: kind(layer, binary, effective) / found.samples for layer in found.layers}

    silent = {layer.layer: (layer.updates - layer.spikes + found.idle_updates(layer)) / found.samples for layer in found.layers}
    synaptic, graded = (
        Component(operation, title, arrived(kind, False), arrived(kind, True), scales)
        for operation, title, kind, scales in (
            ("synaptic_operation", "synaptic operations", Arrivals.synops, "synops"),
            ("graded_operation", "graded operations", Arrivals.graded, "graded"),
        )
    )
    return (
        synaptic,
        Component("neuron_update_active", "active neuron updates", by_layer("spikes"), scales="active"),
        Component("neuron_update_inactive", "inactive neuron updates", silent, scales="inactive"),
        *_transport(found, by_layer("messages")),
        *((graded,) if graded.total else ()),
        Component("input_message", "input messages", {INPUT: found.input_events / found.samples}, scales="input"),
        Component("readout_value", "values read out", {found.readout_layer: float(found.readout_values)}, scales="readings"),
        *((Component("encoded_value", "input values encoded by the host", mean(**{INPUT: found.encoded_values})),)
          if found.encoded_values else ()),
        *((Component("host_mac", "multiplications of the first layer, on the host", mean(**{INPUT: found.host_macs})),)
          if found.host_macs else ()),
    )  # fmt: skip


def _transport(found: EnergyOperations, messages: Mapping[str, float]) -> tuple[Component, ...]:
    """Packets and hops of a placement, those that carry values apart; where there is none, a message per spike that is heard."""
    if not found.journeys:
        return (Component("spike_message", "spike messages within a tile", messages, scales="packets"),)
    layers = {layer.layer for layer in found.layers}
    values = [item for item in found.journeys if carries_values(found, item)]
    spikes = [item for item in found.journeys if item not in values]

    def of(journeys: Sequence[PacketJourney], *names: str) -> dict[str, float]:
        return {
            item.source if item.source in layers else f"({item.source})": sum(getattr(item, name) for name in names)
            for item in journeys
        }

    fields = (
        ("spike_message", "packets, each charged as a spike within a tile", "packets"),
        ("hop_east_west", "hops east or west", "east_west"),
        ("hop_north_south", "hops north or south", "north_south"),
        ("hop_between_chips", "hops between chips", "between_chips"),
    )
    made = [Component(operation, title, of(spikes, name), scales="packets") for operation, title, name in fields]
    made += [
        Component("value_packet", "packets with a value: graded input, membranes read", of(values, "packets"), scales="packets"),
        Component(
            "value_hop", "hops of packets with a value", of(values, "east_west", "north_south", "between_chips"), scales="packets"
        ),
    ]
    optional = ("hop_between_chips", "value_packet", "value_hop")
    return tuple(item for item in made if item.total or item.operation not in optional)


def carries_values(found: EnergyOperations, item: PacketJourney) -> bool:
    """Whether packets hold a number, so that they are no binary spikes: graded input, and membranes on their way to the host."""
    if item.source == TO_HOST:
        return found.readout != "spike_count"
    outside = item.source not in {layer.layer for layer in found.layers} and not item.source.startswith(ALWAYS_ON)
    return outside and not found.binary_input


def amounts(found: EnergyOperations) -> dict[str, tuple[float, float]]:
    """Per inference with all its steps, by operation: count and smallest defensible count."""
    return {item.operation: (item.total, item.least) for item in components(found)}


def amounts_until(found: EnergyOperations, done: StepOperations, samples: int, readings: float) -> dict[str, tuple[float, float]]:
    """The same where only some of the steps were carried out: ``done`` over ``samples`` samples.

    Everything is counted but packets and hops of a placement, which tells them per inference: those of a population are taken in
    proportion to its messages, those of the input to the values sent, those of biases that are always on to their operations,
    those to the host to what is read.

    Args:
        found: the whole run.
        done: what was carried out on the chip.
        samples: over how many.
        readings: values read out per inference.
    """
    binary = found.binary_input
    counted = {
        "synops": (done.synops(binary), done.synops(binary, effective=True)),
        "graded": (done.graded(binary), done.graded(binary, effective=True)),
        "active": (done.spikes,) * 2,
        "inactive": (done.updates - done.spikes + done.idle_updates,) * 2,
        "input": (done.input_messages,) * 2,
        "readings": (readings * samples,) * 2,
    }
    shares = _shares(found, done, samples, readings)
    result = {}
    for item in components(found):
        if item.scales in counted:
            many, few = counted[item.scales]
            result[item.operation] = (many / samples, few / samples)
        elif item.scales == "packets":
            result[item.operation] = (sum(count * shares[name] for name, count in item.counts.items()),) * 2
        else:
            result[item.operation] = (item.total, item.least)
    return result


def _shares(found: EnergyOperations, done: StepOperations, samples: int, readings: float) -> dict[str, float]:
    """By source of packets as components name it: part of its packets that was sent."""

    def share(part: float, whole: float) -> float:
        return part / samples / (whole / found.samples) if whole else 0.0

    shares = {layer.layer: share(sent, layer.messages) for layer, sent in zip(found.layers, done.layer_messages, strict=True)}
    axons = share(done.axon_operations, sum(layer.axon_operations for layer in found.layers))
    read = readings / found.readout_values
    if found.readout == "spike_count":
        read = share(done.readout_spikes, sum(layer.spikes for layer in found.layers if layer.layer == found.readout_layer))
    for name in {item.source for item in found.journeys} - set(shares):
        always_on = name.startswith(ALWAYS_ON)
        sent = axons if always_on else share(done.input_messages, found.input_events)
        shares[f"({name})"] = read if name == TO_HOST else sent
    return shares


def classes(found: EnergyOperations) -> int:
    """Values that the host reads at a time."""
    return found.readout_values // found.steps if reads_every_step(found.readout) else found.readout_values


def reads_every_step(readout: str) -> bool:
    """Whether a readout rule needs the values of every step, and not those of the last one alone."""
    return readout in ("membrane_mean", "membrane_max")


def spikes_per_synapse(found: EnergyOperations) -> float:
    """Spikes a synapse carries per inference, on average; 0 where none carries any. Biases that are always on are no spikes."""
    places = sum(layer.synapses + (layer.input_synapses if found.binary_input else 0) for layer in found.layers) * found.samples
    return found.spiked() / places if places else 0.0
