"""A network on a chip: which neurons on which core, how full every core is, what travels over which link, what limits each layer.

The steps are modules of their own: needs (``resources``), cuts (``partition``), sharing of cores (``packing``), packets
(``traffic``), geometry (``mesh``) and arrangement (``place``). Nothing here runs the network or needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.targets import MOST_CHIPS
from snn_export.hardware_sims.chips.chip_table import ChipTable
from snn_export.hardware_sims.placement.journeys import Journeys, Link, journeys_of, links_of
from snn_export.hardware_sims.placement.mesh import PORT_TOLD, Mesh, mesh_of
from snn_export.hardware_sims.placement.packing import partitioned
from snn_export.hardware_sims.placement.partition import Binding, Cut
from snn_export.hardware_sims.placement.place import arranged
from snn_export.hardware_sims.placement.reach import Box
from snn_export.hardware_sims.placement.relief import in_words, remedies
from snn_export.hardware_sims.placement.resources import Part, core_amounts, population_needs
from snn_export.hardware_sims.placement.traffic import Activity, activity_of, traffic_of
from snn_export.models.diagnostics import UserError
from snn_export.models.weight_grid import WEIGHT_BITS

CORES_TIMES_KICKS = 10_000
"""Bound on the work of disturbances: with more cores there are fewer of them."""


@dataclass(frozen=True)
class PlacementSettings:
    """What a caller may choose.

    Attributes:
        chips: most chips that may be used.
        interchip: hops that a hop between two chips counts. No chip's maker publishes one: a choice, stated in the result.
        kicks: disturbances of the best arrangement; more take longer and save a few hops.
        seed: of the disturbances.
        weight_bits: of a float network, whose weights have none yet.
    """

    chips: int = MOST_CHIPS
    interchip: int = 4
    kicks: int = 50
    seed: int = 0
    weight_bits: int = WEIGHT_BITS

    def __post_init__(self) -> None:
        least = {"chips": 1, "interchip": 1, "kicks": 0, "seed": 0, "weight_bits": 1}
        wrong = [name for name, bound in least.items() if getattr(self, name) < bound]
        if wrong or self.weight_bits > WEIGHT_BITS:
            raise UserError(
                "SNX457", f"a placement cannot be made with {self}", where=", ".join(wrong) or "weight_bits",
                why="it takes at least one chip, hops that count, and weights of 1 to 8 bits",
                fix="leave the settings at their defaults: PlacementSettings()",
            )  # fmt: skip


DEFAULTS = PlacementSettings()


@dataclass(frozen=True)
class Piece:
    """Neurons of a population on one core. box: (start, stop) per axis of the layer's map, see :class:`PlacedLayer`."""

    population: str
    box: Box
    neurons: int


@dataclass(frozen=True)
class PlacedCore:
    """One core.

    Attributes:
        chip, slot: the chip, and which of its router's cores.
        row, column: of its router, over all chips.
        pieces: in the order in which their neurons lie.
        used: by resource (:data:`snn_export.hardware_sims.chips.core_resources.RESOURCES`).
    """

    chip: int
    row: int
    column: int
    slot: int
    pieces: tuple[Piece, ...]
    used: Mapping[str, int]


@dataclass(frozen=True)
class PlacedLayer:
    """One population.

    Attributes:
        name, shape: shape of the map that pieces are boxes of.
        cores: indices into :attr:`Placement.cores`, in C-order of the pieces.
        encodings: by weight layer, how its synapses are stored; several where parts differ.
        weight_bits: by weight layer, the field of a weight.
        binding: the limit that kept it from fewer cores, or that its one core is fullest by.
        remedies: what would relieve that limit; none where the population takes one core.
    """

    name: str
    shape: tuple[int, ...]
    cores: tuple[int, ...]
    encodings: Mapping[str, tuple[str, ...]]
    weight_bits: Mapping[str, int]
    binding: Binding
    remedies: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """A network on one or more chips. All traffic is per inference.

    Attributes:
        fingerprint: of the deployment.
        chip, mesh: where it is placed.
        cores, layers: see there; layers sources first.
        journeys: by source of packets: populations, the input node, always-on sources, and "to the host".
        links: traffic between neighbouring routers, links that carry any.
        spike_hops, naive_spike_hops: hops of all packets, here, and with the same cores row by row in the order of the layers.
        unchecked: limits that the chip has and nobody publishes, with the reason.
        assumptions: what was assumed, in words.
    """

    fingerprint: str
    chip: ChipTable
    mesh: Mesh
    cores: tuple[PlacedCore, ...]
    layers: tuple[PlacedLayer, ...]
    journeys: Mapping[str, Journeys]
    links: tuple[Link, ...]
    spike_hops: float
    naive_spike_hops: float
    unchecked: Mapping[str, str]
    assumptions: tuple[str, ...]

    @property
    def chips(self) -> int:
        """Chips used."""
        return self.mesh.chips

    def utilisation(self, resource: str) -> tuple[float, ...]:
        """By core, how much of a limited resource is used: 0..1. KeyError for a resource without a limit."""
        capacity = self.chip.capacities[resource]
        return tuple(core.used[resource] / capacity for core in self.cores)


