"""The same run on a torch device: products on the GPU, neurons by the equations of ``models/arithmetic.py`` on tensors.

Floating point is as exact on a GPU as on a CPU while partial sums stay in range, provided that nothing is rounded on the way:
TF32, which keeps 10 bits, and algorithms that transform their input (Winograd, FFT) are not exact. TF32 is switched off,
cudnn is made deterministic, and every weight layer is compared with the CPU's float64 product before its first use; one that
differs in float32 runs in float64, and one that differs there too is refused.

Networks without loops and without delays; others run on the CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snn_export.hardware_sims.loihi.drives import DenseDrive
from snn_export.hardware_sims.loihi.engine import Activity, State
from snn_export.hardware_sims.loihi.inputs import InputPart
from snn_export.hardware_sims.loihi.kernels import MODE_SUBTRACT
from snn_export.hardware_sims.loihi.program import Population, Program, Synapses
from snn_export.hardware_sims.trace import Record
from snn_export.models import arithmetic
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]


def findings(program: Program, device: str) -> list[Diagnostic]:
    """What of a program does not run on a device."""
    found = []
    for stage in program.stages:
        wires = [wire for incoming in stage.outer for wire in incoming]
        if stage.recurrent or any(wire.delayed for wire in wires):
            found.append(
                Diagnostic(
                    "SNX331",
                    f"{stage.populations[0].name} " + ("is part of a loop" if stage.recurrent else "hears spikes that wait"),
                    where=stage.populations[0].name,
                    why=f"on {device} whole layers run over all their steps; loops and delays are stepped on the CPU only",
                    fix='run it with device="cpu"',
                )
            )
    return found


def torch_device(name: str) -> torch.device:
    """The device of a name. Raises SNX329 where it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _missing(name, "torch knows no device of this name") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise _missing(name, "torch finds no GPU, or is built without CUDA")
    return device


def _missing(name: str, why: str) -> UserError:
    return UserError(
        "SNX329", f"the device {name!r} is not there", where="LoihiSimulator(device=...)", why=why,
        fix='leave device out to run on the CPU, with the same bits, or install a CUDA build of torch on a machine with a GPU',
    )  # fmt: skip


class TestedDrives:
    """Dense products on a device, each compared with the CPU's in float64 before its first use."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._found: dict[tuple[int, int], tuple[Synapses, DenseDrive]] = {}

    def of(self, wire: Synapses, rows: int) -> DenseDrive:
        """The product of a wire for a number of rows: a GPU chooses its algorithm by both.

        Raises:
            UserError: SNX330 where neither float32 nor float64 gives it exactly.
        """
        key = id(wire), rows
        if key not in self._found:
            self._found[key] = wire, self._tested(wire, rows)
        return self._found[key][1]

    def _tested(self, wire: Synapses, rows: int) -> DenseDrive:
        inputs = np.random.default_rng(0).integers(-wire.largest, wire.largest + 1, (rows, len(wire.ends.source_order)))
        inputs[0] = wire.largest
        x = torch.from_numpy(inputs)
        wanted = wire.dense.in_float64()(x)
        for drive in (wire.dense, wire.dense.in_float64()):
            moved = drive.to(self._device)
            if torch.equal(moved(x.to(self._device)).cpu().double(), wanted):
                return moved
        raise UserError(
            "SNX330", f"{self._device} does not compute the product behind {wire.source} exactly", where=wire.source,
            why="it differs from the CPU's in float32 and in float64", fix='run with device="cpu"',
        )  # fmt: skip


@contextmanager
def exact_products() -> Iterator[None]:
    """TF32 off, cudnn deterministic and without trying algorithms out, for the time of a run."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@dataclass(eq=False)
