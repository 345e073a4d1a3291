"""One ONNX file is the whole network: any batch, any T, in parts, and on integers bit for bit."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import checker, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

import snn_export
from snn_export.export import encoding, interpreter, linear, onnx_graph, onnx_io, onnx_linear, onnx_rules
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.library import with_input_as_bias
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, random_dense, random_inputs
from tests.hardware_sims.test_loihi_coverage import ENCODERS, random_lines, random_maps, some_inputs
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform

EVERYTHING = ("spikes", "membrane", "current")
RULES = ("membrane_last", "membrane_mean", "membrane_max", "spike_count")


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session(model).run(names, feeds), strict=True))


def rows(deployment: Deployment, inputs: Any, number: str = "f4") -> dict[str, Any]:
    """What the file of a deployment takes for a user's inputs."""
    if onnx_rules.is_host_biased(deployment):
        return {f"bias/{name}": bias[None] for name, bias in encoding.host_bias(deployment, inputs).items()}
    return {"input": encoding.signal(deployment, inputs).astype("f8" if deployment.quantised else number)}


def mismatches(deployment: Deployment, found: dict[str, Any], inputs: Any) -> int:
    """Numbers in which a file's answers differ from the int64 interpreter, all layers."""
    total = 0
    for name, activity in interpreter.run(deployment, inputs, "int64").items():
        for what, expected in zip(EVERYTHING, (activity.spikes, activity.membrane, activity.current), strict=True):
            got = found[f"{what}/{name}"]
            assert got.shape == expected.shape
            total += int(np.count_nonzero(got != expected))
    return total


def with_rule(deployment: Deployment, rule: Any) -> Deployment:
    contract = deployment.contract
    return deployment.replace(contract=contract.model_copy(update={"readout": ReadoutSpec(contract.readout.node, rule)}))


def with_steps(deployment: Deployment, steps: int) -> Deployment:
    return deployment.replace(contract=deployment.contract.model_copy(update={"steps": steps}))


def with_neurons(deployment: Deployment, **changes: Any) -> Deployment:
    neurons = {name: replace(spec, **changes) if spec.spiking else spec for name, spec in deployment.contract.neurons.items()}
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


def integers(seed: int = 0, steps: int = 8) -> Deployment:
    """A quantised network whose neurons filter their currents and fire."""
    rng = np.random.default_rng(seed)
    layers = (random_dense(rng, "a", "input", (7, 6)), random_dense(rng, "b", "a", (6, 5)), random_dense(rng, "c", "b", (5, 4)))
    return deployment_from(Plan((7,), layers, steps=steps, high=63))


# --- the equations -----------------------------------------------------------------------------------------------------------

EDGES = [
    0,
    1,
    -1,
    63,
    -64,
    4095,
    4096,
    -4095,
    -4096,
    (1 << 23) - 1,
    1 << 23,
    -(1 << 23),
    -(1 << 23) + 1,
    (1 << 24) + 5,
    -(1 << 30),
]


