"""lava-dl's ``.net`` files: what is read, what is refused, what is written; ``test_netx_parity`` shows what netx makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

import snn_export
from snn_export.export import interpreter, netx_io, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.netx_layers import NetFile, NetLayer, NetNeuron, loaded_weights, write_file
from snn_export.export.netx_reader import DEFAULT_STEPS
from snn_export.models.arithmetic import THRESHOLD_MAX
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.networks import with_real_parameters
from tests.netx_networks import WISHES, as_deployment, random_net

SHARED = Path(os.environ.get("SNN_EXPORT_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def codes(error: UserError) -> list[str]:
    return [finding.code for finding in error.diagnostics]


def slayer_dense(group: h5py.Group, weight: np.ndarray, **neuron: Any) -> None:
    """A dense layer with the fields, types and shapes that slayer's ``export_hdf5`` writes."""
    group.create_dataset("type", (1,), "S10", ["dense".encode("ascii", "ignore")])
    group.create_dataset("shape", data=np.array([len(weight)]))
    group.create_dataset("inFeatures", data=weight.shape[1])
    group.create_dataset("outFeatures", data=weight.shape[0])
    group.create_dataset("weight", data=weight.astype(np.float32))
    settings = {"iDecay": 1638, "vDecay": 410, "vThMant": 38, "refDelay": 1, "gradedSpike": False, "type": "CUBA", **neuron}
    for key, value in settings.items():
        group.create_dataset(f"neuron/{key}", data=value)


@pytest.fixture
def slayer_file(tmp_path: Path) -> Path:
    path, rng = tmp_path / "network.net", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        slayer_dense(file.create_group("layer/0"), even(rng, (4, 6)), type="LOIHI")
        slayer_dense(file.create_group("layer/1"), even(rng, (3, 4)), vThMant=(1 << 18) - 1, iDecay=4096)
        file["simulation/tSample"], file["simulation/Ts"] = 25, 1
    return path


