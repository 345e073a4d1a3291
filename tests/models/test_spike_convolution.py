"""Convolutions of spikes in integers: exact sums of counted weights, their moments, and what is left to floats."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.rate_based import engine, spike_convolution
from snn_export.models.rate_based.dsr import SpikeRepresentation
from snn_export.models.rate_based.slopes import SlopeRule
from snn_export.models.rate_based.spike_convolution import BYTES, convolve, fits, split
from snn_export.models.surrogates import Surrogate


def operators_work() -> bool:
    """The processor's speed is no matter here: the sums are right without matrix units too."""
    try:
        return spike_convolution._sums_are_right()
    except (AttributeError, RuntimeError):
        return False


needs_operators = pytest.mark.skipif(not operators_work(), reason="this torch has no convolution of bytes")


@pytest.fixture
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spike_convolution, "available", lambda: True)
    yield


def spikes_of(*shape: int, rate: float = 0.3, seed: int = 0) -> Tensor:
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate
    return drawn.byte().contiguous(memory_format=torch.channels_last)


def contiguous(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=kind)


def counted(weight: Tensor) -> Tensor:
    """The weights that the bytes stand for, float64."""
    digits, units = split(weight)
    worth = digits.double() * units.double()[:, None, None, None]
    return worth.unflatten(0, (BYTES, -1)).sum(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(-45, 45), st.integers(1, 4))
def test_bytes_hold_a_weight_to_half_a_unit(seed: int, power: float, channels: int) -> None:
    weight = torch.randn(channels, 5, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    digits, _ = split(weight)
    assert digits.dtype == torch.int8
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).double()
    assert ((counted(weight) - weight.double()).abs() <= largest / spike_convolution.LARGEST).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 127.5 / 128, -127.5 / 128, 2.0**-80, 3e38])
def test_weights_at_the_edges_of_what_bytes_hold(value: float) -> None:
    weight = torch.full((2, 1, 1, 1), value)
    found = counted(weight)
    assert found.isfinite().all()
    assert ((found - weight.double()).abs() <= max(abs(value), 2.0**-60) / spike_convolution.LARGEST).all()


@needs_operators
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9), inputs=st.integers(2, 40), outputs=st.integers(1, 40), size=st.integers(3, 11),
    kernel=st.integers(1, 3), stride=st.integers(1, 2), padding=st.integers(0, 2), dilation=st.integers(1, 2), bias=st.booleans(),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]), elements=st.sampled_from([1, 500, 10**6]),
)  # fmt: skip
def test_currents_are_the_exact_sums_rounded_once(
    batch: int, inputs: int, outputs: int, size: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool,
    rate: float, elements: int,
) -> None:  # fmt: skip
    if dilation * (kernel - 1) + 1 > size + 2 * padding:
        return
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=bias)
    spikes = spikes_of(batch, inputs, size, size, rate=rate)
    found = convolve(layer, spikes, elements, contiguous)
    exact = functional.conv2d(spikes.double(), counted(layer.weight.detach()), None, stride, padding, dilation)
    assert found.value.shape == exact.shape
    wanted = exact.float() if layer.bias is None else exact.float() + layer.bias.detach()[:, None, None]
    assert torch.equal(found.value, wanted)
    torch.testing.assert_close(found.mean.double(), found.value.double().mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
    variance = found.value.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(found.variance.double(), variance, rtol=1e-6, atol=1e-9)


@needs_operators
def test_many_products_are_rounded_twice_at_most() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(300, 4, 3, bias=False)
    spikes = spikes_of(3, 300, 8, 8, rate=0.9)
    found = convolve(layer, spikes, 1, contiguous).value
    exact = functional.conv2d(spikes.double(), counted(layer.weight.detach()))
    assert ((found - exact).abs() <= exact.abs() * 2.0**-24 + 2.0**-24 * layer.weight.abs().max()).all()
    assert (found == exact.float()).float().mean() > 0.9


@needs_operators
def test_threads_change_nothing() -> None:
    torch.manual_seed(0)
    layer, spikes = nn.Conv2d(8, 8, 3, padding=1), spikes_of(16, 8, 9, 9)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(convolve(layer, spikes, 10_000, contiguous))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].value, found[1].value)
    torch.testing.assert_close(found[0].variance, found[1].variance)


