"""The spikingjelly backend: a graph with its contract, its neurons SpikingJelly's own, in an environment of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims.isolated.engine import CellEngine, Program, Rules
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.spikingjelly import expressible
from snn_export.hardware_sims.spikingjelly.conformance import EXPECTED_FAILURES, EXPECTED_FAILURES_STRICT
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic


@final
class SpikingJellySimulator:
    """SpikingJelly 2.0: IFNode, LIFNode, CUBALIFNode and its non-spiking nodes, stepped one by one.

    ODE        tau dv/dt = -(v - v_reset) + x
    update     v += (x - v)/tau, tau in steps; or v += x - v/tau; IF: v += x; filtered: c = alpha c + x, v = beta v + c
    spike      s = v >= theta: at the threshold too, a declared deviation
    reset      v = 0 or v -= theta where s, in the step of the spike; later ones are a declared deviation

    How each node is carried stands in ``expressible.py`` and, node by node, in :meth:`mapping` and in every trace. Of a
    quantised deployment it runs the integers with float32 state, as ``reference`` does in float64.

    Args:
        strict: hand SpikingJelly's neurons a spike function of our own in place of theirs, v > theta, as the contract says.
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        progress: called with (steps done, steps in all) of the current run.
    """

    name = "spikingjelly"

    def __init__(
        self,
        *,
        strict: bool = False,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        deviations = partial(expressible.deviations, strict=strict)
        self.expected_failures: Mapping[str, str] = EXPECTED_FAILURES_STRICT if strict else EXPECTED_FAILURES
        self._engine = CellEngine(
            self.name, Rules(expressible.mapping, deviations, expressible.findings), {"strict": strict},
            time_limit=time_limit, log_folder=log_folder, python=python, progress=progress,
        )  # fmt: skip

    def capabilities(self) -> Capabilities:
        """See :class:`~snn_export.hardware_sims.simulator.Simulator`."""
        return Capabilities("float32", needs_integers=False, description="SpikingJelly 2.0's own neurons", isolated=True)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return self._engine.availability()

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        return self._engine.self_test(
            "runs networks on neurons that are, bit for bit, what SpikingJelly makes of a LIF, IF or CubaLIF in NIR; they fire "
            "at their threshold too"
        )

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults, and an encoder on the host (SNX297)."""
        return self._engine.check(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten or emulated, and why."""
        return self._engine.mapping(deployment)

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population: what SpikingJelly's neuron does otherwise than the contract."""
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
