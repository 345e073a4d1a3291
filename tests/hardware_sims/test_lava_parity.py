"""Real Lava against the int64 interpreter: spikes, u and v of every population in every step, bit for bit.

Starting Lava costs a second or more, so every run holds many independent networks side by side, and several samples in one
stream.
"""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.arithmetic import THRESHOLD_MAX
from tests.builders import (
    LayerPlan,
    Plan,
    deployment_from,
    even,
    random_conv,
    random_dense,
    random_deployment,
    random_inputs,
    random_neuron,
)
from tests.lava_environment import require_lava

pytestmark = pytest.mark.lava

EVERYTHING = ("spikes", "membrane", "current")
NETWORKS = 34


@pytest.fixture(autouse=True)
def _lava() -> None:
    require_lava()


def lava(deployment: Deployment, inputs: np.ndarray, **options: object) -> Trace:
    simulator = LavaSimulator(time_limit=180.0, **options)
    return simulator.run(simulator.compile(deployment), inputs, EVERYTHING)


def differences(deployment: Deployment, inputs: np.ndarray, trace: Trace) -> list[str]:
    """Populations that differ, with their integers; empty where Lava and the interpreter agree on everything."""
    found = []
    for name, want in interpreter.run(deployment, inputs, "int64").items():
        got = trace.layers[name]
        wrong = [
            np.argwhere(a != b)
            for a, b in ((want.spikes, got.spikes), (want.membrane, got.membrane), (want.current, got.current))
        ]
        if any(len(places) for places in wrong):
            first = min(tuple(places[0]) for places in wrong if len(places))
            found.append(f"{name} at (step, sample, neuron...) {first}: {deployment.populations[name]}")
    return found


