"""The spiking equations of the whole project, stated once: canonical float and Loihi integer.

Every function here is elementwise and written with arithmetic, shift and comparison operators only. The same source
therefore runs on NumPy arrays, on torch tensors and, compiled by numba, on scalars: the float interpreter, the integer
oracle, the fast kernels and quantisation-aware training cannot drift apart, because they call the same lines.

Canonical neuron, one step, in this order::

    u = alpha * u + x + b_u            current
    v = beta * v + u + b_v             membrane
    s = v > theta                      strict
    v = 0 where s   ("zero")   or   v - theta * s   ("subtract")

Float neurons of snnTorch 1.0.0 whose resets are others, with r = [v > theta] of the membrane the step before left behind::

    v = beta * (1 - r) * v + u + b_v                       zero, a step late: Leaky
    v = (1 - r) * (beta * v + u + b_v)                     zero, a step late: Synaptic, RLeaky, RSynaptic
    v = beta * v + u + b_v - r * theta                     subtract, a step late: all of them
    s = beta * v + u + b_v - r * theta > theta             subtract, in the step of the spike, before v - theta * s

Loihi's integer neuron, one step (Davies et al., IEEE Micro 2018; as the ``fixed_pt`` models of lava-nc 0.10.0 compute
it, compared bit for bit in ``tests/hardware_sims/test_lava_parity.py``)::

    u = trunc(u * (4096 - (du + 1)) / 4096) + (a << 6)      wraps once at 24 bits
    v = trunc(v * (4096 - dv) / 4096) + u + bias            saturates at +-(2^23 - 1)
    s = v > (vth << 6)                                      strict
    v = 0 where s                                           u is left alone
    v = v - (vth << 6) where s                              in its place: a microcode neuron of Loihi 2, not Lava's

``a`` is the integer synaptic sum, ``bias`` the shifted mantissa; both decays truncate toward zero.
"""

from __future__ import annotations

from typing import Any

DECAY_BITS = 12
DECAY_ONE = 1 << DECAY_BITS
"""Decays are integers in units of 1/4096: beta = 1 - dv / DECAY_ONE."""

STATE_SHIFT = 6
"""Synaptic sums and thresholds are shifted left by this many bits before they meet u and v."""

STATE_WRAP = 1 << 24
STATE_MAX = (1 << 23) - 1
CURRENT_MAX = 1 << 23
"""u may hold +2^23 itself (Lava wraps strictly above it); v stops at STATE_MAX."""

FLOAT32_EXACT = 1 << 24
"""Below this float32 adds whole numbers exactly, in any order, as long as no partial sum reaches it."""

THRESHOLD_MAX = (1 << 17) - 1
WEIGHT_MIN, WEIGHT_MAX = -256, 254
"""The even integers a mixed-sign 8-bit synapse holds."""

BIAS_MANTISSA_MIN, BIAS_MANTISSA_MAX = -4096, 4095
BIAS_EXPONENT_MAX = 7
DECAY_MAX = DECAY_ONE - 1
FULL_CURRENT_DECAY = 4095
"""du of a neuron without synaptic filter: its u is the input of this step alone."""


# --- canonical float neuron ------------------------------------------------------------------------------------------


def decay_from_integer(dv: int) -> float:
    """Beta = 1 - dv/4096, the only place a float decay comes from (exact in float32 for every 12-bit dv)."""
    return 1.0 - dv / DECAY_ONE


def alpha_from_integer(du: int) -> float:
    """Current kept per step, alpha = 1 - (du + 1)/4096: du = 4095 keeps nothing of the current."""
    return (DECAY_ONE - (du + 1)) / DECAY_ONE


def tau_from_integer(decay: int, dt: float) -> float:
    """Time constant dt 4096 / decay that a continuous-time format stores for an integer decay > 0; unit of dt."""
    return dt * DECAY_ONE / decay


def weight_step(bits: int) -> int:
    """Distance of two weights on the mixed-sign grid of ``bits`` bits, sign included: 2 for 8 bits."""
    return 1 << (9 - bits)


