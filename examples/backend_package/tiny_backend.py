"""A backend in a package of its own: leaky integrate-and-fire networks without loops, in NumPy, float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.interpreter import input_signals, synaptic_drive
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace, check_record, layer_trace, read_out
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

LOOPS = ("latency.a_loop_takes_one_step", "latency.a_loop_between_neurons", "latency.a_loop_over_two_layers",
         "graph.nested_graphs", "graph.from_a_file", "contract.samples_do_not_hear_each_other", "contract.order_of_a_batch",
         "contract.same_again", "contract.state_is_cleared_between_samples", "contract.probes_are_complete")  # fmt: skip
RESETS = ("by_subtraction", "by_subtraction_takes_one_threshold", "by_subtraction_with_leak", "none", "delayed_subtraction",
          "delayed_to_zero", "delayed_to_zero_clears_the_input", "subtraction_that_doubles_the_threshold")  # fmt: skip


@final
class TinySimulator:
    """Layer by layer: u = alpha u + x, v = beta v + u; a spike where v > threshold, which resets v to zero."""

    name = "tiny"
    expected_failures: ClassVar[Mapping[str, str]] = {
        **{f"reset.{name}": "SNX203: its neurons reset to zero in the step of the spike" for name in RESETS},
        **dict.fromkeys(LOOPS, "SNX204: it runs one layer after the other"),
    }

    def capabilities(self) -> Capabilities:
        return Capabilities("float64", needs_integers=False, description="an example: NumPy, one layer after the other")

    def availability(self) -> Availability:
        return Availability(True, versions={"numpy": np.__version__})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        if found := diagnostics_of(lambda: (deployment.shapes, deployment.connections)):
            return found
        resets = (deployment.contract.neurons[name].reset_finding(name) for name in deployment.layers)
        loops = [stage for stage in deployment.stages if deployment.is_recurrent(stage)]
        why = "what hears itself has to be stepped together"
        return [
            *filter(None, resets),
            *(Diagnostic("SNX204", f"{name} is in a loop", name, why, "use reference") for name, *_ in loops),
        ]

    def compile(self, deployment: Deployment) -> Deployment:
        if found := self.check(deployment):
            raise UserError.from_diagnostics(tuple(found))
        return deployment

    def run(self, program: Deployment, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        wanted, signals, layers = check_record(record), input_signals(program, inputs), {}
        for name in program.layers:
            drive = synaptic_drive(program, name, signals)
            spikes, v, u = self._population(program, name, np.broadcast_to(drive, (program.contract.steps, *drive.shape[1:])))
            signals[name] = spikes.astype(float)
            layers[name] = layer_trace(spikes, v, u, wanted, latency=program.contract.latency[name])
            if name == program.contract.readout.node:
                answer = read_out(program.contract.readout, spikes, v)
        return Trace(self.name, layers, *answer, self.availability().versions)

    def _population(self, program: Deployment, name: str, drive: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        spec, (c, m) = program.contract.neurons[name], input_gains(program, name)
        threshold, leak = threshold_array(program.graph.nodes[name]), membrane_bias(program, name)
        spikes, vs, us = np.zeros(drive.shape, bool), np.zeros(drive.shape), np.zeros(drive.shape)
        u, v = np.zeros(drive.shape[1:]), np.zeros(drive.shape[1:])
        for t, x in enumerate(drive):
            if spec.resets_at(t):
                u, v = np.zeros_like(u), np.zeros_like(v)
            u = spec.alpha * u + c * x
            v = spec.beta * v + m * u + leak
            spikes[t] = (v > threshold) & spec.spiking
            v = np.where(spikes[t], 0.0, v)
            vs[t], us[t] = v, u
        return spikes, vs, us
