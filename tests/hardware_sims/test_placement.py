"""Placement by example: memory and cuts worked out by hand, refusals, geometry, arrangement, and a network of real size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

from snn_export.energy.placed import placement_report
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips import chip_table
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.hardware_sims.chips.core_resources import RESOURCES, Resource
from snn_export.hardware_sims.placement import packing, partition, relief, resources
from snn_export.hardware_sims.placement.mesh import Mesh, links, mesh_of
from snn_export.hardware_sims.placement.partition import boxes_of, part_counts
from snn_export.hardware_sims.placement.place import arranged, spike_hops
from snn_export.hardware_sims.placement.placement import PlacementSettings, place
from snn_export.hardware_sims.placement.relief import in_words, remedies
from snn_export.hardware_sims.placement.resources import bits_of
from snn_export.hardware_sims.placement.starts import hilbert, starts
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even
from tests.hardware_sims.test_placement_properties import assert_within_limits, tiny_chip

LOIHI1, LOIHI2 = load_chip("loihi1"), load_chip("loihi2")
MANY = PlacementSettings(chips=1000, kicks=5)


def dense(*sizes: int, seed: int = 0, steps: int = 4) -> Deployment:
    """Dense layers a, b, ... of these sizes; the first number is that of the inputs."""
    rng, plans, before = np.random.default_rng(seed), [], "input"
    for name, given, made in zip("abcdefgh", sizes[:-1], sizes[1:], strict=False):
        plans.append(LayerPlan(name, 2 * rng.integers(1, 100, (made, given)), before, threshold=100))
        before = name
    return deployment_from(Plan((sizes[0],), tuple(plans), steps, events=True))


def conv(channels: int, size: int, kernel: int, out: int = 1, **options: Any) -> Deployment:
    """One convolution of events of shape (channels, size, size)."""
    weight = even(np.random.default_rng(0), (out, channels, kernel, kernel)) | 2
    return deployment_from(Plan((channels, size, size), (LayerPlan("a", weight, **options),), 4, events=True))


def vgg9(width: int = 16) -> Deployment:
    """The shapes of the VGG-9 student for 32x32 images once its pools are absorbed, with random weights."""
    rng = np.random.default_rng(0)
    channels, plans, before = 3, [], "input"
    for number, (multiple, stride) in enumerate(((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (4, 1)), 1):
        kernel, padding = (3, 1) if stride == 1 else (6, 2)
        weight = even(rng, (multiple * width, channels, kernel, kernel), 60)
        plans.append(
            LayerPlan(f"lif{number}", weight, before, stride=(stride, stride), padding=(padding, padding), threshold=2000)
        )
        channels, before = multiple * width, f"lif{number}"
    plans.append(LayerPlan("lif8", even(rng, (16 * width, channels * 64), 60), "lif7", threshold=2000))
    plans.append(LayerPlan("readout", even(rng, (10, 16 * width), 60), "lif8"))
    return deployment_from(Plan((3, 32, 32), tuple(plans), 4, high=15))


def code_of(error: pytest.ExceptionInfo[UserError]) -> str:
    return error.value.diagnostics[0].code


# --- memory ---


@pytest.mark.parametrize(
    ("weights", "bits"),
    [([2, -4], 8), ([32, -64], 4), ([256 - 512, 128], 2), ([-256, 0], 1), ([255, 1], 8), ([-16, -32], 4), ([0, 0], 1)],
)
def test_bits_of_a_weight_are_the_fewest_that_hold_the_layer(weights: list[int], bits: int) -> None:
    assert bits_of(np.array(weights, np.int16)) == bits


def test_a_dense_layer_on_loihi1() -> None:
    """100 neurons, 8-bit weights: 100 x 8 + 2 headers of 10 bits, in words of 64: 576 + 320 bits for each of 20 axons."""
    placement = place(dense(20, 100), LOIHI1)
    (core,) = placement.cores
    assert core.used["synapse_memory"] == 20 * (576 + 320)
    assert placement.layers[0].encodings == {"a.weight": ("dense",)}
    assert core.used["neurons"] == 100 and core.used["axons_in"] == 20 and core.used["axons_out"] == 0
    assert core.used["neuron_formats"] == core.used["threshold_formats"] == core.used["synapse_formats"] == 1


def test_a_thin_layer_is_stored_sparse() -> None:
    """Each of 64 sources has one synapse: a word of 64 bits; a dense list would take ten times as much."""
    weight = np.diag(np.full(64, 2))
    placement = place(deployment_from(Plan((64,), (LayerPlan("a", weight),), 4, events=True)), LOIHI1)
    assert placement.cores[0].used["synapse_memory"] == 64 * 64
    assert placement.layers[0].encodings == {"a.weight": ("sparse",)}


def test_axons_that_reach_the_same_kernel_positions_share_a_list() -> None:
    """A kernel of one weight on 16 x 16 positions: offsets 0..255 are within reach, so one list of one word serves all."""
    placement = place(conv(1, 16, 1), LOIHI1)
    assert placement.layers[0].encodings == {"a.weight": ("shared",)}
    assert placement.cores[0].used["synapse_memory"] == 64
    assert place(conv(1, 32, 1), LOIHI1).cores[0].used["synapse_memory"] == 4 * 64, "1024 positions are four times out of reach"


def test_a_3x3_kernel_has_a_list_per_pattern() -> None:
    """8 x 8 outputs of a padded 3 x 3 kernel: inputs see 2, 3 or 2 kernel rows: 9 patterns, of 4, 6 or 9 entries each."""
    placement = place(conv(1, 8, 3, padding=(1, 1)), LOIHI1)
    entry = 8 + 6
    words = sum(-(-(rows * columns * entry + 10) // 64) for rows in (2, 3, 2) for columns in (2, 3, 2))
    assert placement.cores[0].used["synapse_memory"] == 64 * words


def test_loihi2_stores_a_kernel_once_and_counts_state() -> None:
    placement = place(conv(2, 16, 3, out=4, padding=(1, 1)), LOIHI2)
    (core,) = placement.cores
    assert core.used["synapse_memory"] == 4 * 2 * 9 * 8
    assert core.used["core_memory"] == 4 * 2 * 9 * 8 + 4 * 256 * 64


def test_fewer_weight_bits_take_less_memory() -> None:
    weight = 64 * np.random.default_rng(0).integers(1, 3, (100, 20))
    few = place(deployment_from(Plan((20,), (LayerPlan("a", weight),), 4, events=True)), LOIHI1)
    assert few.layers[0].weight_bits == {"a.weight": 2}
    assert few.cores[0].used["synapse_memory"] == 20 * (192 + 128)


def test_biases_of_a_current_take_axons_and_traffic() -> None:
    """A bias of 600 needs three sources of 254 units each, one of 200 a single one; each fires in every step."""
    plan = LayerPlan("a", np.full((2, 3), 4), du=100, current_bias=np.array([600, 200]))
    placement = place(deployment_from(Plan((3,), (plan,), 7, events=True)), LOIHI1)
    assert placement.cores[0].used["axons_in"] == 3 + 3
    assert placement.journeys["always on: a"].packets == 3 * 7


# --- cuts ---


def test_part_counts_are_those_that_make_the_largest_part_smaller() -> None:
    assert part_counts(10) == (1, 2, 3, 4, 5, 10)
    assert part_counts(1) == (1,)
    for size in range(1, 70):
        widths = [-(-size // parts) for parts in part_counts(size)]
        assert widths == sorted({-(-size // parts) for parts in range(1, size + 1)}, reverse=True)


def test_boxes_cover_a_map_once() -> None:
    boxes = boxes_of((5, 7), (2, 3))
    seen = np.zeros((5, 7), int)
    for (top, bottom), (left, right) in boxes:
        seen[top:bottom, left:right] += 1
    assert np.all(seen == 1) and len(boxes) == 6


def test_a_halo_counts_for_both_parts() -> None:
    """8 x 8 neurons of a 3 x 3 kernel on cores of 32: two halves, which both read the rows at the border."""
    placement = place(conv(1, 8, 3, padding=(1, 1)), tiny_chip(neurons=32, axons_in=4096, synapse_memory=1 << 20))
    assert [core.used["axons_in"] for core in placement.cores] == [40, 40]


def test_output_axons_cut_the_layer_in_front() -> None:
    """Each of 12 neurons feeds 6 cores of 2 neurons: 72 axons, more than a core has, so that layer is cut as well."""
    deployment = dense(2, 12, 12)
    chip = tiny_chip(neurons=12, axons_in=100, axons_out=45, synapse_memory=12 * 32)
    placement = place(deployment, chip, settings=MANY)
    a, b = placement.layers
    assert len(b.cores) == 6 and len(a.cores) == 2
    assert a.binding.resource == "axons_out" and set(RESOURCES["axons_out"].remedies) <= set(a.remedies)
    assert b.binding.resource == "synapse_memory" and b.binding.cores < 6
    assert_within_limits(deployment, placement)


def test_small_populations_share_a_core() -> None:
    placement = place(dense(20, 100, 50, 10), LOIHI1)
    assert len(placement.cores) == 1
    assert [piece.population for piece in placement.cores[0].pieces] == ["a", "b", "c"]
    assert placement.cores[0].used["axons_in"] == 20 + 100 + 50
    assert placement.spike_hops == 0, "they send to their own core, and the core is at the port"


def test_a_population_that_fits_says_what_it_fills_most() -> None:
    layer = place(dense(20, 1000), LOIHI1).layers[0]
    assert layer.binding.resource == "neurons" and layer.binding.needed == 1000 and layer.binding.cores == 1
    assert layer.remedies == (), "one core cannot become fewer"
    (cut,) = place(dense(20, 3000), LOIHI1).layers
    assert "a core of Intel Loihi 2, which holds 8,192" in cut.remedies
    (cut,) = place(dense(20, 30_000), LOIHI2).layers
    assert not any("Intel" in remedy for remedy in cut.remedies), "Loihi 1 has smaller cores"


@pytest.mark.parametrize("chip", (LOIHI1, LOIHI2), ids=lambda chip: chip.name)
def test_a_core_is_counted_by_every_resource_that_there_is(chip: ChipTable) -> None:
    """A limit needs nothing but its entry, with words and remedies, and a line in the tables of the chips."""
    (core,) = place(dense(20, 50, 50), chip).cores
    assert list(core.used) == list(RESOURCES) and min(core.used.values()) > 0
    assert {*chip.capacities, *chip.not_published, *chip.covered} == set(RESOURCES)
    for name, resource in RESOURCES.items():
        assert resource.title and resource.remedies and ":" not in resource.title
        assert set(resource.remedies) <= set(remedies(name, 1 << 40, chip)), "no core holds that much, so they are all there is"
        assert in_words(name, 9, 8) == f"9 {resource.title}, where a core holds 8"


def test_a_new_limit_is_an_entry_and_a_line_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources of a core, say: nobody but the entry knows them, and layers are cut, packed and refused by them."""
    entry = Resource(
        "sources", lambda core: len({source for part in core.parts for source in part.population.sources}), ("none",)
    )
    more = {**RESOURCES, "sources": entry}
    for module in (chip_table, packing, partition, relief, resources):
        monkeypatch.setattr(module, "RESOURCES", more)
    deployment, limited = dense(20, 30, 30), tiny_chip(neurons=200, axons_in=0, axons_out=0, synapse_memory=1 << 20, sources=1)
    placement = place(deployment, limited)
    assert [core.used["sources"] for core in placement.cores] == [1, 1], "the layers may not share a core"
    loop = LayerPlan("a", np.full((6, 4), 2), more=(SynapsePlan(np.full((6, 6), 2), "a"),))
    with pytest.raises(UserError, match="2 sources, where a core holds 1"):
        place(deployment_from(Plan((4,), (loop,), 5, events=True)), limited)


