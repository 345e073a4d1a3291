"""The fast integer simulator is the int64 interpreter, bit for bit, however it is asked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.export import interpreter, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.trace import Record, Trace, read_out
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, random_dense, random_inputs
from tests.networks import conv_deployment, conv_net, dense_net, quantised, read, uniform

EVERYTHING: tuple[Record, ...] = ("spikes", "membrane", "current")


def simulated(deployment: Deployment, inputs: Any, record: Any = EVERYTHING, **options: Any) -> Trace:
    simulator = LoihiSimulator(**options)
    return simulator.run(simulator.compile(deployment), inputs, record)


def assert_bit_identical(deployment: Deployment, inputs: Any) -> int:
    """Compare everything; returns the number of overflows."""
    trace, expected = simulated(deployment, inputs), interpreter.run(deployment, inputs, "int64")
    assert list(trace.layers) == list(expected)
    for name, activity in expected.items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(layer.spikes, activity.spikes)
        np.testing.assert_array_equal(layer.current, activity.current)
        np.testing.assert_array_equal(layer.membrane, activity.membrane)
        np.testing.assert_array_equal(layer.counts, activity.spikes.sum(axis=0))
        assert layer.overflows == activity.overflows
        assert layer.integer
        assert layer.unit == deployment.populations[name].unit
    assert trace.latency == deployment.contract.latency
    return sum(activity.overflows for activity in expected.values())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 100_000), steps=st.integers(1, 9), signed=st.booleans(), batch=st.integers(1, 4))
def test_random_convolutional_deployments(seed: int, steps: int, signed: bool, batch: int) -> None:
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng, steps=steps, low=-15 if signed else 0)
    assert_bit_identical(deployment, random_inputs(rng, deployment, batch))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), events=st.booleans())
def test_random_dense_deployments(seed: int, events: bool) -> None:
    rng = np.random.default_rng(seed)
    layers = (random_dense(rng, "a", "input", (7, 6)), random_dense(rng, "b", "a", (6, 5)), random_dense(rng, "c", "b", (5, 4)))
    deployment = deployment_from(Plan((7,), layers, steps=12, high=63, events=events))
    assert_bit_identical(deployment, random_inputs(rng, deployment, 3))


@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_quantised_networks_do_not_overflow(net: Any, shape: tuple[int, ...]) -> None:
    deployment = quantised(read(net(), shape), -1.0, 1.0)
    assert assert_bit_identical(deployment, uniform(np.random.default_rng(0), 10, *shape, low=-1)) == 0


def test_two_connections_into_a_population_add() -> None:
    rng = np.random.default_rng(1)
    deployment = deployment_from(
        Plan((5,), (random_dense(rng, "a", "input", (5, 4)), LayerPlan("b", np.full((3, 4), 2), "a")), steps=6, high=9)
    )
    graph = deployment.graph
    nodes = {**graph.nodes, "second": graph.nodes["b.weight"]}
    edges = [*graph.edges, ("a", "second"), ("second", "b")]
    doubled = deployment.replace(
        graph=nir.NIRGraph(nodes, edges, type_check=False),
        synapses={**deployment.synapses, "second": deployment.synapses["b.weight"]},
    )
    inputs = random_inputs(rng, deployment, 3)
    assert_bit_identical(doubled, inputs)
    once, twice = simulated(deployment, inputs).layers["b"], simulated(doubled, inputs).layers["b"]
    np.testing.assert_array_equal(twice.membrane, 2 * once.membrane)


def test_result_does_not_depend_on_the_chunks() -> None:
    rng = np.random.default_rng(3)
    deployment = conv_deployment(rng, steps=5)
    inputs = random_inputs(rng, deployment, 7)
    whole, pieces = simulated(deployment, inputs), simulated(deployment, inputs, chunk_bytes=1)
    np.testing.assert_array_equal(whole.readout, pieces.readout)
    np.testing.assert_array_equal(whole.predictions, pieces.predictions)
    assert whole.ties == pieces.ties
    for name, layer in whole.layers.items():
        for field in ("spikes", "membrane", "current", "counts"):
            np.testing.assert_array_equal(getattr(layer, field), getattr(pieces.layers[name], field))
        assert (layer.overflows, layer.unit, layer.latency) == (
            pieces.layers[name].overflows, pieces.layers[name].unit, pieces.layers[name].latency,
        )  # fmt: skip


@pytest.mark.parametrize("record", [(), ("spikes",), ("membrane",), ("current",), ("membrane", "spikes"), EVERYTHING])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 28])
def test_only_what_is_asked_for_is_recorded(record: tuple[Record, ...], chunk_bytes: int) -> None:
    rng = np.random.default_rng(4)
    deployment = conv_deployment(rng, steps=4)
    inputs = random_inputs(rng, deployment, 3)
    trace, everything = simulated(deployment, inputs, record, chunk_bytes=chunk_bytes), simulated(deployment, inputs)
    np.testing.assert_array_equal(trace.readout, everything.readout)
    for name, layer in trace.layers.items():
        np.testing.assert_array_equal(layer.counts, everything.layers[name].counts)
        for field in EVERYTHING:
            assert (getattr(layer, field) is not None) == (field in record)


def test_unknown_record_is_refused() -> None:
    deployment = conv_deployment(np.random.default_rng(0), steps=2)
    with pytest.raises(UserError) as caught:
        simulated(deployment, np.zeros((1, 2, 9, 7)), ("voltage",))
    assert caught.value.code == "SNX005"


def test_overflows_of_a_network_made_to_wrap_are_counted() -> None:
    """a = 4 * (254 << 7) in each step: u = 2^16 * 127 wraps nothing once, twice it does; the count is known by hand."""
    layer = LayerPlan("n", np.full((1, 1), 254), du=0, dv=0, weight_exponent=7)
    deployment = deployment_from(Plan((1,), (layer,), steps=3, low=0, high=4))
    trace = simulated(deployment, np.full((2, 1), 4.0))
    first = (254 << 9) << 6
    second = (first * 4095 >> 12) + first - (1 << 24)
    assert trace.layers["n"].current[:2, 0, 0].tolist() == [first, second]
    assert first < 1 << 23 < second + (1 << 24)
    assert assert_bit_identical(deployment, np.full((2, 1), 4.0)) == trace.layers["n"].overflows > 0
    quiet = simulated(deployment, np.zeros((2, 1)))
    assert quiet.layers["n"].overflows == 0


def test_saturation_counts_too() -> None:
    layer = LayerPlan("n", np.full((1, 1), -256), du=4095, dv=0, weight_exponent=7)
    deployment = deployment_from(Plan((1,), (layer,), steps=4, high=2))
    trace = simulated(deployment, np.full((1, 1), 2.0))
    assert trace.layers["n"].membrane[:, 0, 0].tolist() == [-(1 << 22), -(1 << 23) + 1, -(1 << 23) + 1, -(1 << 23) + 1]
    assert trace.layers["n"].overflows == 3


def test_constant_and_expanded_inputs_agree() -> None:
    rng = np.random.default_rng(9)
    deployment = conv_deployment(rng, steps=5)
    inputs = random_inputs(rng, deployment, 2)
    once, each = simulated(deployment, inputs), simulated(deployment, np.broadcast_to(inputs, (5, *inputs.shape)))
    for name, layer in once.layers.items():
        np.testing.assert_array_equal(layer.membrane, each.layers[name].membrane)


def test_refusal_lists_everything_at_once() -> None:
    layers = (LayerPlan("a", np.full((3, 4), 2), threshold=200_000, bias_exponent=9), LayerPlan("b", np.array([[3, -3, 3]]), "a"))
    deployment = deployment_from(Plan((4,), layers))
    synapse = replace(deployment.synapses["a.weight"], bias_mantissa=np.full(3, 5000, np.int16))
    specs = {**deployment.contract.neurons, "b": replace(deployment.contract.neurons["b"], reset_delay=1)}
    contract = deployment.contract.model_copy(update={"neurons": specs})
    broken = deployment.replace(synapses={**deployment.synapses, "a.weight": synapse}, contract=contract)
    with pytest.raises(UserError) as caught:
        LoihiSimulator().compile(broken)
    found = sorted((d.code, d.where) for d in caught.value.diagnostics)
    assert found == [("SNX203", "b"), ("SNX304", "a"), ("SNX304", "a"), ("SNX304", "a.weight"), ("SNX304", "b.weight")]


def test_sums_beyond_float32_run_in_float64_and_only_those_beyond_that_are_refused() -> None:
    layer = LayerPlan("a", np.full((1, 1), 254), weight_exponent=7)
    for level in (515, 517, 1 << 24, (1 << 24) - 1):
        deployment = deployment_from(Plan((1,), (layer,), high=level))
        assert LoihiSimulator().check(deployment) == []
        assert_bit_identical(deployment, np.full((2, 1), float(level)))
    assert 254 * 128 * 515 < 1 << 24 < 254 * 128 * 517
    wide = deployment_from(Plan((17_000,), (replace(layer, weight=np.full((1, 17_000), 254)),), high=1 << 24))
    assert [d.code for d in LoihiSimulator().check(wide)] == ["SNX305"]


@pytest.mark.parametrize("level", [255, -255])
def test_a_current_that_wraps_too_little_leaves_32_bits_as_in_64(level: int) -> None:
    """u wraps once per step: with du = 1 it grows by 64 * 254 * 128 * 255 - 2^24 in each, and passes 2^31 in the fifth."""
    layer = LayerPlan("n", np.full((1, 1), 254), weight_exponent=7, du=1, dv=0)
    deployment = deployment_from(Plan((1,), (layer,), steps=10, low=-255, high=255))
    inputs = np.full((2, 1), float(level))
    assert np.abs(simulated(deployment, inputs).layers["n"].current).max() > 1 << 31
    assert assert_bit_identical(deployment, inputs) > 0


def widths(layer: LayerPlan, steps: int, low: int = 0, high: int = 15) -> set[Any]:
    program = LoihiSimulator().compile(deployment_from(Plan((2,), (layer,), steps=steps, low=low, high=high)))
    return {population.number for population in program.populations}


def test_the_narrowest_safe_width_is_chosen() -> None:
    """From the bound of u over all steps; where that is too coarse, from the signs the input really has."""
    weight = np.array([[254, -256]])
    assert widths(LayerPlan("n", weight, weight_exponent=7, du=1), steps=3) == {np.dtype(np.int32)}
    assert widths(LayerPlan("n", weight, weight_exponent=7, du=1), steps=3, high=255) == {np.dtype(np.int32)}
    assert widths(LayerPlan("n", weight, weight_exponent=7, du=1), steps=50, high=255) == {np.dtype(np.int64)}
    assert widths(LayerPlan("n", weight, weight_exponent=7, du=4095), steps=50, high=255) == {np.dtype(np.int32)}
    one_sign, both = (12 * 64 * 60 * (weights << 7) for weights in (256, 254 + 256))
    assert one_sign + (1 << 24) < 1 << 31 < both
    assert widths(LayerPlan("n", weight, weight_exponent=7, du=0), steps=12, high=60) == {np.dtype(np.int32)}


def test_biases_of_all_connections_must_fit_their_one_register() -> None:
    weight = np.full((1, 1), 2)
    for mantissa, codes in ((2047, []), (2048, [("SNX304", "n")]), (-2048, []), (-2049, [("SNX304", "n")])):
        bias = np.full(1, mantissa)
        layer = LayerPlan("n", weight, bias=bias, bias_exponent=3, more=(SynapsePlan(weight, bias=bias),))
        found = LoihiSimulator().check(deployment_from(Plan((1,), (layer,), steps=3)))
        assert [(d.code, d.where) for d in found] == codes


@pytest.mark.parametrize(("exponent", "fits"), [(-9, False), (-8, True), (7, True), (8, False), (20, False)])
def test_weight_exponents_outside_the_chips_range_are_refused(exponent: int, fits: bool) -> None:
    layer = LayerPlan("n", np.full((1, 1), -256), weight_exponent=exponent)
    found = LoihiSimulator().check(deployment_from(Plan((1,), (layer,), steps=3)))
    assert [(d.code, d.where) for d in found] == ([] if fits else [("SNX304", "n.weight")])


def test_negative_weight_exponent_is_refused_where_it_would_round() -> None:
    """The chip shifts the sum, the simulator each weight: equal only where no bit is lost."""
    layer = LayerPlan("a", np.array([[2, 6]]), weight_exponent=-2)
    assert [d.code for d in LoihiSimulator().check(deployment_from(Plan((2,), (layer,))))] == ["SNX304"]


def test_float_and_pooled_deployments_are_refused() -> None:
    assert {d.code for d in LoihiSimulator().check(read(dense_net(), (4,)))} >= {"SNX302"}
    deployment = conv_deployment(np.random.default_rng(0), steps=2)
    graph = deployment.graph
    size = np.array([1, 1])
    nodes = {**graph.nodes, "pool": nir.AvgPool2d(size, size, size * 0)}
    edges = [("input", "pool"), *((("pool", b) if a == "input" else (a, b)) for a, b in graph.edges)]
    pooled = deployment.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))
    assert "SNX209" in {d.code for d in LoihiSimulator().check(pooled)}


def test_unreadable_graph_is_a_finding_not_a_traceback() -> None:
    deployment = conv_deployment(np.random.default_rng(0), steps=2)
    small = nir.Affine(np.ones((10, 3)), np.zeros(10))
    broken = deployment.replace(graph=replace_nodes(deployment.graph, {"readout.weight": small}))
    assert [d.code for d in LoihiSimulator().check(broken)] == ["SNX206"]
    assert [d.code for d in ReferenceSimulator().check(broken)] == ["SNX206"]


@pytest.mark.parametrize("rule", ["membrane_last", "membrane_mean", "membrane_max", "spike_count"])
def test_readout_rules_and_their_ties(rule: Any) -> None:
    membrane = np.array([[[3, 9, 0]], [[5, 1, 5]]])
    spikes = np.array([[[0, 1, 1]], [[0, 0, 0]]], bool)
    values, predictions, ties = read_out(ReadoutSpec("n", rule), spikes, membrane)
    expected = {
        "membrane_last": ([5, 1, 5], 0, 1), "membrane_mean": ([4, 5, 2.5], 1, 0),
        "membrane_max": ([5, 9, 5], 1, 0), "spike_count": ([0, 1, 1], 1, 1),
    }[rule]  # fmt: skip
    assert (values[0].tolist(), int(predictions[0]), ties) == expected


def test_reading_and_checking_a_file_imports_no_torch(tmp_path: Path) -> None:
    path = nir_io.write(quantised(read(dense_net(), (4,))), tmp_path / "net.nir")
    code = (
        "import sys\n"
        "from snn_export.export import bounds, interpreter, nir_io\n"
        "from snn_export.hardware_sims.loihi import rules\n"
        f"d = nir_io.read({str(path)!r})\n"
        "assert rules.check(d) == [] and bounds.all_bounds(d)\n"
        "import numpy; interpreter.run(d, numpy.ones((1, 4)), 'int64')\n"
        "print(sorted({'torch', 'snntorch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
