"""Operations step by step, and what the readout says after every step: what it takes to stop early.

Two ways to count what was carried out when the readout has taken k steps:

sequential   every layer has taken k steps of its own: what a machine has to do that works off one layer after the other
on a chip    all layers work at once, and the readout is ``latency(readout) - latency(layer)`` steps behind a layer, so that this
             one has taken as many steps more, T at most. Every neuron is updated in every step of the chip: before an inference
             reaches its layer, and after the inference has left it, those updates are idle

Everything is summed over samples as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.counts import Counter
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.spec import ReadoutRule
from snn_export.reporting.energy_records import StepOperations

Grid = NDArray[np.int64]
OPERATIONS = (
    "spike_operations", "effective_spike_operations", "axon_operations", "input_operations", "effective_input_operations",
    "spikes", "messages", "readout_spikes", "input_messages",
)  # fmt: skip
"""What is counted per step, in this order; names as in :class:`snn_export.reporting.energy_records.StepOperations`, all layers
together. Behind them stand the messages of each layer."""
_COLUMN = {name: number for number, name in enumerate(OPERATIONS)}


@dataclass(frozen=True, eq=False)
class Answers:
    """What a readout says after every step.

    Attributes:
        classes: (T, N), the class it ranks first, ties to the lowest; of the smallest type that holds it.
        margins: (T, N), by how much that one leads the second, in the readout's own units; 0 where there is one class only.
    """

    classes: NDArray[Any]
    margins: NDArray[np.float64]

    def stops(self, threshold: float) -> NDArray[np.int64]:
        """(N,): index of the first step after which the lead reaches the threshold; the last step where none does."""
        sure = self.margins >= threshold
        sure[-1] = True
        first: NDArray[np.int64] = sure.argmax(axis=0).astype(np.int64)
        return first


@dataclass(frozen=True, eq=False)
class StepTotals:
    """Sums over samples; nothing grows with their number.

    Attributes:
        by_step: (T, operations), on a chip: what each further step of the readout adds; in the order of :data:`OPERATIONS`.
        updates: (T, 2), the same of one sample's neuron updates: of steps that layers take, and idle ones.
        neurons: of all layers.
        samples: N.
        correct: (T,), samples that are right if the readout stops after that step; None without labels.
        until_exit: (2, operations), before each sample's early exit: sequential, and on a chip; None without a threshold.
        exits: (T,), samples whose early exit comes after that step; zeros without a threshold.
        exit_correct: of those that exit, how many are right; None without labels or threshold.
    """

    by_step: Grid
    updates: Grid
    neurons: int
    samples: int
    correct: Grid | None
    until_exit: Grid | None
    exits: Grid
    exit_correct: int | None

    def merge(self, other: StepTotals) -> StepTotals:
        """With the sums over other samples."""
        return StepTotals(
            self.by_step + other.by_step,
            self.updates,
            self.neurons,
            self.samples + other.samples,
            None if self.correct is None or other.correct is None else self.correct + other.correct,
            None if self.until_exit is None or other.until_exit is None else self.until_exit + other.until_exit,
            self.exits + other.exits,
            None if self.exit_correct is None or other.exit_correct is None else self.exit_correct + other.exit_correct,
        )

    def records(self) -> tuple[StepOperations, ...]:
        """What each further step of the readout adds on a chip."""
        correct = [None] * len(self.by_step) if self.correct is None else [int(number) for number in self.correct]
        return tuple(
            _record(sums, updates * self.samples, right)
            for sums, updates, right in zip(self.by_step, self.updates, correct, strict=True)
        )

    def exit_records(self) -> tuple[StepOperations, StepOperations] | None:
        """What was carried out before the early exits: sequential, and on a chip; None where no threshold was given."""
        if self.until_exit is None:
            return None
        sequential, on_chip = self.until_exit
        taken = int((self.exits * np.arange(1, len(self.exits) + 1)).sum())
        updates: Grid = self.exits @ self.updates.cumsum(axis=0)
        return (
            _record(sequential, np.array([self.neurons * taken, 0]), self.exit_correct),
            _record(on_chip, updates, self.exit_correct),
        )


def _record(sums: Grid, updates: Grid, correct: int | None) -> StepOperations:
    named = {name: int(sums[column]) for name, column in _COLUMN.items()}
    each = tuple(int(number) for number in sums[len(OPERATIONS) :])
    return StepOperations(**named, layer_messages=each, updates=int(updates[0]), idle_updates=int(updates[1]), correct=correct)


class StepCounter:
    """Counts the steps of one deployment's runs. Fan-outs are those of ``counter``.

    Args:
        counter: of the deployment.
        threshold: lead of the readout at which an inference stops; None: none does.
    """

    def __init__(self, counter: Counter, threshold: float | None = None) -> None:
        self._counter, self._threshold = counter, threshold
        self._outgoing = {name: _columns(*fans) for name, fans in counter.outgoing().items()}
        self._senders = {name: counter.senders(name).reshape(-1) for name in counter.deployment.layers}

    def count(self, trace: Trace, inputs: NDArray[Any], labels: NDArray[np.int64] | None = None) -> StepTotals | None:
        """Operations of a run; None where a layer's spikes, or what the readout ranks, were not recorded.

        Args:
            trace: what ran, of the deployment that is counted; :meth:`Counter.count` checks that it is.
            inputs: what it ran on, as for :meth:`Counter.count`.
            labels: (N,), to tell how many samples are right after each step.
        """
        deployment = self._counter.deployment
        answers = answers_of(deployment.contract.readout.rule, trace.layers[deployment.contract.readout.node])
        if answers is None or any(trace.layers[name].sent is None for name in deployment.layers):
            return None
        steps, samples = answers.margins.shape
        grids = self._grids(trace, inputs, steps, samples)
        right = None if labels is None else answers.classes == labels
        until, exits, exit_right = None, np.zeros(steps, np.int64), None
        if self._threshold is not None:
            last = answers.stops(self._threshold)
            carried_out = np.arange(steps)[:, None] <= last
            until = np.stack([grid[carried_out].sum(axis=0) for grid in grids])
            exits = np.bincount(last, minlength=steps)
            exit_right = None if right is None else int(np.take_along_axis(right, last[None], axis=0).sum())
        return StepTotals(
            by_step=grids[1].sum(axis=1),
            updates=self._updates(steps),
            neurons=sum(map(len, self._senders.values())),
            samples=samples,
            correct=None if right is None else right.sum(axis=1, dtype=np.int64),
            until_exit=until,
            exits=exits,
            exit_correct=exit_right,
        )

    def _seen(self, name: str, steps: int) -> NDArray[np.int64]:
        """(T,): of each step of a population, or of the input, the step of the readout (from 0) before whose end it is done."""
        latency, readout = self._counter.deployment.contract.latency, self._counter.deployment.contract.readout.node
        ahead = latency[readout] - latency.get(name, 0)
        return np.clip(np.arange(steps) - ahead, 0, steps - 1)

    def _updates(self, steps: int) -> Grid:
        """(T, 2): what each further step of the readout adds to a sample's updates: in steps that layers take, and idle ones."""
        contract = self._counter.deployment.contract
        chip_steps = np.arange(1, steps + 1) + contract.latency[contract.readout.node]
        chip_steps[-1] = steps + max(contract.latency.values())
        whole, own = np.diff(chip_steps, prepend=0), np.zeros(steps, np.int64)
        for name, sends in self._senders.items():
            own += len(sends) * np.bincount(self._seen(name, steps), minlength=steps)
        return np.stack([own, whole * sum(map(len, self._senders.values())) - own], axis=1)

    def _grids(self, trace: Trace, inputs: NDArray[Any], steps: int, samples: int) -> tuple[Grid, Grid]:
        """(T, N, operations) each: in a layer's own steps, and in the step of the readout before whose end it is done."""
        layers, column = self._counter.deployment.layers, _COLUMN
        found = [np.zeros((steps, samples, len(OPERATIONS) + len(layers))) for _ in range(2)]
        (source,) = set(self._outgoing) - set(layers)
        sent = self._counter.sent(inputs)
        own = np.zeros(found[0].shape)
        own[..., column["input_operations"] : column["effective_input_operations"] + 1] = np.stack(
            [row @ self._outgoing[source] for row in _rows(sent, samples)]
        )
        own[..., column["input_messages"]] = self._counter.input_messages(sent)
        self._add(found, own, source)
        for number, name in enumerate(layers):
            own = np.zeros(found[0].shape)
            own[..., column["axon_operations"]] = self._counter.always_on(name)
            for step, fired in enumerate(_rows(np.asarray(trace.layers[name].sent), samples)):
                own[step, :, 0:2] = fired @ self._outgoing[name]
                own[step, :, column["spikes"]] = fired.sum(axis=1)
                own[step, :, len(OPERATIONS) + number] = fired[:, self._senders[name]].sum(axis=1)
            own[..., column["messages"]] = own[..., len(OPERATIONS) + number]
            if name == self._counter.deployment.contract.readout.node:
                own[..., column["readout_spikes"]] = own[..., column["spikes"]]
            self._add(found, own, name)
        one, other = (np.rint(grid).astype(np.int64) for grid in found)
        return one, other

    def _add(self, found: Sequence[NDArray[np.float64]], own: NDArray[np.float64], name: str) -> None:
        found[0][:] += own
        np.add.at(found[1], self._seen(name, len(own)), own)


