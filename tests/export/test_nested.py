"""Nested graphs are written out as they are wired, or refused."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_export.export.graph import Edge
from snn_export.export.nested import flattened
from snn_export.models.diagnostics import UserError


def weights() -> nir.Linear:
    return nir.Linear(np.ones((2, 2)))


def graph(edges: list[Edge], **nodes: nir.NIRNode) -> nir.NIRGraph:
    table = {"input": nir.Input(np.array([2])), **nodes, "output": nir.Output(np.array([2]))}
    return nir.NIRGraph(table, edges, type_check=False)


def test_a_graph_in_a_graph_in_a_graph() -> None:
    inmost = graph([("input", "w"), ("w", "output")], w=weights())
    middle = graph([("input", "g"), ("g", "n"), ("n", "output")], g=inmost, n=nir.IF(np.ones(2), np.ones(2)))
    outer = graph([("input", "a"), ("a", "m"), ("m", "m"), ("m", "output")], a=weights(), m=middle)
    flat = flattened(outer)
    assert list(flat.nodes) == ["input", "a", "m.g.w", "m.n", "output"]
    assert set(flat.edges) == {("input", "a"), ("a", "m.g.w"), ("m.g.w", "m.n"), ("m.n", "m.g.w"), ("m.n", "output")}
    assert flattened(flat) is flat


def test_several_sources_and_targets_keep_their_connections() -> None:
    inner = graph([("input", "w"), ("input", "v"), ("w", "output"), ("v", "output")], w=weights(), v=weights())
    outer = graph(
        [("input", "a"), ("input", "b"), ("a", "m"), ("b", "m"), ("m", "c"), ("m", "output")],
        a=weights(), b=weights(), m=inner, c=weights(),
    )  # fmt: skip
    edges = set(flattened(outer).edges)
    assert {(s, t) for s, t in edges if t.startswith("m.")} == {(s, t) for s in "ab" for t in ("m.w", "m.v")}
    assert {(s, t) for s, t in edges if s.startswith("m.")} == {(s, t) for s in ("m.w", "m.v") for t in ("c", "output")}


PLAIN: list[Edge] = [("input", "w"), ("w", "output")]
THROUGH: list[Edge] = [("input", "m"), ("m", "output")]


@pytest.mark.parametrize(
    ("inner", "extra", "edges"),
    [
        (nir.NIRGraph({"w": weights()}, [], type_check=False), {}, THROUGH),
        (graph(PLAIN, w=weights(), second=nir.Input(np.array([2]))), {}, THROUGH),
        (graph(PLAIN, w=weights()), {}, [("input", "m")]),
        (graph(PLAIN, w=weights()), {"m.w": weights()}, THROUGH),
        (graph([("input", "output")]), {}, [("input", "m"), ("m", "output"), ("input", "output")]),
    ],
)  # fmt: skip
def test_what_cannot_be_written_out(inner: nir.NIRGraph, extra: dict[str, nir.NIRNode], edges: list[Edge]) -> None:
    with pytest.raises(UserError) as caught:
        flattened(graph(edges, m=inner, **extra))
    assert (caught.value.code, caught.value.diagnostics[0].where) == ("SNX263", "m")
