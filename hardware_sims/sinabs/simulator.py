"""The sinabs backend: real sinabs 3.1.3 neurons, in an environment of their own behind a worker process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims.isolated.engine import CellEngine, Program
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.sinabs.conformance import expected_failures
from snn_export.hardware_sims.sinabs.expressible import rules
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic, UserError


@final
class SinabsSimulator:
    """sinabs' LIF and ExpLeak layers, told the contract's decays; linear nodes are torch's, as in sinabs' own import.

    ODE        tau dv/dt = -v + r i
    update     u = alpha u + x ;  v = beta v + u, decays as they are, not exp(-1/tau)
    spike      s = v >= theta: a membrane at its threshold fires, which is declared as a deviation
    reset      to zero, by subtraction, or none, in the step of the spike or one step late

    What sinabs' own NIR import makes of each node stands in ``expressible.py``; of a quantised deployment it runs the integers
    with float32 state.

    Args:
        several_spikes: as many spikes in one step as the membrane holds thresholds, sinabs' own default; otherwise one.
        strict: tell sinabs the next float32 above each threshold, so that a neuron fires above it only, as the contract says; not
            with several_spikes.
        time_limit, log_folder, python, progress: as of :class:`~snn_export.hardware_sims.isolated.engine.CellEngine`.
    """

    name = "sinabs"

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
        if strict and several_spikes:
            raise UserError(
                "SNX002", "the backend 'sinabs' does not take strict together with several_spikes", where="options",
                why="it counts spikes by dividing by the threshold, and a threshold one rounding higher divides otherwise",
                fix="leave one of them out",
            )  # fmt: skip
        self.expected_failures: Mapping[str, str] = expected_failures(several_spikes=several_spikes, strict=strict)
        self._engine = CellEngine(
            self.name, rules(several_spikes=several_spikes, strict=strict), {"several_spikes": several_spikes, "strict": strict},
            time_limit=time_limit, log_folder=log_folder, python=python, progress=progress,
        )  # fmt: skip

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "float32", needs_integers=False, description="real sinabs 3.1.3, its LIF and ExpLeak layers", isolated=True
        )

    def availability(self) -> Availability:
        """Whether the environment is there and complete; starts nothing."""
        return self._engine.availability()

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        return self._engine.self_test(
            "what runs on sinabs differs from the exported network in the deviations it declares, no more"
        )

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX296 a reset or threshold that sinabs cannot have, SNX297 an encoder on the host."""
        return self._engine.check(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native or emulated, and why."""
        return self._engine.mapping(deployment)

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population that does otherwise than the contract: what it does."""
        return self._engine.deviations(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """What the worker is told. Raises UserError with the findings of :meth:`check`."""
        return self._engine.compile(deployment)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        return self._engine.run(program, inputs, check_record(record))
