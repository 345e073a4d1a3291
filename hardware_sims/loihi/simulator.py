"""Simulated Loihi: integer arithmetic, bit for bit, batched over samples and time.

Synaptic sums are matrix products and convolutions in torch's float32. ``rules.sums_are_exact`` refuses a layer in which a
partial sum could reach 2^24; below that float32 holds every intermediate integer exactly, whatever the order of the sum. The
neurons run in a compiled integer scan. Layer by layer, all steps at once: in a feed-forward graph that is the same as step by
step.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from snn_export.export import encoding
from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.graph import SYNAPSE_TYPES, conv_padding, pair
from snn_export.hardware_sims.loihi import kernels, rules
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, LayerTrace, Record, Trace, check_record, layer_trace, read_out
from snn_export.models.arithmetic import STATE_SHIFT
from snn_export.models.diagnostics import Diagnostic, UserError

CHUNK_BYTES = 256 << 20
"""Memory one chunk of samples may take in a layer's sums and state."""


@dataclass(frozen=True, eq=False)
class _Synapse:
    """One weight node, ready to run. ``geometry`` is None for a matrix product."""

    source: str
    weight: torch.Tensor
    geometry: nir.Conv2d | None


@dataclass(frozen=True, eq=False)
class Program:
    """A deployment with its integer weights as float32 tensors."""

    deployment: Deployment
    synapses: dict[str, tuple[_Synapse, ...]]


@final
class LoihiSimulator:
    """Integer Loihi on the CPU. Membranes and currents are int32 in the chip's units (1.0 real = 64 scale).

    Overflows are counted per layer: every wrap of u and every saturation of v.
    """

    name = "loihi"

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("loihi_integer", needs_integers=True, description="Loihi's integer arithmetic, bit for bit, batched")

    def availability(self) -> Availability:
        """Always there: it needs torch and numba only."""
        return Availability(True, versions={"torch": version("torch"), "numba": version("numba")})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """All rules of ``rules.py``."""
        return rules.check(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """Bring the weights into the form the kernels take. Raises UserError with all findings of :meth:`check`."""
        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        return Program(
            deployment,
            {
                name: tuple(_compile_synapse(deployment, c.source, c.path) for c in incoming)
                for name, incoming in deployment.connections.items()
            },
        )

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape), chunk by chunk of samples; see :class:`Simulator`."""
        wanted = check_record(record)
        levels = encoding.levels(program.deployment, inputs)
        size = _samples_per_chunk(program.deployment, self._chunk_bytes)
        parts = [_run_chunk(program, levels[:, i : i + size], wanted) for i in range(0, levels.shape[1], size)]
        layers = {name: _join([part[0][name] for part in parts]) for name in program.deployment.layers}
        readout = np.concatenate([part[1] for part in parts])
        predictions = np.concatenate([part[2] for part in parts])
        return Trace(self.name, layers, readout, predictions, sum(part[3] for part in parts), self.availability().versions)


def _compile_synapse(deployment: Deployment, source: str, path: tuple[str, ...]) -> _Synapse:
    name = next(n for n in path if isinstance(deployment.graph.nodes[n], SYNAPSE_TYPES))
    node = deployment.graph.nodes[name]
    weight, _ = integer_parameters(deployment.synapses[name])
    tensor = torch.from_numpy(np.asarray(weight, np.float32))
    return _Synapse(source, tensor, node if isinstance(node, nir.Conv2d) else None)


def _samples_per_chunk(deployment: Deployment, budget: int) -> int:
    """Samples whose largest layer (sums, state, spikes: 13 bytes a neuron and step) fits into the budget."""
    largest = max(int(np.prod(deployment.shapes[name])) for name in deployment.graph.nodes)
    return max(1, budget // (13 * largest * deployment.contract.steps))


def _drive(synapse: _Synapse, signal: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Integer synaptic sums (S, B, *shape) of a signal (S, B, *features)."""
    steps, batch = signal.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(signal)).to(synapse.weight.dtype)
    if synapse.geometry is None:
        out = x.reshape(steps * batch, -1) @ synapse.weight.T
    else:
        node = synapse.geometry
        (top, bottom), (left, right) = conv_padding(node)
        padded = functional.pad(x.reshape(steps * batch, *x.shape[2:]), (left, right, top, bottom))
        out = functional.conv2d(
            padded, synapse.weight, stride=pair(node.stride), dilation=pair(node.dilation), groups=int(node.groups)
        )
    return out.to(torch.int32).reshape(steps, batch, *shape).numpy()


def _run_chunk(
    program: Program, levels: NDArray[np.int64], record: frozenset[Record]
) -> tuple[dict[str, LayerTrace], NDArray[Any], NDArray[np.int64], int]:
    deployment, contract = program.deployment, program.deployment.contract
    signals: dict[str, NDArray[Any]] = {
        name: levels for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)
    }
    layers: dict[str, LayerTrace] = {}
    read = None
    for name in deployment.layers:
        shape, is_readout = deployment.shapes[name], name == contract.readout.node
        drives = [_drive(synapse, signals[synapse.source], shape) for synapse in program.synapses[name]]
        drive = functools.reduce(np.add, drives)
        spikes, current, membrane, overflows = _neurons(deployment, name, drive, record, membrane_needed=is_readout)
        population = deployment.populations[name]
        layers[name] = layer_trace(
            spikes, membrane, current, record, unit=population.unit, overflows=overflows, latency=contract.latency[name]
        )
        if is_readout and membrane is not None:
            read = read_out(contract.readout, spikes, membrane)
        signals[name] = spikes
    if read is None:
        raise UserError(
            "SNX206", f"the readout {contract.readout.node!r} is not a population", where="contract.readout",
            why="predictions come from it", fix="name a population of the graph",
        )  # fmt: skip
    return layers, *read


def _neurons(
    deployment: Deployment, name: str, drive: NDArray[np.int32], record: frozenset[Record], membrane_needed: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int32] | None, NDArray[np.int32] | None, int]:
    """Run the compiled scan on sums (S, B, *shape); arrays that nobody asked for are not made."""
    population, steps = deployment.populations[name], deployment.contract.steps
    bias = np.ascontiguousarray(deployment.bias(name).reshape(-1))
    flat = drive.reshape(len(drive), -1)
    spikes = np.zeros((steps, flat.shape[1]), bool)
    keep_current, keep_membrane = "current" in record, "membrane" in record or membrane_needed
    currents = np.zeros((steps if keep_current else 0, flat.shape[1]), np.int32)
    membranes = np.zeros((steps if keep_membrane else 0, flat.shape[1]), np.int32)
    overflows = kernels.scan(
        flat, bias, population.du, population.dv, population.threshold << STATE_SHIFT, spikes, currents, membranes
    )
    shape = (steps, *drive.shape[1:])
    return (
        spikes.reshape(shape),
        currents.reshape(shape) if keep_current else None,
        membranes.reshape(shape) if keep_membrane else None,
        int(overflows),
    )


def _join(parts: list[LayerTrace]) -> LayerTrace:
    """One trace of several chunks of samples."""
    if len(parts) == 1:
        return parts[0]

    def along_batch(field: str, axis: int) -> Any:
        values = [getattr(part, field) for part in parts]
        return None if values[0] is None else np.concatenate(values, axis=axis)

    return LayerTrace(
        counts=along_batch("counts", 0),
        spikes=along_batch("spikes", 1),
        membrane=along_batch("membrane", 1),
        current=along_batch("current", 1),
        unit=parts[0].unit,
        overflows=sum(part.overflows or 0 for part in parts),
        latency=parts[0].latency,
    )
