"""What rules are asked about: a network, what it is to be put on, and what several rules need to know of it, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple, get_args

from snn_export.export.deployment import Deployment
from snn_export.export.readiness import Candidate
from snn_export.export.targets import MOST_CHIPS, CheckTarget, ChipName
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.hardware_sims.loihi import rules as loihi
from snn_export.hardware_sims.placement.packing import partitioned
from snn_export.hardware_sims.placement.partition import partition
from snn_export.hardware_sims.placement.resources import PopulationNeeds, core_amounts, needs_of
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

CHIP_TARGETS: tuple[ChipName, ...] = get_args(ChipName)
"""Targets that are chips; the others are backends."""


@dataclass(frozen=True)
class Cores:
    """Cores that a network takes.

    Attributes:
        count: of them.
        exact: False where its neurons alone take more than may be used, and it was not cut.
        layers: cores by population, before small parts share one.
        fullest: by resource, its share on the core that it fills most; empty where the network was not cut.
    """

    count: int
    exact: bool
    layers: Mapping[str, int]
    fullest: Mapping[str, float] = field(default_factory=dict)


class Cutting(NamedTuple):
    """Cores that a network takes, or the findings that say why it cannot be cut."""

    cores: Cores | None
    findings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """A network and its target.

    Attributes:
        deployment: float or quantised.
        target: a chip or a backend.
        chip: limits of the target's cores; None where the target has none.
        chips: how many of them it may take.
    """

    deployment: Deployment
    target: CheckTarget
    chip: ChipTable | None = None
    chips: int = MOST_CHIPS

    @cached_property
    def candidate(self) -> Candidate:
        """The network as the rules of float networks see it."""
        return Candidate(self.deployment, self.target)

    @cached_property
    def readable(self) -> bool:
        """True where shapes, connections and latencies of a quantised network can be read."""
        return not any(loihi.graph_is_readable(self.deployment))

    @cached_property
    def on_chip(self) -> Deployment | None:
        """The network with one weight layer per connection; None where something stands in the way, which other rules tell."""
        if not self.deployment.quantised:
            return self.candidate.on_chip
        if not self.readable or any(loihi.integers_exist(self.deployment)) or diagnostics_of(lambda: self.deployment.wires):
            return None
        return self.deployment

    @cached_property
    def beyond_registers(self) -> frozenset[str]:
        """Populations and weight layers with integers that no register holds, which :func:`loihi.integers_fit` tells."""
        deployment = self.on_chip
        if deployment is None or not deployment.quantised:
            return frozenset()
        return frozenset(item.where for item in loihi.integers_fit(deployment))

    def holds(self, population: str) -> bool:
        """True where the integers of a population and its weights fit their registers: only then do bounds say anything."""
        wires = () if self.on_chip is None else self.on_chip.wires[population]
        return self.beyond_registers.isdisjoint((population, *(wire.weight for wire in wires)))

    @cached_property
    def sized(self) -> dict[str, PopulationNeeds]:
        """What populations need of a core. Left out are those that no field of memory holds, which other rules tell."""
        found: dict[str, PopulationNeeds] = {}
        if self.on_chip is None or self.chip is None or self.chip.synapses is None:
            return found
        for name in self.on_chip.layers:
            try:
                found[name] = needs_of(self.on_chip, name, self.chip.synapses)
            except UserError as error:
                if error.code != "SNX458":
                    raise
        return found

    @cached_property
    def cut(self) -> Cutting:
        """Cores that it takes where all needs are known; and of every population that cannot be cut into parts, why."""
        needs = self.sized
        if self.on_chip is None or self.chip is None or self.chip.synapses is None or not needs:
            return Cutting(None)
        if len(needs) < len(self.on_chip.layers):
            return Cutting(None, tuple(item for name, need in needs.items() for item in self._uncut(name, need)))
        capacity = self.chip.capacities["neurons"]
        least = -(-sum(need.neurons for need in needs.values()) // capacity)
        if self.chip.mesh is not None and self.chip.mesh.chips_for(least) > self.chips:  # no cut makes them fewer
            return Cutting(Cores(least, False, {name: -(-need.neurons // capacity) for name, need in needs.items()}))
        try:
            parts = partitioned(self.on_chip, self.chip, self.chip.synapses, needs)
        except UserError as error:
            alone = [item for name, need in needs.items() for item in self._uncut(name, need)]
            return Cutting(None, tuple(alone) or error.diagnostics)
        amounts = [
            core_amounts(held, axons, self.chip.synapses) for held, axons in zip(parts.cores, parts.axons_out, strict=True)
        ]
        fullest = {name: max(found[name] for found in amounts) / capacity for name, capacity in self.chip.capacities.items()}
        return Cutting(Cores(len(parts.cores), True, {name: len(cut.boxes) for name, cut in parts.cuts.items()}, fullest))

    def _uncut(self, name: str, need: PopulationNeeds) -> list[Diagnostic]:
        """Why one population cannot be cut, whatever stands around it."""
        if self.chip is None or self.chip.synapses is None:
            return []
        return diagnostics_of(partial(partition, {name: need}, self.chip, self.chip.synapses, {}))


def network(deployment: Deployment, target: CheckTarget, chips: int = MOST_CHIPS) -> Network:
    """A network and its target, with the limits of the chip where the target is one."""
    return Network(deployment, target, load_chip(target) if target in CHIP_TARGETS else None, chips)
