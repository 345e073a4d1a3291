"""Whether a layer's spikes come when its backend says they do: the shift under which two runs agree best.

A backend declares how many steps of latency it removed from each layer; comparisons are made in local time. Where that
declaration is wrong by a step nearly everything differs, and reads like any other fault. So the spikes of all samples are
compared under further shifts too, over the steps that all shifts share::

    mismatched(lag) = sum over t in [m, T - m) of |reference[t] - got[t + lag]|        -m <= lag <= m

A shift is believed where it removes at least half of the differences. Samples that agree as declared speak against it:
quantisation makes single spikes late, a wrong declaration all of them. Spikes that repeat may come as many steps early as late:
where shifts of both signs agree equally well, none is believed. Otherwise the declared one stands, and they differ in what they
compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import EXIT_GATE
from snn_export.reporting.report import Comparison, Gate, LayerLag
from snn_export.reporting.wording import shift

LARGEST_LAG = 3
BELIEVED = 0.5
"""Share of the differences that a shift may leave and still be believed."""


def lag_mismatches(reference: NDArray[Any], got: NDArray[Any]) -> NDArray[np.int64] | None:
    """Spikes that differ under every shift from -m to m; (T, B, *features) both. None where T is too short for any shift."""
    steps = len(reference)
    most = min(LARGEST_LAG, (steps - 1) // 2)
    if most < 1:
        return None
    window = reference[most : steps - most]
    shifted = (got[most + lag : steps - most + lag] for lag in range(-most, most + 1))
    if reference.dtype == got.dtype == bool:
        return np.array([np.count_nonzero(window != other) for other in shifted], np.int64)
    return np.array([int(np.ceil(np.abs(window.astype(np.float64) - other)).sum()) for other in shifted], np.int64)


def believed_lag(mismatched: NDArray[np.int64] | None, declared: int) -> LayerLag | None:
    """The finding about a layer; None where nothing differs within the steps that all shifts share."""
    if mismatched is None:
        return None
    most = len(mismatched) // 2
    at_declared = int(mismatched[most])
    if not at_declared:
        return None
    best = min(range(-most, most + 1), key=lambda lag: (int(mismatched[lag + most]), abs(lag), lag))
    left = int(mismatched[best + most])
    sides = {lag > 0 for lag in range(-most, most + 1) if lag and int(mismatched[lag + most]) == left}
    if left > BELIEVED * at_declared or len(sides) > 1:
        best, left = 0, at_declared
    return LayerLag(declared=declared, best=best, mismatched=at_declared, mismatched_at_best=left)


def lag_gates(comparisons: Iterable[Comparison]) -> tuple[Gate, ...]:
    """A failed gate for every comparison in which a layer is shifted; its first such layer, sources first."""
    found = []
    for comparison in comparisons:
        shifted = [(layer.layer, layer.lag) for layer in comparison.layers if layer.lag is not None and layer.lag.best]
        if not shifted:
            continue
        name, lag = shifted[0]
        others = f"; shifted too: {', '.join(other for other, _ in shifted[1:])}" if shifted[1:] else ""
        found.append(Gate(
            name=f"{comparison.target} declares its latency",
            required=f"{name} {lag.declared} steps after its input, as declared",
            measured=f"{lag.declared + lag.best} steps: {shift(lag)} than declared",
            passed=False,
            exit_code=EXIT_GATE,
            detail=f"compared with {comparison.reference}: shifted by {lag.best:+d}, {lag.mismatched_at_best} of "
            f"{lag.mismatched} differing spikes are left{others}. Correct the latency the backend declares for {name}",
        ))  # fmt: skip
    return tuple(found)
