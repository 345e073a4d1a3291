"""Compiled loops over time: neurons, and the spikes that reach them.

No equation stands here: the step of a neuron is ``models/arithmetic.py``, compiled in 32 bits where no synaptic sum reaches
2^24 and in 64 bits elsewhere (``equations.py``); the width follows the dtype of the state arrays.

A kernel runs a range of samples over all steps of a chunk, one sample after the other, so that a sample's state stays in the
first-level cache while time runs. Kernels release the GIL and start no threads of their own: the simulator gives each of its
threads a range of samples. All arrays are flat and C-ordered; (T, B, N) below means an array of T * B * N values.

Spikes travel as bytes of 0 or 1. Where a layer is driven by spikes alone, no matrix product is made: 64 bytes at a time are
turned into a bit mask, and each spike adds its rows of weights (``fan_out.py``) to the sums of the step. That costs as much as
there are spikes, which at the usual few per cent is several times cheaper than the dense product.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from snn_export.hardware_sims.loihi import kernel_cache
from snn_export.hardware_sims.loihi.equations import step_by_subtraction, step_to_zero, step_without_filter

LANES = 16
"""Weights added at once; runs of weights are cut into pieces of this size."""

MODE_FAST, MODE_ZERO, MODE_SUBTRACT = 0, 1, 2
"""Neuron without filter, reset to zero, proven to overflow nowhere; any neuron reset to zero; reset by subtraction."""


@intrinsic
def _spike_mask(typingctx, spikes, offset):  # type: ignore[no-untyped-def]
    """Bit k of the result: spikes[offset + k] is not 0, for 64 bytes."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        block = ir.VectorType(ir.IntType(8), 64)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), block.as_pointer())
        load = builder.load(pointer, align=1)
        return builder.bitcast(builder.icmp_unsigned("!=", load, ir.Constant(block, None)), ir.IntType(64))

    return types.uint64(spikes, types.intp), build


