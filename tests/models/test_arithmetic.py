"""The equations: equal on every kind of number that runs them, and equal to what snnTorch and exact fractions say."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from snn_export.hardware_sims.loihi import equations
from snn_export.models import arithmetic

states = st.integers(-(1 << 23), 1 << 23)
wide = st.integers(-(1 << 31), 1 << 31)
decays = st.integers(0, 4095)
FEW = settings(max_examples=150, deadline=None)

INTEGER_FUNCTIONS: dict[str, tuple[Callable[..., object], tuple[st.SearchStrategy[int], ...]]] = {
    "decay_toward_zero": (arithmetic.decay_toward_zero, (states, st.integers(0, 4096))),
    "wrap_current": (arithmetic.wrap_current, (wide,)),
    "saturate_membrane": (arithmetic.saturate_membrane, (wide,)),
    "current_overflows": (arithmetic.current_overflows, (wide,)),
    "membrane_overflows": (arithmetic.membrane_overflows, (wide,)),
    "fires": (arithmetic.fires, (states, states)),
    "reset_to_zero": (arithmetic.reset_to_zero, (states, st.integers(0, 1))),
}
COMPILED = {name: njit(function) for name, (function, _) in INTEGER_FUNCTIONS.items()}


@njit
def compiled_step(u, v, a, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
    """As the kernels of the simulator compile it: in 32 bits where the state has 32."""
    return equations.step_to_zero(u, v, a, bias, du, dv, threshold)


@njit
def compiled_step_subtract(u, v, a, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
    return equations.step_by_subtraction(u, v, a, bias, du, dv, threshold)


def truncated(state: int, keep: int) -> int:
    """trunc(state * keep / 4096) by exact fractions: int() of a Fraction truncates toward zero."""
    return int(Fraction(state * keep, 4096))


@pytest.mark.parametrize("name", INTEGER_FUNCTIONS)
@FEW
@given(data=st.data())
def test_integers_agree_on_numpy_torch_and_numba(name: str, data: st.DataObject) -> None:
    function, ranges = INTEGER_FUNCTIONS[name]
    columns = [data.draw(st.lists(values, min_size=4, max_size=4)) for values in ranges]
    by_numpy = np.asarray(function(*(np.array(column, np.int64) for column in columns)))
    by_torch = function(*(torch.tensor(column, dtype=torch.int64) for column in columns))
    by_numba = [COMPILED[name](*(np.int64(value) for value in row)) for row in zip(*columns, strict=True)]
    np.testing.assert_array_equal(by_numpy, by_torch.numpy())
    np.testing.assert_array_equal(by_numpy, np.array(by_numba))


@FEW
@given(u=states, v=states, a=st.integers(-(1 << 24), 1 << 24), bias=st.integers(-(1 << 19), 1 << 19), du=decays, dv=decays)
def test_loihi_step_is_exact_arithmetic(u: int, v: int, a: int, bias: int, du: int, dv: int) -> None:
    current = arithmetic.loihi_current(np.int64(u), du, np.int64(a))
    membrane = arithmetic.loihi_membrane(np.int64(v), dv, np.int64(u), np.int64(bias))
    assert current == truncated(u, 4095 - du) + 64 * a
    assert membrane == truncated(v, 4096 - dv) + u + bias


@FEW
@given(
    u=states, v=states, a=st.integers(-(1 << 24) + 1, (1 << 24) - 1), bias=st.integers(-(1 << 22), 1 << 22), du=decays, dv=decays,
    threshold=st.integers(0, (1 << 17) - 1),
)  # fmt: skip
def test_a_step_is_its_parts_in_both_widths_and_with_both_resets(
    u: int, v: int, a: int, bias: int, du: int, dv: int, threshold: int
) -> None:
    wide = [np.int64(x) for x in (u, v, a, bias)]
    new_u, new_v, wrapped, clipped = (int(x) for x in arithmetic.loihi_integrate(*wide, du, dv))
    over_u = truncated(u, 4095 - du) + 64 * a
    over_v = truncated(v, 4096 - dv) + new_u + bias
    assert new_u == over_u - (1 << 24) * (over_u > 1 << 23) + (1 << 24) * (over_u <= -(1 << 23))
    assert new_v == max(min(over_v, (1 << 23) - 1), 1 - (1 << 23))
    assert (bool(wrapped), bool(clipped)) == (new_u != over_u, new_v != over_v)
    spike = new_v > threshold << 6
    expected = (new_u, 0 if spike else new_v, spike, bool(wrapped), bool(clipped))
    subtracted = (new_u, new_v - (threshold << 6) * spike, *expected[2:])
    for integers in (wide, [np.int32(x) for x in (u, v, a, bias)]):
        assert tuple(int(x) for x in arithmetic.loihi_step(*integers, du, dv, threshold << 6)) == expected
        assert tuple(int(x) for x in arithmetic.loihi_step_subtract(*integers, du, dv, threshold << 6)) == subtracted
    for number in (np.int32, np.int64):
        given_ = [number(x) for x in (u, v, a, bias, du, dv, threshold << 6)]
        assert tuple(int(x) for x in compiled_step(*given_)) == expected
        assert tuple(int(x) for x in compiled_step_subtract(*given_)) == subtracted


@given(state=st.integers(-(1 << 50), 1 << 50), keep=st.integers(0, 4096))
def test_decay_of_wide_integers(state: int, keep: int) -> None:
    assert int(arithmetic.decay_toward_zero(np.int64(state), keep)) == truncated(state, keep)


@FEW
@given(state=states, keep=st.integers(0, 4096))
def test_decay_truncates_toward_zero_and_is_odd(state: int, keep: int) -> None:
    decayed = int(arithmetic.decay_toward_zero(np.int64(state), keep))
    assert decayed == truncated(state, keep)
    assert decayed == -int(arithmetic.decay_toward_zero(np.int64(-state), keep))
    assert abs(decayed) <= abs(state)


def test_current_wraps_once_and_keeps_plus_two_to_the_23() -> None:
    half, whole = 1 << 23, 1 << 24
    given_ = np.array([half, half + 1, -half, -half + 1, 0, whole, half + whole + 1])
    expected = [half, half + 1 - whole, -half + whole, -half + 1, 0, 0, half + 1]
    assert arithmetic.wrap_current(given_).tolist() == expected
    assert arithmetic.current_overflows(given_).tolist() == [False, True, True, False, False, True, True]


def test_membrane_saturates_symmetrically() -> None:
    top = (1 << 23) - 1
    given_ = np.array([top, top + 1, -top, -top - 1, 1 << 40, -(1 << 40), 0])
    assert arithmetic.saturate_membrane(given_).tolist() == [top, top, -top, -top, top, -top, 0]
    assert arithmetic.membrane_overflows(given_).tolist() == [False, True, False, True, True, True, False]


@FEW
@given(value=wide)
def test_overflow_flags_mean_that_the_value_changes(value: int) -> None:
    wide_value = np.int64(value)
    assert bool(arithmetic.current_overflows(wide_value)) == (arithmetic.wrap_current(wide_value) != wide_value)
    assert bool(arithmetic.membrane_overflows(wide_value)) == (arithmetic.saturate_membrane(wide_value) != wide_value)


def test_threshold_is_strict() -> None:
    assert arithmetic.fires(np.array([63, 64, 65]), 64).tolist() == [False, False, True]
    assert not arithmetic.fires(0.3, 0.3)
    assert arithmetic.fires(np.nextafter(0.3, 1.0), 0.3)


@pytest.mark.parametrize(("mantissa", "exponent", "expected"), [(3, 7, 384), (-3, 2, -12), (-3, -1, -2), (3, -1, 1), (5, 0, 5)])
def test_mantissa_shift(mantissa: int, exponent: int, expected: int) -> None:
    assert arithmetic.shift_mantissa(np.int64(mantissa), exponent) == expected


def test_every_decay_is_exact_in_float32() -> None:
    betas = [arithmetic.decay_from_integer(dv) for dv in range(4096)]
    assert [float(np.float32(beta)) for beta in betas] == betas
    assert [Fraction(beta) for beta in betas] == [Fraction(4096 - dv, 4096) for dv in range(4096)]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("dv", [0, 1, 1000, 4095])
def test_float_step_is_snntorch_leaky_in_float64(reset: str, dv: int) -> None:
    """Step by step and bit for bit: the canonical neuron is snnTorch's, with the reset in the step of the spike.

    The threshold has few bits, because snnTorch's spikes are float32 whatever the state is, and theta * s with them. Membranes
    stay below twice the threshold: above, snnTorch subtracts a second time, before the next comparison.
    """
    rng, theta, beta = np.random.default_rng(dv), 0.6875, arithmetic.decay_from_integer(dv)
    leaky = snntorch.Leaky(beta=beta, threshold=theta, reset_mechanism=reset, reset_delay=False).double()
    leaky.threshold = leaky.threshold.new_tensor(theta, dtype=torch.float64)
    leaky.beta = leaky.beta.new_tensor(beta, dtype=torch.float64)
    v, membrane, fired = np.zeros(50), torch.zeros(50, dtype=torch.float64), 0
    for _ in range(60):
        x = rng.uniform(-0.5, theta * (2 - beta), 50)
        spikes, membrane = leaky(torch.from_numpy(x), membrane)
        v = arithmetic.integrate(v, beta, x)
        s = arithmetic.fires(v, theta)
        v = arithmetic.reset_to_zero(v, s) if reset == "zero" else arithmetic.reset_by_subtraction(v, s, theta)
        fired += int(s.sum())
        np.testing.assert_array_equal(spikes.detach().numpy() > 0, s)
        np.testing.assert_array_equal(membrane.detach().numpy(), v)
    assert fired > 100


LATE = {
    ("Leaky", "zero"): arithmetic.late_zero_step, ("Leaky", "subtract"): arithmetic.late_subtract_step,
    **{(kind, "zero"): arithmetic.late_clearing_step for kind in ("Synaptic", "RLeaky", "RSynaptic")},
    **{(kind, "subtract"): arithmetic.late_subtract_step for kind in ("Synaptic", "RLeaky", "RSynaptic")},
}  # fmt: skip


def in_float64(kind: str, beta: float, alpha: float, theta: float, reset: str, delay: bool) -> snntorch.SpikingNeuron:
    """A neuron of snnTorch that hears nobody, its constants in float64; theta has few bits, as its spikes are float32."""
    filtered = {"alpha": alpha} if "Synaptic" in kind else {}
    alone = {"V": 0.0, "all_to_all": False} if kind.startswith("R") else {}
    neuron = getattr(snntorch, kind)(**filtered, **alone, beta=beta, threshold=theta, reset_mechanism=reset, reset_delay=delay)
    for name, value in {"beta": beta, "threshold": theta, **filtered}.items():
        setattr(neuron, name, torch.tensor(value, dtype=torch.float64))
    return neuron


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["Leaky", "Synaptic", "RLeaky", "RSynaptic"]), reset=st.sampled_from(["zero", "subtract"]),
    delay=st.booleans(), dv=st.integers(0, 4095), du=st.integers(0, 4095), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_resets_are_snntorchs_in_float64(kind: str, reset: str, delay: bool, dv: int, du: int, seed: int) -> None:
    """Bit for bit, with membranes far above twice the threshold: every reset the installed snnTorch has."""
    filtered, rng, theta = "Synaptic" in kind, np.random.default_rng(seed), 0.6875
    alpha = arithmetic.alpha_from_integer(du) if filtered else 0.0
    beta = arithmetic.decay_from_integer(dv)
    neuron = in_float64(kind, beta, alpha, theta, reset, delay)
    delay = delay or kind == "RSynaptic"  # its reset in the step of the spike is computed and dropped
    u, v = np.zeros(40), np.zeros(40)
    state = tuple(torch.zeros(40, dtype=torch.float64) for _ in range(2 if filtered else 1))
    fired = torch.zeros(40, dtype=torch.float64)
    for _ in range(30):
        x = rng.uniform(-theta, 3 * theta, 40)
        heard = (fired,) if kind.startswith("R") else ()
        with torch.no_grad():
            fired, *state = neuron(torch.from_numpy(x), *heard, *state)
        if delay:
            u, v = LATE[kind, reset](u, v, x, alpha, beta, 1.0, 0.0, theta)
            s = arithmetic.fires(v, theta)
        else:
            before = v
            u, v = arithmetic.canonical_step(u, v, x, alpha, beta, 1.0, 0.0)
            if reset == "zero":
                s = arithmetic.fires(v, theta)
                v = arithmetic.reset_to_zero(v, s)
            else:
                v, s = arithmetic.reset_by_double_subtraction(before, v, theta)
        np.testing.assert_array_equal(fired.numpy() > 0, s)
        np.testing.assert_array_equal(state[-1].numpy(), v)
