"""Rockpool's LIFTorch runs the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from numpy.random import default_rng

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import deviating
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.rockpool import expressible
from snn_export.hardware_sims.rockpool.simulator import RockpoolSimulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.spec import NeuronSpec
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform
from tests.torch_graphs import assert_runs_its_integers, everything, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread")

ALL: tuple[Record, ...] = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip
OPTIONS: Mapping[str, dict[str, bool]] = {
    "as shipped": {}, "several": {"several_spikes": True}, "strict": {"strict": True},
    "strict, several": {"several_spikes": True, "strict": True},
}  # fmt: skip
ROUNDOFF = 4 * FLOAT32_ROUNDOFF
"""The input is multiplied by gain / alpha and the sum by alpha: three roundings that the canonical form does not have."""


@cache
def backend(options: str = "as shipped") -> RockpoolSimulator:
    """One for all tests here: its worker stays, and importing torch there takes longer than any of them."""
    return RockpoolSimulator(**OPTIONS[options], time_limit=120)


@pytest.fixture(scope="module", autouse=True)
def workers_end_with_these_tests() -> Iterator[None]:
    yield
    backend.cache_clear()


@pytest.fixture
def environment() -> None:
    """Skips, or fails under ``SNN_EXPORT_REQUIRE_ROCKPOOL=1``, where Rockpool is not installed."""
    found = backend().availability()
    if not found.ok and os.environ.get("SNN_EXPORT_REQUIRE_ROCKPOOL") == "1":
        pytest.fail(f"{found.reason}; fix: {found.fix}")
    if not found.ok:
        pytest.skip(f"{found.reason}; fix: {found.fix}")


def run(deployment: Deployment, inputs: Any, options: str = "as shipped") -> Trace:
    made = backend(options)
    assert made.check(deployment) == []
    return made.run(made.compile(deployment), inputs, ALL)


def declared(deployment: Deployment, options: str = "as shipped") -> Deployment:
    return deviating(deployment, backend(options).deviations(deployment))


def sent(layer: Any) -> Any:
    """Spikes per step, several counted."""
    return layer.spikes if layer.several is None else layer.several


def assert_explained(model: Deployment, inputs: Any, trace: Trace) -> None:
    """Every layer follows from what the run itself fired before it, but for ties; and every layer that can fire does."""
    for name, found in explain(model, inputs, trace.layers, ROUNDOFF).items():  # type: ignore[arg-type]
        assert not found.faulty.any(), name
        assert not found.beyond.any(), name
        assert bool(trace.layers[name].counts.any()) == model.contract.neurons[name].spiking, f"{name} is dead"


def assert_equal(model: Deployment, inputs: Any, trace: Trace) -> None:
    """0 mismatched spikes against the arbiter."""
    for name, activity in interpreter.run(model, inputs).items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(sent(layer), activity.sent, err_msg=name)
        np.testing.assert_array_equal(layer.counts, activity.sent.sum(axis=0), err_msg=name)
        for which in ("membrane", "current"):
            found, expected = getattr(layer, which), getattr(activity, which)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=name)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_differ_from_the_contract_in_nothing_but_what_is_declared(name: str, options: str) -> None:
    build, shape = NETWORKS[name]
    deployment = read(build(), shape, steps=12)
    inputs = uniform(default_rng(1), 16, *shape, low=-0.5, high=2.0).astype(np.float32)
    trace, model = run(deployment, inputs, options), declared(deployment, options)
    assert_explained(model, inputs, trace)
    assert_equal(model, inputs, trace)
    several = any(layer.several is not None for layer in trace.layers.values())
    assert several == ("several" in options), "only with the option, and then indeed"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("options", ["as shipped", "strict"])  # with several spikes the loops of these networks explode
@pytest.mark.parametrize(("reset", "seed"), [("zero", 2), ("subtract", 3), ("none", 4)])
def test_every_node_and_every_way_of_joining_them(reset: str, seed: int, options: str) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter too."""
    deployment = with_spec(everything(seed), reset=reset)
    leaky = with_constants(deployment.graph.nodes["n4"], v_leak=default_rng(seed).uniform(-0.3, 0.3, 6))
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"n4": leaky}))
    inputs = default_rng(seed).uniform(-1, 2, (9, 5, 2, 7, 6))
    trace, model = run(deployment, inputs, options), declared(deployment, options)
    assert_explained(model, inputs, trace)
    assert_equal(model, inputs, trace)


