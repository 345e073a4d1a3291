"""Norse runs the contract's network: its own import where that is right, ours where it is not, and which of the two is said."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.explanations import lookup
from snn_export.export import interpreter, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.norse import simulator
from snn_export.hardware_sims.norse.simulator import NorseSimulator
from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.spec import EncoderSpec, NeuronSpec
from snn_export.models.students.registry import build_student
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform
from tests.students import lively
from tests.torch_graphs import assert_runs_its_integers, everything, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip
NORSE_ROUNDOFF = 4 * FLOAT32_ROUNDOFF
"""Norse computes dt/tau from a float32 tau, its reciprocal and a product: three more roundings in the decay of every step."""


def run(deployment: Deployment, inputs: Any) -> Trace:
    backend = NorseSimulator()
    assert backend.check(deployment) == []
    return backend.run(backend.compile(deployment), inputs, ALL)


def kinds(deployment: Deployment) -> dict[str, str]:
    return {name: found.kind for name, found in NorseSimulator().mapping(deployment).items()}


def assert_explained(deployment: Deployment, inputs: Any, trace: Trace) -> None:
    """Every layer follows from what the run itself fired before it, but for ties."""
    for name, layer in explain(deployment, inputs, trace.layers, NORSE_ROUNDOFF).items():
        assert not layer.faulty.any(), name
        assert not layer.beyond.any(), name


def assert_equal(deployment: Deployment, inputs: Any, trace: Trace) -> None:
    """0 mismatched spikes against the arbiter."""
    for name, activity in interpreter.run(deployment, inputs).items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes, err_msg=name)
        for which in ("membrane", "current"):
            found, expected = getattr(trace.layers[name], which), getattr(activity, which)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=name)
        assert activity.spikes.any() == deployment.contract.neurons[name].spiking, f"{name} is dead"


@pytest.mark.parametrize(
    ("name", "portable"),
    [(name, portable) for name in NETWORKS for portable in (False, True) if name != "residual" or not portable],
)  # an identity connection of the residual network has no weights for r
def test_zero_reset_has_no_mismatched_spike(name: str, portable: bool, tmp_path: Path) -> None:
    build, shape = NETWORKS[name]
    made = read(build(), shape, steps=12)
    deployment = nir_io.read(nir_io.write(PortableForm()(made) if portable else made, tmp_path / "net.nir"))
    inputs = uniform(np.random.default_rng(1), 16, *shape, low=-0.5, high=2.0).astype(np.float32)
    trace = run(deployment, inputs)
    assert_explained(deployment, inputs, trace)
    assert_equal(deployment, inputs, trace)
    found = kinds(deployment)
    assert "unsupported" not in found.values()
    if name != "residual":
        native = "native" if portable else "rewritten"
        assert {found[layer] for layer, spec in deployment.contract.neurons.items() if spec.spiking} == {native}


@pytest.mark.parametrize("model", ["dense", "convnet", "recurrent"])
def test_students_of_the_digits_size(model: str) -> None:
    """8x8 images, 10 classes, 8 steps: as many spikes as a digits run has per sample, 0 of them other."""
    torch.manual_seed(0)
    shape = (64,) if model != "convnet" else (1, 8, 8)
    inputs = uniform(np.random.default_rng(0), 64, *shape).astype(np.float32)
    options = {"encoder": "events"} if model == "recurrent" else {}
    if model == "recurrent":
        inputs = (np.random.default_rng(0).random((8, 64, 64)) < inputs).astype(np.float32)
    student = lively(build_student(model, input_shape=shape, classes=10, steps=8, **options), torch.from_numpy(inputs))
    deployment = read(student.layers, shape, steps=8, encoder=EncoderSpec(options.get("encoder", "direct")))  # type: ignore[arg-type]
    trace = run(deployment, inputs)
    assert_explained(deployment, inputs, trace)
    assert_equal(deployment, inputs, trace)


def test_a_flip_at_the_threshold_is_explained_as_a_tie() -> None:
    """An input that brings the membrane to theta and one rounding: float64 stays silent, Norse's float32 need not."""
    ones = np.ones(400)
    theta = np.random.default_rng(0).uniform(0.5, 1.5, 400)
    nodes = {
        "input": nir.Input({"input": np.array([400])}), "w": nir.Scale(ones),
        "n": nir.LIF(ones * 4.096 / 1365, ones, ones * 0, theta, ones * 0), "output": nir.Output({"output": np.array([400])}),
    }  # fmt: skip
    deployment = graph_of(nodes, [("input", "w"), ("w", "n"), ("n", "output")], {"n": NeuronSpec(1365)}, steps=1)
    inputs = (theta * 4096 / 1365)[None, None]
    trace = run(deployment, inputs)
    arbiter = interpreter.run(deployment, inputs)["n"].spikes
    flipped = trace.layers["n"].spikes != arbiter
    assert flipped.any()
    explained = explain(deployment, inputs, trace.layers, NORSE_ROUNDOFF)["n"]
    assert explained.tied.all()
    assert not explained.faulty.any()
    moved = explain(deployment, inputs * 0.9, trace.layers, NORSE_ROUNDOFF)["n"]
    assert moved.faulty.any(), "a flip away from the threshold would be called a tie too"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), reset=st.sampled_from(["zero", "subtract", "none"]))
