"""Relays spend steps and change nothing."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from torch import nn

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES
from snn_export.export.passes.balance_latency import BalanceLatency
from snn_export.export.passes.compose_linear import ComposeLinear
from snn_export.export.passes.insert_weights import InsertWeights
from snn_export.export.passes.pass_ import run_passes
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.residual import ResidualSum
from tests.networks import leaky, named, read, residual_net, uniform


def conv_gaps(deployment: Deployment) -> list[int]:
    return [
        deployment.latency_gap(wire)
        for wires in deployment.wires.values()
        for wire in wires
        if isinstance(deployment.graph.nodes[wire.weight], CONV_TYPES)
    ]


def two_shortcuts() -> nn.Sequential:
    """One source, two convolutions that wait: one step for the inner sum, and two for the outer one."""
    inner = ResidualSum(
        named(conv1=nn.Conv2d(4, 4, 3, padding=1), lif=leaky(300, 0.2), conv2=nn.Conv2d(4, 4, 3, padding=1)),
        named(conv=nn.Conv2d(4, 4, 3, padding=1)),
    )
    outer = ResidualSum(
        named(inner=inner, lif2=leaky(400, 0.5), conv3=nn.Conv2d(4, 4, 1)), named(conv=nn.Conv2d(4, 4, (3, 5), padding=(1, 2)))
    )
    return named(
        conv=nn.Conv2d(2, 4, 3), lif=leaky(500, 0.2), outer=outer, lif3=leaky(200, 0.4), flat=nn.Flatten(), fc=nn.Linear(80, 3),
        readout=Integrator(),
    )  # fmt: skip


def prepared(layers: nn.Sequential, shape: tuple[int, ...]) -> Deployment:
    return ComposeLinear()(InsertWeights()(read(layers, shape)))


def test_relays_repeat_spikes_until_no_convolution_waits() -> None:
    before = prepared(two_shortcuts(), (2, 6, 7))
    assert sorted(conv_gaps(before)) == [0, 0, 0, 0, 1, 2]
    inputs = uniform(np.random.default_rng(0), 8, 2, 6, 7, high=2.0)
    after = run_passes(before, [BalanceLatency(neuron_bytes=1)], inputs)
    assert set(conv_gaps(after)) == {0}
    assert set(after.layers) - set(before.layers) == {"lif.relay1", "lif.relay2"}
    assert after.contract.latency["lif3"] == before.contract.latency["lif3"]
    found = interpreter.run(after, inputs)
    assert found["lif"].spikes.any()
    np.testing.assert_array_equal(found["lif.relay2"].spikes, found["lif"].spikes)
    assert not found["lif.relay2"].membrane.any()


def renamed(deployment: Deployment, old: str, new: str) -> Deployment:
    """The same network with another name for a population."""
    change = lambda name: new if name == old else name
    graph, contract = deployment.graph, deployment.contract
    nodes = {change(name): node for name, node in graph.nodes.items()}
    edges = [(change(a), change(b)) for a, b in graph.edges]
    update = {
        "neurons": {change(name): spec for name, spec in contract.neurons.items()},
        "latency": {change(name): steps for name, steps in contract.latency.items()},
        "origin": {change(name): change(origin) for name, origin in contract.origin.items()},
    }
    return deployment.replace(
        graph=nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False), contract=contract.model_copy(update=update)
    )


def test_a_relay_takes_no_name_that_is_taken() -> None:
    inputs = uniform(np.random.default_rng(0), 8, 2, 6, 7, high=2.0)
    before = renamed(prepared(two_shortcuts(), (2, 6, 7)), "outer.main.lif2", "lif.relay1")
    after = run_passes(before, [BalanceLatency(neuron_bytes=1)], inputs)
    assert set(before.layers) < set(after.layers)
    assert set(after.layers) - set(before.layers) == {"lif.relay2", "lif.relay3"}
    np.testing.assert_array_equal(
        interpreter.run(after, inputs)["lif.relay1"].spikes, interpreter.run(before, inputs)["lif.relay1"].spikes
    )


def test_a_relay_is_matched_with_the_layer_it_repeats() -> None:
    layers = two_shortcuts()
    after = BalanceLatency(neuron_bytes=1)(prepared(layers, (2, 6, 7)))
    assert StudentSimulator(layers).check(after) == []
    inputs = uniform(np.random.default_rng(0), 3, 2, 6, 7, high=2.0).astype(np.float32)
    trace = StudentSimulator(layers).run(after, inputs, ("spikes", "membrane"))
    np.testing.assert_array_equal(trace.layers["lif.relay1"].spikes, trace.layers["lif"].spikes)
    for layer in explain(after, inputs, trace.layers, FLOAT32_ROUNDOFF).values():
        assert not layer.faulty.any()
        assert not layer.beyond.any()


@pytest.mark.parametrize(("neuron_bytes", "relays"), [(128, False), (1, True)])
def test_the_cheaper_way_is_taken(neuron_bytes: int, relays: bool) -> None:
    """The waiting convolutions have 2,080 and 3,040 synapses of four bytes; the relays are 2 x 80 neurons of 132."""
    before = prepared(two_shortcuts(), (2, 6, 7))
    after = BalanceLatency(neuron_bytes)(before)
    assert (after is not before) == relays


def test_a_pointwise_shortcut_is_cheaper_as_a_matrix_and_a_dense_one_needs_no_relay() -> None:
    before = prepared(residual_net(), (2, 8, 6))
    assert max(conv_gaps(before)) == 1
    assert BalanceLatency()(before) is before
