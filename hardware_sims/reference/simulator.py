"""The reference simulator: the float64 interpreter of ``export/interpreter.py`` behind the Simulator protocol."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any, final

from numpy.typing import NDArray

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record, layer_trace, read_out
from snn_export.models.diagnostics import Diagnostic, UserError


@final
class ReferenceSimulator:
    """float64 state for any deployment: real units on a float graph, the integers on a quantised one.

    On a quantised deployment weights, thresholds, biases and inputs are the chip's integers while u and v stay floats: no
    truncation of the decay, no wrap, no saturation. Membranes are returned in real units either way.
    """

    name = "reference"

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("float64", needs_integers=False, description="NIR interpreter, float64, the arbiter")

    def availability(self) -> Availability:
        """Always there: it needs NumPy and nir only."""
        return Availability(True, versions={"numpy": version("numpy"), "nir": version("nir")})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Shapes and node types; see :func:`snn_export.export.graph.shapes`."""
        try:
            _ = deployment.shapes, deployment.connections
        except UserError as error:
            return list(error.diagnostics)
        return []

    def compile(self, deployment: Deployment) -> Deployment:
        """The interpreter runs the deployment itself."""
        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        return deployment

    def run(self, program: Deployment, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`."""
        wanted = check_record(record)
        activities = interpreter.run(program, inputs)
        last = activities[program.contract.readout.node]
        readout, predictions, ties = read_out(program.contract.readout, last.sent, last.membrane)
        layers = {
            name: layer_trace(
                found.spikes, found.membrane, found.current, wanted, latency=program.contract.latency[name], several=found.several
            )
            for name, found in activities.items()
        }
        return Trace(self.name, layers, readout, predictions, ties, self.availability().versions)