def contents(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of a file."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        found[name] = np.asarray(item[()]).tolist() if isinstance(item, h5py.Dataset) else None
        found.update({f"{name}@{key}": value for key, value in item.attrs.items()})

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_a_file_of_slayer_is_read_as_netx_reads_it(slayer_file: Path) -> None:
    deployment = snn_export.load(slayer_file)
    first, last = deployment.layers
    assert (first, last) == ("dense0", "dense1")
    with h5py.File(slayer_file) as file:
        assert np.array_equal(deployment.synapses["dense0.weight"].weight, file["layer/0/weight"][()])
    assert deployment.populations[first].du == 1637 and deployment.populations[first].dv == 410
    assert deployment.populations[first].threshold == 38 and deployment.populations[first].scale == 64
    assert isinstance(deployment.graph.nodes[first], nir.CubaLIF)
    assert isinstance(deployment.graph.nodes[last], nir.LI), "its threshold is out of reach: a readout"
    assert deployment.populations[last].threshold == THRESHOLD_MAX
    assert deployment.contract.readout.rule == "membrane_last" and deployment.contract.readout.node == last
    assert deployment.contract.steps == 25 and deployment.contract.neurons[first].reset_interval == 25
    assert (deployment.contract.encoder.kind, deployment.contract.encoder.high) == ("events", 1)


def test_steps_may_be_given_and_have_a_default(slayer_file: Path) -> None:
    assert snn_export.load(slayer_file, steps=60).contract.steps == 60
    with h5py.File(slayer_file, "r+") as file:
        del file["simulation"]
    plain = snn_export.load(slayer_file)
    assert plain.contract.steps == DEFAULT_STEPS and plain.contract.neurons["dense0"].reset_interval == 0
    with pytest.raises(UserError, match="SNX127"):
        snn_export.load(slayer_file, steps=0)


def test_intels_oxford_network_gives_the_recorded_trace() -> None:
    path, recorded = SHARED / "netx_oxford" / "network.net", SHARED / "lava_dense_golden.npz"
    if not path.exists() or not recorded.exists():
        pytest.skip("lava-dl's Oxford network is not there; set SNN_EXPORT_SHARED to the folder that holds data/")
    with np.load(recorded, allow_pickle=False) as golden:
        inputs, spikes = golden["spikes_in"].T[:, None].astype(float), golden["spikes_out"].T[:, None]
    deployment = snn_export.load(path, steps=len(inputs))
    assert [deployment.shapes[name] for name in ("input", *deployment.layers)] == [(200,), (256,), (200,)]
    ran = interpreter.run(deployment, inputs, "int64")["dense0"].spikes
    assert np.count_nonzero(spikes[1:] != ran[:-1]) == 0 and ran.sum() > 1000


@pytest.mark.parametrize("wish", WISHES)
def test_writing_reading_and_writing_again_changes_nothing(wish: str, tmp_path: Path) -> None:
    deployment = as_deployment(random_net(np.random.default_rng([1, len(wish)]), WISHES[wish]), tmp_path)
    first, second = tmp_path / "first.net", tmp_path / "second.net"
    snn_export.save(deployment, first)
    again = snn_export.load(first)
    assert again.fingerprint == deployment.fingerprint
    snn_export.save(again, second)
    assert contents(first) == contents(second)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("wish", [name for name, wish in WISHES.items() if not wish.host])
def test_a_network_of_lava_dl_becomes_a_nir_file(wish: str, tmp_path: Path) -> None:
    deployment = as_deployment(random_net(np.random.default_rng(5), WISHES[wish]), tmp_path)
    nir_io.write(deployment, tmp_path / "net.nir")
    again = nir_io.read(tmp_path / "net.nir")
    assert again.fingerprint == deployment.fingerprint
    inputs = np.random.default_rng(0).integers(0, 2, (again.contract.steps, 2, *again.input_shape)).astype(float)
    ran, want = interpreter.run(again, inputs, "int64"), interpreter.run(deployment, inputs, "int64")
    assert all(np.array_equal(ran[name].membrane, want[name].membrane) for name in ran)


def test_a_trained_networks_names_scales_levels_and_readout_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    first = LayerPlan(
        "hidden", even(rng, (6, 5)), dv=300, threshold=90, bias=np.array([3, -2, 0, 1, 4095, -4096]), bias_exponent=6
    )
    deployment = with_real_parameters(
        deployment_from(Plan((5,), (first, LayerPlan("out", even(rng, (3, 6)), "hidden", dv=20)), steps=7, low=0, high=15))
    )
    path = snn_export.save(deployment, tmp_path / "named.net")
    again = snn_export.load(path)
    assert again.layers == deployment.layers and again.contract.encoder == deployment.contract.encoder
    assert again.populations["hidden"] == deployment.populations["hidden"]
    inputs = rng.integers(0, 16, (4, 5)).astype(float)
    for name, want in interpreter.run(deployment, inputs, "int64").items():
        assert np.array_equal(interpreter.run(again, inputs, "int64")[name].membrane, want.membrane)


def test_delays_stand_behind_the_weights_in_seconds_and_a_loop_has_one_step_more(tmp_path: Path) -> None:
    delay, weight = np.array([2, 0, 62]), np.diag([254, -256, 2])
    neuron = NetNeuron(4096, 1, 1)
    net = NetFile((NetLayer("dense_rec", (3,), weight, weight, delay=delay, neuron=neuron),), 8)
    deployment = as_deployment(net, tmp_path)
    assert np.allclose(deployment.graph.nodes["dense_rec0.delay"].delay, delay * 1e-3)
    forward, loop = sorted(deployment.wires["dense_rec0"], key=lambda wire: wire.recurrent)
    assert np.array_equal(forward.after, delay) and np.array_equal(loop.after + loop.before, delay + 1)


def test_delays_of_single_synapses_are_split_where_they_are_sums(tmp_path: Path) -> None:
    neuron, weight = NetNeuron(4096, 1, 9), even(np.random.default_rng(1), (3, 4))
    delay = np.array([[0], [3], [1]]) + np.array([[2, 0, 5, 1]])
    deployment = as_deployment(NetFile((NetLayer("dense", (3,), weight, delay=delay, neuron=neuron),)), tmp_path)
    (wire,) = deployment.wires["dense0"]
    assert np.array_equal(wire.after[:, None] + wire.before[None], delay)
    with pytest.raises(UserError) as caught:
        as_deployment(NetFile((NetLayer("dense", (3,), weight, delay=delay * (delay > 1), neuron=neuron),)), tmp_path)
    assert codes(caught.value) == ["SNX125"]


def test_odd_weights_of_mixed_signs_run_as_netx_runs_them(tmp_path: Path) -> None:
    weight = np.array([[3, -127], [127, 1]])
    deployment = as_deployment(NetFile((NetLayer("dense", (2,), weight, neuron=NetNeuron(4096, 9, 5)),)), tmp_path)
    synapse = deployment.synapses["dense0.weight"]
    assert np.array_equal(synapse.weight, 2 * weight) and synapse.weight_exponent == -1
    drive = interpreter.synaptic_drive(deployment, "dense0", {"input": np.array([[[1, 1]]])})
    assert drive.ravel().tolist() == [-124, 128]
    with h5py.File(netx_io.write(deployment, tmp_path / "odd.net")) as file:
        assert np.array_equal(file["layer/0/weight"][()], weight)


def test_sources_that_always_fire_are_a_bias_of_the_current(tmp_path: Path) -> None:
    """In the first layer they are inputs, in the second neurons of the first, which the network read does not have."""
    deployment = as_deployment(random_net(np.random.default_rng(3), WISHES["always-on"]), tmp_path)
    assert all(deployment.current_bias(name).any() for name in deployment.layers)
    with h5py.File(snn_export.save(deployment, tmp_path / "axons.net")) as file:
        first, second = file["layer/0"], file["layer/1"]
        extra = first["weight"].shape[1] - deployment.input_shape[0]
        relays = first["weight"].shape[0] - deployment.shapes[deployment.layers[0]][0]
        assert (extra, relays) == (first.attrs["always_on"], second.attrs["always_on"]) and min(extra, relays) > 0
        assert np.array_equal(first["weight"][:-relays, -extra:].sum(axis=1), deployment.current_bias("dense0"))
        assert not first["weight"][-relays:].any() and np.all(first["bias"][-relays:] == 4095)


def test_an_input_layer_with_neurons_is_a_bias_that_the_host_computes(tmp_path: Path) -> None:
    layers = (
        NetLayer("input", (3,), np.array([64]), bias=np.array([10]), neuron=NetNeuron(1638, 500, 90)),
        NetLayer("dense", (2,), np.array([[2, -4, 8], [0, 6, 2]]), neuron=NetNeuron(4096, 1, THRESHOLD_MAX)),
    )
    deployment = as_deployment(NetFile(layers, 6), tmp_path)
    assert deployment.contract.encoder.kind == "bias"
    activity = interpreter.run(deployment, np.array([[0.0, 0.5, 1.0]]), "int64")["input0"]
    assert activity.membrane[0, 0].tolist() == [10 << 6, 42 << 6, 74 << 6]  # (64 x + 10) << 6
    assert not activity.current.any(), "netx drives the membrane, not the current"


# --- what netx makes of weights ---------------------------------------------------------------------------------------

LOADED = [
    ([0, 0], None), ([1, 2], [1, 2]), ([255, 1], [255, 1]), ([256, 1], None), ([-1, -1], [0, 0]), ([-2, -3], [-2, -3]),
    ([-256, -1], [-255, -1]), ([0, -128], [0, -64]), ([0, -64], [0, -32]), ([0, -100], [0, -100]), ([255, -1], [254, -1]),
    ([253, -1], [253, -1]), ([254, -256], [254, -256]), ([300, -2], [254, -2]), ([-300, -2], None), ([64, -128], [64, -128]),
]  # fmt: skip
"""Seen in netx 0.6.0 and lava-nc 0.10.0: netx.utils.optimize_weight_bits, then Dense's clip_weights and truncate_weights."""


@pytest.mark.parametrize(("stated", "runs"), LOADED)
def test_what_lava_computes_with_after_netx_has_loaded_it(stated: list[int], runs: list[int] | None) -> None:
    found = loaded_weights([np.array([stated])])
    assert (None if found is None else found[0][0].tolist()) == runs


def test_both_matrices_of_a_recurrent_layer_are_scaled_together() -> None:
    found = loaded_weights([np.array([[2, 4]]), np.array([[0, -128]])])
    assert found is not None and found[0].tolist() == [[2, 4]]
    assert found[1].tolist() == [[0, -127]], "shifted with its partner, then clipped as a matrix of one sign"


# --- refusals -----------------------------------------------------------------------------------------------------------

Change = Callable[[h5py.File], None]


def exchanged(key: str, value: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = value

    return change


def added(key: str, value: Any) -> Change:
    return lambda file: file.__setitem__(key, value)


REFUSED: dict[str, tuple[Change, str]] = {
    "pooling": (exchanged("layer/0/type", b"pool"), "SNX125"),
    "sigma-delta": (exchanged("layer/0/neuron/type", b"SDNN"), "SNX125"),
    "refractory time": (exchanged("layer/0/neuron/refDelay", 3), "SNX125"),
    "graded spikes": (exchanged("layer/0/neuron/gradedSpike", True), "SNX125"),
    "normalisation exponent": (added("layer/0/neuron/weight_exp", 2), "SNX125"),
    "decay per neuron": (exchanged("layer/0/neuron/vDecay", [1, 2, 3, 4]), "SNX125"),
    "no current kept": (exchanged("layer/0/neuron/iDecay", 0), "SNX126"),
    "no membrane kept": (exchanged("layer/0/neuron/vDecay", 4096), "SNX126"),
    "threshold of 18 bits": (exchanged("layer/0/neuron/vThMant", 1 << 17), "SNX126"),
    "fraction": (exchanged("layer/0/weight", np.full((4, 6), 0.5)), "SNX126"),
    "not finite": (exchanged("layer/0/weight", np.full((4, 6), np.nan)), "SNX126"),
    "nine bits": (exchanged("layer/0/weight", np.full((4, 6), 300.0)), "SNX126"),
    "odd and large": (exchanged("layer/0/weight", np.array([[129.0, -3, 0, 0, 0, 0]] * 4)), "SNX126"),
    "lost by netx": (exchanged("layer/0/weight", np.array([[0.0, -128, 0, 0, 0, 0]] * 4)), "SNX126"),
    "bias of 14 bits": (added("layer/0/bias", np.array([0, 0, 0, 4096.0])), "SNX126"),
    "long delay": (added("layer/0/delay", np.array([0, 0, 0, 63.0])), "SNX125"),
    "unknown field": (added("layer/0/comment", 1.0), "SNX128"),
    "flatten behind a vector": (exchanged("layer/0/type", b"flatten"), "SNX128"),
    "sizes that do not fit": (exchanged("layer/1/weight", np.ones((3, 5))), "SNX125"),
    "another shape": (exchanged("layer/0/shape", [5]), "SNX124"),
    "no type": (lambda file: file.__delitem__("layer/0/type"), "SNX124"),
    "no weight": (lambda file: file.__delitem__("layer/0/weight"), "SNX124"),
    "a gap": (lambda file: file.move("layer/1", "layer/2"), "SNX124"),
    "text for a number": (exchanged("layer/0/neuron/vDecay", b"fast"), "SNX124"),
    "a group for a number": (lambda file: (file.__delitem__("layer/0/weight"), file.create_group("layer/0/weight")), "SNX124"),
    "another file": (lambda file: file.__setitem__("layer/0/bias", h5py.ExternalLink("/etc/hostname", "x")), "SNX102"),
    "terabytes": (lambda file: file.create_dataset("layer/0/bias", (1 << 40,), "f4", chunks=True), "SNX103"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_netx_would_not_run_as_stated_is_refused(name: str, slayer_file: Path) -> None:
    change, code = REFUSED[name]
    with h5py.File(slayer_file, "r+") as file:
        change(file)
    with pytest.raises(UserError) as caught:
        snn_export.load(slayer_file)
    assert codes(caught.value)[0] == code
    assert all(finding.fix and finding.why for finding in caught.value.diagnostics)


def test_everything_wrong_with_a_file_is_said_at_once(slayer_file: Path) -> None:
    with h5py.File(slayer_file, "r+") as file:
        for key, value in (("layer/0/neuron/refDelay", 2), ("layer/1/neuron/vDecay", [1, 2])):
            exchanged(key, value)(file)
        file["layer/1/note"] = 1
    with pytest.raises(UserError) as caught:
        snn_export.load(slayer_file)
    assert codes(caught.value) == ["SNX125", "SNX128", "SNX125"]


def test_fields_that_mean_nothing_may_be_named(slayer_file: Path) -> None:
    with h5py.File(slayer_file, "r+") as file:
        file["layer/1/note"] = 1
    assert snn_export.load(slayer_file, ignore=("note",)).layers == ("dense0", "dense1")


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "flipped"])
def test_damaged_files_are_errors_of_the_user(damage: str, slayer_file: Path) -> None:
    data = bytearray(slayer_file.read_bytes())
    if damage == "missing":
        slayer_file.unlink()
    elif damage == "text":
        slayer_file.write_text("a network")
    elif damage == "cut":
        slayer_file.write_bytes(data[: len(data) // 2])
    else:
        for place in range(700, len(data), 97):
            data[place] ^= 0xFF
        slayer_file.write_bytes(data)
    with pytest.raises(UserError, match="SNX1"):
        snn_export.load(slayer_file)


def test_a_convolution_without_an_input_layer_needs_the_shape(tmp_path: Path) -> None:
    net = random_net(np.random.default_rng(4), WISHES["conv"])
    path = tmp_path / "conv.net"
    write_file(NetFile(net.layers[1:], 5), path)
    with pytest.raises(UserError, match="input_shape=") as caught:
        snn_export.load(path)
    assert codes(caught.value) == ["SNX127"]
    assert snn_export.load(path, input_shape=(2, 9, 6)).input_shape == (2, 9, 6)


@pytest.mark.parametrize("size", [-1, 0, 1 << 20])
def test_a_map_that_no_memory_holds_is_refused_before_it_is_made(size: int, tmp_path: Path) -> None:
    kernel = NetLayer("conv", (2, size, size), np.full((2, 2, 1, 1), 2), neuron=NetNeuron(4096, 1, 5))
    with pytest.raises(UserError) as caught:
        as_deployment(NetFile((NetLayer("input", (2, size, size)), kernel)), tmp_path)
    assert codes(caught.value) == ["SNX124"]


def test_options_for_net_files_are_not_for_nir_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SNX127"):
        snn_export.load(tmp_path / "net.nir", steps=4)


# --- what cannot be written -----------------------------------------------------------------------------------------


def plan(*layers: LayerPlan, shape: tuple[int, ...] = (3,)) -> Deployment:
    return deployment_from(Plan(shape, layers, steps=4))


def dense(name: str = "a", source: str = "input", **changes: Any) -> LayerPlan:
    return replace(LayerPlan(name, even(np.random.default_rng(3), (3, 3)), source, dv=9, threshold=50), **changes)


def with_spec(**changes: Any) -> Deployment:
    found = plan(dense())
    spec = replace(found.contract.neurons["a"], **changes)
    return found.replace(contract=found.contract.model_copy(update={"neurons": {"a": spec}}))


def with_current_bias(shape: tuple[int, ...] = (3,), threshold: int = 50) -> Deployment:
    """A bias of the current in the second of two layers, or in the only one where the input is a map."""
    layers = (dense(threshold=threshold), dense("b", "a")) if len(shape) == 1 else (dense(weight=np.ones((3, 8)) * 2),)
    found, name = plan(*layers, shape=shape), f"{layers[-1].name}.weight"
    synapse = replace(found.synapses[name], current_bias=np.array([2, 0, -4], np.int32))
    return found.replace(synapses={**found.synapses, name: synapse})


UNWRITABLE: dict[str, tuple[Callable[[], Deployment], str]] = {
    "two layers side by side": (lambda: plan(dense(), dense("b")), "SNX250"),
    "readout in the middle": (lambda: deployment_from(Plan((3,), (dense(), dense("b", "a")), readout="a")), "SNX250"),
    "uneven padding": (
        lambda: plan(LayerPlan("a", even(np.random.default_rng(0), (2, 2, 2, 2)), padding="same"), shape=(2, 5, 5)),
        "SNX251",
    ),
    "bias exponent": (lambda: plan(dense(bias=np.array([1, 0, 0]), bias_exponent=3)), "SNX252"),
    "large bias": (lambda: plan(dense(bias=np.array([4095, 0, 0]), bias_exponent=7)), "SNX252"),
    "weight exponent": (lambda: plan(dense(weight_exponent=2)), "SNX253"),
    "zeros": (lambda: plan(dense(weight=np.zeros((3, 3)))), "SNX253"),
    "lowest weight a power of two": (lambda: plan(dense(weight=np.diag([-64, -2, 0]))), "SNX253"),
    "bias of the current on maps": (lambda: with_current_bias(shape=(2, 2, 2)), "SNX257"),
    "bias of the current behind a high threshold": (lambda: with_current_bias(threshold=4095), "SNX257"),
    "subtracting reset": (lambda: with_spec(reset="subtract"), "SNX203"),
    "reset at another step": (lambda: with_spec(reset_interval=4, reset_offset=1), "SNX256"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_the_format_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    make, code = UNWRITABLE[name]
    with pytest.raises(UserError) as caught:
        snn_export.save(make(), tmp_path / "out.net")
    assert codes(caught.value) == [code]
    assert not list(tmp_path.iterdir())


def delayed(deployment: Deployment, source: str, target: str, steps: int) -> Deployment:
    """The deployment with a Delay node on one edge."""
    nodes = {**deployment.graph.nodes, "wait": nir.Delay(np.full(deployment.shapes[source], steps * 1e-3))}
    edges = [edge for edge in deployment.graph.edges if edge != (source, target)] + [(source, "wait"), ("wait", target)]
    return deployment.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


def test_delays_that_netx_does_not_have_are_refused(tmp_path: Path) -> None:
    loop = NetLayer("dense_rec", (3,), np.diag([254, -256, 2]), np.diag([254, -256, 2]), neuron=NetNeuron(4096, 5, 9))
    recurrent = as_deployment(NetFile((loop,), 4), tmp_path)
    kernel = plan(LayerPlan("a", even(np.random.default_rng(0), (2, 2, 2, 2))), shape=(2, 5, 5))
    for wrong in (
        delayed(recurrent, "dense_rec0.weight", "dense_rec0", 2),
        delayed(kernel, "a.weight", "a", 1),
        delayed(plan(dense()), "a.weight", "a", 63),
    ):
        with pytest.raises(UserError) as caught:
            snn_export.save(wrong, tmp_path / "out.net")
        assert codes(caught.value) == ["SNX254"]
    with h5py.File(snn_export.save(delayed(plan(dense()), "input", "a.weight", 62), tmp_path / "out.net")) as file:
        assert file["layer/0/delay"][()].tolist() == [62] * 3


def test_a_host_that_does_more_than_scale_is_refused(tmp_path: Path) -> None:
    found = plan(dense(), dense("b", "a"))
    encoder = replace(found.contract.encoder, kind="bias")
    hosted = found.replace(
        contract=found.contract.model_copy(update={"encoder": encoder}), synapses={"b.weight": found.synapses["b.weight"]}
    )
    with pytest.raises(UserError) as caught:
        snn_export.save(hosted, tmp_path / "out.net")
    assert codes(caught.value) == ["SNX255"]


def test_refusals_of_several_layers_come_together(tmp_path: Path) -> None:
    wrong = plan(dense(weight_exponent=2, bias=np.array([1, 0, 0])), dense("b", "a", bias=np.array([1, 2, 3]), bias_exponent=1))
    with pytest.raises(UserError) as caught:
        snn_export.save(wrong, tmp_path / "out.net")
    assert codes(caught.value) == ["SNX252", "SNX253", "SNX252"]


def test_exponents_that_change_nothing_are_written(tmp_path: Path) -> None:
    weight = np.diag([16, -8, 4]) * 4
    deployment = plan(dense(weight=weight, weight_exponent=1, bias=np.array([32, -64, 0]), bias_exponent=1))
    with h5py.File(snn_export.save(deployment, tmp_path / "out.net")) as file:
        assert np.array_equal(file["layer/0/weight"][()], 2 * weight)
        assert file["layer/0/bias"][()].tolist() == [1, -2, 0]


def test_the_format_is_chosen_by_the_ending_or_by_name(tmp_path: Path) -> None:
    deployment = with_real_parameters(plan(dense()))
    assert h5py.is_hdf5(snn_export.save(deployment, tmp_path / "a.bin", format="net"))
    assert "layer" in h5py.File(tmp_path / "a.bin")
    snn_export.save(deployment, tmp_path / "a.net", format="nir")
    assert "node" in h5py.File(tmp_path / "a.net")
    with pytest.raises(UserError, match="SNX006"):
        snn_export.save(deployment, tmp_path / "b", format="pb")  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="SNX123"):
        snn_export.save(plan(dense()), tmp_path / "file" / "out.net")