def place(
    deployment: Deployment,
    chip: ChipTable,
    activity: Mapping[str, NDArray[Any]] | None = None,
    settings: PlacementSettings = DEFAULTS,
    samples: int | None = None,
) -> Placement:
    """Place a network on a chip, or on as many of them as it takes.

    Args:
        deployment: quantised, or float with one weight layer per connection (``snn_export.from_snntorch`` makes it so).
        chip: of :func:`snn_export.hardware_sims.chips.chip_table.load_chip`.
        activity: mean spikes per neuron and inference, (*features) or (neurons,), by population and input node; for instance
            ``trace.layers[name].counts.mean(axis=0)``. Where there is none: one spike per neuron and step.
        settings: see there.
        samples: where activity is given as integers, summed over so many inferences: packets and hops are then exact.

    Raises:
        UserError: SNX452 for a chip without a mesh, SNX453 and SNX454 where a single neuron exceeds a limit, SNX455 for more
            chips than allowed, SNX456 for activity that does not fit, SNX458 for weights or delays wider than the chip's fields,
            SNX209, SNX248 and SNX249 for connections that are no single weight layer.
    """
    if chip.mesh is None or chip.synapses is None:
        raise UserError(
            "SNX452", f"networks are not placed on {chip.title}", where="chip",
            why="its limits are known, but not as cores on a mesh that share out a network",
            fix=f"place it on loihi1 or loihi2, or read its limits: snn-export targets {chip.name}",
        )  # fmt: skip
    rates = activity_of(deployment, activity, samples)
    parts = partitioned(deployment, chip, chip.synapses, population_needs(deployment, chip.synapses, settings.weight_bits))
    cores = parts.cores
    mesh = mesh_of(chip.mesh, len(cores), settings.interchip)
    if mesh.chips > settings.chips:
        raise _too_many_chips(parts.cuts, chip, len(cores), mesh.chips, settings.chips)
    traffic = traffic_of(cores, rates, deployment.contract.steps)
    kicks = min(settings.kicks, CORES_TIMES_KICKS // len(cores))
    slots = arranged(traffic.total, traffic.host, mesh, kicks, settings.seed)
    journeys = journeys_of(traffic, mesh, slots)
    naive = journeys_of(traffic, mesh, np.arange(len(cores)))
    return Placement(
        deployment.fingerprint, chip, mesh,
        tuple(_core(mesh, int(slot), held, core_amounts(held, axons, chip.synapses))
              for slot, held, axons in zip(slots, cores, parts.axons_out, strict=True)),
        tuple(_layer(cut, cores, chip) for cut in parts.cuts.values()),
        journeys, links_of(traffic, mesh, slots),
        sum(item.spike_hops for item in journeys.values()), sum(item.spike_hops for item in naive.values()),
        dict(chip.not_published), _assumptions(deployment, chip, mesh, rates, settings),
    )  # fmt: skip


def _core(mesh: Mesh, slot: int, parts: Sequence[Part], used: Mapping[str, int]) -> PlacedCore:
    row, column = mesh.routers()
    pieces = tuple(Piece(part.population.name, part.box, part.neurons) for part in parts)
    return PlacedCore(slot // mesh.cores_per_chip, int(row[slot]), int(column[slot]), slot % mesh.cores_per_router, pieces, used)


def _layer(cut: Cut, cores: Sequence[Sequence[Part]], chip: ChipTable) -> PlacedLayer:
    population, binding = cut.population, cut.binding
    placed = {part.box: (number, part) for number, parts in enumerate(cores) for part in parts if part.population is population}
    needs = [placed[box][1].need for box in cut.boxes]
    return PlacedLayer(
        population.name, population.shape, tuple(placed[box][0] for box in cut.boxes),
        {layer.weight: tuple(sorted({need.stored[layer.weight].encoding for need in needs})) for layer in population.layers},
        {layer.weight: layer.weight_field for layer in population.layers},
        binding, remedies(binding.resource, binding.needed, chip) if len(cut.boxes) > 1 else (),
    )  # fmt: skip


def _assumptions(
    deployment: Deployment, chip: ChipTable, mesh: Mesh, activity: Activity, settings: PlacementSettings
) -> tuple[str, ...]:
    said = [f"{name}: {limit.note}" for name, limit in chip.limits.items() if limit.note and name in chip.capacities]
    for table in (chip.mesh, chip.synapses):
        said += [table.note] if table is not None and table.note else []
    said.append("a spike is one packet to every core that holds a synapse of its neuron")
    said.append(PORT_TOLD)
    if mesh.chips > 1:
        said.append(f"a hop between chips counts as {settings.interchip}: no figure is published")
    if not deployment.quantised:
        said.append(f"weights of this float network take {settings.weight_bits} bits")
    if activity.assumed:
        said.append(f"no activity was measured: one spike per neuron and step of {', '.join(activity.assumed)}")
    return tuple(said)


def _too_many_chips(cuts: Mapping[str, Cut], chip: ChipTable, cores: int, needed: int, allowed: int) -> UserError:
    largest = max(cuts.values(), key=lambda cut: len(cut.boxes))
    binding, name = largest.binding, largest.population.name
    ways = "; or ".join(remedies(binding.resource, binding.needed, chip))
    return UserError(
        "SNX455", f"the network takes {cores} cores, which is {needed} chips, and {allowed} may be used", where="placement.chips",
        why=f"most cores, {len(largest.boxes)}, are those of {name}; with {binding.cores} a part of it would take "
        f"{in_words(binding.resource, binding.needed, binding.capacity)}",
        fix=f"allow more chips: --set placement.chips={needed}, or PlacementSettings(chips={needed}); or give {name} {ways}",
    )  # fmt: skip
