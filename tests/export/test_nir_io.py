"""A file reads back as the network it was written from, or is refused: never read wrongly, never a foreign traceback."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_export.export import hdf5_guard, nir_io
from snn_export.export.deployment import Deployment
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.networks import conv_net, dense_net, quantised, read, with_real_parameters

FILES = ("101", "102", "103", "104", "105", "106", "107", "108", "109")
SAFE = {*(f"SNX{code}" for code in FILES), "SNX201", "SNX204", "SNX205", "SNX206", "SNX207", "SNX209", "SNX244"}
INTEGER = "node/metadata/snn_export/integer"


def filtered() -> Deployment:
    """A graph with a CubaLIF, a convolution that is not square, biases and exponents."""
    rng = np.random.default_rng(0)
    layers = (
        LayerPlan("c", even(rng, (2, 1, 2, 3), 60), dv=512, threshold=300, bias=np.array([3, -4]), bias_exponent=2),
        LayerPlan("l", even(rng, (3, 8), 60), "c", dv=100, du=1000, threshold=200),
        LayerPlan("r", even(rng, (2, 3), 60), "l", dv=1),
    )
    return with_real_parameters(deployment_from(Plan((1, 3, 4), layers, 4, 0, 3)))


KINDS: dict[str, Callable[[], Deployment]] = {
    "float dense": lambda: read(dense_net(), (4,)),
    "float conv": lambda: read(conv_net(), (2, 9, 7)),
    "quantised dense": lambda: quantised(read(dense_net(), (4,))),
    "quantised conv": lambda: quantised(read(conv_net(), (2, 9, 7))),
    "filtered": filtered,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, Path]:
    """A deployment and its file; copy it to change it."""
    deployment = KINDS[request.param]()
    return deployment, nir_io.write(deployment, tmp_path_factory.mktemp("nir") / "net.nir")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, Path]:
    deployment = filtered()
    return deployment, nir_io.write(deployment, tmp_path_factory.mktemp("filtered") / "net.nir")


def copied(source: Path, folder: Path, *, alone: bool = False) -> Path:
    """The file, and its sidecar unless ``alone``, in another folder."""
    if not alone:
        shutil.copy(nir_io.sidecar(source), folder)
    return Path(shutil.copy(source, folder))


def refused(path: Path, code: str) -> str:
    with pytest.raises(UserError) as caught:
        nir_io.read(path)
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


def edit(path: Path, dataset: str, change: Callable[[Any], Any]) -> None:
    """Replace one dataset of a file by a changed value."""
    with h5py.File(path, "a") as stream:
        value = change(stream[dataset][()])
        del stream[dataset]
        stream[dataset] = value


def edit_contract(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the contract inside the file."""
    with h5py.File(path, "r") as stream:
        contract = json.loads(stream["node/metadata/snn_export/contract"][()])
    change(contract)
    edit(path, "node/metadata/snn_export/contract", lambda _: json.dumps(contract))


def test_written_and_read_is_the_same_network(kind: tuple[Deployment, Path]) -> None:
    deployment, path = kind
    again = nir_io.read(path)
    assert again.fingerprint == deployment.fingerprint
    assert again.contract == deployment.contract
    assert again.layers == deployment.layers
    assert sorted(again.synapses) == sorted(deployment.synapses)
    assert again.populations == deployment.populations
    for name, values in deployment.fold_magnitude.items():
        np.testing.assert_array_equal(again.fold_magnitude[name], values)


def test_fingerprint_changes_with_what_it_covers(written: tuple[Deployment, Path]) -> None:
    deployment, _ = written
    contract = deployment.contract
    lineage = contract.lineage.model_copy(update={"passes": ("other",)})
    same = deployment.replace(contract=contract.model_copy(update={"lineage": lineage}))
    assert same.fingerprint == deployment.fingerprint
    assert deployment.replace(contract=contract.model_copy(update={"steps": 5})).fingerprint != deployment.fingerprint
    synapse = deployment.synapses["l.weight"]
    bent = replace(synapse, weight=synapse.weight + np.int16(2))
    assert deployment.replace(synapses={**deployment.synapses, "l.weight": bent}).fingerprint != deployment.fingerprint


def test_nir_s_own_reader_gets_the_same_weights(kind: tuple[Deployment, Path]) -> None:
    deployment, path = kind
    graph = nir.read(path, type_check=False)
    assert set(graph.nodes) == set(deployment.graph.nodes)
    for name, node in deployment.graph.nodes.items():
        if hasattr(node, "weight"):
            np.testing.assert_array_equal(graph.nodes[name].weight, node.weight)