class Scaled(nn.Conv2d):
    """A layer of somebody else's, which does something else with its weights."""


@pytest.mark.usefixtures("on_any_processor")
def test_what_is_left_to_floats() -> None:
    spikes, layer = spikes_of(2, 4, 6, 6), nn.Conv2d(4, 4, 3)
    assert fits(layer, spikes)
    assert not fits(layer, spikes.float())
    assert not fits(layer, spikes.contiguous())
    assert not fits(nn.AvgPool2d(2), spikes)
    assert not fits(nn.Conv2d(4, 4, 3, groups=2), spikes)
    assert not fits(nn.Conv2d(4, 4, 3, padding="same"), spikes)
    assert not fits(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), spikes)
    assert not fits(Scaled(4, 4, 3), spikes)
    assert not fits(nn.Conv2d(4, 4, 3).double(), spikes)
    assert not fits(layer.to("meta"), spikes)
    broken = nn.Conv2d(4, 4, 3)
    nn.init.constant_(broken.weight, float("nan"))
    assert not fits(broken, spikes)


@pytest.mark.usefixtures("on_any_processor")
def test_layers_with_hooks_are_left_to_torch() -> None:
    spikes = spikes_of(2, 4, 6, 6)
    pruned = prune.l1_unstructured(nn.Conv2d(4, 4, 3), "weight", 0.5)  # computes its weights in a hook
    watched = nn.Conv2d(4, 4, 3)
    handle = watched.register_forward_hook(lambda *given: None)
    assert not fits(pruned, spikes)
    assert not fits(watched, spikes)
    handle.remove()
    assert fits(watched, spikes)


@pytest.mark.parametrize("failure", [AttributeError, RuntimeError])
def test_operators_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch, failure: type[Exception]) -> None:
    def gone() -> bool:
        raise failure("no such operator")

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setattr(spike_convolution, "_sums_are_right", gone)
    assert not spike_convolution.available.__wrapped__()


def test_asking_draws_no_random_number() -> None:
    """Or the first training of a process would differ from the second."""
    before = torch.get_rng_state()
    operators_work()
    with torch.device("meta"):
        operators_work()
    assert torch.equal(torch.get_rng_state(), before)


def test_operators_with_wrong_sums_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setattr(spike_convolution._Sums, "__call__", lambda self, spikes: torch.zeros(4, 144, 5, 5))
    assert not spike_convolution.available.__wrapped__()


def network(reset: str, threshold: float = 1.0) -> nn.Sequential:
    torch.manual_seed(1)
    rule = {"dv": 2048, "threshold": threshold, "surrogate": Surrogate("sigmoid", 4.0), "reset": reset}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate([(2, 6), (6, 8), (8, 5)], 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, stride=1 + (number == 2), padding=1, bias=number == 3)
        layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"lif{number}"] = Lif(**rule)
    layers |= {"pool": nn.AvgPool2d(2), "flatten": nn.Flatten(), "dense": nn.Linear(5 * 2 * 2, 3), "readout": Integrator()}
    return nn.Sequential(layers)


