"""What the reader makes of a snnTorch network is that network: every spike, and every membrane up to the rounding of a sum."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.residual import ResidualSum
from tests.networks import (
    conv_net,
    delayed_net,
    dense_net,
    leaky,
    named,
    read,
    recurrent_net,
    residual_net,
    rleaky,
    synaptic,
    uniform,
)

torch.set_num_threads(1)


def assert_equal(layers: nn.Sequential, deployment: Deployment, inputs: Any, *, silent: tuple[str, ...] = ()) -> None:
    """Every layer on its own: what torch fired follows from what torch fired before, but for ties."""
    trace = StudentSimulator(layers).run(deployment, inputs, ("spikes", "membrane"))
    explained = explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF)
    assert set(explained) == set(deployment.layers)
    for name, layer in explained.items():
        assert not layer.faulty.any(), name
        assert not layer.beyond.any(), name
        assert layer.tied.mean() < 0.5, f"{name}: too many ties to have shown anything"
        fired = trace.layers[name].spikes
        if deployment.contract.neurons[name].spiking and name not in silent:
            assert 0 < fired.mean() < 1, f"{name} is dead or saturated"


NETWORKS = {
    "dense": (dense_net, (4,), 2.0), "conv": (conv_net, (2, 9, 7), 2.0), "residual": (residual_net, (2, 8, 6), 2.0),
    "recurrent": (recurrent_net, (7,), 2.0), "delayed": (delayed_net, (6,), 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("events", [False, True])
def test_the_interpreter_does_what_the_trained_module_does(name: str, events: bool) -> None:
    build, shape, high = NETWORKS[name]
    layers = build()
    steps = 12
    deployment = read(layers, shape, steps=steps)
    size = (steps, 8, *shape) if events else (8, *shape)
    inputs = uniform(np.random.default_rng(1), *size, low=-0.5, high=high).astype(np.float32)
    assert_equal(layers, deployment, inputs)


def around(neuron: nn.Module, features: int = 6) -> nn.Sequential:
    torch.manual_seed(3)
    return named(fc=nn.Linear(4, features), n=neuron, out=nn.Linear(features, 3), readout=Integrator())


@pytest.mark.parametrize(
    "neuron",
    [
        synaptic, lambda: synaptic(1, 4095), lambda: synaptic(4094, 1), lambda: synaptic(4095, 500, 0.3),
        lambda: rleaky(6), lambda: rleaky(None, V=0.3), lambda: rleaky(None, V=torch.linspace(-1, 1, 6)),
        lambda: rleaky(6, 1), lambda: rleaky(6, 0, 2.0), lambda: Recurrent(leaky(300, 0.5), nn.Linear(6, 6, bias=False)),
        lambda: Recurrent(synaptic(), nn.Linear(6, 6)),
        lambda: snntorch.RSynaptic(
            alpha=0.5, beta=0.75, linear_features=6, reset_mechanism="none", threshold=2.0
        ),
    ],
)  # fmt: skip
def test_every_kind_of_neuron(neuron: Any) -> None:
    layers = around(neuron())
    inputs = uniform(np.random.default_rng(0), 16, 4, low=-2, high=4).astype(np.float32)
    assert_equal(layers, read(layers, (4,), steps=10), inputs)


KINDS: dict[str, Any] = {
    "Leaky": snntorch.Leaky, "Synaptic": snntorch.Synaptic, "RLeaky": snntorch.RLeaky, "RSynaptic": snntorch.RSynaptic,
    "Recurrent": lambda linear_features, **options: Recurrent(
        snntorch.Leaky(**options), nn.Linear(linear_features, linear_features)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("delay", [False, True])
def test_every_reset_of_every_neuron(kind: str, reset: str, delay: bool) -> None:
    """Strong inputs: membranes pass twice the threshold, and neurons fire in consecutive steps."""
    decays = {"beta": 0.75, **({"alpha": 0.5} if "Synaptic" in kind else {})}
    loop = {"linear_features": 6} if kind.startswith("R") else {}
    # Without a reset only a high threshold leaves steps without a spike.
    layers = around(KINDS[kind](**decays, **loop, threshold=3.0 if reset == "none" else 1.0,
                                reset_mechanism=reset, reset_delay=delay))  # fmt: skip
    deployment = read(layers, (4,), steps=12)
    inputs = uniform(np.random.default_rng(0), 16, 4, low=-4, high=8).astype(np.float32)
    assert_equal(layers, deployment, inputs)
    trace = StudentSimulator(layers).run(deployment, inputs, ("spikes", "membrane")).layers["n"]
    np.testing.assert_array_equal(interpreter.run(deployment, inputs)["n"].spikes, trace.spikes)
    if reset == "subtract" and not (delay or kind == "RSynaptic"):
        assert (trace.membrane > 1.0).any(), "no membrane stood above twice the threshold"
    assert (trace.spikes[1:] & trace.spikes[:-1]).any() != deployment.contract.neurons["n"].clears_input


@pytest.mark.parametrize("channels_last", [False, True])
def test_recurrence_over_maps(channels_last: bool) -> None:
    torch.manual_seed(0)
    loop = (
        snntorch.RLeaky(
            beta=0.75, conv2d_channels=3, kernel_size=(3, 5), threshold=0.3, reset_mechanism="zero", reset_delay=False
        )
        if channels_last
        else Recurrent(leaky(500, 0.3), nn.Conv2d(3, 3, (3, 1), padding=(1, 0)))
    )
    layers = named(conv=nn.Conv2d(2, 3, 2), n=loop, flat=nn.Flatten(), fc=nn.Linear(60, 4), readout=Integrator(dv=100))
    inputs = uniform(np.random.default_rng(0), 6, 2, 6, 5, high=1.5).astype(np.float32)
    assert_equal(layers, read(layers, (2, 6, 5), steps=7), inputs)


def test_one_dimensional_convolutions() -> None:
    torch.manual_seed(0)
    layers = named(
        conv1=nn.Conv1d(3, 4, 5, stride=2, padding=2), norm1=nn.BatchNorm1d(4), lif1=leaky(400, 0.3),
        conv2=nn.Conv1d(4, 6, 2, dilation=2, groups=2), norm2=nn.BatchNorm1d(6), lif2=leaky(200, 0.2),
        flat=nn.Flatten(), fc=nn.Linear(36, 4), readout=Integrator(),
    )  # fmt: skip
    for norm in (layers.norm1, layers.norm2):
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.2, 1.0)
    deployment = read(layers, (3, 15), steps=6)
    assert isinstance(deployment.graph.nodes["conv1"], nir.Conv1d)
    assert_equal(layers, deployment, uniform(np.random.default_rng(0), 8, 3, 15, high=2.0).astype(np.float32))


def test_currents_added_before_the_first_neuron_and_a_block_in_a_block() -> None:
    """Pre-activation: the sum of two convolutions of the input is a current that goes on as a current."""
    torch.manual_seed(0)
    inner = ResidualSum(named(lif=leaky(300, 0.2), fc=nn.Linear(6, 6)))
    layers = named(
        stem=ResidualSum(named(fc=nn.Linear(4, 6)), named(fc=nn.Linear(4, 6, bias=False))),
        outer=ResidualSum(named(inner=inner, lif=leaky(100, 0.4), fc=nn.Linear(6, 6))),
        lif=leaky(600, 0.5), fc=nn.Linear(6, 3), readout=Integrator(),
    )  # fmt: skip
    deployment = read(layers, (4,), steps=8)
    assert {name for name, target in deployment.graph.edges if target == "lif"} == {
        "outer.main.fc",
        "stem.main.fc",
        "stem.shortcut.fc",
    }
    assert_equal(layers, deployment, uniform(np.random.default_rng(0), 16, 4, low=-1, high=3).astype(np.float32))


def test_a_readout_with_leak_and_filter_is_read_as_li_and_cubali() -> None:
    for readout, kind in ((Integrator(), nir.I), (Integrator(dv=9), nir.LI), (Integrator(dv=9, du=12), nir.CubaLI)):
        deployment = read(named(fc=nn.Linear(4, 2), readout=readout), (4,))
        assert type(deployment.graph.nodes["readout"]) is kind
        assert deployment.contract.neurons["readout"] == readout.spec


def test_a_bias_before_a_filter_enters_the_current() -> None:
    """Moved to the membrane it would give a ramp from the first step; filtered it rises step by step."""
    layers = named(fc=nn.Linear(1, 1), readout=Integrator(dv=1024, du=2047))
    nn.init.zeros_(layers.fc.weight)
    nn.init.ones_(layers.fc.bias)
    found = interpreter.run(read(layers, (1,), steps=3), np.zeros((1, 1)))["readout"].membrane[:, 0, 0]
    np.testing.assert_allclose(found, [1.0, 0.75 + 1.5, 0.75 * 2.25 + 1.75], rtol=1e-12)


def test_the_synaptic_recurrence_of_snntorch_is_read_with_the_late_reset_it_has() -> None:
    """snnTorch 1.0.0 assigns RSynaptic's same-step reset to a local variable; a deployment must not claim otherwise."""
    neuron = snntorch.RSynaptic(alpha=0.5, beta=0.75, linear_features=6, reset_mechanism="zero", reset_delay=False)
    layers = around(neuron)
    assert read(layers, (4,)).contract.neurons["n"].reset_delay == 1
    inputs = uniform(np.random.default_rng(0), 8, 4, high=4).astype(np.float32)
    trace = StudentSimulator(layers).run(read(layers, (4,)), inputs, ("spikes", "membrane")).layers["n"]
    assert (trace.membrane[trace.spikes] > 1.0).all(), "the installed snnTorch resets in the step of the spike after all"


