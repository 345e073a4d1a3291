"""The graph rebuilt as snnTorch modules is the network: the trained module's spikes, and the arbiter's, whatever the reset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_export.export import interpreter, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import torch_graph
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.snntorch.simulator import SnnTorchSimulator
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.networks import (
    conv_net,
    delayed_net,
    dense_net,
    named,
    quantised,
    read,
    recurrent_net,
    residual_net,
    uniform,
)
from tests.torch_graphs import assert_runs_its_integers, everything, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip


def run(deployment: Deployment, inputs: Any) -> Trace:
    backend = SnnTorchSimulator()
    assert backend.check(deployment) == []
    return backend.run(backend.compile(deployment), inputs, ALL)


def assert_explained(deployment: Deployment, inputs: Any, trace: Trace) -> None:
    """Every layer follows from what the run itself fired before it, but for ties."""
    for name, layer in explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF).items():
        assert not layer.faulty.any(), name
        assert not layer.beyond.any(), name
        assert layer.tied.mean() < 0.5, name


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("events", [False, True])
def test_a_file_rebuilt_fires_as_the_trained_module(name: str, events: bool, tmp_path: Path) -> None:
    build, shape = NETWORKS[name]
    layers = build()
    deployment = nir_io.read(nir_io.write(read(layers, shape, steps=12), tmp_path / "net.nir"))
    size = (12, 8, *shape) if events else (8, *shape)
    inputs = uniform(np.random.default_rng(1), *size, low=-0.5, high=2.0).astype(np.float32)
    trace = run(deployment, inputs)
    student = StudentSimulator(layers).run(deployment, inputs, ALL)
    for layer in deployment.layers:
        np.testing.assert_array_equal(trace.layers[layer].spikes, student.layers[layer].spikes)
        np.testing.assert_allclose(trace.layers[layer].membrane, student.layers[layer].membrane, rtol=1e-4, atol=1e-5)
    assert_explained(deployment, inputs, trace)
    np.testing.assert_array_equal(trace.predictions, student.predictions)


KINDS = {"Leaky": snntorch.Leaky, "Synaptic": snntorch.Synaptic, "RLeaky": snntorch.RLeaky, "RSynaptic": snntorch.RSynaptic}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("delay", [False, True])
def test_every_neuron_and_reset_of_snntorch_makes_the_round_trip(kind: str, reset: str, delay: bool, tmp_path: Path) -> None:
    """Module -> file -> module: 0 mismatched spikes against the trained module and against the arbiter."""
    torch.manual_seed(3)
    decays = {"beta": 0.75, **({"alpha": 0.5} if "Synaptic" in kind else {})}
    loop = {"linear_features": 6} if kind.startswith("R") else {}
    threshold = 3.0 if reset == "none" else 1.0
    neuron = KINDS[kind](**decays, **loop, threshold=threshold, reset_mechanism=reset, reset_delay=delay)
    layers = named(fc=nn.Linear(4, 6), n=neuron, out=nn.Linear(6, 3), readout=Integrator())
    deployment = nir_io.read(nir_io.write(read(layers, (4,), steps=12), tmp_path / "net.nir"))
    inputs = uniform(np.random.default_rng(0), 16, 4, low=-2, high=4).astype(np.float32)
    trace, student = run(deployment, inputs), StudentSimulator(layers).run(deployment, inputs, ALL)
    arbiter = interpreter.run(deployment, inputs)
    assert 0 < trace.layers["n"].spikes.mean() < 1
    np.testing.assert_array_equal(trace.layers["n"].spikes, student.layers["n"].spikes)
    np.testing.assert_array_equal(trace.layers["n"].membrane, student.layers["n"].membrane)
    np.testing.assert_array_equal(trace.layers["n"].spikes, arbiter["n"].spikes)
    np.testing.assert_allclose(trace.layers["n"].current, arbiter["n"].current, rtol=1e-4, atol=1e-5)
    # RSynaptic cannot reset in the step of its spike; then it is RSynaptic with the late reset it really has.
    assert SnnTorchSimulator().mapping(deployment)["n"].why == f"snntorch.{kind}"


@pytest.mark.parametrize("delay", [False, True])
def test_a_loop_around_a_leaky_stays_around_a_leaky(delay: bool) -> None:
    """RLeaky would clear the input of a late reset to zero, which Leaky keeps."""
    torch.manual_seed(3)
    neuron = Recurrent(snntorch.Leaky(beta=0.75, reset_mechanism="zero", reset_delay=delay), nn.Linear(6, 6))
    layers = named(fc=nn.Linear(4, 6), n=neuron, out=nn.Linear(6, 3), readout=Integrator())
    deployment = read(layers, (4,), steps=12)
    inputs = uniform(np.random.default_rng(0), 16, 4, low=-2, high=4).astype(np.float32)
    trace, student = run(deployment, inputs), StudentSimulator(layers).run(deployment, inputs, ALL)
    np.testing.assert_array_equal(trace.layers["n"].spikes, student.layers["n"].spikes)
    assert SnnTorchSimulator().mapping(deployment)["n"].why == ("snntorch.Leaky" if delay else "snntorch.RLeaky")


def test_a_late_reset_that_clears_the_input_needs_no_loop() -> None:
    deployment = with_spec(read(dense_net(), (4,), steps=10), reset_delay=1, clears_input=True)
    inputs = uniform(np.random.default_rng(0), 16, 4, high=3.0)
    assert SnnTorchSimulator().mapping(deployment)["lif1"].why == "snntorch.RLeaky"
    found, expected = run(deployment, inputs), interpreter.run(deployment, inputs)
    assert expected["lif1"].spikes.any()
    for name in deployment.layers:
        np.testing.assert_array_equal(found.layers[name].spikes, expected[name].spikes)


def test_a_loop_that_shares_its_weights_stays_outside_and_its_bias_counts_once() -> None:
    """Two sources of one weight node: what an earlier layer sends, and what the population itself sent a step ago."""
    rng, ones = np.random.default_rng(0), np.ones(6)
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input({"input": np.array([6])}), "in": nir.Linear(np.eye(6) * 2), "a": nir.IF(ones * 1e3, ones, ones * 0),
        "w": nir.Affine(rng.normal(0, 1, (6, 6)), ones * 0.4), "n": nir.LIF(ones * 8e-3, ones * 8, ones * 0, ones, ones * 0),
        "output": nir.Output({"output": np.array([6])}),
    }  # fmt: skip
    edges = [("input", "in"), ("in", "a"), ("a", "w"), ("w", "n"), ("n", "w"), ("n", "output")]
    deployment = graph_of(nodes, edges, {"a": NeuronSpec(0), "n": NeuronSpec(512)})
    inputs = rng.uniform(0, 1, (9, 5, 6))
    trace, arbiter = run(deployment, inputs), interpreter.run(deployment, inputs)
    assert 0.1 < arbiter["n"].spikes.mean() < 0.9
    for name, activity in arbiter.items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)
        np.testing.assert_allclose(trace.layers[name].membrane, activity.membrane, rtol=1e-4, atol=1e-5)
    assert SnnTorchSimulator().mapping(deployment)["n"].why == "snntorch.Leaky"


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "residual"])  # its identity has no weights for r
def test_the_portable_form_runs_alike(name: str) -> None:
    """r = 1 scales the input of every neuron; that is one more rounding, which a tie may show."""
    build, shape = NETWORKS[name]
    deployment = PortableForm()(read(build(), shape, steps=10))
    inputs = uniform(np.random.default_rng(2), 8, *shape, high=2.0)
    assert_explained(deployment, inputs, run(deployment, inputs))
    assert {found.kind for found in SnnTorchSimulator().mapping(deployment).values()} == {"native", "rewritten"}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), late=st.sampled_from([None, "zero", "subtract", "clears"]))
def test_every_node_and_every_way_of_joining_them(seed: int, late: str | None) -> None:
    deployment = everything(seed)
    if late is not None:
        # A filtered neuron of snnTorch can only clear its input.
        changes = {"reset": "subtract"} if late == "subtract" else {"clears_input": True}
        deployment = with_spec(deployment, reset_delay=1, **changes)
    if late == "zero":
        plain = {name: replace(spec, clears_input=False) for name, spec in deployment.contract.neurons.items() if name != "n4"}
        contract = deployment.contract
        deployment = deployment.replace(contract=contract.model_copy(update={"neurons": {**contract.neurons, **plain}}))
    inputs = np.random.default_rng(seed).uniform(-1, 2, (9, 3, 2, 7, 6))
    trace = run(deployment, inputs)
    for name, layer in explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF).items():
        assert not layer.faulty.any(), name
        assert not layer.beyond.any(), name


def test_the_whole_graph_is_the_arbiters() -> None:
    deployment = everything(0)
    inputs = np.random.default_rng(0).uniform(-1, 2, (9, 5, 2, 7, 6))
    trace, arbiter = run(deployment, inputs), interpreter.run(deployment, inputs)
    for name, activity in arbiter.items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)
        np.testing.assert_allclose(trace.layers[name].membrane, activity.membrane, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(trace.layers[name].current, activity.current, rtol=1e-4, atol=1e-4)
        assert activity.spikes.any() == deployment.contract.neurons[name].spiking


def test_periodic_resets_clear_states_and_leave_what_is_in_flight() -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    inputs = uniform(np.random.default_rng(3), 8, 7, high=2.0)
    trace, arbiter = run(deployment, inputs), interpreter.run(deployment, inputs)
    plain = interpreter.run(read(recurrent_net(), (7,), steps=10), inputs)
    assert not np.array_equal(plain["hidden"].spikes, arbiter["hidden"].spikes)
    for name, activity in arbiter.items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)


def test_samples_do_not_hear_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = read(recurrent_net(), (7,), steps=10)
    inputs = uniform(np.random.default_rng(3), 9, 7, high=2.0)
    whole = run(deployment, inputs)
    monkeypatch.setattr(torch_graph, "CHUNK", 4)
    chunked = run(deployment, inputs)
    for name in deployment.layers:
        np.testing.assert_array_equal(whole.layers[name].spikes, chunked.layers[name].spikes)
    program = SnnTorchSimulator().compile(deployment)
    first = SnnTorchSimulator().run(program, inputs)
    again = SnnTorchSimulator().run(program, inputs)
    np.testing.assert_array_equal(first.layers["hidden"].spikes, again.layers["hidden"].spikes)


def test_a_quantised_deployment_runs_its_integers_and_says_so() -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    inputs = uniform(np.random.default_rng(0), 12, 2, 9, 7)
    trace = assert_runs_its_integers(SnnTorchSimulator(), deployment, inputs)
    assert "no truncation" in trace.provenance["snntorch state"]
    assert "snntorch state" not in run(read(conv_net(), (2, 9, 7)), inputs).provenance


def codes(deployment: Deployment) -> list[tuple[str, str]]:
    return refusals(SnnTorchSimulator(), deployment)


def test_what_snntorchs_neurons_cannot_do_is_refused_all_at_once() -> None:
    deployment = read(recurrent_net(), (7,))
    filtered = {"hidden": with_constants(deployment.graph.nodes["hidden"], v_leak=np.full(12, 0.1))}
    filtered["rlif"] = with_constants(deployment.graph.nodes["rlif"], v_threshold=np.full(9, -0.1))
    found = codes(deployment.replace(graph=replace_nodes(deployment.graph, filtered)))
    assert found == [("SNX292", "hidden"), ("SNX291", "rlif")]
    both = [("SNX290", "hidden"), ("SNX290", "rlif")]
    assert codes(with_spec(deployment, reset="subtract")) == both
    assert codes(with_spec(deployment, reset_delay=2)) == both
    assert codes(with_spec(deployment, reset_delay=1)) == [("SNX290", "hidden")]
    assert SnnTorchSimulator().mapping(with_spec(deployment, reset_delay=1))["hidden"].kind == "unsupported"


def test_inputs_a_host_turns_into_biases_are_refused() -> None:
    deployment = quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))
    assert codes(deployment) == [("SNX293", "contract.encoder")]


def test_a_graph_that_cannot_be_read_is_a_finding() -> None:
    deployment = read(dense_net(), (4,))
    broken = replace_nodes(deployment.graph, {"fc1": nir.Linear(np.ones((6, 5)))})
    assert codes(deployment.replace(graph=broken)) == [("SNX206", "fc1")]


def test_it_passes_the_kit() -> None:
    found = run_kit(SnnTorchSimulator())
    assert found.passed, found.summary()


def test_it_is_a_simulator_that_leaves_nothing_behind() -> None:
    backend = SnnTorchSimulator()
    assert isinstance(backend, Simulator)
    assert backend.availability().ok
    assert backend.capabilities().arithmetic == "float32"
    before = len(snntorch.SpikingNeuron.instances)
    backend.compile(read(recurrent_net(), (7,)))
    assert len(snntorch.SpikingNeuron.instances) == before + len(torch_neurons(recurrent_net()))


def torch_neurons(layers: nn.Module) -> list[nn.Module]:
    return [module for module in layers.modules() if isinstance(module, snntorch.SpikingNeuron)]
