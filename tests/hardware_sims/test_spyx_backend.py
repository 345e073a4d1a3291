"""Spyx's own neurons run the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from numpy.random import default_rng

import snn_export
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import deviating
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.spyx import expressible
from snn_export.hardware_sims.spyx.simulator import SpyxSimulator
from snn_export.hardware_sims.torch_layers import layer_of
from snn_export.hardware_sims.trace import Trace
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform
from tests.torch_graphs import assert_runs_its_integers, everything, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip
ROUNDOFF = 2 * FLOAT32_ROUNDOFF
"""The membrane's gain is multiplied before the filter of a CuBaLIF, not behind it: one more rounding."""
FIXTURE = Path(__file__).parents[1] / "fixtures" / "nir" / "spyx_cuba.nir"


@pytest.fixture
def environment() -> None:
    """Skips, or fails under ``SNN_EXPORT_REQUIRE_SPYX=1``, where Spyx is not installed."""
    found = SpyxSimulator().availability()
    if not found.ok and os.environ.get("SNN_EXPORT_REQUIRE_SPYX") == "1":
        pytest.fail(f"{found.reason}; fix: {found.fix}")
    if not found.ok:
        pytest.skip(f"{found.reason}; fix: {found.fix}")


@cache
def backend(zero_reset: bool = False) -> SpyxSimulator:
    """One for all tests here."""
    return SpyxSimulator(zero_reset=zero_reset, time_limit=120)


@pytest.fixture(scope="module", autouse=True)
def workers_end_with_these_tests() -> Iterator[None]:
    yield
    backend.cache_clear()


def run(deployment: Deployment, inputs: Any, zero_reset: bool = False) -> Trace:
    made = backend(zero_reset)
    assert made.check(deployment) == []
    return made.run(made.compile(deployment), inputs, ALL)


def kinds(deployment: Deployment) -> dict[str, str]:
    return {name: found.kind for name, found in SpyxSimulator().mapping(deployment).items()}


def declared(deployment: Deployment) -> Deployment:
    return deviating(deployment, SpyxSimulator().deviations(deployment))


def assert_equal(model: Deployment, inputs: Any, trace: Trace) -> None:
    """0 mismatched spikes against the arbiter, and every layer that can fire does."""
    for name, activity in interpreter.run(model, inputs).items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes, err_msg=name)
        for which in ("membrane", "current"):
            found, expected = getattr(trace.layers[name], which), getattr(activity, which)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=name)
        assert bool(activity.spikes.any()) == model.contract.neurons[name].spiking, f"{name} is dead"
    for name, layer in explain(model, inputs, trace.layers, ROUNDOFF).items():  # type: ignore[arg-type]
        assert not layer.beyond.any(), name


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_differ_from_the_contract_in_nothing_but_what_is_declared(name: str) -> None:
    build, shape = NETWORKS[name]
    deployment = read(build(), shape, steps=12)
    inputs = uniform(default_rng(1), 16, *shape, low=-0.5, high=2.0).astype(np.float32)
    assert_equal(declared(deployment), inputs, run(deployment, inputs))
    assert set(kinds(deployment).values()) <= {"native", "rewritten", "emulated"}