@settings(max_examples=20, deadline=None)
@given(
    du=st.sampled_from([0, 1, 2047, 4094, 4095]), dv=st.sampled_from([0, 1, 2047, 4095]), bias=st.integers(-(1 << 19), 1 << 19),
    threshold=st.integers(0, (1 << 23) - 64), subtract=st.booleans(),
)  # fmt: skip
def test_the_written_equations_are_those_of_arithmetic(du: int, dv: int, bias: int, threshold: int, subtract: bool) -> None:
    """The chip's step, traced into a graph and run, at the edges of 24 bits; overflows included."""
    graph = onnx_graph.Graph("step")
    equations = arithmetic.loihi_step_subtract if subtract else arithmetic.loihi_step
    given = [graph.input(name, np.int64, ("n",)) for name in ("u", "v", "a")]
    for index, value in enumerate(equations(*given, bias, du, dv, threshold)):
        graph.output(f"out{index}", value, ("n",))
    model = onnx.helper.make_model(graph.proto(), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model, full_check=True)
    u, v, a = (
        grid.ravel() for grid in np.meshgrid(EDGES, [e for e in EDGES if abs(e) < 1 << 23], [0, 3, -5, 1 << 18, -(1 << 17)])
    )
    found = session(model).run(None, {"u": u, "v": v, "a": a})
    for got, expected in zip(found, equations(u, v, a, bias, du, dv, threshold), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_operators_of_values_do_what_arrays_do() -> None:
    x = np.array([-4097, -4096, -1, 0, 1, 4095, 4096], np.int64)
    cases: list[Any] = [
        lambda v: v >> 12, lambda v: v << 6, lambda v: v & 4095, lambda v: (v < 0) * 4095, lambda v: 3 * (v >= 4096),
        lambda v: v * (v > 0), lambda v: (v > 0) * v, lambda v: v - v * (v <= -4096), lambda v: np.arange(7) * v + np.zeros(7),
        lambda v: v + 0 * v + np.full(7, 5), lambda v: (v > 3) | (v < -3),
    ]  # fmt: skip
    graph = onnx_graph.Graph("operators")
    value = graph.input("x", np.int64, ("n",))
    for index, case in enumerate(cases):
        graph.output(f"out{index}", case(value), ("n",))
    model = onnx.helper.make_model(graph.proto(), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    for got, case in zip(session(model).run(None, {"x": x}), cases, strict=True):
        np.testing.assert_array_equal(got, case(x))


# --- quantised networks ------------------------------------------------------------------------------------------------------


def test_random_networks_of_everything_are_bit_identical() -> None:
    """Convolutions of all kinds, Scales, delays per neuron, loops, filters, biases, periodic resets, all encoders."""
    fired: list[int] = []

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1), network=st.sampled_from([random_maps, random_lines]),
        encoder=st.sampled_from(sorted(ENCODERS)), steps=st.integers(1, 12), subtract=st.booleans(),
    )  # fmt: skip
    def compare(seed: int, network: Any, encoder: str, steps: int, subtract: bool) -> None:
        rng = np.random.default_rng(seed)
        deployment = network(rng, {"steps": steps, "encoder": ENCODERS[encoder]})
        deployment = with_neurons(deployment, reset="subtract") if subtract else deployment
        inputs = some_inputs(rng, deployment, int(rng.integers(1, 4)))
        found = answers(onnx_io.model(deployment, probes=EVERYTHING), rows(deployment, inputs))
        assert mismatches(deployment, found, inputs) == 0
        fired.append(sum(int(found[f"spikes/{name}"].sum()) for name in deployment.layers))

    compare()
    assert sum(count > 0 for count in fired) > len(fired) / 4


@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_batch_and_steps_are_chosen_when_it_is_run(net: Any, shape: tuple[int, ...]) -> None:
    deployment = quantised(read(net(), shape, steps=5), -1.0, 1.0)
    ready = session(onnx_io.model(deployment))
    for batch, steps in ((1, 5), (3, 5), (7, 2), (2, 23)):
        inputs = uniform(np.random.default_rng(batch), batch, *shape, low=-1)
        activity = interpreter.run(with_steps(deployment, steps), inputs, "int64")["readout"]
        given = inputs[None] if steps == 5 else np.repeat(inputs[None], steps, axis=0)  # one row is held for the contract's T
        output, readout, predictions = ready.run(["output", "readout", "predictions"], {"input": given})
        np.testing.assert_array_equal(output, activity.membrane)
        np.testing.assert_array_equal(readout, activity.membrane[-1])
        np.testing.assert_array_equal(predictions, activity.membrane[-1].argmax(axis=1))
    one = session(onnx_io.model(deployment, streaming=True)).run(["output"], {"input": inputs[None]})[0]
    np.testing.assert_array_equal(one, interpreter.run(with_steps(deployment, 1), inputs, "int64")["readout"].membrane)


def test_no_samples_give_no_answers() -> None:
    found = answers(onnx_io.model(integers(), probes=EVERYTHING), {"input": np.zeros((1, 0, 7))})
    assert found["predictions"].shape == (0,)
    assert found["membrane/b"].shape == (8, 0, 5)


@pytest.mark.parametrize("seed", range(3))
def test_a_second_runtime_computes_the_same(seed: int) -> None:
    """onnx's own reference evaluator: nothing in the file is onnxruntime's alone."""
    deployment = integers(seed, steps=4)
    inputs = random_inputs(np.random.default_rng(seed), deployment, 2)
    model = onnx_io.model(deployment, probes=EVERYTHING)
    names = [output.name for output in model.graph.output]
    found = dict(zip(names, ReferenceEvaluator(model).run(names, {"input": inputs[None]}), strict=True))
    assert mismatches(deployment, found, inputs) == 0


