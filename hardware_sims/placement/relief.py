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
    others = (other for other in _chips() if other.name != chip.name)
    holding = (other.title for other in others if other.capacities.get(resource, 0) >= needed)
    return (*RESOURCES[resource].remedies, *(f"a core of {title}, which holds {needed:,}" for title in holding))


def in_words(resource: str, needed: int, capacity: int) -> str:
    """For example "4,608 input axons, where a core holds 4,096"."""
    return f"{needed:,} {RESOURCES[resource].title}, where a core holds {capacity:,}"
