"""The snntorch backend: a NIR graph with its contract, rebuilt as snnTorch modules and run step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.float_networks import ON_GRID
from snn_export.hardware_sims.mapping import LayerMapping, provenance_of
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.snntorch import expressible
from snn_export.hardware_sims.snntorch.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.models.diagnostics import Diagnostic, UserError

if TYPE_CHECKING:
    from snn_export.hardware_sims.torch_graph import TorchProgram


@final
class SnnTorchSimulator:
    """snnTorch neurons and torch layers made from the graph alone, float32; snnTorch's own NIR functions are not used.

    ``student`` runs the module that was trained; this runs what a file says, and the two must fire alike. Inputs are multiplied
    with r, w_in and their like where a graph has them (:func:`expressible.mapping`). Of a quantised deployment it runs
    the integers with float32 state, as ``reference`` does in float64, and says so in the trace.
    """

    name = "snntorch"
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES
    packages: ClassVar[tuple[str, ...]] = ("snntorch", "torch")

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("float32", needs_integers=False, description="the graph rebuilt as snnTorch modules")

    def availability(self) -> Availability:
        """Always there: the project depends on snnTorch."""
        return Availability(True, versions={"torch": version("torch"), "snntorch": version("snntorch")})

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        from snn_export.hardware_sims.snntorch.probe import findings

        return list(findings())

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX290 a reset, SNX291 a threshold, SNX292 a leak, SNX293 an encoder it cannot have."""
        return expressible.findings(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: snnTorch's own neuron (native), one whose input is scaled or shifted (rewritten), or none (unsupported)."""
        return expressible.mapping(deployment)

    def compile(self, deployment: Deployment) -> TorchProgram:
        """The graph as modules. Raises UserError with the findings of :meth:`check`."""
        from snn_export.hardware_sims.snntorch.cells import program_of

        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        provenance = {**self.availability().versions, "snntorch mapping": provenance_of(self.mapping(deployment))}
        if deployment.quantised:
            provenance["snntorch state"] = ON_GRID
        return program_of(deployment, provenance)

    def run(self, program: TorchProgram, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes and currents are float32, real units. See :class:`Simulator`."""
        from snn_export.hardware_sims import torch_graph

        return torch_graph.run(program, self.name, inputs, check_record(record))