RESETS: dict[str, dict[str, Any]] = {
    "zero": {}, "subtract": {"reset": "subtract"}, "none": {"reset": "none"},
    "late subtract": {"reset": "subtract", "reset_delay": 1},
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("reset", "seed"), [("zero", 2), ("subtract", 3), ("none", 4), ("late subtract", 5)])
def test_every_node_and_every_way_of_joining_them(reset: str, seed: int) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter too."""
    deployment = with_spec(everything(seed), **RESETS[reset])
    leaky = with_constants(deployment.graph.nodes["n4"], v_leak=default_rng(seed).uniform(-0.3, 0.3, 6))
    if reset != "zero":
        deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"n4": leaky}))
    inputs = default_rng(seed).uniform(-1, 2, (9, 5, 2, 7, 6))
    assert_equal(declared(deployment), inputs, run(deployment, inputs))
    assert (reset == "zero") == bool(SpyxSimulator().deviations(deployment))


def on_the_grid(**spec: Any) -> tuple[Deployment, Any]:
    """Whole and half numbers, decays of one half: what meets a threshold meets it exactly, in float32 as in float64."""
    one, rng = np.ones(6), default_rng(3)
    dyadic = lambda: rng.integers(-3, 6, (6, 6)) / 2.0
    zero, fires = 0 * one, {"v_threshold": 2 * one, "v_reset": 0 * one}
    cuba = {"tau_syn": 2e-3 * one, "tau_mem": 2e-3 * one, "r": 2 * one, "v_leak": zero, "w_in": 2 * one}
    nodes = {
        "input": nir.Input({"input": np.array([6])}), "w1": nir.Linear(dyadic()), "if": nir.IF(1e3 * one, **fires),
        "w2": nir.Linear(dyadic() / 2), "lif": nir.LIF(2e-3 * one, 2 * one, zero, **fires), "w3": nir.Linear(dyadic()),
        "cuba": nir.CubaLIF(**cuba, **fires), "w4": nir.Linear(dyadic()),
        "biased": nir.CubaLIF(**{**cuba, "v_leak": one}, **fires), "output": nir.Output({"output": np.array([6])}),
    }  # fmt: skip
    filtered = NeuronSpec(2048, 2047, **spec)
    specs = {"if": NeuronSpec(0, **spec), "lif": NeuronSpec(2048, **spec), "cuba": filtered, "biased": filtered}
    deployment = graph_of(nodes, list(pairwise(nodes)), specs, steps=12)
    return deployment, rng.integers(0, 3, (12, 20, 6)).astype(np.float64)


SPECS: dict[str, dict[str, Any]] = {
    **RESETS, "late zero": {"reset_delay": 1}, "late, clears": {"reset_delay": 1, "clears_input": True},
    "doubled": {"reset": "subtract", "double_to_refire": True},
}  # fmt: skip
TOLD: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "zero": ((expressible.NEXT_STEP,), (expressible.AT_ONCE,)),
    "late zero": ((expressible.NEXT_STEP,), (expressible.AT_ONCE,)),
    "late, clears": ((expressible.NEXT_STEP, expressible.KEEPS_INPUT), (expressible.AT_ONCE, expressible.KEEPS_INPUT)),
    "doubled": ((expressible.SUBTRACTS_ONCE,),) * 2, "subtract": (), "none": (), "late subtract": (),
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", SPECS)
def test_a_declared_deviation_is_bit_for_bit_all_there_is(name: str) -> None:
    deployment, inputs = on_the_grid(**SPECS[name])
    found = {layer: deviation.told for layer, deviation in SpyxSimulator().deviations(deployment).items()}
    plain, behind_a_filter = TOLD[name] or ((), ())
    assert found == ({"if": plain, "lif": plain, "cuba": behind_a_filter, "biased": behind_a_filter} if TOLD[name] else {})
    trace, model, asked = run(deployment, inputs), declared(deployment), interpreter.run(deployment, inputs)
    for layer, activity in interpreter.run(model, inputs).items():
        np.testing.assert_array_equal(trace.layers[layer].spikes, activity.spikes)
        np.testing.assert_array_equal(trace.layers[layer].membrane, activity.membrane)
        np.testing.assert_array_equal(trace.layers[layer].current, activity.current)
        assert (asked[layer].spikes != activity.spikes).any() == bool(found), "the deviation costs nothing, or too much"
    assert ("spyx deviations" in trace.provenance) == bool(found)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("delay", [0, 1])
def test_with_membranes_set_to_zero_by_hand_nothing_is_left_to_declare(delay: int) -> None:
    deployment, inputs = on_the_grid(reset_delay=delay)
    assert SpyxSimulator(zero_reset=True).deviations(deployment) == {}
    trace = run(deployment, inputs, zero_reset=True)
    for layer, activity in interpreter.run(deployment, inputs).items():
        np.testing.assert_array_equal(trace.layers[layer].spikes, activity.spikes)
        np.testing.assert_array_equal(trace.layers[layer].membrane, activity.membrane)
        np.testing.assert_array_equal(trace.layers[layer].current, activity.current)
    assert "spyx deviations" not in trace.provenance
    assert {found.kind for found in SpyxSimulator(zero_reset=True).mapping(deployment).values()} == {"emulated"}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("reset", ["zero", "late subtract"])
def test_periodic_resets_clear_u_and_v(reset: str) -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    deployment = with_spec(deployment, **RESETS[reset])
    inputs = uniform(default_rng(3), 8, 7, high=2.0)
    assert_equal(declared(deployment), inputs, run(deployment, inputs))


@pytest.mark.usefixtures("environment")
def test_a_quantised_deployment_runs_its_integers_and_says_so() -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    inputs = uniform(default_rng(0), 12, 2, 9, 7)
    trace = assert_runs_its_integers(backend(zero_reset=True), deployment, inputs)
    assert "no truncation" in trace.provenance["spyx state"]
    assert trace.provenance["spyx"] == "1.0.0"


@pytest.mark.usefixtures("environment")
def test_a_batch_larger_than_a_chunk_is_its_samples() -> None:
    """The last chunk is smaller: it runs in the rows that are compiled for the first, and hears nothing of it."""
    deployment = read(dense_net(), (4,), steps=12)
    inputs = uniform(default_rng(5), 150, 4, low=-0.5, high=2.0).astype(np.float32)
    assert_equal(declared(deployment), inputs, run(deployment, inputs))


# --- what its own import makes of a node --------------------------------------------------------------------------------------

ONE, ZERO = np.ones(3), np.zeros(3)
RNG = default_rng(0)
SMALL = RNG.integers(-3, 4, (5, 2, 2, 7, 6)).astype(np.float64)
"""(T, B, C, H, W), whole numbers: sums are exact."""


def whole(*shape: int) -> Any:
    return RNG.integers(-3, 4, shape).astype(np.float32)


def conv(
    padding: Any = (0, 0), stride: Any = (1, 1), dilation: Any = (1, 1), groups: int = 1, kernel: tuple[int, int] = (3, 2)
) -> nir.Conv2d:
    return nir.Conv2d((7, 6), whole(4, 2 // groups, *kernel), stride, padding, dilation, groups, whole(4))


def pool(kind: Any, padding: tuple[int, int]) -> Any:
    return kind(np.array([3, 2]), np.array([2, 1]), np.array(padding))


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode) -> nir.NIRGraph:
    named = {"input": nir.Input({"input": np.array(shape)}), **{f"n{i}": node for i, node in enumerate(nodes)}}
    named["output"] = nir.Output({"output": np.array(shape)})
    return nir.NIRGraph(named, list(pairwise(named)), type_check=False)


def joined(edges: list[tuple[str, str]], **nodes: nir.NIRNode) -> nir.NIRGraph:
    ends = {"input": nir.Input({"input": np.array([3])}), "output": nir.Output({"output": np.array([3])})}
    return nir.NIRGraph({**ends, **nodes}, edges, type_check=False)


def lif(r: float = 4.0, leak: float = 0.0, tau: float = 4.0) -> nir.LIF:
    return nir.LIF(tau * ONE, r * ONE, leak * ONE, ONE, ZERO)


def cuba(r: float = 4.0, w_in: float = 2.0, shape: tuple[int, ...] = (3,)) -> nir.CubaLIF:
    one = np.ones(shape)
    return nir.CubaLIF(2 * one, 4 * one, r * one, 0 * one, one, 0 * one, w_in * one)


LINEAR: Mapping[str, tuple[nir.NIRNode, tuple[int, ...]]] = {
    "affine": (nir.Affine(whole(3, 3), whole(3)), (3,)), "linear": (nir.Linear(whole(3, 3)), (3,)),
    "conv": (conv((1, 2), (2, 1)), (2, 7, 6)), "conv_same": (conv("same", kernel=(3, 3)), (2, 7, 6)),
    "conv_valid": (conv("valid"), (2, 7, 6)), "sum": (pool(nir.SumPool2d, (0, 0)), (2, 7, 6)),
}  # fmt: skip
"""Read rightly."""
WRONG: Mapping[str, tuple[nir.NIRNode, tuple[int, ...]]] = {
    "conv_dilated": (conv(dilation=(2, 1)), (2, 7, 6)), "conv_same_stride": (conv("same", (2, 2), kernel=(3, 3)), (2, 7, 6)),
    "sum_padded": (pool(nir.SumPool2d, (1, 0)), (2, 7, 6)),
    "flatten": (nir.Flatten({"input": np.array([2, 7, 6])}, 0, -1), (2, 7, 6)),
    "flatten_some": (nir.Flatten({"input": np.array([2, 7, 6])}, 1, 2), (2, 7, 6)),
}  # fmt: skip
LEFT_OUT: Mapping[str, tuple[nir.NIRNode, tuple[int, ...]]] = {
    "scale": (nir.Scale(2 * ONE), (3,)), "delay": (nir.Delay(ONE), (3,)), "i": (nir.I(ONE), (3,)),
    "cubali": (nir.CubaLI(ONE, ONE, ONE, ZERO), (3,)), "threshold": (nir.Threshold(ONE), (3,)),
    "avg": (pool(nir.AvgPool2d, (0, 0)), (2, 7, 6)), "conv1d": (nir.Conv1d(3, whole(2, 2, 2), 1, 0, 1, 1, whole(2)), (2, 3)),
}  # fmt: skip
RAISES: Mapping[str, tuple[nir.NIRNode, tuple[int, ...], str]] = {
    "conv_groups": (conv(groups=2), (2, 7, 6), "feature dimension"),
    "li": (nir.LI(4 * ONE, ONE, ZERO), (3,), "without a following"),
    "cuba_maps": (cuba(shape=(2, 7, 6)), (2, 7, 6), "Incompatible shapes"),
}  # fmt: skip
WEIGHTS = np.array([[0.0, 2, 0], [0, 0, 4], [0.5, 0, 0]])
AROUND = [("input", "n"), ("n", "r"), ("r", "n"), ("n", "output")]
GRAPHS: Mapping[str, nir.NIRGraph] = {
    "if": chain((3,), nir.IF(ONE, 2 * ONE, ZERO)), "if_r": chain((3,), nir.IF(3 * ONE, 2 * ONE, ZERO)), "lif": chain((3,), lif()),
    "lif_r": chain((3,), lif(r=1.0)), "lif_leak": chain((3,), lif(leak=9.0)), "lif_seconds": chain((3,), lif(tau=4e-3)),
    "cuba": chain((3,), cuba()), "cuba_r": chain((3,), cuba(1.0, 1.0)),
    "psu": chain((3,), nir.LI(4 * ONE, 4 * ONE, ZERO), nir.Threshold(ONE)),
    "psu_r": chain((3,), nir.LI(4 * ONE, ONE, 9 * ONE), nir.Threshold(ONE)),
    "first_edge": joined([("input", "a"), ("a", "n"), ("n", "output")], a=nir.Linear(WEIGHTS), n=lif()),
    "branch": joined(
        [("input", "a"), ("input", "b"), ("a", "n"), ("b", "n"), ("n", "output")],
        a=nir.Linear(WEIGHTS), b=nir.Linear(WEIGHTS.T.copy()), n=lif(),
    ),
    "loop": joined(AROUND, n=lif(), r=nir.Linear(WEIGHTS)), "loop_bias": joined(AROUND, n=lif(), r=nir.Affine(WEIGHTS, 9 * ONE)),
    "nested": chain((3,), joined(AROUND, n=lif(), r=nir.Linear(WEIGHTS))),
    "nested_otherwise": chain((3,), joined([("input", "r"), ("r", "n"), ("n", "output")], n=lif(), r=nir.Linear(WEIGHTS))),
    "endless_if": joined(AROUND, n=nir.IF(ONE, ONE, ZERO), r=nir.Linear(WEIGHTS)),
    "other_name": nir.NIRGraph(
        {"in": nir.Input({"input": np.array([3])}), "n": lif(), "output": nir.Output({"output": np.array([3])})},
        [("in", "n"), ("n", "output")], type_check=False,
    ),
}  # fmt: skip
DRIVE = default_rng(1).integers(-1, 4, (12, 4, 3)) / 4.0


@cache
def imports(folder: Path) -> dict[str, Any]:
    """What Spyx's import makes of all of the above, as one process sees it."""
    single: dict[str, tuple[Any, ...]] = {**LINEAR, **WRONG, **LEFT_OUT, **RAISES}
    graphs = {name: (chain(case[1], case[0]), case[1]) for name, case in single.items()}
    graphs |= {name: (graph, (3,)) for name, graph in GRAPHS.items()}
    for name, (graph, shape) in graphs.items():
        nir.write(folder / f"{name}.nir", graph)
        np.save(folder / f"{name}.npy", inputs_of(shape))
    (folder / "lif_in_its_dt.dt").write_text("1e-3")
    nir.write(folder / "lif_in_its_dt.nir", GRAPHS["lif_seconds"])
    np.save(folder / "lif_in_its_dt.npy", DRIVE)
    worker, script = environments.environment("spyx").worker, Path(__file__).parent / "workers" / "spyx_imports.py"
    command = [str(environments.interpreter("spyx")), "-I", str(script), str(worker), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def inputs_of(shape: tuple[int, ...]) -> Any:
    return SMALL if len(shape) == 3 else DRIVE if shape == (3,) else np.ones((5, 2, *shape))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not SpyxSimulator().availability().ok:
        pytest.skip("Spyx is not installed: snn-export backends install spyx")
    return imports(tmp_path_factory.mktemp("imports"))


def by_nir(node: nir.NIRNode, shape: tuple[int, ...]) -> Any:
    """What NIR says that a linear node gives."""
    flat = torch.from_numpy(inputs_of(shape).astype(np.float32))
    return np.stack([layer_of("node", node, shape)(step).numpy() for step in flat])


@pytest.mark.parametrize("name", LINEAR)
def test_linear_nodes_its_import_reads_rightly(name: str, imported: dict[str, Any]) -> None:
    np.testing.assert_array_equal(imported[name]["outputs"], by_nir(*LINEAR[name]))


@pytest.mark.parametrize("name", WRONG)
def test_linear_nodes_its_import_makes_something_else_of(name: str, imported: dict[str, Any]) -> None:
    expected = by_nir(*WRONG[name])
    assert not np.array_equal(imported[name]["outputs"], expected)
    if name == "flatten":
        assert sorted(np.ravel(imported[name]["outputs"])) == sorted(expected.ravel()), "the same numbers, in another order"


@pytest.mark.parametrize("name", LEFT_OUT)
def test_nodes_its_import_leaves_out(name: str, imported: dict[str, Any]) -> None:
    assert imported[name]["modules"] == []
    np.testing.assert_array_equal(imported[name]["outputs"], inputs_of(LEFT_OUT[name][1]).astype(np.float32))


@pytest.mark.parametrize("name", RAISES)
def test_nodes_its_import_raises_on(name: str, imported: dict[str, Any]) -> None:
    assert RAISES[name][2] in imported[name]["raises"]


@pytest.mark.parametrize(
    ("name", "module", "same"),
    [
        ("if", "IF", "if_r"), ("lif", "LIF", "lif_r"), ("lif", "LIF", "lif_leak"), ("lif", "LIF", "lif_in_its_dt"),
        ("cuba", "CuBaLIF", "cuba_r"), ("psu", "PSU_LIF", "psu_r"), ("loop", "RLIF", "loop_bias"), ("loop", "RLIF", "nested"),
        ("loop", "RLIF", "nested_otherwise"),
    ],
)  # fmt: skip
def test_what_its_import_ignores(name: str, module: str, same: str, imported: dict[str, Any]) -> None:
    assert imported[name]["modules"] == imported[same]["modules"] == [module]
    assert imported[name]["outputs"] == imported[same]["outputs"]
    assert np.any(imported[name]["outputs"])


def test_what_becomes_of_other_graphs(imported: dict[str, Any]) -> None:
    assert imported["branch"] == imported["first_edge"]
    assert imported["endless_if"] == {"endless": True}
    assert imported["other_name"]["modules"] == []


def test_with_seconds_and_no_dt_every_membrane_forgets_at_once(imported: dict[str, Any]) -> None:
    v = np.zeros(DRIVE.shape[1:])
    for x, returned in zip(DRIVE, np.array(imported["lif_seconds"]["outputs"]), strict=True):
        fired = 1.0 * (v > 1)
        np.testing.assert_array_equal(returned, fired)
        v = x - fired


LATE = {"if": NeuronSpec(0, reset="subtract", reset_delay=1), "lif": NeuronSpec(1024, reset="subtract", reset_delay=1)}
NOW = {"cuba": NeuronSpec(1024, 2047, reset="subtract"), "loop": LATE["lif"]}


@pytest.mark.parametrize("name", [*LATE, *NOW])
def test_its_neurons_fire_a_step_late_and_subtract_as_the_worker_says(name: str, imported: dict[str, Any]) -> None:
    """IF and LIF behind the decay of the next step, CuBaLIF before it: in local time late, and in the step of the spike."""
    graph, returned = GRAPHS[name], np.array(imported[name]["outputs"])
    population = "n" if name == "loop" else "n0"
    deployment = graph_of(graph.nodes, graph.edges, {population: {**LATE, **NOW}[name]}, steps=len(DRIVE))
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"dt": 1.0}))
    expected = interpreter.run(deployment, DRIVE)[population].spikes
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(returned[1:] > 0, expected[:-1])
    assert not returned[0].any()


