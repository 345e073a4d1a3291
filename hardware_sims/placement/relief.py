"""What keeps a layer from fewer cores, or from a chip at all, and what would relieve it."""

from __future__ import annotations

from functools import cache

from snn_export.hardware_sims.chips.chip_table import ChipTable, chip_names, load_chip
from snn_export.hardware_sims.chips.core_resources import RESOURCES


@cache
def _chips() -> tuple[ChipTable, ...]:
    """The chips that networks are placed on."""
    return tuple(chip for chip in map(load_chip, chip_names()) if chip.mesh is not None)


def remedies(resource: str, needed: int, chip: ChipTable) -> tuple[str, ...]:
    """What would relieve a layer that needs this much of a resource on one core, chips that hold it included."""
    held = chip.capacities.get(resource, 0)
    larger = ((other.title, other.capacities.get(resource, 0)) for other in _chips())
    return (
        *RESOURCES[resource].remedies,
        *(f"a core of {title}, which holds {holds:,}" for title, holds in larger if holds >= needed and holds > held),
    )


def in_words(resource: str, needed: int, capacity: int) -> str:
    """For example "4,608 input axons, where a core holds 4,096"."""
    return f"{needed:,} {RESOURCES[resource].title}, where a core holds {capacity:,}"
