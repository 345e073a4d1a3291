"""From wires to Lava's processes: Conv, Dense or Sparse, with the steps a spike waits beyond the one every synapse takes.

A convolution stays one (Lava's Conv) where that computes the same: no delay, no loop, no weight exponent, padding alike on both
sides, sizes that fit its registers. Every other one is written out as the matrix it is, entry by entry, which Lava's Sparse
holds. A matrix goes into Dense, or into Sparse where it is large and nearly empty; delays go into DelayDense and DelaySparse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES, Shape, conv_padding, per_axis
from snn_export.export.wiring import Wire

Array = NDArray[Any]

GEOMETRY_MAX = 127
"""Lava's Conv holds kernel size, stride, padding, dilation and groups in 8 bits, signed."""

SPARSE_FROM = 1 << 16
"""Entries of a matrix from which it can pay to leave out zeros."""

DELAY_DENSE_MAX = 1 << 27
"""Entries of the matrix that Lava's DelayDense makes anew in every step: the weights once for each length of delay."""

SPARSE_ONE_IN = {False: 50, True: 10}
"""Non-zero entries, one in so many, from which Sparse is the faster one; by whether there are delays."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """One connection as the worker is told about it: ``facts`` go into ``request.json``, ``arrays`` under their name and the
    connection's index into ``arrays.npz`` (see ``lava/worker.py``).
    """

    facts: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)


def lower(deployment: Deployment, wire: Wire, index: dict[str, int]) -> Lowered:
    """The connection of a wire. ``index`` numbers the populations; what is not in it is the input."""
    node, synapse = deployment.graph.nodes[wire.weight], deployment.synapses[wire.weight]
    encoder, from_input = deployment.contract.encoder, wire.source not in index
    given, taken = input_shape(deployment, wire), deployment.shapes[wire.weight]
    extra = extra_delay(deployment, wire, given)
    facts: dict[str, Any] = {
        "source": index.get(wire.source, -1),
        "target": index[wire.target],
        "weight_exponent": synapse.weight_exponent,
        "sign_mode": synapse.sign_mode,
        "message_bits": encoder.bits if from_input and not encoder.binary else 0,
        "cleared": wire.most > 0,
        "delayed": False,
    }
    if isinstance(node, CONV_TYPES) and stays_convolution(deployment, wire):
        return _convolution(node, synapse.weight, facts, given, taken)
    facts |= {"input_shape": list(given), "output_shape": list(taken)}
    if isinstance(node, nir.Affine | nir.Linear) and not _pays_to_leave_zeros_out(synapse.weight, extra):
        return _dense(synapse.weight, facts, extra)
    return _sparse(*entries(node, synapse.weight, given, taken), facts, extra)


def _pays_to_leave_zeros_out(weight: Array, extra: tuple[Array, Array]) -> bool:
    most = sum(int(part.max(initial=0)) for part in extra)
    few = SPARSE_ONE_IN[most > 0] * int(np.count_nonzero(weight)) <= weight.size
    return (weight.size >= SPARSE_FROM and few) or (most > 0 and weight.size * (most + 1) > DELAY_DENSE_MAX)


def stays_convolution(deployment: Deployment, wire: Wire) -> bool:
    """True where Lava's Conv computes a convolutional wire as it stands."""
    node = deployment.graph.nodes[wire.weight]
    padding = conv_padding(node)
    sizes = [*node.weight.shape[2:], *per_axis(node.stride, 2), *per_axis(node.dilation, 2), *np.ravel(padding), int(node.groups)]
    even = all(before == after for before, after in padding)
    undelayed = wire.most == 0 and deployment.latency_gap(wire) == 0
    return undelayed and even and max(sizes) <= GEOMETRY_MAX and deployment.synapses[wire.weight].weight_exponent == 0


def input_shape(deployment: Deployment, wire: Wire) -> Shape:
    """Shape that enters the weight node of a wire."""
    path = wire.connection.path
    place = path.index(wire.weight)
    return deployment.shapes[path[place - 1] if place else wire.source]


