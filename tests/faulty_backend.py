"""A backend with a fault in it, as a package of its own would bring it: tests copy this file into one.

It computes Loihi's integers with NumPy, layer by layer, and misreads one thing. ``fault.json`` beside it may say which weight.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nir
import numpy as np

from snn_export.export.deployment import Deployment, IntegerSynapse, integer_parameters
from snn_export.export.interpreter import input_signals, synaptic_drive
from snn_export.export.linear import apply
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace, check_record, layer_trace, read_out
from snn_export.models import arithmetic
from snn_export.models.diagnostics import Diagnostic, UserError

FILE = Path(__file__).with_name("fault.json")
VALUE, READ_AS = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else (202, 130)
FAULTS = ("none", "weight", "decay", "at_threshold", "subtract", "late", "stride", "padding", "breaks", "raises")


class Faulty:
    """Feed-forward networks, wrong in one way."""

    def __init__(self, fault: str) -> None:
        self.fault, self.name = fault, f"faulty_{fault}"

    def capabilities(self) -> Capabilities:
        return Capabilities("loihi_integer", needs_integers=True, description=f"wrong: {self.fault}")

    def availability(self) -> Availability:
        return Availability(self.fault != "breaks", "it is broken", "buy another one", {"faulty-backend": "0.1.0"})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        loops = [stage for stage in deployment.stages if deployment.is_recurrent(stage)]
        return [Diagnostic("SNX204", f"{name} is in a loop", name, "layer by layer", "use loihi") for name, *_ in loops]

    def compile(self, deployment: Deployment) -> Deployment:
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        return _misread(deployment, self.fault)

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        if self.fault == "raises":
            raise RuntimeError("out of ideas")
        wanted, signals, layers = check_record(record), input_signals(program, inputs), {}
        for name in program.layers:
            drive = _drive(program, name, signals, self.fault)
            drive = np.broadcast_to(drive, (program.contract.steps, *drive.shape[1:]))
            spikes, v, u = self._population(program, name, drive)
            signals[name] = spikes.astype(np.int64)
            unit = program.populations[name].unit
            latency = program.contract.latency[name]
            layers[name] = layer_trace(spikes, v, u, wanted, unit=unit, latency=latency)
            if name == program.contract.readout.node:
                answer = read_out(program.contract.readout, spikes, v)
        return Trace(self.name, layers, *answer, self.availability().versions)

    def _population(self, program: Deployment, name: str, drive: Any) -> tuple[Any, Any, Any]:
        held, spec = program.populations[name], program.contract.neurons[name]
        dv = min(held.dv + (1 if self.fault == "decay" else 0), 4095)
        threshold = (held.threshold << 6) - (1 if self.fault == "at_threshold" else 0)
        step = arithmetic.loihi_step_subtract if self.fault == "subtract" else arithmetic.loihi_step
        u, v = np.zeros(drive.shape[1:], np.int64), np.zeros(drive.shape[1:], np.int64)
        history = [np.zeros(drive.shape, np.int64) for _ in range(3)]
        for t in range(len(drive)):
            if spec.resets_at(t):
                u, v = np.zeros_like(u), np.zeros_like(v)
            x = drive[t] if self.fault != "late" else drive[t - 1] if t else drive[t] * 0
            u, v, s, _, _ = step(u, v, x, program.bias(name), held.du, dv, threshold)
            history[0][t], history[1][t], history[2][t] = s, v, u
        return history[0].astype(bool), history[1], history[2]


class FaultyFloats:
    """The float64 interpreter, its last layer with a leak that is a thousandth too large."""

    name = "faulty_floats"

    def __init__(self) -> None:
        self._real = ReferenceSimulator()
        self.capabilities, self.check = self._real.capabilities, self._real.check

    def availability(self) -> Availability:
        return Availability(True, versions={"faulty-backend": "0.1.0"})

    def compile(self, deployment: Deployment) -> Deployment:
        last, neurons = deployment.layers[-1], dict(deployment.contract.neurons)
        neurons[last] = replace(neurons[last], dv=min(neurons[last].dv + 4, 4095))
        return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        return replace(self._real.run(program, inputs, record), backend=self.name)


def _misread(deployment: Deployment, fault: str) -> Deployment:
    if fault == "weight":
        synapses = {
            name: IntegerSynapse(np.where(s.weight == VALUE, READ_AS, s.weight).astype(np.int16), s.weight_exponent,
                                 s.bias_mantissa, s.current_bias)
            for name, s in deployment.synapses.items()
        }  # fmt: skip
        return deployment.replace(synapses=synapses)
    return deployment


def _drive(program: Deployment, name: str, signals: Any, fault: str) -> Any:
    """The synaptic sum; with "stride" or "padding" a convolution takes rows for columns there, and keeps its shape."""
    paths = [connection.path for connection in program.connections[name]]
    nodes = [program.graph.nodes[path[0]] for path in paths if len(path) == 1]
    if fault not in ("stride", "padding") or len(nodes) != len(paths) or not all(isinstance(node, nir.Conv2d) for node in nodes):
        return synaptic_drive(program, name, signals)
    total: Any = 0
    for connection, node in zip(program.connections[name], nodes, strict=True):
        stride, padding = np.ravel(node.stride), np.ravel(node.padding)
        stride, padding = (stride[::-1], padding) if fault == "stride" else (stride, padding[::-1])
        x = np.asarray(signals[connection.source])
        _, rows, columns = program.shapes[name]
        far = int(max(x.shape[3:])) + int(np.max(stride)) * max(rows, columns) + 8
        wide = nir.Conv2d(None, node.weight, (1, 1), (far, far), node.dilation, node.groups, node.bias)
        weight = integer_parameters(program.synapses[connection.path[0]])[0]
        sums = apply("conv", wide, x.reshape(-1, *x.shape[2:]), weight, np.zeros(len(weight), np.int64))
        at = [
            np.arange(size) * int(step) - int(pad) + far for size, step, pad in zip((rows, columns), stride, padding, strict=True)
        ]
        total = total + sums[:, :, at[0]][:, :, :, at[1]].reshape(*x.shape[:2], -1, rows, columns)
    return total + program.current_bias(name)


none, weight, decay, at_threshold, subtract, late, stride, padding, breaks, raises = (partial(Faulty, fault) for fault in FAULTS)
floats = FaultyFloats
