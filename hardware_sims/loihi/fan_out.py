"""Fan-out of every source neuron, in the form in which a spike adds its weights.

A neuron's weights form *runs*: stretches of targets that lie side by side in memory and whose weights do so too. Maps are
stored with the channel last, so a spike into a convolution touches, per row of the kernel, one run of (columns it reaches) x
(output channels), and all positions share one copy of the weights. A row of a matrix is one run, a Scale a run of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import Shape, conv_padding, per_axis
from snn_export.export.wiring import Delays
from snn_export.hardware_sims.loihi.memory import at_cache_line

SPARSE_BELOW = 0.25
"""A matrix with fewer non-zero weights than this is stored by its non-zero stretches."""

LONG_RUN = 64
"""Weights per run from which the length of the next run is no longer worth foreseeing."""

PADDING_LIMIT = 3
"""Blocks a uniform fan-out may have per block and run of the ragged one."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FanOut:
    """Weights of one wire by source neuron.

    Attributes:
        first: (sources + 1,) int32, the runs of neuron j are first[j] .. first[j + 1].
        runs: (runs * 3,) int32: first target, position of its weight, length of each run.
        weights: int16 or int32, flat.
        delays: (runs,) int32, steps each run arrives later.
        synapses: all weights that spikes of all sources would add.
    """

    first: NDArray[np.int32]
    runs: NDArray[np.int32]
    weights: NDArray[Any]
    delays: NDArray[np.int32]
    synapses: int

    @property
    def longest_delay(self) -> int:
        """Steps, 0 where nothing is delayed."""
        return int(self.delays.max(initial=0))


@dataclass(frozen=True, eq=False)
class Uniform:
    """A fan-out without delays in which every neuron has the same number of runs, all of one length.

    Short runs are padded with zero weights. A few more additions cost less than a branch that the processor cannot foresee: how
    far a spike reaches depends on where it is, and that is random.

    Attributes:
        places: (sources, rows, 2) int32, flat: first target, position of the weights. Padding may reach up to ``lanes``
            beyond the last target.
        rows: runs per neuron; 0 where this form does not pay, and all else is empty.
        lanes: length of a run.
        weights: int16 or int32, flat.
    """

    places: NDArray[np.int32]
    rows: int
    lanes: int
    weights: NDArray[Any]


