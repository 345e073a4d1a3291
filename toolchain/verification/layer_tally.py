"""What was found so far about one layer of two runs; tallies of samples that follow each other add up to the bit.

Everything is an integer, a maximum, a sum of multiples of 1/2 or the first of something, so that a result does not depend on
how the samples were cut into chunks and shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.trace import LayerTrace
from snn_export.reporting.report import Divergence
from snn_export.verification.lags import lag_mismatches
from snn_export.verification.spike_distance import TrainPair, first_pairs, train_pairs

COUNT_ERRORS = (1, 2, 3, 5, 9)
"""Lower edges of the histogram of |spike count difference|: 0, 1, 2, 3-4, 5-8, 9 and more."""


Rule = Callable[[Any, Any, int], Any]
"""(mine, theirs, index of their first sample) -> both; how a field of tallies that follow each other is put together."""


def _known(mine: int, theirs: int, offset: int) -> int:
    """What is the same in every shard, and 0 in one that saw nothing."""
    return theirs or mine


def _sum(mine: Any, theirs: Any, offset: int) -> Any:
    return mine + theirs


def _sum_of_seen(mine: Any, theirs: Any, offset: int) -> Any:
    """Sum of those that are not None."""
    return seen_sum(mine, theirs)


def _sum_of_all(mine: int | None, theirs: int | None, offset: int) -> int | None:
    """Sum; None where one side could not tell."""
    return None if mine is None or theirs is None else mine + theirs


def _most(mine: int, theirs: int, offset: int) -> int:
    return max(mine, theirs)


def _largest(mine: float | None, theirs: float | None, offset: int) -> float | None:
    return larger(mine, theirs)


def _first(mine: Divergence | None, theirs: Divergence | None, offset: int) -> Divergence | None:
    return mine if mine is not None else moved(theirs, offset)


def _first_trains(mine: list[TrainPair], theirs: list[TrainPair], offset: int) -> list[TrainPair]:
    return first_pairs([*mine, *(pair.moved(offset) for pair in theirs)])


def _by(rule: Rule) -> dict[str, Rule]:
    return {"merged": rule}


KNOWN, SUM, SUM_OF_SEEN, SUM_OF_ALL = _by(_known), _by(_sum), _by(_sum_of_seen), _by(_sum_of_all)
MOST, LARGEST, FIRST, FIRST_TRAINS = _by(_most), _by(_largest), _by(_first), _by(_first_trains)
"""Metadata of fields: how shards of them are put together. A field without any cannot be merged."""


@dataclass
class LayerTally:
    """Sums over the samples seen so far. Spikes and membranes are compared in local time, position by position."""

    neurons: int = field(default=0, metadata=KNOWN)
    steps: int = field(default=0, metadata=KNOWN)
    positions: int = field(default=0, metadata=SUM)
    reference_spikes: int = field(default=0, metadata=SUM)
    got_spikes: int = field(default=0, metadata=SUM)
    mismatched: int = field(default=0, metadata=SUM)
    count_error_sum: int = field(default=0, metadata=SUM)
    count_error_max: int = field(default=0, metadata=MOST)
    count_errors: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(COUNT_ERRORS) + 1, np.int64), metadata=SUM)
    neuron_difference: NDArray[np.int64] | None = field(default=None, metadata=SUM_OF_SEEN)
    first_spike: Divergence | None = field(default=None, metadata=FIRST)
    first_membrane: Divergence | None = field(default=None, metadata=FIRST)
    membranes: int = field(default=0, metadata=SUM)
    integer_membranes: int = field(default=0, metadata=SUM)
    mismatched_membranes: int = field(default=0, metadata=SUM)
    membrane_difference: float | None = field(default=None, metadata=LARGEST)
    currents: int = field(default=0, metadata=SUM)
    mismatched_currents: int = field(default=0, metadata=SUM)
    overflows: int | None = field(default=0, metadata=SUM_OF_ALL)
    latency: int = field(default=0, metadata=KNOWN)
    ties: int = field(default=0, metadata=SUM)
    unexplained: int = field(default=0, metadata=SUM)
    """Samples whose spikes differ and are not ties (float comparisons only)."""
    lags: NDArray[np.int64] | None = field(default=None, metadata=SUM_OF_SEEN)
    """Spikes that differ under each further shift, earliest first; see ``lags.py``."""
    trains: list[TrainPair] = field(default_factory=list, metadata=FIRST_TRAINS)
    """The first spike trains that differ; see ``spike_distance.py``."""

    def add(self, expected: LayerTrace, found: LayerTrace, offset: int) -> NDArray[np.bool_]:
        """Add a chunk whose first sample has the index ``offset``; returns which samples differ in anything compared, (B,)."""
        differs = self._add_spikes(expected, found, offset)
        return differs | self._add_membranes(expected, found, offset)

    def merge(self, other: LayerTally, offset: int) -> None:
        """Add what was found in samples that follow; ``offset`` is the index of the other's first one."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, item.metadata["merged"](mine, theirs, offset))

    def _add_spikes(self, expected: LayerTrace, found: LayerTrace, offset: int) -> NDArray[np.bool_]:
        reference, got = np.asarray(expected.sent), np.asarray(found.sent)
        self.neurons, self.steps = int(np.prod(reference.shape[2:])), len(reference)
        self.positions += reference.size
        self.reference_spikes += int(expected.counts.sum())
        self.got_spikes += int(found.counts.sum())
        self.latency = found.latency
        self.overflows = _sum_of_all(self.overflows, found.overflows, 0)
        differs = reference != got
        samples = np.asarray(differs.any(axis=(0, *range(2, differs.ndim))))
        counts = found.counts - expected.counts
        totals = counts.sum(axis=0).reshape(-1)
        self.neuron_difference = seen_sum(self.neuron_difference, totals)
        errors = np.abs(counts)
        bins = np.searchsorted(COUNT_ERRORS, errors.ravel(), side="right")
        self.count_errors += np.bincount(bins, minlength=len(self.count_errors))
        self.lags = seen_sum(self.lags, lag_mismatches(reference, got))
        if not samples.any():
            return samples
        booleans = reference.dtype == got.dtype == bool
        self.mismatched += int(
            np.count_nonzero(differs) if booleans else np.ceil(np.abs(reference.astype(np.float64) - got)).sum()
        )
        self.count_error_sum += int(errors.sum())
        self.count_error_max = max(self.count_error_max, int(errors.max(initial=0)))
        if self.first_spike is None:
            self.first_spike = first_divergence(differs, reference, got, "spike", 1.0, 1.0, offset)
        self.trains = first_pairs([*self.trains, *train_pairs(reference, got, differs, offset, len(self.trains))])
        return samples

    def _add_membranes(self, expected: LayerTrace, found: LayerTrace, offset: int) -> NDArray[np.bool_]:
        samples = np.zeros(expected.counts.shape[0], bool)
        integers = expected.integer and found.integer
        if expected.membrane is not None and found.membrane is not None:
            self.membranes += expected.membrane.size
            difference = np.abs(expected.membrane * expected.unit - found.membrane * found.unit)
            self.membrane_difference = float(np.maximum(self.membrane_difference or 0.0, difference.max(initial=0.0)))
            if integers:
                self.integer_membranes += expected.membrane.size
                differs = expected.membrane != found.membrane
                self.mismatched_membranes += int(np.count_nonzero(differs))
                samples |= differs.any(axis=(0, *range(2, differs.ndim)))
                if self.first_membrane is None and differs.any():
                    self.first_membrane = first_divergence(
                        differs, expected.membrane, found.membrane, "membrane", expected.unit, found.unit, offset
                    )
        if expected.current is not None and found.current is not None and integers:
            self.currents += expected.current.size
            differs = expected.current != found.current
            self.mismatched_currents += int(np.count_nonzero(differs))
            samples |= differs.any(axis=(0, *range(2, differs.ndim)))
        return samples


