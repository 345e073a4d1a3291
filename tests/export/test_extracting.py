"""Parts of networks: driven by recorded spikes they do what they do in the whole network, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export import library
from snn_export.export import interpreter, nir_io
from snn_export.export.contract import FileReference, Lineage
from snn_export.export.deployment import Deployment, weights_in
from snn_export.export.extracting import cuts, extract, part_inputs, with_input_over_time
from snn_export.export.graph import input_node, latencies
from snn_export.export.narrowing import CannotNarrowError, choice, everything, kept_input, narrowed, with_flat_input
from snn_export.export.thinning import (
    biased_nodes,
    delays,
    during,
    weight_nodes,
    with_weights,
    without_bias,
    without_delay,
)
from snn_export.hardware_sims.loihi import rules
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, ReadoutSpec
from tests.bisect_networks import conv_plan, dense_plan
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs
from tests.networks import (
    conv_deployment,
    conv_net,
    delayed_net,
    dense_net,
    quantised,
    read,
    recurrent_net,
    residual_net,
    uniform,
    with_real_parameters,
)

NETS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "dense": (dense_net, (4,)),
    "conv": (conv_net, (2, 9, 7)),
    "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)),
    "delayed": (delayed_net, (6,)),
}


def parts_do_what_they_did(deployment: Deployment, inputs: Any, numbers: interpreter.Numbers) -> int:
    """Checks every cut of every layer; returns how many there were."""
    whole = interpreter.run(deployment, inputs, numbers)
    sent = {name: activity.sent for name, activity in whole.items()}
    count = 0
    for layer in deployment.layers:
        for cut in cuts(deployment, layer):
            part = extract(deployment, cut)
            found = interpreter.run(part, part_inputs(deployment, cut, inputs, sent), numbers)
            assert set(found) == set(cut.populations)
            assert part.contract.latency == latencies(part.graph, part.contract.dt)
            assert part.contract.readout.node == layer
            for name, activity in found.items():
                np.testing.assert_array_equal(activity.spikes, whole[name].spikes)
                np.testing.assert_array_equal(activity.membrane, whole[name].membrane)
                np.testing.assert_array_equal(activity.current, whole[name].current)
            count += 1
    return count


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_part_of_a_trained_network_float_and_quantised(name: str, seed: int) -> None:
    make, shape = NETS[name]
    rng = np.random.default_rng(seed)
    inputs = uniform(rng, 3, *shape)
    raw = read(make(seed), shape)
    ready = library.prepared(raw, inputs)
    on_grid = quantised(ready)
    assert parts_do_what_they_did(raw, inputs, "float64") >= len(raw.layers)
    assert parts_do_what_they_did(ready, inputs, "float64") >= len(ready.layers)
    assert parts_do_what_they_did(on_grid, inputs, "int64") >= len(on_grid.layers)
    assert parts_do_what_they_did(on_grid, inputs, "float64") >= len(on_grid.layers)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_part_of_random_integer_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng)
    assert parts_do_what_they_did(deployment, random_inputs(rng, deployment, 2), "int64") == 6


def looping() -> Deployment:
    """input -> a <-> b, b hears itself with a delay, c adds a and b."""
    rng = np.random.default_rng(4)
    weight = lambda out, given: even(rng, (out, given), 60)
    a = LayerPlan("a", weight(5, 4), threshold=90, dv=300, more=(SynapsePlan(weight(5, 6), "b", before=2),))
    b = LayerPlan("b", weight(6, 5), "a", threshold=80, dv=100, more=(SynapsePlan(weight(6, 6), "b", before=2),))
    c = LayerPlan("c", weight(3, 5), "a", threshold=70, dv=200, more=(SynapsePlan(weight(3, 6), "b", after=1),))
    return deployment_from(Plan((4,), (a, b, c), steps=12, high=7))


def test_a_loop_stays_together_and_several_sources_lead_further_back() -> None:
    deployment = looping()
    inputs = random_inputs(np.random.default_rng(0), deployment, 3)
    assert [cut.populations for cut in cuts(deployment, "b")] == [("a", "b")]
    assert [(cut.source, cut.populations) for cut in cuts(deployment, "c")] == [("input", ("a", "b", "c"))]
    assert parts_do_what_they_did(deployment, inputs, "int64") == 3


def test_paths_that_are_added_are_cut_where_they_part() -> None:
    deployment = read(residual_net(), (2, 8, 6))
    smallest = cuts(deployment, "lif1")[0]
    assert smallest.source == "stem.lif"
    assert smallest.populations == ("block1.main.lif", "lif1")


@pytest.mark.parametrize("kind", ["direct", "events", "rate", "bias"])
def test_a_part_behind_the_input_keeps_its_encoder_and_one_behind_a_population_takes_spikes(kind: str) -> None:
    plan = dense_plan(np.random.default_rng(0), sizes=(6, 9, 7), steps=10)
    encoder = EncoderSpec(kind, full_scale=1.0) if kind in ("rate", "bias") else None  # type: ignore[arg-type]
    if kind == "bias":
        encoder = EncoderSpec("bias", gain=1.0, low=0, high=1)
    deployment = deployment_from(Plan(plan.input_shape, plan.layers, 10, 0, 3, kind == "events", encoder=encoder))
    rng = np.random.default_rng(1)
    inputs = rng.random((4, 6)) if kind in ("rate", "bias") else random_inputs(rng, deployment, 4)
    assert parts_do_what_they_did(deployment, inputs, "int64") == 3
    first, second = (extract(deployment, cuts(deployment, layer)[0]) for layer in deployment.layers)
    assert first.contract.encoder == deployment.contract.encoder
    assert second.contract.encoder == EncoderSpec("events", gain=1.0, low=0, high=1)
    assert first.contract.readout == ReadoutSpec("lif1", "spike_count")
    assert second.contract.readout.rule == deployment.contract.readout.rule


@pytest.mark.parametrize("kind", ["direct", "rate"])
def test_an_input_written_out_over_time_is_the_same_input(kind: str) -> None:
    plan = dense_plan(np.random.default_rng(0), sizes=(6, 9, 7), steps=10)
    deployment = deployment_from(Plan((6,), plan.layers, 10, 0, 3, encoder=EncoderSpec("rate") if kind == "rate" else None))
    inputs = np.random.default_rng(1).random((4, 6)) if kind == "rate" else random_inputs(np.random.default_rng(1), deployment, 4)
    written, over_time = with_input_over_time(deployment, inputs)
    assert written.contract.encoder.kind == "events"
    assert over_time.shape == (10, 4, 6)
    before, after = interpreter.run(deployment, inputs, "int64"), interpreter.run(written, over_time, "int64")
    for name, activity in before.items():
        np.testing.assert_array_equal(activity.membrane, after[name].membrane)


def test_a_part_is_a_file_like_any_other(tmp_path: Any) -> None:
    deployment = with_real_parameters(deployment_from(conv_plan(np.random.default_rng(0))))
    lineage = Lineage(passes=("quantize",), files={"student": FileReference(path="student.pt", sha256="0" * 64)})
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"lineage": lineage}))
    part = extract(deployment, cuts(deployment, "fc1")[0])
    again = nir_io.read(nir_io.write(part, tmp_path / "part.nir"))
    assert again.fingerprint == part.fingerprint
    assert again.contract.lineage.passes == ("quantize", "extract")
    assert again.contract.lineage.parents[-1] == deployment.fingerprint
    assert again.contract.lineage.files == {}


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="SNX512"):
        cuts(looping(), "d")


# --- fewer neurons ---------------------------------------------------------------------------------------------------


def narrow_population(deployment: Deployment, name: str, kept: list[int]) -> Deployment:
    shape = deployment.shapes[name]
    return narrowed(deployment, choice(deployment, name, (np.array(kept), *everything(shape)[1:])))


@pytest.mark.parametrize("name", ["lif2", "lif5"])
def test_the_neurons_that_stay_do_what_they_did_up_to_the_first_layer_that_lost_some(name: str) -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(0)))
    inputs = random_inputs(np.random.default_rng(1), deployment, 3)
    less = narrow_population(deployment, name, [1, 4, 7])
    assert less.shapes[name] == (3,)
    assert rules.check(less) == []
    before, after = interpreter.run(deployment, inputs, "int64"), interpreter.run(less, inputs, "int64")
    np.testing.assert_array_equal(after[name].membrane, before[name].membrane[:, :, [1, 4, 7]])


def test_silent_inputs_and_neurons_may_go_without_a_change() -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(0)))
    inputs = random_inputs(np.random.default_rng(1), deployment, 3)
    inputs[:, 10:] = 0
    kept = (np.arange(10),)
    less = narrowed(deployment, {input_node(deployment.graph): kept})
    before = interpreter.run(deployment, inputs, "int64")
    after = interpreter.run(less, kept_input(inputs[None], kept), "int64")
    for name, activity in before.items():
        np.testing.assert_array_equal(activity.membrane, after[name].membrane)
    silent = before["lif2"].spikes.any(axis=(0, 1))
    fewer = narrow_population(deployment, "lif2", [int(index) for index in np.flatnonzero(silent)])
    np.testing.assert_array_equal(interpreter.run(fewer, inputs, "int64")["lif5"].membrane, before["lif5"].membrane)


def test_channels_of_a_convolution_and_rows_of_the_input() -> None:
    deployment = deployment_from(conv_plan(np.random.default_rng(0)))
    inputs = random_inputs(np.random.default_rng(1), deployment, 2)
    before = interpreter.run(deployment, inputs, "int64")
    less = narrow_population(deployment, "conv1", [0, 2])
    assert less.shapes["conv1"] == (2, *deployment.shapes["conv1"][1:])
    found = interpreter.run(less, inputs, "int64")
    np.testing.assert_array_equal(found["conv1"].membrane, before["conv1"].membrane[:, :, [0, 2]])
    kept = (np.arange(2), np.arange(4, 12), np.arange(10))
    part = extract(deployment, cuts(deployment, "conv2")[1])
    lower = narrowed(part, {"input": kept})
    found = interpreter.run(lower, kept_input(inputs[None], kept), "int64")
    # Rows away from the new edge see what they saw; a stride of two halves the offset.
    np.testing.assert_array_equal(found["conv1"].membrane[:, :, :, 1:], before["conv1"].membrane[:, :, :, 5:])
    np.testing.assert_array_equal(found["conv2"].membrane[:, :, :, 1:], before["conv2"].membrane[:, :, :, 3:])


def test_a_matrix_behind_maps_keeps_the_columns_of_the_positions_that_stay() -> None:
    whole = with_real_parameters(deployment_from(conv_plan(np.random.default_rng(0))))
    part = extract(whole, next(cut for cut in cuts(whole, "fc1") if cut.populations == ("conv3", "fc1")))
    channels, rows, columns = part.input_shape
    less = narrowed(part, {input_node(part.graph): (np.arange(channels), np.arange(2, rows), np.arange(columns))})
    places = np.arange(int(np.prod(part.shapes["conv3"]))).reshape(part.shapes["conv3"])[:, 2:].ravel()
    np.testing.assert_array_equal(less.synapses["fc1.weight"].weight, part.synapses["fc1.weight"].weight[:, places])
    np.testing.assert_array_equal(less.graph.nodes["fc1.weight"].weight, part.graph.nodes["fc1.weight"].weight[:, places])


def test_groups_stay_whole() -> None:
    deployment = deployment_from(conv_plan(np.random.default_rng(0)))
    less = narrow_population(deployment, "conv2", [0, 1, 2])
    assert less.shapes["conv3"][0] == 3
    assert int(less.graph.nodes["conv3.weight"].groups) == 1
    with pytest.raises(CannotNarrowError, match="groups"):
        narrow_population(deployment, "conv2", [0, 3])


def test_a_loop_loses_rows_and_columns() -> None:
    deployment = looping()
    less = narrow_population(deployment, "b", [0, 5])
    assert less.graph.nodes["b.weight1"].weight.shape == (2, 2)
    assert less.graph.nodes["a.weight1"].weight.shape == (5, 2)
    assert less.graph.nodes["c.weight1"].weight.shape == (3, 2)
    assert rules.check(less) == []


def test_delays_and_constants_per_neuron_go_with_their_neurons() -> None:
    deployment = read(delayed_net(), (6,))
    inputs = uniform(np.random.default_rng(0), 3, 6)
    kept = [2, 3, 5]
    less = narrow_population(deployment, "lif1", kept)
    before, after = interpreter.run(deployment, inputs), interpreter.run(less, inputs)
    np.testing.assert_allclose(after["lif1"].membrane, before["lif1"].membrane[:, :, kept], atol=1e-12)
    np.testing.assert_array_equal(less.graph.nodes["axons"].delay, deployment.graph.nodes["axons"].delay[kept])


def test_what_leaves_nothing_is_refused() -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(0)))
    with pytest.raises(CannotNarrowError):
        narrow_population(deployment, "lif1", [])
    conv = deployment_from(conv_plan(np.random.default_rng(0)))
    small = extract(conv, cuts(conv, "conv3")[0])
    with pytest.raises(CannotNarrowError, match="does not fit"):
        narrowed(small, {input_node(small.graph): (np.arange(6), np.arange(1), np.arange(9))})


def test_flat_input_is_the_same_network() -> None:
    deployment = deployment_from(conv_plan(np.random.default_rng(0)))
    inputs = random_inputs(np.random.default_rng(1), deployment, 2)
    whole = interpreter.run(deployment, inputs, "int64")
    cut = cuts(deployment, "fc1")[0]
    part = extract(deployment, cut)
    driven = part_inputs(deployment, cut, inputs, {name: activity.sent for name, activity in whole.items()})
    flat = with_flat_input(part, driven)
    assert flat is not None
    assert not any(isinstance(node, nir.Flatten) for node in flat[0].graph.nodes.values())
    np.testing.assert_array_equal(interpreter.run(*flat, "int64")["fc1"].membrane, whole["fc1"].membrane)
    assert with_flat_input(deployment, inputs) is None


# --- less in it ------------------------------------------------------------------------------------------------------


def test_weights_biases_and_delays_can_be_taken_out_of_both_forms() -> None:
    raw = read(delayed_net(), (6,))
    for deployment in (raw, quantised(library.prepared(raw, uniform(np.random.default_rng(0), 3, 6)))):
        name = weight_nodes(deployment)[0]
        kept = np.zeros(weights_in(deployment, name).shape, bool)
        kept[0, 0] = True
        thin = with_weights(deployment, name, kept)
        assert np.count_nonzero(weights_in(thin, name)) <= 1
        bare = deployment
        for biased in biased_nodes(deployment):
            bare = without_bias(bare, biased)
        assert biased_nodes(deployment)
        assert not biased_nodes(bare)
        prompt = without_delay(deployment, delays(deployment)[0])
        assert len(delays(prompt)) == len(delays(deployment)) - 1
        assert prompt.contract.latency == latencies(prompt.graph, prompt.contract.dt)


def test_a_later_start_keeps_periodic_resets_where_they_were() -> None:
    plan = dense_plan(np.random.default_rng(0), sizes=(6, 9), steps=9, events=True)
    layer = LayerPlan(**{**vars(plan.layers[0]), "reset_interval": 4, "reset_offset": 1})
    deployment = deployment_from(Plan((6,), (layer,), 9, 0, 1, events=True))
    inputs = random_inputs(np.random.default_rng(1), deployment, 2)
    later = during(deployment, np.arange(5, 9))
    assert later.contract.steps == 4
    before, after = interpreter.run(deployment, inputs, "int64"), interpreter.run(later, inputs[5:], "int64")
    np.testing.assert_array_equal(after["lif1"].membrane, before["lif1"].membrane[5:])
