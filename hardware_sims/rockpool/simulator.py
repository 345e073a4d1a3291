"""The rockpool backend: Rockpool's own neurons, in an environment of their own behind a worker process."""

from __future__ import annotations

from typing import Unpack, final

from snn_export.hardware_sims.isolated.backend import CellBackend, RunOptions
from snn_export.hardware_sims.rockpool.expressible import rules


@final
class RockpoolSimulator(CellBackend):
    """Rockpool 3.1: every population is a LIFTorch, given the contract's decays; its NIR import reads no neuron rightly.

    update     u = (u + x) alpha ;  v = v beta + u + bias
    spike      s = v >= theta, once in a step; with ``several_spikes`` floor(v / theta) times, which is LIFTorch's default; with
               ``strict`` s = v > theta
    reset      v -= theta s, in the step of the spike

    The first line is made the contract's: x is handed over divided by alpha, and without a synaptic filter u is emptied before
    every step. What stands in the other two is declared per population (:meth:`deviations`). See ``expressible.py`` and
    ``worker.py``.

    Args:
        several_spikes: as many spikes in one step as the membrane holds thresholds.
        strict: hand LIFTorch a spike function of our own in place of its default, v > theta, as the contract says.
        others: see :class:`~snn_export.hardware_sims.isolated.backend.CellBackend`.
    """

    name = "rockpool"
    description = "Rockpool 3.1's LIFTorch with the contract's decays"
    meaning = "runs float networks on LIFTorch, which fires at its threshold and resets by subtraction; both are declared"

    def __init__(self, *, several_spikes: bool = False, strict: bool = False, **others: Unpack[RunOptions]) -> None:
        options = {"several_spikes": several_spikes, "strict": strict}
        super().__init__(rules(**options), options, **others)