def test_every_node_and_every_way_of_joining_them(seed: int, reset: str) -> None:
    deployment = with_spec(everything(seed), reset=reset)
    leaky = with_constants(deployment.graph.nodes["n4"], v_leak=np.random.default_rng(seed).uniform(-0.3, 0.3, 6))
    if seed % 2:
        deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"n4": leaky}))
    inputs = np.random.default_rng(seed).uniform(-1, 2, (9, 3, 2, 7, 6))
    assert_explained(deployment, inputs, run(deployment, inputs))


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_the_whole_graph_is_the_arbiters(reset: str) -> None:
    deployment = with_spec(everything(2), reset=reset)
    inputs = np.random.default_rng(2).uniform(-1, 2, (9, 5, 2, 7, 6))
    assert_equal(deployment, inputs, run(deployment, inputs))


def test_what_is_native_is_what_norses_own_import_gets_right() -> None:
    deployment = PortableForm()(read(conv_net(), (2, 9, 7)))
    assert kinds(deployment) == {
        "conv1": "native", "lif1": "native", "conv2": "emulated", "lif2": "native", "flatten": "emulated", "fc": "native",
        "readout": "emulated",
    }  # fmt: skip
    assert kinds(read(dense_net(), (4,)))["lif1"] == "rewritten"
    assert kinds(PortableForm()(read(dense_net(reset="subtract"), (4,))))["lif1"] == "emulated"
    assert kinds(read(recurrent_net(), (7,)))["hidden"] == "rewritten"
    filtered = read(recurrent_net(), (7,))
    filtered = filtered.replace(graph=replace_nodes(filtered.graph, {"rlif": PortableForm()(filtered).graph.nodes["rlif"]}))
    leaking = {"hidden": with_constants(filtered.graph.nodes["hidden"], v_leak=np.full(12, 0.1))}
    assert kinds(filtered)["hidden"] in ("native", "rewritten")
    assert kinds(filtered.replace(graph=replace_nodes(filtered.graph, leaking)))["hidden"] == "emulated"
    trace = run(deployment, uniform(np.random.default_rng(0), 2, 2, 9, 7))
    assert trace.provenance["norse mapping"] == "native: conv1, lif1, lif2, fc; emulated: conv2, flatten, readout"
    assert trace.provenance["norse"]


def test_a_cubalif_keeps_its_own_r_and_w_in() -> None:
    """Norse honours them, so nothing is folded where no LIF or IF needs it."""
    ones = np.ones(5)
    nodes = {
        "input": nir.Input({"input": np.array([5])}), "w": nir.Affine(np.eye(5) * 3, ones * 0.1),
        "n": nir.CubaLIF(ones * 4e-3, ones * 8e-3, ones * 2.5, ones * 0, ones * 0.5, ones * 0, ones * 3),
        "output": nir.Output({"output": np.array([5])}),
    }  # fmt: skip
    deployment = graph_of(nodes, [("input", "w"), ("w", "n"), ("n", "output")], {"n": NeuronSpec(512, 1023)})
    inputs = np.random.default_rng(0).uniform(-0.2, 1, (9, 4, 5))
    assert kinds(deployment) == {"w": "native", "n": "native"}
    assert_equal(deployment, inputs, run(deployment, inputs))


def test_time_constants_that_are_not_the_contracts_are_not_used() -> None:
    deployment = PortableForm()(read(dense_net(), (4,)))
    wrong = with_constants(deployment.graph.nodes["lif1"], tau=deployment.graph.nodes["lif1"].tau * 1.5)
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": wrong}))
    assert kinds(deployment)["lif1"] == "emulated"
    inputs = uniform(np.random.default_rng(0), 8, 4, high=2.0)
    assert_equal(deployment, inputs, run(deployment, inputs))