def extra_delay(deployment: Deployment, wire: Wire, given: Shape) -> tuple[Array, Array]:
    """Steps each synapse delays beyond the one it takes anyway, as (outputs,) and (inputs,) to be added."""
    after = np.broadcast_to(wire.after, deployment.shapes[wire.weight]).ravel()
    return after + deployment.latency_gap(wire), np.broadcast_to(wire.before, given).ravel()


def _convolution(node: nir.Conv1d | nir.Conv2d, weight: Array, facts: dict[str, Any], given: Shape, taken: Shape) -> Lowered:
    """A Conv1d is a Conv2d over a single row."""
    pad = 2 - len(conv_padding(node))
    row = (1,) * pad
    facts |= {
        "kind": "conv",
        "input_shape": [given[0], *row, *given[1:]],
        "output_shape": [taken[0], *row, *taken[1:]],
        "stride": [*row, *per_axis(node.stride, 2 - pad)],
        "dilation": [*row, *per_axis(node.dilation, 2 - pad)],
        "padding": [*(0,) * pad, *(before for before, _ in conv_padding(node))],
        "groups": int(node.groups),
    }
    return Lowered(facts, {"weight": weight.reshape(*weight.shape[:2], *row, *weight.shape[2:]).astype(np.int16)})


def _dense(weight: Array, facts: dict[str, Any], extra: tuple[Array, Array]) -> Lowered:
    arrays: dict[str, Array] = {"weight": weight.astype(np.int16)}
    delay = extra[0][:, None] + extra[1][None, :]
    if delay.any():
        arrays["delay"] = delay.astype(np.uint8)
    return Lowered({**facts, "kind": "dense", "delayed": "delay" in arrays}, arrays)


def _sparse(rows: Array, columns: Array, values: Array, facts: dict[str, Any], extra: tuple[Array, Array]) -> Lowered:
    arrays: dict[str, Array] = {
        "weight": values.astype(np.int16),
        "row": rows.astype(np.int32),
        "column": columns.astype(np.int32),
    }
    delay = extra[0][rows] + extra[1][columns]
    if delay.any():
        arrays["delay"] = delay.astype(np.uint8)
    return Lowered({**facts, "kind": "sparse", "delayed": "delay" in arrays}, arrays)


def entries(node: nir.NIRNode, weight: Array, given: Shape, taken: Shape) -> tuple[Array, Array, Array]:
    """The matrix of a weight node as (row, column, value) of its non-zero entries; features in (C, H, W) order."""
    if isinstance(node, CONV_TYPES):
        rows, columns, values = _convolution_entries(node, weight, given, taken)
    elif isinstance(node, nir.Scale):
        rows = columns = np.arange(np.prod(given))
        values = np.broadcast_to(weight if weight.size > 1 else weight.reshape(()), given).ravel()
    else:
        rows, columns = np.nonzero(weight)
        values = weight[rows, columns]
    kept = values != 0
    return rows[kept], columns[kept], values[kept]


def _convolution_entries(node: nir.Conv1d | nir.Conv2d, weight: Array, given: Shape, taken: Shape) -> tuple[Array, Array, Array]:
    """Kernel position by kernel position: which input each output sees there, -1 in the padding."""
    axes = len(given) - 1
    stride, dilation, groups = per_axis(node.stride, axes), per_axis(node.dilation, axes), int(node.groups)
    source = np.pad(
        np.arange(np.prod(given)).reshape(given), ((0, 0), *conv_padding(node)), constant_values=-1
    )  # number of each input
    target = np.arange(np.prod(taken)).reshape(groups, taken[0] // groups, 1, *taken[1:])
    kernels = weight.reshape(groups, taken[0] // groups, -1, *weight.shape[2:])
    found: list[tuple[Array, Array, Array]] = []
    for position in np.ndindex(*weight.shape[2:]):
        window = tuple(
            slice(at * d, at * d + (size - 1) * s + 1, s)
            for at, d, s, size in zip(position, dilation, stride, taken[1:], strict=True)
        )
        seen = source[(slice(None), *window)].reshape(groups, 1, -1, *taken[1:])
        value = kernels[(..., *position)].reshape(*kernels.shape[:3], *(1,) * axes)
        rows, columns, values = np.broadcast_arrays(target, seen, value)
        inside = columns >= 0
        found.append((rows[inside], columns[inside], values[inside]))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns, values
