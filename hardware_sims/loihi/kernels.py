"""Compiled loops over time: neurons, and the spikes that reach them.

No equation stands here: the step of a neuron is ``models/arithmetic.py``, compiled in 32 bits where no synaptic sum reaches
2^24 and in 64 bits elsewhere (``equations.py``); the width follows the dtype of the state arrays.

A kernel runs the samples of a chunk over all its steps, one sample after the other, so that a sample's state stays in the
first-level cache while time runs. Kernels release the GIL and start no threads of their own: each thread of the simulator has
chunks of its own. All arrays are flat and C-ordered; (T, B, N) below means an array of T * B * N values.

Spikes travel as bytes of 0 or 1. Where a layer is driven by spikes alone, no matrix product is made: 64 bytes at a time are
turned into a bit mask, and each spike adds its rows of weights (``fan_out.py``) to the sums of the step. That costs as much as
there are spikes, which at the usual few per cent is several times cheaper than the dense product.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, register_jitable

from snn_export.hardware_sims.loihi import kernel_cache
from snn_export.hardware_sims.loihi.equations import step_by_subtraction, step_to_zero, step_without_filter

LANES = 16
"""Weights added at once; runs of weights are cut into pieces of this size."""

MODE = 3
"""Where the mode stands among a population's registers."""

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
    """Index of the lowest 1 of a mask, 64 where there is none."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic
def _at(typingctx, array, index):  # type: ignore[no-untyped-def]
    """array[index] of a flat array as int64, without numba's test for a negative index."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.sext(builder.load(builder.gep(held.data, [arguments[1]])), ir.IntType(64))

    return types.int64(array, types.intp), build


@intrinsic
def _put(typingctx, array, index, value):  # type: ignore[no-untyped-def]
    """array[index] = value for a flat int32 array, likewise."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        builder.store(builder.trunc(arguments[2], ir.IntType(32)), builder.gep(held.data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), build


@intrinsic
def _ones(typingctx, mask):  # type: ignore[no-untyped-def]
    """Number of 1s in a mask."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


@intrinsic
def _add_lanes(typingctx, sums, at, weights, start):  # type: ignore[no-untyped-def]
    """sums[at : at + LANES] += weights[start : start + LANES], the weights widened to the sums' integers."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        """Two vector loads, one addition, one store; arrays are aligned to their elements only."""
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


@register_jitable(inline="always")
def _add_run(sums, at, weights, start, length):  # type: ignore[no-untyped-def]
    """sums[at : at + length] += weights[start : start + length]."""
    k = 0
    while k + LANES <= length:
        _add_lanes(sums, at + k, weights, start + k)
        k += LANES
    while k < length:
        sums[at + k] += weights[start + k]
        k += 1


@register_jitable(inline="always")
def _mask_up_to(spikes, offset, count):  # type: ignore[no-untyped-def]
    """Bit k of the result: spikes[offset + k] is not 0, for the next 64 bytes or the ``count`` that are left."""
    if count >= 64:
        mask = _spike_mask(spikes, offset)
    else:
        mask = np.uint64(0)
        for k in range(count):
            mask |= np.uint64(spikes[offset + k]) << np.uint64(k)
    return mask


@register_jitable
def _list_spikes(spikes, offset, sources, events):  # type: ignore[no-untyped-def]
    """Indices of the bytes of ``spikes[offset : offset + sources]`` that are not 0; returns their number.

    Eight indices are written at a time, whether there are as many or not: no branch depends on a single spike.
    """
    found = 0
    for base in range(0, sources, 64):
        mask = _mask_up_to(spikes, offset + base, sources - base)
        at = found
        found += _ones(mask)
        while at < found:
            for k in range(8):
                _put(events, at + k, base + _lowest_bit(mask))
                mask &= mask - np.uint64(1)
            at += 8
    return found


@register_jitable
def _add_uniform(sums, events, found, places, rows, lanes, weights):  # type: ignore[no-untyped-def]
    """Add the weights of the listed neurons, all runs of one length."""
    for k in range(found):
        begin = 2 * rows * _at(events, k)
        for place in range(begin, begin + 2 * rows, 2):
            to, start = _at(places, place), _at(places, place + 1)
            for lane in range(0, lanes, LANES):
                _add_lanes(sums, to + lane, weights, start + lane)


@register_jitable
def _add_ragged(sums, events, found, first, runs, weights):  # type: ignore[no-untyped-def]
    """Add the weights of the listed neurons."""
    for k in range(found):
        j = _at(events, k)
        for run in range(3 * _at(first, j), 3 * _at(first, j + 1), 3):
            _add_run(sums, _at(runs, run), weights, _at(runs, run + 1), _at(runs, run + 2))


@register_jitable
def _neurons_fast(sums, bias, v, fired, dv, threshold):  # type: ignore[no-untyped-def]
    """One step of all neurons of a row, MODE_FAST; leaves the sums at 0."""
    if len(bias) > 0:
        for n in range(len(v)):
            v[n], fired[n] = step_without_filter(v[n], sums[n], bias[n], dv, threshold)
            sums[n] = 0
    else:
        for n in range(len(v)):
            v[n], fired[n] = step_without_filter(v[n], sums[n], v.dtype.type(0), dv, threshold)
            sums[n] = 0


@register_jitable
def _neurons(sums, bias, u, v, fired, du, dv, threshold, mode):  # type: ignore[no-untyped-def]
    """One step of all neurons of a row; leaves the sums at 0 and returns the overflows."""
    overflows = np.int32(0)
    if mode == MODE_SUBTRACT:
        for n in range(len(v)):
            u[n], v[n], fired[n], wrapped, clipped = step_by_subtraction(u[n], v[n], sums[n], bias[n], du, dv, threshold)
            overflows += np.int32(wrapped) + np.int32(clipped)
            sums[n] = 0
    else:
        for n in range(len(v)):
            u[n], v[n], fired[n], wrapped, clipped = step_to_zero(u[n], v[n], sums[n], bias[n], du, dv, threshold)
            overflows += np.int32(wrapped) + np.int32(clipped)
            sums[n] = 0
    return overflows


@register_jitable
def _record(row, into, at):  # type: ignore[no-untyped-def]
    """Copy a row, where ``into`` is wanted at all (not empty)."""
    if len(into) > 0:
        into[at : at + len(row)] = row


@register_jitable
def _count(fired, counts, at):  # type: ignore[no-untyped-def]
    if len(counts) > 0:
        row = counts[at : at + len(fired)]
        for n in range(len(fired)):
            row[n] += fired[n]


@register_jitable
def _clear_periodically(u, v, step, interval, offset):  # type: ignore[no-untyped-def]
    """Lava's LIFReset: zero state before the steps that ``NeuronSpec.resets_at`` names."""
    if interval > 0 and step % interval == offset:
        u[:] = 0
        v[:] = 0