def on_the_grid(**spec: Any) -> tuple[Deployment, Any]:
    """Whole and half numbers, decays of one half: what meets a threshold meets it exactly, in float32 as in float64."""
    one, rng = np.ones(6), default_rng(3)
    dyadic = lambda: rng.integers(-3, 6, (6, 6)) / 2.0
    zero, fires = 0 * one, {"v_threshold": 2 * one, "v_reset": 0 * one}
    nodes = {
        "input": nir.Input({"input": np.array([6])}), "w1": nir.Linear(dyadic()), "if": nir.IF(1e3 * one, **fires),
        "w2": nir.Linear(dyadic() / 2), "lif": nir.LIF(2e-3 * one, 2 * one, zero, **fires), "w3": nir.Linear(dyadic()),
        "cuba": nir.CubaLIF(tau_syn=2e-3 * one, tau_mem=2e-3 * one, r=4 * one, v_leak=zero, w_in=2 * one, **fires),
        "w4": nir.Linear(dyadic()), "threshold": nir.Threshold(2 * one), "output": nir.Output({"output": np.array([6])}),
    }  # fmt: skip
    specs = {"if": NeuronSpec(0, **spec), "lif": NeuronSpec(2048, **spec), "cuba": NeuronSpec(2048, 2047, **spec)}
    specs["threshold"] = NeuronSpec(4096, **spec)
    deployment = graph_of(nodes, list(pairwise(nodes)), specs, steps=12)
    return deployment, rng.integers(0, 3, (12, 20, 6)).astype(np.float64)


