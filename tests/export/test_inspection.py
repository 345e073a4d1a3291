"""What a file of another program is, and files as older versions of nir and other programs write them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

import snn_export
from snn_export.export import interpreter, nir_io
from snn_export.export.inspection import Inspection, inspect
from snn_export.export.nir_reader import deployment_from_nir
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from tests.networks import dense_net, read

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nir"
DT = 1e-3
STATED: dict[str, dict[str, Any]] = {
    "snntorch_cnn": {"reset": "zero"}, "snntorch_recurrent_cuba": {"reset": "zero"}, "norse_cnn": {"dt": 1e-6},
    "norse_cuba": {"dt": 1e-6}, "spikingjelly_cnn": {}, "spikingjelly_cuba": {}, "rockpool_cuba": {},
    "spyx_cuba": {},
    "sinabs_dense": {"dt": 1.0, "reset": "subtract"},
}  # fmt: skip
"""What lint asks to have stated about each fixture."""
AS_WRITTEN = ("snntorch_cnn", "norse_cnn", "spikingjelly_cnn", "spikingjelly_cuba")
"""Fixtures whose file says all that the framework computed."""


def codes(found: Inspection, severity: str = "error") -> list[str]:
    return [item.code for item in found.findings if item.severity == severity]


def test_every_fixture_is_looked_at() -> None:
    assert {path.stem for path in FIXTURES.glob("*.nir")} == set(STATED)


@pytest.mark.parametrize("name", STATED)
def test_a_fixture_asks_for_what_it_does_not_say_and_then_reads(name: str) -> None:
    path, stated = FIXTURES / f"{name}.nir", STATED[name]
    found = inspect(path)
    asked = {"dt": "SNX167", "reset": "SNX168"}
    assert codes(found) == [asked[key] for key in stated]
    assert found.provenance.writer.lower() == name.partition("_")[0]
    assert found.provenance.nir_version == ("1.0.4" if name.startswith(("sinabs", "rockpool")) else "1.0.8")
    assert inspect(path, **stated).readable
    if stated:
        with pytest.raises(UserError) as caught:
            snn_export.from_nir(path, steps=3)
        assert [item.code for item in caught.value.diagnostics] == [asked[key] for key in stated]
    assert snn_export.from_nir(path, steps=3, **stated).contract.dt == found.dt or stated.get("dt")


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_a_fixture_fires_as_in_the_framework_that_wrote_it(name: str) -> None:
    path = FIXTURES / f"{name}.nir"
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as held:
        inputs, spikes = held["inputs"], held["spikes"]
    assert 0 < spikes.mean() < 1
    deployment = snn_export.from_nir(path, steps=len(inputs), encoder=EncoderSpec("events"), **STATED[name])
    found = interpreter.run(deployment, inputs)[deployment.contract.readout.node].spikes
    np.testing.assert_array_equal(found, spikes)


def test_shapes_constants_and_loops_of_a_fixture() -> None:
    found = inspect(FIXTURES / "snntorch_recurrent_cuba.nir", reset="zero", steps=4)
    assert [(loop.source, loop.path, loop.target, loop.within) for loop in found.loops] == [("1.lif", ("1.w_rec",), "1.lif", "")]
    cuba = next(layer for layer in found.layers if layer.name == "1.lif")
    assert (cuba.kind, cuba.shape, cuba.constants["w_in"]) == ("CubaLIF", (8,), (2.0, 2.0))
    assert cuba.kept == pytest.approx((0.875, 0.875))
    assert (found.dt, found.dt_from, found.reset_from, found.steps) == (1e-4, "inferred", "stated", 4)


def lif(count: int = 3, tau: float = 4 * DT) -> nir.LIF:
    ones = np.ones(count)
    return nir.LIF(ones * tau, ones, ones * 0, ones, ones * 0)


def chain(shape: tuple[int, ...], *layers: nir.NIRNode, made: tuple[int, ...] = (3,)) -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array(shape)), **{f"l{i}": node for i, node in enumerate(layers)}}
    nodes["output"] = nir.Output(np.array(made))
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata={}, type_check=False)


def stored(path: Path, graph: nir.NIRGraph, change: Callable[[h5py.Group], None] | None = None) -> Path:
    """The file of a graph, ``change`` made to its nodes."""
    nir.write(path, graph)
    if change is not None:
        with h5py.File(path, "r+") as stream:
            change(stream["node/nodes"])
    return path


def replaced(group: h5py.Group, key: str, value: Any) -> None:
    del group[key]
    group[key] = value


def cuba(count: int = 3) -> nir.CubaLIF:
    ones = np.ones(count)
    return nir.CubaLIF(ones * 2 * DT, ones * 4 * DT, ones, ones * 0, ones, ones * 0, ones)


MIXED = "one number for all neurons where the file holds one"
OLD: dict[str, tuple[nir.NIRNode, Callable[[h5py.Group], None], list[str]]] = {
    "no v_reset": (lif(), lambda n: n.pop("v_reset"), ["v_reset is 0"]),
    "no w_in": (cuba(), lambda n: n.pop("w_in"), ["w_in is 1"]),
    "neither": (cuba(), lambda n: (n.pop("w_in"), n.pop("v_reset")), ["v_reset is 0", "w_in is 1"]),
    "a single threshold": (lif(), lambda n: replaced(n, "v_threshold", 1.0), [MIXED]),
    "all single": (lif(), lambda n: [replaced(n, key, n[key][0]) for key in list(n) if key != "type"], []),
    "single of one axis": (cuba(), lambda n: replaced(n, "r", np.ones(1)), [MIXED]),
}  # fmt: skip


@pytest.mark.parametrize("case", OLD)
def test_a_file_of_an_older_nir_reads_as_the_whole_one(case: str, tmp_path: Path) -> None:
    node, change, assumed = OLD[case]
    graph = chain((2,), nir.Linear(np.ones((3, 2)) * 0.9), node)
    whole = deployment_from_nir(stored(tmp_path / "new.nir", graph), steps=6, dt=DT)
    old = stored(tmp_path / "old.nir", graph, lambda nodes: change(nodes["l1"]))
    found = deployment_from_nir(old, steps=6, dt=DT)
    assert found.fingerprint == whole.fingerprint
    notes = [item.what for item in inspect(old, dt=DT, reset="zero").findings if item.code == "SNX171"]
    assert notes == [f"assumed: {text}" for text in assumed]
    assert not [item for item in inspect(tmp_path / "new.nir", dt=DT, reset="zero").findings if item.code == "SNX171"]


def test_a_convolution_without_an_input_shape(tmp_path: Path) -> None:
    conv = nir.Conv2d((6, 5), np.ones((2, 1, 3, 2)), 1, 0, 1, 1, np.zeros(2))
    shape = (2, 4, 4)
    ones = np.ones(shape)
    graph = chain((1, 6, 5), conv, nir.LIF(ones * 4 * DT, ones, ones * 0, ones, ones * 0))
    path = stored(tmp_path / "old.nir", graph, lambda nodes: nodes["l0"].pop("input_shape"))
    found = inspect(path, dt=DT)
    assert found.readable
    assert [layer.shape for layer in found.layers if layer.kind == "LIF"] == [shape]
    assert "assumed: input_shape is open" in [item.what for item in found.findings]


def conv_2d(weight: tuple[int, ...], stride: Any = 1, padding: Any = 0, groups: int = 1) -> nir.Conv2d:
    return nir.Conv2d(None, np.ones(weight) / 4, stride, padding, 1, groups, np.zeros(weight[0]))


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (conv_2d((4, 2, 3, 2)), (4, 4, 4)), (conv_2d((4, 2, 1, 5)), (4, 6, 1)),
        (conv_2d((4, 2, 3, 3), stride=2, padding="same"), (4, 3, 3)), (conv_2d((4, 1, 3, 2), groups=2), (4, 4, 4)),
    ],
)  # fmt: skip
def test_shapes_that_nir_gets_wrong_are_told_and_computed(node: nir.Conv2d, shape: tuple[int, ...], tmp_path: Path) -> None:
    ones = np.ones(shape)
    node.input_shape = (6, 5)
    graph = chain((2, 6, 5), node, nir.LIF(ones * 4 * DT, ones, ones * 0, ones, ones * 0), made=shape)
    found = inspect(stored(tmp_path / "odd.nir", graph), dt=DT)
    assert found.readable
    assert next(layer.shape for layer in found.layers if layer.name == "l0") == shape
    assert [item.where for item in found.findings if item.code == "SNX169"] == ["l0"]


def test_shapes_that_nir_gets_right_are_not_told(tmp_path: Path) -> None:
    ones = np.ones((4, 4, 4))
    node = conv_2d((4, 2, 3, 3))
    node.input_shape = (6, 6)
    graph = chain((2, 6, 6), node, nir.LIF(ones * 4 * DT, ones, ones * 0, ones, ones * 0), made=(4, 4, 4))
    assert codes(inspect(stored(tmp_path / "even.nir", graph), dt=DT), "note") == ["SNX171"]


def recurrent(nested: bool) -> nir.NIRGraph:
    """input -> fc -> neuron with recurrent weights -> output."""
    inner = {"n": cuba(), "w": nir.Linear(np.eye(3))}
    loop = [("n", "w"), ("w", "n")]
    nodes = {"input": nir.Input(np.array([2])), "fc": nir.Linear(np.ones((3, 2))), "output": nir.Output(np.array([3]))}
    if not nested:
        edges = [("input", "fc"), ("fc", "n"), *loop, ("n", "output")]
        return nir.NIRGraph(nodes | inner, edges, metadata={}, type_check=False)
    inner |= {"in": nir.Input(np.array([3])), "out": nir.Output(np.array([3]))}
    nodes["g"] = nir.NIRGraph(inner, [("in", "n"), *loop, ("n", "out")], metadata={}, type_check=False)
    return nir.NIRGraph(nodes, [("input", "fc"), ("fc", "g"), ("g", "output")], metadata={}, type_check=False)


@pytest.mark.parametrize("nested", [False, True])
def test_a_loop_is_found_flat_and_nested(nested: bool, tmp_path: Path) -> None:
    found = inspect(stored(tmp_path / "loop.nir", recurrent(nested)), dt=DT)
    prefix = "g." if nested else ""
    loop = (f"{prefix}n", (f"{prefix}w",), f"{prefix}n", "g" if nested else "")
    assert [(item.source, item.path, item.target, item.within) for item in found.loops] == [loop]
    assert found.readable


def test_an_edge_that_stands_twice_is_refused(tmp_path: Path) -> None:
    graph = chain((2,), nir.Linear(np.ones((3, 2))), lif())
    graph.edges.append(graph.edges[1])
    found = inspect(stored(tmp_path / "twice.nir", graph), dt=DT)
    assert "SNX104" in codes(found)


def test_taus_without_a_unit_are_asked_about(tmp_path: Path) -> None:
    path = stored(tmp_path / "steps.nir", chain((2,), nir.Linear(np.ones((3, 2))), lif(tau=8.0)))
    found = inspect(path)
    assert codes(found) == ["SNX167"]
    assert [step.dt for step in found.provenance.candidates] == [1.0]
    assert inspect(path, dt=1.0).readable
    assert codes(inspect(path, dt=1e-9)) == ["SNX266"]


def test_decays_off_the_grid_are_found_once_the_step_is_known(tmp_path: Path) -> None:
    path = stored(tmp_path / "off.nir", chain((2,), nir.Linear(np.ones((3, 2))), lif(tau=10 * DT)))
    assert codes(inspect(path)) == ["SNX167"]
    assert codes(inspect(path, dt=DT)) == ["SNX241"]
    assert inspect(path, dt=DT, round_decays=True).readable


def test_what_is_stated_against_the_file_is_told() -> None:
    found = inspect(FIXTURES / "spikingjelly_cuba.nir", dt=1e-5, reset="subtract")
    assert [item.what.split(" is not")[0] for item in found.findings if item.code == "SNX172"] == [
        "--dt 1e-05",
        "--reset subtract",
    ]
    assert found.dt == 1e-5


def test_a_contract_states_everything(tmp_path: Path) -> None:
    path = nir_io.write(read(dense_net(), (4,)), tmp_path / "ours.nir")
    found = inspect(path)
    assert (found.contract, found.dt, found.reset, found.steps, found.readable) == (True, DT, "zero", 8, True)
    assert found.provenance.writer == "snn-export"
    assert inspect(path, dt=DT, steps=8, reset="zero").readable
    assert codes(inspect(path, dt=1e-4)) == ["SNX172"]
    assert codes(inspect(path, steps=9)) == ["SNX172"]
    assert codes(inspect(path, reset="subtract")) == ["SNX172"]


@pytest.mark.parametrize(
    ("key", "value", "code"), [("v_threshold", np.nan, "SNX262"), ("tau", -1.0, "SNX266"), ("tau", 0.0, "SNX266")]
)
def test_constants_that_cannot_be_are_findings(key: str, value: float, code: str, tmp_path: Path) -> None:
    node = lif()
    getattr(node, key)[0] = value
    found = inspect(stored(tmp_path / "bad.nir", chain((2,), nir.Linear(np.ones((3, 2))), node)), dt=DT)
    assert code in codes(found)


def test_numbers_that_are_none_end_the_inspection(tmp_path: Path) -> None:
    graph = chain((2,), nir.Linear(np.full((3, 2), np.nan)), lif())
    found = inspect(stored(tmp_path / "nan.nir", graph))
    assert codes(found) == ["SNX129"]
    with pytest.raises(UserError, match="SNX129"):
        snn_export.from_nir(graph, steps=3)


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan, np.inf])
def test_a_step_that_is_none_is_refused(dt: float) -> None:
    with pytest.raises(UserError, match="SNX109"):
        inspect(FIXTURES / "norse_cnn.nir", dt=dt)


@pytest.mark.parametrize(
    ("shape", "code"), [((2,), []), ((1, 2), ["SNX289"]), ((1, 1, 2), ["SNX289"]), ((2, 2), ["SNX206"]), ((1, 3), ["SNX206"])]
)
def test_an_input_with_a_batch_is_told_as_such(shape: tuple[int, ...], code: list[str], tmp_path: Path) -> None:
    path = stored(tmp_path / "batch.nir", chain(shape, nir.Linear(np.ones((3, 2))), lif()))
    assert codes(inspect(path, dt=DT)) == code