def test_missing_sidecar_is_no_error(kind: tuple[Deployment, Path], tmp_path: Path) -> None:
    deployment, path = kind
    assert nir_io.read(copied(path, tmp_path, alone=True)).fingerprint == deployment.fingerprint


@pytest.mark.parametrize("other", [name for name in KINDS if name != "filtered"])
def test_sidecar_of_another_network_is_refused(written: tuple[Deployment, Path], tmp_path: Path, other: str) -> None:
    path = copied(written[1], tmp_path)
    stranger = nir_io.write(KINDS[other](), tmp_path / "other.nir")
    nir_io.sidecar(stranger).replace(nir_io.sidecar(path))
    refused(path, "SNX105")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"contract": {}, "arrays": {}}', "\x00\xff"])
def test_damaged_sidecar_is_refused(written: tuple[Deployment, Path], tmp_path: Path, text: str) -> None:
    path = copied(written[1], tmp_path)
    nir_io.sidecar(path).write_bytes(text.encode("latin-1"))
    refused(path, "SNX105")


def test_sidecar_that_tells_another_contract_or_array_is_refused(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    path = copied(written[1], tmp_path)
    document = json.loads(nir_io.sidecar(path).read_text())
    for change in (lambda d: d["contract"].update(steps=9), lambda d: d["arrays"].pop("integer/l/threshold")):
        changed = json.loads(json.dumps(document))
        change(changed)
        nir_io.sidecar(path).write_text(json.dumps(changed))
        refused(path, "SNX105")


def bump(value: Any) -> Any:
    value = np.array(value)
    value.flat[0] += 2
    return value


@pytest.mark.parametrize(
    ("dataset", "code"),
    [
        ("node/nodes/c.weight/weight", "SNX106"), ("node/nodes/c.weight/bias", "SNX106"), ("node/nodes/l/v_threshold", "SNX106"),
        (f"{INTEGER}/l.weight/weight", "SNX106"), (f"{INTEGER}/c.weight/bias_mantissa", "SNX106"),
        (f"{INTEGER}/l/threshold", "SNX106"), (f"{INTEGER}/l/dv", "SNX106"), (f"{INTEGER}/l/du", "SNX106"),
        (f"{INTEGER}/c/bias_exponent", "SNX106"), (f"{INTEGER}/c.weight/weight_exponent", "SNX106"),
        (f"{INTEGER}/l/scale", "SNX101"), ("node/nodes/l/tau_mem", "SNX107"), ("node/nodes/l/tau_syn", "SNX107"),
        ("node/nodes/c/tau", "SNX107"), ("node/nodes/l/r", "SNX244"), ("node/nodes/l/w_in", "SNX244"),
        ("node/nodes/l/v_leak", "SNX106"), ("node/nodes/l/v_reset", "SNX201"),
    ],
)  # fmt: skip
def test_one_changed_parameter_is_refused(written: tuple[Deployment, Path], tmp_path: Path, dataset: str, code: str) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit(path, dataset, bump)
    refused(path, code)


def test_changed_float_weight_is_found_by_its_sidecar(tmp_path: Path) -> None:
    path = nir_io.write(read(dense_net(), (4,)), tmp_path / "net.nir")
    edit(path, "node/nodes/fc1/weight", bump)
    assert "fc1" in refused(path, "SNX105")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dataset", ["c.weight/weight", "c.weight/bias", "l/v_threshold", "c/r", "l/tau_mem"])
def test_parameters_that_are_no_numbers_are_refused(
    written: tuple[Deployment, Path], tmp_path: Path, dataset: str, value: float
) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit(path, f"node/nodes/{dataset}", lambda old: np.full_like(old, value))
    refused(path, "SNX101")


@pytest.mark.parametrize("dataset", ["c/r", "l/r", "l/w_in", "c/tau", "l/tau_syn"])
@pytest.mark.filterwarnings("error")
def test_constants_of_zero_are_refused(written: tuple[Deployment, Path], tmp_path: Path, dataset: str) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit(path, f"node/nodes/{dataset}", np.zeros_like)
    refused(path, "SNX107" if "tau" in dataset else "SNX106")


def test_file_without_a_contract_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.nir"
    nir.write(path, read(dense_net(), (4,)).graph)
    refused(path, "SNX108")


CONTRACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown key": lambda c: c.update(refractory=3),
    "unknown neuron key": lambda c: c["neurons"]["l"].update(refractory=3),
    "unknown encoder key": lambda c: c["encoder"].update(noise=1),
    "missing key": lambda c: c.pop("encoder"),
    "newer version": lambda c: c.update(version=2),
    "another order": lambda c: c.update(step_order=["integrate", "reset", "fire"]),
    "another comparison": lambda c: c.update(fire="v >= threshold"),
    "no steps": lambda c: c.update(steps=0),
    "dt": lambda c: c.update(dt=-1.0),
    "dt without end": lambda c: c.update(dt=float("inf")),
    "reset": lambda c: c["neurons"]["l"].update(reset="sideways"),
    "decay": lambda c: c["neurons"]["l"].update(dv=9999),
    "delay": lambda c: c["neurons"]["l"].update(reset_delay=-1),
    "gain": lambda c: c["encoder"].update(gain=0.0),
    "levels": lambda c: c["encoder"].update(low=5, high=-5),
    "readout": lambda c: c["readout"].update(node="ghost"),
    "weight bits": lambda c: c["quantisation"].update(weight_bits=16),
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_broken_contract_is_refused(written: tuple[Deployment, Path], tmp_path: Path, case: str) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit_contract(path, CONTRACTS[case])
    refused(path, "SNX109")


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", np.arange(3)])
def test_contract_that_is_no_contract_is_refused(written: tuple[Deployment, Path], tmp_path: Path, text: Any) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit(path, "node/metadata/snn_export/contract", lambda _: text)
    refused(path, "SNX109")


DISAGREEMENTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "latency": (lambda c: c["latency"].update(l=17), "SNX101"),
    "scale": (lambda c: c["quantisation"]["scale"].update(l=2.0), "SNX101"),
    "lost neuron": (lambda c: c["neurons"].pop("l"), "SNX101"),
    "extra neuron": (lambda c: c["neurons"].update(ghost=c["neurons"]["l"]), "SNX101"),
    "no longer quantised": (lambda c: c.update(quantisation=None), "SNX101"),
    "filter": (lambda c: c["neurons"]["c"].update(du=7), "SNX107"),
    "decay": (lambda c: c["neurons"]["c"].update(dv=7), "SNX107"),
    "silent": (lambda c: c["neurons"]["c"].update(spiking=False), "SNX107"),
    "gain": (lambda c: c["encoder"].update(gain=2.0), "SNX106"),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_contract_that_contradicts_its_graph_is_refused(written: tuple[Deployment, Path], tmp_path: Path, case: str) -> None:
    change, code = DISAGREEMENTS[case]
    path = copied(written[1], tmp_path, alone=True)
    edit_contract(path, change)
    refused(path, code)


@pytest.mark.parametrize("lost", ["l", "l.weight", "c.weight/weight", "l/threshold", "l/scale"])
def test_missing_integers_are_refused(written: tuple[Deployment, Path], tmp_path: Path, lost: str) -> None:
    path = copied(written[1], tmp_path, alone=True)
    with h5py.File(path, "a") as stream:
        del stream[f"{INTEGER}/{lost}"]
    refused(path, "SNX101")


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"this is text\n" * 20, b"\x89HDF\r\n\x1a\n", bytes(range(256)) * 9])
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.nir"
    path.write_bytes(content)
    refused(path, "SNX101")