# --- refusals ---


def test_a_neuron_with_too_many_inputs_is_refused() -> None:
    deployment = deployment_from(Plan((4200,), (LayerPlan("a", np.full((3, 4200), 2)),), 4, events=True))
    with pytest.raises(UserError) as error:
        place(deployment, LOIHI1)
    said = error.value.diagnostics[0]
    assert said.code == "SNX453" and said.where == "a[1]"
    assert "4,200 input axons" in said.what and "4,096" in said.what and "groups" in said.fix
    assert place(deployment, LOIHI2).unchecked["axons_in"]


def test_a_neuron_with_too_much_memory_is_refused() -> None:
    with pytest.raises(UserError) as error:
        place(dense(40, 3), tiny_chip(synapse_memory=300))
    said = error.value.diagnostics[0]
    assert said.code == "SNX453" and "bits of synapses" in said.what and "fewer weight bits" in said.fix


def test_only_one_neuron_may_be_the_reason() -> None:
    """All neurons but the last have a single input."""
    weight = np.zeros((30, 50), np.int64)
    weight[:, 0], weight[29] = 2, 2
    with pytest.raises(UserError) as error:
        place(deployment_from(Plan((50,), (LayerPlan("a", weight),), 4, events=True)), tiny_chip(axons_in=20))
    assert error.value.diagnostics[0].where == "a[29]"