def unmatched(tally: LayerTally) -> float:
    """Share of spikes, both sides together, without a counterpart: 0 for equal, 1 for nothing in common.

    Measured against spikes and not against positions: a layer that fires rarely could lose all it has within a few per cent of
    its positions.
    """
    return tally.mismatched / max(1, tally.reference_spikes + tally.got_spikes)


def first_divergence(
    differs: NDArray[np.bool_],
    reference: NDArray[Any],
    got: NDArray[Any],
    kind: Literal["spike", "membrane"],
    reference_unit: float,
    got_unit: float,
    offset: int,
) -> Divergence:
    """Lowest sample, then earliest step, then lowest neuron that differs; arrays (T, B, *features)."""
    sample = int(np.flatnonzero(differs.any(axis=(0, *range(2, differs.ndim))))[0])
    step, neuron = first_place(differs[:, sample].reshape(len(differs), -1))
    return Divergence(
        sample=sample + offset,
        step=step,
        neuron=neuron,
        position=tuple(int(i) for i in np.unravel_index(neuron, reference.shape[2:])),
        kind=kind,
        expected=float(reference[step, sample].reshape(-1)[neuron] * reference_unit),
        got=float(got[step, sample].reshape(-1)[neuron] * got_unit),
    )


def first_place(where: NDArray[np.bool_]) -> tuple[int, int]:
    """Earliest step, then lowest neuron, of (T, neurons) that is true somewhere."""
    step = int(where.any(axis=1).argmax())
    return step, int(where[step].argmax())


def moved(found: Divergence | None, offset: int) -> Divergence | None:
    """A divergence with its sample counted from ``offset``."""
    return found if found is None or not offset else found.model_copy(update={"sample": found.sample + offset})


def seen_sum(first: Any, second: Any) -> Any:
    """Sum of two numbers or arrays, where a None was not seen."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def larger(first: float | None, second: float | None) -> float | None:
    """The larger of two differences, where a None was not measured; NaN wins."""
    if first is None or second is None:
        return second if first is None else first
    return float(np.maximum(first, second))
