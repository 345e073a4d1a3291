"""The sinabs backend: real sinabs 3.1.3 neurons, in an environment of their own behind a worker process."""

from __future__ import annotations

from typing import Unpack, final

from snn_export.hardware_sims.isolated.backend import CellBackend, RunOptions
from snn_export.hardware_sims.sinabs.expressible import rules
from snn_export.models.diagnostics import UserError


@final
class SinabsSimulator(CellBackend):
    """sinabs' LIF and ExpLeak layers, told the contract's decays; linear nodes are torch's, as in sinabs' own import.

    ODE        tau dv/dt = -v + r i
    update     u = alpha u + x ;  v = beta v + u, decays as they are, not exp(-1/tau)
    spike      s = v >= theta: a membrane at its threshold fires, which is declared as a deviation
    reset      to zero, by subtraction, or none, in the step of the spike or one step late

    What sinabs' own NIR import makes of each node stands in ``expressible.py``.

    Args:
        several_spikes: as many spikes in one step as the membrane holds thresholds, sinabs' own default; otherwise one.
        strict: tell sinabs the next float32 above each threshold, so that a neuron fires above it only, as the contract says; not
            with several_spikes.
        others: see :class:`~snn_export.hardware_sims.isolated.backend.CellBackend`.
    """

    name = "sinabs"
    description = "real sinabs 3.1.3, its LIF and ExpLeak layers"
    meaning = "what runs on sinabs differs from the exported network in the deviations it declares, no more"

    def __init__(self, *, several_spikes: bool = False, strict: bool = False, **others: Unpack[RunOptions]) -> None:
        if strict and several_spikes:
            raise UserError(
                "SNX002", "the backend 'sinabs' does not take strict together with several_spikes", where="options",
                why="it counts spikes by dividing by the threshold, and a threshold one rounding higher divides otherwise",
                fix="leave one of them out",
            )  # fmt: skip
        options = {"several_spikes": several_spikes, "strict": strict}
        super().__init__(rules(several_spikes=several_spikes, strict=strict), options, **others)