@needs_operators
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_spike_pass_in_integers_is_that_in_floats(monkeypatch: pytest.MonkeyPatch, reset: str, training: bool) -> None:
    """A sum in another order moves a membrane across its threshold once in a while, and no more than that."""
    images = torch.rand(7, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    states = []
    for integers in (True, False):
        monkeypatch.setattr(spike_convolution, "available", lambda answer=integers: answer)
        layers = network(reset, 1.0 if training else 0.1).train(training)
        states.append((engine.spike_pass(layers, images, 5, constant=True), layers))
    (ours, trained), (floats, other) = states
    for name in ("lif1", "lif2", "lif3"):
        rates, wanted = ours.neurons[name].rates, floats.neurons[name].rates
        assert 0.02 < wanted.mean() < 0.98
        assert (rates == wanted).float().mean() > 0.99
        same = rates == wanted
        torch.testing.assert_close(ours.neurons[name].slopes[same], floats.neurons[name].slopes[same], rtol=1e-3, atol=1e-3)
    for name, state in floats.norms.items():
        torch.testing.assert_close(ours.norms[name].mean, state.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.norms[name].variance, state.variance, rtol=1e-2, atol=1e-3)
    for mine, theirs in zip(trained.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)


@needs_operators
@pytest.mark.usefixtures("on_any_processor")
def test_gradients_reach_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    found = []
    for integers in (True, False):
        monkeypatch.setattr(spike_convolution, "available", lambda answer=integers: answer)
        layers = network("zero").train()
        states = engine.spike_pass(layers, images, 4, constant=True)
        engine.rate_pass(layers, images, states).logits.square().sum().backward()
        found.append([weight.grad for weight in layers.parameters()])
    for ours, floats in zip(*found, strict=True):
        assert ours is not None and floats is not None
        assert functional.cosine_similarity(ours.flatten(), floats.flatten(), dim=0) > 0.98 or floats.abs().max() < 1e-5


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.movedim(-3, -1).contiguous().movedim(-1, -3),
    "turned": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
}


@needs_operators
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("slopes", [None, SpikeRepresentation()])
def test_how_maps_lie_in_memory_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, layout: str, batch: int, constant: bool, slopes: SlopeRule | None
) -> None:
    """Of inputs that go straight into neurons too, and of a batch of one, whose layout torch cannot tell."""
    monkeypatch.setattr(spike_convolution, "available", lambda: True)
    layers = nn.Sequential(OrderedDict([("first", Lif(dv=2048, threshold=0.4, surrogate=Surrogate("sigmoid", 4.0))), *parts()]))
    layers.eval()
    steps = 4
    drawn = torch.rand(batch, 2, 6, 4, generator=torch.Generator().manual_seed(5))
    inputs = drawn if constant else torch.stack([drawn * (1 + step) / 3 for step in range(steps)])
    found = []
    for arranged in (inputs, LAYOUTS[layout](inputs)):
        layers.zero_grad()
        states = engine.spike_pass(layers, arranged, steps, constant=constant, slopes=slopes)
        result = engine.rate_pass(layers, arranged if constant else arranged.mean(0), states, taps=("first", "last"))
        result.logits.square().sum().backward()
        found.append([*result.taps.values(), result.logits, *(weight.grad for weight in layers.parameters())])
        rates = [state.rates for state in states.neurons.values()]
        assert all(rate.is_contiguous() or spike_convolution.stored_channels_last(rate) for rate in rates)
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def parts() -> list[tuple[str, nn.Module]]:
    torch.manual_seed(3)
    return [
        ("frozen", nn.BatchNorm2d(2)), ("conv", nn.Conv2d(2, 5, 3, padding=1)),
        ("last", Lif(dv=2048, threshold=0.2, surrogate=Surrogate("sigmoid", 4.0))),
        ("flatten", nn.Flatten()), ("dense", nn.Linear(5 * 6 * 4, 3)), ("readout", Integrator()),
    ]  # fmt: skip


def test_sequences_are_no_maps() -> None:
    """(T, B, C, L) has four axes, of which none is a height."""
    layers = nn.Sequential(OrderedDict([
        ("norm", nn.BatchNorm1d(3)), ("lif", Lif(dv=2048, threshold=0.5, surrogate=Surrogate("sigmoid", 4.0))),
        ("flatten", nn.Flatten()), ("dense", nn.Linear(15, 2)), ("readout", Integrator()),
    ]))  # fmt: skip
    inputs = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(1))
    turned = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    ours, wanted = (engine.spike_pass(copy.deepcopy(layers), x, 4, constant=False).neurons["lif"] for x in (turned, inputs))
    assert 0.05 < wanted.rates.mean() < 0.95
    torch.testing.assert_close(ours.rates, wanted.rates)
    torch.testing.assert_close(ours.slopes, wanted.slopes)
