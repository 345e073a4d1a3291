"""Simulated Loihi: integer arithmetic, bit for bit, batched over samples and time.

Neurons run in compiled integer kernels; synaptic sums are added spike by spike where few neurons fire, and are matrix products
and convolutions in torch elsewhere, in float32 or float64 by what is proven exact. A run goes chunk by chunk of samples and
steps, so that a layer's working set stays in the processor's cache and memory does not grow with T or B beyond the input and
what is recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.loihi import rules
from snn_export.hardware_sims.loihi.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.loihi.inputs import InputPart, InputStream
from snn_export.hardware_sims.loihi.memory import Buffers
from snn_export.hardware_sims.loihi.workers import Workers, cores
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record, read_out
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import ReadoutSpec

if TYPE_CHECKING:  # what imports torch is imported when a network is compiled or run
    import torch

    from snn_export.hardware_sims.loihi.device import DeviceRun, TestedDrives
    from snn_export.hardware_sims.loihi.engine import Run
    from snn_export.hardware_sims.loihi.program import Program
    from snn_export.hardware_sims.loihi.recording import LayerRecorder, ReadoutRecorder

CHUNK_BYTES = 64 << 20
"""Memory that a chunk may take in spikes, sums and state: about what a shared cache holds."""

BATCH_AT_ONCE = 16
"""Samples of a chunk, where there are steps enough to fill it."""

Progress = Callable[[int, int], None]


@final
class LoihiSimulator:
    """Integer Loihi. Membranes and currents are int32 in the chip's units (1.0 real = 64 scale).

    Overflows are counted per layer: every wrap of u and every saturation of v.

    Args:
        threads: of the kernels and of torch while it runs; by default all processors this process may use.
        chunk_bytes: memory of a chunk; results do not depend on it.
        layers: names of the populations to record; by default all. Others are run and forgotten.
        progress: called with (sample-steps done, sample-steps in all) after every chunk.
        device: "cpu" for the compiled kernels, or a torch device such as "cuda" for networks without loops and delays.
    """

    name = "loihi"
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES

    def __init__(
        self,
        chunk_bytes: int = CHUNK_BYTES,
        *,
        threads: int | None = None,
        layers: Collection[str] | None = None,
        progress: Progress | None = None,
        device: str = "cpu",
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(
                "SNX325", f"threads = {threads}", where="LoihiSimulator", why="a run needs at least one thread",
                fix="leave threads out for all processors, or give 1 or more",
            )  # fmt: skip
        self._chunk_bytes, self._progress = chunk_bytes, progress
        self._layers = None if layers is None else frozenset(layers)
        self._workers = Workers(1 if device != "cpu" else threads or cores())
        self._buffers: list[Buffers] = []
        self._device: torch.device | None = None
        self._drives: TestedDrives | None = None
        if device != "cpu":
            from snn_export.hardware_sims.loihi.device import TestedDrives, torch_device

            self._device = torch_device(device)
            self._drives = TestedDrives(self._device)

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities("loihi_integer", needs_integers=True, description="Loihi's integer arithmetic, bit for bit, batched")

    def availability(self) -> Availability:
        """Always there: it needs torch and numba only."""
        return Availability(True, versions=_versions())

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """All rules of ``rules.py``."""
        return rules.check(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """Bring neurons and weights into the form the kernels take. Raises UserError with all findings of :meth:`check`."""
        from snn_export.hardware_sims.loihi.program import compile_deployment

        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        program = compile_deployment(deployment)
        if self._device is not None:
            from snn_export.hardware_sims.loihi import device

            refused = device.findings(program, str(self._device))
            if refused:
                raise UserError.from_diagnostics(tuple(refused))
        return program

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape), chunk by chunk; see :class:`Simulator`.

        Raises:
            UserError: those of :func:`snn_export.export.encoding.signal`; SNX005, SNX326 for a layer that does not exist.
        """
        from snn_export.hardware_sims.loihi.recording import LayerRecorder, ReadoutRecorder

        deployment, wanted = program.deployment, check_record(record)
        stream = InputStream(deployment, inputs)
        populations = {population.name: population for population in program.populations}
        names = self._recorded(populations)
        layers = {name: LayerRecorder(deployment, populations[name], stream.samples, wanted) for name in names}
        readout = ReadoutRecorder(deployment, populations[deployment.contract.readout.node], stream.samples)
        host = encoding.host_bias(deployment, inputs) if deployment.host_synapses else {}
        plan = _Plan(program, stream.samples, self._chunk_bytes, self._workers.threads)
        job = _Job(program, stream, wanted, layers, readout, host, plan, self._progress, self._start, self._buffers)
        self._workers.each(plan.samples(), job.work)
        traces = {name: layer.trace() for name, layer in layers.items()}
        values = readout.values()
        ranked = read_out(ReadoutSpec(deployment.contract.readout.node, "membrane_last"), values[None], values[None])
        return Trace(self.name, traces, *ranked, _versions())

    def _start(
        self,
        program: Program,
        inputs: InputPart,
        samples: tuple[int, int],
        wanted: dict[str, frozenset[Record]],
        counted: Collection[str],
        buffers: Buffers,
        host: dict[str, NDArray[np.int64]],
    ) -> Run | DeviceRun:
        if self._device is None or self._drives is None:
            from snn_export.hardware_sims.loihi.engine import Run

            return Run(program, inputs, samples, wanted, counted, buffers, host)
        from snn_export.hardware_sims.loihi.device import DeviceRun

        return DeviceRun(program, inputs, samples, wanted, counted, host, self._drives, self._device)

    def _recorded(self, populations: Collection[str]) -> list[str]:
        if self._layers is not None and not self._layers <= set(populations):
            raise UserError(
                "SNX326", f"there is no layer {sorted(self._layers - set(populations))[0]!r} to record", where="layers",
                why=f"the network's layers are {', '.join(populations)}", fix="name layers of the network",
            )  # fmt: skip
        return [name for name in populations if self._layers is None or name in self._layers]