def test_a_file_of_its_own_is_read_as_it_computes() -> None:
    """``to_nir`` writes r = beta: with r = tau, its spikes are those of late and prompt subtraction, a step late per layer."""
    with np.load(FIXTURE.with_suffix(".npz"), allow_pickle=False) as held:
        inputs, spikes = held["inputs"], held["spikes"]
    deployment = snn_export.from_nir(FIXTURE, steps=len(inputs), encoder=EncoderSpec("events"))
    nodes, neurons = deployment.graph.nodes, deployment.contract.neurons
    taken_whole = {
        "layer_1": with_constants(nodes["layer_1"], r=nodes["layer_1"].tau_mem, w_in=nodes["layer_1"].tau_syn),
        "layer_3": with_constants(nodes["layer_3"], r=nodes["layer_3"].tau),
    }
    resets = {"layer_1": replace(neurons["layer_1"], reset_delay=0), "layer_3": replace(neurons["layer_3"], reset_delay=1)}
    contract = deployment.contract.model_copy(update={"neurons": resets})
    whole_inputs = deployment.replace(graph=replace_nodes(deployment.graph, taken_whole), contract=contract)
    found = interpreter.run(whole_inputs, inputs)["layer_3"].spikes
    assert 0 < found.mean() < 1
    np.testing.assert_array_equal(found[:-2], spikes[2:])
    assert SpyxSimulator().deviations(whole_inputs) == {}
    assert kinds(whole_inputs) == {"layer_0": "emulated", "layer_1": "native", "layer_2": "emulated", "layer_3": "native"}


