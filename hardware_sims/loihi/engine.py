"""Runs a program on a batch of samples, one chunk of steps after the other; state is carried between chunks.

Layer by layer, all steps of a chunk at once: in a network without loops that is the same as step by step. Populations that
hear each other are stepped together. Every wire adds its synaptic sums in the way that is cheaper:

- spikes, by event: each spike adds its row of weights. A population with one such wire and no delay does it inside its own
  time loop, and its sums are never written to memory;
- as a dense product, where more than ``DENSE_ABOVE`` of the source fires or the input is graded. A constant input is
  multiplied once, not once per step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snn_export.hardware_sims.loihi import kernels
from snn_export.hardware_sims.loihi.fan_out import FanOut, Uniform
from snn_export.hardware_sims.loihi.inputs import InputPart
from snn_export.hardware_sims.loihi.memory import Buffers
from snn_export.hardware_sims.loihi.program import Population, Program, Stage, Synapses
from snn_export.hardware_sims.trace import Record

DENSE_ABOVE = 0.25
"""Part of a source's neurons that fire in a step from which a dense product is faster than adding row after row."""

DENSE_ROWS = 32
"""Sample-steps below which a dense product is not worth its call."""

_SAMPLE = 1 << 16
_COUNT = np.dtype(np.int32)
_BYTE = np.dtype(np.uint8)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Signal:
    """What a source sends in a chunk: spikes as flat (T, B, N) bytes, or levels (S, B, N)."""

    values: Array
    spikes: bool

    @property
    def density(self) -> float:
        """Part of the bytes that are spikes, from a sample of rows spread over the chunk."""
        flat = self.values
        if flat.size <= _SAMPLE:
            return np.count_nonzero(flat) / max(flat.size, 1)
        gap, size = flat.size // 8, _SAMPLE // 8
        return sum(int(np.count_nonzero(flat[at : at + size])) for at in range(0, 8 * gap, gap)) / _SAMPLE


@dataclass(eq=False)
class Activity:
    """What one population did in a chunk, flat and in stored order: (T, B, N); empty arrays for what was not wanted."""

    fired: NDArray[np.uint8]
    current: Array
    membrane: Array


@dataclass(eq=False)
class State:
    """What a population carries from chunk to chunk: u, v, spike counts (B, N), overflows, biases."""

    u: Array
    v: Array
    counts: NDArray[np.int32]
    bias: Array
    overflows: int = 0


@dataclass(frozen=True, eq=False)
class _Joint:
    """The state of a stage in one piece, by the name of its first population; see ``kernels.advance_together``."""

    begins: NDArray[np.int64]
    registers: Array
    u: Array
    v: Array
    counts: NDArray[np.int32]
    bias: Array
    bias_rows: NDArray[np.int64]


@dataclass(eq=False)
class _Line:
    """A delay line: the last ``most`` steps of a signal (T, B, N)."""

    delays: NDArray[np.int64]
    tail: Array

    def push(self, signal: Array) -> Array:
        """The signal of a chunk, each feature later by its delay; zeros before the first step."""
        most, steps = len(self.tail), len(signal)
        whole = np.concatenate([self.tail, signal])
        result = np.empty_like(signal)
        for delay in np.unique(self.delays):
            chosen = self.delays == delay
            result[..., chosen] = whole[most - delay : most - delay + steps][..., chosen]
        self.tail = whole[len(whole) - most :]
        return result