def test_a_neuron_with_too_many_targets_is_refused() -> None:
    with pytest.raises(UserError) as error:
        place(dense(2, 3, 40), tiny_chip(neurons=4, axons_out=8), settings=MANY)
    assert code_of(error) == "SNX454" and error.value.diagnostics[0].where == "a"


def test_more_chips_than_allowed_are_refused() -> None:
    deployment = dense(4, 200)
    with pytest.raises(UserError) as error:
        place(deployment, tiny_chip(neurons=4), settings=PlacementSettings(chips=2))
    said = error.value.diagnostics[0]
    assert said.code == "SNX455" and "50 cores" in said.what and "--set placement.chips=3" in said.fix
    assert place(deployment, tiny_chip(neurons=4), settings=PlacementSettings(chips=3)).chips == 3


@pytest.mark.parametrize("name", ("xylo", "speck"))
def test_a_chip_without_a_mesh_is_refused(name: str) -> None:
    with pytest.raises(UserError) as error:
        place(dense(4, 4), load_chip(name))
    assert code_of(error) == "SNX452"


@pytest.mark.parametrize(
    ("activity", "said"),
    [
        ({"z": np.ones(4)}, "no population"),
        ({"a": np.ones(5)}, "shape"),
        ({"a": np.array([1.0, -1, 0, 0])}, "negative"),
        ({"a": np.array([np.nan, 1, 0, 0])}, "finite"),
        ({"a": np.array(["1", "2", "3", "4"])}, "array"),
    ],
)
def test_activity_that_does_not_fit_is_refused(activity: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        place(dense(4, 4), LOIHI1, activity)
    assert code_of(error) == "SNX456"


@pytest.mark.parametrize("wrong", ({"chips": 0}, {"interchip": 0}, {"kicks": -1}, {"seed": -1}, {"weight_bits": 9}))
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError) as error:
        PlacementSettings(**wrong)
    assert code_of(error) == "SNX457"


