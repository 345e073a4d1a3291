"""The rockpool backend: a NIR graph with its contract on Rockpool's LIFTorch, float32, in an environment of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims.isolated.engine import CellEngine, Program
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.rockpool.conformance import expected_failures
from snn_export.hardware_sims.rockpool.expressible import rules
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic

MEANING = "runs float networks on LIFTorch, which fires at its threshold and resets by subtraction; both are declared"


@final
class RockpoolSimulator:
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
        time_limit: seconds per run, after which the worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        progress: called with (steps done, steps in all) of the current run.
    """

    name = "rockpool"

    def __init__(
        self,
        *,
        several_spikes: bool = False,
        strict: bool = False,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        options = {"several_spikes": several_spikes, "strict": strict}
        self.expected_failures: Mapping[str, str] = expected_failures(**options)
        self._engine = CellEngine(self.name, rules(**options), options, time_limit, log_folder, python, progress)

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        description = "Rockpool's LIFTorch with the contract's decays; fires at the threshold, resets by subtraction"
        return Capabilities("float32", needs_integers=False, description=description, isolated=True)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return self._engine.availability()

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        return self._engine.self_test(MEANING)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX296 a threshold that is not positive, r = 0; SNX297 an encoder on the host."""
        return self._engine.check(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, emulated or unsupported, and why."""
        return self._engine.mapping(deployment)

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population: what LIFTorch does otherwise than the contract."""
        return self._engine.deviations(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """What the worker's cells are made from. Raises UserError with the findings of :meth:`check`."""
        return self._engine.compile(deployment)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes and currents are float32, real units. See :class:`Simulator`.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        return self._engine.run(program, inputs, check_record(record))
