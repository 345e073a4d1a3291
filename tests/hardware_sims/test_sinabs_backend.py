"""sinabs' own neurons run the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
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
from snn_export.export.populations import with_constants
from snn_export.hardware_sims.isolated import told
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.hardware_sims.sinabs.simulator import SinabsSimulator
from snn_export.hardware_sims.torch_layers import layer_of
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.cell_backends import (
    ROWS,
    alone,
    assert_bit_for_bit,
    assert_explained,
    assert_is,
    backend,
    chain,
    declared,
    dyadic,
    every_node,
    imported_by,
    kinds,
    require,
    run,
)
from tests.networks import conv_net, dense_net, quantised, read, uniform
from tests.torch_graphs import graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread", "workers_end")

WAYS = ROWS["sinabs"].options


@pytest.fixture(scope="module")
def environment() -> None:
    """Skips where sinabs is not installed."""
    require("sinabs")


def sinabs(way: str = "as shipped") -> CellBackend:
    return backend("sinabs", way)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("seed", "spec", "strict"),
    [(2, {}, False), (3, {"reset": "subtract"}, False), (4, {"reset": "none"}, True),
     (5, {"reset": "subtract", "reset_delay": 1}, False), (6, {"reset_delay": 1}, True)],
)  # fmt: skip
def test_every_node_and_every_way_of_joining_them(seed: int, spec: dict[str, Any], strict: bool) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter, for which sinabs has no place."""
    deployment, inputs = every_node(seed, **spec)
    assert_is("sinabs", "strict" if strict else "as shipped", deployment, inputs)


SPECS: dict[str, dict[str, Any]] = {
    "zero": {}, "subtract": {"reset": "subtract"}, "none": {"reset": "none"},
    "late_zero": {"reset_delay": 1}, "late_subtract": {"reset": "subtract", "reset_delay": 1},
    "clears": {"reset_delay": 1, "clears_input": True}, "doubled": {"reset": "subtract", "double_to_refire": True},
}  # fmt: skip
TOLD: Mapping[str, tuple[str, ...]] = {"clears": (told.KEEPS_INPUT,), "doubled": (told.FIRES_AGAIN,)}


def every_reset() -> tuple[Deployment, Any]:
    """Every reset on an IF, a LIF and a CubaLIF. All numbers are whole halves and all decays one half, so that what meets a
    threshold, or several, meets them exactly, in float32 as in float64."""
    rng = default_rng(3)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([6])})}
    specs, edges = dict[str, NeuronSpec](), list[tuple[str, str]]()
    for kind, (node, spec) in dyadic().items():
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
@pytest.mark.parametrize("way", WAYS)
def test_declared_deviations_are_bit_for_bit_all_there_are(way: str) -> None:
    (deployment, inputs), made = every_reset(), sinabs(way)
    trace, plain, deviations = run(made, deployment, inputs), interpreter.run(deployment, inputs), made.deviations(deployment)
    for layer, activity in assert_bit_for_bit(deviating(deployment, deviations), inputs, trace).items():
        cost = layer != "readout" and bool((plain[layer].sent != activity.sent).any())
        assert cost == (layer in deviations), f"{layer}: the deviation costs nothing here, or was not declared"


def test_what_is_declared_is_what_the_options_leave() -> None:
    deployment, _ = every_reset()
    above = {"as shipped": (told.AT_THRESHOLD,), "several": (told.AT_THRESHOLD, told.SEVERAL_SPIKES), "strict": ()}
    for way in WAYS:
        found = sinabs(way).deviations(deployment)
        wanted = {f"{kind}_{reset}": above[way] + TOLD.get(reset, ()) for kind in dyadic() for reset in SPECS}
        assert {layer: deviation.told for layer, deviation in found.items()} == {
            layer: sentences for layer, sentences in wanted.items() if sentences
        }
    in_trace = sinabs().compile(deployment).provenance["sinabs deviations"]
    assert in_trace.startswith(f"{told.AT_THRESHOLD} (if_zero, if_subtract, ")


@pytest.mark.usefixtures("environment")
def test_a_subtraction_of_a_neuron_without_memory_is_never_late() -> None:
    theta = np.array([0.5, 1.0, 2.0])
    nodes = {
        "input": nir.Input({"input": np.array([3])}), "w": nir.Linear(np.eye(3)), "n": nir.Threshold(theta),
        "output": nir.Output({"output": np.array([3])}),
    }  # fmt: skip
    deployment = graph_of(nodes, list(pairwise(nodes)), {"n": NeuronSpec(4096, reset="subtract", reset_delay=1)})
    inputs = default_rng(0).integers(0, 5, (9, 8, 3)) / 2.0
    assert sinabs("strict").deviations(deployment)["n"].told == (told.NOT_LATE,)
    trace = run(sinabs("strict"), deployment, inputs)
    assert_bit_for_bit(declared(sinabs("strict"), deployment), inputs, trace)
    assert (trace.layers["n"].spikes != interpreter.run(deployment, inputs)["n"].spikes).any()