@pytest.mark.parametrize("level", [515, 517, (1 << 24) - 1, 1 << 24])
@pytest.mark.parametrize("weight", [np.full((1, 1), 255), np.full((1, 2, 1, 1), 255), np.full((1, 2, 1), 255)])
def test_sums_beyond_float32_are_exact_too(level: int, weight: Any) -> None:
    """Odd weights beside one that is 1: no common power of two helps, so 255 * 2^24 needs float64, in every kind of layer."""
    weight = weight.copy()
    weight.flat[0] = 255
    weight = np.concatenate([weight, np.ones_like(weight)])
    shape = {2: (1,), 4: (2, 3, 2), 3: (2, 5)}[weight.ndim]
    layer = LayerPlan("n", weight, threshold=100_000, bias=np.array([3, -5]), stride=(2, 1), padding=(1, 1), dilation=(1, 1))
    deployment = deployment_from(Plan(shape, (layer,), steps=4, low=-level, high=level))
    inputs = np.random.default_rng(level).integers(-level, level + 1, (3, *shape)).astype(float)
    inputs[0] = level
    model = onnx_io.model(deployment, probes=EVERYTHING)
    assert mismatches(deployment, answers(model, {"input": inputs[None]}), inputs) == 0
    kinds = {tensor.data_type for tensor in model.graph.initializer if "n.weight" in tensor.name}
    reach = 255 * level * (1 if weight.ndim == 2 else 2)
    assert kinds == {onnx.TensorProto.FLOAT if reach < 1 << 24 else onnx.TensorProto.DOUBLE}


