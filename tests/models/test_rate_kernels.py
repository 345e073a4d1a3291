"""Compiled LIF steps: the spikes of torch's steps bit for bit, their slopes up to rounding, for any shape and batch-norm."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif, LifRule, lif_steps
from snn_export.models.rate_based import engine, kernels
from snn_export.models.surrogates import SLOPES, Surrogate

RESETS = [(reset, detached) for reset in ("zero", "subtract") for detached in (False, True)]


def currents(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def filled(rule: LifRule, value: Tensor, steps: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    spikes = torch.full((steps, *value.shape[1:]), 7, dtype=torch.uint8)
    rates, slopes = (torch.full(value.shape[1:], torch.nan) for _ in range(2))
    arriving = kernels.Currents(value, torch.ones(features), torch.zeros(features))
    kernels.run(rule, arriving, spikes, rates, slopes)
    return spikes, rates, slopes


@pytest.mark.parametrize(("reset", "detached"), RESETS)
@pytest.mark.parametrize("name", SLOPES)
def test_spikes_rates_and_slopes_are_those_of_torch(name: str, reset: str, detached: bool) -> None:
    rule = LifRule(0.7, 0.9, Surrogate(name, 1.7), reset, detached, initial=0.3)
    value = currents(1, 3, 700)  # one whole tile and a part of another
    spikes, rates, slopes = filled(rule, value, 9, 700)
    wanted, _ = lif_steps(value.expand(9, 3, 700), rule)
    assert torch.equal(spikes, wanted.to(torch.uint8))
    assert torch.equal(rates, wanted.mean(dim=0))
    assert 0.05 < rates.mean() < 0.95
    exact = value[0].double().requires_grad_()
    through, _ = lif_steps(exact.expand(9, 3, 700), rule)
    (by_autograd,) = torch.autograd.grad(through.mean(dim=0).sum(), exact)
    same = (through == wanted).all(dim=0)  # a membrane at the threshold, or at a rectangle's edge, may round to the other side
    close = torch.isclose(slopes.double(), by_autograd, rtol=2e-4, atol=2e-5)
    assert same.float().mean() > 0.99
    assert close[same].float().mean() > 0.999


@pytest.mark.parametrize("steps", [1, 300])
def test_currents_of_their_own_in_every_step(steps: int) -> None:
    rule = LifRule(0.5, 1.0, Surrogate("sigmoid", 4.0))
    value = currents(steps, 2, 5, 4)
    spikes, rates, _ = filled(rule, value, steps, 20)
    wanted, _ = lif_steps(value, rule)
    assert torch.equal(spikes, wanted.to(torch.uint8))
    torch.testing.assert_close(rates, wanted.mean(dim=0))


def test_threads_share_the_work_and_change_nothing() -> None:
    rule = LifRule(0.5, 1.0, Surrogate("sigmoid", 4.0))
    value = currents(4, 7, 1300)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(filled(rule, value, 4, 1300))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[0], other, strict=True))


def network() -> nn.Sequential:
    def population() -> nn.Module:
        return Lif(dv=1500, surrogate=Surrogate("sigmoid", 4.0))

    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(2, 6, 3, padding=1), norm1=nn.BatchNorm2d(6), lif1=population(), flatten=nn.Flatten(),
        dense=nn.Linear(6 * 36, 40), norm2=nn.BatchNorm1d(40), lif2=population(), out=nn.Linear(40, 3), readout=Integrator(),
    )).train()  # fmt: skip


def test_a_batch_norm_carried_out_by_the_kernel_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = network(), network()
    with torch.no_grad():
        for layer in (mine.norm1, mine.norm2):
            layer.weight.uniform_(0.5, 2)
            layer.bias.uniform_(-0.5, 1)
    other.load_state_dict(mine.state_dict())
    x = currents(5, 2, 6, 6)
    kept = x.clone()
    compiled = engine.spike_pass(mine, x, 6, constant=True)
    monkeypatch.setattr(kernels, "available", lambda value: False)
    stepped = engine.spike_pass(other, x, 6, constant=True)
    assert torch.equal(x, kept)
    for name, state in stepped.neurons.items():
        differ = (compiled.neurons[name].rates != state.rates).float().mean()
        assert differ < 0.01, name  # batch-norm in another order of operations: rounding, seldom across a threshold
        close = torch.isclose(compiled.neurons[name].slopes, state.slopes, rtol=1e-3, atol=1e-4)
        assert close.float().mean() > 0.99, name
    torch.testing.assert_close(dict(mine.named_buffers()), dict(other.named_buffers()), rtol=1e-4, atol=1e-4)


def test_moments_of_pieces_are_those_of_the_whole_also_far_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = currents(50, 3, 4, 4).add_(torch.tensor([0.0, 300.0, -1000.0])[:, None, None])
    monkeypatch.setattr(engine, "CHUNK_ELEMENTS", 100)
    mean, variance = engine._moments(samples)
    exact = samples.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), exact.var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


def test_chunks_of_a_stateless_layer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine.spike_pass(network(), currents(5, 2, 6, 6), 7, constant=True)
    monkeypatch.setattr(engine, "CHUNK_ELEMENTS", 500)
    pieces = engine.spike_pass(copy.deepcopy(network()), currents(5, 2, 6, 6), 7, constant=True)
    for name, state in whole.neurons.items():
        assert (pieces.neurons[name].rates != state.rates).float().mean() < 0.01


def test_inputs_flattened_in_front_of_a_batch_norm_are_left_alone() -> None:
    layers = nn.Sequential(OrderedDict(
        flatten=nn.Flatten(), norm=nn.BatchNorm1d(8), lif=Lif(dv=1500, surrogate=Surrogate("atan", 2.0)),
        out=nn.Linear(8, 3), readout=Integrator(),
    )).train()  # fmt: skip
    x = currents(5, 2, 2, 2)
    for given in (x, x.double()):
        kept = given.clone()
        engine.spike_pass(copy.deepcopy(layers).to(given.dtype), given, 3, constant=True)
        assert torch.equal(given, kept)
