"""A flip within rounding of the threshold is a tie; a changed network is not."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.grid import with_parameters
from snn_export.export.interpreter import Activity
from snn_export.export.ties import FLOAT32_ROUNDOFF, FLOAT64_ROUNDOFF, explain
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import NeuronSpec
from tests.networks import dense_net, leaky, named, read, uniform
from tests.torch_graphs import graph_of

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


def flipped(deployment: Deployment, amount: float, *, fires: bool) -> dict[str, Activity]:
    """A run in which the first membrane lies ``amount`` away from the threshold, on the side that ``fires`` says.

    The interpreter itself computes 0.6 (rounded) against the threshold; what follows the flip follows from it.
    """
    theta = float(deployment.graph.nodes["lif"].v_threshold[0])
    run = interpreter.run(deployment, INPUT)
    spikes, membrane = run["lif"].spikes.copy(), run["lif"].membrane.copy()
    spikes[0], membrane[0] = fires, 0.0 if fires else theta - amount
    run["lif"] = Activity(spikes, run["lif"].current, membrane)
    run["readout"] = interpreter.run_population(deployment, "readout", {"lif": spikes.astype(np.float64)})
    return run


def summed(
    run: dict[str, Activity], deployment: Deployment, inputs: np.ndarray, roundoff: float
) -> dict[str, tuple[int, int, int]]:
    found = explain(deployment, inputs, run, roundoff)
    return {name: (int(f.tied.sum()), int(f.faulty.sum()), int(f.beyond.sum())) for name, f in found.items()}


@pytest.mark.parametrize(
    ("shift", "roundoff", "tie"),
    [
        (1e-8, FLOAT32_ROUNDOFF, True),
        (1e-5, FLOAT32_ROUNDOFF, False),
        (1e-8, FLOAT64_ROUNDOFF, False),
        (1e-17, FLOAT64_ROUNDOFF, True),
    ],
)
def test_distance_is_held_against_the_error_bound(shift: float, roundoff: float, tie: bool) -> None:
    """A run that fires where the interpreter, ``shift`` below the threshold, stays silent."""
    deployment = tied_network(shift + 2e-16)
    assert not interpreter.run(deployment, INPUT)["lif"].spikes[0].any()
    tied, faulty, _ = summed(flipped(deployment, 0.0, fires=True), deployment, INPUT, roundoff)["lif"]
    assert (tied, faulty) == ((1, 0) if tie else (0, 1))


def test_the_silent_side_is_asked_whichever_run_it_is() -> None:
    deployment = tied_network(-1e-8)
    assert interpreter.run(deployment, INPUT)["lif"].spikes[0].all()
    for amount, expected in ((0.0, (1, 0)), (1e-4, (0, 1))):
        found = summed(flipped(deployment, amount, fires=False), deployment, INPUT, FLOAT32_ROUNDOFF)["lif"]
        assert found[:2] == expected


def test_a_run_of_the_interpreter_is_explained_by_itself() -> None:
    deployment = tied_network()
    found = summed(interpreter.run(deployment, INPUT), deployment, INPUT, FLOAT64_ROUNDOFF)
    assert found == {"lif": (0, 0, 0), "readout": (0, 0, 0)}


def test_a_tie_excuses_nothing_behind_it() -> None:
    """The readout is judged on the spikes that the tie gave; a fault there stays a fault."""
    deployment = tied_network(1e-8)
    run = flipped(deployment, 0.0, fires=True)
    assert summed(run, deployment, INPUT, FLOAT32_ROUNDOFF)["readout"] == (0, 0, 0)
    wrong = run["readout"].membrane.copy()
    wrong[-1] += 0.1
    run["readout"] = Activity(run["readout"].spikes, run["readout"].current, wrong)
    assert summed(run, deployment, INPUT, FLOAT32_ROUNDOFF)["readout"][2] > 0


def test_nan_is_beyond_every_bound() -> None:
    deployment = tied_network()
    run = interpreter.run(deployment, INPUT)
    run["readout"] = Activity(run["readout"].spikes, run["readout"].current, run["readout"].membrane * np.nan)
    assert summed(run, deployment, INPUT, FLOAT32_ROUNDOFF)["readout"][2] == run["readout"].membrane.size


@pytest.mark.parametrize("node", ["fc1", "fc2", "fc3"])
def test_changed_weight_is_found_in_its_own_layer_only(node: str) -> None:
    deployment = read(dense_net(), (4,), steps=10)
    inputs = uniform(np.random.default_rng(0), 40, 4, high=2.0)
    old = deployment.graph.nodes[node]
    changed = deployment.replace(graph=replace_nodes(deployment.graph, {node: with_parameters(old, old.weight + 0.02, old.bias)}))
    found = summed(interpreter.run(changed, inputs), deployment, inputs, FLOAT32_ROUNDOFF)
    reached = {"fc1": "lif1", "fc2": "lif2", "fc3": "readout"}[node]
    for layer, (tied, faulty, beyond) in found.items():
        assert (faulty + beyond > 0) == (layer == reached)
        assert not tied


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


@pytest.mark.parametrize(("amount", "tie"), [(1e-8, True), (0.1, False), (0.6, False)])
def test_a_doubled_threshold_is_the_one_that_was_compared_with(amount: float, tie: bool) -> None:
    """2.0 leaves 1.4 above the threshold of 0.6; the next step brings 1.2, exactly what it must pass then."""
    spec = NeuronSpec(0, reset="subtract", double_to_refire=True)
    one = np.ones(1)
    nodes = {
        "input": nir.Input({"input": one.astype(int)}), "w": nir.Scale(one), "n": nir.IF(one * 1e3, one * 0.6, one * 0),
        "output": nir.Output({"output": one.astype(int)}),
    }  # fmt: skip
    deployment = graph_of(nodes, [("input", "w"), ("w", "n"), ("n", "output")], {"n": spec}, steps=2)
    inputs = np.array([2.0, -0.2 - amount]).reshape(2, 1, 1)
    run = interpreter.run(deployment, inputs)
    assert run["n"].spikes.ravel().tolist() == [True, False]
    spikes, membrane = run["n"].spikes.copy(), run["n"].membrane.copy()
    spikes[1], membrane[1] = True, 0.6
    found = explain(deployment, inputs, {"n": Activity(spikes, run["n"].current, membrane)}, FLOAT32_ROUNDOFF)["n"]
    assert (bool(found.tied.any()), bool(found.faulty.any())) == (tie, not tie)
