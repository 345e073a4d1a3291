"""The norse backend: a NIR graph with its contract in Norse's modules, step by step, float32."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.float_networks import ON_GRID
from snn_export.hardware_sims.mapping import LayerMapping, provenance_of
from snn_export.hardware_sims.norse import expressible
from snn_export.hardware_sims.norse.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, BackendError, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.models.diagnostics import Diagnostic, UserError

if TYPE_CHECKING:
    from snn_export.hardware_sims.torch_graph import TorchProgram

INSTALL = "pip install 'norse>=1.1'"


@final
class NorseSimulator:
    """Norse 1.1: its own NIR import where it is right, our own mapping onto its cells where it is not; said node by node.

    ODE        tau dv/dt = (v_leak - v) + r i
    update     v += dt/tau ((x + v_leak) - v), from zero; IF: v += x
    spike      s = v > theta (strict)
    reset      to zero or by subtraction, in the step of the spike; late ones are refused

    What it reads wrongly, and what is done about it, stands in ``expressible.py`` and, per node, in :meth:`mapping` and in every
    trace. Of a quantised deployment it runs the integers with float32 state, as ``reference`` does in float64.
    """

    name = "norse"
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES
    packages: ClassVar[tuple[str, ...]] = ("norse", "torch")

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "float32", needs_integers=False, description="Norse's cells, from its own NIR import where it is right"
        )

    def availability(self) -> Availability:
        """Whether Norse can be imported; it is, once."""
        try:
            importlib.import_module("norse.torch")
            return Availability(True, versions={"norse": version("norse"), "torch": version("torch")})
        except (ImportError, PackageNotFoundError, RuntimeError, OSError) as error:  # what a build that does not fit raises
            return Availability(False, f"Norse cannot be imported: {type(error).__name__}: {error}", INSTALL)

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        from snn_export.hardware_sims.norse.probe import findings

        return list(findings())

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults; SNX293 an encoder on the host, SNX294 a reset that Norse cannot have."""
        return expressible.findings(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return expressible.mapping(deployment)

    def compile(self, deployment: Deployment) -> TorchProgram:
        """The graph in Norse's modules. Raises UserError: the findings of :meth:`check`; BackendError: SNX437 without Norse."""
        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        there = self.availability()
        if not there.ok:
            why = "it is a package of its own, and what is installed does not fit to torch"
            raise BackendError(Diagnostic("SNX437", there.reason, where=self.name, why=why, fix=there.fix))
        from snn_export.hardware_sims.norse.cells import program_of

        plan = expressible.plan_of(deployment)
        provenance = {**there.versions, "norse mapping": provenance_of(plan.layers)}
        if deployment.quantised:
            provenance["norse state"] = ON_GRID
        return program_of(plan, provenance)

    def run(self, program: TorchProgram, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes and currents are float32, real units. See :class:`Simulator`."""
        from snn_export.hardware_sims import torch_graph

        return torch_graph.run(program, self.name, inputs, check_record(record))
