"""The Simulator protocol of a backend whose neurons a worker steps: everything but its name, its rules and its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.availability import environment_availability
from snn_export.hardware_sims.float_networks import float_network, graph_findings
from snn_export.hardware_sims.isolated.engine import Program, Rules, program_of, run_program
from snn_export.hardware_sims.isolated.session import KeptSession
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.self_test import Probe, worker_probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress, Worker, new_log
from snn_export.models.diagnostics import Diagnostic, UserError


class RunOptions(TypedDict, total=False):
    """Options that every backend of this kind takes; see :class:`CellBackend`."""

    time_limit: float
    log_folder: Path | None
    python: Path | None
    progress: Progress | None


class CellBackend(ABC):
    """A backend of a package whose neurons are stepped in an environment of its own.

    A subclass is final, names and describes itself, and makes its rules from its options. This class answers what a
    :class:`~snn_export.hardware_sims.simulator.Simulator` is asked, and keeps the worker from one run to the next; what the
    worker is told, and how the graph is walked, are functions of ``engine.py``, which keep nothing. Of a quantised deployment it
    runs the integers with float32 state, as ``reference`` does in float64.

    Args:
        rules: what it says of a network; asked only about one without faults of its own.
        options: for the worker's cells, plain data.
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        progress: called with (steps done, steps in all) of the current run, all populations together.
    """

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
        self._rules, self._options, self._time_limit = rules, options, time_limit
        self._log_folder, self._python, self._progress = log_folder, python, progress
        self._kept = KeptSession()

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the backend, and of its environment."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it runs on, in a few words."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What its self-test shows about what is exported."""

    def capabilities(self) -> Capabilities:
        """See :class:`~snn_export.hardware_sims.simulator.Simulator`."""
        return Capabilities("float32", needs_integers=False, description=self.description, isolated=True)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return environment_availability(self.name, self._python)

    def self_test(self) -> list[Probe]:
        """Whether the installed package's neurons do what the worker takes them to do."""
        return [worker_probe(self.name, self.meaning, self._python)]

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX293 an encoder on the host; SNX296 what the package has no neuron for."""
        return graph_findings(deployment, self.name) or self._rules.findings(float_network(deployment))

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return self._rules.mapping(float_network(deployment))

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population that does otherwise than the contract: what it does."""
        return self._rules.deviations(float_network(deployment))

    def compile(self, deployment: Deployment) -> Program:
        """What the worker's cells are made from. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        return program_of(self.name, deployment, self._rules, self._options)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes and currents are float32, real units.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        wanted = check_record(record)
        with self._kept.session(self._interpreter(), self._worker, keep_log=self._log_folder is not None) as session:
            return run_program(self.name, program, session, inputs, wanted, self._progress)

    def _interpreter(self) -> Path:
        return self._python or environments.interpreter(self.name)

    def _worker(self) -> Worker:
        return Worker(
            backend=self.name,
            python=self._interpreter(),
            script=environments.environment(self.name).worker,
            log=new_log(self._log_folder or environments.log_folder(), self.name),
            time_limit=self._time_limit,
        )