@pytest.mark.usefixtures("environment")
def test_a_threshold_that_is_never_reached_leaves_the_membrane_a_number() -> None:
    """Sinabs subtracts s theta, and 0 times infinity is not a number."""
    deployment = with_spec(read(dense_net(), (4,)), reset="subtract")
    endless = with_constants(deployment.graph.nodes["lif1"], v_threshold=np.full(6, np.inf))
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": endless}))
    inputs = uniform(default_rng(1), 4, 4)
    trace, never = run(sinabs(), deployment, inputs), interpreter.run(with_spec(deployment, reset="none"), inputs)["lif1"]
    np.testing.assert_allclose(trace.layers["lif1"].membrane, never.membrane, rtol=1e-4, atol=1e-4)
    assert not trace.layers["lif1"].counts.any()


@pytest.mark.usefixtures("environment")
def test_integers_meet_their_thresholds_and_fire_there() -> None:
    grid = in_grid_units(quantised(read(dense_net(), (4,), steps=12)))
    levels = default_rng(0).integers(0, 2, (64, 4)).astype(np.float64)
    trace = run(sinabs(), grid, levels)
    assert_explained(declared(sinabs(), grid), levels, trace, ROWS["sinabs"].roundoff)


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
        nir.write(folder / f"{name}.nir", chain(shape, node))
        np.save(folder / f"{name}.npy", steps_of(shape))
        with h5py.File(folder / f"{name}.nir", "a") as file:
            if name != "as_written" and "v_reset" in file["node/nodes/node"]:
                del file["node/nodes/node/v_reset"]
    return imported_by("sinabs", folder)


def steps_of(shape: tuple[int, ...]) -> Any:
    """(T, *shape): membranes below -1, above 1 and above 2."""
    return default_rng(1).uniform(-1.5, 2.0, size=(12, *shape)).astype(np.float32)


def kind_of(node: nir.NIRNode, shape: tuple[int, ...]) -> str:
    """What our mapping says of the node."""
    silent = isinstance(node, nir.I | nir.LI | nir.CubaLI)
    du = 2047 if isinstance(node, nir.CubaLIF | nir.CubaLI) else 4095
    spec = NeuronSpec(0, du, "none" if silent else "zero", 0, not silent) if is_population(node) else None
    return kinds(sinabs(), alone(node, shape, spec))["node"]


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


def test_a_mapping_names_what_carries_each_node() -> None:
    found = sinabs().mapping(every_reset()[0])
    assert found["cuba_zero"].why == (
        "sinabs' import has no rule for it: sinabs.layers.LIF behind an ExpLeak with the contract's decay"
    )
    assert found["lif_zero"].why.endswith("ignores r: sinabs.layers.LIF with the contract's decay")
    assert found["readout"].why.endswith("sinabs.layers.ExpLeak with the contract's decay")
    assert kinds(sinabs(), read(conv_net(), (2, 9, 7))) == {
        "conv1": "native", "lif1": "emulated", "conv2": "emulated", "lif2": "emulated", "flatten": "native", "fc": "native",
        "readout": "emulated",
    }  # fmt: skip


def test_what_sinabs_cannot_have_is_refused_all_at_once() -> None:
    deployment = read(dense_net(), (4,))
    both = [("SNX296", "lif1"), ("SNX296", "lif2")]
    assert refusals(sinabs(), with_spec(deployment, reset_delay=2)) == both
    assert sinabs().mapping(with_spec(deployment, reset_delay=2))["lif1"].kind == "unsupported"
    low = with_constants(deployment.graph.nodes["lif1"], v_threshold=np.linspace(-0.1, 1, 6))
    below = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": low}))
    assert sinabs().check(below) == []
    assert refusals(sinabs("several"), below) == both[:1]
    assert refusals(sinabs(), with_spec(below, reset="subtract", reset_delay=1)) == both[:1]
    on_host = quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))
    assert refusals(sinabs(), on_host) == [("SNX293", "contract.encoder")]


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        SinabsSimulator(strict=True, several_spikes=True)
    assert caught.value.code == "SNX002"
