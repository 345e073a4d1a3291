"""Populations cut into parts that fit a core under all limits at once.

A map is cut along channels, rows and columns into parts of about equal size, a dense layer along its neurons. The inputs that
neighbouring parts both read (halo) are input axons of both. Of all cuts the one with the fewest cores is taken; where it would
need so many output axons of the layers in front that those need more cores than their neurons do, these are counted too; ties go
to the fewest input axons, which is the traffic of a network whose neurons fire alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from math import prod

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.chips.chip_table import ChipTable, SynapseTable
from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.placement.reach import Box, neurons_of, size_of
from snn_export.hardware_sims.placement.relief import in_words, remedies
from snn_export.hardware_sims.placement.resources import Part, PopulationNeeds, core_amounts
from snn_export.models.diagnostics import UserError

FAR = 2.0
"""Cuts with more than this many times too many neurons per part are not asked what else they would exceed."""


@dataclass(frozen=True)
class Binding:
    """The limit that kept a population from fewer cores.

    Attributes:
        resource: the limit that the nearest cut with fewer cores exceeds; of a population that takes one core, the limit that it
            fills most.
        needed, capacity: what the largest part of that cut needs, and what a core holds.
        cores: of that cut.
    """

    resource: str
    needed: int
    capacity: int
    cores: int

    @property
    def ratio(self) -> float:
        """Needed / capacity."""
        return self.needed / self.capacity


@dataclass(frozen=True, eq=False)
class Cut:
    """A population in parts. boxes: in C-order of the cut; binding: see :class:`Binding`."""

    population: PopulationNeeds
    boxes: tuple[Box, ...]
    binding: Binding

    @property
    def parts(self) -> tuple[Part, ...]:
        """Each on a core of its own."""
        return tuple(Part(self.population, box) for box in self.boxes)

    @property
    def largest(self) -> int:
        """Neurons of the largest part."""
        return max(part.neurons for part in self.parts)


@dataclass(frozen=True, eq=False)
class Limits:
    """What every core holds: ``capacities`` by resource.

    fan_out: (output axons, neurons) of the most crowded part so far; a part is taken to have output axons in that proportion.
    """

    capacities: Mapping[str, int]
    table: SynapseTable
    fan_out: tuple[int, int] = (0, 1)

    def filled(self, part: Part) -> list[Binding]:
        """How far a part by itself fills every limit."""
        axons, neurons = self.fan_out
        amounts = core_amounts((part,), -(-part.neurons * axons // neurons), self.table)
        return [Binding(name, amounts[name], capacity, 1) for name, capacity in self.capacities.items()]

    def worst(self, part: Part) -> Binding:
        """The limit that a part by itself fills most."""
        return max(self.filled(part), key=lambda item: item.ratio)


def part_counts(size: int) -> tuple[int, ...]:
    """Numbers of parts that differ in their largest part, ascending: 1 .. size."""
    found, width = [1], size
    while width > 1:
        found.append(-(-size // (width - 1)))
        width = -(-size // found[-1])
    return tuple(found)


def boxes_of(shape: Sequence[int], counts: Sequence[int]) -> tuple[Box, ...]:
    """Parts of a map that is cut into this many along each axis, of about equal size, in C-order."""
    axes = [list(pairwise(size * i // n for i in range(n + 1))) for size, n in zip(shape, counts, strict=True)]
    return tuple(product(*axes))


@dataclass
class _Search:
    """The search for one population's cut. suspect: a neuron whose part was too large the last time, asked first."""

    population: PopulationNeeds
    limits: Limits
    sources: int
    suspect: tuple[int, ...] = ()
    rejected: list[Binding] = field(default_factory=list)
    best: tuple[tuple[float, int, tuple[int, ...]], tuple[Box, ...]] | None = None

    def run(self) -> Cut | None:
        """The best cut; None where even single neurons do not fit: ``suspect`` is one."""
        middle = tuple(size // 2 for size in self.population.shape)
        if self.limits.worst(Part(self.population, tuple((at, at + 1) for at in middle))).ratio > 1:
            self.suspect = middle
            return None
        for counts in self._candidates():
            if self.best and prod(counts) > self.best[0][0]:
                break
            self._try(counts)
        if self.best is None:
            return None
        return Cut(self.population, self.best[1], self._binding(self.best[1]))

    def _binding(self, boxes: tuple[Box, ...]) -> Binding:
        fewer = [item for item in self.rejected if item.cores < len(boxes)]
        if fewer:
            return min(fewer, key=lambda item: item.ratio)
        filled = (item for box in boxes for item in self.limits.filled(Part(self.population, box)))
        return max((item for item in filled if RESOURCES[item.resource].may_bind), key=lambda item: item.ratio)

    def _candidates(self) -> Iterator[tuple[int, ...]]:
        every = product(*(part_counts(size) for size in self.population.shape))
        yield from sorted(every, key=lambda counts: (prod(counts), counts))

    def _try(self, counts: tuple[int, ...]) -> None:
        cores, shape = prod(counts), self.population.shape
        capacity = self.limits.capacities["neurons"]
        neurons = prod(-(-size // n) for size, n in zip(shape, counts, strict=True))
        if neurons > FAR * capacity:
            self.rejected.append(Binding("neurons", neurons, capacity, cores))
            return
        boxes = boxes_of(shape, counts)
        middle = tuple(n // 2 for n in counts)
        asked = [boxes[int(np.ravel_multi_index(middle, counts))], *(box for box in boxes if _holds(box, self.suspect)), *boxes]
        for box in asked:
            found = self.limits.worst(Part(self.population, box))
            if found.ratio > 1:
                self.suspect = tuple((start + stop) // 2 for start, stop in box)
                self.rejected.append(replace(found, cores=cores))
                return
        axons = [self.population.need(box).axons for box in boxes]
        total = sum(sum(item.values()) for item in axons)
        key = (cores + self._burden(total), total, counts)
        if self.best is None or key < self.best[0]:
            self.best = key, boxes

    def _burden(self, axons: int) -> float:
        """Cores that the layers in front need for this many output axons, beyond those that their neurons need."""
        capacity = self.limits.capacities.get("axons_out")
        return 0.0 if capacity is None else max(0.0, axons / capacity - self.sources)


def _holds(box: Box, neuron: tuple[int, ...]) -> bool:
    return bool(neuron) and all(start <= at < stop for (start, stop), at in zip(box, neuron, strict=True))


def partition(
    populations: Mapping[str, PopulationNeeds], chip: ChipTable, table: SynapseTable, to_host: Mapping[str, int]
) -> dict[str, Cut]:
    """Every population in parts that fit a core each.

    Args:
        populations: sources first.
        chip: its limits.
        table: its memory.
        to_host: by population, output axons that each neuron has towards the host.

    Raises:
        UserError: SNX453 where one neuron exceeds a limit, SNX454 where one has too many output axons.
    """
    capacities = chip.capacities
    cuts = {name: _cut(populations, name, Limits(capacities, table), chip) for name in populations}
    while "axons_out" in capacities:  # the parts of the population that comes out become smaller in every turn
        crowded = _crowded(cuts, to_host, capacities["axons_out"])
        if crowded is None:
            break
        name, axons, neurons = crowded
        if axons > neurons * capacities["axons_out"]:
            raise _too_many_targets(name, int(fan_out(cuts, to_host)[name].max()), chip)
        cuts[name] = _cut(populations, name, Limits(capacities, table, (axons, neurons)), chip)
    return cuts


def _cut(populations: Mapping[str, PopulationNeeds], name: str, limits: Limits, chip: ChipTable) -> Cut:
    population, capacity = populations[name], limits.capacities["neurons"]
    sources = sum(-(-populations[source].neurons // capacity) for source in population.sources if source in populations)
    search = _Search(population, limits, sources)
    found = search.run()
    if found is None:
        raise _too_large(population, search.suspect, limits, chip)
    return found


def fan_out(cuts: Mapping[str, Cut], to_host: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
    """By population, (neurons,): parts that each neuron sends to, and its axons towards the host."""
    found = {name: np.full(cut.population.neurons, to_host.get(name, 0), np.int64) for name, cut in cuts.items()}
    for cut in cuts.values():
        for source in cut.population.sources:
            if source in found:
                for box in cut.boxes:
                    found[source] += cut.population.heard(box, source)
    return found


def _crowded(cuts: Mapping[str, Cut], to_host: Mapping[str, int], capacity: int) -> tuple[str, int, int] | None:
    """The last population with a part that has too many output axons, how many, and of how many neurons; None where none has.

    Sinks first: parts of a layer add to the fan-out of the layers in front of it.
    """
    fans = fan_out(cuts, to_host)
    for name, cut in reversed(tuple(cuts.items())):
        crowds = ((int(fans[name][neurons_of(box, cut.population.shape)].sum()), size_of(box)) for box in cut.boxes)
        axons, neurons = max(crowds, key=lambda item: (item[0], -item[1]))
        if axons > capacity:
            return name, axons, neurons
    return None


def _too_large(population: PopulationNeeds, neuron: tuple[int, ...], limits: Limits, chip: ChipTable) -> UserError:
    alone = Limits(limits.capacities, limits.table).worst(Part(population, tuple((at, at + 1) for at in neuron)))
    ways = remedies(alone.resource, alone.needed, chip)
    return UserError(
        "SNX453", f"one neuron of {population.name} needs {in_words(alone.resource, alone.needed, alone.capacity)}",
        where=f"{population.name}{list(neuron)}",
        why=f"a neuron's synapses lie on one core of {chip.title}, and no cut of the layer makes them fewer: "
        f"{alone.ratio:.1f} times what a core holds",
        fix="; or ".join(ways),
    )  # fmt: skip


def _too_many_targets(name: str, needed: int, chip: ChipTable) -> UserError:
    return UserError(
        "SNX454", f"one neuron of {name} needs {in_words('axons_out', needed, chip.capacities['axons_out'])}", where=name,
        why=f"a neuron has an output axon for every core it sends to, and the layers behind {name} take that many",
        fix="; or ".join(remedies("axons_out", needed, chip)),
    )  # fmt: skip