@register_jitable
def _begin_sums(sums, constant, drive):  # type: ignore[no-untyped-def]
    """Sums of a step, 0 before, begin as the constant plus what comes from elsewhere; either may be empty."""
    for n in range(len(drive)):
        sums[n] = sums.dtype.type(drive[n])
    for n in range(len(constant)):
        sums[n] += constant[n]


@njit(nogil=True)
def advance(  # type: ignore[no-untyped-def]
    spikes, sources, first, runs, weights, rows, lanes, drive, drive_steps, constant, bias, biases, u, v, registers,
    fired, currents, membranes, counts, batch, steps, start,
):  # fmt: skip
    """A population without a loop, over all steps of a chunk.

    Arrays and numbers:
        spikes: (T, B, sources) uint8, what drives the population, or empty.
        sources: neurons of the source, 0 for none.
        first, runs, weights: its fan-out, see ``fan_out.py``; ``runs`` holds the places of a uniform one where rows > 0.
        rows, lanes: of a uniform fan-out, or 0.
        drive: (S, B, N) synaptic sums that come from elsewhere, any dtype; S = T, 1 (the same in every step) or 0.
        drive_steps: S.
        constant: (N,) added to every sum, or empty.
        bias: (N,) or (B, N) membrane units; empty only in MODE_FAST.
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
    size = len(v) // batch
    du, dv, threshold, mode = registers[0], registers[1], registers[2], registers[3]
    spare = 64 // v.itemsize
    room = np.zeros(size + lanes + spare, v.dtype)
    begin = -(room.ctypes.data // v.itemsize) % spare
    sums, events = room[begin:], np.empty(sources + 8, np.int32)
    overflows = np.int64(0)
    for b in range(batch):
        here, bias_at = b * size, (b if biases > 1 else 0) * size
        u_row, v_row, bias_row = u[here : here + size], v[here : here + size], bias[bias_at : bias_at + size]
        for t in range(steps):
            row = t * batch + b
            at = row * size
            drive_at = (row if drive_steps > 1 else b) * size
            _begin_sums(sums, constant, drive[drive_at : drive_at + size if drive_steps > 0 else drive_at])
            if sources > 0:
                found = _list_spikes(spikes, row * sources, sources, events)
                if rows > 0:
                    _add_uniform(sums, events, found, runs, rows, lanes, weights)
                else:
                    _add_ragged(sums, events, found, first, runs, weights)
            _clear_periodically(u_row, v_row, start + t, registers[4], registers[5])
            fired_row = fired[at : at + size]
            if mode == MODE_FAST:
                _neurons_fast(sums, bias_row, v_row, fired_row, dv, threshold)
            else:
                overflows += _neurons(sums, bias_row, u_row, v_row, fired_row, du, dv, threshold, mode)
                _record(u_row, currents, at)
            _record(v_row, membranes, at)
            _count(fired_row, counts, here)
    return overflows


@njit(nogil=True)
def deliver(  # type: ignore[no-untyped-def]
    spikes, sources, first, runs, delays, weights, into, size, batch, steps
):
    """Add what spikes bring to sums in memory, later by each run's delay.

    Arrays and numbers:
        spikes: (T, B, sources) uint8.
        sources: neurons of the source.
        first, runs, delays, weights: its fan-out, see ``fan_out.py``.
        into: (T + longest delay, B, size) int32 or int64, added to.
        size: neurons of the target.
        batch, steps: B, T.
    """
    for b in range(batch):
        for t in range(steps):
            offset = (t * batch + b) * sources
            for base in range(0, sources, 64):
                mask = _mask_up_to(spikes, offset + base, sources - base)
                while mask != 0:
                    j = base + _lowest_bit(mask)
                    mask &= mask - np.uint64(1)
                    for run in range(_at(first, j), _at(first, j + 1)):
                        to = ((t + _at(delays, run)) * batch + b) * size + _at(runs, 3 * run)
                        _add_run(into, to, weights, _at(runs, 3 * run + 1), _at(runs, 3 * run + 2))


@njit(nogil=True)
def advance_together(  # type: ignore[no-untyped-def]
    sizes, drive_at, state_at, fired_at, source_at, registers, drive, bias, bias_rows, u, v,
    first, runs, delays, targets, weights, fired, currents, membranes, counts, overflows, batch, steps, start,
):  # fmt: skip
    """Populations that hear each other: all of them in a step, in order, then the next step.

    Arrays of several populations lie one after the other; ``*_at[p]`` is where population p begins.

    Arrays and numbers:
        sizes: (P,) neurons.
        drive_at, state_at, fired_at: begins of (T + D, B, N), (B, N) and (T, B, N).
        source_at: first row of its neurons in ``first``.
        registers: (P, 6), see :func:`advance`; MODE_FAST is not known here.
        drive: synaptic sums from outside, updated: a spike adds its weights to the step in which they arrive. D is the longest
            delay inside. The last D steps are left for the next chunk.
        bias: (N,) or (B, N) each, as ``bias_rows[p]`` says, one after the other.
        u, v: state, updated; all arithmetic has their width.
        first, runs, delays, targets, weights: fan-out of all neurons to the inside; targets names the population.
        fired, currents, membranes, counts: written, or empty (counts: added to).
        overflows: (P,) int64, wraps of u plus saturations of v, added to.
        batch, steps, start: as in :func:`advance`.
    """
    for b in range(batch):
        for t in range(steps):
            bias_begin = 0
            for p in range(sizes.shape[0]):
                size = sizes[p]
                du, dv, threshold, mode = registers[p, 0], registers[p, 1], registers[p, 2], registers[p, 3]
                here, at = state_at[p] + b * size, fired_at[p] + (t * batch + b) * size
                u_row, v_row, fired_row = u[here : here + size], v[here : here + size], fired[at : at + size]
                bias_at = bias_begin + (b if bias_rows[p] > 1 else 0) * size
                bias_begin += bias_rows[p] * size
                sums_at = drive_at[p] + (t * batch + b) * size
                _clear_periodically(u_row, v_row, start + t, registers[p, 4], registers[p, 5])
                overflows[p] += _neurons(
                    drive[sums_at : sums_at + size], bias[bias_at : bias_at + size], u_row, v_row, fired_row,
                    du, dv, threshold, mode,
                )  # fmt: skip
                _record(u_row, currents, at)
                _record(v_row, membranes, at)
                _count(fired_row, counts, here)
                for base in range(0, size, 64):
                    mask = _mask_up_to(fired, at + base, size - base)
                    while mask != 0:
                        j = source_at[p] + base + _lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        for run in range(_at(first, j), _at(first, j + 1)):
                            q = targets[run]
                            to = drive_at[q] + ((t + _at(delays, run)) * batch + b) * sizes[q] + _at(runs, 3 * run)
                            _add_run(drive, to, weights, _at(runs, 3 * run + 1), _at(runs, 3 * run + 2))


@njit(nogil=True)
def levels_as_bytes(values, gain, low, high, out):  # type: ignore[no-untyped-def]
    """Levels of an encoder that sends 0 and 1 only: clip(round_half_even(value * gain), low, high), flat arrays.

    Returns:
        Number of values that are not finite; their bytes mean nothing.
    """
    broken = 0
    for k in range(values.shape[0]):
        value = np.float64(values[k])
        broken += not np.isfinite(value)
        out[k] = np.uint8(min(max(np.rint(value * gain), np.float64(low)), np.float64(high)))
    return broken


for _kernel in (advance, deliver, advance_together, levels_as_bytes):
    kernel_cache.remembered(_kernel)
