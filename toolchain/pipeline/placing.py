"""Placements in a verification: the network on the cores of a chip, once per chip, or what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from snn_export.config_schema import PlacementConfig
from snn_export.energy.placed import placement_report
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import Placement, PlacementSettings, place
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.reporting.placement_records import PlacementReport
from snn_export.reporting.report import CoverageItem

REFUSALS = frozenset({"SNX452", "SNX453", "SNX454", "SNX455", "SNX456", "SNX457", "SNX458"})
"""Codes that say why a network is not placed on a chip; any other error is none of the network's and is raised."""


class Placements:
    """A network on whichever chips are asked for; the search for the best arrangement is made once for each.

    Args:
        deployment: the network.
        fired: spikes of each neuron over all samples, by population and input node.
        settings: of every placement.
        samples: that were counted.
    """

    def __init__(
        self, deployment: Deployment, fired: Mapping[str, NDArray[np.int64]], settings: PlacementConfig, samples: int = 1
    ) -> None:
        self._deployment, self._fired, self._samples = deployment, fired, samples
        self._settings = PlacementSettings(chips=settings.chips, interchip=settings.interchip, kicks=settings.kicks)
        self._found: dict[str, Placement | Diagnostic] = {}

    def on(self, chip: str) -> Placement | Diagnostic:
        """The network on a chip, or the finding that refuses it.

        Raises:
            UserError: SNX450 for a chip that is not known, and what else is no refusal (:data:`REFUSALS`).
        """
        if chip not in self._found:
            self._found[chip] = self._placed(chip)
        return self._found[chip]

    def _placed(self, chip: str) -> Placement | Diagnostic:
        table = load_chip(chip)
        try:
            return place(self._deployment, table, self._fired, self._settings, self._samples)
        except UserError as error:
            if error.code not in REFUSALS:
                raise
            return error.diagnostics[0]


def on_the_target(
    deployment: Deployment, placements: Placements | None
) -> tuple[PlacementReport | None, tuple[CoverageItem, ...]]:
    """The network on the cores of the chip it was quantised for, by measured activity; or the item that says why it is not.

    Args:
        deployment: the network.
        placements: of it; None where nothing was counted.
    """
    quantisation = deployment.contract.quantisation
    if quantisation is None or placements is None:
        return None, (_unplaced("no operations of a quantised network were counted", "see the failed gates, then run again"),)
    found = placements.on(quantisation.target)
    if isinstance(found, Placement):
        return placement_report(found), ()
    return None, (_unplaced(f"{found.code} {found.what}: {found.why}", found.fix),)


def _unplaced(why: str, fix: str) -> CoverageItem:
    return CoverageItem(what="placement on cores, spike hops, chip memory limits", status="NOT_MODELLED", why=why, fix=fix)
