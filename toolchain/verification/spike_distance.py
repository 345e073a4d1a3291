"""How far apart two spike trains are in time: the Victor-Purpura distance, computed by Elephant.

Position by position, a spike that comes one step late counts twice, as one that is missing and one too many; a spike that comes
at another end of the run counts the same. The Victor-Purpura distance tells them apart: it is the least cost of turning one
train into the other, where adding or removing a spike costs 1 and moving it costs 1/2 a step, so that moves of up to three
steps are cheaper than a removal and an insertion.

Source: J. D. Victor, K. P. Purpura, Journal of Neurophysiology 76 (1996) 1310.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

COST_PER_STEP = 0.5
SAMPLES = 4
"""Samples with differing trains that are measured, the first ones, and in each of them this many neurons:"""
NEURONS = 4


@dataclass(frozen=True)
class TrainPair:
    """Spike times of one neuron in one sample, in steps; a time stands there once per spike."""

    sample: int
    steps: int
    reference: tuple[int, ...]
    got: tuple[int, ...]

    def moved(self, offset: int) -> TrainPair:
        """The same pair with its sample counted from ``offset``."""
        return replace(self, sample=self.sample + offset)


def train_pairs(
    reference: NDArray[Any], got: NDArray[Any], differs: NDArray[np.bool_], offset: int, kept: int
) -> list[TrainPair]:
    """The first trains that differ; arrays (T, B, *features). ``kept``: how many an earlier chunk left."""
    if kept >= SAMPLES * NEURONS:
        return []
    found = []
    for sample in np.flatnonzero(differs.any(axis=(0, *range(2, differs.ndim))))[:SAMPLES]:
        steps = len(differs)
        where = np.flatnonzero(differs[:, sample].reshape(steps, -1).any(axis=0))[:NEURONS]
        for neuron in where:
            pair = (side[:, sample].reshape(steps, -1)[:, neuron] for side in (reference, got))
            found.append(TrainPair(int(sample) + offset, steps, *(_times(train) for train in pair)))
    return found


def first_pairs(pairs: Sequence[TrainPair]) -> list[TrainPair]:
    """Those of the first ``SAMPLES`` samples."""
    samples = sorted({pair.sample for pair in pairs})[:SAMPLES]
    return [pair for pair in pairs if pair.sample in samples]


def mean_distance(pairs: Sequence[TrainPair]) -> float | None:
    """Mean Victor-Purpura distance of the pairs; None for none."""
    if not pairs:
        return None
    return sum(_distance(pair) for pair in pairs) / len(pairs)


def _distance(pair: TrainPair) -> float:
    import neo  # these import a good part of SciPy: only where something differs
    import quantities as pq
    from elephant.spike_train_dissimilarity import victor_purpura_distance

    trains = [neo.SpikeTrain(np.array(times, float) * pq.s, t_stop=pair.steps * pq.s) for times in (pair.reference, pair.got)]
    return float(victor_purpura_distance(trains, cost_factor=COST_PER_STEP * pq.Hz, sort=False)[0, 1])


def _times(train: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(step) for step in np.repeat(np.arange(len(train)), train.astype(np.int64)))
