"""How much of a chip a network takes: what a check says where nothing stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.rules.network import Network


@dataclass(frozen=True)
class Fit:
    """Cores of a network, cut and packed as a placement does it.

    Attributes:
        chip: its title.
        cores, chips: that the network takes.
        cores_per_chip: that a chip has.
        fullest: by limit of a core, its share on the core that it fills most, 0 to 1.
        unchecked: limits that nobody publishes.
    """

    chip: str
    cores: int
    chips: int
    cores_per_chip: int
    fullest: Mapping[str, float]
    unchecked: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        name, share = max(self.fullest.items(), key=lambda item: item[1])
        cores = f"{self.cores:,} core{'s' if self.cores > 1 else ''}"
        where = f"{cores} of {self.cores_per_chip}" if self.chips == 1 else f"{cores}, which is {self.chips} chips"
        return f"{where}; fullest limit of a core: {name}, {100 * share:.0f} %"


def fit_of(network: Network) -> Fit | None:
    """What a network takes of its chip; None for a target without cores, and where that could not be worked out."""
    cores, chip = network.cut.cores, network.chip
    if cores is None or chip is None or chip.mesh is None or not cores.fullest:
        return None
    return Fit(
        chip.title, cores.count, chip.mesh.chips_for(cores.count), chip.mesh.cores,
        {RESOURCES[name].title: share for name, share in cores.fullest.items()},
        tuple(RESOURCES[name].title for name in RESOURCES if name in chip.not_published),
    )  # fmt: skip
