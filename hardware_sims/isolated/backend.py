"""The Simulator protocol of a backend whose neurons a worker steps: everything but its name, its rules and its options."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims.isolated.engine import CellEngine, Program, Rules
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic


class RunOptions(TypedDict, total=False):
    """Options that every backend of this kind takes; see :class:`CellBackend`."""

    time_limit: float
    log_folder: Path | None
    python: Path | None
    progress: Progress | None


class CellBackend:
    """Base of the backends on :class:`~snn_export.hardware_sims.isolated.engine.CellEngine`.

    A subclass is final, has ``name``, ``description`` and ``meaning`` (of its self-test), and makes its rules from its options.
    Of a quantised deployment it runs the integers with float32 state, as ``reference`` does in float64.

    Args:
        rules: what it says of a network.
        options: for the worker's cells, plain data.
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        progress: called with (steps done, steps in all) of the current run.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    meaning: ClassVar[str]

    def __init__(
        self,
        rules: Rules,
        options: Mapping[str, Any],
        *,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._engine = CellEngine(
            self.name, rules, options, time_limit=time_limit, log_folder=log_folder, python=python, progress=progress
        )

    def capabilities(self) -> Capabilities:
        """See :class:`~snn_export.hardware_sims.simulator.Simulator`."""
        return Capabilities("float32", needs_integers=False, description=self.description, isolated=True)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return self._engine.availability()

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        return self._engine.self_test(self.meaning)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX296 what the package has no neuron for, SNX297 an encoder on the host."""
        return self._engine.check(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return self._engine.mapping(deployment)

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population that does otherwise than the contract: what it does."""
        return self._engine.deviations(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """What the worker's cells are made from. Raises UserError with the findings of :meth:`check`."""
        return self._engine.compile(deployment)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes and currents are float32, real units.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        return self._engine.run(program, inputs, check_record(record))
