"""The trained PyTorch module itself as a simulator: the reference every other form of the network is held against."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, LayerTrace, Record, Trace, check_record, layer_trace, read_out
from snn_export.models.diagnostics import Diagnostic, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK = 128
"""Samples run at once."""


@final
class StudentSimulator:
    """Runs a snnTorch ``nn.Sequential`` in evaluation mode, float32, as trained: batch-norm not folded, inputs not on a grid.

    The deployment says how many steps, how inputs are encoded, what is read out, and which layer ids to expect; the module
    supplies all arithmetic.
    """

    name = "student"
    packages: ClassVar[tuple[str, ...]] = ("snntorch", "torch")

    def __init__(self, layers: nn.Sequential | None = None) -> None:
        self._layers = layers

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("float32", needs_integers=False, description="the trained snnTorch module itself")

    def availability(self) -> Availability:
        """There once it was given a trained module."""
        if self._layers is None:
            return Availability(False, "no trained module was given", "name the checkpoint the network was exported from")
        return Availability(True, versions={"torch": version("torch"), "snntorch": version("snntorch")})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Every population of the deployment must be a layer of the module."""
        from snn_export.models.unroll import leaves

        names = dict(leaves(self._layers)) if self._layers is not None else {}
        return [
            Diagnostic(
                "SNX403",
                f"the trained module has no layer {name}",
                where=name,
                why="it is matched with the deployment by layer id",
                fix="give the module the deployment was read from",
            )
            for name in deployment.layers
            if deployment.contract.origin.get(name, name) not in names
        ]

    def compile(self, deployment: Deployment) -> Deployment:
        """Nothing to compile; the module runs as it is."""
        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        return deployment

    def run(self, program: Deployment, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); membranes are float32, real units. See :class:`Simulator`."""
        import torch

        from snn_export.models.unroll import unroll

        wanted = check_record(record)
        if self._layers is None:
            raise UserError(
                "SNX403",
                "no trained module was given",
                where="student",
                why="it is the reference",
                fix="StudentSimulator(layers)",
            )
        signal = encoding.signal(program, inputs).astype(np.float32)
        spikes: dict[str, list[NDArray[np.bool_]]] = {}
        membranes: dict[str, list[NDArray[np.float32]]] = {}

        def observe(name: str, fired: Tensor | None, membrane: Tensor) -> None:
            values = membrane.numpy()
            spikes.setdefault(name, []).append(np.zeros(values.shape, bool) if fired is None else fired.numpy() > 0)
            membranes.setdefault(name, []).append(values)

        was_training = self._layers.training
        self._layers.eval()
        try:
            with torch.inference_mode():
                for start in range(0, signal.shape[1], CHUNK):
                    part = torch.from_numpy(np.ascontiguousarray(signal[:, start : start + CHUNK]))
                    constant = len(part) == 1
                    unroll(
                        self._layers, part[0] if constant else part, program.contract.steps, constant=constant, observe=observe
                    )
        finally:
            self._layers.train(was_training)
        return self._trace(program, spikes, membranes, wanted)

    def _trace(
        self,
        program: Deployment,
        spikes: dict[str, list[NDArray[np.bool_]]],
        membranes: dict[str, list[NDArray[np.float32]]],
        wanted: frozenset[Record],
    ) -> Trace:
        contract, layers = program.contract, {}
        joined = {name: (np.concatenate(spikes[name], axis=1), np.concatenate(membranes[name], axis=1)) for name in spikes}
        for name in program.layers:
            origin = contract.origin.get(name, name)
            fired, membrane = joined[origin]
            if name != origin and origin in program.layers:
                membrane = np.zeros_like(membrane)  # a relay fires with the layer it repeats, and is back at zero each time
            layers[name] = _layer(fired, membrane, wanted, contract.latency[name])
        readout, predictions, ties = read_out(
            contract.readout, *joined[contract.origin.get(contract.readout.node, contract.readout.node)]
        )
        return Trace(self.name, layers, readout, predictions, ties, self.availability().versions)


def _layer(fired: NDArray[np.bool_], membrane: NDArray[np.float32], wanted: frozenset[Record], latency: int) -> LayerTrace:
    return layer_trace(fired, membrane, None, wanted, latency=latency)