@pytest.mark.parametrize(
    ("weights", "largest", "expected"),
    [
        ([1, 2], (1 << 24) // 3, np.float32), ([1, 2], (1 << 24) // 3 + 1, np.float64), ([2, 2], (1 << 22) + 5, np.float32),
        ([254 << 7] * 200, 1, np.float32), ([(254 << 7) + 1] * 600, 1, np.float64), ([1, 2], (1 << 53) // 3 + 1, None),
        ([0], 1, np.float32),
    ],
)  # fmt: skip
def test_the_type_of_a_sum_is_the_narrowest_that_holds_it(weights: list[int], largest: int, expected: Any) -> None:
    """Every partial sum is a multiple of the weights' common power of two: 2^(24 + p) is float32's end."""
    node = nir.Linear(np.array([weights], float))
    found = onnx_rules.exact_type(node, np.array([weights]), largest)
    assert found == (None if expected is None else np.dtype(expected))


def test_what_would_not_be_exact_is_refused() -> None:
    wide = LayerPlan("n", np.full((1, 2_200_000), 255))
    found = onnx_rules.findings(deployment_from(Plan((2_200_000,), (wide,), high=1 << 24)))
    assert [(d.code, d.where) for d in found] == [("SNX285", "n.weight")]
    grows = replace(wide, weight=np.full((1, 40), 254), weight_exponent=7, du=0)
    found = onnx_rules.findings(deployment_from(Plan((40,), (grows,), high=1 << 24)))
    assert [(d.code, d.where) for d in found] == [("SNX285", "n")]
    assert onnx_rules.findings(deployment_from(Plan((40,), (replace(grows, du=1),), high=1 << 20))) == []


def test_wraps_and_saturations_are_left_out_only_where_they_cannot_happen() -> None:
    """With a leak and small sums u and v stay in 24 bits for any T; without one, v grows until it saturates."""
    quiet = LayerPlan("n", np.full((1, 2), 2), du=4095, dv=2048, threshold=100)

    def comparisons(layer: LayerPlan) -> int:
        model = onnx_io.model(deployment_from(Plan((2,), (layer,), steps=3)))
        body = next(node for node in model.graph.node if node.op_type == "Scan").attribute[0].g
        return sum(node.op_type in ("Greater", "LessOrEqual") for node in body.node)

    assert comparisons(quiet) == 1  # v > theta
    assert comparisons(replace(quiet, weight=np.array([[2, -2]]), dv=0)) == 2  # and v > its largest value
    assert comparisons(replace(quiet, weight=np.full((1, 2), 254), weight_exponent=7, du=1, threshold=130_000)) == 4
    saturating = LayerPlan("n", np.full((1, 1), -256), weight_exponent=7, threshold=1)
    deployment = deployment_from(Plan((1,), (saturating,), steps=400))
    found = answers(onnx_io.model(deployment, probes=EVERYTHING), {"input": np.ones((1, 1, 1))})
    assert mismatches(deployment, found, np.ones((1, 1))) == 0
    assert found["membrane/n"].min() == -(1 << 23) + 1


def test_inputs_meet_the_grid_inside_the_graph() -> None:
    """Round half to even, clip, and a float64 that float32 would round to the other side of a half."""
    deployment = deployment_from(
        Plan((3,), (LayerPlan("n", np.eye(3, dtype=int) * 2),), steps=1, encoder=EncoderSpec(gain=4.0, low=-3, high=9))
    )
    inputs = np.array([[0.125, 0.375, 0.125 + 1e-12], [-0.625, 99.0, -99.0], [0.0, -0.0, 0.1]])
    found = answers(onnx_io.model(deployment, probes=("current",)), {"input": inputs[None]})["current/n"][0]
    np.testing.assert_array_equal(found, [[0, 256, 128], [-256, 1152, -384], [0, 0, 0]])
    assert mismatches(deployment, answers(onnx_io.model(deployment, probes=EVERYTHING), {"input": inputs[None]}), inputs) == 0


@pytest.mark.parametrize("steps", [1, 6])
def test_what_a_host_computes_comes_in_as_biases(steps: int) -> None:
    float_form = with_input_as_bias(read(conv_net(), (2, 9, 7), steps=steps))
    inputs = uniform(np.random.default_rng(2), 4, 2, 9, 7)
    real = interpreter.run(float_form, inputs)
    found = answers(onnx_io.model(float_form, probes=("spikes",)), rows(float_form, inputs))
    np.testing.assert_array_equal(found["spikes/lif1"], real["lif1"].spikes)
    deployment = quantised(float_form)
    model = onnx_io.model(deployment, probes=EVERYTHING)
    assert [item.name for item in model.graph.input] == ["bias/lif1"]
    given = rows(deployment, inputs)
    found = answers(model, given)
    host = encoding.host_bias(deployment, inputs)
    assert np.any(host["lif1"])
    assert mismatches(deployment, found, inputs) == 0
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata["snn_export.encoder"] == "caller: bias/<population>"


# --- float networks ----------------------------------------------------------------------------------------------------------


def pooled() -> Deployment:
    """Padded and overlapping pools, a Scale, and a Threshold: what a chip has no layer for."""
    rng = np.random.default_rng(4)
    pair = lambda *sizes: np.array(sizes)
    maps = np.ones((4, 5, 4))
    nodes = {
        "input": nir.Input({"input": np.array([2, 7, 6])}),
        "avg": nir.AvgPool2d(pair(3, 2), pair(2, 1), pair(1, 0)),
        "conv": nir.Conv2d((4, 5), rng.normal(0, 1, (4, 1, 2, 3)), (1, 2), (1, 2), (1, 1), 2, rng.normal(0, 1, 4)),
        "lif": nir.LIF(4e-3 * maps, maps, 0 * maps, 0.1 * maps, 0 * maps),
        "sum": nir.SumPool2d(pair(2, 2), pair(2, 2), pair(0, 1)),
        "scale": nir.Scale(rng.normal(0, 1, (4, 2, 3))),
        "compare": nir.Threshold(np.full((4, 2, 3), 0.2)),
        "flatten": nir.Flatten({"input": np.array([4, 2, 3])}, 0, -1),
        "fc": nir.Affine(rng.normal(0, 1, (3, 24)), rng.normal(0, 1, 3)),
        "readout": nir.I(np.full(3, 1e3)),
        "output": nir.Output({"output": np.array([3])}),
    }
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    contract = ExecutionContract(
        dt=1e-3, steps=6, latency={"lif": 1, "compare": 2, "readout": 3}, encoder=EncoderSpec(), readout=ReadoutSpec("readout"),
        neurons={"lif": NeuronSpec(1024), "compare": NeuronSpec(4096), "readout": NeuronSpec(0, spiking=False)},
    )  # fmt: skip
    return Deployment(graph, contract)


FLOATS: dict[str, Any] = {
    "conv": lambda: read(conv_net(), (2, 9, 7)), "subtract": lambda: read(dense_net(reset="subtract"), (4,)),
    "none": lambda: with_neurons(read(dense_net(), (4,)), reset="none"), "recurrent": lambda: read(recurrent_net(), (7,)),
    "delayed": lambda: read(delayed_net(), (6,)), "residual": lambda: read(residual_net(), (2, 8, 6)), "pooled": pooled,
    "late": lambda: with_neurons(read(dense_net(), (4,)), reset_delay=1),
    "late subtract": lambda: with_neurons(read(dense_net(), (4,)), reset="subtract", reset_delay=1),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", FLOATS)
def test_float_networks_do_what_the_interpreter_does(name: str, precision: Any) -> None:
    deployment = FLOATS[name]()
    inputs = uniform(np.random.default_rng(1), 6, *deployment.input_shape)
    found = answers(onnx_io.model(deployment, precision=precision, probes=EVERYTHING), rows(deployment, inputs, precision))
    bound = 1e-4 if precision == "float32" else 1e-10
    for layer, activity in interpreter.run(deployment, inputs).items():
        np.testing.assert_array_equal(found[f"spikes/{layer}"], activity.spikes)
        np.testing.assert_allclose(found[f"membrane/{layer}"], activity.membrane, atol=bound, rtol=bound)
        np.testing.assert_allclose(found[f"current/{layer}"], activity.current, atol=bound, rtol=bound)
        assert found[f"membrane/{layer}"].dtype == precision
    assert sum(int(found[f"spikes/{layer}"].sum()) for layer in deployment.layers) > 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), number=st.sampled_from(["f4", "f8"]), kind=st.sampled_from(["conv1", "conv2", "avg", "sum"])
)
def test_linear_nodes_do_what_the_interpreters_do(seed: int, number: str, kind: str) -> None:
    """Kernel, stride, padding ("same" too), dilation and groups at random, on integers, where both are exact."""
    rng = np.random.default_rng(seed)
    axes, groups = (1 if kind == "conv1" else 2), int(rng.integers(1, 3))
    sizes = lambda low, high: rng.integers(low, high, axes)
    given_shape = (2 * groups, *(int(size) for size in sizes(5, 9)))
    if kind in ("avg", "sum"):
        node: nir.NIRNode = (nir.AvgPool2d if kind == "avg" else nir.SumPool2d)(sizes(1, 4), sizes(1, 4), sizes(0, 2))
        weight = None
    else:
        weight = rng.integers(-9, 10, (3 * groups, 2, *sizes(1, 4))).astype(float)
        same = rng.random() < 0.3
        one = lambda values: int(values[0]) if axes == 1 else tuple(int(value) for value in values)
        stride, padding = (one(np.ones(axes)), "same") if same else (one(sizes(1, 4)), one(sizes(0, 3)))
        made = nir.Conv1d if axes == 1 else nir.Conv2d
        node = made(None, weight, stride, padding, one(sizes(1, 3)), groups, np.zeros(len(weight)))
    x = rng.integers(-5, 6, (3, *given_shape)).astype(number)
    expected = linear.apply("node", node, x.astype(float))
    graph = onnx_graph.Graph("linear")
    value = graph.input("x", number, ("n", *given_shape))
    graph.output(
        "y", onnx_linear.apply(graph, "node", node, value, given_shape, expected.shape[1:], weight), ("n", *expected.shape[1:])
    )
    model = onnx.helper.make_model(graph.proto(), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model, full_check=True)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize("quantise", [False, True])
def test_a_matrix_may_drive_a_population_of_maps(quantise: bool) -> None:
    """A population has the shape of its parameters: six outputs of a matrix, two maps of three neurons."""
    layer = LayerPlan("maps", 2 * np.arange(-12, 12).reshape(6, 4), threshold=90, dv=500)
    deployment = deployment_from(Plan((4,), (layer, LayerPlan("out", np.full((2, 6), 4), "maps")), steps=5, high=9))
    nodes = dict(deployment.graph.nodes)
    ones = np.ones((2, 3))
    nodes["maps"] = nir.LIF(ones * 1e-3 * 4096 / 500, ones, ones * 0, ones * 90, ones * 0)
    nodes["flat"] = nir.Flatten({"input": np.array([2, 3])}, 0, -1)
    edges = [edge for edge in deployment.graph.edges if edge != ("maps", "out.weight")]
    graph = nir.NIRGraph(nodes, [*edges, ("maps", "flat"), ("flat", "out.weight")], type_check=False)
    deployment = deployment.replace(graph=graph)
    assert deployment.shapes["maps"] == (2, 3)
    inputs = random_inputs(np.random.default_rng(0), deployment, 3)
    if quantise:
        assert (
            mismatches(deployment, answers(onnx_io.model(deployment, probes=EVERYTHING), rows(deployment, inputs)), inputs) == 0
        )
        return
    contract = deployment.contract.model_copy(update={"quantisation": None})
    real = deployment.replace(contract=contract, synapses={}, populations={})
    found = answers(onnx_io.model(real, probes=("spikes",)), rows(real, inputs))
    expected = interpreter.run(real, inputs)["maps"].spikes
    assert expected.any()
    np.testing.assert_array_equal(found["spikes/maps"], expected)


def test_numbers_that_a_precision_does_not_hold_are_refused() -> None:
    deployment = read(dense_net(), (4,))
    node = deployment.graph.nodes["fc1"]
    huge = deployment.replace(graph=replace_nodes(deployment.graph, {"fc1": nir.Affine(node.weight * 1e300, node.bias)}))
    assert [(d.code, d.where) for d in onnx_rules.findings(huge)] == [("SNX286", "fc1")]
    assert onnx_rules.findings(huge, "float64") == []


# --- in parts ----------------------------------------------------------------------------------------------------------------


def in_parts(deployment: Deployment, given: Any, cuts: list[int]) -> list[dict[str, Any]]:
    """Run a streaming file on consecutive parts of (T, B, *shape), each with what the one before left."""
    model = onnx_io.model(deployment, probes=EVERYTHING, streaming=True)
    ready, names, state, found = session(model), [o.name for o in model.graph.output], dict[str, Any](), []
    for start, stop in zip([0, *cuts], [*cuts, len(given)], strict=True):
        part = dict(zip(names, ready.run(names, {"input": given[start:stop], **state}), strict=True))
        state = {name.replace("next/", "state/", 1): value for name, value in part.items() if name.startswith("next/")}
        found.append(part)
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", [random_maps, random_lines])
def test_two_halves_with_carried_state_are_one_run(network: Any, rule: Any) -> None:
    """Delays, loops, filters and periodic resets cross the cut; so does what the readout gathers."""
    compared = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        deployment = with_rule(network(rng, {"steps": 11, "encoder": ENCODERS["graded events"]}), rule)
        inputs = some_inputs(rng, deployment, 3)
        whole = answers(onnx_io.model(deployment, probes=EVERYTHING), {"input": inputs})
        for cuts in ([4], [1, 2, 9]):
            parts = in_parts(deployment, inputs, cuts)
            for what in EVERYTHING:
                for name in deployment.layers:
                    joined = np.concatenate([part[f"{what}/{name}"] for part in parts])
                    np.testing.assert_array_equal(joined, whole[f"{what}/{name}"], err_msg=f"{what} of {name}")
            np.testing.assert_array_equal(parts[-1]["readout"], whole["readout"])
            np.testing.assert_array_equal(parts[-1]["predictions"], whole["predictions"])
            compared += int(whole["spikes/c1"].sum())
        assert mismatches(deployment, whole, inputs) == 0
    assert compared > 0


@pytest.mark.parametrize("name", ["recurrent", "delayed", "late"])
def test_float_networks_run_in_parts_too(name: str) -> None:
    deployment = with_rule(FLOATS[name](), "membrane_mean")
    inputs = uniform(np.random.default_rng(3), 5, *deployment.input_shape).astype("f4")
    given = np.repeat(inputs[None], deployment.contract.steps, axis=0)
    whole, parts = answers(onnx_io.model(deployment), {"input": given}), in_parts(deployment, given, [3])
    np.testing.assert_allclose(np.concatenate([part["output"] for part in parts]), whole["output"], atol=1e-6)
    np.testing.assert_allclose(parts[-1]["readout"], whole["readout"], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("quantise", [False, True])
def test_readout_rules(rule: Any, quantise: bool) -> None:
    deployment = with_rule(read(dense_net(), (4,)), rule)
    deployment = deployment if not quantise else quantised(deployment)
    node = "lif2" if rule == "spike_count" else "readout"
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"readout": ReadoutSpec(node, rule)}))
    inputs = uniform(np.random.default_rng(0), 9, 4)
    activity = interpreter.run(deployment, inputs, "int64" if quantise else "float64")[node]
    from snn_export.hardware_sims.trace import read_out

    values, predictions, _ = read_out(deployment.contract.readout, activity.spikes, activity.membrane)
    found = answers(onnx_io.model(deployment), rows(deployment, inputs))
    if quantise:
        np.testing.assert_array_equal(found["readout"], values)
    np.testing.assert_allclose(found["readout"], values, atol=1e-5)
    np.testing.assert_array_equal(found["predictions"], predictions)
    assert found["output"].dtype == (bool if rule == "spike_count" else np.int32 if quantise else np.float32)


