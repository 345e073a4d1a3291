"""How wires become Lava's processes, and when a run pauses: without Lava."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest

from snn_export.export.linear import apply
from snn_export.hardware_sims.lava import lowering, schedule, worker
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even
from tests.lava_networks import KINDS, SMALL, random_network


def compiled(layers: tuple[LayerPlan, ...], shape: tuple[int, ...] = (2, 5, 4)) -> list[dict[str, Any]]:
    """What the worker is told about the connections of a network."""
    return [dict(item) for item in LavaSimulator().compile(deployment_from(Plan(shape, layers))).connections]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_written_out_every_weight_node_is_the_same_map(kind: str, seed: int) -> None:
    rng = np.random.default_rng([KINDS.index(kind), seed])
    deployment = deployment_from(Plan(SMALL.input, random_network(rng, "n", kind), events=True))
    for wire in (wire for wires in deployment.wires.values() for wire in wires):
        node, given = deployment.graph.nodes[wire.weight], lowering.input_shape(deployment, wire)
        taken, weight = deployment.shapes[wire.weight], deployment.synapses[wire.weight].weight.astype(np.int64)
        rows, columns, values = lowering.entries(node, weight, given, taken)
        matrix = np.zeros((np.prod(taken), np.prod(given)), np.int64)
        np.add.at(matrix, (rows, columns), values)
        x = rng.integers(-9, 10, (3, *given))
        zeros = None if isinstance(node, nir.Scale) else np.zeros(len(weight), np.int64)
        want = apply(wire.weight, node, x, weight, zeros)
        assert np.array_equal((x.reshape(3, -1) @ matrix.T).reshape(want.shape), want)
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows) == np.count_nonzero(values)


CONV = LayerPlan("layer", even(np.random.default_rng(0), (4, 2, 3, 2)) | 2, padding=(1, 1))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "conv"),
        ({"padding": "same"}, "sparse"),  # an even kernel: uneven padding
        ({"weight_exponent": 1}, "sparse"),
        ({"before": 1}, "sparse"),
        ({"after": np.arange(4)[:, None, None] * np.ones((4, 5, 5), int)}, "sparse"),
        ({"groups": 2, "weight": even(np.random.default_rng(0), (4, 1, 3, 2)) | 2}, "conv"),
        ({"weight": even(np.random.default_rng(0), (4, 2, 1, 130)) | 2, "padding": (0, 70)}, "sparse"),
    ],
)
def test_a_convolution_stays_one_where_lavas_does_the_same(change: dict[str, Any], kind: str) -> None:
    (found,) = compiled((replace(CONV, **change),))
    assert found["kind"] == kind and found["delayed"] == found["cleared"] == ("before" in change or "after" in change)


def test_a_convolution_that_waits_for_a_longer_path_is_delayed_but_needs_no_clearing() -> None:
    kernel = even(np.random.default_rng(1), (2, 2, 1, 1)) | 2
    short = SynapsePlan(kernel)
    layers = (LayerPlan("one", kernel), LayerPlan("two", kernel, "one", more=(short,)))
    first, long, waiting = compiled(layers)
    assert [first["kind"], long["kind"], waiting["kind"]] == ["conv", "conv", "sparse"]
    assert (waiting["delayed"], waiting["cleared"]) == (True, False)


def test_a_line_is_a_map_of_one_row() -> None:
    line = LayerPlan("line", np.full((4, 1, 3), 2), groups=2, stride=(2,), padding=(1,), dilation=(3,))
    (found,) = compiled((line,), shape=(2, 20))
    assert found["input_shape"] == [2, 1, 20] and found["output_shape"] == [4, 1, 8]
    assert (found["stride"], found["padding"], found["dilation"], found["groups"]) == ([1, 2], [0, 1], [1, 3], 2)


def test_a_large_and_nearly_empty_matrix_is_sparse() -> None:
    full, empty = np.full((256, 256), 2), np.eye(256, dtype=int) * 2
    found = compiled((LayerPlan("full", full), LayerPlan("empty", empty), LayerPlan("small", empty[:9])), shape=(256,))
    assert [item["kind"] for item in found] == ["dense", "sparse", "dense"]


def test_a_delayed_matrix_that_would_be_made_anew_in_every_step_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerPlan("layer", np.full((3, 3), 2), before=4)
    assert compiled((layer,), shape=(3,))[0]["kind"] == "dense"
    monkeypatch.setattr(lowering, "DELAY_DENSE_MAX", 44)
    assert compiled((layer,), shape=(3,))[0]["kind"] == "sparse"


def test_delays_add_up_per_synapse() -> None:
    layer = LayerPlan("layer", np.full((2, 3), 2), before=np.array([0, 5, 9]), after=np.array([1, 40]))
    program = LavaSimulator().compile(deployment_from(Plan((3,), (layer,))))
    assert program.arrays["delay_0"].tolist() == [[1, 6, 10], [40, 45, 49]]


def test_a_self_loop_needs_no_delay_on_the_chip_and_a_slow_loop_does() -> None:
    loop = SynapsePlan(np.full((4, 4), 2), "layer")
    layer = LayerPlan("layer", np.full((4, 40), 2))
    for before, delayed in ((0, False), (1, False), (2, True)):
        found = compiled((replace(layer, more=(replace(loop, before=before),)),))
        assert found[1]["cleared"] and found[1]["delayed"] == delayed


def test_the_period_leaves_room_for_what_a_cleared_connection_still_carries() -> None:
    deep = (LayerPlan("a", np.full((3, 3), 2)), LayerPlan("b", np.full((3, 3), 2), "a"))
    plain = deployment_from(Plan((3,), deep, steps=10))
    assert schedule.period(plain) == 10
    late = replace(deep[1], more=(SynapsePlan(np.full((3, 3), 2), before=1),))
    assert schedule.period(deployment_from(Plan((3,), (deep[0], late), steps=10))) == 12


@pytest.mark.parametrize(
    ("interval", "offset", "want"),
    [
        (0, 0, schedule.Resets(12)),
        (12, 0, schedule.Resets(12)),
        (4, 0, schedule.Resets(4)),
        (20, 0, schedule.Resets(12)),
        (4, 1, schedule.Resets(12, (1, 5, 9))),
        (20, 7, schedule.Resets(12, (7,))),
        (20, 15, schedule.Resets(12)),
    ],
)
def test_lifreset_does_the_periodic_resets_it_can_do(interval: int, offset: int, want: schedule.Resets) -> None:
    layer = LayerPlan("layer", np.full((3, 3), 2), reset_interval=interval, reset_offset=offset)
    deployment = deployment_from(Plan((3,), (layer,), steps=12))
    assert schedule.resets(deployment, "layer", schedule.period(deployment)) == want


def test_a_sample_is_lengthened_where_that_lets_lifreset_do_it() -> None:
    for interval, period in ((4, 12), (5, 10), (7, 10)):  # 7 would make 14 of 10
        layer = LayerPlan("layer", np.full((3, 3), 2), reset_interval=interval)
        deployment = deployment_from(Plan((3,), (layer,), steps=10))
        spacing = schedule.period(deployment)
        assert spacing == period
        assert schedule.resets(deployment, "layer", spacing).paused == ((7,) if interval == 7 else ())


def test_pauses_come_before_the_source_starts_and_all_through_the_lead_of_a_loops_target() -> None:
    populations = [{"latency": 1, "cleared_at": []}, {"latency": 3, "cleared_at": [2]}]
    connections = [
        {"source": -1, "target": 0, "cleared": True},
        {"source": 0, "target": 1, "cleared": False},
        {"source": 1, "target": 0, "cleared": True},
    ]
    request = {"samples": 2, "period": 10, "populations": populations, "connections": connections}
    found = worker.pauses(request, [0])
    loop = {start + step: ("clear", 2, start // 10) for start in (0, 10) for step in (1, 2, 3)}
    assert found == {
        1: [loop[1]], 2: [loop[2]], 3: [loop[3]], 5: [("reset", 1, 0)],
        10: [("clear", 0, 1)], 11: [loop[11], ("bias", 0, 1)], 12: [loop[12]], 13: [loop[13]], 15: [("reset", 1, 1)],
    }  # fmt: skip


def test_the_stream_of_inputs_has_zeros_up_to_the_next_sample() -> None:
    request = {"steps": 2, "samples": 2, "period": 3, "input_shape": [1]}
    levels = np.arange(1, 5).reshape(2, 2, 1)  # (T, B, 1)
    assert worker.input_stream(request, levels).tolist() == [[1, 3, 0, 2, 4, 0]]
    assert worker.input_stream(request, levels[:1]).tolist() == [[1, 1, 0, 2, 2, 0]]