def test_weights_wider_than_any_field_are_refused() -> None:
    chip = tiny_chip()
    assert chip.synapses is not None
    narrow = chip.model_copy(update={"synapses": chip.synapses.model_copy(update={"weight_fields": (1, 2, 4)})})
    with pytest.raises(UserError) as error:
        place(dense(4, 4), narrow)
    assert code_of(error) == "SNX458"


# --- mesh ---


def test_distances_on_two_chips() -> None:
    mesh = Mesh(2, 3, 2, chip_rows=1, chip_columns=2, interchip=5)
    assert (mesh.slots, mesh.chips, mesh.shape) == (24, 2, (2, 6))
    hops = mesh.distances()
    assert hops[0, 1] == 0, "two cores of one router"
    assert hops[0, 2] == 1 and hops[0, 6] == 1, "the next column, the next row"
    assert hops[4, 12] == 5, "from the last column of the first chip to the first column of the second"
    assert hops[0, 23] == 1 + 2 + 5 + 2 and np.array_equal(hops, hops.T)
    assert np.array_equal(mesh.from_port(), hops[0])
    assert (mesh.cores_per_chip, mesh.router_of()[23], mesh.router_of()[mesh.port]) == (12, 11, 0)


def test_hops_are_counted_where_a_packet_passes() -> None:
    """Every pair of routers on 2 x 3 chips of 2 x 3 routers, walked router by router."""
    mesh = Mesh(2, 3, 2, chip_rows=2, chip_columns=3, interchip=7)
    routers = np.arange(mesh.shape[0] * mesh.shape[1])
    walked = np.zeros((3, len(routers), len(routers)), int)
    for begin in routers:
        for end in routers:
            (row, column), (to_row, to_column) = divmod(int(begin), mesh.shape[1]), divmod(int(end), mesh.shape[1])
            for c in range(min(column, to_column), max(column, to_column)):
                walked[2 if c % 3 == 2 else 0, begin, end] += 1
            for r in range(min(row, to_row), max(row, to_row)):
                walked[2 if r % 2 == 1 else 1, begin, end] += 1
    found = mesh.hops(routers[:, None], routers)
    assert all(np.array_equal(got, expected) for got, expected in zip(found, walked, strict=True))
    hops, of_slot = walked[0] + walked[1] + 7 * walked[2], mesh.router_of()
    assert np.array_equal(mesh.distances(), hops[of_slot][:, of_slot])
    assert np.array_equal(mesh.from_port(), hops[mesh.port][of_slot])


