"""Graphs are read as populations and connections, with shapes of our own, or refused with the reason."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_export.export import graph as graphs
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from
from tests.networks import conv_net, named, read


def net(edges: list[tuple[str, str]], **nodes: nir.NIRNode) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, edges, type_check=False)


def lif(size: int) -> nir.LIF:
    ones = np.ones(size)
    return nir.LIF(ones, ones, ones * 0, ones, ones * 0)


def vector(size: int) -> nir.Input:
    return nir.Input({"input": np.array([size])})


def weights(outputs: int, inputs: int) -> nir.Linear:
    return nir.Linear(np.ones((outputs, inputs)))


def refused(graph: nir.NIRGraph, code: str) -> UserError:
    with pytest.raises(UserError) as caught:
        graphs.topological_order(graph)
        graphs.shapes(graph)
        graphs.latencies(graph)
    assert caught.value.code == code
    return caught.value


def test_order_follows_the_edges_not_the_node_table() -> None:
    graph = net(
        [("x", "w"), ("w", "n"), ("n", "y")], y=nir.Output({"output": np.array([2])}), n=lif(2), w=weights(2, 3), x=vector(3)
    )
    assert graphs.topological_order(graph) == ("x", "w", "n", "y")
    assert graphs.populations(graph) == ("n",)
    assert graphs.connections(graph)["n"] == (graphs.Connection("x", ("w",), "n"),)


def test_loop_is_refused_and_named() -> None:
    graph = net([("x", "w"), ("w", "n"), ("n", "r"), ("r", "n")], x=vector(3), w=weights(2, 3), n=lif(2), r=weights(2, 2))
    error = refused(graph, "SNX204")
    assert "n" in str(error)
    assert "r" in str(error)


def test_edge_to_a_missing_node_is_refused() -> None:
    assert "ghost" in str(refused(net([("x", "ghost")], x=vector(3)), "SNX104"))


def test_paths_of_different_length_are_refused() -> None:
    edges = [("x", "a"), ("a", "n"), ("n", "b"), ("b", "m"), ("x", "c"), ("c", "m")]
    graph = net(edges, x=vector(3), a=weights(3, 3), n=lif(3), b=weights(3, 3), c=weights(3, 3), m=lif(3))
    assert "m" in str(refused(graph, "SNX207"))


def test_paths_of_equal_length_share_a_latency_and_two_connections() -> None:
    edges = [("x", "a"), ("a", "n"), ("x", "b"), ("b", "n")]
    graph = net(edges, x=vector(3), a=weights(2, 3), b=weights(2, 3), n=lif(2))
    assert graphs.latencies(graph) == {"n": 1}
    assert [c.path for c in graphs.connections(graph)["n"]] == [("a",), ("b",)]


@pytest.mark.parametrize("kind", [nir.Input, nir.Output])
def test_exactly_one_input_and_output(kind: type) -> None:
    graph = net([], x=vector(3), z=vector(3))
    with pytest.raises(UserError) as caught:
        (graphs.input_node if kind is nir.Input else graphs.output_node)(graph)
    assert caught.value.code == "SNX205"


def test_mismatched_weight_is_refused() -> None:
    assert "w" in str(refused(net([("x", "w")], x=vector(3), w=weights(2, 4)), "SNX206"))


def test_unconnected_node_is_refused() -> None:
    assert "w" in str(refused(net([], x=vector(3), w=weights(2, 3)), "SNX206"))


def test_node_without_a_rule_is_refused() -> None:
    graph = net([("x", "d")], x=vector(3), d=nir.Delay(np.ones(3)))
    assert "Delay" in str(refused(graph, "SNX201"))


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), "same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 2), (2, 5), (1, 4)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_convolution_shapes_are_torch_s(
    padding: tuple[int, int] | str, kernel: tuple[int, int], dilation: tuple[int, int]
) -> None:
    stride = (1, 1) if padding == "same" else (2, 3)
    conv = nn.Conv2d(4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=2)
    node = nir.Conv2d((11, 9), np.zeros((6, 2, *kernel)), stride, padding, dilation, 2, np.zeros(6))
    graph = net([("x", "c")], x=nir.Input({"input": np.array([4, 11, 9])}), c=node)
    assert graphs.shapes(graph)["c"] == tuple(conv(torch.zeros(1, 4, 11, 9)).shape[1:])


def test_shapes_of_a_whole_network_are_torch_s() -> None:
    layers, found = conv_net(), {}
    deployment = read(layers, (2, 9, 7))
    x = torch.zeros(1, 2, 9, 7)
    for name, layer in layers.named_children():
        x = x if name in deployment.layers else layer(x)
        found[name] = tuple(x.shape[1:])
    assert {name: deployment.shapes[name] for name in found} == found


def test_kernel_larger_than_its_input_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        read(named(conv=nn.Conv2d(1, 1, 5)), (1, 4, 4))
    assert caught.value.code == "SNX206"


def test_removed_node_is_bridged() -> None:
    graph = net(
        [("x", "f"), ("f", "w"), ("w", "n")], x=vector(3), f=nir.Flatten({"input": np.array([3])}), w=weights(2, 3), n=lif(2)
    )
    bridged = graphs.remove_node(graph, "f", {})
    assert bridged.edges == [("x", "w"), ("w", "n")]
    assert "f" not in bridged.nodes
    with pytest.raises(UserError):
        graphs.remove_node(graph, "x", {})


def test_latency_counts_weight_layers_only() -> None:
    plan = Plan((1, 4, 4), (LayerPlan("a", np.full((1, 1, 2, 2), 2)), LayerPlan("b", np.full((2, 9), 2), "a")))
    assert deployment_from(plan).contract.latency == {"a": 1, "b": 2}