def alone(node: nir.NIRNode, shape: tuple[int, ...], after: tuple[int, ...]) -> Any:
    """What Norse itself makes of one node."""
    ends = {"input": nir.Input({"input": np.array(shape)}), "output": nir.Output({"output": np.array(after)})}
    graph = nir.NIRGraph({**ends, "node": node}, [("input", "node"), ("node", "output")], type_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return norse.from_nir(graph, ignore_warnings=True).get_submodule("node")


def test_the_deviations_that_are_worked_around_are_there() -> None:
    """One of these failing says that the installed Norse no longer has the deviation: then its import can be used."""
    ones = np.ones(2)
    lif = nir.LIF(ones * 4e-3, ones * 2.0, ones * 0.5, ones, ones * 0)
    cell = alone(lif, (2,), (2,))
    _, state = cell(torch.ones(1, 2), norse.LIFBoxFeedForwardState(v=torch.zeros(1, 2)))
    assert state.v.flatten().tolist() == pytest.approx([0.25 * 1.5] * 2), "r is no longer ignored"
    assert cell.initial_state(torch.ones(1, 2)).v.tolist() == [0.5, 0.5], "state no longer begins at v_leak"
    cuba = alone(nir.CubaLIF(ones * 2e-3, ones * 4e-3, ones, ones * 0.5, ones, ones * 0, ones), (2,), (2,))
    assert cuba.synapse.p.v_leak.tolist() == [0.5, 0.5], "v_leak is no longer fed to the synapse"
    assert alone(nir.Flatten({"input": np.array([2, 3])}, 0, -1), (2, 3), (6,))(torch.ones(4, 2, 3)).shape == (24,)
    with pytest.raises(ValueError, match="groups"):
        alone(nir.Conv2d((4, 4), np.ones((4, 1, 3, 3)), 1, 1, 1, 2, np.ones(4)), (2, 4, 4), (4, 4, 4))
    with pytest.raises(ValueError, match="empty graph"):
        alone(nir.LI(ones, ones, ones * 0), (2,), (2,))


def test_periodic_resets_clear_states_and_leave_what_is_in_flight() -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    inputs = uniform(np.random.default_rng(3), 8, 7, high=2.0)
    assert_equal(deployment, inputs, run(deployment, inputs))


def test_a_quantised_deployment_runs_its_integers_and_says_so() -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    inputs = uniform(np.random.default_rng(0), 12, 2, 9, 7)
    trace = assert_runs_its_integers(NorseSimulator(), deployment, inputs)
    assert "no truncation" in trace.provenance["norse state"]


def codes(deployment: Deployment) -> list[tuple[str, str]]:
    return refusals(NorseSimulator(), deployment)


def test_resets_norse_does_not_have_are_refused_all_at_once() -> None:
    deployment = read(dense_net(), (4,))
    both = [("SNX294", "lif1"), ("SNX294", "lif2")]
    assert codes(with_spec(deployment, reset_delay=1)) == both
    assert codes(with_spec(deployment, reset="subtract", double_to_refire=True)) == both
    assert kinds(with_spec(deployment, reset_delay=1))["lif1"] == "unsupported"
    late = {"lif1": replace(deployment.contract.neurons["lif1"], reset="none", reset_delay=1)}
    contract = deployment.contract.model_copy(update={"neurons": {**deployment.contract.neurons, **late}})
    assert NorseSimulator().check(deployment.replace(contract=contract)) == []  # what never resets is never late


def test_inputs_a_host_turns_into_biases_are_refused() -> None:
    assert codes(quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))) == [("SNX293", "contract.encoder")]


def test_a_graph_that_cannot_be_read_is_a_finding() -> None:
    deployment = read(dense_net(), (4,))
    broken = replace_nodes(deployment.graph, {"fc1": nir.Linear(np.ones((6, 5)))})
    assert codes(deployment.replace(graph=broken)) == [("SNX206", "fc1")]


def test_without_norse_it_is_unavailable_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "norse.torch", None)
    backend = NorseSimulator()
    there = backend.availability()
    assert (there.ok, there.fix) == (False, simulator.INSTALL)
    assert there.reason.startswith("Norse cannot be imported: ModuleNotFoundError: ")
    with pytest.raises(BackendError) as caught:
        backend.compile(read(dense_net(), (4,)))
    assert caught.value.diagnostic.code == "SNX437"
    assert lookup.page("SNX437").startswith("# SNX437 ")


def test_nothing_is_said_or_imported_that_nobody_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Norse declares torchvision, whose build need not fit torch; and it warns of every r but 1, which is folded before."""
    backend = NorseSimulator()
    assert isinstance(backend, Simulator)
    assert backend.capabilities().arithmetic == "float32"
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        run(read(conv_net(), (2, 9, 7)), uniform(np.random.default_rng(0), 2, 2, 9, 7))
    assert caplog.records == []
    program = (
        "import sys\n"
        "from snn_export.hardware_sims.norse.simulator import NorseSimulator as N\n"
        "N().capabilities(); assert not {'torch', 'norse'} & set(sys.modules)\n"
        "assert N().availability().ok; assert 'torchvision' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_it_passes_the_kit() -> None:
    found = run_kit(NorseSimulator())
    assert found.passed, found.summary()


def test_samples_do_not_hear_each_other() -> None:
    deployment = read(recurrent_net(), (7,), steps=10)
    inputs = uniform(np.random.default_rng(3), 9, 7, high=2.0)
    program = NorseSimulator().compile(deployment)
    whole, again = (NorseSimulator().run(program, inputs) for _ in range(2))
    single = NorseSimulator().run(program, inputs[4:5])
    for name in deployment.layers:
        np.testing.assert_array_equal(whole.layers[name].spikes, again.layers[name].spikes)
        np.testing.assert_array_equal(whole.layers[name].spikes[:, 4:5], single.layers[name].spikes)
