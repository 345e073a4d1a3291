"""Wires: which delays a connection has, in local time and on a chip."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest

from snn_export.export import graph as graphs
from snn_export.export.wiring import Wire, wires
from snn_export.models.diagnostics import UserError

DT = 1e-3


def lif(size: int) -> nir.LIF:
    ones = np.ones(size)
    return nir.LIF(ones, ones, ones * 0, ones, ones * 0)


def delay(*steps: float) -> nir.Delay:
    return nir.Delay(np.array(steps) * DT)


def wires_of(edges: list[tuple[str, str]], **nodes: nir.NIRNode) -> dict[str, tuple[Wire, ...]]:
    graph = nir.NIRGraph({"x": nir.Input({"input": np.array([2])}), **nodes}, edges, type_check=False)
    return wires(graph, graphs.shapes(graph), DT)


def test_delays_on_both_sides_of_the_weights_are_kept_apart() -> None:
    found = wires_of(
        [("x", "d"), ("d", "w"), ("w", "e"), ("e", "n")],
        d=delay(1, 3), w=nir.Linear(np.ones((3, 2))), e=delay(2, 2, 2), n=lif(3),
    )["n"][0]  # fmt: skip
    assert np.array_equal(found.before, [1, 3])
    assert found.after == 2
    assert (found.most, found.uniform, found.recurrent) == (5, False, False)


def test_a_loop_has_one_step_by_itself_and_states_more_in_delay_nodes() -> None:
    edges = [("x", "w"), ("w", "n"), ("n", "r")]
    nodes = {"w": nir.Linear(np.ones((2, 2))), "n": lif(2), "r": nir.Linear(np.ones((2, 2)))}
    plain = wires_of([*edges, ("r", "n")], **nodes)["n"]
    assert [(w.weight, w.before, w.after) for w in plain] == [("w", 0, 0), ("r", 1, 0)]
    for steps in (1, 4):
        delayed = wires_of([*edges, ("r", "d"), ("d", "n")], **nodes, d=delay(steps))["n"][1]
        assert (delayed.before, delayed.after) == (0, steps)


def test_delays_of_maps_follow_a_flatten() -> None:
    image = nir.Input({"input": np.array([2, 3, 1])})
    steps = np.arange(6).reshape(2, 3, 1)
    graph = nir.NIRGraph(
        {"x": image, "d": nir.Delay(steps * DT), "f": nir.Flatten({"input": np.array([2, 3, 1])}, 0, -1),
         "w": nir.Linear(np.ones((2, 6))), "n": lif(2)},
        [("x", "d"), ("d", "f"), ("f", "w"), ("w", "n")], type_check=False,
    )  # fmt: skip
    assert np.array_equal(wires(graph, graphs.shapes(graph), DT)["n"][0].before, np.arange(6))


@pytest.mark.parametrize("path", [(), ("w", "v"), ("p",)])
def test_a_connection_is_one_weight_node(path: tuple[str, ...]) -> None:
    nodes = {
        "w": nir.Linear(np.ones((2, 2))),
        "v": nir.Linear(np.ones((2, 2))),
        "p": nir.Flatten({"input": np.array([2])}, 0, -1),
    }
    chain = ("x", *path, "n")
    with pytest.raises(UserError) as caught:
        wires_of(list(pairwise(chain)), **{name: nodes[name] for name in path}, n=lif(2))
    assert caught.value.code == "SNX209"
