"""The runs behind an attribution: a network under many choices of effects on the same samples, counted chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import effects, encoding, interpreter
from snn_export.export.effects import Forms, Switches
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import SPIKES_ONLY, Trace, read_out

CHUNK_BYTES: Final = 128 << 20
"""Memory that the states and signals of one run over one chunk of samples may take."""
BYTES_PER_POSITION: Final = 48
"""Of a neuron in one step: u, v, the drive and what it is summed from, the signal it sends, and the spikes of three networks."""

Array = NDArray[Any]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a spike differs: step and flat neuron of a layer (by number) in a sample, and what the float network does there."""

    sample: int
    step: int
    layer: int
    neuron: int
    expected: float


@dataclass(eq=False)
class Counts:
    """What the network does under one choice of effects.

    changed: positions, by layer, at which it differs from the float network; changed_on_grid: from the float network as it is
    computed in the units of the grid. first_gone: at the first divergence it does what the float network does.
    """

    changed: Array
    changed_on_grid: Array
    spikes: int = 0
    correct: int = 0
    overflows: int = 0
    first_gone: bool = False


class Runs:
    """Counts by choice of effects, over the same samples.

    Attributes:
        forms: the two ends.
        layers: names of those that are compared.
        none, full: the choices at the two ends.
        counts: what was measured.
        spikes: of the float network.
        remainder: spikes that differ between the full integer network and the integer backend.
    """

    def __init__(
        self,
        forms: Forms,
        inputs: Array,
        labels: Array | None,
        layers: tuple[str, ...],
        ends: tuple[Switches, Switches],
        chunk_bytes: int = CHUNK_BYTES,
        progress: Progress = lambda message: None,
    ) -> None:
        self.forms, self.layers = forms, layers
        self.none, self.full = ends
        self.samples = int(encoding.shaped(forms.integers, inputs).shape[1])
        self.counts: dict[Switches, Counts] = {}
        self.spikes = self.remainder = 0
        self._inputs, self._labels, self._progress = inputs, labels, progress
        self._axis = np.ndim(inputs) - len(forms.integers.input_shape) - 1
        self._first: Place | None = None
        neurons = sum(int(np.prod(forms.integers.shapes[name])) for name in forms.integers.layers)
        self._chunk = max(1, chunk_bytes // (BYTES_PER_POSITION * forms.integers.contract.steps * neurons))

    @property
    def labelled(self) -> bool:
        """Whether accuracy is counted."""
        return self._labels is not None

    def climb(self, choices: Sequence[Switches], trace: Trace | None) -> None:
        """Measure both ends, the choices between them, and the remainder against ``trace``; for None, a run of ``loihi``."""
        between = [choice for choice in dict.fromkeys(choices) if choice not in (self.none, self.full)]
        for start, part, reference in self._parts():
            self.spikes += sum(int(layer.sum()) for layer in reference)
            on_grid = self._run(self.none, part, start, reference, None)
            full = self._run(self.full, part, start, reference, on_grid)
            for number, choice in enumerate(between, 1):
                self._progress(f"attribution: run {number} of {len(between)}, samples from {start}")
                self._run(choice, part, start, reference, on_grid)
            self.remainder += self._unexplained(full, part, start, trace)

    def spare(self, choices: Sequence[Switches]) -> None:
        """Measure more choices against the float network; their ``changed_on_grid`` stays 0."""
        for start, part, reference in self._parts():
            for number, choice in enumerate(choices, 1):
                self._progress(f"attribution: further run {number} of {len(choices)}, samples from {start}")
                self._run(choice, part, start, reference, None)

    def _parts(self) -> Iterator[tuple[int, Array, list[Array]]]:
        """Chunks of samples, each with its first sample's number and the float network's spikes by layer, (T, B, neurons)."""
        for start in range(0, self.samples, self._chunk):
            part = np.take(self._inputs, range(start, min(self.samples, start + self._chunk)), axis=self._axis)
            yield start, part, self._sent(interpreter.run(self.forms.floats, part))

    def _sent(self, found: Mapping[str, interpreter.Activity]) -> list[Array]:
        sent = (found[name].sent for name in self.layers)
        return [layer.reshape(*layer.shape[:2], -1) for layer in sent]

    def _run(self, choice: Switches, part: Array, start: int, reference: list[Array], on_grid: list[Array] | None) -> list[Array]:
        """Run a choice on a chunk, add to its counts, and return its spikes by layer."""
        found = effects.run(self.forms, self.forms.encoded(part), choice)
        sent = self._sent(found)
        nothing = np.zeros(len(self.layers), np.int64)
        counts = self.counts.setdefault(choice, Counts(nothing, nothing))
        counts.changed = counts.changed + _changed(reference, sent)
        counts.changed_on_grid = counts.changed_on_grid + (nothing if on_grid is None else _changed(on_grid, sent))
        counts.spikes += sum(int(layer.sum()) for layer in sent)
        counts.overflows += sum(layer.overflows for layer in found.values())
        if self._labels is not None:
            rule = self.forms.integers.contract.readout
            last = found[rule.node]
            truth = self._labels[start : start + part.shape[self._axis]]
            counts.correct += int(np.count_nonzero(read_out(rule, last.sent, last.membrane)[1] == truth))
        if self._first is None and choice == self.full:
            self._first = first_difference(reference, sent, start)
        self._look_at_first(counts, sent, start)
        return sent

    def _look_at_first(self, counts: Counts, sent: list[Array], start: int) -> None:
        place = self._first
        if place is not None and start <= place.sample < start + sent[0].shape[1]:
            there = sent[place.layer][place.step, place.sample - start, place.neuron]
            counts.first_gone = float(there) == place.expected

    def _unexplained(self, full: list[Array], part: Array, start: int, trace: Trace | None) -> int:
        """Spikes of a chunk that differ between all effects together and an integer backend."""
        if trace is None:
            backend = simulator("loihi")
            trace, start = backend.run(backend.compile(self.forms.integers), part, SPIKES_ONLY), 0
        count, differing = part.shape[self._axis], 0
        for name, expected in zip(self.layers, full, strict=True):
            spikes = trace.layers[name].sent if name in trace.layers else None
            if spikes is not None:
                got = spikes[:, start : start + count].reshape(len(spikes), -1, expected.shape[2])
                differing += int(np.count_nonzero(got != expected[:, : got.shape[1]]))
        return differing


def _changed(reference: list[Array], sent: list[Array]) -> Array:
    """Positions that differ, by layer."""
    return np.array([np.count_nonzero(one != other) for one, other in zip(reference, sent, strict=True)], np.int64)


def first_difference(reference: list[Array], sent: list[Array], start: int) -> Place | None:
    """The first difference: lowest sample, then earliest step, then first layer, then lowest neuron; layers (T, B, neurons)."""
    found = []
    for layer, (one, other) in enumerate(zip(reference, sent, strict=True)):
        differs = np.argwhere((one != other).transpose(1, 0, 2))
        if len(differs):
            sample, step, neuron = (int(n) for n in differs[0])
            found.append(Place(sample + start, step, layer, neuron, float(one[step, sample, neuron])))
    return min(found, key=lambda place: (place.sample, place.step, place.layer, place.neuron), default=None)
