"""The canonical neuron, stated a second time, for expectations too long to write down as spike trains.

Written from the equations and not with ``models/arithmetic.py``, which most simulators compute with: it is under test too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def lif(drive: Array, theta: float = 1.0, beta: float = 1.0) -> tuple[Array, Array]:
    """Spikes and membranes (T, ...) of a LIF with reset to zero, drive (T, ...) added to the membrane; beta 1 for an IF."""
    v = np.zeros_like(drive[0], np.float64)
    spikes, membranes = np.zeros(drive.shape, bool), np.zeros(drive.shape)
    for t, x in enumerate(drive):
        v = beta * v + x
        spikes[t] = v > theta
        v = np.where(spikes[t], 0.0, v)
        membranes[t] = v
    return spikes, membranes


def correlation(x: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int], dilation: int = 1) -> Array:
    """What NIR and torch call a convolution: x (N, C, H, W), weight (out, C, kH, kW), by plain loops over output places."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    reach = [dilation * (size - 1) + 1 for size in weight.shape[2:]]
    rows, columns = ((padded.shape[2 + a] - reach[a]) // stride[a] + 1 for a in (0, 1))
    out = np.zeros((len(x), len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            window = padded[:, :, top : top + reach[0] : dilation, left : left + reach[1] : dilation]
            out[:, :, i, j] = np.tensordot(window, weight, axes=((1, 2, 3), (1, 2, 3)))
    return out