@st.composite
def branches(draw: st.DrawFn, index: int) -> tuple[LayerPlan, ...]:
    """One small network: dense, dense after dense, conv, grouped conv after conv, or dense after conv."""
    rng = np.random.default_rng([index, draw(st.integers(0, 2**32 - 1))])
    kind = draw(st.sampled_from(["dense", "deep", "conv", "grouped", "mixed"]))
    name = f"{kind}{index}"
    if kind in ("dense", "deep"):
        first = replace(random_dense(rng, f"{name}.1", "input", (40, 5)), weight_exponent=draw(st.integers(0, 3)))
        second = (random_dense(rng, f"{name}.2", first.name, (5, 4)),) if kind == "deep" else ()
        return first, *second
    first = random_conv(rng, f"{name}.1", "input", (2, 4), groups=draw(st.sampled_from([1, 2])))
    first = replace(first, dilation=(1, 1))
    if kind == "grouped":
        return first, replace(random_conv(rng, f"{name}.2", first.name, (4, 6), groups=2), dilation=(1, 1), padding=(2, 1))
    if kind == "mixed":
        neurons = int(np.prod(deployment_from(Plan((2, 5, 4), (first,))).shapes[first.name]))
        return first, random_neuron(rng, LayerPlan(f"{name}.2", even(rng, (3, neurons), 256), first.name), 2048)
    return (first,)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    networks=st.tuples(*(branches(index) for index in range(NETWORKS))),
    low=st.sampled_from([-15, 0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_networks_agree_bit_for_bit(networks: tuple[tuple[LayerPlan, ...], ...], low: int, seed: int) -> None:
    layers = tuple(layer for network in networks for layer in network)
    deployment = deployment_from(Plan((2, 5, 4), layers, steps=11, low=low, high=15, events=True))
    inputs = random_inputs(np.random.default_rng(seed), deployment, 4)
    assert sum(activity.overflows for activity in interpreter.run(deployment, inputs, "int64").values()) > 0
    assert differences(deployment, inputs, lava(deployment, inputs)) == []


@pytest.mark.parametrize("high", [1, 15])
def test_a_deep_convolutional_network_streams_many_samples(high: int) -> None:
    rng = np.random.default_rng(high + 1)
    deployment = random_deployment(rng, steps=6, high=high)
    inputs = random_inputs(rng, deployment, 9)
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == []
    assert all(layer.counts.any() for name, layer in trace.layers.items() if name != "readout")
    last = interpreter.run(deployment, inputs, "int64")["readout"].membrane[-1]
    assert trace.predictions.tolist() == last.argmax(axis=1).tolist()
    assert trace.latency == {"conv1": 1, "conv2": 2, "readout": 3}


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_steps_than_layers(steps: int) -> None:
    """The reset offset of a deep layer passes the end of a sample."""
    rng = np.random.default_rng(7)
    deployment = random_deployment(rng, steps=steps)
    inputs = random_inputs(rng, deployment, 5)
    assert differences(deployment, inputs, lava(deployment, inputs)) == []


def test_the_edges_of_the_number_formats() -> None:
    """Values computed by hand, for Lava and for the interpreter; the input is 512 or -512 in the first step only."""
    one = np.full((1, 1), 2)
    layers = (
        LayerPlan("at_threshold", one, threshold=1024),
        LayerPlan("above_threshold", one, threshold=1024, bias=np.ones(1)),
        LayerPlan("widest_current", one, weight_exponent=7),
        LayerPlan("decaying", one, du=1000, dv=1000),
        LayerPlan("saturating", one * 0, bias=np.full(1, -4096), bias_exponent=7),
        LayerPlan("firing_readout", one * 0, bias=np.full(1, 4095), bias_exponent=7),
    )
    deployment = deployment_from(Plan((1,), layers, steps=18, low=-512, high=512, events=True))
    inputs = np.zeros((18, 2, 1))
    inputs[0] = [[512], [-512]]
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == []
    u = {name: layer.current[:, :, 0] for name, layer in trace.layers.items()}
    v = {name: layer.membrane[:, :, 0] for name, layer in trace.layers.items()}
    assert trace.layers["at_threshold"].counts.ravel().tolist() == [0, 0]  # v = 65536 = 1024 << 6: not above
    assert v["at_threshold"][0].tolist() == [65536, -65536]
    assert trace.layers["above_threshold"].spikes[0].ravel().tolist() == [True, False]
    assert v["above_threshold"][0].tolist() == [0, -65535]
    assert u["widest_current"][0].tolist() == [1 << 23, 1 << 23]  # +2^23 is kept, -2^23 wraps to it
    assert u["decaying"][:3, 1].tolist() == [-65536, -49520, -37418]  # toward zero: floor would give -37419
    assert v["decaying"][1, 1] == -49536 - 49520
    assert v["saturating"][15:, 0].tolist() == [-(2**23) + 1] * 3
    assert trace.layers["firing_readout"].counts[0, 0] == 1  # 131071 << 6 is below where v saturates
    assert v["firing_readout"][16, 0] == 0
    assert THRESHOLD_MAX << 6 == 2**23 - 64


def test_two_sources_into_one_weight_node_count_twice() -> None:
    """Lava reads a port of spikes as bool, so a sum before the weight would count once."""
    one = np.full((1, 1), 2)
    layers = (LayerPlan("a", one), LayerPlan("b", one), LayerPlan("sum", one, "a", dv=0))
    layers = (*(replace(layer, threshold=0) for layer in layers[:2]), layers[2])
    deployment = deployment_from(Plan((1,), layers, steps=3))
    edges = [*deployment.graph.edges, ("b", "sum.weight")]
    deployment = deployment.replace(graph=nir.NIRGraph(deployment.graph.nodes, edges, type_check=False))
    trace = lava(deployment, np.ones((2, 1)))
    assert differences(deployment, np.ones((2, 1)), trace) == []
    assert trace.layers["sum"].membrane[:, 0, 0].tolist() == [256, 512, 768]


def test_lavas_own_monitors_see_what_the_recorder_wrote() -> None:
    rng = np.random.default_rng(3)
    deployment = random_deployment(rng, steps=4)
    inputs = random_inputs(rng, deployment, 3)
    assert differences(deployment, inputs, lava(deployment, inputs, monitors=True)) == []


def test_a_batch_split_over_several_runs_is_the_same() -> None:
    rng = np.random.default_rng(5)
    deployment = random_deployment(rng, steps=4)
    inputs = random_inputs(rng, deployment, 5)
    trace = lava(deployment, inputs, samples_per_run=2)
    assert differences(deployment, inputs, trace) == []
    assert trace.readout.shape == (5, 10)


def test_only_what_was_asked_for_is_kept_and_fixed_point_models_ran() -> None:
    rng = np.random.default_rng(6)
    deployment = random_deployment(rng, steps=3)
    steps: list[tuple[int, int]] = []
    simulator = LavaSimulator(progress=lambda done, total: steps.append((done, total)))
    trace = simulator.run(simulator.compile(deployment), random_inputs(rng, deployment, 2), ("membrane",))
    layer = trace.layers["conv1"]
    assert layer.spikes is None and layer.current is None and layer.integer and layer.overflows is None
    assert layer.counts.shape == (2, *deployment.shapes["conv1"])
    assert trace.provenance["lava-nc"] == "0.10.0" and "floating_pt" not in trace.provenance["models"]
    assert "PyLifResetModelBitAcc" in trace.provenance["models"] and "/" not in trace.provenance["models"]
    assert steps and steps[-1][1] == 3 * 2 + 3
