"""Spyx's own neurons run the contract's network but for what is declared, and its NIR import makes what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.isolated import told
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.hardware_sims.torch_layers import layer_of
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.cell_backends import (
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
from tests.networks import conv_net, dense_net, quantised, read, recurrent_net, uniform
from tests.torch_graphs import graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread", "workers_end")

FIXTURE = Path(__file__).parents[1] / "fixtures" / "nir" / "spyx_cuba.nir"


@pytest.fixture(scope="module")
def environment() -> None:
    """Skips where Spyx is not installed."""
    require("spyx")


def spyx(way: str = "as shipped") -> CellBackend:
    return backend("spyx", way)


def grid(**spec: Any) -> tuple[Deployment, Any]:
    """Beside the others a CubaLIF with a v_leak, which Spyx's does not have."""
    return on_the_grid(dyadic(**spec) | {"biased": dyadic(v_leak=1.0, **spec)["cuba"]})


RESETS: dict[str, dict[str, Any]] = {
    "zero": {}, "subtract": {"reset": "subtract"}, "none": {"reset": "none"},
    "late subtract": {"reset": "subtract", "reset_delay": 1},
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("reset", "seed"), [("zero", 2), ("subtract", 3), ("none", 4), ("late subtract", 5)])
def test_every_node_and_every_way_of_joining_them(reset: str, seed: int) -> None:
    """Thresholds of their own, r, w_in, v_leak, all types of neurons; a v_leak behind a filter too."""
    deployment, inputs = every_node(seed, leak=reset != "zero", **RESETS[reset])
    assert_is("spyx", "as shipped", deployment, inputs)
    assert (reset == "zero") == bool(spyx().deviations(deployment))


SPECS: dict[str, dict[str, Any]] = {
    **RESETS, "late zero": {"reset_delay": 1}, "late, clears": {"reset_delay": 1, "clears_input": True},
    "doubled": {"reset": "subtract", "double_to_refire": True},
}  # fmt: skip
TOLD: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "zero": ((told.NOT_TO_ZERO, told.LATE), (told.NOT_TO_ZERO,)),
    "late zero": ((told.NOT_TO_ZERO,), (told.NOT_TO_ZERO, told.NOT_LATE)),
    "late, clears": ((told.NOT_TO_ZERO, told.KEEPS_INPUT), (told.NOT_TO_ZERO, told.NOT_LATE, told.KEEPS_INPUT)),
    "doubled": ((told.FIRES_AGAIN,),) * 2, "subtract": (), "none": (), "late subtract": (),
}  # fmt: skip


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", SPECS)
def test_a_declared_deviation_is_bit_for_bit_all_there_is(name: str) -> None:
    deployment, inputs = grid(**SPECS[name])
    found = {layer: deviation.told for layer, deviation in spyx().deviations(deployment).items()}
    plain, behind_a_filter = TOLD[name] or ((), ())
    assert found == ({"if": plain, "lif": plain, "cuba": behind_a_filter, "biased": behind_a_filter} if TOLD[name] else {})
    trace, asked = run(spyx(), deployment, inputs), interpreter.run(deployment, inputs)
    for layer, activity in assert_bit_for_bit(declared(spyx(), deployment), inputs, trace).items():
        assert (asked[layer].spikes != activity.spikes).any() == bool(found), "the deviation costs nothing, or too much"
    assert ("spyx deviations" in trace.provenance) == bool(found)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("delay", [0, 1])
def test_with_membranes_set_to_zero_by_hand_nothing_is_left_to_declare(delay: int) -> None:
    deployment, inputs = grid(reset_delay=delay)
    assert spyx("zero_reset").deviations(deployment) == {}
    trace = run(spyx("zero_reset"), deployment, inputs)
    assert_bit_for_bit(deployment, inputs, trace)
    assert "spyx deviations" not in trace.provenance
    assert set(kinds(spyx("zero_reset"), deployment).values()) == {"emulated"}