# --- the backend itself -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_the_installed_neurons_are_what_the_worker_takes_them_for() -> None:
    (probe,) = SpyxSimulator().self_test()
    assert probe.as_expected, probe.seen
    assert "spyx 1.0.0" in probe.seen


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("zero_reset", [False, True], ids=["as shipped", "zero_reset"])
def test_it_passes_the_kit(zero_reset: bool) -> None:
    found = run_kit(backend(zero_reset))
    assert found.passed, found.summary()


def test_a_mapping_names_what_carries_each_node() -> None:
    deployment, _ = on_the_grid()
    found = SpyxSimulator().mapping(deployment)
    native = {"if": "native", "lif": "native", "cuba": "native", "biased": "emulated"}
    assert {name: layer.kind for name, layer in found.items()} == dict.fromkeys(("w1", "w2", "w3", "w4"), "emulated") | native
    assert found["lif"].why == "LIF, as spyx.nir.from_nir makes it"
    assert found["biased"].why.endswith("LI and CuBaLIF with alpha = 0")
    subtracting = SpyxSimulator().mapping(on_the_grid(reset="subtract")[0])
    assert subtracting["lif"].why.endswith("CuBaLIF with alpha = 0")
    assert subtracting["cuba"].kind == "native"
    assert SpyxSimulator().mapping(on_the_grid(reset="subtract", reset_delay=1)[0])["cuba"].why.endswith(": LI and LIF")
    assert kinds(read(conv_net(), (2, 9, 7)))["lif1"] == "native"
    assert kinds(PortableForm()(read(conv_net(), (2, 9, 7))))["lif1"] == "rewritten"
    slower = with_constants(deployment.graph.nodes["lif"], tau=3e-3 * np.ones(6))
    other = deployment.replace(graph=replace_nodes(deployment.graph, {"lif": slower}))
    assert "time constants" in SpyxSimulator().mapping(other)["lif"].why