@pytest.mark.parametrize(
    ("cores", "chips"), [(1, (1, 1)), (128, (1, 1)), (129, (1, 2)), (400, (2, 2)), (700, (2, 3)), (800, (1, 7))]
)
def test_chips_stand_in_a_rectangle(cores: int, chips: tuple[int, int]) -> None:
    assert LOIHI1.mesh is not None
    mesh = mesh_of(LOIHI1.mesh, cores, 4)
    assert (mesh.chip_rows, mesh.chip_columns) == chips and mesh.slots >= cores


def test_links_are_those_that_spikes_pass() -> None:
    """Every pair walked hop by hop: along the row first, then along the column."""
    rng, mesh = np.random.default_rng(0), Mesh(4, 5, 1)
    begin, end, spikes = rng.integers(0, 20, 60), rng.integers(0, 20, 60), rng.integers(1, 9, 60)
    east, west = np.zeros((4, 4), int), np.zeros((4, 4), int)
    south, north = np.zeros((3, 5), int), np.zeros((3, 5), int)
    for a, b, n in zip(begin, end, spikes, strict=True):
        row, column = divmod(int(a), 5)
        to_row, to_column = divmod(int(b), 5)
        while column != to_column:
            (east if column < to_column else west)[row, min(column, column + np.sign(to_column - column))] += n
            column += int(np.sign(to_column - column))
        while row != to_row:
            (south if row < to_row else north)[min(row, row + np.sign(to_row - row)), column] += n
            row += int(np.sign(to_row - row))
    found = links(mesh, begin, end, spikes)
    for got, expected in ((found.east, east), (found.west, west), (found.south, south), (found.north, north)):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (5, 1), (4, 8), (8, 16), (3, 5), (7, 7), (2, 9), (6, 5)])
def test_the_curve_visits_every_router_once(rows: int, columns: int) -> None:
    curve = hilbert(rows, columns)
    assert sorted(curve) == [(r, c) for r in range(rows) for c in range(columns)]
    steps = [max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a, b in pairwise(curve)]
    assert all(step == 1 for step in steps)


@pytest.mark.parametrize("cores", (1, 2, 7, 24))
def test_every_start_gives_each_core_a_slot_of_its_own(cores: int) -> None:
    traffic = np.random.default_rng(0).integers(0, 9, (cores, cores))
    for found in starts(traffic + traffic.T, Mesh(3, 2, 2, 1, 2, 3)):
        assert len(set(found.tolist())) == cores and found.min() >= 0 and found.max() < 24


# --- arrangement ---