class DeviceRun:
    """One batch of samples on its way through a program on a device; as :class:`snn_export.hardware_sims.loihi.engine.Run`."""

    program: Program
    inputs: InputPart
    samples: tuple[int, int]
    wanted: dict[str, frozenset[Record]]
    counted: Collection[str]
    host: dict[str, Array]
    drives: TestedDrives
    device: torch.device
    states: dict[str, State] = field(default_factory=dict)
    _membranes: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        batch = self.samples[1] - self.samples[0]
        for population in self.program.populations:
            zeros = torch.zeros((batch, population.size), dtype=torch.int64, device=self.device)
            self._membranes[population.name] = zeros, zeros.clone()
            counts = np.zeros(batch * population.size if population.name in self.counted else 0, np.int32)
            self.states[population.name] = State(np.zeros(0), np.zeros(0), counts, np.zeros(0))

    def advance(self, start: int, stop: int) -> Iterator[tuple[Population, Activity]]:
        """Run steps start..stop; gives what each population did, sources first."""
        batch = self.samples[1] - self.samples[0]
        given = torch.from_numpy(np.array(self.inputs.chunk(start, stop))).to(self.device)
        signals = {
            self.program.source: given.reshape(-1, batch, given.numel() // max(1, _steps(self.inputs, start, stop) * batch))
        }
        with exact_products(), torch.inference_mode():
            for stage in self.program.stages:
                population = stage.populations[0]
                sums = self._sums(population, stage.outer[0], signals, batch)
                activity, fired = self._neurons(population, sums, start, stop)
                signals[population.name] = fired
                yield population, activity

    def _sums(
        self, population: Population, wires: tuple[Synapses, ...], signals: dict[str, torch.Tensor], batch: int
    ) -> torch.Tensor:
        """Integer sums (S, B, N), S = 1 where they are the same in every step."""
        total = torch.zeros((1, batch, population.size), dtype=torch.int64, device=self.device)
        if len(population.constant):
            total += torch.from_numpy(np.array(population.constant, np.int64)).to(self.device)
        for wire in wires:
            x = signals[wire.source]
            rows = x.reshape(-1, x.shape[-1])
            product = self.drives.of(wire, len(rows))(rows).to(torch.int64)
            total = total + product.reshape(len(x), batch, -1)
        return total

    def _neurons(self, population: Population, sums: torch.Tensor, start: int, stop: int) -> tuple[Activity, torch.Tensor]:
        du, dv, threshold, mode, interval, offset = (int(value) for value in population.registers)
        step = arithmetic.loihi_step_subtract if mode == MODE_SUBTRACT else arithmetic.loihi_step
        state, wanted = self.states[population.name], self.wanted.get(population.name, frozenset())
        bias = self._bias(population)
        u, v = self._membranes[population.name]
        fired: list[torch.Tensor] = []
        kept: dict[str, list[torch.Tensor]] = {"current": [], "membrane": []}
        overflows = torch.zeros((), dtype=torch.int64, device=self.device)
        for t in range(start, stop):
            if interval > 0 and t % interval == offset:
                u, v = torch.zeros_like(u), torch.zeros_like(v)
            u, v, spikes, wrapped, clipped = step(u, v, sums[min(t - start, len(sums) - 1)], bias, du, dv, threshold)
            overflows += wrapped.sum() + clipped.sum()
            fired.append(spikes)
            for name, value in (("current", u), ("membrane", v)):
                if name in wanted:
                    kept[name].append(value)
        self._membranes[population.name] = u, v
        state.overflows += int(overflows)
        state.v = v.cpu().numpy().reshape(-1)
        spikes = torch.stack(fired).to(torch.uint8)
        if len(state.counts):
            state.counts += spikes.sum(0, dtype=torch.int32).cpu().numpy().reshape(-1)
        arrays = {name: torch.stack(found).cpu().numpy().reshape(-1) if found else _NONE for name, found in kept.items()}
        return Activity(spikes.cpu().numpy().reshape(-1), arrays["current"], arrays["membrane"]), spikes

    def _bias(self, population: Population) -> torch.Tensor:
        bias = np.array(population.bias if len(population.bias) else 0, np.int64)
        if population.host:
            bias = bias + self.host[population.name].reshape(-1, population.size)[:, population.order]
        return torch.from_numpy(np.asarray(bias, np.int64)).to(self.device)


_NONE = np.zeros(0, np.int64)


def _steps(inputs: InputPart, start: int, stop: int) -> int:
    return 1 if inputs.constant else stop - start
