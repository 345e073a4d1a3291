"""Rockpool's LIFTorch runs the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
import pytest

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.hardware_sims.isolated import told
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.models.spec import NeuronSpec
from tests.cell_backends import (
    ROWS,
    assert_bit_for_bit,
    assert_is,
    backend,
    declared,
    dyadic,
    every_node,
    imported_by,
    on_the_grid,
    require,
    run,
)
from tests.torch_graphs import everything, refusals

pytestmark = pytest.mark.usefixtures("one_thread", "workers_end")

WAYS = ROWS["rockpool"].options


@pytest.fixture(scope="module")
def environment() -> None:
    """Skips where Rockpool is not installed."""
    require("rockpool")


def rockpool(way: str = "as shipped") -> CellBackend:
    return backend("rockpool", way)


def grid(**spec: Any) -> tuple[Deployment, Any]:
    """Beside the others a Threshold, which LIFTorch is where it keeps nothing."""
    threshold = (nir.Threshold(2 * np.ones(6)), NeuronSpec(4096, **spec))
    return on_the_grid(dyadic(r_of_cuba=4.0, **spec) | {"threshold": threshold})


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("way", ["as shipped", "strict"])  # with several spikes the loops of these networks explode
@pytest.mark.parametrize(("reset", "seed"), [("zero", 2), ("subtract", 3), ("none", 4)])
def test_every_node_and_every_way_of_joining_them(reset: str, seed: int, way: str) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter too."""
    deployment, inputs = every_node(seed, reset=reset)
    assert_is("rockpool", way, deployment, inputs)


RESETS: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "zero": ({}, (told.NOT_TO_ZERO,)), "subtract": ({"reset": "subtract"}, ()), "none": ({"reset": "none"}, (told.NOT_NEVER,)),
    "late zero": ({"reset_delay": 1}, (told.NOT_TO_ZERO, told.NOT_LATE)),
    "late subtract": ({"reset": "subtract", "reset_delay": 1}, (told.NOT_LATE,)),
    "late, clears": ({"reset_delay": 1, "clears_input": True}, (told.NOT_TO_ZERO, told.NOT_LATE, told.KEEPS_INPUT)),
    "doubled": ({"reset": "subtract", "double_to_refire": True}, (told.FIRES_AGAIN,)),
}  # fmt: skip
TOLD: Mapping[str, tuple[str, ...]] = {
    "as shipped": (told.AT_THRESHOLD,), "several": (told.AT_THRESHOLD, told.SEVERAL_SPIKES), "strict": (),
    "strict, several": (told.SEVERAL_SPIKES,),
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reset", RESETS)
def test_a_declared_deviation_is_bit_for_bit_all_there_is(reset: str, way: str) -> None:
    spec, sentences = RESETS[reset]
    deployment, inputs = grid(**spec)
    wanted, found = (*TOLD[way], *sentences), rockpool(way).deviations(deployment)
    assert {deviation.told for deviation in found.values()} == ({wanted} if wanted else set())
    trace, plain = run(rockpool(way), deployment, inputs), interpreter.run(deployment, inputs)
    activities = assert_bit_for_bit(declared(rockpool(way), deployment), inputs, trace)
    differs = any(bool((plain[layer].sent != activity.sent).any()) for layer, activity in activities.items())
    assert differs == bool(wanted), "where nothing is declared nothing differs, and what is declared costs something here"
    assert ("rockpool deviations" in trace.provenance) == bool(wanted)


# --- what its own import makes of a node --------------------------------------------------------------------------------------

NO_RULE = ("IF", "I", "Threshold", "Scale", "Delay", "Flatten", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d")


@pytest.fixture(scope="module")
def imported(environment: None) -> dict[str, Any]:
    """What ``rockpool_imports.py`` saw in Rockpool's environment."""
    return imported_by("rockpool")


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
    found = rockpool().mapping(deployment)
    assert set(found) == set(deployment.graph.nodes) - {"input", "output"}
    native = {name for name, layer in found.items() if layer.kind == "native"}
    assert native == {name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Affine | nir.Linear)}
    assert {layer.kind for layer in found.values()} == {"native", "emulated"}
    assert found["n1"].why == "Rockpool's import raises on it: LIFTorch with the contract's decays"


# --- the backend itself -------------------------------------------------------------------------------------------------------


def test_a_threshold_that_is_not_positive_and_a_lost_current_are_refused() -> None:
    deployment, _ = grid()
    for constants in ({"if": {"v_threshold": np.zeros(6)}}, {"cuba": {"r": np.array([1.0] * 5 + [0.0])}}):
        nodes = {name: with_constants(deployment.graph.nodes[name], **changed) for name, changed in constants.items()}
        wrong = deployment.replace(graph=replace_nodes(deployment.graph, nodes))
        (name,) = constants
        assert refusals(rockpool(), wrong) == [("SNX296", name)]
        [finding], layer = rockpool().check(wrong), rockpool().mapping(wrong)[name]
        assert layer.kind == "unsupported" and layer.why == finding.why