@intrinsic
def _lowest_bit(typingctx, mask):  # type: ignore[no-untyped-def]
    """Index of the lowest 1 of a mask that is not 0."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), build


@intrinsic
def _add_lanes(typingctx, sums, at, weights, start):  # type: ignore[no-untyped-def]
    """sums[at : at + LANES] += weights[start : start + LANES], the weights widened to the sums' integers."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointers = []
        for position in (0, 2):
            array = context.make_array(signature.args[position])(context, builder, arguments[position])
            element = context.get_value_type(signature.args[position].dtype)
            block = ir.VectorType(element, LANES)
            pointers.append((builder.bitcast(builder.gep(array.data, [arguments[position + 1]]), block.as_pointer()), block))
        (target, wide), (source, narrow) = pointers
        added = builder.load(source, align=narrow.element.width // 8)
        if narrow.element.width < wide.element.width:
            added = builder.sext(added, wide)
        total = builder.add(builder.load(target, align=wide.element.width // 8), added)
        builder.store(total, target, align=wide.element.width // 8)
        return context.get_dummy_value()

    if not isinstance(sums, types.Array) or not isinstance(weights, types.Array):
        return None
    return types.void(sums, types.intp, weights, types.intp), build


@register_jitable
def _add_run(sums, at, weights, start, length):  # type: ignore[no-untyped-def]
    """sums[at : at + length] += weights[start : start + length]."""
    whole = length - length % LANES
    for k in range(0, whole, LANES):
        _add_lanes(sums, at + k, weights, start + k)
    for k in range(whole, length):
        sums[at + k] += weights[start + k]


@register_jitable
def _add_spike(sums, at, j, first, runs, weights):  # type: ignore[no-untyped-def]
    """Add the weights of source neuron ``j`` to the sums that begin at ``at``."""
    for run in range(first[j], first[j + 1]):
        _add_run(sums, at + runs[run, 0], weights, np.int64(runs[run, 1]), runs[run, 2])


@register_jitable
def _add_spikes(sums, spikes, offset, sources, first, runs, weights):  # type: ignore[no-untyped-def]
    """Add what ``spikes[offset : offset + sources]`` bring to ``sums``."""
    whole = sources - sources % 64
    for base in range(0, whole, 64):
        mask = _spike_mask(spikes, offset + base)
        while mask != 0:
            _add_spike(sums, 0, base + _lowest_bit(mask), first, runs, weights)
            mask &= mask - np.uint64(1)
    for j in range(whole, sources):
        if spikes[offset + j]:
            _add_spike(sums, 0, j, first, runs, weights)


@register_jitable
def _neurons_fast(sums, bias, bias_at, v, state_at, fired, out_at, size, dv, threshold):  # type: ignore[no-untyped-def]
    for n in range(size):
        v[state_at + n], fired[out_at + n] = step_without_filter(v[state_at + n], sums[n], bias[bias_at + n], dv, threshold)


@register_jitable
def _neurons(  # type: ignore[no-untyped-def]
    sums, bias, bias_at, u, v, state_at, fired, out_at, size, du, dv, threshold, mode
):
    overflows = np.int64(0)
    if mode == MODE_SUBTRACT:
        for n in range(size):
            new_u, new_v, spike, wrapped, clipped = step_by_subtraction(
                u[state_at + n], v[state_at + n], sums[n], bias[bias_at + n], du, dv, threshold
            )
            overflows += np.int64(wrapped) + np.int64(clipped)
            u[state_at + n], v[state_at + n], fired[out_at + n] = new_u, new_v, spike
    else:
        for n in range(size):
            new_u, new_v, spike, wrapped, clipped = step_to_zero(
                u[state_at + n], v[state_at + n], sums[n], bias[bias_at + n], du, dv, threshold
            )
            overflows += np.int64(wrapped) + np.int64(clipped)
            u[state_at + n], v[state_at + n], fired[out_at + n] = new_u, new_v, spike
    return overflows


@register_jitable
def _record(source, source_at, into, at, size):  # type: ignore[no-untyped-def]
    """Copy a row, where ``into`` is wanted at all (not empty)."""
    if into.shape[0] > 0:
        for n in range(size):
            into[at + n] = source[source_at + n]


@register_jitable
def _count(fired, out_at, counts, at, size):  # type: ignore[no-untyped-def]
    if counts.shape[0] > 0:
        for n in range(size):
            counts[at + n] += fired[out_at + n]


@register_jitable
def _clear_periodically(u, v, at, size, step, interval, offset):  # type: ignore[no-untyped-def]
    """Lava's LIFReset: zero state before the steps that ``NeuronSpec.resets_at`` names."""
    if interval > 0 and step % interval == offset:
        for n in range(size):
            u[at + n], v[at + n] = 0, 0


@njit(nogil=True)
def advance(  # type: ignore[no-untyped-def]
    spikes, sources, first, runs, weights, drive, drive_steps, constant, bias, biases, u, v, registers,
    fired, currents, membranes, counts, low, high, batch, steps, start,
):  # fmt: skip
    """Samples ``low..high`` of a population without a loop, over all steps of a chunk.

    Args:
        spikes: (T, B, sources) uint8, what drives the population, or empty.
        sources: neurons of the source, 0 for none.
        first, runs, weights: its fan-out, see ``fan_out.py``.
        drive: (S, B, N) synaptic sums that come from elsewhere, any dtype; S = T, 1 (the same in every step) or 0.
        drive_steps: S.
        constant: (N,) added to every sum.
        bias: (N,) or (B, N) membrane units.
        biases: rows of bias, 1 or B.
        u, v: (B, N) int32 or int64, updated; all arithmetic has their width. u is left alone in MODE_FAST.
        registers: (6,) du, dv, threshold in membrane units, mode, reset interval, reset offset; dtype of v.
        fired: (T, B, N) uint8, written.
        currents, membranes: (T, B, N), written, or empty.
        counts: (B, N) spikes per neuron, added to, or empty.
        batch, steps, start: B, T, and the local step of the chunk's first row.

    Returns:
        Number of wraps of u plus saturations of v (0 in MODE_FAST, where none can happen).
    """
    size = constant.shape[0]
    du, dv, threshold, mode = registers[0], registers[1], registers[2], registers[3]
    sums = np.zeros(size + LANES, v.dtype)
    overflows = np.int64(0)
    for b in range(low, high):
        state_at, bias_at = b * size, (b if biases > 1 else 0) * size
        for t in range(steps):
            row = t * batch + b
            out_at = row * size
            if drive_steps > 0:
                drive_at = (row if drive_steps > 1 else b) * size
                for n in range(size):
                    sums[n] = constant[n] + v.dtype.type(drive[drive_at + n])
            else:
                for n in range(size):
                    sums[n] = constant[n]
            if sources > 0:
                _add_spikes(sums, spikes, row * sources, sources, first, runs, weights)
            _clear_periodically(u, v, state_at, size, start + t, registers[4], registers[5])
            if mode == MODE_FAST:
                _neurons_fast(sums, bias, bias_at, v, state_at, fired, out_at, size, dv, threshold)
            else:
                overflows += _neurons(sums, bias, bias_at, u, v, state_at, fired, out_at, size, du, dv, threshold, mode)
                _record(u, state_at, currents, out_at, size)
            _record(v, state_at, membranes, out_at, size)
            _count(fired, out_at, counts, state_at, size)
    return overflows
