"""Energy and accuracy of inferences that stop early: after a fixed number of steps, or when the readout is sure.

The knee is where the curve of accuracy over energy, both scaled to 0..1, lies farthest above the straight line between its ends
(Satopää et al., Finding a "Kneedle" in a haystack, ICDCS workshops 2011): beyond it, more energy buys little accuracy.

Its accuracies are those of validation samples where there are some. Its energies are counted on the run.

Energies are those of the chip, on which all layers work at once: what the layers in front of the readout have done by the time
that it has taken so many steps (:mod:`snn_export.energy.step_counts`) is counted.

Early exit: an inference stops at the first step after which the largest readout leads the second by at least a threshold. The
threshold is the one with the fewest steps among those that lose no accuracy on validation samples, which no test sample sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.charging import Amount, charged
from snn_export.energy.cost_table import CostTable
from snn_export.energy.operations import amounts_until, classes, reads_every_step
from snn_export.energy.step_counts import Answers
from snn_export.reporting.energy_records import EarlyExit, EnergyOperations, EnergyPoint, StepOperations

CANDIDATES = 512
"""Thresholds that are tried at most, evenly spaced among the margins that occur."""


@dataclass(frozen=True)
class Chosen:
    """A threshold, and what it does to the validation samples it was chosen on.

    Attributes:
        threshold: lead of the readout at which an inference stops.
        samples: validation samples.
        correct, correct_full: of them, right with early exit, and with all steps.
        by_step: of them, right after 1..T steps.
    """

    threshold: float
    samples: int
    correct: int
    correct_full: int
    by_step: tuple[int, ...]


RULE_OF_USER = "an inference stops at the first step after which the largest readout leads the second by at least the threshold"
RULE = f"{RULE_OF_USER}: the one with the fewest steps that loses no accuracy on the validation samples"


def points(found: EnergyOperations, table: CostTable) -> tuple[EnergyPoint, ...]:
    """Energy and accuracy if every inference stopped after 1..T steps; empty where steps were not counted one by one."""
    made, done = [], None
    for number, step in enumerate(found.by_step, 1):
        done = step if done is None else _plus(done, step)
        amounts = amounts_until(found, done, found.samples, classes(found) * (number if reads_every_step(found.readout) else 1))
        energy = charged(table, amounts)
        made.append(
            EnergyPoint(
                steps=number,
                synops=amounts["synaptic_operation"][0],
                accuracy=None if step.correct is None else 100.0 * step.correct / found.samples,
                **_ends(energy),
            )
        )
    return tuple(made)


def _plus(one: StepOperations, other: StepOperations) -> StepOperations:
    names = [name for name in StepOperations.model_fields if name not in ("correct", "layer_messages")]
    messages = tuple(map(sum, zip(one.layer_messages, other.layer_messages, strict=True)))
    sums = {name: getattr(one, name) + getattr(other, name) for name in names}
    return StepOperations(**sums, layer_messages=messages, correct=other.correct)


def _ends(energy: Amount | None) -> dict[str, float | None]:
    if energy is None:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": energy.value, "low": energy.low, "high": energy.high}


def knee_of(found: EnergyOperations, curve: Sequence[EnergyPoint]) -> tuple[int | None, int | None]:
    """The knee, and how many validation samples' answers chose it: None where the curve's own did."""
    if not found.validation_samples:
        return knee(curve), None
    right = [100.0 * number / found.validation_samples for number in found.validation_correct]
    chosen = [item.model_copy(update={"accuracy": each}) for item, each in zip(curve, right, strict=bool(curve))]
    return knee(chosen), found.validation_samples if chosen else None


def knee(curve: Sequence[EnergyPoint]) -> int | None:
    """Steps of the point that lies farthest above the line between the cheapest point and the best accuracy at the full cost.

    None without accuracies or energies. Where more steps never help, it is the first point.
    """
    measured = [(item.steps, item.value, item.accuracy) for item in curve if item.value is not None and item.accuracy is not None]
    if len(measured) < len(curve) or not measured:
        return None
    steps, energy, accuracy = (np.array(column, float) for column in zip(*measured, strict=True))
    gained, spent = accuracy.max() - accuracy[0], energy.max() - energy[0]
    if gained <= 0 or spent <= 0:
        return int(steps[0])
    above = (accuracy - accuracy[0]) / gained - (energy - energy[0]) / spent
    return int(steps[np.flatnonzero(above == above.max())[-1]])


def chosen_threshold(answers: Answers, labels: NDArray[np.int64]) -> Chosen:
    """The lead to stop at: fewest steps on these samples among the thresholds that lose none of their accuracy.

    Args:
        answers: of validation samples.
        labels: (N,), theirs.
    """
    right = answers.classes == labels
    full, samples = int(right[-1].sum()), len(labels)
    occurring = np.unique(answers.margins)
    tried = occurring[np.linspace(0, len(occurring) - 1, min(CANDIDATES, len(occurring))).astype(int)]
    found = [(len(right) * samples, np.nextafter(occurring[-1], np.inf), full)]  # never sure: always allowed
    for value in tried:
        last = answers.stops(float(value))
        correct = int(np.take_along_axis(right, last[None], axis=0).sum())
        if correct >= full:
            found.append((int((last + 1).sum()), float(value), correct))
    _, limit, correct = min(found)
    return Chosen(float(limit), samples, correct, full, tuple(int(number) for number in right.sum(axis=1)))


def exit_report(found: EnergyOperations, table: CostTable) -> EarlyExit | None:
    """The early exit with its energy; None where none was tried."""
    tried = found.early_exit
    if tried is None:
        return None
    mean_steps = sum((step + 1) * samples for step, samples in enumerate(tried.exits)) / found.samples
    energy = charged(table, amounts_until(found, tried.on_chip, found.samples, classes(found) * mean_steps))
    full = found.by_step[-1].correct if found.by_step else None
    return EarlyExit(
        rule=RULE if tried.chosen_on else RULE_OF_USER,
        threshold=tried.threshold,
        chosen_on=tried.chosen_on,
        validation_accuracy=_percent(tried.validation_correct, tried.chosen_on),
        validation_accuracy_full=_percent(tried.validation_correct_full, tried.chosen_on),
        mean_steps=mean_steps,
        accuracy=_percent(tried.total.correct, found.samples),
        accuracy_full=_percent(full, found.samples),
        exits=tried.exits,
        **_ends(energy),
    )


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else 100.0 * part / whole
