"""Numbers that no network has are found before anything is computed with them."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from snn_export.export import linear_maps
from snn_export.export.graph import PATH_LIMIT, connections
from snn_export.export.nir_reader import deployment_from_nir
from snn_export.export.well_formed import malformed
from snn_export.models.diagnostics import UserError


def lif(shape: tuple[int, ...]) -> nir.LIF:
    ones = np.ones(shape)
    return nir.LIF(ones * 8e-3, ones * 8, ones * 0, ones, ones * 0)


def conv(**changes: Any) -> nir.Conv2d:
    fields: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    node = nir.Conv2d(None, np.ones((2, 1, 3, 3)), **fields)
    for key, value in changes.items():
        setattr(node, key, value)
    return node


def graph(node: nir.NIRNode, shape: Any = (1, 6, 6), edges: tuple[tuple[str, str], ...] = ()) -> nir.NIRGraph:
    nodes = {
        "input": nir.Input({"input": np.array((1, 6, 6))}),
        "w": node,
        "n": lif((2, 4, 4)),
        "output": nir.Output({"output": np.array([1])}),
    }
    nodes["input"].input_type["input"] = shape if shape is None else np.asarray(shape)
    return nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output"), *edges], type_check=False)


def pool(kernel: Any = 2, stride: Any = 2, padding: Any = 0) -> nir.AvgPool2d:
    return nir.AvgPool2d(np.array(kernel), np.array(stride), np.array(padding))


BAD = {
    "infinite bias": conv(bias=np.array([0.0, np.inf])), "bias too long": conv(bias=np.zeros(3)),
    "bias of two axes": conv(bias=np.zeros((2, 1))), "stride 0": conv(stride=0), "stride 1.5": conv(stride=1.5),
    "negative padding": conv(padding=-1), "huge padding": conv(padding=1 << 30),
    "groups 0": conv(groups=0), "groups as array": conv(groups=np.array([1])), "kernel of 0": conv(weight=np.ones((2, 1, 0, 3))),
    "text": conv(weight=np.array([["a"]])), "complex": conv(weight=np.ones((2, 1, 3, 3)) * 1j),
    "pool kernel 0": pool(kernel=0), "pool stride 0": pool(stride=0), "pool of millions": pool(kernel=1 << 20, padding=1 << 20),
    "delay without end": nir.Delay(np.array(1e300)), "negative delay": nir.Delay(np.array(-1e-3)),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_node_that_cannot_be_is_named(what: str) -> None:
    with pytest.raises(UserError) as caught:
        deployment_from_nir(graph(BAD[what]), steps=4, dt=1e-3)
    assert {item.code for item in caught.value.diagnostics} == {"SNX129"}
    assert {item.where for item in caught.value.diagnostics} == {"w"}


@pytest.mark.parametrize("shape", [None, (), (0, 6, 6), (1, 4.5, 6), (1 << 20, 1 << 20)])
def test_an_input_has_a_shape(shape: Any) -> None:
    assert [item.where for item in malformed(graph(conv(), shape))] == ["input"]


def test_an_edge_into_the_input_is_found_and_good_graphs_are_left_alone() -> None:
    assert [item.where for item in malformed(graph(conv(), edges=(("n", "input"),)))] == ["input"]
    assert malformed(graph(conv())) == []
    assert malformed(graph(conv(padding="same"))) == []


def test_graphs_without_end_are_found() -> None:
    outer = graph(conv())
    outer.nodes["inner"] = outer
    assert "graphs stand inside graphs" in malformed(outer)[0].what


def test_ways_that_multiply_are_counted_not_walked() -> None:
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([2])})}
    edges, last = [], "input"
    for k in range(40):
        nodes |= {f"{branch}{k}": nir.Linear(np.eye(2)) for branch in "ab"} | {f"c{k}": nir.Scale(np.ones(2))}
        edges += [(last, f"a{k}"), (last, f"b{k}"), (f"a{k}", f"c{k}"), (f"b{k}", f"c{k}")]
        last = f"c{k}"
    nodes |= {"n": lif((2,))}
    with pytest.raises(UserError) as caught:
        connections(nir.NIRGraph(nodes, [*edges, (last, "n")], type_check=False))
    assert caught.value.code == "SNX218" and f"{PATH_LIMIT:,}" in str(caught.value)


@pytest.mark.parametrize("kernel", [(2, 2), (4, 4), (2, 3)])
@pytest.mark.parametrize("stride", [2, 3])
def test_windows_that_read_on_where_the_second_reads_zeros_are_not_composed(kernel: tuple[int, int], stride: int) -> None:
    """An even kernel with padding "same" has all its padding behind: the window before the first one sees the image."""
    first = nir.Conv2d(None, np.ones((1, 1, *kernel)), 1, "same", 1, 1, np.zeros(1))
    then = nir.Conv2d(None, np.ones((1, 1, 3, 3)), stride, 1, 1, 1, np.zeros(1))
    made = ((6 + 2 - 3) // stride + 1,) * 2
    windows = linear_maps.window_of(first, (1, 6, 6), (1, 6, 6)), linear_maps.window_of(then, (1, 6, 6), (1, *made))
    assert windows[0] is not None and windows[1] is not None
    one = linear_maps.composed(*windows)
    product = linear_maps.matrix("b", then, (1, 6, 6), (1, *made)) @ linear_maps.matrix("a", first, (1, 6, 6), (1, 6, 6))
    assert one is None or (abs(linear_maps._window_matrix(one) - product)).max() < 1e-12
    assert (one is None) == (kernel[0] % 2 == 0)
