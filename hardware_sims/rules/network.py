"""What rules are asked about: a network, what it is to be put on, and what several rules need to know of it, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, get_args

from snn_export.export.deployment import Deployment
from snn_export.export.passes.quantize import Target
from snn_export.export.readiness import Candidate, CheckTarget
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.hardware_sims.loihi import rules as loihi
from snn_export.hardware_sims.placement.packing import partitioned
from snn_export.hardware_sims.placement.resources import PopulationNeeds, population_needs
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

CHIP_TARGETS: tuple[Target, ...] = get_args(Target)
"""Targets that are chips; the others are backends."""

CHIPS = 32
"""Chips that a network may take, where nobody says another number: what a placement takes by default."""


@dataclass(frozen=True)
class Cores:
    """Cores that a network takes. exact: False where its neurons alone take more than may be used, and it was not cut."""

    count: int
    exact: bool
    layers: Mapping[str, int]


class Sized(NamedTuple):
    """What every population needs of a core, or the findings that say why that cannot be worked out."""

    needs: Mapping[str, PopulationNeeds]
    findings: tuple[Diagnostic, ...] = ()


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
    chips: int = CHIPS

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
    def sized(self) -> Sized:
        """What every population needs of a core, or why that cannot be worked out."""
        if self.on_chip is None or self.chip is None or self.chip.synapses is None:
            return Sized({})
        try:
            return Sized(population_needs(self.on_chip, self.chip.synapses))
        except UserError as error:
            return Sized({}, error.diagnostics)

    @cached_property
    def cut(self) -> Cutting:
        """Cores that it takes, or why it cannot be cut into parts that fit a core each; neither where needs are not known."""
        needs = self.sized.needs
        if self.on_chip is None or self.chip is None or self.chip.synapses is None or not needs:
            return Cutting(None)
        capacity = self.chip.capacities["neurons"]
        least = -(-sum(need.neurons for need in needs.values()) // capacity)
        if self.chip.mesh is not None and self.chip.mesh.chips_for(least) > self.chips:  # no cut makes them fewer
            return Cutting(Cores(least, False, {name: -(-need.neurons // capacity) for name, need in needs.items()}))
        try:
            parts = partitioned(self.on_chip, self.chip, self.chip.synapses, needs)
        except UserError as error:
            return Cutting(None, error.diagnostics)
        return Cutting(Cores(len(parts.cores), True, {name: len(cut.boxes) for name, cut in parts.cuts.items()}))


def network(deployment: Deployment, target: CheckTarget, chips: int = CHIPS) -> Network:
    """A network and its target, with the limits of the chip where the target is one."""
    return Network(deployment, target, load_chip(target) if target in CHIP_TARGETS else None, chips)
