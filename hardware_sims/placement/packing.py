"""Several parts on one core, where all limits allow: best fit, in the order of the layers; and the whole way there from needs.

A part goes to the core that it leaves fullest by the limit that is then filled most; where it fits on none, it opens one. What a
part takes depends on how many neurons lie before it on its core (indices become wider, offsets larger), so it is worked out anew
for every core it is tried on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import ChipTable, SynapseTable
from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.placement.partition import Cut, fan_out, partition
from snn_export.hardware_sims.placement.resources import Part, PopulationNeeds, core_amounts, heard_by, part_indices
from snn_export.hardware_sims.placement.traffic import host_axons


@dataclass(frozen=True, eq=False)
class Partitioned:
    """A network in parts on cores that lie nowhere yet.

    Attributes:
        cuts: by population, sources first.
        cores: parts by core, in the order in which their neurons lie.
        axons_out: by core.
    """

    cuts: Mapping[str, Cut]
    cores: tuple[tuple[Part, ...], ...]
    axons_out: tuple[int, ...]


def partitioned(
    deployment: Deployment, chip: ChipTable, table: SynapseTable, needs: Mapping[str, PopulationNeeds]
) -> Partitioned:
    """Cut a network into parts that fit a core each, and let small parts share one.

    Args:
        deployment: the network.
        chip: its limits.
        table: its memory.
        needs: of the network's populations, by that memory.

    Raises:
        UserError: SNX453, SNX454 where a single neuron exceeds a limit.
    """
    to_host = host_axons(deployment)
    cuts = partition(needs, chip, table, to_host)
    cores = packed(cuts, chip, table, to_host)
    return Partitioned(cuts, tuple(cores), tuple(axons_out(cores, to_host)))


def packed(cuts: Mapping[str, Cut], chip: ChipTable, table: SynapseTable, to_host: Mapping[str, int]) -> list[tuple[Part, ...]]:
    """Parts by core. A core that holds one part holds it as the cut has it, so packing never makes more cores."""
    fans, filling = fan_out(cuts, to_host), _Filling(chip.capacities, table)
    for name, cut in cuts.items():
        for part in cut.parts:
            filling.add(part, int(fans[name][part_indices(part)].sum()))
    return [tuple(parts) for parts in filling.cores]


class _Filling:
    """Cores that are being filled, and how much each holds of what at least adds up.

    The output axons of a core are an upper bound, as if every part still had a core of its own.
    """

    def __init__(self, capacities: Mapping[str, int], table: SynapseTable) -> None:
        self.cores: list[list[Part]] = []
        self._capacities, self._table = capacities, table
        self._adding = tuple(name for name in capacities if RESOURCES[name].adds_up)
        self._room = np.array([capacities[name] for name in self._adding], np.int64)
        self._held = np.zeros((0, len(self._adding)), np.int64)
        self._axons: list[int] = []

    def add(self, part: Part, axons: int) -> None:
        """Put a part with so many output axons on the core that it fits best, or on a new one."""
        place = self._best(part, axons)
        if place is None:
            place = len(self.cores)
            self.cores.append([])
            self._axons.append(0)
            self._held = np.vstack([self._held, np.zeros_like(self._room)])
        parts = self.cores[place]
        parts.append(_behind(parts, part))
        self._axons[place] += axons
        self._held[place] = self._row(core_amounts(tuple(parts), self._axons[place], self._table))

    def _best(self, part: Part, axons: int) -> int | None:
        """The core that takes the part and is then fullest; None where none takes it."""
        found = None
        alone = self._row(core_amounts((part,), axons, self._table))
        for place in np.flatnonzero((self._held + alone <= self._room).all(axis=1)).tolist():
            parts = (*self.cores[place], _behind(self.cores[place], part))
            amounts = core_amounts(parts, self._axons[place] + axons, self._table)
            fullest = max(amounts[name] / capacity for name, capacity in self._capacities.items())
            if fullest <= 1 and (found is None or fullest > found[0]):
                found = fullest, place
        return None if found is None else found[1]

    def _row(self, amounts: Mapping[str, int]) -> NDArray[np.int64]:
        return np.array([amounts[name] for name in self._adding], np.int64)


def _behind(parts: Sequence[Part], part: Part) -> Part:
    """The part with its neurons behind those of others."""
    return Part(part.population, part.box, sum(other.neurons for other in parts))


def axons_out(cores: Sequence[Sequence[Part]], to_host: Mapping[str, int]) -> list[int]:
    """Output axons of every core: one per neuron and core it sends to, its own included, and those towards the host."""
    fans: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
    for parts in cores:
        for part in parts:
            name = part.population.name
            fans.setdefault(name, np.full(part.population.neurons, to_host.get(name, 0), np.int64))
    for parts in cores:
        for source in dict.fromkeys(source for part in parts for source in part.population.sources if source in fans):
            fans[source] += heard_by([part for part in parts if source in part.population.sources], source)
    return [sum(int(fans[part.population.name][part_indices(part)].sum()) for part in parts) for parts in cores]
