"""The quantised PyTorch student as a simulator: what fine-tuning trained, run as it was trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.student.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.trace import SPIKES_ONLY, LayerTrace, Record, Trace, check_record, layer_trace, read_out
from snn_export.models.diagnostics import Diagnostic, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from snn_export.models.quantised.student import QuantisedStudent

CHUNK = 128
"""Samples run at once."""


@final
class QuantisedStudentSimulator:
    """Runs a quantised student in PyTorch: integer weights rounded from its real parameters, integer state.

    Given a module, that module supplies all numbers, and the deployment only the encoding, the steps and the layer ids; so a
    comparison with ``loihi`` shows that what was trained is what was exported. Without one, the module is made from the
    deployment.
    """

    name = "quantised_student"
    packages: ClassVar[tuple[str, ...]] = ("snntorch", "torch")
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES

    def __init__(self, module: QuantisedStudent | None = None) -> None:
        self._module = module

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("loihi_integer", needs_integers=True, description="the PyTorch student, integer weights and state")

    def availability(self) -> Availability:
        """Always there: it needs torch and snnTorch only."""
        return Availability(True, versions={"torch": version("torch"), "snntorch": version("snntorch")})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """What keeps a module from being made of the deployment, or the given module from being matched with it."""
        if self._module is None:
            from snn_export.hardware_sims.student.quantised import student_from_deployment

            try:
                student_from_deployment(deployment)
            except UserError as error:
                return list(error.diagnostics)
            return []
        known = self._module.plan.populations
        return [
            Diagnostic(
                "SNX403",
                f"the quantised student has no population {name}",
                where=name,
                why="it is matched with the deployment by layer id",
                fix="give the student that the deployment was exported from",
            )
            for name in deployment.layers
            if name not in known
        ]

    def compile(self, deployment: Deployment) -> tuple[Deployment, QuantisedStudent]:
        """The module to run. Raises UserError with the findings of :meth:`check`."""
        from snn_export.hardware_sims.student.quantised import student_from_deployment

        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        return deployment, self._module or student_from_deployment(deployment)

    def run(
        self, program: tuple[Deployment, QuantisedStudent], inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY
    ) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); u and v are int32, chip units. Overflows are not counted: None."""
        import torch

        from snn_export.models.quantised.student import EncodedInput

        wanted = check_record(record)
        deployment, module = program
        levels = torch.from_numpy(encoding.levels(deployment, inputs))
        host = {name: torch.from_numpy(bias) for name, bias in encoding.host_bias(deployment, inputs).items()}
        parts: dict[str, list[tuple[NDArray[Any], ...]]] = {name: [] for name in deployment.layers}

        def observe(name: str, *history: Tensor) -> None:
            spikes, current, membrane = (values.numpy() for values in history)
            parts[name].append((spikes > 0, current.astype(np.int32), membrane.astype(np.int32)))

        was_training = module.training
        module.eval()
        try:
            for start in range(0, levels.shape[1], CHUNK):
                stop = start + CHUNK
                module.run(EncodedInput(levels[:, start:stop], {name: b[start:stop] for name, b in host.items()}), observe)
        finally:
            module.train(was_training)
        return self._trace(deployment, parts, wanted)

    def _trace(
        self, deployment: Deployment, parts: dict[str, list[tuple[NDArray[Any], ...]]], wanted: frozenset[Record]
    ) -> Trace:
        contract, layers = deployment.contract, dict[str, LayerTrace]()
        joined = {
            name: tuple(np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True)) for name, found in parts.items()
        }
        for name, (spikes, current, membrane) in joined.items():
            unit = deployment.populations[name].unit
            layers[name] = layer_trace(
                spikes, membrane, current, wanted, unit=unit, overflows=None, latency=contract.latency[name]
            )
        spikes, _, membrane = joined[contract.readout.node]
        return Trace(self.name, layers, *read_out(contract.readout, spikes, membrane), self.availability().versions)
