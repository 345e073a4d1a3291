"""The backend that runs a deployment's own ONNX file: integer Loihi bit for bit, the float reference up to rounding."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from snntorch import surrogate
from torch import nn

import snn_export
from snn_export.export import ties
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.conformance.on_integers import forms
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.onnxruntime import simulator as backend
from snn_export.hardware_sims.onnxruntime.simulator import OnnxRuntimeSimulator
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.simulator import BackendError, Capabilities, Simulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec, ReadoutSpec
from snn_export.verification.compare import Tolerance
from snn_export.verification.direct import link_kind
from snn_export.verification.ladder import Link, Rung, run_ladder
from tests.builders import LayerPlan, Plan, deployment_from, random_dense, random_inputs
from tests.networks import conv_deployment, conv_net, dense_net, leaky, named, quantised, read, recurrent_net, uniform

EVERYTHING: tuple[Record, ...] = ("spikes", "membrane", "current")


def ran(simulator: Simulator, deployment: Deployment, inputs: Any, record: Any = EVERYTHING) -> Trace:
    return simulator.run(simulator.compile(deployment), inputs, record)


def assert_equals_loihi(deployment: Deployment, inputs: Any, **options: Any) -> Trace:
    """Every spike, membrane and current of every layer, counts, readout, predictions and ties. Returns the trace."""
    got, expected = ran(OnnxRuntimeSimulator(**options), deployment, inputs), ran(LoihiSimulator(threads=1), deployment, inputs)
    assert list(got.layers) == list(expected.layers)
    for name, layer in expected.layers.items():
        for what in (*EVERYTHING, "counts"):
            np.testing.assert_array_equal(getattr(got.layers[name], what), getattr(layer, what), err_msg=f"{what} of {name}")
        assert (got.layers[name].unit, got.layers[name].latency, got.layers[name].integer) == (layer.unit, layer.latency, True)
        assert got.layers[name].overflows in (None, layer.overflows)
    np.testing.assert_array_equal(got.readout, expected.readout)
    np.testing.assert_array_equal(got.predictions, expected.predictions)
    assert got.ties == expected.ties
    assert got.readout.dtype == expected.readout.dtype
    return got


# --- the digits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Deployment, Deployment, NDArray[Any], NDArray[Any]]:
    """A student of the digits after a short training: its float and quantised forms, test inputs and labels."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).reshape(-1, 1, 8, 8)
    train, labels = torch.tensor(x[:1200], dtype=torch.float32), torch.tensor(y[:1200])
    lif1, lif2 = leaky(512, 1.0), leaky(512, 1.0)
    lif1.spike_grad = lif2.spike_grad = surrogate.fast_sigmoid()
    layers = named(
        conv1=nn.Conv2d(1, 8, 3, padding=1), lif1=lif1, conv2=nn.Conv2d(8, 16, 3, stride=2, padding=1), lif2=lif2,
        flatten=nn.Flatten(), fc=nn.Linear(256, 10), readout=Integrator(),
    )  # fmt: skip
    optimiser = torch.optim.Adam(layers.parameters(), 5e-3)
    for _ in range(45):
        batch = torch.randperm(1200)[:128]
        v1, v2, total = lif1.init_leaky(), lif2.init_leaky(), torch.zeros(128, 10)
        for _ in range(5):
            s1, v1 = lif1(layers.conv1(train[batch]), v1)
            s2, v2 = lif2(layers.conv2(s1), v2)
            total = total + layers.fc(s2.flatten(1))
        loss = nn.functional.cross_entropy(total, labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    float_form = snn_export.from_snntorch(layers.eval(), (1, 8, 8), 8, x[:64])
    return float_form, snn_export.quantize(float_form, x[:64]), x[1200:], y[1200:]


def test_the_quantised_digits_student_equals_loihi(digits: Any) -> None:
    _, deployment, inputs, labels = digits
    trace = assert_equals_loihi(deployment, inputs)
    assert np.mean(trace.predictions == labels) > 0.7, "a network that learnt nothing proves little"
    assert all(trace.layers[name].counts.sum() > 1000 for name in ("lif1", "lif2"))
    assert all(layer.overflows == 0 for layer in trace.layers.values()), "proven for the declared inputs"
    report = snn_verify(deployment, inputs[:64], labels[:64], LoihiSimulator(threads=1))
    assert report == {"lif1": "EXACT", "lif2": "EXACT", "readout": "EXACT"}


def test_the_float_digits_student_is_the_reference_up_to_ties(digits: Any) -> None:
    """0 mismatched spikes, or each flip lies within the rounding of its sum; membranes within the bound as well."""
    deployment, _, inputs, _ = digits
    got, expected = (ran(simulator, deployment, inputs) for simulator in (OnnxRuntimeSimulator(), ReferenceSimulator()))
    differing = {name: int((got.layers[name].spikes != layer.spikes).sum()) for name, layer in expected.layers.items()}
    explained = ties.explain(deployment, inputs, got.layers, ties.FLOAT32_ROUNDOFF)
    assert not any(found.faulty.any() or found.beyond.any() for found in explained.values())
    assert sum(differing.values()) == 0 or any(found.tied.any() for found in explained.values())
    assert got.layers["lif1"].counts.sum() > 1000
    verdicts = snn_verify(deployment, inputs[:64], None, ReferenceSimulator())
    assert set(verdicts.values()) <= {"EXACT", "TIE"}


def snn_verify(deployment: Deployment, inputs: Any, labels: Any, reference: Simulator) -> dict[str, str]:
    """Verdicts by layer, as a verification gives them."""
    target = OnnxRuntimeSimulator()
    rungs = [Rung(item.name, item.name, deployment, item, "") for item in (reference, target)]
    link = Link(reference.name, target.name, link_kind(reference, target, deployment))
    result = run_ladder(rungs, [link], inputs, labels)
    assert all(found.status is None for found in result.rungs)
    return {layer.layer: layer.verdict for layer in result.links[0][1].finish(Tolerance(20.0, 5.0))}


# --- integers --------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 100_000), steps=st.integers(1, 9), signed=st.booleans(), batch=st.integers(1, 4))
def test_random_convolutional_deployments_equal_loihi(seed: int, steps: int, signed: bool, batch: int) -> None:
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng, steps=steps, low=-15 if signed else 0)
    assert_equals_loihi(deployment, random_inputs(rng, deployment, batch))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 100_000), events=st.booleans(),
    rule=st.sampled_from(["membrane_last", "membrane_mean", "membrane_max", "spike_count"]),
)  # fmt: skip
def test_random_dense_deployments_equal_loihi(seed: int, events: bool, rule: Any) -> None:
    """Filters, biases and thresholds at random; u wraps and v saturates in many of them."""
    rng = np.random.default_rng(seed)
    layers = (random_dense(rng, "a", "input", (7, 6)), random_dense(rng, "b", "a", (6, 5)), random_dense(rng, "c", "b", (5, 4)))
    deployment = deployment_from(Plan((7,), layers, steps=12, high=63, events=events))
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"readout": ReadoutSpec("c", rule)}))
    assert_equals_loihi(deployment, random_inputs(rng, deployment, 3))


