"""Neurons that differ become populations of their own, and go on doing what they did."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from torch import nn

from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.pass_ import compare_exactly, run_passes
from snn_export.export.passes.split_populations import SplitPopulations
from snn_export.export.populations import constants, uniform_groups, with_constants
from snn_export.models.diagnostics import UserError
from tests.networks import conv_net, delayed_net, dense_net, read, recurrent_net, uniform


def uneven(layers: nn.Sequential, shape: tuple[int, ...], name: str, factors: Any) -> Deployment:
    """A network in which the thresholds of one population differ by these factors."""
    deployment = read(layers, shape, steps=12)
    node = deployment.graph.nodes[name]
    factor = np.resize(factors, deployment.shapes[name]) if np.ndim(factors) == 1 else factors
    changed = with_constants(node, v_threshold=node.v_threshold * factor)
    return deployment.replace(graph=replace_nodes(deployment.graph, {name: changed}))


CASES = {
    "dense": (dense_net, (4,), "lif1", np.array([1.0, 0.5, 2.0])),
    "two in a row": (dense_net, (4,), "lif2", np.array([1.0, 0.5])),
    "recurrent": (recurrent_net, (7,), "hidden", np.array([1.0, 0.6, 1.4])),
    "one to one": (delayed_net, (6,), "lif2", np.array([1.0, 0.5])),
    "delay per neuron": (delayed_net, (6,), "lif1", np.array([1.0, 1.3, 0.7])),
    "channels": (conv_net, (2, 9, 7), "lif1", np.array([1, 0.5, 1, 2.0]).reshape(4, 1, 1)),
    "channels behind groups": (conv_net, (2, 9, 7), "lif2", np.array([1, 0.5, 1, 2, 0.5, 1.0]).reshape(6, 1, 1)),
    "pixels": (conv_net, (2, 9, 7), "lif1", np.array([1.0, 0.5, 2.0])),
}


def of(case: str) -> Deployment:
    build, shape, name, factors = CASES[case]
    return uneven(build(), shape, name, factors)


@pytest.mark.parametrize("case", CASES)
def test_parts_do_what_the_whole_did(case: str) -> None:
    _, shape, name, factors = CASES[case]
    before = of(case)
    inputs = uniform(np.random.default_rng(0), 12, *shape, low=-0.5, high=2.0)
    after = run_passes(before, [SplitPopulations()], inputs)
    parts = [layer for layer in after.layers if after.contract.origin[layer] == name]
    assert len(parts) == len(np.unique(factors)) > 1
    assert name not in after.layers
    for part in parts:
        assert all(np.unique(value).size == 1 for key, value in constants(after.graph.nodes[part]).items() if key != "r")
    assert compare_exactly(before, after, inputs).fault is None
    assert SplitPopulations()(after) is after


def test_a_part_takes_no_name_that_is_taken() -> None:
    """Neither that of a population (lif2 is called lif1.part2 here) nor that of a weight node."""
    before = of("dense")
    change = {"lif2": "lif1.part2", "fc3": "fc1.part1"}
    rename = lambda name: change.get(name, name)
    assert set(change) < set(before.graph.nodes)
    graph, contract = before.graph, before.contract
    nodes = {rename(name): node for name, node in graph.nodes.items()}
    edges = [(rename(a), rename(b)) for a, b in graph.edges]
    update = {
        "neurons": {rename(name): spec for name, spec in contract.neurons.items()},
        "latency": {rename(name): steps for name, steps in contract.latency.items()},
        "origin": {rename(name): rename(origin) for name, origin in contract.origin.items()},
    }
    before = before.replace(
        graph=nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False), contract=contract.model_copy(update=update)
    )
    inputs = uniform(np.random.default_rng(0), 12, 4, low=-0.5, high=2.0)
    after = run_passes(before, [SplitPopulations()], inputs)
    parts = [name for name, origin in after.contract.origin.items() if origin == "lif1"]
    assert parts == ["lif1.part1", "lif1.part3", "lif1.part4"]
    assert set(before.layers) - {"lif1"} <= set(after.layers)
    assert compare_exactly(before, after, inputs).fault is None


def test_maps_stay_maps_and_convolutions_stay_convolutions() -> None:
    after = SplitPopulations()(of("channels"))
    assert after.shapes["lif1.part1"] == (2, *of("channels").shapes["lif1"][1:])
    assert sum(isinstance(node, nir.Conv2d) for node in after.graph.nodes.values()) == 3, "conv2 has groups and becomes a matrix"


def test_the_check_notices_parts_that_are_mixed_up() -> None:
    before = of("dense")
    after = SplitPopulations()(before)
    swapped = {"lif1.part1": after.graph.nodes["lif1.part2"], "lif1.part2": after.graph.nodes["lif1.part1"]}
    inputs = uniform(np.random.default_rng(0), 12, 4, high=2.0)
    assert compare_exactly(before, after.replace(graph=replace_nodes(after.graph, swapped)), inputs).fault in swapped


def test_a_spiking_readout_is_not_split() -> None:
    layers = dense_net()[:4]
    before = uneven(layers, (4,), "lif2", np.array([1.0, 2.0]))
    with pytest.raises(UserError) as caught:
        SplitPopulations()(before)
    assert (caught.value.code, caught.value.diagnostics[0].where) == ("SNX261", "lif2")


def test_neurons_are_grouped_by_decay_and_threshold() -> None:
    ones = np.ones(4)
    node = nir.LIF(np.array([1.0, 2, 1, 2]), ones, ones * 0, np.array([5.0, 5, 6, 5]), ones * 0)
    assert [group.tolist() for group in uniform_groups(node, (4,))] == [[0], [1, 3], [2]]
