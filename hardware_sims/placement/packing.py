"""Several parts on one core, where all limits allow: best fit, in the order of the layers; and the whole way there from needs.

A part goes to the core that it leaves fullest by the limit that is then filled most; where it fits on none, it opens one. What a
part takes depends on how many neurons lie before it on its core (indices become wider, offsets larger), so it is worked out anew
for every core it is tried on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import ChipTable, SynapseTable
from snn_export.hardware_sims.chips.core_resources import MEMORIES
from snn_export.hardware_sims.placement.partition import Cut, fan_out, partition
from snn_export.hardware_sims.placement.resources import Part, PopulationNeeds, core_amounts, heard_by, part_indices
from snn_export.hardware_sims.placement.traffic import host_axons


@dataclass
class _Core:
    """A core that is being filled. axons_out: an upper bound, as if every part still had a core of its own."""

    parts: list[Part] = field(default_factory=list)
    axons_out: int = 0
    neurons: int = 0
    synapse_memory: int = 0


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
    fans = fan_out(cuts, to_host)
    cores: list[_Core] = []
    for name, cut in cuts.items():
        for part in cut.parts:
            axons = int(fans[name][part_indices(part)].sum())
            place = _best(cores, part, axons, chip, table)
            if place is None:
                cores.append(_Core())
                place = len(cores) - 1
            core = cores[place]
            added = Part(part.population, part.box, core.neurons)
            core.parts.append(added)
            core.axons_out += axons
            core.neurons += added.neurons
            core.synapse_memory += added.need.synapse_memory
    return [tuple(core.parts) for core in cores]


def _best(cores: Sequence[_Core], part: Part, axons: int, chip: ChipTable, table: SynapseTable) -> int | None:
    """The open core that takes the part and is then fullest; None where none takes it."""
    capacities, found = chip.capacities, None
    for place, core in enumerate(cores):
        if core.neurons + part.neurons > capacities["neurons"] or _surely_too_much(core, part, capacities):
            continue
        parts = (*core.parts, Part(part.population, part.box, core.neurons))
        amounts = core_amounts(parts, core.axons_out + axons, table)
        fullest = max(amounts[name] / capacity for name, capacity in capacities.items())
        if fullest <= 1 and (found is None or fullest > found[0]):
            found = fullest, place
    return None if found is None else found[1]


def _surely_too_much(core: _Core, part: Part, capacities: Mapping[str, int]) -> bool:
    """True where the memory of the part alone does not fit beside the rest: behind other neurons it only takes more."""
    synapses = core.synapse_memory + part.need.synapse_memory
    return any(synapses > capacities[name] for name in MEMORIES if name in capacities)


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
