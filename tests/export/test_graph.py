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
        graphs.latencies(graph, 1e-3)
    assert caught.value.code == code
    return caught.value


def test_order_follows_the_edges_not_the_node_table() -> None:
    graph = net(
        [("x", "w"), ("w", "n"), ("n", "y")], y=nir.Output({"output": np.array([2])}), n=lif(2), w=weights(2, 3), x=vector(3)
    )
    assert graphs.topological_order(graph) == ("x", "w", "n", "y")
    assert graphs.populations(graph) == ("n",)
    assert graphs.connections(graph)["n"] == (graphs.Connection("x", ("w",), "n"),)


def recurrent(**more: nir.NIRNode) -> nir.NIRGraph:
    """Input, weights, neurons that hear themselves through ``r``."""
    nodes = {"x": vector(3), "w": weights(2, 3), "n": lif(2), "r": weights(2, 2), **more}
    edges = [("x", "w"), ("w", "n"), ("n", "r"), ("r", "n")]
    return net(edges, **nodes)


def test_a_loop_is_found_from_the_input_whatever_the_order_of_the_edges() -> None:
    graph = recurrent()
    for edges in (graph.edges, graph.edges[::-1]):
        turned = net(list(edges), **graph.nodes)
        assert {(c.source, c.path, c.recurrent) for c in graphs.connections(turned)["n"]} == {
            ("x", ("w",), False),
            ("n", ("r",), True),
        }
        assert graphs.stages(turned) == (("n",),)
        assert graphs.latencies(turned, 1e-3) == {"n": 1}


def test_a_loop_without_a_neuron_is_refused_and_named() -> None:
    edges = [("x", "a"), ("a", "b"), ("b", "a"), ("b", "n")]
    graph = net(edges, x=vector(2), a=weights(2, 2), b=weights(2, 2), n=lif(2))
    with pytest.raises(UserError) as caught:
        graphs.connections(graph)
    assert caught.value.code == "SNX204"
    assert "a -> b" in str(caught.value) or "b -> a" in str(caught.value)


def two_in_a_loop(steps: float | None) -> nir.NIRGraph:
    """x -> a -> p -> b -> q, and back from q to p through ``f`` and perhaps a Delay."""
    nodes = {"x": vector(2), "a": weights(2, 2), "p": lif(2), "b": weights(2, 2), "q": lif(2), "f": weights(2, 2)}
    edges = [("x", "a"), ("a", "p"), ("p", "b"), ("b", "q"), ("q", "f")]
    if steps is None:
        return net([*edges, ("f", "p")], **nodes)
    return net([*edges, ("f", "d"), ("d", "p")], **nodes, d=nir.Delay(np.full(2, steps * 1e-3)))


def test_a_loop_needs_as_many_steps_as_it_has_connections() -> None:
    assert graphs.stages(two_in_a_loop(None)) == (("p", "q"),)
    assert "p" in str(refused(two_in_a_loop(None), "SNX207"))
    assert "p" in str(refused(two_in_a_loop(1), "SNX207"))
    assert graphs.latencies(two_in_a_loop(2), 1e-3) == {"p": 1, "q": 2}
    refused(two_in_a_loop(0), "SNX249")
    refused(two_in_a_loop(1.5), "SNX248")


def test_edge_to_a_missing_node_is_refused() -> None:
    assert "ghost" in str(refused(net([("x", "ghost")], x=vector(3)), "SNX104"))


def test_the_longest_path_decides_the_latency() -> None:
    edges = [("x", "a"), ("a", "n"), ("n", "b"), ("b", "m"), ("x", "c"), ("c", "m")]
    graph = net(edges, x=vector(3), a=weights(3, 3), n=lif(3), b=weights(3, 3), c=weights(3, 3), m=lif(3))
    assert graphs.latencies(graph, 1e-3) == {"n": 1, "m": 2}


def test_paths_of_equal_length_share_a_latency_and_two_connections() -> None:
    edges = [("x", "a"), ("a", "n"), ("x", "b"), ("b", "n")]
    graph = net(edges, x=vector(3), a=weights(2, 3), b=weights(2, 3), n=lif(2))
    assert graphs.latencies(graph, 1e-3) == {"n": 1}
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
    graph = net([("x", "d")], x=vector(3), d=nir.NIRGraph({"i": vector(3)}, [], type_check=False))
    assert "NIRGraph" in str(refused(graph, "SNX201"))


def test_a_matrix_may_drive_a_population_of_maps() -> None:
    ones = np.ones((2, 3, 4))
    graph = net([("x", "w"), ("w", "n")], x=vector(5), w=weights(24, 5), n=nir.LIF(ones, ones, ones * 0, ones, ones * 0))
    assert graphs.shapes(graph)["n"] == (2, 3, 4)


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


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("padding", [0, 3, "same"])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (2, 3), (5, 2)])
def test_one_dimensional_convolution_shapes_are_torch_s(padding: int | str, kernel: int, dilation: int) -> None:
    stride = 1 if padding == "same" else 2
    conv = nn.Conv1d(4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=2)
    node = nir.Conv1d(17, np.zeros((6, 2, kernel)), stride, padding, dilation, 2, np.zeros(6))
    graph = net([("x", "c")], x=nir.Input({"input": np.array([4, 17])}), c=node)
    assert graphs.shapes(graph)["c"] == tuple(conv(torch.zeros(1, 4, 17)).shape[1:])
