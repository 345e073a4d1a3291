"""From wires to what the emulator has: blocks, axons with a step of latency, and synapses that are lists of integers.

matrices    every weight node is written out as the sparse matrix it is, by source neuron: the emulator's form. A convolution of
            its own it has for whole nengo networks only
delays      the emulator has none ("delay not yet implemented"). A spike that waits d steps travels over d populations of relay
            neurons, which fire for every spike they hear; a delayed input is sent later
levels      the emulator has no graded spikes. A level is sent as the bits of its absolute value, bit k over synapses shifted left
            by k, and those of negative levels over synapses of the opposite sign: the synaptic sum is the same
biases      of a current: one source that fires in every step, from the first step of its target on
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from snn_export.export import linear_maps
from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES, Shape
from snn_export.export.wiring import Wire
from snn_export.models.arithmetic import shift_mantissa

Array = NDArray[Any]
Source = list[str | int]
"""["population", index], ["relay", index] or ["input", index]."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """Relays, inputs, synapses and arrays of a request; see ``nengo_loihi/worker.py`` for the fields."""

    relays: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    synapses: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)


def lower(deployment: Deployment) -> Lowered:
    """Everything between the populations, which are numbered in the order of ``deployment.layers``."""
    made, index = Lowered(), {name: number for number, name in enumerate(deployment.layers)}
    lines = _Lines(deployment, made, index)
    count = 0
    for target in deployment.layers:
        for wire in deployment.wires[target]:
            exponent = max(deployment.synapses[wire.weight].weight_exponent, 0)
            for delay, matrix in _by_delay(deployment, wire):
                by_source = matrix.tocsc()
                made.arrays[f"start_{count}"] = by_source.indptr.astype(np.int32)
                made.arrays[f"target_{count}"] = by_source.indices.astype(np.int32)
                made.arrays[f"weight_{count}"] = by_source.data.astype(np.int32)
                for source, shift, sign in lines.of(wire.source, delay):
                    fact = {"source": source, "target": index[target], "matrix": count, "exponent": exponent + shift}
                    made.synapses.append({**fact, "sign": sign})
                count += 1
    return made


def delay_of(deployment: Deployment, wire: Wire) -> tuple[Array, Array]:
    """Steps a spike waits beyond the one every synapse takes, as (outputs,) and (inputs,) to be added."""
    after = np.broadcast_to(wire.after, deployment.shapes[wire.weight]).ravel()
    return after + deployment.latency_gap(wire), np.broadcast_to(wire.before, _given(deployment, wire)).ravel()


def synapses_of(deployment: Deployment, wire: Wire) -> int:
    """Synapses of a wire at most, counted without writing it out."""
    node = deployment.graph.nodes[wire.weight]
    if not isinstance(node, CONV_TYPES):
        return int(np.prod(deployment.shapes[wire.weight])) if isinstance(node, nir.Scale) else int(node.weight.size)
    window = linear_maps.window_of(node, _given(deployment, wire), deployment.shapes[wire.weight])
    return 0 if window is None else linear_maps.synapse_count(window)


def level_bits(deployment: Deployment) -> tuple[int, tuple[int, ...]]:
    """Bits of the largest level's absolute value, and the signs that levels have."""
    encoder = deployment.contract.encoder
    if encoder.gain is None or encoder.binary:
        return 1, (1,)
    signs = tuple(sign for sign, there in ((1, encoder.high > 0), (-1, encoder.low < 0)) if there)
    return max(1, max(abs(encoder.low), abs(encoder.high)).bit_length()), signs


class _Lines:
    """What a synapse can listen to: populations and inputs, each a number of steps late."""

    def __init__(self, deployment: Deployment, made: Lowered, index: dict[str, int]) -> None:
        self._deployment, self._made, self._index = deployment, made, index
        self._relays: dict[tuple[str, int], int] = {}
        self._inputs: dict[int, int] = {}

    def of(self, source: str, delay: int) -> Iterator[tuple[Source, int, int]]:
        """Sources that carry what ``source`` sends, ``delay`` steps late, with the shift and the sign of their weights."""
        if source in self._index:
            yield self._late(source, delay), 0, 1
            return
        bits, signs = level_bits(self._deployment)
        if delay not in self._inputs:
            self._inputs[delay] = len(self._made.inputs)
            self._made.inputs.extend({"bit": bit, "sign": sign, "delay": delay} for sign in signs for bit in range(bits))
        for number in range(bits * len(signs)):
            yield ["input", self._inputs[delay] + number], number % bits, signs[number // bits]

    def _late(self, source: str, delay: int) -> Source:
        if delay == 0:
            return ["population", self._index[source]]
        if (source, delay) not in self._relays:
            before = self._late(source, delay - 1)
            self._relays[source, delay] = len(self._made.relays)
            self._made.relays.append({"source": before, "size": int(np.prod(self._deployment.shapes[source]))})
        return ["relay", self._relays[source, delay]]


def _by_delay(deployment: Deployment, wire: Wire) -> Iterator[tuple[int, sparse.csr_array]]:
    """The matrix (outputs, inputs) of a wire, in parts of one delay each."""
    matrix = _matrix(deployment, wire).tocoo()
    after, before = delay_of(deployment, wire)
    rows, columns = matrix.coords
    delays = after[rows] + before[columns]
    for delay in np.unique(delays):
        kept = delays == delay
        part = sparse.coo_array((matrix.data[kept], (rows[kept], columns[kept])), shape=matrix.shape)
        yield int(delay), sparse.csr_array(part)


def _matrix(deployment: Deployment, wire: Wire) -> sparse.csr_array:
    """Integer weights without their exponent, unless it is negative: then every weight is shifted down, which loses nothing."""
    synapse, node = deployment.synapses[wire.weight], copy.copy(deployment.graph.nodes[wire.weight])
    weight = shift_mantissa(synapse.weight.astype(np.int64), min(synapse.weight_exponent, 0)).astype(np.float64)
    setattr(node, "scale" if isinstance(node, nir.Scale) else "weight", weight)
    matrix = linear_maps.matrix(wire.weight, node, _given(deployment, wire), deployment.shapes[wire.weight])
    matrix.eliminate_zeros()
    return matrix


def _given(deployment: Deployment, wire: Wire) -> Shape:
    """Shape that enters the weight node of a wire."""
    path = wire.connection.path
    place = path.index(wire.weight)
    return deployment.shapes[path[place - 1] if place else wire.source]
