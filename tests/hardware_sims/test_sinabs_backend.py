"""sinabs' own neurons run the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import deviating
from snn_export.export.graph import is_population, replace_nodes
from snn_export.export.grid_units import in_grid_units
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.simulator import Deviating, Simulator
from snn_export.hardware_sims.sinabs import expressible
from snn_export.hardware_sims.sinabs.simulator import SinabsSimulator
from snn_export.hardware_sims.torch_layers import layer_of
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform
from tests.torch_graphs import assert_runs_its_integers, everything, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip
OPTIONS: Mapping[str, dict[str, bool]] = {"one": {}, "several": {"several_spikes": True}, "strict": {"strict": True}}


@pytest.fixture(scope="module")
def environment() -> None:
    """Skips, or fails under ``SNN_EXPORT_REQUIRE_SINABS=1``, where sinabs is not installed."""
    found = SinabsSimulator().availability()
    if not found.ok and os.environ.get("SNN_EXPORT_REQUIRE_SINABS") == "1":
        pytest.fail(f"{found.reason}; fix: {found.fix}")
    if not found.ok:
        pytest.skip(f"{found.reason}; fix: {found.fix}")


def run(deployment: Deployment, inputs: Any, **options: bool) -> Trace:
    backend = SinabsSimulator(time_limit=120, **options)
    assert backend.check(deployment) == []
    return backend.run(backend.compile(deployment), inputs, ALL)


def declared(deployment: Deployment, **options: bool) -> Deployment:
    return deviating(deployment, SinabsSimulator(**options).deviations(deployment))


def assert_explained(model: Deployment, inputs: Any, trace: Trace) -> None:
    """Every layer follows from what the run itself fired before it, but for ties; and every layer that can fire does."""
    for name, found in explain(model, inputs, trace.layers, FLOAT32_ROUNDOFF).items():  # type: ignore[arg-type]
        assert not found.faulty.any(), name
        assert not found.beyond.any(), name
        assert bool(trace.layers[name].counts.any()) == model.contract.neurons[name].spiking, f"{name} is dead"


def assert_equal(model: Deployment, inputs: Any, trace: Trace) -> None:
    """0 mismatched spikes against the arbiter."""
    for name, activity in interpreter.run(model, inputs).items():
        np.testing.assert_array_equal(sent(trace, name), activity.sent, err_msg=name)
        for which in ("membrane", "current"):
            found, expected = getattr(trace.layers[name], which), getattr(activity, which)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=name)


def sent(trace: Trace, name: str) -> Any:
    layer = trace.layers[name]
    return layer.spikes if layer.several is None else layer.several


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("name", "several"), [(name, several) for name in NETWORKS for several in (False, True)])
def test_networks_differ_from_the_contract_in_nothing_but_what_is_declared(name: str, several: bool) -> None:
    build, shape = NETWORKS[name]
    deployment = with_spec(read(build(), shape, steps=12), reset="subtract" if several else "zero")
    inputs = uniform(default_rng(1), 16, *shape, low=-0.5, high=2.0).astype(np.float32)
    trace, model = run(deployment, inputs, several_spikes=several), declared(deployment, several_spikes=several)
    assert_explained(model, inputs, trace)
    assert_equal(model, inputs, trace)
    assert any(layer.several is not None for layer in trace.layers.values()) == several


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("seed", "spec", "strict"),
    [(2, {}, False), (3, {"reset": "subtract"}, False), (4, {"reset": "none"}, True),
     (5, {"reset": "subtract", "reset_delay": 1}, False), (6, {"reset_delay": 1}, True)],
)  # fmt: skip
def test_every_node_and_every_way_of_joining_them(seed: int, spec: dict[str, Any], strict: bool) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter, for which sinabs has no place."""
    deployment = with_spec(everything(seed), **spec)
    leaky = with_constants(deployment.graph.nodes["n4"], v_leak=default_rng(seed).uniform(-0.3, 0.3, 6))
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"n4": leaky}))
    inputs = default_rng(seed).uniform(-1, 2, (9, 5, 2, 7, 6))
    trace, model = run(deployment, inputs, strict=strict), declared(deployment, strict=strict)
    assert_explained(model, inputs, trace)
    assert_equal(model, inputs, trace)


SPECS: dict[str, dict[str, Any]] = {
    "zero": {}, "subtract": {"reset": "subtract"}, "none": {"reset": "none"},
    "late_zero": {"reset_delay": 1}, "late_subtract": {"reset": "subtract", "reset_delay": 1},
    "clears": {"reset_delay": 1, "clears_input": True}, "doubled": {"reset": "subtract", "double_to_refire": True},
}  # fmt: skip
TOLD: Mapping[str, tuple[str, ...]] = {"clears": (expressible.KEEPS_INPUT,), "doubled": (expressible.FIRES_AGAIN,)}


