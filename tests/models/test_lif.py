"""LIF populations as one autograd function: values against snnTorch, gradients against autograd and finite differences."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import BLOCK, Lif, LifRule, lif_rule_of, lif_steps
from snn_export.models.surrogates import SLOPES, Surrogate
from snn_export.models.unroll import unroll

RESETS = [(reset, detached) for reset in ("zero", "subtract") for detached in (False, True)]
SURROGATES = [Surrogate(name, 2.0) for name in SLOPES]


def plain_steps(currents: Tensor, rule: LifRule) -> tuple[Tensor, Tensor]:
    """The equations as they are written, every operation left to autograd."""
    membrane = torch.full_like(currents[0], rule.initial)
    spikes, membranes = [], []
    for current in currents:
        potential = rule.beta * membrane + current
        fired = rule.surrogate(potential - rule.threshold)
        seen = fired.detach() if rule.detach_reset else fired
        membrane = potential * (1 - seen) if rule.reset == "zero" else potential - rule.threshold * seen
        spikes.append(fired)
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize(("reset", "detached"), RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: surrogate.name)
def test_gradients_are_those_of_autograd_through_the_steps(reset: str, detached: bool, surrogate: Surrogate) -> None:
    generator = torch.Generator().manual_seed(1)
    currents = torch.randn(7, 3, 40, dtype=torch.float64, generator=generator).mul(1.5).requires_grad_()
    weights = torch.randn(7, 3, 40, dtype=torch.float64, generator=generator)
    rule = LifRule(0.7, 1.0, surrogate, reset, detached, initial=0.25)
    spikes, membranes = lif_steps(currents, rule, with_membranes=True)
    expected, expected_membranes = plain_steps(currents, rule)
    assert 0.1 < spikes.mean() < 0.9
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(membranes, expected_membranes, rtol=0, atol=1e-15)
    (found,) = torch.autograd.grad((spikes * weights).sum(), currents)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), currents)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("reset", "detached"), [("zero", False), ("subtract", False)])
def test_gradients_of_a_smoothed_neuron_are_its_finite_differences(reset: str, detached: bool) -> None:
    """Numerically: a surrogate gradient is the exact gradient of the surrogate's own sigmoid around a fixed spike pattern.

    The step function has no useful difference quotient. Its surrogate has: with the spikes held at what they are and only their
    linearisation s + sg (u - u0) free, the loss is differentiable, and gradcheck compares its difference quotients.
    """
    torch.manual_seed(0)
    currents = torch.randn(5, 12, dtype=torch.float64) * 1.5
    rule = LifRule(0.6, 1.0, Surrogate("sigmoid", 4.0), reset, detached)
    weights = torch.randn(5, 12, dtype=torch.float64)
    potentials = []
    membrane = torch.zeros(12, dtype=torch.float64)
    for current in currents:
        potentials.append(rule.beta * membrane + current)
        fired = (potentials[-1] > 1).double()
        membrane = potentials[-1] * (1 - fired) if reset == "zero" else potentials[-1] - fired

    def linearised(values: Tensor) -> Tensor:
        membrane, total = torch.zeros(12, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for step, value in enumerate(values):
            potential = rule.beta * membrane + value
            slope = rule.surrogate.derivative(potentials[step] - 1.0)
            fired = (potentials[step] > 1).double() + slope * (potential - potentials[step])
            membrane = potential * (1 - fired) if reset == "zero" else potential - fired
            total = total + (fired * weights[step]).sum()
        return total

    leaf = currents.clone().requires_grad_()
    (found,) = torch.autograd.grad((lif_steps(leaf, rule)[0] * weights).sum(), leaf)
    eps = 1e-6
    numeric = torch.zeros_like(currents)
    for index in torch.cartesian_prod(torch.arange(5), torch.arange(12)).tolist():
        moved = currents.clone()
        moved[tuple(index)] += eps
        back = currents.clone()
        back[tuple(index)] -= eps
        numeric[tuple(index)] = (linearised(moved) - linearised(back)) / (2 * eps)
    torch.testing.assert_close(found, numeric, rtol=1e-6, atol=1e-8)


def test_more_neurons_than_a_block_are_computed_alike() -> None:
    currents = torch.randn(3, 1, BLOCK + 17).requires_grad_()
    rule = LifRule(0.5, 1.0, Surrogate("triangle", 1.0))
    spikes, membranes = lif_steps(currents, rule, with_membranes=True)
    expected, expected_membranes = plain_steps(currents, rule)
    assert torch.equal(spikes, expected)
    assert torch.equal(membranes, expected_membranes)
    (found,) = torch.autograd.grad(spikes.sum(), currents)
    (wanted,) = torch.autograd.grad(expected.sum(), currents)
    torch.testing.assert_close(found, wanted)


def test_snntorch_spikes_and_membranes_are_matched_bit_for_bit() -> None:
    leaky = snntorch.Leaky(
        beta=0.75, threshold=0.9, spike_grad=Surrogate("fast_sigmoid", 5.0), reset_mechanism="zero", reset_delay=False
    )
    torch.manual_seed(3)
    currents = (torch.randn(9, 4, 200) * 1.3).requires_grad_()
    membrane, spikes, membranes = torch.zeros(4, 200), [], []
    for current in currents:
        fired, membrane = leaky(current, membrane)
        spikes.append(fired)
        membranes.append(membrane)
    rule = lif_rule_of(leaky)
    assert rule is not None
    mine, my_membranes = lif_steps(currents, rule, with_membranes=True)
    assert torch.equal(mine, torch.stack(spikes))
    assert torch.equal(my_membranes, torch.stack(membranes))
    weights = torch.randn(9, 4, 200)
    (theirs,) = torch.autograd.grad((torch.stack(spikes) * weights).sum(), currents)
    (ours,) = torch.autograd.grad((mine * weights).sum(), currents)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_learning_network_computes_what_snntorch_computes() -> None:
    """The same layers with and without gradients: one goes through lif_steps, the other through snnTorch."""
    torch.manual_seed(0)
    layers = nn.Sequential(OrderedDict(
        dense1=nn.Linear(12, 30),
        lif1=snntorch.Leaky(beta=0.5, spike_grad=Surrogate("sigmoid", 4.0), reset_mechanism="zero", reset_delay=False),
        dense2=nn.Linear(30, 5), readout=Integrator(),
    ))  # fmt: skip
    inputs = torch.randn(6, 12) * 2
    learning: dict[str, tuple[Tensor, Tensor]] = {}
    running: dict[str, tuple[Tensor, Tensor]] = {}
    out = unroll(
        layers, inputs, 6, constant=True, observe=lambda name, spikes, membrane: learning.update({name: (spikes, membrane)})
    )
    with torch.no_grad():
        plain = unroll(
            layers, inputs, 6, constant=True, observe=lambda name, spikes, membrane: running.update({name: (spikes, membrane)})
        )
    assert out.requires_grad
    assert torch.equal(out, plain)
    for index in (0, 1):
        assert torch.equal(learning["lif1"][index], running["lif1"][index])


@pytest.mark.parametrize(
    "leaky",
    [
        snntorch.Leaky(beta=0.5, spike_grad=Surrogate("sigmoid", 4.0)),
        snntorch.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False),
        snntorch.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False, learn_beta=True, spike_grad=Surrogate("atan", 2.0)),
        snntorch.Leaky(beta=0.5, reset_mechanism="subtract", reset_delay=False, spike_grad=Surrogate("atan", 2.0)),
        nn.ReLU(),
    ],
)
def test_what_lif_steps_cannot_carry_is_left_to_snntorch(leaky: nn.Module) -> None:
    assert lif_rule_of(leaky) is None


def test_reset_by_subtraction_subtracts_once() -> None:
    """snnTorch 1.0.0 subtracts again one step later where the membrane was above twice the threshold."""
    population = Lif(dv=0, threshold=1.0, surrogate=Surrogate("triangle", 1.0), reset="subtract")
    spikes, membranes = population.run_steps(torch.tensor([2.5, 0.0, 0.0, 0.0]).reshape(4, 1, 1))
    assert spikes.flatten().tolist() == [1, 1, 0, 0]
    assert membranes.flatten().tolist() == [1.5, 0.5, 0.5, 0.5]


def test_initial_membrane_is_there_before_the_first_step() -> None:
    population = Lif(dv=0, threshold=1.0, surrogate=Surrogate("triangle", 1.0), reset="subtract", initial=0.5)
    spikes, _ = population.run_steps(torch.full((4, 1, 1), 0.25))
    assert spikes.flatten().tolist() == [0, 0, 1, 0]  # 0.75, 1.0 (not above), 1.25, 0.5


@pytest.mark.parametrize(("name", "slope"), [("relu", 1.0), ("sigmoid", 0.0), ("sigmoid", float("inf")), ("sigmoid", -1.0)])
def test_unknown_surrogates_are_refused(name: str, slope: float) -> None:
    with pytest.raises(UserError) as caught:
        Surrogate(name, slope)
    assert caught.value.code == "SNX015"


@pytest.mark.parametrize("name", ["fast_sigmoid", "sigmoid", "atan", "triangle"])
def test_slopes_are_the_derivatives_of_their_own_integrals(name: str) -> None:
    """Compared with the derivative, by finite differences, of what each is the slope of, at points off the kinks."""
    slope = 2.0
    x = torch.linspace(-1.3, 1.3, 27, dtype=torch.float64) + 0.013
    integral = {
        "fast_sigmoid": lambda x: x / (1 + slope * x.abs()),
        "sigmoid": lambda x: torch.sigmoid(slope * x),
        "atan": lambda x: torch.atan(torch.pi * slope * x / 2) * 2 / (torch.pi * slope),
        "triangle": lambda x: torch.where(
            x.abs() * slope < 1, slope * x - torch.sign(x) * slope**2 * x**2 / 2, torch.sign(x) / 2
        ),
    }[name]
    eps = 1e-6
    numeric = (integral(x + eps) - integral(x - eps)) / (2 * eps)
    torch.testing.assert_close(Surrogate(name, slope).derivative(x), numeric, rtol=1e-6, atol=1e-7)
