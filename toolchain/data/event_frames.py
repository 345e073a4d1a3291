"""Events in time bins: what an event camera or a silicon cochlea recorded, as inputs with a time axis.

An event is an address and a time. A recording becomes T frames, and a cell of a frame is 1 where at least one event of that
address fell into that bin, 0 elsewhere: plain spikes, which every chip can carry. How many events there were is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def bins_of_recording(times: Integers, steps: int) -> Integers:
    """The bin 0..steps-1 of each event (N,): the span from first to last event in ``steps`` equal parts.

    The last event belongs to the last bin; a recording whose events are all of one time lies in bin 0. Integers throughout:
    bin = (t - first) * steps // (span + 1), where time is counted in whole units, microseconds for instance.
    """
    if not len(times):
        return np.zeros(0, np.int64)
    first, last = int(times.min()), int(times.max())
    return (times - first) * steps // (last - first + 1)


def bins_of_clock(times: NDArray[np.floating], steps: int, duration: float) -> Integers:
    """The bin of each event (N,) on a clock that starts at 0 and runs for ``duration``; -1 for events outside of it."""
    bins = np.floor(np.asarray(times, np.float64) * (steps / duration))
    inside = (bins >= 0) & (bins < steps)  # False for NaN as well
    return np.where(inside, bins, -1).astype(np.int64)


def spike_frames(bins: Integers, addresses: Sequence[Integers], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Frames float32 ``shape`` = (T, *axes) of 0 and 1 from the bins and the addresses, one array (N,) per axis, of N events.

    Events outside the frames, in time or address, are left out; :func:`outside` counts them.
    """
    frames = np.zeros(shape, np.float32)
    index = (bins, *addresses)
    inside = ~outside(bins, addresses, shape)
    frames[tuple(axis[inside] for axis in index)] = 1.0
    return frames


def outside(bins: Integers, addresses: Sequence[Integers], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True for each event (N,) that lies outside frames of ``shape``."""
    lost = np.zeros(len(bins), np.bool_)
    for axis, length in zip((bins, *addresses), shape, strict=True):
        lost |= (axis < 0) | (axis >= length)
    return lost