# --- the file ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [integers, lambda: read(recurrent_net(), (7,))])
@pytest.mark.parametrize("streaming", [False, True])
def test_files_pass_onnx_own_checks_and_say_all_shapes(make: Any, streaming: bool) -> None:
    model = onnx_io.model(make(), probes=EVERYTHING, streaming=streaming)
    checker.check_model(model, full_check=True)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    for item in (*inferred.graph.input, *inferred.graph.output):
        assert item.type.tensor_type.HasField("shape"), item.name
    assert not any(tensor.data_location for tensor in model.graph.initializer), "one file"


def test_metadata_hold_the_contract(tmp_path: Path) -> None:
    deployment = integers()
    path = snn_export.save(deployment, tmp_path / "deep" / "net.onnx")
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"], "no rest of a temporary file, no sidecar"
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert ExecutionContract.model_validate_json(metadata["snn_export.contract"]) == deployment.contract
    assert metadata["snn_export.fingerprint"] == deployment.fingerprint
    assert metadata["snn_export.arithmetic"] == "loihi_integer"
    assert metadata["snn_export.encoder"] == "graph: input is in real units"
    assert json.loads(metadata["snn_export.layers"]) == ["a", "b", "c"]
    assert json.loads(metadata["snn_export.units"]) == {"a": 1 / 64, "b": 1 / 64, "c": 1 / 64}
    first = path.read_bytes()
    snn_export.save(deployment, path)
    assert path.read_bytes() == first, "equal deployments, equal bytes"
    float_model = onnx_io.model(read(dense_net(), (4,)), precision="float64")
    assert {item.key: item.value for item in float_model.metadata_props}["snn_export.arithmetic"] == "float64"


