"""Figures of the recipes benchmark that are computed from its rows: means over seeds, and differences with an interval."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recipes_plan import EXPERIMENTS, TRIALS, rows

RESAMPLES = 10_000
LEVEL = 0.95

Result = Mapping[str, Any]
"""What ``recipes_row.py`` wrote for one row."""
Scores = NDArray[np.float64]
"""(N,) share of the seeds that classify each test sample correctly."""


@dataclass(frozen=True)
class Group:
    """The seeds of one recipe in one mode on one data set: a line of the table.

    seeds: those the plan asks for; results: those that were trained, by seed. They may be fewer, or none. refusals: codes of
    those that the recipe refused to train, by seed: an answer too, not a missing one. epoch_seconds: of an epoch beside all
    other recipes of the data set (``recipes_costs.py``), the median of some rounds, NaN where that was not measured;
    epoch_minimum: the fastest round; through_time_seconds: the median of the same recipe trained through time.
    """

    data: str
    recipe: str
    mode: str
    seeds: tuple[int, ...]
    results: Mapping[int, Result]
    refusals: Mapping[int, str] = field(default_factory=dict)
    epoch_seconds: float = math.nan
    epoch_minimum: float = math.nan
    through_time_seconds: float = math.nan

    @property
    def name(self) -> str:
        """Recipe and mode, e.g. ``plain_kd, rate``; a mode that goes without saying is left out."""
        return self.recipe if self.mode in ("ann", "conversion") else f"{self.recipe}, {self.mode}"

    @property
    def missing(self) -> tuple[int, ...]:
        """Seeds of the plan that are not there."""
        return tuple(seed for seed in self.seeds if seed not in self.results and seed not in self.refusals)

    @property
    def absent(self) -> str:
        """Why there is no figure: "refused: CODE" or "missing"."""
        return f"refused: {', '.join(sorted(set(self.refusals.values())))}" if self.refusals else "missing"

    @property
    def first(self) -> Result:
        """The result of the lowest seed: for what all seeds share."""
        return self.results[min(self.results)]

    def values(self, name: str) -> tuple[float, ...]:
        """A number of every seed that has it, seed by seed."""
        found = (self.results[seed].get(name) for seed in sorted(self.results))
        return tuple(float(value) for value in found if value is not None)

    def mean(self, name: str) -> float:
        """Mean over the seeds; NaN where no seed has it."""
        values = self.values(name)
        return statistics.fmean(values) if values else math.nan

    def scores(self, kind: str = "test") -> Scores:
        """(N,) share of the seeds that are right on each test sample. kind: "test" (float) or "integer"."""
        found: Scores = np.mean([right(result, kind) for result in self.results.values()], axis=0)
        return found

    def curve(self) -> dict[int, float]:
        """Accuracy by T of a conversion, mean over the seeds; empty for anything else."""
        found = [result["curve"] for result in self.results.values() if "curve" in result]
        steps = sorted({int(step) for curve in found for step in curve})
        return {step: statistics.fmean(curve[str(step)] for curve in found if str(step) in curve) for step in steps}


def groups(found: Mapping[str, Result], data: str, costs: Mapping[str, Any] | None = None) -> tuple[Group, ...]:
    """The lines of one data set in the order of the plan, also those that nothing is there for.

    costs: what ``recipes_costs.costs`` found for this data set.

    Raises:
        ValueError: rows of two different data sets under one name: no sample of the one is a sample of the other.
    """
    wanted: dict[tuple[str, str], list[int]] = {}
    for row in rows(data):
        wanted.setdefault((row.recipe, row.mode), []).append(row.seed)
    fingerprints: set[str] = set()
    result = []
    for (recipe, mode), seeds in wanted.items():
        there = {seed: found[key] for seed in seeds if (key := f"{data}-{recipe}-{mode}-{seed}") in found}
        fingerprints |= {row["data"] for row in there.values()}
        trained = {seed: row for seed, row in there.items() if "refused" not in row}
        refused = {seed: row["refused"] for seed, row in there.items() if "refused" in row}
        epochs = (costs or {}).get("epochs", {})
        mine, through_time = epochs.get(f"{recipe}-{mode}", {}), epochs.get(f"{recipe}-bptt", {})
        times = (mine.get("median", math.nan), mine.get("minimum", math.nan), through_time.get("median", math.nan))
        result.append(Group(data, recipe, mode, tuple(seeds), trained, refused, *times))
    if len(fingerprints) > 1:
        raise ValueError(f"rows of '{data}' were measured on {len(fingerprints)} different data sets: train them again")
    return tuple(result)


def unplanned(found: Mapping[str, Result]) -> tuple[str, ...]:
    """Keys of rows that no plan asks for."""
    planned = {row.key for data in EXPERIMENTS for row in rows(data)} | {row.key for row in TRIALS}
    return tuple(sorted(found.keys() - planned))


def group_of(lines: Sequence[Group], recipe: str, mode: str) -> Group | None:
    """The line of a recipe and mode, if any of its seeds is there."""
    return next((line for line in lines if (line.recipe, line.mode) == (recipe, mode) and line.results), None)


def baseline_mode(data: str) -> str:
    """The forward mode that most students of a data set are trained in: "rate", or "bptt" where there is no other."""
    return "rate" if any(row.mode == "rate" for row in rows(data)) else "bptt"


def baseline_of(line: Group, lines: Sequence[Group]) -> Group | None:
    """No teacher, in the mode of ``line``; in the main mode for conversions and networks that do not spike."""
    mode = line.mode if line.mode in ("rate", "bptt") else baseline_mode(line.data)
    found = group_of(lines, "no_teacher", mode)
    return None if found is line else found


def right(result: Result, kind: str) -> NDArray[np.bool_]:
    """(N,) which test samples were classified correctly."""
    packed = np.frombuffer(base64.b64decode(result[f"{kind}_right"]), np.uint8)
    return np.unpackbits(packed, count=int(result["test_samples"])).astype(bool)


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies and its 95 % interval, in points (hundredths)."""

    points: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    @property
    def verdict(self) -> str:
        """One of "above", "below", and "no difference shown", where the interval holds 0."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "no difference shown"


def difference(one: Scores, other: Scores, seed: int = 0) -> Difference:
    """``mean(one) - mean(other)`` over the same N test samples, with a paired percentile bootstrap over the samples.

    A sample's difference is one of few values (seeds are few), so the number of times each value is drawn is multinomial: this
    gives the distribution of 10,000 resamples of N samples without drawing N numbers for each. What the interval does not hold
    is how training runs of other seeds would differ.

    Raises:
        ValueError: different numbers of samples.
    """
    if one.shape != other.shape:
        raise ValueError(f"{one.size} test samples cannot be compared with {other.size}")
    apart = np.round(one - other, 9)
    values, counts = np.unique(apart, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(apart.size, counts / apart.size, size=RESAMPLES)
    low, high = np.quantile(drawn @ values / apart.size, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(100 * float(apart.mean()), 100 * float(low), 100 * float(high))


def compare(line: Group, other: Group) -> Difference:
    """Test accuracy of two lines, each the mean of its seeds, on the same samples."""
    return difference(line.scores(), other.scores())


def seeds_above(line: Group, other: Group) -> tuple[int, int]:
    """In how many of the seeds that both have ``line`` is more accurate, and how many they are."""
    shared = sorted(line.results.keys() & other.results.keys())
    above = sum(line.results[seed]["test_accuracy"] > other.results[seed]["test_accuracy"] for seed in shared)
    return above, len(shared)
