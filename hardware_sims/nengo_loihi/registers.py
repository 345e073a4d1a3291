"""What nengo-loihi's emulator computes in a step: ``loihi_step`` of ``models/arithmetic.py`` but for three narrower registers.

::

    q = a << 6                                        "sum"     wraps at 22 bits, [-2^21, 2^21)
    u = trunc(u (4095 - du) / 4096) + q               "edge"    wraps at 24 bits, [-2^23, 2^23)
    w = u + bias                                      "biased"  wraps at 24 bits, [-2^23, 2^23)
    v = clip(trunc(v (4096 - dv) / 4096) + w)         to +-(2^23 - 1)
    s = v > (vth << 6) ;  v = 0 where s               strict; refractory delay 1: it may fire in every step

Lava has 32 bits for q and for u + bias, and wraps u into (-2^23, 2^23]. Everything else is the same: decays of 12 bits with an
offset of 1 in that of u, truncation toward zero, saturation, comparison, reset. Read in ``nengo_loihi/emulator/interface.py``
and ``builder/discretize.py`` of 1.1.0, and compared with the emulator itself in ``tests/hardware_sims/
test_nengo_loihi_backend.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from snn_export.models.arithmetic import (
    DECAY_MAX,
    DECAY_ONE,
    STATE_SHIFT,
    decay_toward_zero,
    fires,
    reset_to_zero,
    saturate_membrane,
    wrap_current,
)

SUM_BITS, STATE_BITS = 22, 24
"""Of the registers, sign included."""

SUM_MAX = (1 << (SUM_BITS - 1 - STATE_SHIFT)) - 1
"""Largest synaptic sum, unshifted, that does not wrap; -SUM_MAX - 1 is the smallest."""

NARROW = {
    "sum": "synaptic sums wrap at 22 bits",
    "biased": "current plus bias wraps at 24 bits before it is added to the membrane",
    "edge": "a current of exactly 2^23 becomes -2^23",
}
"""The three registers in which the emulator and Lava differ, as the worker names them."""


def signed(value: Any, bits: int) -> Any:
    """``value`` as a two's complement register of ``bits`` bits holds it."""
    half = 1 << (bits - 1)
    return ((value + half) & (2 * half - 1)) - half


def emulated_step(
    u: Any,
    v: Any,
    synaptic_sum: Any,
    bias: Any,
    du: Any,
    dv: Any,
    threshold: Any,
    narrow: Collection[str] = tuple(NARROW),
) -> tuple[Any, Any, Any]:
    """One step of the emulator's compartments, on int64.

    Args:
        u: current.
        v: membrane.
        synaptic_sum: a, unshifted.
        bias: shifted by its exponent.
        du: current decay, 0..4095.
        dv: membrane decay, 0..4095.
        threshold: vth << 6.
        narrow: which of the three registers are the emulator's; the others are Lava's.

    Returns:
        u, v after the reset, spikes.
    """
    added = synaptic_sum << STATE_SHIFT
    added = signed(added, SUM_BITS) if "sum" in narrow else added
    wide = decay_toward_zero(u, DECAY_MAX - du) + added
    new_u = signed(wide, STATE_BITS) if "edge" in narrow else wrap_current(wide)
    pushed = signed(new_u + bias, STATE_BITS) if "biased" in narrow else new_u + bias
    new_v = saturate_membrane(decay_toward_zero(v, DECAY_ONE - dv) + pushed)
    spikes = fires(new_v, threshold)
    return new_u, reset_to_zero(new_v, spikes), spikes