def uniform(table: FanOut, block: int) -> Uniform:
    """The uniform form of a fan-out, runs rounded up to whole blocks; ``rows`` 0 where runs are long or too unequal."""
    counts, runs = np.diff(table.first), table.runs.reshape(-1, 3).astype(np.int64)
    none = Uniform(np.zeros(0, np.int32), 0, 0, table.weights[:0])
    if not len(runs) or table.longest_delay:
        return none
    rows, lanes = int(counts.max()), -(-int(runs[:, 2].max()) // block) * block
    blocks = int((-(-runs[:, 2] // block)).sum()) + len(runs)
    if runs[:, 2].mean() > LONG_RUN or len(counts) * rows * lanes // block > PADDING_LIMIT * blocks:
        return none
    kinds, kind = np.unique(runs[:, 1:], axis=0, return_inverse=True)
    stored = np.zeros((len(kinds) + 1, lanes), table.weights.dtype)  # the last row stays 0: for runs that are not there
    for length in np.unique(kinds[:, 1]):
        chosen = np.flatnonzero(kinds[:, 1] == length)
        stored[chosen, :length] = table.weights[kinds[chosen, :1] + np.arange(length)]
    places = np.zeros((len(counts), rows, 2), np.int32)
    places[:, :, 1] = len(kinds) * lanes
    owner = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(runs)) - np.repeat(table.first[:-1], counts)
    places[owner, slot, 0], places[owner, slot, 1] = runs[:, 0], kind.reshape(-1) * lanes
    return Uniform(at_cache_line(places), rows, lanes, at_cache_line(stored))


def storage_order(shape: Shape) -> Indices:
    """Logical (C-order) index of the neuron stored at each position: maps of two or more axes lie with the channel last."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return np.ascontiguousarray(np.moveaxis(index, 0, -1)).reshape(-1) if len(shape) > 1 else index.reshape(-1)


def inverse(order: Indices) -> Indices:
    """Position at which each logical neuron is stored."""
    result = np.empty_like(order)
    result[order] = np.arange(len(order))
    return result


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a wire begins and ends.

    Attributes:
        before_shape, after_shape: shape of the weight node's input and output.
        source_order: logical index of the source neuron at each stored position.
        target_order: likewise of the target.
        before, after: delays, see :class:`snn_export.export.wiring.Wire`.
    """

    before_shape: Shape
    after_shape: Shape
    source_order: Indices
    target_order: Indices
    before: Delays = 0
    after: Delays = 0


@dataclass
class _Runs:
    """Runs in the making: source (logical), first target, position of the weight, length, one array each."""

    source: Indices
    target: Indices
    weight: Indices
    length: Indices


def fan_out(node: nir.NIRNode, weight: NDArray[np.int64], ends: Ends) -> FanOut:
    """Fan-out of a weight node with integer weights (in the shape of the node's, or of its scale)."""
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        runs, weights, order = _convolution(node, weight, ends)
    elif isinstance(node, nir.Scale):
        scale = np.broadcast_to(weight, ends.before_shape).reshape(-1)
        index = np.arange(scale.size, dtype=np.int64)
        runs, weights, order = _Runs(index, index.copy(), index, np.ones_like(index)), scale, index
    else:
        runs, weights, order = _matrix(weight, ends)
    position = inverse(ends.target_order)[order]
    delay = _spread(ends.after, ends.after_shape)[order]
    dense = np.count_nonzero(weight) >= SPARSE_BELOW * weight.size
    if not np.array_equal(position, np.arange(len(position))) or np.any(delay != delay[:1]) or not dense:
        runs, delays = _cut(runs, position, delay, weights)
    else:
        delays = np.full(len(runs.source), delay[0] if len(delay) else 0, np.int64)
    delays = delays + _spread(ends.before, ends.before_shape)[runs.source]
    return _sorted(runs, weights, delays, inverse(ends.source_order))


def _spread(delays: Delays, shape: Shape) -> Indices:
    return np.broadcast_to(np.asarray(delays, np.int64), shape).reshape(-1)


def _sorted(runs: _Runs, weights: NDArray[np.int64], delays: Indices, position: Indices) -> FanOut:
    """Runs by stored position of their source."""
    source = position[runs.source]
    by_source = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=len(position))
    table = np.stack([runs.target, runs.weight, runs.length], axis=1)[by_source].astype(np.int32)
    small = weights.size == 0 or (weights.min() >= -(1 << 15) and weights.max() < 1 << 15)
    return FanOut(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.ascontiguousarray(table.reshape(-1)),
        at_cache_line(weights.astype(np.int16 if small else np.int32)),
        delays[by_source].astype(np.int32),
        int(runs.length.sum()),
    )


def _matrix(weight: NDArray[np.int64], ends: Ends) -> tuple[_Runs, NDArray[np.int64], Indices]:
    """One run per row of the transposed matrix, its columns already in the target's order."""
    rows = np.ascontiguousarray(weight.T[:, ends.target_order])
    source = np.arange(rows.shape[0], dtype=np.int64)
    runs = _Runs(source, np.zeros_like(source), source * rows.shape[1], np.full_like(source, rows.shape[1]))
    return runs, rows.reshape(-1), ends.target_order


def _convolution(
    node: nir.Conv1d | nir.Conv2d, weight: NDArray[np.int64], ends: Ends
) -> tuple[_Runs, NDArray[np.int64], Indices]:
    """Runs of a convolution, targets with the channel last; a Conv1d is one with a single row."""
    flat = isinstance(node, nir.Conv1d)
    kernels = weight[:, :, None] if flat else weight
    given = (ends.before_shape[0], 1, ends.before_shape[1]) if flat else ends.before_shape
    made = (ends.after_shape[0], 1, ends.after_shape[1]) if flat else ends.after_shape
    stride, dilation = per_axis(node.stride, 2), per_axis(node.dilation, 2)
    if flat:
        stride, dilation = (1, stride[1]), (1, dilation[1])
    padding = ((0, 0), *conv_padding(node)) if flat else conv_padding(node)
    groups = int(node.groups)
    out_per_group, in_per_group = made[0] // groups, given[0] // groups
    columns = _kernel_order(kernels.shape[3], stride[1], dilation[1])
    # weights as (input channel, kernel row, kernel column in run order, output channel of the group)
    stored = kernels.reshape(groups, out_per_group, in_per_group, *kernels.shape[2:]).transpose(0, 2, 3, 4, 1)[:, :, :, columns]
    row_size = kernels.shape[3] * out_per_group
    place = inverse(np.array(columns, np.int64))
    merge = groups == 1
    across = [list(_stretches(x, made[2], kernels.shape[3], stride[1], dilation[1], padding[1][0], place, merge))
              for x in range(given[2])]  # fmt: skip
    channels = np.arange(given[0], dtype=np.int64)
    parts = []
    for y in range(given[1]):
        for row, k_row in _reached(y, made[1], kernels.shape[2], stride[0], dilation[0], padding[0][0]):
            for x in range(given[2]):
                for column, k_place, count in across[x]:
                    target = (row * made[2] + column) * made[0] + channels // in_per_group * out_per_group
                    start = (channels * kernels.shape[2] + k_row) * row_size + k_place * out_per_group
                    source = (channels * given[1] + y) * given[2] + x
                    parts.append(np.stack([source, target, start, np.full_like(source, count * out_per_group)]))
    table = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0), np.int64)
    return _Runs(*table), np.ascontiguousarray(stored).reshape(-1), storage_order(ends.after_shape)


