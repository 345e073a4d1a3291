"""The PyTorch student on integers equals the integer interpreter bit for bit, whatever it has learnt, and stays safe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.random import Generator

from snn_export.export import bounds, interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.student.quantised import (
    deployment_from_student,
    drive_limits,
    student_from_deployment,
    student_plan,
)
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.quantised import safety
from snn_export.models.quantised.student import QuantisedStudent
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs
from tests.lava_networks import KINDS, SMALL, random_network
from tests.networks import conv_net, dense_net, quantised, read

pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")  # scale 1, decay 0: no real units


def random_safe_deployment(rng: Generator, kind: str) -> Deployment:
    """A random network of everything the format knows; hypothesis drops those that may overflow."""
    events, high = bool(rng.random() < 0.4), int(rng.choice([1, 7, 31]))
    layers = random_network(rng, "n", kind)
    low = 0 if events else int(rng.choice([0, -high]))
    deployment = deployment_from(Plan(SMALL.input, layers, int(rng.integers(1, 25)), low, high, events=events))
    assume(not bounds.overflow_findings(deployment))
    return deployment


def assert_equal(student: QuantisedStudent, deployment: Deployment, rng: Generator) -> int:
    """Spikes, u and v of every population, against the int64 interpreter; returns the number of spikes."""
    inputs = random_inputs(rng, deployment, 3)
    trace = simulator("quantised_student", module=student).run((deployment, student), inputs, ("spikes", "membrane", "current"))
    spikes = 0
    for name, expected in interpreter.run(deployment, inputs, "int64").items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(layer.spikes, expected.spikes, err_msg=name)
        np.testing.assert_array_equal(layer.current, expected.current, err_msg=name)
        np.testing.assert_array_equal(layer.membrane, expected.membrane, err_msg=name)
        spikes += int(expected.spikes.sum())
    return spikes


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_its_deployment(kind: str) -> None:
    """Loops, delays per neuron, Conv1d, grouped and strided convolutions, Scale, biases of both kinds, periodic resets."""
    fired = []

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(seed=st.integers(0, 10**6))
    def equal(seed: int) -> None:
        rng = np.random.default_rng(seed)
        deployment = random_safe_deployment(rng, kind)
        student = student_from_deployment(deployment)
        fired.append(assert_equal(student, deployment, rng))
        integers = deployment_from_student(student, deployment).integer_arrays()
        expected = deployment.integer_arrays()
        assert integers.keys() == expected.keys()
        assert all(np.array_equal(integers[path], expected[path]) for path in expected)

    equal()
    assert sum(fired) > 0, "nothing was exercised"


def test_whatever_is_learnt_stays_safe_and_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters thrown far out of their range: what is run is what is exported, and it cannot overflow."""
    scaled_back = []
    original = safety._scaled_back
    monkeypatch.setattr(safety, "_scaled_back", lambda *values: scaled_back.append(1) or original(*values))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS))
    def stays_safe(seed: int, kind: str) -> None:
        rng = np.random.default_rng(seed)
        deployment = random_safe_deployment(rng, kind)
        student = student_from_deployment(deployment)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(float(rng.choice([1, 3, 30])))
                parameter.add_(float(rng.choice([5, 400])) * torch.randn(parameter.shape, generator=generator))
        learnt = deployment_from_student(student, deployment)
        assert bounds.overflow_findings(learnt) == []
        for name, synapse in learnt.synapses.items():
            grid = student.plan.layers[name].grid
            assert grid.low <= synapse.weight.min()
            assert synapse.weight.max() <= grid.high
            assert synapse.bias_mantissa is None or np.abs(synapse.bias_mantissa.astype(int)).max() <= 4096
        assert_equal(student, learnt, rng)

    stays_safe()
    assert scaled_back, "no limit was ever met"


@settings(max_examples=150, deadline=None)
@given(
    du=st.integers(0, 4095), dv=st.integers(0, 4095), threshold=st.integers(0, 131071), steps=st.integers(1, 40),
    spiking=st.booleans(), subtract=st.booleans(), interval=st.integers(0, 6),
)  # fmt: skip
def test_limits_are_the_bounds_of_the_analysis(
    du: int, dv: int, threshold: int, steps: int, spiking: bool, subtract: bool, interval: int
) -> None:
    """A sum at the limit is proven safe by ``export/bounds.py``, one a little above it is not."""
    layer = LayerPlan("n", np.array([[2]]), du=du, dv=dv, threshold=threshold if spiking else arithmetic.THRESHOLD_MAX)
    deployment = deployment_from(Plan((1,), (layer,), steps))
    spec = NeuronSpec(dv, du, "subtract" if subtract else "zero", spiking=spiking, reset_interval=interval)
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": {"n": spec}}))
    limits = drive_limits(deployment, "n")
    for sign, room in ((1, min(limits.current, limits.push)), (-1, min(limits.current, limits.pull))):
        largest = int(room / limits.gather / 64)
        for current, safe in ((largest, True), (largest + 2, False)):
            synapse = replace(deployment.synapses["n.weight"], weight=np.zeros((1, 1), np.int16),
                              current_bias=np.array([sign * current], np.int32))  # fmt: skip
            changed = deployment.replace(synapses={"n.weight": synapse})
            assert bounds.population_bounds(changed, "n").safe == safe


@pytest.mark.parametrize("kind", ["rate", "bias"])
def test_other_encoders(kind: str) -> None:
    rng = np.random.default_rng(0)
    deployment = quantised(read(conv_net(), (2, 9, 7), encoder=EncoderSpec(kind, seed=5)))  # type: ignore[arg-type]
    inputs = rng.uniform(0, 1, (4, 2, 9, 7))
    backend = simulator("quantised_student")
    trace = backend.run(backend.compile(deployment), inputs, ("spikes", "membrane"))
    for name, expected in interpreter.run(deployment, inputs, "int64").items():
        np.testing.assert_array_equal(trace.layers[name].spikes, expected.spikes)
        np.testing.assert_array_equal(trace.layers[name].membrane, expected.membrane)
        assert expected.spikes.any() == (name != "readout")