def on_the_grid() -> tuple[Deployment, Any]:
    """Every reset on an IF, a LIF and a CubaLIF. All numbers are whole halves and all decays one half, so that what meets a
    threshold, or several, meets them exactly, in float32 as in float64."""
    one, rng = np.ones(6), default_rng(3)
    fires = {"v_threshold": 2 * one, "v_reset": 0 * one}
    kinds: dict[str, tuple[nir.NIRNode, NeuronSpec]] = {
        "if": (nir.IF(1e3 * one, **fires), NeuronSpec(0)),
        "lif": (nir.LIF(2e-3 * one, 2 * one, 0 * one, **fires), NeuronSpec(2048)),
        "cuba": (nir.CubaLIF(2e-3 * one, 2e-3 * one, 2 * one, 0 * one, w_in=2 * one, **fires), NeuronSpec(2048, 2047)),
    }  # fmt: skip
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([6])})}
    specs, edges = dict[str, NeuronSpec](), list[tuple[str, str]]()
    for kind, (node, spec) in kinds.items():
        for reset, changes in SPECS.items():
            name = f"{kind}_{reset}"
            nodes |= {f"w_{name}": nir.Linear(rng.integers(-3, 6, (6, 6)) / 2.0), name: node}
            nodes[f"out_{name}"] = nir.Linear(rng.integers(-3, 6, (3, 6)) / 2.0)
            specs[name] = NeuronSpec(spec.dv, spec.du, **changes)
            edges += pairwise(("input", f"w_{name}", name, f"out_{name}", "readout"))
    nodes |= {"readout": nir.I(1e3 * np.ones(3)), "output": nir.Output({"output": np.array([3])})}
    specs["readout"] = NeuronSpec(0, reset="none", spiking=False)
    deployment = graph_of(nodes, [*edges, ("readout", "output")], specs, steps=12)
    return deployment, rng.integers(-1, 3, (12, 20, 6)).astype(np.float64)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", OPTIONS)
def test_declared_deviations_are_bit_for_bit_all_there_are(name: str) -> None:
    (deployment, inputs), options = on_the_grid(), OPTIONS[name]
    trace, plain = run(deployment, inputs, **options), interpreter.run(deployment, inputs)
    deviations = SinabsSimulator(**options).deviations(deployment)
    for layer, activity in interpreter.run(deviating(deployment, deviations), inputs).items():
        np.testing.assert_array_equal(sent(trace, layer), activity.sent, err_msg=layer)
        np.testing.assert_array_equal(trace.layers[layer].membrane, activity.membrane, err_msg=layer)
        np.testing.assert_array_equal(trace.layers[layer].current, activity.current, err_msg=layer)
        cost = layer != "readout" and bool((plain[layer].sent != activity.sent).any())
        assert cost == (layer in deviations), f"{layer}: the deviation costs nothing here, or was not declared"


def test_what_is_declared_is_what_the_options_leave() -> None:
    deployment, _ = on_the_grid()
    above = {"one": (expressible.AT_THRESHOLD,), "several": (expressible.AT_THRESHOLD, expressible.SEVERAL), "strict": ()}
    for name, options in OPTIONS.items():
        found = SinabsSimulator(**options).deviations(deployment)
        wanted = {f"{kind}_{reset}": above[name] + TOLD.get(reset, ()) for kind in ("if", "lif", "cuba") for reset in SPECS}
        assert {layer: deviation.told for layer, deviation in found.items()} == {
            layer: told for layer, told in wanted.items() if told
        }
    told = SinabsSimulator().compile(deployment).provenance["sinabs deviations"]
    assert told.startswith(f"{expressible.AT_THRESHOLD} (if_zero, if_subtract, ")


@pytest.mark.usefixtures("environment")
def test_a_subtraction_of_a_neuron_without_memory_is_never_late() -> None:
    theta = np.array([0.5, 1.0, 2.0])
    nodes = {
        "input": nir.Input({"input": np.array([3])}), "w": nir.Linear(np.eye(3)), "n": nir.Threshold(theta),
        "output": nir.Output({"output": np.array([3])}),
    }  # fmt: skip
    deployment = graph_of(nodes, list(pairwise(nodes)), {"n": NeuronSpec(4096, reset="subtract", reset_delay=1)})
    inputs = default_rng(0).integers(0, 5, (9, 8, 3)) / 2.0
    assert SinabsSimulator(strict=True).deviations(deployment)["n"].told == (expressible.NOT_LATE,)
    trace = run(deployment, inputs, strict=True)
    np.testing.assert_array_equal(
        trace.layers["n"].spikes, interpreter.run(declared(deployment, strict=True), inputs)["n"].spikes
    )
    assert (trace.layers["n"].spikes != interpreter.run(deployment, inputs)["n"].spikes).any()


