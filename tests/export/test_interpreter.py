"""The arbiter itself: against real snnTorch in floats, and against a loop of plain Python integers on the grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from snn_export.export import interpreter
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment
from snn_export.export.graph import latencies
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from tests.builders import LayerPlan, Plan, deployment_from, random_dense, random_inputs
from tests.networks import conv_deployment, conv_net, dense_net, leaky, named, quantised, read, uniform

Array = NDArray[Any]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_float_run_is_the_snntorch_student(net: Any, shape: tuple[int, ...], seed: int) -> None:
    layers = net(seed)
    deployment = read(layers, shape, steps=12)
    inputs = uniform(np.random.default_rng(seed), 20, *shape, low=-0.5, high=1.5).astype(np.float32)
    student = StudentSimulator(layers)
    trace = student.run(student.compile(deployment), inputs, ("spikes", "membrane"))
    found = interpreter.run(deployment, inputs)
    explained = explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF)
    tied = np.logical_or.reduce([layer.tied for layer in explained.values()])
    assert not tied.all()
    for name, activity in found.items():
        np.testing.assert_array_equal(activity.spikes[:, ~tied], trace.layers[name].spikes[:, ~tied])
        assert not explained[name].faulty.any()
        assert not explained[name].beyond.any()
        assert activity.spikes.any() == deployment.contract.neurons[name].spiking


@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_subtract_reset_is_the_snntorch_student_also_above_twice_the_threshold(strength: float) -> None:
    """snnTorch subtracts again before it compares where a membrane stands above twice the threshold; the contract says so."""
    torch.manual_seed(3)
    layers = named(fc=nn.Linear(4, 9), lif=leaky(700, 0.6, "subtract"), out=nn.Linear(9, 2), readout=Integrator())
    deployment = read(layers, (4,), steps=15)
    inputs = uniform(np.random.default_rng(1), 30, 4, low=-strength, high=strength).astype(np.float32)
    inputs = np.where(np.random.default_rng(2).random((15, 30, 4)) < 0.5, inputs, 0)
    student = StudentSimulator(layers)
    trace = student.run(student.compile(deployment), inputs, ("spikes", "membrane"))
    found = interpreter.run(deployment, inputs)
    explained = explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF)["lif"]
    assert not explained.tied.any()
    assert not explained.faulty.any()
    assert found["lif"].spikes.any()
    assert (found["lif"].membrane.max() > 0.6) == (strength > 1)
    assert all(np.array_equal(found[name].spikes, trace.layers[name].spikes) for name in found)
    once = interpreter.run(with_spec(deployment, double_to_refire=False), inputs)
    assert np.array_equal(once["lif"].spikes, found["lif"].spikes) == (strength < 1)


def with_spec(deployment: Deployment, **changes: Any) -> Deployment:
    """Other semantics for every population that fires."""
    neurons = {name: replace(spec, **changes) if spec.spiking else spec for name, spec in deployment.contract.neurons.items()}
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


def decayed(state: int, keep: int) -> int:
    """Sign and magnitude, as the chip's documentation says it."""
    size = (abs(state) * keep) >> 12
    return -size if state < 0 else size


def scalar_population(sums: list[list[int]], du: int, dv: int, threshold: int, bias: list[int]) -> tuple[list[Any], int]:
    """One population of plain Python integers: sums (T, neurons) -> [(spike, u, v)] per step, and overflow events."""
    size, events, out = len(sums[0]), 0, []
    u, v = [0] * size, [0] * size
    for row in sums:
        step = []
        for n in range(size):
            u[n] = decayed(u[n], 4096 - (du + 1)) + (row[n] << 6)
            if u[n] > 2**23:
                u[n], events = u[n] - 2**24, events + 1
            elif u[n] <= -(2**23):
                u[n], events = u[n] + 2**24, events + 1
            wide = decayed(v[n], 4096 - dv) + u[n] + bias[n]
            v[n] = max(-(2**23) + 1, min(2**23 - 1, wide))
            events += wide != v[n]
            fired = v[n] > threshold << 6
            v[n] = 0 if fired else v[n]
            step.append((fired, u[n], v[n]))
        out.append(step)
    return out, events