@dataclass(eq=False)
class Run:
    """One batch of samples on its way through a program.

    Args:
        program: what to run.
        inputs: of these samples.
        samples: first and last + 1 of this batch.
        wanted: what to record, by population name.
        counted: populations whose spikes are counted.
        buffers: memory of the chunk before.
        host: biases per sample, (B, *features), of populations that have such.
    """

    program: Program
    inputs: InputPart
    samples: tuple[int, int]
    wanted: dict[str, frozenset[Record]]
    counted: Collection[str]
    buffers: Buffers
    host: dict[str, Array] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    _signals: dict[str, Signal] = field(default_factory=dict)
    _constant: dict[int, Array] = field(default_factory=dict)
    _lines: dict[int, tuple[_Line | None, _Line | None]] = field(default_factory=dict)
    _late: dict[str, Array] = field(default_factory=dict)
    _joint: dict[str, _Joint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for stage in self.program.stages:
            self._prepare(stage)

    def _prepare(self, stage: Stage) -> None:
        """Zero state of a stage: arrays of all its populations in one piece, and views of each."""
        populations, key, number = stage.populations, stage.populations[0].name, stage.populations[0].number
        sizes = [self.batch * population.size for population in populations]
        counted = stage.recurrent or key in self.counted
        u, v = (self.buffers.zeros((key, name), sum(sizes), number) for name in ("u", "v"))
        counts = self.buffers.zeros((key, "counts"), sum(sizes) if counted else 0, _COUNT)
        if not stage.recurrent:
            self.states[key] = State(u, v, counts, self._bias(populations[0]))
            return
        biases, begins = [self._bias(population) for population in populations], _begins(sizes)
        rows = np.array([len(bias) // p.size for bias, p in zip(biases, populations, strict=True)], np.int64)
        registers = np.stack([population.registers for population in populations])
        registers[:, kernels.MODE] = np.maximum(registers[:, kernels.MODE], kernels.MODE_ZERO)
        self._joint[key] = _Joint(begins, registers, u, v, counts, np.concatenate(biases), rows)
        for index, population in enumerate(populations):
            part = slice(begins[index], begins[index] + sizes[index])
            self.states[population.name] = State(u[part], v[part], counts[part], biases[index])

    def _bias(self, population: Population) -> Array:
        """(N,), or (B, N) flat where the host adds what depends on the sample."""
        bias = population.bias if len(population.bias) else np.zeros(population.size, population.number)
        if not population.host:
            return bias
        on_host = self.host[population.name].reshape(self.batch, population.size)[:, population.order]
        return np.asarray(bias + on_host, population.number).reshape(-1)

    @property
    def batch(self) -> int:
        """Samples in this batch."""
        return self.samples[1] - self.samples[0]

    def advance(self, start: int, stop: int) -> Iterator[tuple[Population, Activity]]:
        """Run steps start..stop; gives what each population did, sources first, good until the next chunk."""
        given = self.inputs
        if given.constant and start > 0:
            signal = self._signals[self.program.source]
        else:
            signal = Signal(given.chunk(start, stop), given.spikes)
        self._signals = {self.program.source: signal}
        for stage in self.program.stages:
            run = self._together if stage.recurrent else self._alone
            for population, activity in run(stage, start, stop - start):
                self._signals[population.name] = Signal(activity.fired, True)
                yield population, activity

    # --- one population without a loop ---------------------------------------------------------------------------

    def _alone(self, stage: Stage, start: int, steps: int) -> list[tuple[Population, Activity]]:
        population, wires = stage.populations[0], stage.outer[0]
        events, even, signal, drive, drive_steps = _NO_EVENTS, _NOT_EVEN, _NOTHING, _NO_DRIVE, 0
        sources = 0
        if len(wires) == 1 and self._by_event(wires[0], steps) and not wires[0].delayed:
            events, even, signal = wires[0].events, wires[0].uniform, self._signals[wires[0].source].values
            sources = len(events.first) - 1
        elif len(wires) == 1 and not self._by_event(wires[0], steps):
            drive = self._product(wires[0], id(wires[0]), steps)
            drive_steps, drive = len(drive), drive.reshape(-1)
        elif wires:
            drive, drive_steps = self._gathered(population, wires, steps, 0), steps
        activity, state = self._blank((population,), steps), self.states[population.name]
        registers, bias = population.registers, state.bias
        if registers[kernels.MODE] == kernels.MODE_FAST:
            if activity.current.size:
                registers = registers.copy()
                registers[kernels.MODE] = kernels.MODE_ZERO
            else:
                bias = population.bias
        state.overflows += int(
            kernels.advance(
                signal, sources, events.first, even.places if even.rows else events.runs,
                even.weights if even.rows else events.weights, even.rows, even.lanes, drive, drive_steps,
                population.constant, bias, len(bias) // population.size, state.u, state.v, registers, activity.fired,
                activity.current, activity.membrane, state.counts, self.batch, steps, start,
            )
        )  # fmt: skip
        return [(population, activity)]

    def _blank(self, populations: tuple[Population, ...], steps: int) -> Activity:
        """Arrays for what populations do in a chunk, one after the other; what nobody wants is empty."""
        size, number = steps * self.batch * sum(p.size for p in populations), populations[0].number
        wanted = {what for p in populations for what in self.wanted.get(p.name, ())}
        key = populations[0].name
        return Activity(
            self.buffers.take((key, "fired"), size, _BYTE),
            self.buffers.take((key, "current"), size if "current" in wanted else 0, number),
            self.buffers.take((key, "membrane"), size if "membrane" in wanted else 0, number),
        )

    # --- synaptic sums -------------------------------------------------------------------------------------------

    def _by_event(self, wire: Synapses, steps: int) -> bool:
        """True where adding row after row is the way: always for delayed spikes, never for levels."""
        signal = self._signals[wire.source]
        if not signal.spikes:
            return False
        return wire.delayed or steps * self.batch < DENSE_ROWS or signal.density < DENSE_ABOVE

    def _product(self, wire: Synapses, key: int, steps: int) -> Array:
        """Dense sums (S, B, N) of one wire, S = 1 where they are the same in every step."""
        signal = self._signals[wire.source]
        if key in self._constant:
            return self._constant[key]
        values = signal.values.reshape(-1, self.batch, len(wire.ends.source_order))
        if wire.delayed:
            return self._delayed_product(wire, key, np.broadcast_to(values, (steps, *values.shape[1:])))
        result = _dense(wire, values)
        if not signal.spikes and self.inputs.constant:
            self._constant[key] = result
        return result

    def _delayed_product(self, wire: Synapses, key: int, values: Array) -> Array:
        """Levels that arrive later: only an input that is no spike train comes here."""
        ends = wire.ends
        if key not in self._lines:
            before = _line(ends.before, ends.before_shape, ends.source_order, values)
            drive_like = np.zeros((1, self.batch, len(ends.target_order)), np.float64)
            self._lines[key] = before, _line(ends.after, ends.after_shape, ends.target_order, drive_like)
        before, after = self._lines[key]
        product = _dense(wire, values if before is None else before.push(values))
        return product if after is None else after.push(product.astype(np.float64))

    def _gathered(self, population: Population, wires: Collection[Synapses], steps: int, reach: int) -> Array:
        """Integer sums of several or delayed wires, flat (T + D, B, N); D >= ``reach`` is the longest delay."""
        late = self._late.get(population.name)
        reach = max([reach, *(w.events.longest_delay for w in wires if self._by_event(w, steps))])
        if late is not None:
            reach = max(reach, len(late))
        sums = np.zeros((steps + reach, self.batch, population.size), population.number)
        if late is not None:
            overlap = min(len(late), len(sums))
            sums[:overlap] = late[:overlap]
        flat = sums.reshape(-1)
        for wire in wires:
            if not self._by_event(wire, steps):
                sums[:steps] += self._product(wire, id(wire), steps).astype(population.number)
                continue
            table, spikes = wire.events, self._signals[wire.source].values
            kernels.deliver(
                spikes, len(table.first) - 1, table.first, table.runs, table.delays, table.weights, flat,
                population.size, self.batch, steps,
            )  # fmt: skip
        self._late[population.name] = sums[steps:]
        return flat

    # --- populations that hear each other ------------------------------------------------------------------------

    def _together(self, stage: Stage, start: int, steps: int) -> list[tuple[Population, Activity]]:
        populations, inner, joint = stage.populations, stage.inside, self._joint[stage.populations[0].name]
        reach = inner.table.longest_delay
        drives = [self._gathered(p, wires, steps, reach) for p, wires in zip(populations, stage.outer, strict=True)]
        for population, flat in zip(populations, drives, strict=True):
            if len(population.constant):
                flat.reshape(-1, population.size)[: steps * self.batch] += population.constant
        drive, drive_at = drives[0] if len(drives) == 1 else np.concatenate(drives), _begins([len(d) for d in drives])
        sizes = np.array([p.size for p in populations], np.int64)
        fired_at, source_at = _begins([steps * self.batch * p.size for p in populations]), _begins(sizes)
        activity = self._blank(populations, steps)

        overflows = np.zeros(len(populations), np.int64)
        kernels.advance_together(
            sizes, drive_at, joint.begins, fired_at, source_at, joint.registers, drive, joint.bias, joint.bias_rows,
            joint.u, joint.v, inner.table.first, inner.table.runs, inner.table.delays, inner.targets,
            inner.table.weights, activity.fired, activity.current, activity.membrane, joint.counts, overflows,
            self.batch, steps, start,
        )  # fmt: skip
        found = []
        for index, population in enumerate(populations):
            self.states[population.name].overflows += int(overflows[index])
            whole = drive[drive_at[index] :][: len(drives[index])].reshape(-1, self.batch, population.size)
            self._late[population.name] = whole[steps:]
            part = slice(fired_at[index], fired_at[index] + steps * self.batch * population.size)
            found.append((population, Activity(activity.fired[part], activity.current[part], activity.membrane[part])))
        return found


_NOTHING = np.zeros(0, np.uint8)
_NO_DRIVE = np.zeros(0, np.float32)
_NO_EVENTS = FanOut(np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros(0, np.int32), 0)

_NOT_EVEN = Uniform(np.zeros(0, np.int32), 0, 0, np.zeros(0, np.int16))


def _begins(sizes: Any) -> NDArray[np.int64]:
    """Where each of several parts begins that lie one after the other."""
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _dense(wire: Synapses, values: Array) -> Array:
    """Sums (S, B, N) of signals (S, B, sources)."""
    steps, batch = values.shape[:2]
    if not values.flags.writeable:  # a read-only input; torch has no such tensors
        values = values.copy()
    with torch.inference_mode():
        out = wire.dense(torch.from_numpy(np.ascontiguousarray(values).reshape(steps * batch, -1)))
    return out.numpy().reshape(steps, batch, -1)


def _line(delays: Any, shape: tuple[int, ...], order: Array, like: Array) -> _Line | None:
    """A delay line for features in stored order, None where nothing waits; ``like``: (S, B, N), for its size and dtype."""
    steps = np.broadcast_to(np.asarray(delays, np.int64), shape).reshape(-1)[order]
    return _Line(steps, np.zeros((int(steps.max()), *like.shape[1:]), like.dtype)) if np.any(steps) else None