NOT_ZERO, NOT_NEVER = "resets by subtraction, not to zero", "resets by subtraction, where the contract resets never"
NOT_LATE, NOT_TWICE = "resets in the step of the spike, not a step later", "fires again above one threshold, not above two"
RESETS: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "zero": ({}, (NOT_ZERO,)), "subtract": ({"reset": "subtract"}, ()), "none": ({"reset": "none"}, (NOT_NEVER,)),
    "late zero": ({"reset_delay": 1}, (NOT_ZERO, NOT_LATE)),
    "late subtract": ({"reset": "subtract", "reset_delay": 1}, (NOT_LATE,)),
    "late, clears": ({"reset_delay": 1, "clears_input": True}, (NOT_ZERO, NOT_LATE)),
    "doubled": ({"reset": "subtract", "double_to_refire": True}, (NOT_TWICE,)),
}  # fmt: skip
TOLD: Mapping[str, tuple[str, ...]] = {
    "as shipped": (expressible.AT_THRESHOLD,), "several": (expressible.AT_THRESHOLD, expressible.SEVERAL), "strict": (),
    "strict, several": (expressible.SEVERAL,),
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reset", RESETS)
def test_a_declared_deviation_is_bit_for_bit_all_there_is(reset: str, options: str) -> None:
    spec, told = RESETS[reset]
    deployment, inputs = on_the_grid(**spec)
    wanted, found = (*TOLD[options], *told), backend(options).deviations(deployment)
    assert {deviation.told for deviation in found.values()} == ({wanted} if wanted else set())
    trace, plain, differs = run(deployment, inputs, options), interpreter.run(deployment, inputs), False
    for layer, activity in interpreter.run(declared(deployment, options), inputs).items():
        np.testing.assert_array_equal(sent(trace.layers[layer]), activity.sent)
        np.testing.assert_array_equal(trace.layers[layer].membrane, activity.membrane)  # type: ignore[arg-type]
        np.testing.assert_array_equal(trace.layers[layer].current, activity.current)  # type: ignore[arg-type]
        differs |= bool((plain[layer].sent != activity.sent).any())
    assert differs == bool(wanted), "where nothing is declared nothing differs, and what is declared costs something here"
    assert ("rockpool deviations" in trace.provenance) == bool(wanted)


@pytest.mark.usefixtures("environment")
def test_samples_beyond_one_chunk_do_not_hear_each_other() -> None:
    """130 samples are two chunks of different size; LIFTorch by itself goes on with the state of the first sample for all."""
    deployment = with_spec(read(dense_net(), (4,)), reset="subtract")
    inputs = uniform(default_rng(5), 130, 4, low=-0.5, high=2.0)
    trace = run(deployment, inputs, "strict")
    assert_equal(deployment, inputs, trace)
    alone = run(deployment, inputs[129:], "strict")
    for name, layer in alone.layers.items():
        np.testing.assert_array_equal(layer.counts[0], trace.layers[name].counts[129])


@pytest.mark.usefixtures("environment")
def test_periodic_resets_clear_u_and_v() -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    inputs = uniform(default_rng(3), 8, 7, high=2.0)
    assert_equal(declared(deployment), inputs, run(deployment, inputs))


@pytest.mark.usefixtures("environment")
def test_a_quantised_deployment_runs_its_integers_and_says_so() -> None:
    deployment = quantised(read(dense_net(reset="subtract"), (4,)))
    trace = assert_runs_its_integers(backend("strict"), deployment, uniform(default_rng(0), 12, 4))
    assert "no truncation" in trace.provenance["rockpool state"]


# --- the kit ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("options", OPTIONS)
def test_it_passes_the_kit_but_for_what_it_declares(options: str) -> None:
    found = run_kit(backend(options))
    assert found.passed, found.summary()
    assert {item.stage for item in found.outcomes} == {"passed", "mismatch", "not applicable"}


# --- what its own import makes of a node --------------------------------------------------------------------------------------

NO_RULE = ("IF", "I", "Threshold", "Scale", "Delay", "Flatten", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d")


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """What ``rockpool_imports.py`` saw in Rockpool's environment."""
    if not backend().availability().ok:
        pytest.skip("Rockpool is not installed: snn-export backends install rockpool")
    script = Path(__file__).parent / "workers" / "rockpool_imports.py"
    command = [str(environments.interpreter("rockpool")), "-I", str(script)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    return found


def test_its_import_reads_linear_nodes_rightly(imported: dict[str, Any]) -> None:
    assert imported["nodes"]["Linear"] == "LinearTorch(): [3.0, 0.0, 0.0, 0.0]"
    assert imported["nodes"]["Affine"] == "LinearTorch(bias 0.5): [3.5, 0.5, 0.5, 0.5]"


def test_its_import_reads_no_neuron_rightly(imported: dict[str, Any]) -> None:
    """dt is 1 ms and tau 4 ms in all of them."""
    nodes = imported["nodes"]
    assert nodes["LIF"] == "AttributeError: 'LIF' object has no attribute 'tau_mem'"
    assert nodes["LI"] == "ExpSynTorch(dt 0.002, tau 0): [0.0, 0.0, 0.0, 0.0]"
    assert nodes["CubaLIF"].startswith("LIFTorch(dt 0.0008, tau_mem 0.004, tau_syn 0.004, bias 0.25): [1.0, ")
    assert nodes["CubaLIF with w_in = 5"] == nodes["CubaLIF"]
    assert nodes["CubaLIF with r = 1"].startswith("LIFTorch(dt 0.002, ")
    assert imported["round trip"] == pytest.approx(0.972e-3, abs=1e-6)


@pytest.mark.parametrize("name", NO_RULE)
def test_its_import_has_no_rule_for_the_rest(name: str, imported: dict[str, Any]) -> None:
    assert imported["nodes"][name].startswith("NotImplementedError: Cannot convert")


def test_a_mapping_calls_native_what_its_import_reads_rightly() -> None:
    deployment = everything(0)
    found = backend().mapping(deployment)
    assert set(found) == set(deployment.graph.nodes) - {"input", "output"}
    native = {name for name, layer in found.items() if layer.kind == "native"}
    assert native == {name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Affine | nir.Linear)}
    assert {layer.kind for layer in found.values()} == {"native", "emulated"}
    assert found["n1"].why == "Rockpool's import raises on it: LIFTorch with the contract's decays"


# --- the backend itself -------------------------------------------------------------------------------------------------------


def test_a_threshold_that_is_not_positive_and_a_lost_current_are_refused() -> None:
    deployment, _ = on_the_grid()
    for constants in ({"if": {"v_threshold": np.zeros(6)}}, {"cuba": {"r": np.array([1.0] * 5 + [0.0])}}):
        nodes = {name: with_constants(deployment.graph.nodes[name], **changed) for name, changed in constants.items()}
        wrong = deployment.replace(graph=replace_nodes(deployment.graph, nodes))
        (name,) = constants
        assert refusals(backend(), wrong) == [("SNX296", name)]
        assert backend().mapping(wrong)[name].kind == "unsupported"


@pytest.mark.usefixtures("environment")
def test_the_installed_neuron_is_what_the_worker_takes_it_for() -> None:
    (probe,) = backend().self_test()
    assert probe.as_expected, probe.seen
    assert "rockpool 3.1.0" in probe.seen


def test_without_its_environment_it_says_how_to_get_it_and_imports_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from snn_export.hardware_sims.rockpool.simulator import RockpoolSimulator as S\n"
        "from snn_export.hardware_sims.simulator import Simulator\n"
        "backend = S(); found = backend.availability()\n"
        "assert isinstance(backend, Simulator) and backend.capabilities().isolated\n"
        "assert not found.ok and found.fix == 'snn-export backends install rockpool', found\n"
        "assert not {'torch', 'rockpool', 'torchvision'} & set(sys.modules)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != environments.override_variable("rockpool")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "SNN_EXPORT_ENVS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