@st.composite
def dense_plans(draw: st.DrawFn) -> Plan:
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    first = random_dense(rng, "a", "input", (5, 4))
    second = random_dense(rng, "b", "a", (4, 3))
    high = draw(st.sampled_from([1, 15, 255]))
    return Plan((5,), (first, second), steps=draw(st.integers(1, 12)), high=high, low=draw(st.sampled_from([0, -high])))


@settings(max_examples=60, deadline=None)
@given(plan=dense_plans(), seed=st.integers(0, 1000))
def test_integer_run_is_a_loop_of_python_integers(plan: Plan, seed: int) -> None:
    deployment = deployment_from(plan)
    inputs = random_inputs(np.random.default_rng(seed), deployment, 2)
    found = interpreter.run(deployment, inputs, "int64")
    for sample in range(2):
        signal = [[int(level) for level in inputs[sample]] for _ in range(plan.steps)]
        for layer in plan.layers:
            weight = [[int(w) << layer.weight_exponent for w in row] for row in layer.weight]
            sums = [[sum(w * x for w, x in zip(row, step, strict=True)) for row in weight] for step in signal]
            bias = [0] * len(weight) if layer.bias is None else [int(b) << layer.bias_exponent for b in layer.bias]
            steps, _ = scalar_population(sums, layer.du, layer.dv, layer.threshold, bias)
            values = np.array(steps, np.int64)
            np.testing.assert_array_equal(found[layer.name].spikes[:, sample], values[:, :, 0] != 0)
            np.testing.assert_array_equal(found[layer.name].current[:, sample], values[:, :, 1])
            np.testing.assert_array_equal(found[layer.name].membrane[:, sample], values[:, :, 2])
            signal = [[int(spike) for spike, _, _ in step] for step in steps]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_overflow_events_are_counted_like_the_loop_counts_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = replace(random_dense(rng, "a", "input", (5, 4)), weight_exponent=5)
    deployment = deployment_from(Plan((5,), (layer,), steps=10, high=15))
    inputs = random_inputs(rng, deployment, 1)
    row = [sum((int(w) << 5) * int(x) for w, x in zip(row, inputs[0], strict=True)) for row in layer.weight]
    bias = [0] * 4 if layer.bias is None else [int(b) << layer.bias_exponent for b in layer.bias]
    _, events = scalar_population([row] * 10, layer.du, layer.dv, layer.threshold, bias)
    assert interpreter.run(deployment, inputs, "int64")["a"].overflows == events


@pytest.mark.parametrize("numbers", ["float64", "int64"])
def test_constant_input_is_the_expanded_input_and_samples_are_independent(numbers: Any) -> None:
    rng = np.random.default_rng(5)
    deployment = conv_deployment(rng, steps=6)
    inputs = random_inputs(rng, deployment, 4)
    together = interpreter.run(deployment, inputs, numbers)
    expanded = interpreter.run(deployment, np.broadcast_to(inputs, (6, *inputs.shape)), numbers)
    alone = interpreter.run(deployment, inputs[2:3], numbers)
    for name, activity in together.items():
        np.testing.assert_array_equal(activity.membrane, expanded[name].membrane)
        np.testing.assert_array_equal(activity.spikes, expanded[name].spikes)
        np.testing.assert_array_equal(activity.membrane[:, 2:3], alone[name].membrane)


