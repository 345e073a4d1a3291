"""Which source neurons a part of a population hears, and through how many synapses each.

A part is a box: a range of neurons on every axis of the population's map. Synapses of weight zero are none. A convolution is
counted without being written out: along one axis an input is read through a kernel position by one output at most
(:func:`snn_export.export.linear_maps.axis_readers`), so rows, columns and channels are counted apart and multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import nir
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from snn_export.export.graph import Shape
from snn_export.export.linear_maps import conv_readers

Box = tuple[tuple[int, int], ...]
"""(start, stop) of every axis."""
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Reach(Protocol):
    """Synapses of one weight layer, seen from parts of its target."""

    def sizes(self, box: Box) -> Indices:
        """Synapses of each source neuron that reaches the part; neurons that do not are left out."""

    def heard(self, box: Box) -> Mask:
        """(sources,): True where a source neuron reaches the part; sources in logical order."""

    def shared(self, box: Box, base: int, base_reach: int) -> Indices | None:
        """Synapses of each list that axons can share, see :meth:`Convolution.shared`; None where none can be."""

    def kernel(self, box: Box) -> int | None:
        """Weights of the kernel that the part needs, zeros included; None where there is no kernel."""


def size_of(box: Box) -> int:
    """Neurons of a part."""
    return prod(stop - start for start, stop in box)


def neurons_of(box: Box, shape: Shape) -> Indices:
    """Logical (C-order) indices of a part's neurons, for a map of this shape."""
    axes = [np.arange(start, stop) for start, stop in box]
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape).reshape(-1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Any linear map, as the positions of its weights that are not zero.

    shape: map of the target population. weights: (targets, sources), explicit zeros are none.
    """

    shape: Shape
    weights: sparse.csr_array

    def _counts(self, box: Box) -> Indices:
        starts, stops = self.weights.indptr[:-1], self.weights.indptr[1:]
        rows = neurons_of(box, self.shape)
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            reached = self.weights.indices[starts[rows[0]] : stops[rows[-1]]]
        else:
            reached = np.concatenate([self.weights.indices[starts[row] : stops[row]] for row in rows])
        return np.bincount(reached, minlength=self.weights.shape[1]).astype(np.int64)

    def sizes(self, box: Box) -> Indices:
        """See :class:`Reach`."""
        counts = self._counts(box)
        return counts[counts > 0]

    def heard(self, box: Box) -> Mask:
        """See :class:`Reach`."""
        return self._counts(box) > 0

    def shared(self, box: Box, base: int, base_reach: int) -> Indices | None:
        """A matrix has a row of its own for every source."""

    def kernel(self, box: Box) -> int | None:
        """A matrix has no kernel."""


def matrix_of(present: Mask, shape: Shape) -> Matrix:
    """Reach of a weight matrix (targets, sources), given where it is not zero."""
    return Matrix(shape, sparse.csr_array(present))


@dataclass(frozen=True, eq=False)
class Read:
    """The inputs that a range of outputs reads along one axis.

    used: (inputs,), True where an input is read at all; the others speak of these alone.
    table: (kernel, used), True where an input is read through a kernel position.
    patterns: (patterns, kernel), the sets of positions through which inputs are read; pattern: (used,), which one each has. The
        outputs follow from the positions up to a shift, so inputs of one pattern have the same list of synapses.
    first: (used,), the first output that reads it, counted from the start of the range.
    """

    used: Mask
    table: NDArray[np.float64]
    patterns: NDArray[np.float64]
    pattern: Indices
    first: Indices


@dataclass(frozen=True, eq=False)
class Axis:
    """One spatial axis of a convolution. readers: of :func:`snn_export.export.linear_maps.axis_readers`, (kernel, inputs)."""

    readers: Indices
    _read: dict[tuple[int, int], Read] = field(default_factory=dict)

    def read(self, start: int, stop: int) -> Read:
        """What the outputs of a range read."""
        if (start, stop) not in self._read:
            self._read[start, stop] = self._worked_out(start, stop)
        return self._read[start, stop]

    def _worked_out(self, start: int, stop: int) -> Read:
        table = np.asarray((self.readers >= start) & (self.readers < stop))
        used = np.asarray(table.any(axis=0))
        first = np.where(table, self.readers, stop).min(axis=0)[used] - start
        patterns, index = np.unique(table[:, used].T, axis=0, return_inverse=True)
        return Read(used, table[:, used].astype(np.float64), patterns.astype(np.float64), index.reshape(-1), first)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution of maps (channels, rows, columns).

    present: (out, in/groups, rows, columns of the kernel), True where the weight is not zero. axes: rows, columns.
    one_row: a Conv1d, whose maps have no rows.
    """

    present: Mask
    groups: int
    inputs: int
    axes: tuple[Axis, Axis]
    one_row: bool

    def _box(self, box: Box) -> Box:
        return (box[0], (0, 1), box[1]) if self.one_row else box

    def _weights(self, first: int, last: int) -> NDArray[np.float64]:
        """(input channels, kernel rows, columns): weights into the output channels first..last."""
        out, per_group = self.present.shape[:2]
        found = np.zeros((self.inputs, *self.present.shape[2:]))
        for group in range(self.groups):
            low, high = max(first, group * out // self.groups), min(last, (group + 1) * out // self.groups)
            if low < high:
                found[group * per_group : (group + 1) * per_group] += self.present[low:high].sum(axis=0)
        return found

    def _parts(self, box: Box) -> tuple[NDArray[np.float64], Read, Read]:
        """Weights into the part's output channels, and what its rows and columns read."""
        (first, last), rows, columns = self._box(box)
        return self._weights(first, last), self.axes[0].read(*rows), self.axes[1].read(*columns)

    def _counts(self, box: Box) -> Indices:
        """Synapses (channels, rows, columns) of the inputs whose row and column are read."""
        weights, rows, columns = self._parts(box)
        counts = rows.table.T @ (weights @ columns.table)  # whole numbers far below 2^53
        return np.rint(counts).astype(np.int64)

    def sizes(self, box: Box) -> Indices:
        """See :class:`Reach`."""
        counts = self._counts(box).reshape(-1)
        return counts[counts > 0]

    def heard(self, box: Box) -> Mask:
        """See :class:`Reach`."""
        _, rows, columns = self._parts(box)
        found = np.zeros((self.inputs, len(rows.used), len(columns.used)), bool)
        found[:, np.outer(rows.used, columns.used)] = (self._counts(box) > 0).reshape(self.inputs, -1)
        return found.reshape(-1)

    def shared(self, box: Box, base: int, base_reach: int) -> Indices:
        """Synapses of each list that differs from all others: axons that reach the same kernel positions share one.

        Neurons of a part lie row by row with the channel last, behind ``base`` others. An axon adds an offset of less than
        ``base_reach`` to its list (0: any), so lists that must begin further away from each other are stored again.
        """
        weights, rows, columns = self._parts(box)
        (first, last), _, (left, right) = self._box(box)
        offset = base + (rows.first[:, None] * (right - left) + columns.first) * (last - first)
        window = offset // base_reach if base_reach else np.zeros_like(offset)
        kinds = rows.pattern[:, None] * len(columns.patterns) + columns.pattern
        kind, _ = np.divmod(np.unique(kinds * (window.max(initial=0) + 1) + window), window.max(initial=0) + 1)
        counts = np.rint(rows.patterns @ (weights @ columns.patterns.T)).astype(np.int64).reshape(self.inputs, -1)
        sizes = counts[:, kind].reshape(-1)
        return np.asarray(sizes[sizes > 0])

    def kernel(self, box: Box) -> int:
        """See :class:`Reach`; an output channel has weights for the input channels of its group."""
        (first, last), _, _ = self._box(box)
        return (last - first) * int(np.prod(self.present.shape[1:]))


def convolution_of(node: nir.Conv1d | nir.Conv2d, present: Mask, given: Shape, made: Shape) -> Convolution:
    """Reach of a convolution. present: where its weights are not zero, in their shape; given, made: shapes with channels."""
    one_row = isinstance(node, nir.Conv1d)
    found = [Axis(readers) for readers in conv_readers(node, given, made)]
    rows = Axis(np.zeros((1, 1), np.int64)) if one_row else found[0]
    return Convolution(present[:, :, None] if one_row else present, int(node.groups), given[0], (rows, found[-1]), one_row)
