"""Real Lava against the int64 interpreter: spikes, u and v of every population in every step, bit for bit.

Starting Lava costs a second or more, so every run holds many independent networks side by side, and several samples in one
stream.
"""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.lava import lowering
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.arithmetic import THRESHOLD_MAX
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, random_deployment, random_inputs
from tests.lava_environment import require_lava
from tests.lava_networks import EVERYTHING, KINDS, SMALL, compare, compare_with_loihi, operations, random_network

pytestmark = pytest.mark.lava

NETWORKS = 41
EXAMPLES = 5


@pytest.fixture(autouse=True)
def _lava() -> None:
    require_lava()


def lava(deployment: Deployment, inputs: np.ndarray, **options: object) -> Trace:
    simulator = LavaSimulator(time_limit=900.0, **options)
    return simulator.run(simulator.compile(deployment), inputs, EVERYTHING)


def differences(deployment: Deployment, inputs: np.ndarray, trace: Trace) -> list[str]:
    """Populations that differ, with their integers; empty where Lava and the interpreter agree on everything."""
    return list(compare(deployment, inputs, trace).places)


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)  # fmt: skip
@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=NETWORKS, max_size=NETWORKS, unique=True),
    low=st.sampled_from([-15, 0]),
)
def test_random_networks_agree_bit_for_bit(seeds: list[int], low: int) -> None:
    """Twelve kinds of networks in turn, each from a seed of its own: `EXAMPLES` Lava runs of `NETWORKS` networks each."""
    networks = [
        random_network(np.random.default_rng(seed), f"n{index}", KINDS[index % len(KINDS)]) for index, seed in enumerate(seeds)
    ]
    networks.append((LayerPlan("wraps", np.full((1, 40), 2), du=50, current_bias=np.full(1, 60_000)),))
    common = {"steps": 8, "low": low, "high": 15, "events": True}
    deployment = deployment_from(Plan(SMALL.input, tuple(layer for network in networks for layer in network), **common))
    inputs = random_inputs(np.random.default_rng(seeds), deployment, 2)
    note(f"network n<i> is random_network(default_rng(seeds[i]), 'n<i>', KINDS[i % {len(KINDS)}]); seeds = {seeds}")
    simulator = LavaSimulator(time_limit=900.0)
    program = simulator.compile(deployment)
    used = operations(deployment, program)
    assert all(used[f"{delay}{kind}"] for delay in ("", "Delay") for kind in ("Dense", "Sparse")) and used["Conv"]
    assert all(used[what] for what in ("loop", "several sources", "bias into the current", "weights of one sign"))
    found = compare(deployment, inputs, simulator.run(program, inputs, EVERYTHING))
    assert found.places == ()
    assert found.overflows > 0 and found.spikes > 0
    ours = compare_with_loihi([deployment_from(Plan(SMALL.input, network, **common)) for network in networks], inputs)
    assert ours.places == ()


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


def test_wraps_and_saturates_as_the_chip_does_for_many_steps() -> None:
    """Sums of 2^17 a step with a slow decay: u wraps every few steps, both ways, and v is pinned to its limits."""
    weight = np.array([[254], [254], [-256], [-256]])
    layers = (
        LayerPlan("wrapping", weight, weight_exponent=5, du=99, dv=0),
        LayerPlan("wrapping_twice", weight, weight_exponent=7, du=0, dv=2048, threshold=500),
        LayerPlan("loop", weight, weight_exponent=4, du=50, threshold=60_000, more=(replace_source(even_loop(), "loop"),)),
    )
    deployment = deployment_from(Plan((1,), layers, steps=40, low=-8, high=8))
    inputs = np.array([[8.0], [-8.0], [3.0]])
    trace, want = lava(deployment, inputs), interpreter.run(deployment, inputs, "int64")
    assert all(want[name].overflows > 30 for name in want)
    assert differences(deployment, inputs, trace) == []
    u, v = trace.layers["wrapping"].current, trace.layers["wrapping"].membrane
    first = 254 * 8 << 5 << 6
    assert u[0, 0, 0] == first and 0 < first < 2**23 and u[:, 0, 0].min() < 0 < u[:, 0, 0].max()
    assert (np.abs(u) <= 2**23).all() and np.abs(v).max() == 2**23 - 1


def even_loop() -> SynapsePlan:
    return SynapsePlan(np.full((4, 4), -256), weight_exponent=6)


def replace_source(synapse: SynapsePlan, name: str) -> SynapsePlan:
    return replace(synapse, source=name)


def test_a_convolution_written_out_as_a_matrix_is_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    layers = [random_network(rng, f"n{index}", kind) for index, kind in enumerate(("conv", "grouped", "line") * 3)]
    deployment = deployment_from(Plan(SMALL.input, tuple(sum(layers, ())), steps=5, low=-15, high=15, events=True))
    inputs = random_inputs(rng, deployment, 2)
    before = operations(deployment, LavaSimulator().compile(deployment))
    kept = lava(deployment, inputs)
    monkeypatch.setattr(lowering, "stays_convolution", lambda *_: False)
    after = operations(deployment, LavaSimulator().compile(deployment))
    written = lava(deployment, inputs)
    assert before["Conv"] > 5 and after["Conv"] == 0 and after["Sparse"] == before["Sparse"] + before["Conv"]
    assert differences(deployment, inputs, kept) == differences(deployment, inputs, written) == []


def test_a_single_sign_keeps_its_odd_weights() -> None:
    """255 and -255 fit where all weights have one sign; Lava would make 254 and -256 of them in a mixed layer."""
    weights = {"up": np.array([[255, 1, 0]]), "down": np.array([[-255, -1, 0]]), "mixed": np.array([[-256, 254, 2]])}
    deployment = deployment_from(Plan((3,), tuple(LayerPlan(name, weight) for name, weight in weights.items()), steps=2))
    inputs = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 1]])
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == []
    sums = {name: (layer.current[0, :, 0] >> 6).tolist() for name, layer in trace.layers.items()}
    assert sums == {"up": [255, 1, 256], "down": [-255, -1, -256], "mixed": [-256, 254, 0]}


def test_a_bias_into_the_current_is_filtered_and_one_onto_the_membrane_is_not() -> None:
    """By hand: u = 64 b (1 + alpha + alpha^2 ...), in every step from the first, over several always-firing sources."""
    bias = np.array([1000, -1002, 0])
    layer = LayerPlan("layer", np.zeros((3, 1), int), du=2047, dv=0, current_bias=bias, bias=np.array([0, 0, 5]))
    deployment = deployment_from(Plan((1,), (layer,), steps=3))
    trace = lava(deployment, np.zeros((2, 1)))
    assert differences(deployment, np.zeros((2, 1)), trace) == []
    assert LavaSimulator().compile(deployment).arrays["axons_0"].tolist() == [
        [254, 254, 254, 238], [-254, -254, -254, -240], [0, 0, 0, 0]
    ]  # fmt: skip
    for sample in (0, 1):
        assert trace.layers["layer"].current[:, sample].tolist() == [[64000, -64128, 0], [96000, -96192, 0], [112000, -112224, 0]]
        assert trace.layers["layer"].membrane[:, sample, 2].tolist() == [5, 10, 15]


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