@pytest.mark.parametrize("quantise", [False, True])
def test_the_three_lines_a_user_is_told_run(tmp_path: Path, quantise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = read(conv_net(), (2, 9, 7))
    deployment = quantised(deployment) if quantise else deployment
    snn_export.save(deployment, tmp_path / "net.onnx")
    lines = onnx_io.how_to_run(deployment, "net.onnx")
    assert len(lines.splitlines()) == 3
    inputs = uniform(np.random.default_rng(0), 5, 2, 9, 7)
    names: dict[str, Any] = {"inputs": inputs, "onnxruntime": onnxruntime, "snn_export": snn_export}
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in lines.splitlines()), names)
    trace = snn_export.simulate(deployment, inputs, "loihi" if quantise else "reference")
    np.testing.assert_array_equal(names["predictions"], trace.predictions)
    np.testing.assert_allclose(names["readout"], trace.readout, atol=1e-4)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError) as caught:
        onnx_io.write(integers(), tmp_path / "file" / "net.onnx")
    assert caught.value.code == "SNX123"
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(UserError) as caught:
        onnx_io.write(integers(), tmp_path / "net.onnx")
    assert caught.value.code == "SNX123"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "net.onnx"]


def test_any_name_is_a_name() -> None:
    """Slashes, spaces, arrows, and the names that the file itself uses."""
    rng = np.random.default_rng(0)
    names = ["spikes/a", "a", "input of it", "_1 shape", "state/v/a", "a -> b", "predictions"]
    layers: list[LayerPlan] = []
    for name in names:
        source = layers[-1].name if layers else "input"
        loops = [SynapsePlan(np.full((4, 4), 2), name, before=2)]
        loops += [SynapsePlan(np.full((4, 4), 2), "a -> b", before=5)] if name == "a" else []
        layer = random_dense(rng, name, source, (4 if layers else 5, 4), 60)
        layers.append(replace(layer, threshold=200, more=tuple(loops)))
    deployment = deployment_from(Plan((5,), tuple(layers), steps=6, high=9))
    inputs = random_inputs(rng, deployment, 3)
    for streaming in (False, True):
        model = onnx_io.model(deployment, probes=EVERYTHING, streaming=streaming)
        given = np.repeat(inputs[None], 6, axis=0)
        assert mismatches(deployment, answers(model, {"input": given}), inputs) == 0


