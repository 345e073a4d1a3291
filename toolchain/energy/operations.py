"""Everything that was counted as one record of a report: an estimate reads this and a cost table, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_export.energy.counts import Counts, wrong_deployment
from snn_export.export.chips import CHIPS
from snn_export.export.deployment import Deployment
from snn_export.export.grid import is_filtered
from snn_export.hardware_sims.placement.placement import Placement
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
        cores: what the cores of that placement of which one is the busiest do in a step.
    """

    by_step: tuple[StepOperations, ...] = ()
    early_exit: ExitOperations | None = None
    teacher: AnnOperations | None = None
    placement: Placement | None = None
    unplaced: str = ""
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
        encoded_values=counts.encoded_values,
        input_values=int(np.prod(deployment.input_shape)),
        host_macs=counts.host_macs,
        readout=readout.rule,
        readout_layer=readout.node,
        readout_values=_readout_values(deployment),
        layers=tuple(_layer(deployment, counts, name) for name in counts.layers),
        by_step=beside.by_step,
        early_exit=beside.early_exit,
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
    classes = int(np.prod(deployment.shapes[readout.node]))
    return classes if readout.rule in ("membrane_last", "spike_count") else classes * deployment.contract.steps


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
        scales: what it grows with when an inference stops early: "steps", or a field of
            :class:`snn_export.reporting.energy_records.StepOperations`; "" where it does not depend on the steps.
    """

    operation: str
    title: str
    counts: Mapping[str, float]
    fewest: Mapping[str, float] = field(default_factory=dict)
    scales: str = "steps"

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

    silent = {layer.layer: (layer.updates - layer.spikes) / found.samples for layer in found.layers}
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
        Component("readout_value", "values read out", {found.readout_layer: float(found.readout_values)}, scales=""),
        *((Component("encoded_value", "input values encoded by the host", mean(**{INPUT: found.encoded_values}), scales=""),)
          if found.encoded_values else ()),
        *((Component("host_mac", "multiplications of the first layer, on the host", mean(**{INPUT: found.host_macs}), scales=""),)
          if found.host_macs else ()),
    )  # fmt: skip


def _transport(found: EnergyOperations, messages: Mapping[str, float]) -> tuple[Component, ...]:
    """Packets and hops of a placement; where there is none, one message per spike that anyone hears."""
    if not found.journeys:
        return (Component("spike_message", "spike messages within a tile", messages, scales="messages"),)
    layers = {layer.layer for layer in found.layers}
    names = {item.source: item.source if item.source in layers else f"({item.source})" for item in found.journeys}

    def hops(name: str) -> dict[str, float]:
        return {names[item.source]: getattr(item, name) for item in found.journeys}

    fields = (
        ("spike_message", "packets, each charged as a spike within a tile", "packets"),
        ("hop_east_west", "hops east or west", "east_west"),
        ("hop_north_south", "hops north or south", "north_south"),
        ("hop_between_chips", "hops between chips", "between_chips"),
    )
    made = (Component(operation, title, hops(name), scales="messages") for operation, title, name in fields)
    return tuple(item for item in made if item.total or item.operation != "hop_between_chips")


def amounts(found: EnergyOperations) -> dict[str, tuple[float, float]]:
    """Per inference with all its steps, by operation: count and smallest defensible count."""
    return {item.operation: (item.total, item.least) for item in components(found)}


def amounts_until(found: EnergyOperations, done: StepOperations, samples: int) -> dict[str, tuple[float, float]]:
    """The same where only some of the steps were carried out: ``done`` over ``samples`` samples.

    Everything is counted but packets and hops of a placement: they are taken in proportion to the messages that were sent, since
    a placement tells hops per inference.
    """
    whole = sum(layer.messages for layer in found.layers) / found.samples
    steps = done.updates / samples / max(1, sum(layer.neurons for layer in found.layers))
    binary = found.binary_input
    counted = {
        "synops": (done.synops(binary), done.synops(binary, effective=True)),
        "graded": (done.graded(binary), done.graded(binary, effective=True)),
        "active": (done.spikes,) * 2,
        "inactive": (done.updates - done.spikes,) * 2,
    }
    result = {}
    for item in components(found):
        if item.scales in counted:
            many, few = counted[item.scales]
            result[item.operation] = (many / samples, few / samples)
            continue
        share = {
            "messages": done.messages / samples / whole if whole else 0.0,
            "input": _share_of_input(found, done, samples),
            "steps": steps / found.steps,
            "": 1.0,
        }[item.scales]
        result[item.operation] = (item.total * share, item.least * share)
    return result


def _share_of_input(found: EnergyOperations, done: StepOperations, samples: int) -> float:
    whole = sum(layer.input_operations for layer in found.layers) / found.samples
    return done.input_operations / samples / whole if whole else 0.0


def spikes_per_synapse(found: EnergyOperations) -> float:
    """Spikes a synapse carries per inference, on average; 0 where no synapse carries spikes."""
    places = sum(layer.synapses + (layer.input_synapses if found.binary_input else 0) for layer in found.layers) * found.samples
    return found.synops() / places if places else 0.0
