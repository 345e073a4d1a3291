"""The spyx backend: real Spyx 1.0 neurons on JAX's CPU build, in an environment of their own behind a worker process."""

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
from snn_export.hardware_sims.spyx.conformance import EXPECTED_FAILURES, EXPECTED_FAILURES_ZERO_RESET
from snn_export.hardware_sims.spyx.expressible import rules
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic


@final
class SpyxSimulator:
    """Spyx's LIF, IF, CuBaLIF, PSU_LIF and LI, told the contract's decays; the linear nodes are torch's.

    ODE        tau dv/dt = -v + r i
    update     u = alpha u + x ;  v = beta v + u, gains and biases in front of it
    spike      s = v > theta (strict); returned one step later, which is removed: a trace is in local time
    reset      by subtraction, in the step of the spike or one step late, or none: exact. Spyx has no reset to zero: such a
               contract runs with the declared deviation that it subtracts, or with ``zero_reset``

    What Spyx's own NIR import makes of each node stands in ``expressible.py``; of a quantised deployment it runs the integers
    with float32 state.

    Args:
        zero_reset: where the contract resets to zero, set the membranes of neurons that fired to zero between two calls of Spyx's
            modules: their state is in the caller's hands.
        time_limit, log_folder, python, progress: as of :class:`~snn_export.hardware_sims.isolated.engine.CellEngine`.
    """

    name = "spyx"

    def __init__(
        self,
        *,
        zero_reset: bool = False,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.expected_failures: Mapping[str, str] = EXPECTED_FAILURES_ZERO_RESET if zero_reset else EXPECTED_FAILURES
        options = {"zero_reset": zero_reset}
        self._engine = CellEngine(self.name, rules(zero_reset=zero_reset), options, time_limit, log_folder, python, progress)

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("float32", needs_integers=False, description="real Spyx 1.0 neurons on JAX", isolated=True)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; starts nothing."""
        return self._engine.availability()

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        return self._engine.self_test(
            "a network that subtracts runs on Spyx as exported; one that resets to zero differs by the deviation it declares"
        )

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX296 a reset or threshold that Spyx cannot have, SNX297 an encoder on the host."""
        return self._engine.check(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return self._engine.mapping(deployment)

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population that the contract resets to zero, or doubles the threshold of: what Spyx's neuron does."""
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