@pytest.mark.usefixtures("environment")
def test_a_threshold_that_is_never_reached_leaves_the_membrane_a_number() -> None:
    """Sinabs subtracts s theta, and 0 times infinity is not a number."""
    deployment = with_spec(read(dense_net(), (4,)), reset="subtract")
    endless = with_constants(deployment.graph.nodes["lif1"], v_threshold=np.full(6, np.inf))
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": endless}))
    inputs = uniform(default_rng(1), 4, 4)
    trace, never = run(deployment, inputs), interpreter.run(with_spec(deployment, reset="none"), inputs)["lif1"]
    np.testing.assert_allclose(trace.layers["lif1"].membrane, never.membrane, rtol=1e-4, atol=1e-4)
    assert not trace.layers["lif1"].counts.any()


@pytest.mark.usefixtures("environment")
def test_periodic_resets_clear_u_and_v() -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    inputs = uniform(default_rng(3), 8, 7, high=2.0)
    assert_equal(declared(deployment), inputs, run(deployment, inputs))


@pytest.mark.usefixtures("environment")
def test_a_quantised_deployment_runs_its_integers_and_says_so() -> None:
    deployment = quantised(read(conv_net(), (2, 9, 7)))
    inputs = uniform(default_rng(0), 12, 2, 9, 7)
    trace = assert_runs_its_integers(SinabsSimulator(strict=True), deployment, inputs)
    assert "no truncation" in trace.provenance["sinabs state"]


@pytest.mark.usefixtures("environment")
def test_integers_meet_their_thresholds_and_fire_there() -> None:
    grid = in_grid_units(quantised(read(dense_net(), (4,), steps=12)))
    levels = default_rng(0).integers(0, 2, (64, 4)).astype(np.float64)
    assert_explained(declared(grid), levels, run(grid, levels))


# --- what its own import makes of a node --------------------------------------------------------------------------------------

