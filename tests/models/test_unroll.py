from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.arithmetic import fires, integrate, reset_to_zero
from snn_export.models.delay import Delay
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.residual import ResidualSum
from snn_export.models.unroll import leaves, unroll


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


def stack(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def synaptic(**settings: object) -> snntorch.Synaptic:
    return snntorch.Synaptic(alpha=0.5, beta=0.75, **({"reset_mechanism": "zero", "reset_delay": False} | settings))


def test_paths_of_a_residual_sum_are_added_and_named() -> None:
    """Against the same layers called one by one; the shortcut holds a neuron of its own."""
    torch.manual_seed(0)
    fc, lif = nn.Linear(3, 5), leaky(0.5, threshold=0.3)
    main, short = (
        stack(fc1=nn.Linear(5, 4), lif=leaky(threshold=0.2), fc2=nn.Linear(4, 6)),
        stack(lif=leaky(0.25), fc=nn.Linear(5, 6)),
    )
    layers = stack(stem=stack(fc=fc, lif=lif), block=ResidualSum(main, short), readout=Integrator()).double().eval()
    inputs = torch.randn(9, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = observed(layers, inputs, 9, constant=False)
    assert list(seen) == ["stem.lif", "block.main.lif", "block.shortcut.lif", "readout"]
    with torch.no_grad():
        spikes = seen["stem.lif"][0]
        hidden = observed(stack(fc=main[0], lif=main[1], out=Integrator()), spikes, 9, constant=False)["lif"][0]
        assert torch.equal(hidden, seen["block.main.lif"][0])
        currents = main[2](hidden) + short[1](seen["block.shortcut.lif"][0])
    assert 0 < hidden.mean() < 1
    torch.testing.assert_close(seen["readout"][1], currents.cumsum(0), rtol=0, atol=1e-12)


def test_an_identity_shortcut_adds_the_spikes_and_a_constant_path_meets_one_in_time() -> None:
    layers = stack(
        block=ResidualSum(stack(lif=leaky(0.5, threshold=0.4))), outer=ResidualSum(stack(delay=Delay(1))), readout=Integrator()
    )  # fmt: skip
    inputs = torch.tensor([[0.3, 0.9]])
    seen = observed(layers, inputs, 3, constant=True)
    total = inputs + seen["block.main.lif"][0]
    later = torch.cat([torch.zeros(1, 1, 2), total[:-1]])
    torch.testing.assert_close(seen["readout"][1], (total + later).cumsum(0))


def test_paths_that_do_not_fit_are_named() -> None:
    layers = stack(block=ResidualSum(stack(fc=nn.Linear(3, 4))), readout=Integrator())
    with pytest.raises(UserError, match="block") as error:
        unroll(layers, torch.zeros(1, 3), 2, constant=True)
    assert error.value.code == "SNX213"


@pytest.mark.parametrize("wrong", [lambda: ResidualSum(nn.Linear(2, 2)), lambda: ResidualSum(nn.Sequential(), nn.ReLU())])
def test_paths_of_another_type_are_refused(wrong: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError) as error:
        wrong()
    assert error.value.code == "SNX210"


@pytest.mark.parametrize("constant", [False, True])
def test_a_neuron_with_recurrent_weights_hears_its_spikes_a_step_later(constant: bool) -> None:
    torch.manual_seed(1)
    loop = Recurrent(synaptic(threshold=0.5), nn.Linear(4, 4)).double()
    steps, inputs = 10, torch.randn(10, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = inputs[0] if constant else inputs
    seen = observed(stack(loop=loop, readout=Integrator()), given, steps, constant=constant)["loop"]
    current, membrane, fired = (torch.zeros(3, 4, dtype=torch.float64) for _ in range(3))
    for step in range(steps):
        x = given if constant else given[step]
        with torch.no_grad():
            current = integrate(current, 0.5, x + loop.weights(fired))
        membrane = integrate(membrane, 0.75, current)
        fired = fires(membrane, 0.5).double()
        membrane = reset_to_zero(membrane, fired)
        assert torch.equal(seen[0][step], fired)
        torch.testing.assert_close(seen[1][step], membrane, rtol=0, atol=1e-12)
    assert 0 < seen[0].mean() < 1


@pytest.mark.parametrize("wrong", [lambda: Recurrent(leaky(), nn.ReLU()), lambda: Recurrent(nn.ReLU(), nn.Linear(1, 1))])
def test_recurrent_joins_a_neuron_and_weights_only(wrong: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError) as error:
        wrong()
    assert error.value.code == "SNX211"


@pytest.mark.parametrize(
    "neuron",
    [synaptic(), snntorch.RLeaky(0.5, linear_features=3), snntorch.RSynaptic(0.5, 0.5, linear_features=3),
     Recurrent(synaptic(), nn.Linear(3, 3))],
)  # fmt: skip
def test_no_state_stays_behind(neuron: nn.Module) -> None:
    layers = stack(fc=nn.Linear(2, 3), n=neuron, readout=Integrator())
    first = unroll(layers, torch.ones(4, 2), 3, constant=True)
    first.sum().backward()
    assert layers.fc.weight.grad.abs().sum() > 0
    copy.deepcopy(layers)
    assert torch.equal(unroll(layers, torch.ones(4, 2), 3, constant=True), first)


def test_a_delay_per_feature_holds_spikes_back() -> None:
    x = torch.arange(1.0, 13.0).reshape(4, 1, 3)
    found = Delay([0, 2, 9])(x)
    assert found[:, 0].tolist() == [[1, 0, 0], [4, 0, 0], [7, 2, 0], [10, 5, 0]]
    assert torch.equal(Delay(0)(x), x)
    assert Delay(1).state_dict()["steps"] == 1, "a checkpoint holds the delay"


@pytest.mark.parametrize("steps", [-1, 63, 0.5, [1, 70], []])
def test_a_delay_that_no_chip_holds(steps: object) -> None:
    with pytest.raises(UserError) as error:
        Delay(steps)
    assert error.value.code == "SNX214"


def test_all_findings_about_the_layers_come_at_once() -> None:
    shared = leaky()
    layers = stack(a=nn.MaxPool2d(2), b=stack(c=nn.ReLU(), d=leaky(init_hidden=True)), e=shared, f=shared, out=nn.Linear(1, 1))
    with pytest.raises(UserError) as error:
        unroll(layers, torch.zeros(1, 1, 2, 2), 2, constant=True)
    found = [(item.code, item.where) for item in error.value.diagnostics]
    assert found == [
        ("SNX210", "layers.f"), ("SNX210", "layers.a"), ("SNX210", "layers.b.c"), ("SNX211", "layers.b.d"), ("SNX212", "layers"),
    ]  # fmt: skip


def test_layers_of_one_kind_may_run_themselves() -> None:
    """Neurons with integers inside, for instance."""

    class Counting(nn.Module):
        def run_steps(self, currents: Tensor) -> tuple[Tensor, Tensor]:
            return (currents > 0).to(currents.dtype), currents.cumsum(0)

    layers = stack(n=Counting(), readout=Integrator())
    seen = observed(layers, torch.tensor([[1.0, -1.0]]), 3, constant=True)
    assert seen["readout"][1][-1].tolist() == [[3.0, 0.0]]
    assert [name for name, _ in leaves(layers)] == ["n", "readout"]
