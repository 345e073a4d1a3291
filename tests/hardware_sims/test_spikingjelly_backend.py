"""SpikingJelly's own neurons run the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from snn_export.export import interpreter
from snn_export.export.graph import is_population, replace_nodes
from snn_export.export.grid_units import in_grid_units
from snn_export.export.populations import with_constants
from snn_export.hardware_sims.isolated import told
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.hardware_sims.torch_layers import layer_of
from snn_export.models.spec import NeuronSpec
from tests.builders import LayerPlan, Plan, deployment_from, even, random_inputs
from tests.cell_backends import (
    alone,
    assert_bit_for_bit,
    assert_is,
    backend,
    chain,
    declared,
    dyadic,
    every_node,
    imported_by,
    kinds,
    on_the_grid,
    require,
    run,
)
from tests.networks import conv_net, read

pytestmark = pytest.mark.usefixtures("one_thread", "workers_end")


@pytest.fixture(scope="module")
def environment() -> None:
    """Skips where SpikingJelly is not installed."""
    require("spikingjelly")


def spikingjelly(way: str = "as shipped") -> CellBackend:
    return backend("spikingjelly", way)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("reset", "seed"), [("zero", 2), ("subtract", 3), ("none", 4)])
def test_every_node_and_every_way_of_joining_them(reset: str, seed: int) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter too."""
    deployment, inputs = every_node(seed, leak=reset != "zero", reset=reset)
    assert_is("spikingjelly", "as shipped", deployment, inputs)


SPECS: dict[str, dict[str, Any]] = {
    "zero": {}, "subtract": {"reset": "subtract"}, "none": {"reset": "none"},
    "late zero": {"reset_delay": 1}, "late subtract": {"reset": "subtract", "reset_delay": 1},
    "late, clears": {"reset_delay": 1, "clears_input": True}, "doubled": {"reset": "subtract", "double_to_refire": True},
}  # fmt: skip
TOLD: Mapping[str, tuple[str, ...]] = {
    "zero": (), "subtract": (), "none": (), "late zero": (told.NOT_LATE,), "late subtract": (told.NOT_LATE,),
    "late, clears": (told.NOT_LATE, told.KEEPS_INPUT), "doubled": (told.FIRES_AGAIN,),
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", SPECS)
def test_a_declared_deviation_is_bit_for_bit_all_there_is(name: str) -> None:
    deployment, inputs = on_the_grid(dyadic(**SPECS[name]))
    found = spikingjelly().deviations(deployment)
    assert {deviation.told for deviation in found.values()} == {(told.AT_THRESHOLD, *TOLD[name])}
    trace, plain = run(spikingjelly(), deployment, inputs), interpreter.run(deployment, inputs)
    for layer, activity in assert_bit_for_bit(declared(spikingjelly(), deployment), inputs, trace).items():
        assert (plain[layer].spikes != activity.spikes).any(), "the deviation costs nothing here: this shows nothing"
    assert trace.provenance["spikingjelly deviations"].startswith(f"{told.AT_THRESHOLD} (if, lif, cuba)")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_with_a_strict_spike_function_nothing_is_left_to_declare(reset: str) -> None:
    deployment, inputs = on_the_grid(dyadic(reset=reset))
    assert spikingjelly("strict").deviations(deployment) == {}
    trace = run(spikingjelly("strict"), deployment, inputs)
    assert_bit_for_bit(deployment, inputs, trace)
    assert "spikingjelly deviations" not in trace.provenance


@pytest.mark.usefixtures("environment")
def test_integers_meet_their_thresholds_and_fire_there() -> None:
    rng = default_rng(0)
    layers = (
        LayerPlan("a", even(rng, (6, 4), 8), threshold=12), LayerPlan("b", even(rng, (5, 6), 8), "a", dv=1024, threshold=10),
        LayerPlan("out", even(rng, (3, 5), 8), "b"),
    )  # fmt: skip
    deployment = deployment_from(Plan((4,), layers, steps=12, high=3))
    levels = random_inputs(rng, deployment, 64)
    trace, plain = run(spikingjelly(), deployment, levels), interpreter.run(deployment, levels)
    for name, activity in interpreter.run(declared(spikingjelly(), in_grid_units(deployment)), levels).items():
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)
        assert name == "out" or (plain[name].spikes != activity.spikes).any()


# --- what its own import makes of a node --------------------------------------------------------------------------------------