def test_directory_and_missing_file_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "SNX101")
    refused(tmp_path / "ghost.nir", "SNX101")


def test_hdf5_without_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    with h5py.File(path, "w") as stream:
        stream["weights"] = np.ones(3)
    refused(path, "SNX101")


def test_unknown_node_type_is_refused(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    path = copied(written[1], tmp_path, alone=True)
    edit(path, "node/nodes/l/type", lambda _: "Exploit")
    assert "Exploit" in refused(path, "SNX101")


def read_or_refused(path: Path) -> Deployment | None:
    """The deployment, or None for a refusal with one of the codes for files and graphs; anything else fails the test."""
    try:
        return nir_io.read(path)
    except UserError as error:
        assert error.code in SAFE, error.code
        return None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(written: tuple[Deployment, Path], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(written[1].read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "net.nir"
    path.write_bytes(content)
    read_or_refused(path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 0.999))
def test_truncated_file_is_refused(written: tuple[Deployment, Path], tmp_path: Path, part: float) -> None:
    content = written[1].read_bytes()
    path = tmp_path / "net.nir"
    path.write_bytes(content[: int(part * len(content))])
    refused(path, "SNX101")


MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "empty": lambda _: np.zeros(0),
    "scalar": lambda _: np.float64(2.5),
    "text": lambda _: "hello",
    "shape": lambda _: np.ones((3, 1, 2)),
    "huge": lambda value: np.asarray(value, np.float64) * 1e30,
    "not a number": lambda value: np.asarray(value, np.float64) * np.nan,
}


@pytest.fixture
def _intact_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """h5py wrote these files, so no process of its own has to find out first whether reading them crashes."""
    monkeypatch.setattr(hdf5_guard, "probe", lambda path: None)


@pytest.mark.usefixtures("_intact_bytes")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_dataset_may_be_nonsense(written: tuple[Deployment, Path], tmp_path: Path, mutation: str) -> None:
    """One dataset after the other becomes something else: refused, or read where it says nothing (a bias of zeros, say)."""
    names: list[str] = []
    with h5py.File(written[1]) as stream:
        stream.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    refusals = 0
    for name in names:
        path = copied(written[1], tmp_path, alone=True)
        try:
            edit(path, name, MUTATIONS[mutation])
        except (ValueError, TypeError):
            continue  # text has no multiple
        refusals += read_or_refused(path) is None
    assert refusals > len(names) // 3


@pytest.mark.usefixtures("_intact_bytes")
def test_lost_groups_never_escape_as_another_error(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    names: list[str] = []
    with h5py.File(written[1]) as stream:
        stream.visit(names.append)
    for name in names:
        path = copied(written[1], tmp_path, alone=True)
        with h5py.File(path, "a") as stream:
            del stream[name]
        read_or_refused(path)


@pytest.mark.parametrize("link", [h5py.ExternalLink("secret.h5", "/data"), h5py.SoftLink("/version")])
def test_links_are_refused(written: tuple[Deployment, Path], tmp_path: Path, link: Any) -> None:
    path = copied(written[1], tmp_path, alone=True)
    with h5py.File(tmp_path / "secret.h5", "w") as stream:
        stream["data"] = np.ones(3)
    with h5py.File(path, "a") as stream:
        del stream["node/nodes/l.weight/weight"]
        stream["node/nodes/l.weight/weight"] = link
    refused(path, "SNX102")


def test_external_and_virtual_storage_are_refused(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    for kind in ("external", "virtual"):
        path = copied(written[1], tmp_path, alone=True)
        with h5py.File(path, "a") as stream:
            if kind == "external":
                stream.create_dataset("extra", (4,), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
            else:
                layout = h5py.VirtualLayout((3,), "f8")
                layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", (3,))
                stream.create_virtual_dataset("extra", layout)
        refused(path, "SNX102")


def test_group_inside_itself_is_refused(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    path = copied(written[1], tmp_path, alone=True)
    with h5py.File(path, "a") as stream:
        stream["node/again"] = stream["node"]
    refused(path, "SNX102")


def test_huge_declared_array_is_refused_before_it_is_read(written: tuple[Deployment, Path], tmp_path: Path) -> None:
    path = copied(written[1], tmp_path, alone=True)
    with h5py.File(path, "a") as stream:
        stream.create_dataset("node/nodes/bomb", (1 << 40,), "f8", chunks=(1 << 16,), compression="gzip")
    assert path.stat().st_size < 1 << 20
    refused(path, "SNX103")


def test_many_small_arrays_add_up(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:
        for index in range(5):
            stream[f"part{index}"] = np.zeros(100)
        hdf5_guard.check(tmp_path / "a.h5", stream, max_bytes=4000)
        with pytest.raises(UserError) as caught:
            hdf5_guard.check(tmp_path / "a.h5", stream, max_bytes=3999)
    assert caught.value.code == "SNX103"


@pytest.mark.parametrize("stop", [1, 2])
def test_interrupted_write_leaves_a_readable_file(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before the graph is exchanged, or between graph and sidecar: the old or the new network, never a mixture."""
    old, new = read(dense_net(0), (4,)), read(dense_net(1), (4,))
    path = nir_io.write(old, tmp_path / "net.nir")
    exchange, calls = Path.replace, []

    def replaced(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return exchange(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        with pytest.raises(KeyboardInterrupt):
            nir_io.write(new, path)
    assert nir_io.read(path).fingerprint == (old if stop == 1 else new).fingerprint
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


def test_write_that_fails_early_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = read(dense_net(0), (4,))
    path = nir_io.write(old, tmp_path / "net.nir")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(nir, "write", full)
        with pytest.raises(UserError, match="No space"):
            nir_io.write(read(dense_net(1), (4,)), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert nir_io.read(path).fingerprint == old.fingerprint


def test_a_file_on_which_hdf5_never_ends_is_refused(
    written: tuple[Deployment, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file can send the HDF5 library round in circles, where neither an exception nor Ctrl-C ends it."""
    path = copied(written[1], tmp_path, alone=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(hdf5_guard.probe, "__defaults__", (0.5,))
    assert "does not end" in refused(path, "SNX101")
    (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    assert "crashes" in refused(path, "SNX101")
