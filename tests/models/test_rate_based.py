"""Rate-based backpropagation: the properties that define it, for every reset rule."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_export.models.delay import Delay
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif, LifRule, lif_steps
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.rate_based.engine import rate_pass, spike_pass
from snn_export.models.rate_based.gradients import rate_norm, rate_output
from snn_export.models.residual import ResidualSum
from snn_export.models.surrogates import Surrogate
from snn_export.models.unroll import unroll

SIGMOID = Surrogate("sigmoid", 4.0)
RESETS = [(reset, detached) for reset in ("zero", "subtract") for detached in (False, True)]


def population(reset: str = "zero", dv: int = 2048) -> nn.Module:
    if reset == "zero":
        return snntorch.Leaky(beta=1 - dv / 4096, spike_grad=SIGMOID, reset_mechanism="zero", reset_delay=False)
    return Lif(dv=dv, surrogate=SIGMOID, reset=reset)


def network(reset: str = "zero", dv: int = 2048) -> nn.Sequential:
    """Two convolutions with batch-norm, a residual block, a dense readout."""
    block = ResidualSum(
        nn.Sequential(OrderedDict(
            conv=nn.Conv2d(6, 6, 3, padding=1, bias=False), norm=nn.BatchNorm2d(6), lif=population(reset, dv),
            conv2=nn.Conv2d(6, 6, 3, padding=1), norm2=nn.BatchNorm2d(6),
        ))
    )  # fmt: skip
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(2, 6, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(6),
        lif1=population(reset, dv), pool=nn.AvgPool2d(2),
        block=block, lif2=population(reset, dv), flatten=nn.Flatten(), dense=nn.Linear(6 * 9, 4), readout=Integrator(),
    ))  # fmt: skip


def inputs(batch: int = 5) -> Tensor:
    return torch.rand(batch, 2, 6, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 2


@pytest.mark.parametrize(("reset", "detached"), RESETS)
@given(
    beta=st.integers(0, 4095), steps=st.integers(1, 12), threshold=st.floats(0.2, 3.0), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_slope_under_a_constant_input_is_that_of_autograd(
    reset: str, detached: bool, beta: int, steps: int, threshold: float, seed: int
) -> None:
    current = torch.randn(4, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(2).requires_grad_()
    layers = nn.Sequential(OrderedDict(lif=Lif(dv=beta, threshold=threshold, surrogate=SIGMOID, reset=reset)))
    states = spike_pass(layers, current.detach(), steps, constant=True, detach_reset=detached)
    rule = LifRule(1 - beta / 4096, threshold, SIGMOID, reset, detached)
    spikes, _ = lif_steps(current.expand(steps, 4, 25), rule)
    (wanted,) = torch.autograd.grad(spikes.mean(dim=0).sum(), current)
    torch.testing.assert_close(states.neurons["lif"].slopes, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(states.neurons["lif"].rates, spikes.mean(dim=0), rtol=0, atol=0)


@pytest.mark.parametrize(("reset", "detached"), RESETS)
def test_rates_are_the_mean_spikes_exactly(reset: str, detached: bool) -> None:
    torch.manual_seed(0)
    layers = network(reset).double()
    for layer in layers.modules():  # statistics the network would have after training, so that both passes are the same network
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.1, 0.3)
    layers.eval()
    spikes: dict[str, Tensor] = {}
    with torch.no_grad():
        membranes = unroll(layers, inputs(), 6, constant=True, listen=lambda name, found: spikes.update({name: found}))
    states = spike_pass(layers, inputs(), 6, constant=True, detach_reset=detached)
    result = rate_pass(layers, inputs(), states, taps=("lif1", "block.main.lif", "lif2"))
    assert set(result.taps) == set(spikes)
    for name, found in spikes.items():
        assert torch.equal(result.taps[name], found.mean(dim=0))
        assert 0.02 < found.mean() < 0.98
    torch.testing.assert_close(result.logits, membranes[-1] / 6, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("reset", "detached"), RESETS)
def test_with_one_step_the_gradients_are_those_of_bptt(reset: str, detached: bool) -> None:
    torch.manual_seed(0)
    layers = network(reset).double().train()
    other = copy.deepcopy(layers)
    weights = torch.randn(5, 4, dtype=torch.float64)
    through_time = unroll(layers, inputs(), 1, constant=True, detach_reset=detached)[-1]
    (through_time * weights).sum().backward()
    states = spike_pass(other, inputs(), 1, constant=True, detach_reset=detached)
    by_rates = rate_pass(other, inputs(), states).logits
    (by_rates * weights).sum().backward()
    torch.testing.assert_close(by_rates, through_time, rtol=0, atol=1e-12)
    for (name, mine), theirs in zip(other.named_parameters(), layers.parameters(), strict=True):
        assert mine.grad is not None, name
        assert mine.grad.abs().max() > 1e-12 or "conv2.bias" in name  # a bias in front of batch-norm changes nothing
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("reset", "detached"), RESETS)
def test_one_layer_under_a_constant_input_has_the_gradients_of_bptt(reset: str, detached: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        OrderedDict(dense=nn.Linear(8, 20), lif=population(reset), out=nn.Linear(20, 3), readout=Integrator())
    ).double()
    other = copy.deepcopy(layers)
    x = torch.randn(6, 8, dtype=torch.float64) * 3
    (unroll(layers, x, 8, constant=True, detach_reset=detached)[-1] / 8).square().sum().backward()
    states = spike_pass(other, x, 8, constant=True, detach_reset=detached)
    rate_pass(other, x, states).logits.square().sum().backward()
    for mine, theirs in zip(other.parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def kept_for_backward(pass_: Callable[[], Tensor]) -> int:
    """Bytes of all storages that autograd keeps between a forward pass and its backward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = pass_()
    assert logits.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize(("reset", "detached"), RESETS)