def test_event_input_of_one_step_is_not_stretched_over_all_steps() -> None:
    deployment = deployment_from(Plan((3,), (LayerPlan("a", np.full((2, 3), 2)),), steps=4, events=True))
    with pytest.raises(UserError) as caught:
        interpreter.run(deployment, np.ones((1, 2, 3)), "int64")
    assert caught.value.code == "SNX003"


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (np.ones((2, 5)), "SNX003"), (np.ones(4), "SNX003"), (np.ones((3, 2, 4)), "SNX003"), (np.ones((0, 4)), "SNX501"),
        (np.full((1, 4), np.nan), "SNX004"), (np.full((1, 4), np.inf), "SNX004"), (np.array([["a"] * 4]), "SNX004"),
        (np.ones((1, 4), complex), "SNX004"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(inputs: Array, code: str) -> None:
    with pytest.raises(UserError) as caught:
        interpreter.run(read(dense_net(), (4,)), inputs)
    assert caught.value.code == code


def cuba(du: int, dv: int, steps: int = 20) -> Deployment:
    """One CubaLIF neuron behind weight 2 and bias 0.5, with w_in = 3 and r = 2."""
    one, tau = np.ones(1), 1e-3 * 4096
    neuron = nir.CubaLIF(
        tau_syn=one * tau / (du + 1), tau_mem=one * tau / dv, r=one * 2, v_leak=one * 0, v_threshold=one * 5.0,
        v_reset=one * 0, w_in=one * 3,
    )  # fmt: skip
    nodes = {
        "x": nir.Input({"input": np.array([1])}), "w": nir.Affine(np.array([[2.0]]), np.array([0.5])),
        "n": neuron, "y": nir.Output({"output": np.array([1])}),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, [("x", "w"), ("w", "n"), ("n", "y")], type_check=False)
    contract = ExecutionContract(
        dt=1e-3, steps=steps, latency=latencies(graph, 1e-3), encoder=EncoderSpec(), neurons={"n": NeuronSpec(dv, du)},
        readout=ReadoutSpec("n", "spike_count"),
    )  # fmt: skip
    return Deployment(graph, contract)


def test_filtered_current_carries_the_bias_through_the_filter() -> None:
    """NIR's own constants: du/dt scales the input by (1 - alpha) w_in, dv/dt by (1 - beta) r."""
    found = interpreter.run(cuba(1023, 512), np.array([[1.0]]))["n"]
    u = v = 0.0
    for t in range(20):
        u = 0.75 * u + 0.25 * 3 * 2.5
        v = 0.875 * v + 0.125 * 2 * u
        fired = v > 5.0
        v = 0.0 if fired else v
        assert found.current[t, 0, 0] == pytest.approx(u, rel=1e-12)
        assert found.membrane[t, 0, 0] == pytest.approx(v, rel=1e-12)
        assert found.spikes[t, 0, 0] == fired
    assert found.spikes.sum() > 2


def test_a_reset_two_steps_late_is_refused_not_ignored() -> None:
    with pytest.raises(UserError) as caught:
        interpreter.run(with_spec(read(dense_net(), (4,)), reset_delay=2), np.ones((1, 4)))
    assert caught.value.code == "SNX203"


@pytest.mark.parametrize("numbers", ["float64", "int64"])
@pytest.mark.parametrize("changes", [{"reset_delay": 1}, {"reset": "subtract", "double_to_refire": True}])
def test_what_snntorch_alone_does_is_refused_on_integers(changes: dict[str, Any], numbers: Any) -> None:
    with pytest.raises(UserError) as caught:
        interpreter.run(with_spec(quantised(read(dense_net(), (4,))), **changes), np.ones((1, 4)), numbers)
    assert caught.value.code == "SNX203"


def test_float_deployment_has_no_integers() -> None:
    with pytest.raises(UserError) as caught:
        interpreter.run(read(dense_net(), (4,)), np.ones((1, 4)), "int64")
    assert caught.value.code == "SNX302"


def test_bias_of_a_weight_node_with_two_sources_counts_once() -> None:
    ones = np.ones(2)
    nodes = {
        "x": nir.Input({"input": np.array([2])}), "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2) * 10),
        "w": nir.Affine(np.eye(2), np.array([100.0, 200.0])), "n": nir.I(ones * 1000), "y": nir.Output({"output": np.array([2])}),
    }  # fmt: skip
    edges = [("x", "a"), ("x", "b"), ("a", "w"), ("b", "w"), ("w", "n"), ("n", "y")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    contract = ExecutionContract(
        dt=1e-3, steps=1, latency=latencies(graph, 1e-3), encoder=EncoderSpec(), readout=ReadoutSpec("n"),
        neurons={"n": NeuronSpec(0, reset="none", spiking=False)},
    )  # fmt: skip
    found = interpreter.run(Deployment(graph, contract), np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(found["n"].membrane, [[[111.0, 222.0]]], rtol=1e-12)
