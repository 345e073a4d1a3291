from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.arithmetic import fires, integrate, reset_to_zero
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.unroll import unroll


def leaky(beta: float = 0.75, **settings: object) -> snntorch.Leaky:
    return snntorch.Leaky(beta=beta, **({"reset_mechanism": "zero", "reset_delay": False} | settings))


def network(**settings: object) -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(2, 4, 3, padding=1),
            norm1=nn.BatchNorm2d(4),
            lif1=leaky(**settings),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(4, 5, (3, 1)),
            lif2=leaky(0.5, threshold=0.3, **settings),
            flatten=nn.Flatten(),
            dense=nn.Linear(5 * 1 * 2, 3),
            readout=Integrator(),
        )
    )
    # Statistics far from (0, 1), so that forgetting the batch-norm shows.
    layers.norm1.running_mean.uniform_(-0.2, 0.2)
    layers.norm1.running_var.uniform_(0.05, 0.2)
    return layers.double().eval()


def step_by_step(layers: nn.Sequential, inputs: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Step-major reference: every layer for step 1, then step 2, ...; LIF by the project's own equations."""
    membranes: dict[str, list[Tensor]] = {}
    spikes: dict[str, list[Tensor]] = {}
    for value in inputs:
        for name, layer in layers.named_children():
            if isinstance(layer, (snntorch.Leaky, Integrator)):
                previous = membranes[name][-1] if name in membranes else torch.zeros_like(value)
                if isinstance(layer, Integrator):
                    value = previous + value  # noqa: PLW2901
                    membranes.setdefault(name, []).append(value)
                    continue
                membrane = integrate(previous, layer.beta, value)
                fired = fires(membrane, layer.threshold).double()
                membranes.setdefault(name, []).append(reset_to_zero(membrane, fired))
                spikes.setdefault(name, []).append(fired)
                value = fired  # noqa: PLW2901
            else:
                value = layer(value)  # noqa: PLW2901
    return {k: torch.stack(v) for k, v in spikes.items()}, {k: torch.stack(v) for k, v in membranes.items()}


def observed(layers: nn.Sequential, inputs: Tensor, steps: int, *, constant: bool) -> dict[str, tuple[Tensor | None, Tensor]]:
    seen: dict[str, tuple[Tensor | None, Tensor]] = {}
    with torch.no_grad():
        unroll(layers, inputs, steps, constant=constant, observe=lambda name, s, v: seen.update({name: (s, v)}))
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_naive_loop_over_steps(seed: int) -> None:
    layers = network()
    inputs = torch.randn(7, 5, 2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        spikes, membranes = step_by_step(layers, inputs)
    seen = observed(layers, inputs, 7, constant=False)
    assert list(seen) == ["lif1", "lif2", "readout"]
    assert seen["readout"][0] is None
    for name, expected in spikes.items():
        assert 0 < expected.mean() < 1, f"{name} is dead or saturated: the test would show nothing"
        assert torch.equal(seen[name][0], expected)
    for name, expected in membranes.items():
        torch.testing.assert_close(seen[name][1], expected, rtol=0, atol=1e-12)


def test_constant_input_equals_the_same_input_in_every_step() -> None:
    layers = network()
    inputs = 2 * torch.randn(5, 2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    once = observed(layers, inputs, 6, constant=True)
    repeated = observed(layers, inputs.expand(6, *inputs.shape), 6, constant=False)
    for name in ("lif1", "lif2"):
        assert once[name][0].mean() > 0
        assert torch.equal(once[name][0], repeated[name][0])
    for name, (_, membrane) in once.items():
        torch.testing.assert_close(membrane, repeated[name][1], rtol=0, atol=1e-12)


def test_shapes_and_every_run_starts_from_zero_state() -> None:
    layers = network()
    inputs = torch.rand(5, 2, 6, 4, dtype=torch.float64)
    seen = observed(layers, inputs, 4, constant=True)
    assert seen["lif1"][1].shape == (4, 5, 4, 6, 4)
    assert seen["readout"][1].shape == (4, 5, 3)
    again = observed(layers, inputs, 4, constant=True)
    assert torch.equal(seen["readout"][1], again["readout"][1])


def test_a_network_that_ran_with_gradient_can_be_copied() -> None:
    layers = network()
    unroll(layers, torch.rand(2, 2, 6, 4, dtype=torch.float64), 3, constant=True).sum().backward()
    assert layers.conv1.weight.grad.abs().sum() > 0
    assert copy.deepcopy(layers).lif1.mem.numel() == 0


def test_unknown_layer_is_named() -> None:
    layers = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 1, 3), pool=nn.MaxPool2d(2), readout=Integrator()))
    with pytest.raises(UserError, match="'pool' is a MaxPool2d") as error:
        unroll(layers, torch.zeros(1, 1, 4, 4), 2, constant=True)
    assert error.value.code == "SNX210"


@pytest.mark.parametrize("setting", [{"init_hidden": True}, {"state_quant": lambda v: v}])
def test_leaky_settings_that_cannot_be_stepped(setting: dict[str, object]) -> None:
    with pytest.raises(UserError) as error:
        unroll(network(**setting), torch.zeros(1, 2, 6, 4), 2, constant=True)
    assert error.value.code == "SNX211"
    assert next(iter(setting)) in str(error.value)


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(OrderedDict(dense=nn.Linear(2, 2))),
        nn.Sequential(OrderedDict(readout=Integrator(), dense=nn.Linear(2, 2))),
        nn.Sequential(OrderedDict(first=Integrator(), readout=Integrator())),
    ],
)
def test_readout_missing_or_not_last(layers: nn.Sequential) -> None:
    with pytest.raises(UserError) as error:
        unroll(layers, torch.zeros(1, 2), 2, constant=True)
    assert error.value.code == "SNX212"


def test_wrong_number_of_steps() -> None:
    with pytest.raises(UserError) as error:
        unroll(network(), torch.zeros(3, 1, 2, 6, 4), 4, constant=False)
    assert error.value.code == "SNX212"