def _kernel_order(size: int, stride: int, dilation: int) -> list[int]:
    """Kernel columns in the order in which an input meets outputs from left to right: descending, one residue after another."""
    step = stride // gcd(stride, dilation)
    return [k for residue in range(min(step, size)) for k in range(residue, size, step)[::-1]]


def _reached(at: int, outputs: int, size: int, stride: int, dilation: int, padding: int) -> Iterator[tuple[int, int]]:
    """(output, kernel index) pairs that an input position takes part in, outputs ascending."""
    for k in reversed(range(size)):
        output, rest = divmod(at + padding - k * dilation, stride)
        if rest == 0 and 0 <= output < outputs:
            yield output, k


def _stretches(
    at: int, outputs: int, size: int, stride: int, dilation: int, padding: int, place: Indices, merge: bool
) -> Iterator[tuple[int, int, int]]:
    """(first output, place of its kernel column, outputs) of every stretch that lies side by side in both."""
    begun: tuple[int, int, int] | None = None
    for output, k in _reached(at, outputs, size, stride, dilation, padding):
        if merge and begun and output == begun[0] + begun[2] and place[k] == begun[1] + begun[2]:
            begun = (begun[0], begun[1], begun[2] + 1)
            continue
        if begun:
            yield begun
        begun = (output, int(place[k]), 1)
    if begun:
        yield begun


def _cut(runs: _Runs, position: Indices, delay: Indices, weights: NDArray[np.int64]) -> tuple[_Runs, Indices]:
    """Runs without zeros, with targets moved to ``position`` and cut where positions or delays are not alike any more."""
    owner = np.repeat(np.arange(len(runs.source)), runs.length)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(runs.length) - runs.length, runs.length)
    target, place = runs.target[owner] + offset, runs.weight[owner] + offset
    kept = weights[place] != 0
    owner, target, place = owner[kept], target[kept], place[kept]
    steps, target = delay[target], position[target]
    begins = np.ones(len(owner), bool)
    begins[1:] = (np.diff(owner) != 0) | (np.diff(target) != 1) | (np.diff(place) != 1) | (np.diff(steps) != 0)
    starts = np.flatnonzero(begins)
    length = np.diff(np.append(starts, len(owner)))
    return _Runs(runs.source[owner[starts]], target[starts], place[starts], length), steps[starts]