def state_units(scale: float) -> float:
    """Membrane units per real 1.0 on a population's scale: 64 S."""
    return float(1 << STATE_SHIFT) * scale


def integrate(state: Any, decay: Any, drive: Any) -> Any:
    """One step of a leaky integrator, ``decay * state + drive``. Any float arrays of equal shape; same unit as state."""
    return decay * state + drive


def fires(membrane: Any, threshold: Any) -> Any:
    """Strict comparison ``v > theta`` as a boolean array: a membrane exactly at threshold is silent."""
    return membrane > threshold


def fires_from(membrane: Any, threshold: Any) -> Any:
    """``v >= theta`` as a boolean array: the comparison of packages whose neurons fire at their threshold."""
    return membrane >= threshold


def reset_to_zero(membrane: Any, spikes: Any) -> Any:
    """``v = 0`` where a neuron fired. Works for integer and float membranes; spikes is boolean or 0/1."""
    return membrane - membrane * spikes


def reset_by_subtraction(membrane: Any, spikes: Any, threshold: Any) -> Any:
    """``v -= theta`` where a neuron fired."""
    return membrane - threshold * spikes


def canonical_step(u: Any, v: Any, x: Any, alpha: Any, beta: Any, gain: Any, bias: Any) -> tuple[Any, Any]:
    """Integrate one step of the canonical neuron; comparison and reset follow with :func:`fires` and a reset.

    Args:
        u: current.
        v: membrane.
        x: input of this step, already in units of u.
        alpha: current kept per step.
        beta: membrane kept per step.
        gain: factor from current to membrane.
        bias: added to the membrane.

    Returns:
        u = alpha u + x and v = beta v + gain u + bias.
    """
    u = integrate(u, alpha, x)
    return u, integrate(v, beta, gain * u + bias)


def late_zero_step(
    u: Any, v: Any, x: Any, alpha: Any, beta: Any, gain: Any, bias: Any, threshold: Any, spikes: Any = None
) -> tuple[Any, Any]:
    """:func:`canonical_step` of a neuron that is reset to zero in the step after its spike; the input of that step stays.

    v = beta (1 - r) v + gain u + bias with r = [v > threshold]: snnTorch's ``Leaky(reset_mechanism="zero")``. ``spikes``: r of
    a neuron that fires otherwise than strictly above its threshold.
    """
    before = fires(v, threshold) if spikes is None else spikes
    return canonical_step(u, reset_to_zero(v, before), x, alpha, beta, gain, bias)


def late_clearing_step(
    u: Any, v: Any, x: Any, alpha: Any, beta: Any, gain: Any, bias: Any, threshold: Any, spikes: Any = None
) -> tuple[Any, Any]:
    """As :func:`late_zero_step`, but the input of the step after the spike is cleared with the membrane; the current is not.

    v = (1 - r) (beta v + gain u + bias): snnTorch's ``Synaptic``, ``RLeaky`` and ``RSynaptic`` with ``reset_mechanism="zero"``.
    """
    before = fires(v, threshold) if spikes is None else spikes
    after = canonical_step(u, v, x, alpha, beta, gain, bias)
    return after[0], reset_to_zero(after[1], before)


def late_subtract_step(
    u: Any, v: Any, x: Any, alpha: Any, beta: Any, gain: Any, bias: Any, threshold: Any, spikes: Any = None
) -> tuple[Any, Any]:
    """:func:`canonical_step` of a neuron that subtracts its threshold in the step after its spike: snnTorch's default.

    v = beta v + gain u + bias - r threshold, r as in :func:`late_zero_step`, or how many spikes there were.
    """
    before = fires(v, threshold) if spikes is None else spikes
    after = canonical_step(u, v, x, alpha, beta, gain, bias)
    return after[0], reset_by_subtraction(after[1], before, threshold)


