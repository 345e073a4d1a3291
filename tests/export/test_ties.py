"""A flip within rounding of the threshold is a tie; a changed network is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.grid import with_parameters
from snn_export.export.interpreter import Activity
from snn_export.export.ties import FLOAT32_ROUNDOFF, FLOAT64_ROUNDOFF, membranes_out_of_bound, tied_samples
from snn_export.models.neurons.integrator import Integrator
from tests.networks import dense_net, leaky, named, read, uniform

INPUT = np.array([[0.1, 0.2, 0.3]])


def tied_network(shift: float = 0.0) -> Deployment:
    """One neuron whose first membrane is 0.1 + 0.2 + 0.3, with a threshold of 0.6 (+ shift): order of the sum decides."""
    layers = named(fc=nn.Linear(3, 1, bias=False), lif=leaky(512, 0.6), out=nn.Linear(1, 2, bias=False), readout=Integrator())
    with torch.no_grad():
        layers.get_submodule("fc").weight.fill_(1.0)
    deployment = read(layers, (3,), steps=3)
    node = deployment.graph.nodes["lif"]
    node.v_threshold = np.array([0.6 + shift])
    return deployment


def flipped(deployment: Deployment, amount: float) -> tuple[dict[str, Activity], dict[str, Activity]]:
    """Two runs whose first membranes lie ``amount`` above and exactly at the threshold."""
    theta = float(deployment.graph.nodes["lif"].v_threshold[0])
    silent = interpreter.run(deployment, INPUT)
    first, second = (dict(silent), dict(silent))
    for run, fires in ((first, True), (second, False)):
        spikes, membrane = silent["lif"].spikes.copy(), silent["lif"].membrane.copy()
        spikes[0], membrane[0] = fires, 0.0 if fires else theta - amount
        run["lif"] = Activity(spikes, silent["lif"].current, membrane)
    return first, second


def test_exact_tie_is_a_tie_in_both_directions() -> None:
    deployment = tied_network()
    first, second = flipped(deployment, 0.0)
    for a, b in ((first, second), (second, first)):
        assert tied_samples(deployment, INPUT, a, b, FLOAT64_ROUNDOFF).tolist() == [True]


@pytest.mark.parametrize(("distance", "expected"), [(1e-8, True), (1e-5, False)])
def test_distance_is_held_against_the_error_bound(distance: float, expected: bool) -> None:
    deployment = tied_network()
    first, second = flipped(deployment, distance)
    assert tied_samples(deployment, INPUT, first, second, FLOAT32_ROUNDOFF).tolist() == [expected]
    assert not tied_samples(deployment, INPUT, first, second, FLOAT64_ROUNDOFF).any()


def test_equal_runs_have_no_ties() -> None:
    deployment = tied_network()
    run = interpreter.run(deployment, INPUT)
    assert not tied_samples(deployment, INPUT, run, run, FLOAT32_ROUNDOFF).any()


@pytest.mark.parametrize("node", ["fc1", "fc2", "fc3"])
def test_changed_weight_is_not_a_tie(node: str) -> None:
    deployment = read(dense_net(), (4,), steps=10)
    inputs = uniform(np.random.default_rng(0), 40, 4, high=2.0)
    old = deployment.graph.nodes[node]
    weight = old.weight.copy()
    weight += 0.02
    changed = deployment.replace(graph=replace_nodes(deployment.graph, {node: with_parameters(old, weight, old.bias)}))
    first, second = interpreter.run(deployment, inputs), interpreter.run(changed, inputs)
    differing = np.zeros(40, bool)
    for name, run in first.items():
        differing |= (run.spikes != second[name].spikes).any(axis=(0, 2))
    assert not tied_samples(deployment, inputs, first, second, FLOAT32_ROUNDOFF).any()
    assert differing.any() == (node != "fc3")
    reached = {"fc1": "lif1", "fc2": "lif2", "fc3": "readout"}[node]
    assert membranes_out_of_bound(deployment, inputs, first, second, FLOAT32_ROUNDOFF)[reached].any()


def test_bound_covers_float32_whatever_the_order_of_the_sum() -> None:
    """Sums of one neuron in float32 over 200 random orders all lie within the bound of the float64 sum."""
    rng, fan_in = np.random.default_rng(0), 300
    layers = named(fc=nn.Linear(fan_in, 1), readout=Integrator())
    deployment = read(layers, (fan_in,), steps=1)
    x = rng.normal(size=(1, fan_in)).astype(np.float32)
    bound = interpreter.error_bound(deployment, "readout", {"input": x[None].astype(np.float64)}, FLOAT32_ROUNDOFF)[0, 0, 0]
    exact = interpreter.run(deployment, x)["readout"].membrane[0, 0, 0]
    node = deployment.graph.nodes["fc"]
    products = np.append((node.weight[0].astype(np.float32) * x[0]).astype(np.float32), node.bias.astype(np.float32))
    errors = []
    for _ in range(200):
        total = np.float32(0.0)
        for product in rng.permutation(products):
            total += product
        errors.append(abs(float(total) - exact))
    assert 0 < max(errors) <= bound