def test_quantised_recurrent_network_equals_loihi() -> None:
    inputs = uniform(np.random.default_rng(5), 9, 7)
    float_form = snn_export.from_snntorch(recurrent_net(), (7,), 8, inputs)
    trace = assert_equals_loihi(snn_export.quantize(float_form, inputs), inputs)
    assert trace.layers["hidden"].counts.sum() > 0


@pytest.mark.parametrize("kind", ["rate", "bias"])
def test_what_the_caller_encodes(kind: str) -> None:
    """Rate spikes are drawn by sample, whatever chunk it runs in; biases are computed on the host."""
    inputs = uniform(np.random.default_rng(1), 7, 2, 9, 7)
    options: dict[str, Any] = {"encoder": EncoderSpec("rate", seed=3)} if kind == "rate" else {}
    float_form = read(conv_net(), (2, 9, 7), **options)
    deployment = quantised(float_form if kind == "rate" else as_bias(float_form))
    for chunk_bytes in (1, 1 << 28):
        assert_equals_loihi(deployment, inputs, chunk_bytes=chunk_bytes)


def as_bias(deployment: Deployment) -> Deployment:
    encoder = replace(deployment.contract.encoder, kind="bias")
    return deployment.replace(contract=deployment.contract.model_copy(update={"encoder": encoder}))


