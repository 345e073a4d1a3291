from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_export.energy.fan_out import fan_out
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Connection
from snn_export.export.linear import apply
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from, even


def dense_matrix(deployment: Deployment, connection: Connection, ones: bool) -> NDArray[Any]:
    """(source neurons, target neurons): number of synapses, from pushing one unit vector after the other through the path."""
    source = deployment.shapes[connection.source]
    x: NDArray[Any] = np.eye(int(np.prod(source)), dtype=np.int64).reshape(-1, *source)
    for name in connection.path:
        node, synapse = deployment.graph.nodes[name], deployment.synapses.get(name)
        if synapse is None:
            x = apply(name, node, x)
        else:
            weight = np.ones_like(synapse.weight, np.int64) if ones else (synapse.weight != 0).astype(np.int64)
            x = apply(name, node, x, weight, np.zeros(len(weight), np.int64))
    return x.reshape(len(x), -1)


def matches_brute_force(deployment: Deployment) -> None:
    for connections in deployment.connections.values():
        for connection in connections:
            found = fan_out(deployment, connection)
            assert found.structural.dtype == found.effective.dtype == np.int64
            assert found.structural.shape == deployment.shapes[connection.source]
            for got, ones in ((found.structural, True), (found.effective, False)):
                expected = dense_matrix(deployment, connection, ones).sum(axis=1)
                assert np.array_equal(got.ravel(), expected)


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return even(rng, shape) * (rng.random(shape) < 0.6)


pairs = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))


@settings(max_examples=120, deadline=None)
@given(
    size=pairs(1, 8), kernel=pairs(1, 4), stride=pairs(1, 3), dilation=pairs(1, 3),
    padding=st.one_of(pairs(0, 3), st.sampled_from(["same", "valid"])),
    groups=st.integers(1, 3), per_group=pairs(1, 2), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_a_convolution_is_counted_as_pushing_unit_vectors_through_it_counts(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[int, int] | str, groups: int, per_group: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    layer = LayerPlan(
        "lif", sparse(rng, (groups * per_group[1], per_group[0], *kernel)), groups=groups, dilation=dilation, padding=padding,
        stride=(1, 1) if padding == "same" else stride,
    )  # fmt: skip
    try:
        deployment = deployment_from(Plan((groups * per_group[0], *size), (layer,)))
    except UserError as error:
        assert error.code == "SNX206", "only a kernel that does not fit is no example"
        return
    matches_brute_force(deployment)


def test_a_dense_layer_behind_a_flatten_with_two_sources() -> None:
    rng = np.random.default_rng(1)
    one, two = (LayerPlan(name, sparse(rng, (3, 2, 3, 2)), stride=(2, 1), padding=(1, 0)) for name in "ab")
    neurons = int(np.prod(deployment_from(Plan((2, 5, 4), (one,))).shapes["a"]))
    plan = Plan((2, 5, 4), (one, two, LayerPlan("out", sparse(rng, (4, neurons)), source="a")), readout="out")
    plain = deployment_from(plan)
    graph = nir.NIRGraph(plain.graph.nodes, [*plain.graph.edges, ("b", "out.flatten")], type_check=False)
    deployment = replace(plain, graph=graph)
    assert [connection.source for connection in deployment.connections["out"]] == ["a", "b"]
    matches_brute_force(deployment)


def test_a_corner_pixel_has_four_ninths_of_the_fan_out_of_one_in_the_middle() -> None:
    layer = LayerPlan("lif", np.full((5, 1, 3, 3), 2), padding=(1, 1))
    deployment = deployment_from(Plan((1, 6, 6), (layer,)))
    found = fan_out(deployment, deployment.connections["lif"][0])
    assert (found.structural[0, 0, 0], found.structural[0, 0, 3], found.structural[0, 3, 3]) == (20, 30, 45)
    assert found.synapses == 5 * 16 * 16, "(3 x 6 - 2) reads per axis"


def test_a_float_deployment_counts_the_zeros_of_its_own_weights() -> None:
    weight = np.array([[2, 0, 4], [0, 0, 6]])
    quantised = deployment_from(Plan((3,), (LayerPlan("lif", weight),)))
    contract = quantised.contract.model_copy(update={"quantisation": None})
    deployment = quantised.replace(contract=contract, synapses={}, populations={})
    found = fan_out(deployment, deployment.connections["lif"][0])
    assert found.structural.tolist() == [2, 2, 2]
    assert found.effective.tolist() == [1, 0, 2]


def rewired(deployment: Deployment, node: nir.NIRNode, after: str) -> Deployment:
    """The deployment with a node put in behind the node ``after``."""
    edges = []
    for source, target in deployment.graph.edges:
        edges += [(source, "extra"), ("extra", target)] if source == after else [(source, target)]
    graph = nir.NIRGraph({**deployment.graph.nodes, "extra": node}, edges, type_check=False)
    return replace(deployment, graph=graph)


def test_a_scale_of_zero_before_the_weights_silences_a_source_and_nothing_else_may() -> None:
    plain = deployment_from(Plan((3,), (LayerPlan("lif", np.full((2, 3), 2)),)))
    scaled = rewired(plain, nir.Scale(np.array([1.0, 0.0, 0.5])), "input")
    found = fan_out(scaled, scaled.connections["lif"][0])
    assert found.structural.tolist() == [2, 2, 2]
    assert found.effective.tolist() == [2, 0, 2]
    behind = rewired(plain, nir.Scale(np.array([1.0, 0.0])), "lif.weight")
    with pytest.raises(UserError, match="SNX320"):
        fan_out(behind, behind.connections["lif"][0])


def test_pooling_two_weight_layers_and_none_are_refused() -> None:
    plain = deployment_from(Plan((1, 4, 4), (LayerPlan("lif", np.full((1, 1, 1, 1), 2)),)))
    pooled = rewired(plain, nir.SumPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])), "input")
    twice = rewired(plain, plain.graph.nodes["lif.weight"], "input")
    none = replace(plain, graph=nir.NIRGraph(plain.graph.nodes, [("input", "lif"), ("lif", "output")], type_check=False))
    for broken in (pooled, twice, none):
        with pytest.raises(UserError, match="SNX320") as caught:
            fan_out(broken, broken.connections["lif"][0])
        assert "input" in caught.value.diagnostics[0].where