def test_six_cores_are_placed_as_well_as_can_be() -> None:
    mesh = Mesh(2, 3, 1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        traffic, host = rng.integers(0, 50, (6, 6)), rng.integers(0, 50, 6)
        both = traffic + traffic.T
        np.fill_diagonal(both, 0)
        hops, port = mesh.distances(), mesh.from_port()
        best = min(spike_hops(both, host, hops, port, np.array(order)) for order in permutations(range(6)))
        assert spike_hops(both, host, hops, port, arranged(traffic, host, mesh, 20, 0)) == best


def test_cores_that_talk_stand_side_by_side() -> None:
    """Pairs far apart in the order of the layers."""
    traffic = np.zeros((16, 16), np.int64)
    for core in range(8):
        traffic[core, core + 8] = 100
    mesh, none = Mesh(4, 4, 1), np.zeros(16, np.int64)
    slots = arranged(traffic, none, mesh, 50, 0)
    assert spike_hops(traffic + traffic.T, none, mesh.distances(), mesh.from_port(), slots) == 8 * 100
    assert spike_hops(traffic + traffic.T, none, mesh.distances(), mesh.from_port(), np.arange(16)) == 8 * 200


# --- traffic ---


def test_measured_activity_counts_and_silence_costs_nothing() -> None:
    deployment, chip = dense(4, 8, 8), tiny_chip(neurons=8, share=1)
    rates = {"input": np.arange(4.0), "a": np.full(8, 2.5), "b": np.zeros(8)}
    placement = place(deployment, chip, rates)
    assert placement.journeys["input"].packets == 0 + 1 + 2 + 3
    assert placement.journeys["a"].packets == 8 * 2.5
    assert placement.journeys["b"].packets == 0
    assert placement.journeys["to the host"].packets == 8, "the last membranes of the readout"
    assert not any("no activity was measured" in said for said in placement.assumptions)
    silent = place(deployment, chip, {name: np.zeros_like(rate) for name, rate in rates.items()})
    assert silent.spike_hops == pytest.approx(silent.journeys["to the host"].spike_hops)


def test_without_activity_every_neuron_fires_in_every_step() -> None:
    placement = place(dense(4, 8, 8, steps=6), tiny_chip(neurons=8))
    assert placement.journeys["a"].packets == 8 * 6
    assert any("input, a, b" in said for said in placement.assumptions)


@pytest.mark.parametrize(
    ("rule", "messages", "axons"), [("spike_count", 24, 8), ("membrane_last", 8, 0), ("membrane_max", 32, 0)]
)
def test_what_the_host_reads_is_traffic(rule: Any, messages: int, axons: int) -> None:
    deployment = dense(4, 8)
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"readout": ReadoutSpec("a", rule)}))
    placement = place(deployment, LOIHI1, {"a": np.full(8, 3.0)})
    assert placement.journeys["to the host"].packets == messages
    assert placement.cores[0].used["axons_out"] == axons


def test_input_that_the_host_turns_into_biases_does_not_travel() -> None:
    plan = Plan((4,), (LayerPlan("a", np.full((6, 4), 2)), LayerPlan("b", np.full((3, 6), 2), "a")), 4)
    deployment = deployment_from(replace(plan, encoder=None, events=True))
    biased = deployment.replace(
        contract=deployment.contract.model_copy(update={"encoder": replace(deployment.contract.encoder, kind="bias")}),
        synapses={"b.weight": deployment.synapses["b.weight"]},
    )
    assert "input" in place(deployment, LOIHI1).journeys
    assert "input" not in place(biased, LOIHI1).journeys
    assert place(biased, LOIHI1).cores[0].used["axons_in"] == 6


def test_a_loop_stays_on_its_core() -> None:
    loop = LayerPlan("a", np.full((6, 4), 2), more=(SynapsePlan(np.full((6, 6), 2), "a"),))
    placement = place(deployment_from(Plan((4,), (loop,), 5, events=True)), LOIHI1)
    assert placement.cores[0].used["axons_in"] == 4 + 6 and placement.cores[0].used["axons_out"] == 6
    assert (placement.journeys["a"].packets, placement.journeys["a"].spike_hops) == (6 * 5, 0)


