"""snnTorch-style neurons on integers: forward is the chip, backward the canonical float neuron, called as snnTorch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import surrogate

from snn_export.models import arithmetic
from snn_export.models.neurons.integer_lif import IntegerLeaky, IntegerReset, IntegerSynaptic

EQUATIONS: dict[IntegerReset, Any] = {"zero": arithmetic.loihi_step, "subtract": arithmetic.loihi_step_subtract}


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6), du=st.integers(0, 4095), dv=st.integers(0, 4095), threshold=st.integers(0, 131071),
    reset=st.sampled_from(["zero", "subtract"]), size=st.sampled_from([10, 1000, 1 << 17]),
)  # fmt: skip
def test_forward_is_the_integer_step(seed: int, du: int, dv: int, threshold: int, reset: IntegerReset, size: int) -> None:
    """From states anywhere in 24 bits, wraps and saturations included."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-size, size + 1, 50)
    u, v = rng.integers(-(2**23) + 1, 2**23, 50), rng.integers(-(2**23) + 1, 2**23, 50)
    bias = rng.integers(-4096, 4096, 50) << int(rng.integers(0, 8))
    new_u, new_v, fired, _, _ = EQUATIONS[reset](u, v, a, bias, du, dv, threshold << arithmetic.STATE_SHIFT)
    given_values = [torch.tensor(x, dtype=torch.float32) for x in (a, u, v, bias)]
    spikes, syn, mem = IntegerSynaptic(du, dv, threshold, reset=reset)(*given_values)
    np.testing.assert_array_equal(spikes.numpy(), fired)
    np.testing.assert_array_equal(syn.numpy(), new_u)
    np.testing.assert_array_equal(mem.numpy(), new_v)


def test_a_current_that_leaves_24_bits_is_that_of_64_bit_arithmetic() -> None:
    """Sums at their limit with a slow filter: u wraps once per step and grows beyond 2^31."""
    a, step = np.full(3, (1 << 24) - 1), IntegerSynaptic(1, 0, 131071)
    u, v = np.zeros(3, np.int64), np.zeros(3, np.int64)
    syn, mem = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(8):
        u, v, fired, _, _ = arithmetic.loihi_step(u, v, a, 0, 1, 0, 131071 << arithmetic.STATE_SHIFT)
        spikes, syn, mem = step(torch.tensor(a, dtype=torch.float64), syn, mem)
        np.testing.assert_array_equal(syn.numpy(), u)
        np.testing.assert_array_equal(mem.numpy(), v)
        np.testing.assert_array_equal(spikes.numpy(), fired)
    assert u.min() > 1 << 31


def test_leaky_is_a_synaptic_that_forgets_its_current() -> None:
    a = torch.randint(-500, 500, (6, 4, 5)).float()
    leaky, synaptic = IntegerLeaky(700, 90), IntegerSynaptic(4095, 700, 90)
    mem, (syn, other) = leaky.init_leaky(), synaptic.init_synaptic()
    for x in a:
        spikes, mem = leaky(x, mem)
        expected, syn, other = synaptic(x, syn, other)
        assert torch.equal(spikes, expected)
        assert torch.equal(mem, other)


def float_twin(a: torch.Tensor, alpha: float, beta: float, theta: float, reset: IntegerReset) -> list[torch.Tensor]:
    """snnTorch's own Synaptic in chip units: spikes and membranes of every step."""
    units = float(1 << arithmetic.STATE_SHIFT)
    slope = surrogate.fast_sigmoid(slope=5.0)
    neuron = snntorch.Synaptic(
        alpha=alpha, beta=beta, threshold=theta * units, reset_mechanism=reset, reset_delay=False,
        spike_grad=lambda x: slope(x / (theta * units)),
    )  # fmt: skip
    syn, mem = neuron.init_synaptic()
    history = []
    for x in a:
        spikes, syn, mem = neuron(units * x, syn, mem)
        history += [spikes, mem]
    return history


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_gradient_is_that_of_snntorch(reset: IntegerReset) -> None:
    """Decays by powers of two lose nothing to truncation here, so that both neurons pass through the same states.

    Membranes stay below twice the threshold: above it snnTorch's own subtraction is another one.
    """
    torch.manual_seed(0)
    steps = 64 * torch.randint(-1, 3, (8, 3, 4)).double()
    weights = torch.randn(16, 3, 4)
    found = []
    for integer in (True, False):
        a = steps.clone().requires_grad_()
        if integer:
            neuron = IntegerSynaptic(2047, 2048, 200, reset=reset)
            syn, mem = neuron.init_synaptic()
            history: list[torch.Tensor] = []
            for x in a:
                spikes, syn, mem = neuron(x, syn, mem)
                history += [spikes, mem]
        else:
            history = float_twin(a, 0.5, 0.5, 200.0, reset)
        sum((w * h).sum() for w, h in zip(weights, history, strict=True)).backward()  # type: ignore[union-attr]
        found.append((torch.stack([h.detach().double() for h in history]), a.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert 0 < found[0][0][::2].sum() < found[0][0][::2].numel()
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)


def test_readout_learns_from_its_membrane_alone() -> None:
    neuron = IntegerLeaky(0, arithmetic.THRESHOLD_MAX, spiking=False)
    x = torch.full((1, 3), 10.0, requires_grad=True)
    spikes, mem = neuron(x, neuron.init_leaky())
    assert not spikes.requires_grad
    mem.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[64.0, 64.0, 64.0]]


def test_membrane_at_the_threshold_is_silent() -> None:
    neuron = IntegerLeaky(0, 5)
    spikes, mem = neuron(torch.tensor([[5.0, 6.0]]), neuron.init_leaky())
    assert spikes.tolist() == [[0.0, 1.0]]
    assert mem.tolist() == [[5 * 64.0, 0.0]]


@pytest.mark.parametrize("mine", [IntegerLeaky(512, 3), IntegerSynaptic(2047, 512, 3)])
def test_called_as_snntorch_calls_its_own(mine: Any) -> None:
    """The loop of a snnTorch tutorial runs with either."""
    twins = {IntegerLeaky: snntorch.Leaky(beta=0.875), IntegerSynaptic: snntorch.Synaptic(alpha=0.5, beta=0.875)}
    for neuron in (mine, twins[type(mine)]):
        start = neuron.init_leaky() if hasattr(neuron, "init_leaky") else neuron.init_synaptic()
        state = start if isinstance(start, tuple) else (start,)
        for _ in range(3):
            spikes, *state = neuron(torch.ones(2, 4), *state)
            assert spikes.shape == state[-1].shape == (2, 4)
