"""Slopes from the closed-form rate map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snn_export.models.neurons.lif import Lif, LifRule
from snn_export.models.rate_based.dsr import SpikeRepresentation
from snn_export.models.rate_based.engine import rate_pass, spike_pass
from snn_export.models.surrogates import Surrogate

RULE = LifRule(1.0, 0.5, Surrogate("sigmoid", 4.0), reset="subtract")


def test_slope_is_one_over_the_threshold_inside_the_map() -> None:
    current = torch.tensor([-0.1, 0.0, 0.25, 0.5, 0.6])
    trace = SpikeRepresentation().trace(RULE, current)
    trace.step(current, current > 1)
    assert trace.slope(current, 4).tolist() == [0.0, 2.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize("current", [-0.2, 0.1, 0.37, 0.8])
def test_slope_is_that_of_the_rate_over_many_steps(current: float) -> None:
    neuron = Lif(dv=0, threshold=0.5, surrogate=RULE.surrogate, reset="subtract")
    inputs = torch.tensor([[current - 0.05, current + 0.05]], dtype=torch.float64).expand(4000, 1, 2)
    low, high = neuron.run_steps(inputs)[0].mean(dim=0)[0].tolist()
    slope = SpikeRepresentation().trace(RULE, inputs[0]).slope(torch.tensor([current]), 4000)
    assert slope.item() == pytest.approx((high - low) / 0.1, abs=0.01)


def test_the_rate_pass_uses_it() -> None:
    layers = nn.Sequential(Lif(dv=0, threshold=0.5, surrogate=RULE.surrogate, reset="subtract"))
    inputs = torch.tensor([[0.3, 0.7, -0.2]], requires_grad=True)
    states = spike_pass(layers, inputs.detach(), 4, constant=True, slopes=SpikeRepresentation())
    rate_pass(layers, inputs, states).logits.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [[2.0, 0.0, 0.0]]


def test_rules_are_equal_by_what_they_do() -> None:
    assert SpikeRepresentation() == SpikeRepresentation()
    assert hash(SpikeRepresentation()) == hash(SpikeRepresentation())
    assert repr(SpikeRepresentation()) == "SpikeRepresentation()"