@pytest.mark.usefixtures("environment")
def test_periodic_resets_clear_u_and_v_of_neurons_that_subtract_late() -> None:
    deployment = ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10))
    deployment = with_spec(deployment, **RESETS["late subtract"])
    assert_is("spyx", "as shipped", deployment, uniform(default_rng(3), 8, 7, high=2.0))


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


@pytest.fixture(scope="module")
def imported(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Spyx's import makes of all of the above, as one process sees it."""
    folder = tmp_path_factory.mktemp("imports")
    single: dict[str, tuple[Any, ...]] = {**LINEAR, **WRONG, **LEFT_OUT, **RAISES}
    graphs = {name: (chain(case[1], case[0]), case[1]) for name, case in single.items()}
    graphs |= {name: (graph, (3,)) for name, graph in GRAPHS.items()}
    for name, (graph, shape) in graphs.items():
        nir.write(folder / f"{name}.nir", graph)
        np.save(folder / f"{name}.npy", inputs_of(shape))
    (folder / "lif_in_its_dt.dt").write_text("1e-3")
    nir.write(folder / "lif_in_its_dt.nir", GRAPHS["lif_seconds"])
    np.save(folder / "lif_in_its_dt.npy", DRIVE)
    return imported_by("spyx", environments.environment("spyx").worker, folder)


def inputs_of(shape: tuple[int, ...]) -> Any:
    return SMALL if len(shape) == 3 else DRIVE if shape == (3,) else np.ones((5, 2, *shape))


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
    population = "n" if name == "loop" else "node"
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
    assert spyx().deviations(whole_inputs) == {}
    assert kinds(spyx(), whole_inputs) == {"layer_0": "emulated", "layer_1": "native", "layer_2": "emulated", "layer_3": "native"}


# --- the backend itself -------------------------------------------------------------------------------------------------------


def test_a_mapping_names_what_carries_each_node() -> None:
    deployment, _ = grid()
    found = spyx().mapping(deployment)
    native = {"if": "native", "lif": "native", "cuba": "native", "biased": "emulated"}
    assert {name: layer.kind for name, layer in found.items()} == dict.fromkeys(("w1", "w2", "w3", "w4"), "emulated") | native
    assert found["lif"].why == "LIF, as spyx.nir.from_nir makes it"
    assert found["biased"].why.endswith("LI and CuBaLIF with alpha = 0")
    subtracting = spyx().mapping(grid(reset="subtract")[0])
    assert subtracting["lif"].why.endswith("CuBaLIF with alpha = 0")
    assert subtracting["cuba"].kind == "native"
    assert spyx().mapping(grid(reset="subtract", reset_delay=1)[0])["cuba"].why.endswith(": LI and LIF")
    assert kinds(spyx(), read(conv_net(), (2, 9, 7)))["lif1"] == "native"
    assert kinds(spyx(), PortableForm()(read(conv_net(), (2, 9, 7))))["lif1"] == "rewritten"
    slower = with_constants(deployment.graph.nodes["lif"], tau=3e-3 * np.ones(6))
    other = deployment.replace(graph=replace_nodes(deployment.graph, {"lif": slower}))
    assert "time constants" in spyx().mapping(other)["lif"].why


def test_what_no_neuron_of_spyx_does_is_refused() -> None:
    deployment, _ = grid(reset="subtract", reset_delay=2)
    names = ["if", "lif", "cuba", "biased"]
    assert refusals(spyx(), deployment) == [("SNX296", name) for name in names]
    assert {found.kind for name, found in spyx().mapping(deployment).items() if name in names} == {"unsupported"}
    assert spyx().check(grid(reset="none", reset_delay=2)[0]) == []
    below, _ = grid()
    changed = {name: with_constants(below.graph.nodes[name], v_threshold=-np.ones(6)) for name in ("lif", "cuba")}
    below = below.replace(graph=replace_nodes(below.graph, changed))
    assert refusals(spyx(), below) == [("SNX296", "cuba")]
    assert refusals(spyx("zero_reset"), below) == [("SNX296", "lif"), ("SNX296", "cuba")]
    assert refusals(spyx(), quantised(read(dense_net(), (4,), encoder=EncoderSpec("bias")))) == [("SNX293", "contract.encoder")]