def test_samples_beyond_one_chunk_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = quantised(read(dense_net(), (4,)))
    inputs = np.random.default_rng(1).uniform(0, 1, (7, 4))
    backend = simulator("quantised_student")
    whole = backend.run(backend.compile(deployment), inputs, ("spikes", "membrane"))
    monkeypatch.setattr("snn_export.hardware_sims.student.quantised_simulator.CHUNK", 3)
    parts = backend.run(backend.compile(deployment), inputs, ("spikes", "membrane"))
    for name, layer in whole.layers.items():
        np.testing.assert_array_equal(layer.membrane, parts.layers[name].membrane)
    np.testing.assert_array_equal(whole.predictions, parts.predictions)


def test_a_student_that_learnt_something_else_is_seen() -> None:
    """The comparison of a fine-tuned module with its export can fail: one neuron's weights, one step of the grid."""
    deployment = quantised(read(dense_net(), (4,)))
    student = student_from_deployment(deployment)
    plan = student_plan(deployment).layers["fc2"]
    with torch.no_grad():
        weight = student.layers[1].weight
        assert isinstance(weight, torch.Tensor)
        weight[0] += plan.grid.step * plan.unit
    with pytest.raises(AssertionError, match="lif2"):
        assert_equal(student, deployment, np.random.default_rng(0))


def test_logits_are_what_the_readout_ranks() -> None:
    deployment = quantised(read(dense_net(), (4,)))
    inputs = np.random.default_rng(1).uniform(0, 1, (7, 4))
    logits = student_from_deployment(deployment)(torch.tensor(inputs)).detach().numpy()
    expected = interpreter.run(deployment, inputs, "int64")["readout"].membrane[-1] * deployment.populations["readout"].unit / 8
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


def negative_exponent(rng: Generator, step: int, exponent: int) -> Deployment:
    """A network whose first layer stores multiples of ``step`` and acts with w 2^exponent."""
    weight = step * rng.integers(-(254 // step), 254 // step + 1, (6, 9))
    layers = (
        LayerPlan("hidden", weight, dv=500, threshold=90, weight_exponent=exponent),
        LayerPlan("out", even(rng, (4, 6)), "hidden", dv=300, threshold=200, weight_exponent=-1),
    )
    return deployment_from(Plan((9,), layers, steps=10, high=3))


@pytest.mark.parametrize(("step", "exponent"), [(2, -1), (4, -2), (8, -2)])
def test_negative_exponents_that_leave_weights_whole(step: int, exponent: int) -> None:
    rng = np.random.default_rng(0)
    deployment = negative_exponent(rng, step, exponent)
    student = student_from_deployment(deployment)
    assert assert_equal(student, deployment, rng) > 0
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    learnt = deployment_from_student(student, deployment)
    assert np.any(learnt.synapses["hidden.weight"].weight != deployment.synapses["hidden.weight"].weight)
    assert not np.any(learnt.synapses["hidden.weight"].weight % (1 << -exponent)), "and stay whole"
    assert_equal(student, learnt, rng)


def test_negative_exponents_that_cut_weights_off_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        student_from_deployment(negative_exponent(np.random.default_rng(0), 2, -2))
    assert caught.value.code == "SNX317"
    assert caught.value.diagnostics[0].where == "hidden.weight"


@pytest.mark.parametrize("level", [3999, 16777213])
def test_sums_that_pass_beyond_float32_on_their_way_are_exact(level: int) -> None:
    """A constant input cancels in the end; before it does, partial sums exceed 2^24."""
    rng = np.random.default_rng(0)
    half = np.abs(even(rng, (3, 500)))
    one = LayerPlan("one", np.concatenate([half, -half], axis=1), threshold=100, weight_exponent=1)
    assert_cancels(deployment_from(Plan((1000,), (one,), steps=2, low=level, high=level)))


def test_several_wires_that_only_together_pass_beyond_float32() -> None:
    """Each wire's sum stays below 2^24, what they add up to on the way does not."""
    level = 65535
    more = tuple(SynapsePlan(np.full((1, 1), weight)) for weight in (254, -254, -255))
    one = LayerPlan("one", np.full((1, 1), 255), threshold=100, more=more)
    assert 255 * level < 1 << 24 < 509 * level
    assert_cancels(deployment_from(Plan((1,), (one,), steps=2, low=level, high=level)))


def assert_cancels(deployment: Deployment) -> None:
    """Equal to the interpreter on the one input there is, which adds up to nothing."""
    inputs = np.full((2, 2, *deployment.input_shape), float(deployment.contract.encoder.high))
    student = student_from_deployment(deployment)
    trace = simulator("quantised_student", module=student).run((deployment, student), inputs, ("current",))
    np.testing.assert_array_equal(trace.layers["one"].current, interpreter.run(deployment, inputs, "int64")["one"].current)
    assert not trace.layers["one"].current.any()
    student(torch.tensor(inputs)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in student.parameters())


def test_float_and_unsafe_deployments_are_refused() -> None:
    for code, deployment in (
        ("SNX302", read(dense_net(), (4,))),
        ("SNX313", deployment_from(Plan((900,), (LayerPlan("n", even(np.random.default_rng(0), (3, 900))),), 50, 0, 255))),
    ):
        with pytest.raises(UserError) as caught:
            student_from_deployment(deployment)
        assert caught.value.code == code