def test_delays_widen_synapses_and_take_slots() -> None:
    plain, slow = (LayerPlan("a", np.full((100, 4), 2), before=steps) for steps in (0, 20))
    found = [place(deployment_from(Plan((4,), (layer,), 4, events=True)), LOIHI1).cores[0].used for layer in (plain, slow)]
    assert found[0]["delay_slots"] == 100 and found[1]["delay_slots"] == 100 * 21
    assert found[1]["synapse_memory"] > found[0]["synapse_memory"]


# --- a network of real size ---


@pytest.fixture(scope="module")
def network() -> Deployment:
    return vgg9()


def test_vgg9_fits_one_loihi1(network: Deployment) -> None:
    placement = place(network, LOIHI1)
    assert placement.chips == 1 and 61 <= len(placement.cores) <= 128
    for resource, capacity in LOIHI1.capacities.items():
        assert max(core.used[resource] for core in placement.cores) <= capacity
        assert 0 < max(placement.utilisation(resource)) <= 1
    assert sum(core.used["neurons"] for core in placement.cores) == sum(int(np.prod(network.shapes[n])) for n in network.layers)
    assert placement.spike_hops < 0.6 * placement.naive_spike_hops
    assert {layer.binding.resource for layer in placement.layers} >= {"neurons", "synapse_memory", "axons_in", "axons_out"}
    places = {(core.row, core.column, core.slot) for core in placement.cores}
    assert len(places) == len(placement.cores) and not placement.unchecked


def test_vgg9_on_loihi2_says_what_was_not_checked(network: Deployment) -> None:
    placement = place(network, LOIHI2)
    assert placement.chips == 1 and set(placement.unchecked) == set(LOIHI2.not_published)
    assert placement.spike_hops < placement.naive_spike_hops


def test_the_same_bytes_twice(network: Deployment) -> None:
    found = [placement_report(place(network, LOIHI1, settings=PlacementSettings(kicks=5))).model_dump_json() for _ in range(2)]
    assert found[0] == found[1]
    limits = {limit["resource"]: limit for limit in json.loads(found[0])["limits"]}
    assert limits["input axons"]["source"].startswith("Davies") and "distinct" in limits["input axons"]["explained"]


def test_a_network_on_two_chips_counts_what_crosses() -> None:
    chip = tiny_chip(neurons=30, axons_out=4096, synapse_memory=1 << 20)
    placement = place(dense(20, 300, 300, 10), chip, settings=PlacementSettings(interchip=7))
    assert placement.chips > 1 and {core.chip for core in placement.cores} == set(range(placement.chips))
    crossing = sum(link.packets for link in placement.links if link.between_chips)
    assert crossing == pytest.approx(sum(item.between_chips for item in placement.journeys.values()))
    item = placement.journeys["a"]
    assert item.spike_hops == pytest.approx(item.east_west + item.north_south + 7 * item.between_chips)
    assert any("counts as 7" in said for said in placement.assumptions)
    assert_within_limits(dense(20, 300, 300, 10), placement)


def test_placing_needs_no_torch() -> None:
    code = (
        "import sys, snn_export.hardware_sims.placement.placement; print([n for n in ('torch', 'snntorch') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_spikes_over_all_samples_are_counted_to_the_last_digit() -> None:
    """Three samples: a mean of a third is no binary fraction, and a sum of ones is exact."""
    deployment = dense(40, 30, 20, 10)
    rng = np.random.default_rng(0)
    summed = {name: rng.integers(0, 9, deployment.shapes[name]) for name in ("input", "a", "b", "c")}
    exact = place(deployment, LOIHI1, summed, samples=3)
    means = place(deployment, LOIHI1, {name: spikes / 3 for name, spikes in summed.items()})
    for name in ("input", "a", "b"):
        assert exact.journeys[name].packets == summed[name].sum() / 3
        assert means.journeys[name].packets == pytest.approx(summed[name].sum() / 3, abs=1e-3)
    assert exact.journeys["to the host"].packets == 10
    assert exact.cores == means.cores
    with pytest.raises(UserError, match="SNX456"):
        place(deployment, LOIHI1, {"a": np.full(30, 0.5)}, samples=3)