def _columns(structural: NDArray[np.int64], effective: NDArray[np.int64]) -> NDArray[np.float64]:
    """(neurons, 2). Sums of products with spikes are exact in float64: they stay far below 2^53."""
    return np.stack([structural.reshape(-1), effective.reshape(-1)], axis=1).astype(np.float64)


def _rows(signal: NDArray[Any], samples: int) -> Iterable[NDArray[np.float64]]:
    """(T, N, *features) step by step as float64 matrices (N, features)."""
    return (step.reshape(samples, -1).astype(np.float64) for step in signal)


def answers_of(rule: ReadoutRule, layer: LayerTrace) -> Answers | None:
    """What a readout says after every step of a run; None where what it ranks was not recorded."""
    values = ranked(rule, layer)
    if values is None:
        return None
    classes = values.argmax(axis=2).astype(np.min_scalar_type(values.shape[2]))
    if values.shape[2] < 2:
        return Answers(classes, np.zeros(classes.shape))
    best = np.partition(values, -2, axis=2)
    return Answers(classes, best[..., -1] - best[..., -2])


def ranked(rule: ReadoutRule, layer: LayerTrace) -> NDArray[np.float64] | None:
    """What the readout rule ranks if it stops after each step, (T, N, classes); None where it was not recorded."""
    recorded = layer.sent if rule == "spike_count" else layer.membrane
    if recorded is None:
        return None
    values = np.asarray(recorded, np.float64).reshape(*recorded.shape[:2], -1)
    steps = np.arange(1, len(values) + 1)[:, None, None]
    rules: dict[ReadoutRule, Callable[[], NDArray[np.float64]]] = {
        "membrane_last": lambda: values,
        "membrane_mean": lambda: values.cumsum(axis=0) / steps,
        "membrane_max": lambda: np.maximum.accumulate(values, axis=0),
        "spike_count": lambda: values.cumsum(axis=0),
    }
    return rules[rule]()
