"""Operations step by step, and what the readout says after every step: what it takes to stop early.

A step here is one of the network's own: its operations are those of every layer in the local step of that number, which is what
the readout needs to have taken so many. On the chip layers work on different steps at once while a sample passes through.

Everything is summed over samples as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    "spike_operations", "effective_spike_operations", "input_operations", "effective_input_operations", "spikes", "messages",
)  # fmt: skip
"""What is counted per step, in this order; names as in :class:`snn_export.energy.counts.LayerCounts`, all layers together."""


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
        by_step: (T, operations), in the order of :data:`OPERATIONS`.
        updates: neuron updates of one step of one sample.
        samples: N.
        correct: (T,), samples that are right if the readout stops after that step; None without labels.
        until_exit: (operations,) of the steps before each sample's early exit; None where no threshold was given.
        exits: (T,), samples whose early exit comes after that step; zeros without a threshold.
        exit_correct: of those that exit, how many are right; None without labels or threshold.
    """

    by_step: Grid
    updates: int
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
            self.samples + other.samples,
            None if self.correct is None or other.correct is None else self.correct + other.correct,
            None if self.until_exit is None or other.until_exit is None else self.until_exit + other.until_exit,
            self.exits + other.exits,
            None if self.exit_correct is None or other.exit_correct is None else self.exit_correct + other.exit_correct,
        )

    def records(self) -> tuple[StepOperations, ...]:
        """One per step."""
        correct = [None] * len(self.by_step) if self.correct is None else [int(number) for number in self.correct]
        return tuple(
            StepOperations(**_named(sums), updates=self.updates * self.samples, correct=right)
            for sums, right in zip(self.by_step, correct, strict=True)
        )

    def exit_record(self) -> StepOperations | None:
        """What was carried out before the early exits; None where no threshold was given."""
        if self.until_exit is None:
            return None
        taken = int((self.exits * np.arange(1, len(self.exits) + 1)).sum())
        return StepOperations(**_named(self.until_exit), updates=self.updates * taken, correct=self.exit_correct)


def _named(sums: Grid) -> dict[str, int]:
    return {name: int(value) for name, value in zip(OPERATIONS, sums, strict=True)}


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
        grid = self._grid(trace, inputs, *answers.margins.shape)
        updates = sum(len(sends) for sends in self._senders.values())
        right = None if labels is None else answers.classes == labels
        correct = None if right is None else right.sum(axis=1, dtype=np.int64)
        until, exits, exit_right = None, np.zeros(len(grid), np.int64), None
        if self._threshold is not None:
            last = answers.stops(self._threshold)
            until = grid[np.arange(len(grid))[:, None] <= last].sum(axis=0)
            exits = np.bincount(last, minlength=len(grid))
            exit_right = None if right is None else int(np.take_along_axis(right, last[None], axis=0).sum())
        return StepTotals(grid.sum(axis=1), updates, grid.shape[1], correct, until, exits, exit_right)

    def _grid(self, trace: Trace, inputs: NDArray[Any], steps: int, samples: int) -> Grid:
        """(T, N, operations)."""
        found = np.zeros((steps, samples, len(OPERATIONS)))
        for name in self._counter.deployment.layers:
            for step, fired in enumerate(_rows(np.asarray(trace.layers[name].sent), samples)):
                found[step, :, 0:2] += fired @ self._outgoing[name]
                found[step, :, 4] += fired.sum(axis=1)
                found[step, :, 5] += fired[:, self._senders[name]].sum(axis=1)
        found[..., 0:2] += self._counter.always_on()
        (source,) = set(self._outgoing) - set(self._counter.deployment.layers)
        found[..., 2:4] = np.stack([row @ self._outgoing[source] for row in _rows(self._counter.sent(inputs), samples)])
        return np.rint(found).astype(np.int64)


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