def test_what_is_kept_for_the_gradients_is_flat_in_time_where_that_of_bptt_is_linear(reset: str, detached: bool) -> None:
    layers, x = network(reset).double().train(), inputs()

    def rates(steps: int) -> Tensor:
        return rate_pass(layers, x, spike_pass(layers, x, steps, constant=True, detach_reset=detached)).logits

    def through_time(steps: int) -> Tensor:
        return unroll(layers, x, steps, constant=True, detach_reset=detached)[-1]

    flat = [kept_for_backward(lambda steps=steps: rates(steps)) for steps in (4, 8, 16)]
    linear = [kept_for_backward(lambda steps=steps: through_time(steps)) for steps in (4, 8, 16)]
    assert flat[0] == flat[1] == flat[2]
    assert linear[2] - linear[1] == pytest.approx(2 * (linear[1] - linear[0]), rel=0.02)
    assert linear[2] > 2.5 * linear[0]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_batch_norm_gives_the_time_mean_of_the_spike_pass(reset: str) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        OrderedDict(lif=population(reset), conv=nn.Conv2d(2, 5, 3), norm=nn.BatchNorm2d(5), lif2=population(reset))
    ).double()
    with torch.no_grad():
        layers.norm.weight.uniform_(0.5, 2)
        layers.norm.bias.uniform_(-1, 1)
    layers.train()
    spikes: dict[str, Tensor] = {}
    normalised: dict[str, Tensor] = {}
    reference = copy.deepcopy(layers)
    reference.lif2 = nn.Identity()
    reference.readout = Integrator()
    with torch.no_grad():
        membranes = unroll(reference, inputs() * 2, 5, constant=True, listen=lambda name, found: spikes.update({name: found}))
    normalised["norm"] = membranes[-1] / 5
    states = spike_pass(layers, inputs() * 2, 5, constant=True)
    short = nn.Sequential(OrderedDict(lif=layers.lif, conv=layers.conv, norm=layers.norm))
    torch.testing.assert_close(rate_pass(short, inputs() * 2, states).logits, normalised["norm"], rtol=0, atol=1e-12)


def test_running_statistics_change_once_per_step_and_as_torch_changes_them() -> None:
    torch.manual_seed(0)
    layers = network().double().train()
    other = copy.deepcopy(layers)
    unroll(other, inputs(), 4, constant=True)
    before = copy.deepcopy(dict(layers.named_buffers()))
    states = spike_pass(layers, inputs(), 4, constant=True)
    after = copy.deepcopy(dict(layers.named_buffers()))
    rate_pass(layers, inputs(), states)
    for name, buffer in layers.named_buffers():
        assert torch.equal(buffer, after[name]), name
    theirs = dict(other.named_buffers())
    for name in (name for name in after if "running" in name or "num_batches" in name):
        assert not torch.equal(before[name], after[name]), name
        torch.testing.assert_close(after[name], theirs[name], rtol=1e-9, atol=1e-12)