def test_what_no_neuron_of_spyx_does_is_refused() -> None:
    deployment, _ = on_the_grid(reset="subtract", reset_delay=2)
    names = ["if", "lif", "cuba", "biased"]
    assert refusals(SpyxSimulator(), deployment) == [("SNX296", name) for name in names]
    assert {found.kind for name, found in SpyxSimulator().mapping(deployment).items() if name in names} == {"unsupported"}
    assert SpyxSimulator().check(on_the_grid(reset="none", reset_delay=2)[0]) == []
    below, _ = on_the_grid()
    changed = {name: with_constants(below.graph.nodes[name], v_threshold=-np.ones(6)) for name in ("lif", "cuba")}
    below = below.replace(graph=replace_nodes(below.graph, changed))
    assert refusals(SpyxSimulator(), below) == [("SNX296", "cuba")]
    assert refusals(SpyxSimulator(zero_reset=True), below) == [("SNX296", "lif"), ("SNX296", "cuba")]
    assert refusals(SpyxSimulator(), quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))) == [
        ("SNX297", "contract.encoder")
    ]


def test_without_its_environment_it_says_how_to_get_it_and_imports_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from snn_export.hardware_sims.spyx.simulator import SpyxSimulator as S\n"
        "from snn_export.hardware_sims.simulator import Simulator\n"
        "backend = S(); found = backend.availability()\n"
        "assert isinstance(backend, Simulator) and backend.capabilities().isolated\n"
        "assert not found.ok and found.fix == 'snn-export backends install spyx', found\n"
        "assert not {'torch', 'spyx', 'jax'} & set(sys.modules)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != environments.override_variable("spyx")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "SNN_EXPORT_ENVS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(SpyxSimulator(), Simulator)