@cache
def _versions() -> dict[str, str]:
    return {"torch": version("torch"), "numba": version("numba")}


@dataclass(eq=False)
class _Job:
    """One run: what all threads share. Recorders are filled in parts that do not overlap."""

    program: Program
    stream: InputStream
    wanted: frozenset[Record]
    layers: dict[str, LayerRecorder]
    readout: ReadoutRecorder
    host: dict[str, NDArray[np.int64]]
    plan: _Plan
    progress: Progress | None
    start: Callable[..., Run | DeviceRun]
    spare: list[Buffers]
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, tasks: Iterator[slice]) -> None:
        """What one thread does: one chunk of samples after the other, in the same buffers."""
        try:
            buffers = self.spare.pop()
        except IndexError:
            buffers = Buffers()
        for samples in tasks:
            self._run(samples, buffers)
        self.spare.append(buffers)

    def _run(self, samples: slice, buffers: Buffers) -> None:
        node = self.program.deployment.contract.readout.node
        recorded = dict.fromkeys(self.layers, self.wanted)
        recorded[node] = recorded.get(node, frozenset()) | self.readout.record
        host = {name: bias[samples] for name, bias in self.host.items()}
        ends = (samples.start, samples.stop)
        run = self.start(self.program, self.stream.part(*ends), ends, recorded, {*self.layers, node}, buffers, host)
        for steps in self.plan.steps():
            for population, activity in run.advance(steps.start, steps.stop):
                if population.name in self.layers:
                    self.layers[population.name].store(activity, samples, steps)
                if population.name == node:
                    self.readout.store(activity, samples, steps.start == 0)
            self._report((samples.stop - samples.start) * (steps.stop - steps.start))
        with self.lock:
            for recorder in self.layers.values():
                recorder.finish(run.states, samples)
            self.readout.finish(run.states, samples)

    def _report(self, sample_steps: int) -> None:
        if self.progress is not None:
            with self.lock:
                self.done += sample_steps
                self.progress(self.done, self.stream.samples * self.program.deployment.contract.steps)


class _Plan:
    """How a run is cut: chunks of samples for the threads, each in chunks of steps, so that a chunk fits its share of memory."""

    def __init__(self, program: Program, samples: int, budget: int, threads: int) -> None:
        room = max(1, budget // threads // program.bytes_per_step)  # sample-steps
        self._samples, self._steps = samples, program.deployment.contract.steps
        share = -(-samples // threads)
        self._at_once = min(share, max(min(BATCH_AT_ONCE, room), room // self._steps))
        self._in_a_row = max(1, min(self._steps, room // self._at_once))

    def samples(self) -> Iterator[slice]:
        """Chunks of samples."""
        return _cuts(self._samples, self._at_once)

    def steps(self) -> Iterator[slice]:
        """Chunks of steps."""
        return _cuts(self._steps, self._in_a_row)


def _cuts(whole: int, size: int) -> Iterator[slice]:
    return (slice(at, min(whole, at + size)) for at in range(0, whole, size))