def test_batch_norm_gradients_are_those_of_the_published_expression() -> None:
    """m = m_rate + (m_spk - m_rate).detach(), and the same for v, every operation left to autograd."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mean, variance = torch.randn(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64) + 0.5
    loss = torch.randn(4, 3, 5, 5, dtype=torch.float64)

    def along(values: Tensor) -> Tensor:
        return values[:, None, None]

    own_mean = x.mean((0, 2, 3))
    own_variance = x.var((0, 2, 3), correction=0)
    m = own_mean + (mean - own_mean).detach()
    v = own_variance + (variance - own_variance).detach()
    wanted = (x - along(m)) / along((v + 1e-5).sqrt()) * along(weight) + along(bias)
    found = rate_norm(x, weight, bias, mean, variance, 1e-5)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    theirs = torch.autograd.grad((wanted * loss).sum(), (x, weight, bias))
    mine = torch.autograd.grad((found * loss).sum(), (x, weight, bias))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_batch_norm_with_its_own_statistics_is_batch_norm_and_passes_gradcheck() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def own(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3), correction=0)
        return rate_norm(x, weight, bias, mean, variance, 1e-5)

    plain = nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)
    torch.testing.assert_close(own(x, weight, bias), plain)
    assert torch.autograd.gradcheck(own, (x, weight, bias))


def test_rate_output_is_exact_and_differentiates_by_the_slopes() -> None:
    current = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    rates, slopes = torch.rand(3, 4, dtype=torch.float64) / 3, torch.rand(3, 4, dtype=torch.float64)
    found = rate_output(current, rates, slopes)
    assert torch.equal(found, rates)
    (gradient,) = torch.autograd.grad(found.sum(), current)
    assert torch.equal(gradient, slopes)


def test_event_input_is_carried_by_its_mean() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(OrderedDict(dense=nn.Linear(8, 20), lif=population(), out=nn.Linear(20, 3), readout=Integrator()))
    events = (torch.rand(7, 5, 8) < 0.3).float() * 3
    states = spike_pass(layers, events, 7, constant=False)
    result = rate_pass(layers, events.mean(dim=0), states)
    with torch.no_grad():
        wanted = unroll(layers, events, 7, constant=False)[-1] / 7
    torch.testing.assert_close(result.logits, wanted, rtol=1e-5, atol=1e-6)


def test_the_order_of_batch_norm_and_shortcut_clobbers_nothing() -> None:
    """Batch-norm works in place where it may: a shortcut that reads the same spikes must not see it."""
    torch.manual_seed(0)
    block = ResidualSum(nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(2), conv=nn.Conv2d(2, 2, 1))))
    layers = nn.Sequential(OrderedDict(block=block, lif=population(), readout=Integrator())).train()
    x = torch.randn(3, 2, 4, 4)
    kept = x.clone()
    states = spike_pass(layers, x, 3, constant=True)
    assert torch.equal(x, kept)
    with torch.no_grad():
        wanted = unroll(layers, x, 3, constant=True)[-1] / 3
    torch.testing.assert_close(states.neurons["lif"].rates, wanted, rtol=1e-5, atol=1e-6)


class Derived(Lif):
    """A neuron of somebody's own: what it computes is no plain LIF's any more."""

    def run_steps(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(currents), currents


def test_a_neuron_derived_from_lif_is_asked_itself() -> None:
    layers = nn.Sequential(OrderedDict(lif=Derived(dv=2048, surrogate=SIGMOID), readout=Integrator()))
    assert torch.equal(unroll(layers, torch.zeros(2, 3), 4, constant=True)[-1], torch.full((2, 3), 4.0))


@pytest.mark.parametrize("reset", ["none", "Zero"])
def test_a_reset_that_lif_does_not_have_is_refused(reset: str) -> None:
    with pytest.raises(UserError) as caught:
        Lif(dv=2048, surrogate=SIGMOID, reset=reset)  # type: ignore[arg-type]
    assert caught.value.code == "SNX012"


LATE = snntorch.Leaky(beta=0.5, spike_grad=SIGMOID, reset_mechanism="zero")
LOOP = Recurrent(snntorch.Leaky(beta=0.5), nn.Linear(4, 4))
OTHER_SLOPE = snntorch.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False)


@pytest.mark.parametrize(
    ("layers", "code", "words"),
    [
        ([nn.Linear(4, 4), population(), nn.MaxPool2d(2), nn.Linear(4, 2), Integrator()], "SNX280", "average pooling"),
        ([nn.Linear(4, 4), population(), nn.Dropout(), nn.Linear(4, 2), Integrator()], "SNX280", "dropout"),
        ([nn.Linear(4, 4), population(), nn.AvgPool1d(2), nn.Linear(2, 2), Integrator()], "SNX280", "convolution with a stride"),
        ([nn.Linear(4, 4), population(), Delay(torch.tensor(2)), nn.Linear(4, 2), Integrator()], "SNX280", "leave the delay out"),
        ([nn.Linear(4, 4), Derived(dv=2048, surrogate=SIGMOID), nn.Linear(4, 2), Integrator()], "SNX281", "Derived"),
        ([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), Integrator()], "SNX280", "rates cannot pass"),
        ([nn.Linear(4, 4), LATE, nn.Linear(4, 2), Integrator()], "SNX281", "reset_delay=False"),
        ([nn.Linear(4, 4), OTHER_SLOPE, nn.Linear(4, 2), Integrator()], "SNX281", "Surrogate"),
        ([nn.Linear(4, 4), snntorch.Synaptic(alpha=0.5, beta=0.5), nn.Linear(4, 2), Integrator()], "SNX281", "Synaptic"),
        ([nn.Linear(4, 4), LOOP, nn.Linear(4, 2), Integrator()], "SNX281", "Recurrent"),
        ([nn.Linear(4, 4), population(), nn.Linear(4, 2), Integrator(dv=100)], "SNX282", "bptt"),
        ([nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), population(), nn.Linear(4, 2), Integrator()], "SNX280", "affine"),
    ],
)  # fmt: skip
def test_what_rates_cannot_carry_is_refused_with_the_fix(layers: list[nn.Module], code: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        spike_pass(nn.Sequential(*layers), torch.zeros(1, 4), 2, constant=True)
    assert caught.value.code == code
    assert words in str(caught.value.diagnostics[0])