def test_layers_are_matched_by_their_nested_names() -> None:
    layers = residual_net()
    deployment = read(layers, (2, 8, 6))
    assert "block1.main.lif" in deployment.layers
    assert StudentSimulator(layers).check(deployment) == []
    assert [item.where for item in StudentSimulator(conv_net()).check(deployment)] == [
        name for name in deployment.layers if name not in ("lif1", "lif2", "readout")
    ]


def test_all_problems_of_a_network_are_told_at_once() -> None:
    layers = named(
        conv=nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), pool=nn.MaxPool2d(2), lif=leaky(reset="zero"),
        norm=nn.BatchNorm2d(4), block=ResidualSum(named(conv=nn.Conv2d(4, 5, 3)), named(act=nn.ReLU())),
        lif2=snntorch.Leaky(beta=0.9, threshold=-1.0), flat=nn.Flatten(), fc=nn.Linear(3, 3),
        lif3=snntorch.Synaptic(alpha=0.5, beta=1.0), readout=Integrator(),
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        read(layers, (2, 8, 8))
    found = [(item.code, item.where) for item in caught.value.diagnostics]
    assert found == [
        ("SNX210", "conv"), ("SNX210", "pool"), ("SNX240", "norm"), ("SNX210", "block.shortcut.act"), ("SNX213", "block"),
        ("SNX211", "lif2"), ("SNX241", "lif2"), ("SNX206", "fc"), ("SNX215", "lif3"),
    ]  # fmt: skip