ONE, ZERO = np.ones(2), np.zeros(2)
RNG = default_rng(0)
MAPS = (2, 5, 4)


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def conv2d(padding: Any = (0, 0), stride: tuple[int, int] = (1, 1), groups: int = 1) -> nir.Conv2d:
    return nir.Conv2d((5, 4), weights(4, 2 // groups, 3, 2), stride, padding, (1, 1), groups, weights(4))


def pool(kind: Any, padding: int) -> Any:
    return kind(np.array([2, 2]), np.array([1, 2]), np.array([padding, padding]))


def lif(tau: float = 4e-3, r: float = 1.0, leak: float = 0.0) -> nir.LIF:
    return nir.LIF(tau * ONE, r * ONE, leak * ONE, ONE, ZERO)


LINEAR: Mapping[str, tuple[nir.NIRNode, tuple[int, ...]]] = {
    "affine": (nir.Affine(weights(3, 2), weights(3)), (2,)), "conv2d": (conv2d((1, 0), (2, 1)), MAPS),
    "conv_same": (conv2d("same"), MAPS), "conv_valid": (conv2d("valid", (1, 2)), MAPS),
    "sum": (pool(nir.SumPool2d, 0), MAPS), "flatten": (nir.Flatten({"input": np.array([2, 3, 2])}, 0, -1), (2, 3, 2)),
    "flatten_some": (nir.Flatten({"input": np.array([2, 3, 2])}, 1, 2), (2, 3, 2)),
}  # fmt: skip
REFUSED: Mapping[str, tuple[nir.NIRNode, tuple[int, ...], str]] = {
    "conv_groups": (conv2d(groups=2), MAPS, "in_channels must be divisible by groups"),
    "conv_same_stride": (conv2d("same", (2, 2)), MAPS, "not supported for strided"),
    "conv1d": (nir.Conv1d(6, weights(4, 2, 3), 2, 1, 1, 1, weights(4)), (2, 6), "no attribute 'detach'"),
    "linear": (nir.Linear(weights(3, 2)), (2,), "empty graph"), "scale": (nir.Scale(ONE), (2,), "empty graph"),
    "avg": (pool(nir.AvgPool2d, 0), MAPS, "empty graph"), "delay": (nir.Delay(ONE), (2,), "empty graph"),
    "i": (nir.I(ONE), (2,), "empty graph"), "threshold": (nir.Threshold(ONE), (2,), "empty graph"),
    "cubali": (nir.CubaLI(ONE, ONE, ONE, ZERO), (2,), "AssertionError"),
    "cubalif": (nir.CubaLIF(ONE, ONE, ONE, ZERO, ONE, ZERO), (2,), "empty graph"),
    "lif_leak": (lif(leak=0.5), (2,), "`v_leak` must be 0"), "li_r": (nir.LI(ONE, 2 * ONE, ZERO), (2,), "`r` must be 1"),
}  # fmt: skip
NEURONS: Mapping[str, tuple[nir.NIRNode, float, float]] = {
    "lif": (lif(), np.exp(-250.0), -np.inf), "lif_r": (lif(r=3.0), np.exp(-250.0), -np.inf),
    "lif_steps": (lif(tau=4.0), np.exp(-0.25), -np.inf), "if": (nir.IF(3 * ONE, ONE, ZERO), 1.0, -1.0),
    "li": (nir.LI(4 * ONE, ONE, ZERO), np.exp(-0.25), -np.inf),
}  # fmt: skip
"""Node; membrane kept per step; where the membrane is clipped from below."""


@pytest.fixture(scope="module")
def imported(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What sinabs' import makes of all of the above, as one process sees it; without ``v_reset``, which nir 1.0.4 refuses."""
    folder = tmp_path_factory.mktemp("imports")
    nodes = {**LINEAR, **{name: (node, shape) for name, (node, shape, _) in REFUSED.items()}}
    nodes |= {name: (node, (2,)) for name, (node, *_) in NEURONS.items()}
    for name, (node, shape) in {**nodes, "sum_padded": (pool(nir.SumPool2d, 1), MAPS), "as_written": (lif(), (2,))}.items():
        ends = {"input": nir.Input({"input": np.array(shape)}), "output": nir.Output({"output": np.array(shape)})}
        graph = nir.NIRGraph({**ends, "node": node}, [("input", "node"), ("node", "output")], type_check=False)
        nir.write(folder / f"{name}.nir", graph)
        np.save(folder / f"{name}.npy", steps_of(shape))
        with h5py.File(folder / f"{name}.nir", "a") as file:
            if name != "as_written" and "v_reset" in file["node/nodes/node"]:
                del file["node/nodes/node/v_reset"]
    script = Path(__file__).parent / "workers" / "sinabs_imports.py"
    command = [str(environments.interpreter("sinabs")), "-I", str(script), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def steps_of(shape: tuple[int, ...]) -> Any:
    """(T, *shape): membranes below -1, above 1 and above 2."""
    return default_rng(1).uniform(-1.5, 2.0, size=(12, *shape)).astype(np.float32)


def kind_of(node: nir.NIRNode, shape: tuple[int, ...]) -> str:
    """What our mapping says of the node."""
    ends = {"input": nir.Input({"input": np.array(shape)}), "output": nir.Output({"output": np.array(shape)})}
    silent = isinstance(node, nir.I | nir.LI | nir.CubaLI)
    spec = NeuronSpec(
        0, 2047 if isinstance(node, nir.CubaLIF | nir.CubaLI) else 4095, "none" if silent else "zero", 0, not silent
    )
    after = {} if is_population(node) else {"after": nir.IF(np.ones(1), np.ones(1), np.zeros(1))}
    names = ["input", "node", *after, "output"]
    graph = graph_of({**ends, "node": node, **after}, list(pairwise(names)), {next(iter(after), "node"): spec})
    return expressible.mapping(graph, several_spikes=False)["node"].kind


@pytest.mark.parametrize("name", LINEAR)
def test_linear_nodes_that_are_called_native_are_what_its_import_makes(name: str, imported: dict[str, Any]) -> None:
    node, shape = LINEAR[name]
    ours = layer_of(name, node, shape)(torch.from_numpy(steps_of(shape))).detach().numpy()
    np.testing.assert_allclose(imported[name]["outputs"], ours, rtol=1e-5, atol=1e-5)
    assert kind_of(node, shape) == "native"


@pytest.mark.parametrize("name", REFUSED)
def test_what_its_import_refuses_is_not_called_native(name: str, imported: dict[str, Any]) -> None:
    node, shape, words = REFUSED[name]
    assert words in imported[name]["raises"]
    assert kind_of(node, shape) == "emulated"


@pytest.mark.parametrize("name", NEURONS)
def test_what_its_import_makes_of_neurons(name: str, imported: dict[str, Any]) -> None:
    """Decay in steps, r and dt left out, the input added whole; several spikes in a step, each of which subtracts."""
    node, kept, floor = NEURONS[name]
    spikes, v = not isinstance(node, nir.LI), np.zeros(2)
    for x, found in zip(steps_of((2,)), imported[name]["outputs"], strict=True):
        v = kept * v + x
        fired = np.trunc(np.maximum(v, 0)) if spikes else v
        np.testing.assert_allclose(found, fired, rtol=1e-5, atol=1e-6)
        v = np.maximum(v - fired * spikes, floor)
    assert kind_of(node, (2,)) == "emulated"
    assert (imported[name]["fires"], imported[name]["resets"]) == (
        ("MultiSpike", "MembraneSubtract(subtract_value=None)") if spikes else (None, "None")
    )
    assert np.max(imported[name]["outputs"]) >= 2 or name.startswith("lif")


def test_its_import_ignores_the_padding_of_a_sum_pool(imported: dict[str, Any]) -> None:
    node = pool(nir.SumPool2d, 1)
    assert layer_of("sum", node, MAPS)(torch.zeros(1, *MAPS)).shape[1:] == (2, 6, 3)
    assert np.shape(imported["sum_padded"]["outputs"])[1:] == (2, 4, 2)
    assert kind_of(node, MAPS) == "emulated"


def test_files_of_a_later_nir_cannot_be_read_with_the_one_it_asks_for(imported: dict[str, Any]) -> None:
    assert "unexpected keyword argument 'v_reset'" in imported["as_written"]["raises"]


# --- the backend itself -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_the_installed_neurons_are_what_the_worker_takes_them_for() -> None:
    (probe,) = SinabsSimulator().self_test()
    assert probe.as_expected, probe.seen
    assert "sinabs 3.1.3" in probe.seen


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", OPTIONS)
def test_it_passes_the_kit(name: str) -> None:
    found = run_kit(SinabsSimulator(time_limit=120, **OPTIONS[name]))
    assert found.passed, found.summary()


def test_a_mapping_names_what_carries_each_node() -> None:
    found = SinabsSimulator().mapping(on_the_grid()[0])
    assert found["cuba_zero"].why == (
        "sinabs' import has no rule for it: sinabs.layers.LIF behind an ExpLeak with the contract's decay"
    )
    assert found["lif_zero"].why.endswith("ignores r: sinabs.layers.LIF with the contract's decay")
    assert found["readout"].why.endswith("sinabs.layers.ExpLeak with the contract's decay")
    assert {name: item.kind for name, item in SinabsSimulator().mapping(read(conv_net(), (2, 9, 7))).items()} == {
        "conv1": "native", "lif1": "emulated", "conv2": "emulated", "lif2": "emulated", "flatten": "native", "fc": "native",
        "readout": "emulated",
    }  # fmt: skip


def test_what_sinabs_cannot_have_is_refused_all_at_once() -> None:
    deployment = read(dense_net(), (4,))
    both = [("SNX296", "lif1"), ("SNX296", "lif2")]
    assert refusals(SinabsSimulator(), with_spec(deployment, reset_delay=2)) == both
    assert SinabsSimulator().mapping(with_spec(deployment, reset_delay=2))["lif1"].kind == "unsupported"
    low = with_constants(deployment.graph.nodes["lif1"], v_threshold=np.linspace(-0.1, 1, 6))
    below = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": low}))
    assert SinabsSimulator().check(below) == []
    assert refusals(SinabsSimulator(several_spikes=True), below) == both[:1]
    assert refusals(SinabsSimulator(), with_spec(below, reset="subtract", reset_delay=1)) == both[:1]
    on_host = quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))
    assert refusals(SinabsSimulator(), on_host) == [("SNX297", "contract.encoder")]


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        SinabsSimulator(strict=True, several_spikes=True)
    assert caught.value.code == "SNX002"


def test_without_its_environment_it_says_how_to_get_it_and_imports_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from snn_export.hardware_sims.sinabs.simulator import SinabsSimulator as S\n"
        "found = S().availability()\n"
        "assert S().capabilities().isolated\n"
        "assert not found.ok and found.fix == 'snn-export backends install sinabs', found\n"
        "assert not {'torch', 'sinabs'} & set(sys.modules)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != environments.override_variable("sinabs")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "SNN_EXPORT_ENVS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(SinabsSimulator(), Simulator)
    assert isinstance(SinabsSimulator(), Deviating)
