"""What keeps a layer from fewer cores, or from a chip at all, and what would relieve it."""

from __future__ import annotations

from functools import cache

from snn_export.hardware_sims.chips.chip_table import RESOURCES, ChipTable, chip_names, load_chip

REMEDIES = {
    "neurons": ("fewer channels in the layer", "a larger stride, or pooling in front of it"),
    "synapse_memory": ("fewer weight bits", "fewer channels in the layer or in front of it", "more zero weights (pruning)"),
    "core_memory": ("fewer weight bits", "fewer channels in the layer or in front of it", "more zero weights (pruning)"),
    "axons_in": (
        "fewer channels in front of the layer, or groups in its convolution",
        "a larger stride or pooling in an earlier layer",
        "a layer of neurons in between that hears only a part each",
    ),
    "axons_out": (
        "fewer cores in the layers it feeds: fewer channels there, or fewer weight bits",
        "a layer of relay neurons that splits its targets",
    ),
    "delay_slots": ("shorter delays", "a relay population in place of a long delay"),
    "neuron_formats": ("the same decays in populations that are small",),
    "threshold_formats": ("the same thresholds in populations that are small",),
    "synapse_formats": ("the same weight bits and weight exponent in all layers into one population",),
}
"""By resource; "the layer" is the one that is cut."""


@cache
def _chips() -> tuple[ChipTable, ...]:
    """The chips that networks are placed on."""
    return tuple(chip for chip in map(load_chip, chip_names()) if chip.mesh is not None)


def remedies(resource: str, needed: int, chip: ChipTable) -> tuple[str, ...]:
    """What would relieve a layer that needs this much of a resource on one core, chips that hold it included."""
    others = (other for other in _chips() if other.name != chip.name)
    holding = (other.title for other in others if other.capacities.get(resource, 0) >= needed)
    return (*REMEDIES[resource], *(f"a core of {title}, which holds {needed:,}" for title in holding))


def in_words(resource: str, needed: int, capacity: int) -> str:
    """For example "4,608 input axons, where a core holds 4,096"."""
    return f"{needed:,} {RESOURCES[resource].split(':')[0]}, where a core holds {capacity:,}"