def reset_by_double_subtraction(before: Any, membrane: Any, threshold: Any) -> tuple[Any, Any]:
    """Membrane after the reset, and spikes, where a membrane left above threshold has to pass twice the threshold to fire again.

    snnTorch 1.0.0's ``reset_mechanism="subtract", reset_delay=False`` subtracts r threshold before it compares, r = [before >
    threshold], and (s - r) threshold afterwards: in all, once per spike.

    Args:
        before: the membrane the step before left behind.
        membrane: as integrated in this step.
        threshold: of both comparisons.
    """
    again = fires(before, threshold)
    compared = reset_by_subtraction(membrane, again, threshold)
    spikes = fires(compared, threshold)
    return compared - threshold * (1.0 * spikes - 1.0 * again), spikes


def thresholds_held(membrane: Any, threshold: Any, at_threshold: bool) -> Any:
    """Spikes of a neuron that emits several in one step, as whole numbers in the membrane's own float type; 0 where it is silent.

    floor(v / theta) where v >= theta, or, of a strict comparison, ceil(v / theta) - 1 where v > theta.
    """
    held = membrane / threshold
    if at_threshold:
        return (held // 1.0) * fires_from(membrane, threshold)
    return (-(-held // 1.0) - 1.0) * fires(membrane, threshold)


# --- Loihi integer neuron --------------------------------------------------------------------------------------------


def decay_toward_zero(state: Any, keep: Any) -> Any:
    """``trunc(state * keep / 4096)`` for integers and keep in 0..4096.

    The state is split into its high bits h and its low twelve bits l, state = 4096 h + l, so that no product exceeds
    2^24 where |state| <= 2^23: the same lines are exact in int32, where vector units are twice as wide, and in int64. An
    arithmetic shift floors; adding 4095 to negative products first turns the floor into truncation toward zero, which is
    what sign(x) * (|x| >> 12) computes.
    """
    low = (state & (DECAY_ONE - 1)) * keep + (state < 0) * (DECAY_ONE - 1)
    return (state >> DECAY_BITS) * keep + (low >> DECAY_BITS)


def wrap_current(current: Any) -> Any:
    """Wrap u once into 24 bits: above 2^23 subtract 2^24, at or below -2^23 add it. +2^23 itself is kept."""
    return current - (current > CURRENT_MAX) * STATE_WRAP + (current <= -CURRENT_MAX) * STATE_WRAP


def saturate_membrane(membrane: Any) -> Any:
    """Clip v to +-(2^23 - 1)."""
    high = membrane - (membrane > STATE_MAX) * (membrane - STATE_MAX)
    return high - (high < -STATE_MAX) * (high + STATE_MAX)


def loihi_current(u: Any, du: Any, synaptic_sum: Any) -> Any:
    """U before the wrap: ``trunc(u (4095 - du) / 4096) + (a << 6)``; integers in and out."""
    return decay_toward_zero(u, DECAY_MAX - du) + (synaptic_sum << STATE_SHIFT)


def loihi_membrane(v: Any, dv: Any, u: Any, bias: Any) -> Any:
    """V before saturation: ``trunc(v (4096 - dv) / 4096) + u + bias``; bias already shifted by its exponent."""
    return decay_toward_zero(v, DECAY_ONE - dv) + u + bias


def loihi_integrate(u: Any, v: Any, synaptic_sum: Any, bias: Any, du: Any, dv: Any) -> tuple[Any, Any, Any, Any]:
    """Decay, add, wrap and saturate: one step of Loihi's integer neuron up to its comparison.

    Args:
        u: current.
        v: membrane.
        synaptic_sum: a, unshifted.
        bias: mantissa shifted by its exponent.
        du: current decay, 0..4095.
        dv: membrane decay, 0..4095.

    Returns:
        u, v before any reset, where u wrapped, where v saturated. int64, or int32 where 64 |a| + |u| + 2^24 < 2^31.
    """
    wide_u = loihi_current(u, du, synaptic_sum)
    new_u = wrap_current(wide_u)
    wide_v = loihi_membrane(v, dv, new_u, bias)
    return new_u, saturate_membrane(wide_v), current_overflows(wide_u), membrane_overflows(wide_v)


def whole_part(value: Any) -> Any:
    """Floats truncated toward zero to whole numbers: what an integer register keeps of a product."""
    floor = value // 1.0
    return floor + (floor < 0) * (floor != value)


def kept_in_floats(state: Any, keep: Any, truncated: bool) -> Any:
    """``state * keep / 4096`` on floats, for one ``keep`` in 0..4096; ``truncated``: as :func:`decay_toward_zero` computes it.

    float64 holds every product of 24-bit states and 12-bit decays exactly, so whole numbers give the same whole numbers. A state
    that does not decay (4096) is multiplied by nothing and loses nothing, whatever it holds; one that is forgotten (0) is 0.
    """
    product = state * keep / DECAY_ONE
    return whole_part(product) if truncated and 0 < keep < DECAY_ONE else product


def loihi_integrate_in_floats(
    u: Any, v: Any, drive: Any, bias: Any, kept_u: Any, kept_v: Any, truncated: bool, bounded: bool
) -> tuple[Any, Any, Any, Any]:
    """:func:`loihi_integrate` on float64 arrays of membrane units, with what sets it apart from :func:`canonical_step` optional.

    Args:
        u: current.
        v: membrane.
        drive: what the synapses add to u, already shifted: 64 a.
        bias: added to the membrane.
        kept_u: part of u kept per step, in 4096ths (4095 - du; need not be whole).
        kept_v: part of v, likewise (4096 - dv).
        truncated: what is kept loses its fraction, toward zero. What is added does not: a state is whole where all of that is.
        bounded: u wraps and v saturates at 24 bits.

    Returns:
        As :func:`loihi_integrate`; equal to it, number by number, where everything is whole and both are True. With neither it is
        the canonical step.
    """
    wide_u = kept_in_floats(u, kept_u, truncated) + drive
    new_u = wrap_current(wide_u) if bounded else wide_u
    wide_v = kept_in_floats(v, kept_v, truncated) + (new_u + bias)
    new_v = saturate_membrane(wide_v) if bounded else wide_v
    return new_u, new_v, current_overflows(wide_u) & bounded, membrane_overflows(wide_v) & bounded


def loihi_step(u: Any, v: Any, synaptic_sum: Any, bias: Any, du: Any, dv: Any, threshold: Any) -> tuple[Any, Any, Any, Any, Any]:
    """One whole step of Loihi's integer neuron, hard reset: :func:`loihi_integrate`, compare with vth << 6, v = 0 where s.

    Returns:
        u, v after the reset, spikes, where u wrapped, where v saturated.
    """
    new_u, new_v, wrapped, clipped = loihi_integrate(u, v, synaptic_sum, bias, du, dv)
    spikes = fires(new_v, threshold)
    return new_u, reset_to_zero(new_v, spikes), spikes, wrapped, clipped


def loihi_step_subtract(
    u: Any, v: Any, synaptic_sum: Any, bias: Any, du: Any, dv: Any, threshold: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """As :func:`loihi_step` with ``v -= vth << 6`` where s, after the saturation: a microcode neuron of Loihi 2, not Lava's."""
    new_u, new_v, wrapped, clipped = loihi_integrate(u, v, synaptic_sum, bias, du, dv)
    spikes = fires(new_v, threshold)
    return new_u, reset_by_subtraction(new_v, spikes, threshold), spikes, wrapped, clipped


def current_overflows(unwrapped: Any) -> Any:
    """True where :func:`wrap_current` changes the value."""
    return (unwrapped > CURRENT_MAX) | (unwrapped <= -CURRENT_MAX)


def membrane_overflows(unclipped: Any) -> Any:
    """True where :func:`saturate_membrane` changes the value."""
    return (unclipped > STATE_MAX) | (unclipped < -STATE_MAX)


def shift_mantissa(mantissa: Any, exponent: int) -> Any:
    """``mantissa << exponent``, or an arithmetic right shift (floor) where the exponent is negative."""
    return mantissa << exponent if exponent >= 0 else mantissa >> -exponent