# --- the protocol ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [(), ("spikes",), ("membrane",), ("current",), ("membrane", "spikes"), EVERYTHING])
def test_only_what_is_asked_for_is_recorded_and_chunks_change_nothing(record: Any) -> None:
    rng = np.random.default_rng(4)
    deployment = conv_deployment(rng, steps=4)
    inputs = random_inputs(rng, deployment, 5)
    whole = ran(OnnxRuntimeSimulator(), deployment, inputs)
    trace = ran(OnnxRuntimeSimulator(chunk_bytes=1), deployment, inputs, record)
    np.testing.assert_array_equal(trace.readout, whole.readout)
    np.testing.assert_array_equal(trace.predictions, whole.predictions)
    for name, layer in trace.layers.items():
        np.testing.assert_array_equal(layer.counts, whole.layers[name].counts)
        for what in EVERYTHING:
            assert (getattr(layer, what) is not None) == (what in record)
            if what in record:
                np.testing.assert_array_equal(getattr(layer, what), getattr(whole.layers[name], what))


def test_chunks_are_as_small_as_the_memory_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    seen: list[int] = []
    real = backend._asked

    def counted(session: Any, deployment: Deployment, shown: Any, feeds: dict[str, Any]) -> Any:
        seen.append(feeds["input"].shape[1])
        return real(session, deployment, shown, feeds)

    monkeypatch.setattr(backend, "_asked", counted)
    inputs = uniform(np.random.default_rng(0), 300, 2, 9, 7)
    for budget in (1 << 30, 1 << 20, 1):
        seen.clear()
        ran(OnnxRuntimeSimulator(chunk_bytes=budget), deployment, inputs)
        assert sum(seen) == 300
        neurons = sum(int(np.prod(deployment.shapes[name])) for name in deployment.layers)
        assert max(seen) <= max(1, budget // (2 * 13 * neurons * deployment.contract.steps))
        assert max(seen) <= backend.BATCH_AT_ONCE


def test_arithmetic_is_said_by_deployment() -> None:
    can, deployment = OnnxRuntimeSimulator().capabilities(), read(dense_net(), (4,))
    integers = quantised(deployment)
    assert (can.arithmetic_on(deployment), can.arithmetic_on(integers), can.needs_integers) == ("float32", "loihi_integer", False)
    kinds = {
        (type(other).__name__, form.quantised): link_kind(other, OnnxRuntimeSimulator(), form)
        for other in (LoihiSimulator(), ReferenceSimulator())
        for form in (deployment, integers)
    }
    assert kinds == {
        ("LoihiSimulator", True): "exact", ("LoihiSimulator", False): "approximate",
        ("ReferenceSimulator", True): "approximate", ("ReferenceSimulator", False): "float",
    }  # fmt: skip
    assert LoihiSimulator().capabilities().arithmetic_on(integers) == "loihi_integer"
    assert Capabilities("float64", False, "").arithmetic_on(integers) == "float64"


def test_a_wrong_bit_is_found_by_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    inputs = uniform(np.random.default_rng(0), 6, 2, 9, 7)
    assert set(snn_verify(deployment, inputs, None, LoihiSimulator()).values()) == {"EXACT"}
    synapse = deployment.synapses["conv2"]
    weight = synapse.weight.copy()
    weight.flat[3] += 2
    other = deployment.replace(synapses={**deployment.synapses, "conv2": replace(synapse, weight=weight)})
    real = OnnxRuntimeSimulator.compile
    monkeypatch.setattr(OnnxRuntimeSimulator, "compile", lambda self, given: real(self, other if given is deployment else given))
    verdicts = snn_verify(deployment, inputs, None, LoihiSimulator())
    assert (verdicts["lif1"], verdicts["lif2"]) == ("EXACT", "DRIFT")


def test_findings_and_inputs_are_refused_with_a_code() -> None:
    deployment = read(dense_net(), (4,))
    simulator = OnnxRuntimeSimulator()
    assert simulator.check(deployment) == []
    neurons = {**deployment.contract.neurons, "lif1": replace(deployment.contract.neurons["lif1"], reset_delay=2)}
    late = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))
    with pytest.raises(UserError) as caught:
        simulator.compile(late)
    assert (caught.value.code, caught.value.diagnostics[0].where) == ("SNX203", "lif1")
    for inputs, record, code in (
        (np.full((2, 4), 1e39), EVERYTHING, "SNX439"), (np.full((2, 4), np.nan), EVERYTHING, "SNX004"),
        (np.zeros((2, 5)), EVERYTHING, "SNX003"), (np.zeros((0, 4)), EVERYTHING, "SNX501"),
        (np.zeros((2, 4)), ("voltage",), "SNX005"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            ran(simulator, deployment, inputs, record)
        assert caught.value.code == code


def test_what_onnxruntime_cannot_do_is_its_failure_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, inputs = quantised(read(dense_net(), (4,))), np.zeros((2, 4))

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such operator")

    with monkeypatch.context() as patched, pytest.raises(BackendError) as caught:
        patched.setattr(onnxruntime, "InferenceSession", refuse)
        ran(OnnxRuntimeSimulator(), deployment, inputs)
    assert caught.value.diagnostic.code == "SNX438"
    assert "no such operator" in caught.value.diagnostic.what
    simulator = OnnxRuntimeSimulator()
    program = simulator.compile(deployment)
    simulator.run(program, inputs)

    class Broken:
        run = staticmethod(refuse)

    program.sessions[frozenset({"spikes"})] = Broken()
    with pytest.raises(BackendError) as caught:
        simulator.run(program, inputs)
    assert caught.value.diagnostic.code == "SNX438"


def test_it_is_unavailable_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OnnxRuntimeSimulator().availability().versions.keys() == {"onnx", "onnxruntime"}
    monkeypatch.setattr(backend, "PACKAGES", ("onnx", "a-package-that-nobody-has"))
    found = OnnxRuntimeSimulator().availability()
    assert not found.ok
    assert "a-package-that-nobody-has" in found.reason
    assert found.fix


def test_asking_what_it_can_imports_no_onnx() -> None:
    code = (
        "import sys\n"
        "from snn_export.hardware_sims.onnxruntime.simulator import OnnxRuntimeSimulator as S\n"
        "s = S(); s.capabilities(); assert s.availability().ok\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# --- the kit ---------------------------------------------------------------------------------------------------------------


def test_it_passes_the_kit_on_floats_and_on_integers() -> None:
    """Each form is a run of its own: what Loihi refuses is refused on integers, and run on floats."""
    found = [run_kit(form) for form in forms(OnnxRuntimeSimulator())]
    assert [item.backend for item in found] == ["onnxruntime", "onnxruntime (integers)"]
    for item in found:
        assert item.passed, item.summary()
    assert [item.count("expected failure") for item in found] == [0, 5]


def test_a_single_neuron_for_a_single_step() -> None:
    deployment = deployment_from(Plan((1,), (LayerPlan("n", np.full((1, 1), 2), threshold=1),), steps=1))
    trace = assert_equals_loihi(deployment, np.ones((1, 1)))
    assert trace.layers["n"].spikes is not None
    assert trace.layers["n"].spikes.shape == (1, 1, 1)


def test_it_is_registered_under_its_name() -> None:
    assert isinstance(registry.simulator("onnxruntime"), OnnxRuntimeSimulator)