def test_networks_without_a_readout_population_are_refused() -> None:
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "fc": nir.Linear(np.ones((2, 3))),
        "output": nir.Output({"output": np.array([2])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "output")], type_check=False)
    for readout, table in (("ghost", graph), ("fc", graph), ("ghost", nir.NIRGraph({}, [], type_check=False))):
        contract = ExecutionContract(
            dt=1e-3, steps=2, latency={}, encoder=EncoderSpec(), neurons={readout: NeuronSpec(0)}, readout=ReadoutSpec(readout)
        )
        with pytest.raises(UserError) as caught:
            onnx_io.model(Deployment(table, contract))
        assert [d.code for d in caught.value.diagnostics] == ["SNX287"]


def test_refusals_come_all_at_once() -> None:
    deployment = with_neurons(integers(), reset="none")
    contract = deployment.contract
    broken = deployment.replace(
        populations={name: grid for name, grid in deployment.populations.items() if name != "b"}, contract=contract
    )
    assert [(d.code, d.where) for d in onnx_rules.findings(broken)] == [
        ("SNX302", "b"),
        ("SNX203", "a"),
        ("SNX203", "b"),
        ("SNX203", "c"),
    ]
    contract = integers().contract.model_copy(update={"encoder": EncoderSpec()})
    found = [(d.code, d.where) for d in onnx_rules.findings(integers().replace(contract=contract))]
    assert found == [("SNX302", "contract.encoder")], "nothing bounds what comes in"
    late = with_neurons(read(dense_net(), (4,)), reset_delay=2)
    assert [(d.code, d.where) for d in onnx_rules.findings(late)] == [("SNX203", "lif1"), ("SNX203", "lif2")]
    graph = late.graph
    odd = nir.NIRGraph({**graph.nodes, "fc2": nir.NIRGraph({}, [], type_check=False)}, list(graph.edges), type_check=False)
    assert [d.code for d in onnx_rules.findings(late.replace(graph=odd))] == ["SNX201"]


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "float16"},
        {"probes": ("voltage",)},
        {"probes": "spikes"},
        {"format": "nir", "probes": ("spikes",)},
        {"format": "net", "streaming": True},
        {"format": "nir", "precision": "float64"},
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        snn_export.save(integers(), tmp_path / "net.onnx", **options)
    assert caught.value.code == "SNX161"
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_file_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_io, "LARGEST_BYTES", 100)
    with pytest.raises(UserError) as caught:
        onnx_io.model(integers())
    assert caught.value.code == "SNX160"


def test_equal_constants_stand_once_and_idle_nodes_not_at_all() -> None:
    deployment = integers()
    model = onnx_io.model(deployment)
    contents = [
        (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()) for tensor in model.graph.initializer
    ]
    assert len(contents) == len(set(contents))
    body = next(node for node in model.graph.node if node.op_type == "Scan").attribute[0].g
    read_somewhere = {name for node in (*model.graph.node, *body.node) for name in node.input}
    read_somewhere |= {item.name for item in (*model.graph.output, *body.output)}
    assert all(read_somewhere.intersection(node.output) for node in (*model.graph.node, *body.node))


def test_warnings_are_not_needed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnx_io.model(read(recurrent_net(), (7,)), probes=EVERYTHING, streaming=True)
        onnx_io.model(integers(), probes=EVERYTHING)