ONE, ZERO, EACH = np.ones(2), np.zeros(2), np.array([1.0, 2.0])
RNG = default_rng(0)


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def conv2d(padding: Any = 0, stride: Any = 1, groups: int = 1, kernel: tuple[int, int] = (3, 2)) -> nir.Conv2d:
    return nir.Conv2d((5, 4), weights(4, 2 // groups, *kernel), stride, padding, (1, 1), groups, weights(4))


def pool(kind: Any, kernel: int, padding: int) -> Any:
    size, around = np.array([kernel, kernel]), np.array([padding, padding])
    return kind(size, np.array([1, 2]), around)


def lif(tau: Any = 4e-3, r: Any = 1.0, leak: Any = 0.0, threshold: Any = 1.0, reset: Any = 0.0) -> nir.LIF:
    return nir.LIF(tau * ONE, r * ONE, leak * ONE, threshold * ONE, reset * ONE)


def cuba(r: float = 4.0, leak: float = 0.0, w_in: float = 2.0, tau_syn: Any = 2e-3) -> nir.CubaLIF:
    return nir.CubaLIF(tau_syn * ONE, 4e-3 * ONE, r * ONE, leak * ONE, ONE, ZERO, w_in * ONE)


LINEAR: Mapping[str, tuple[nir.NIRNode, tuple[int, ...]]] = {
    "affine": (nir.Affine(weights(3, 2), weights(3)), (2,)), "linear": (nir.Linear(weights(3, 2)), (2,)),
    "conv2d": (conv2d((1, 0), (2, 1)), (2, 5, 4)), "conv2d_same": (conv2d("same"), (2, 5, 4)),
    "conv2d_valid": (conv2d("valid", kernel=(2, 3)), (2, 5, 4)),
    "conv1d": (nir.Conv1d(6, weights(4, 2, 3), 2, 1, 1, 1, weights(4)), (2, 6)),
    "avg": (pool(nir.AvgPool2d, 2, 1), (2, 5, 4)), "sum": (pool(nir.SumPool2d, 2, 0), (2, 5, 4)),
    "flatten": (nir.Flatten({"input": np.array([2, 3, 2])}, 0, 1), (2, 3, 2)),
    "flatten_all": (nir.Flatten({"input": np.array([2, 3, 2])}, 0, -1), (2, 3, 2)),
}  # fmt: skip
REFUSED: Mapping[str, tuple[nir.NIRNode, tuple[int, ...], str]] = {
    "conv_groups": (conv2d(groups=2), (2, 5, 4), "Grouped convolutions"),
    "conv_same_stride": (conv2d("same", (2, 2)), (2, 5, 4), "strided"),
    "avg_wide": (pool(nir.AvgPool2d, 2, 2), (2, 5, 4), "at most half"),
    "scale": (nir.Scale(ONE), (2,), "mapping does not exist"), "delay": (nir.Delay(ONE), (2,), "mapping does not exist"),
    "i": (nir.I(ONE), (2,), "mapping does not exist"), "li": (nir.LI(ONE, ONE, ZERO), (2,), "mapping does not exist"),
    "cubali": (nir.CubaLI(ONE, ONE, ONE, ZERO), (2,), "mapping does not exist"),
    "threshold": (nir.Threshold(ONE), (2,), "mapping does not exist"),
    "if_r": (nir.IF(ONE, ONE, ZERO), (2,), "nir.IF.r must equal 1 / dt"),
    "if_each": (nir.IF(1e3 * ONE, EACH, ZERO), (2,), "v_threshold must be uniform"),
    "lif_r": (lif(r=2.0), (2,), "nir.LIF.r must equal 1 or tau / dt"), "lif_leak": (lif(leak=0.5), (2,), "must equal v_reset"),
    "lif_fast": (lif(tau=1e-3), (2,), "greater than 1"), "lif_each": (lif(tau=4e-3 * EACH), (2,), "tau must be uniform"),
    "lif_last_bit": (lif(tau=np.array([4e-3, np.nextafter(4e-3, 1)])), (2,), "tau must be uniform"),
    "cuba_r": (cuba(r=1.0), (2,), "nir.CubaLIF.r must equal"), "cuba_w_in": (cuba(w_in=1.0), (2,), "nir.CubaLIF.w_in must"),
    "cuba_leak": (cuba(leak=0.5), (2,), "v_leak must equal 0"),
}  # fmt: skip
NEURONS: Mapping[str, tuple[nir.NIRNode, Mapping[str, Any]]] = {
    "if": (nir.IF(1e3 * ONE, ONE, ZERO), {"module": "IFNode", "v_threshold": 1.0, "v_reset": 0.0}),
    "lif": (lif(), {"module": "LIFNode", "tau": 4.0, "decay_input": True, "v_reset": 0.0}),
    "lif_plain": (lif(r=4.0), {"module": "LIFNode", "tau": 4.0, "decay_input": False, "v_reset": 0.0}),
    "lif_reset": (lif(leak=0.5, reset=0.5), {"module": "LIFNode", "v_reset": 0.5}),
    "cuba": (cuba(), {"module": "CUBALIFNode", "c_decay": 0.5, "v_decay": 0.75, "v_reset": 0.0}),
    "sum_padded": (pool(nir.SumPool2d, 2, 1), {"module": "LPPool2d", "norm_type": 1.0}),
}  # fmt: skip


@pytest.fixture(scope="module")
def imported(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SpikingJelly's import makes of all of the above, as one process sees it."""
    folder = tmp_path_factory.mktemp("imports")
    nodes: dict[str, tuple[nir.NIRNode, tuple[int, ...]]] = dict(LINEAR)
    nodes |= {name: (node, shape) for name, (node, shape, _) in REFUSED.items()}
    nodes |= {name: (node, (2, 5, 4) if name == "sum_padded" else (2,)) for name, (node, _) in NEURONS.items()}
    for name, (node, shape) in nodes.items():
        nir.write(folder / f"{name}.nir", chain(shape, node))
        np.save(folder / f"{name}.npy", default_rng(1).normal(size=(3, 2, *shape)))
    return imported_by("spikingjelly", folder)


def kind_of(node: nir.NIRNode, shape: tuple[int, ...], spec: NeuronSpec | None = None) -> str:
    """What our mapping says of the node, with decays as in the file."""
    return kinds(spikingjelly(), alone(node, shape, spec))["node"]


@pytest.mark.parametrize("name", LINEAR)
def test_linear_nodes_that_are_called_native_are_what_its_import_makes(name: str, imported: dict[str, Any]) -> None:
    node, shape = LINEAR[name]
    x = default_rng(1).normal(size=(3, 2, *shape)).astype(np.float32)
    ours = [layer_of(name, node, shape)(torch.from_numpy(step)).numpy() for step in x]
    np.testing.assert_allclose(imported[name]["outputs"], ours, rtol=1e-6, atol=1e-6)
    assert kind_of(node, shape) == "native"


@pytest.mark.parametrize("name", REFUSED)
def test_what_its_import_refuses_is_not_called_native(name: str, imported: dict[str, Any]) -> None:
    node, shape, words = REFUSED[name]
    assert words in imported[name]["raises"]
    silent = isinstance(node, nir.I | nir.LI | nir.CubaLI)
    dv = 4096 if name in ("lif_fast", "threshold") else 0 if isinstance(node, nir.IF | nir.I) else 1024
    du = 2047 if isinstance(node, nir.CubaLIF | nir.CubaLI) else 4095
    spec = NeuronSpec(dv, du, reset="none" if silent else "zero", spiking=not silent) if is_population(node) else None
    assert kind_of(node, shape, spec) in ("rewritten", "emulated")


@pytest.mark.parametrize("name", NEURONS)
def test_what_its_import_makes_of_neurons(name: str, imported: dict[str, Any]) -> None:
    node, expected = NEURONS[name]
    assert {key: imported[name][key] for key in expected} == expected
    if name == "sum_padded":  # kernel 2, stride (1, 2), padding 1 on (5, 4): (6, 3) with its padding
        assert np.shape(imported[name]["outputs"])[-2:] == (4, 2)
        assert kind_of(node, (2, 5, 4)) == "emulated"
    elif name != "lif_reset":
        spec = NeuronSpec(0 if name == "if" else 1024, 2047 if name == "cuba" else 4095)
        assert kind_of(node, (2,), spec) == "native"
        assert kind_of(node, (2,), NeuronSpec(spec.dv, spec.du, reset="subtract")) == "emulated"


# --- the backend itself -------------------------------------------------------------------------------------------------------


def test_a_mapping_names_what_carries_each_node() -> None:
    deployment, _ = on_the_grid(dyadic())
    found = spikingjelly().mapping(deployment)
    assert {name: layer.kind for name, layer in found.items()} == dict.fromkeys(("w1", "if", "w2", "lif", "w3", "cuba"), "native")
    assert found["cuba"].why.startswith("CUBALIFNode, as ")
    slower = with_constants(deployment.graph.nodes["lif"], tau=3e-3 * np.ones(6))
    other = deployment.replace(graph=replace_nodes(deployment.graph, {"lif": slower}))
    assert "time constants" in spikingjelly().mapping(other)["lif"].why
    assert kinds(spikingjelly(), read(conv_net(), (2, 9, 7)))["conv2"] == "emulated"
