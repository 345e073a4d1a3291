"""The integer neuron over all steps, compiled.

The equations are not written here: numba compiles the functions of ``models/arithmetic.py``, the same ones the int64
interpreter calls with NumPy. Nothing is cached on disk, because numba's cache looks at the date of the calling file only and
would go on running old equations after ``arithmetic.py`` changed.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from snn_export.models import arithmetic

for _equation in (
    arithmetic.decay_toward_zero,
    arithmetic.wrap_current,
    arithmetic.saturate_membrane,
    arithmetic.loihi_current,
    arithmetic.loihi_membrane,
    arithmetic.current_overflows,
    arithmetic.membrane_overflows,
    arithmetic.fires,
    arithmetic.reset_to_zero,
    arithmetic.loihi_step,
):
    register_jitable(_equation)

BLOCK = 4096
"""Neurons whose state stays in the first-level cache while time runs over them."""


@njit(parallel=True, nogil=True)
def scan(drive, bias, du, dv, threshold, spikes, currents, membranes):  # type: ignore[no-untyped-def]
    """Step a population from zero state.

    Args:
        drive: (S, N) int32 synaptic sums, S = T or 1 (the same in every step); N = batch x neurons.
        bias: (M,) int64, M neurons; N is a multiple of M.
        du: current decay, 0..4095.
        dv: membrane decay, 0..4095.
        threshold: in membrane units, already shifted.
        spikes: (T, N) bool, written.
        currents: (T, N) int32, written, or (0, N) where not wanted.
        membranes: likewise.

    Returns:
        Number of wraps of u plus saturations of v.
    """
    steps, size = spikes.shape
    neurons = bias.shape[0]
    changing = drive.shape[0] > 1
    keep_u, keep_v = currents.shape[0] > 0, membranes.shape[0] > 0
    overflows = np.int64(0)
    for block in prange((size + BLOCK - 1) // BLOCK):
        low, high = block * BLOCK, min((block + 1) * BLOCK, size)
        u = np.zeros(high - low, np.int64)
        v = np.zeros(high - low, np.int64)
        for t in range(steps):
            row = t if changing else 0
            for n in range(low, high):
                new_u, new_v, fired, wrapped, clipped = arithmetic.loihi_step(
                    u[n - low], v[n - low], np.int64(drive[row, n]), bias[n % neurons], du, dv, threshold
                )
                overflows += np.int64(wrapped) + np.int64(clipped)
                u[n - low], v[n - low] = new_u, new_v
                spikes[t, n] = fired
                if keep_u:
                    currents[t, n] = new_u
                if keep_v:
                    membranes[t, n] = new_v
    return overflows
