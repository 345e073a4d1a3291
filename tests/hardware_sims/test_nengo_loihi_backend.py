"""nengo-loihi's emulator against the int64 interpreter: a third statement of the chip's arithmetic, and where it differs.

Tests that need the environment skip with the command that makes it, or fail under ``SNN_EXPORT_REQUIRE_NENGO_LOIHI=1``.
``SNN_EXPORT_NENGO_LOIHI_PYTHON`` names another interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import environments, worker_trace
from snn_export.hardware_sims.conformance.kit import run_kit, selected
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.nengo_loihi import lowering
from snn_export.hardware_sims.nengo_loihi.probe import judge
from snn_export.hardware_sims.nengo_loihi.registers import NARROW, SUM_MAX, emulated_step, signed
from snn_export.hardware_sims.nengo_loihi.simulator import WORKER, NengoLoihiSimulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.arithmetic import loihi_step
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_deployment, random_inputs
from tests.lava_environment import require_lava
from tests.lava_networks import EVERYTHING, KINDS, SMALL, compare, random_network

THEIR_OWN = (
    *("fire.exactly_at_threshold", "fire.only_negative_weights", "fire.negative_input", "fire.bias_behind_a_layer"),
    *("fire.at_most_one_spike_per_step", "reset.periodic", "leak.truncation_toward_zero", "leak.a_bias_is_filtered_too"),
    *("latency.a_loop_takes_one_step", "latency.a_delay_per_neuron", "latency.paths_of_unequal_depth"),
    *("shapes.conv_kernel_orientation", "shapes.conv_groups", "shapes.flatten_behind_maps", "graph.two_edges_into_one_weight"),
    *("contract.state_is_cleared_between_samples", "contract.input_as_bias"),
)
WATCHED = {"leak.currents_wrap", "leak.membranes_saturate"}
"""Refused while they run, by their inputs."""


def require_nengo_loihi() -> None:
    """Skip, or fail under ``SNN_EXPORT_REQUIRE_NENGO_LOIHI=1``, where the environment is missing."""
    found = NengoLoihiSimulator().availability()
    if found.ok:
        return
    message = f"{found.reason}; fix: {found.fix}"
    if os.environ.get("SNN_EXPORT_REQUIRE_NENGO_LOIHI") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def installed() -> None:
    require_nengo_loihi()


needs_it = pytest.mark.usefixtures("installed")


def emulated(deployment: Deployment, inputs: np.ndarray, wrap: bool = False) -> Trace:
    simulator = NengoLoihiSimulator(time_limit=300.0, wrap=wrap)
    return simulator.run(simulator.compile(deployment), inputs, EVERYTHING)


# --- it agrees ---------------------------------------------------------------------------------------------------------


@needs_it
def test_it_passes_its_part_of_the_kit() -> None:
    found = run_kit(NengoLoihiSimulator(), selected((*THEIR_OWN, *NengoLoihiSimulator.expected_failures)))
    assert found.passed, found.summary()
    watched = {item.check: (item.stage, item.code) for item in found.outcomes if item.code == "SNX268"}
    assert watched == dict.fromkeys(WATCHED, ("run failed", "SNX268"))


@needs_it
@pytest.mark.parametrize("seed", [0, 1])
def test_random_networks_agree_bit_for_bit(seed: int) -> None:
    """Twelve kinds of networks side by side: dense, deep, convolutions, delays, loops, skips, biases into the current."""
    rng = np.random.default_rng(seed)
    networks = [random_network(rng, f"n{index}", kind) for index, kind in enumerate(KINDS * 2)]
    plan = Plan(SMALL.input, tuple(layer for network in networks for layer in network), steps=8, events=True)
    deployment = deployment_from(plan)
    inputs = random_inputs(rng, deployment, 3)
    program = NengoLoihiSimulator().compile(deployment)
    assert len(program.request["relays"]) > 50 and any(item["delay"] for item in program.request["inputs"])
    assert sum(item["always_on"] for item in program.request["populations"]) > 3
    assert any(item["cleared_at"] for item in program.request["populations"])
    trace = emulated(deployment, inputs)
    found = compare(deployment, inputs, trace)
    assert found.places == () and found.spikes > 500
    assert trace.provenance["narrow registers left"] == "none"


@needs_it
def test_graded_inputs_of_both_signs_travel_as_bits() -> None:
    rng = np.random.default_rng(5)
    layers = (
        LayerPlan("first", even(rng, (6, 8), 40), du=2000, dv=900, threshold=2000, bias=rng.integers(-99, 99, 6)),
        LayerPlan("late", even(rng, (4, 8), 60), du=4095, dv=0, threshold=1500, before=rng.integers(0, 3, 8)),
    )
    deployment = deployment_from(Plan((8,), layers, steps=9, low=-37, high=50, events=True))
    inputs = random_inputs(rng, deployment, 4)
    found = compare(deployment, inputs, emulated(deployment, inputs))
    assert found.places == () and found.spikes > 20
    assert lowering.level_bits(deployment) == (6, (1, -1))


@needs_it
def test_a_convolutional_network_is_that_of_the_loihi_backend() -> None:
    rng = np.random.default_rng(3)
    deployment = random_deployment(rng, steps=6, high=3)
    inputs = random_inputs(rng, deployment, 4)
    ours, loihi = emulated(deployment, inputs), LoihiSimulator()
    other = loihi.run(loihi.compile(deployment), inputs, EVERYTHING)
    assert compare(deployment, inputs, ours).places == ()
    for name, layer in ours.layers.items():
        assert all(np.array_equal(getattr(layer, what), getattr(other.layers[name], what)) for what in EVERYTHING)
    assert ours.layers["conv1"].counts.any() and ours.layers["conv2"].counts.any()
    assert ours.predictions.tolist() == other.predictions.tolist() and ours.readout.tolist() == other.readout.tolist()
    assert ours.latency == {"conv1": 1, "conv2": 2, "readout": 3} and ours.layers["conv1"].overflows is None
    assert ours.provenance["nengo-loihi"] == "1.1.0" and "[int32]" in ours.provenance["models"]


def slow_currents(rng: np.random.Generator, weights: list[int], biased: bool = False) -> Deployment:
    """Single neurons whose currents hardly decay: sums within the emulator's 22 bits leave 24 bits after a few steps."""
    layers = tuple(
        LayerPlan(
            f"n{index}", np.array([[weight]]), du=int(rng.integers(0, 60)), dv=int(rng.choice([0, 1, 700, 2048, 4095])),
            threshold=int(rng.integers(0, 131072)), bias=rng.integers(-4096, 4096, 1) if biased else None, bias_exponent=7,
        )
        for index, weight in enumerate(weights)
    )  # fmt: skip
    edge = LayerPlan("edge", np.array([[1]]), du=0, dv=0)
    return deployment_from(Plan((1,), (*layers, edge), steps=40, low=-32768, high=32767, events=True))


def large_levels(rng: np.random.Generator) -> np.ndarray:
    """Levels (40, 2, 1) of up to 16,042, of both signs."""
    levels = rng.integers(-3, 14, (40, 2, 1)) * 1234.0
    levels[20:, 1] *= -1
    return levels


@needs_it
def test_currents_wrap_and_membranes_saturate_as_ours_do() -> None:
    """Sums within 22 bits, and currents far beyond 24: the emulator's wrap of u is ours, its saturation of v too."""
    rng = np.random.default_rng(8)
    deployment, inputs = slow_currents(rng, [2] * 12), large_levels(rng)
    found = compare(deployment, inputs, emulated(deployment, inputs))
    assert found.places == () and found.overflows > 200 and found.spikes > 50


# --- it differs --------------------------------------------------------------------------------------------------------

EDGE_LEVELS = (28672, 24583, 24589, 28691, 24602, 0)
"""With weight 1 and du = 0 the current is 2^23 in step 4 to the bit."""


def single(levels: tuple[int, ...], weight: int, **neuron: Any) -> tuple[Deployment, np.ndarray]:
    """One neuron that hears levels."""
    layer = LayerPlan("n", np.array([[weight]]), **neuron)
    plan = Plan((1,), (layer,), steps=len(levels), low=0, high=max(levels), events=True)
    return deployment_from(plan), np.array(levels, float).reshape(-1, 1, 1)


MINIMAL: dict[str, tuple[tuple[tuple[int, ...], int, dict[str, Any]], str, list[int], list[int]]] = {
    "sum": (((SUM_MAX, SUM_MAX + 1), 1, {}), "current", [2097088, -2097152], [2097088, 2097152]),
    "biased": (
        (EDGE_LEVELS[:5], 1, {"du": 1, "dv": 4095, "bias": np.array([4095]), "bias_exponent": 7}), "membrane",
        [2359168, 3932159, 5504575, 7338751, -7866816], [2359168, 3932159, 5504575, 7338751, 0],
    ),
    "edge": ((EDGE_LEVELS, 1, {"du": 0, "dv": 4095}), "current",
             [1835008, 3407872, 4980736, 6815744, -8388608, -8386560], [1835008, 3407872, 4980736, 6815744, 8388608, 8386560]),
}  # fmt: skip
"""By register: levels, weight and neuron that leave it; what to look at; the emulator's values, and Lava's."""


@needs_it
@pytest.mark.parametrize("register", MINIMAL)
def test_a_register_that_is_narrower_than_lavas(register: str) -> None:
    """The smallest networks on which the emulator and Lava disagree. One that starts to agree fails here."""
    made, what, emulators, lavas = MINIMAL[register]
    deployment, inputs = single(made[0], made[1], **made[2])
    want = interpreter.run(deployment, inputs, "int64")["n"]
    trace = emulated(deployment, inputs, wrap=True)
    assert getattr(trace.layers["n"], what).ravel().tolist() == emulators
    assert getattr(want, what).ravel().tolist() == lavas
    assert trace.provenance["narrow registers left"] == f"n: {register} 1"
    with pytest.raises(UserError) as caught:
        emulated(deployment, inputs)
    assert caught.value.code == "SNX268"
    assert NARROW[register] in caught.value.diagnostics[0].why


@needs_it
@pytest.mark.lava
def test_real_lava_has_the_wider_registers() -> None:
    """The three differences in one network, on all three: Lava agrees with ours, and the emulator with neither."""
    require_lava()
    plans = (
        LayerPlan("sum", np.array([[2]])),
        LayerPlan("biased", np.array([[1]]), du=1, dv=4095, bias=np.array([4095]), bias_exponent=7),
        LayerPlan("edge", np.array([[1]]), du=0, dv=4095),
    )
    deployment = deployment_from(Plan((1,), plans, steps=len(EDGE_LEVELS), high=max(EDGE_LEVELS), events=True))
    inputs = np.array(EDGE_LEVELS, float).reshape(-1, 1, 1)
    lava = LavaSimulator()
    assert compare(deployment, inputs, lava.run(lava.compile(deployment), inputs, EVERYTHING)).places == ()
    places = compare(deployment, inputs, emulated(deployment, inputs, wrap=True)).places
    assert [place.partition(" ")[0] for place in places] == ["sum", "biased", "edge"]


@needs_it
def test_three_registers_are_all_there_is() -> None:
    """Neurons driven out of all three: the emulator is ``emulated_step``, and with any register as wide as Lava's it is not."""
    rng = np.random.default_rng(3)
    deployment, inputs = slow_currents(rng, [2] * 40 + [4] * 5, biased=True), large_levels(rng)
    inputs[: len(EDGE_LEVELS), 0, 0] = EDGE_LEVELS
    trace = emulated(deployment, inputs, wrap=True)
    told = trace.provenance["narrow registers left"]
    assert all(f": {register} " in told for register in NARROW)
    assert mismatches(deployment, inputs, trace, tuple(NARROW)) == 0
    for register in NARROW:
        assert mismatches(deployment, inputs, trace, tuple(set(NARROW) - {register})) > 0, register


def mismatches(deployment: Deployment, inputs: np.ndarray, trace: Trace, narrow: tuple[str, ...]) -> int:
    """Values of single neurons that :func:`emulated_step` with these registers does not give."""
    wrong = 0
    for name, layer in trace.layers.items():
        found, bias = deployment.populations[name], deployment.bias(name)
        u, v = np.zeros((2, inputs.shape[1], 1), np.int64)
        weight = int(deployment.synapses[f"{name}.weight"].weight.ravel()[0])
        for step, level in enumerate(inputs.astype(np.int64)):
            u, v, fired = emulated_step(u, v, level * weight, bias, found.du, found.dv, found.threshold << 6, narrow)
            seen = (layer.current[step], layer.membrane[step], layer.spikes[step])
            wrong += sum(int(np.count_nonzero(a != b)) for a, b in zip(seen, (u, v, fired), strict=True))
    return wrong


@needs_it
def test_the_refusal_says_where_and_counts_samples_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, levels = single((SUM_MAX, SUM_MAX + 1), 1)
    inputs = np.concatenate([levels * 0, levels * 0, levels, levels], axis=1)
    monkeypatch.setattr(worker_trace, "BYTES_PER_RUN", 1)  # every sample in a run of its own
    with pytest.raises(UserError) as caught:
        emulated(deployment, inputs)
    (found,) = caught.value.diagnostics
    assert found.where == "n" and "2 times, first in sample 2, step 1" in found.why
    assert emulated(deployment, inputs, wrap=True).layers["n"].current[:, 2, 0].tolist() == [2097088, -2097152]
    assert emulated(deployment, inputs[:, :2]).provenance["narrow registers left"] == "none"


def test_letting_registers_wrap_is_another_arithmetic() -> None:
    assert NengoLoihiSimulator().capabilities().arithmetic == "loihi_integer"
    assert NengoLoihiSimulator(wrap=True).capabilities().arithmetic == "other"
    assert isinstance(NengoLoihiSimulator(), Simulator)


DISCRETISE = """
import json, warnings
import numpy as np
warnings.simplefilter("ignore")
from nengo_loihi.block import LoihiBlock, Synapse
from nengo_loihi.builder.discretize import discretize_block
decays, weights = np.arange(4096), np.arange(-256, 256)
block, synapse = LoihiBlock(4096), Synapse(1)
compartment = block.compartment
compartment.decay_u[:], compartment.decay_v[:] = (decays + 1) / 4096, decays / 4096
compartment.scale_u = compartment.scale_v = False
compartment.vth[:], compartment.vmin, compartment.vmax = 1000, -(2.0**23), 2.0**23
synapse.set_weights(np.pad(weights, (0, 4096 - 512))[None].astype(np.float32))
block.add_synapse(synapse)
discretize_block(block)
kept = (synapse.weights[0][0, :512] >> 6).tolist()
print(json.dumps({"du": (compartment.decay_u - decays).tolist(), "dv": (compartment.decay_v - decays).tolist(), "weights": kept,
                  "threshold": int(compartment.vth[0])}))
"""


@needs_it
def test_its_own_discretisation_of_the_same_network_gives_other_integers() -> None:
    """Why blocks are given the integers: half of all decays come out one lower, weights and threshold on scales of their own."""
    python = environments.interpreter("nengo_loihi")
    done = subprocess.run([str(python), "-I", "-c", DISCRETISE], check=True, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert [step for step, off in enumerate(found["dv"]) if off] == list(range(2049, 4096)) and set(found["dv"]) == {0, -1}
    assert [step for step, off in enumerate(found["du"]) if off] == list(range(2047, 4096)) and set(found["du"]) == {0, -1}
    weights = dict(zip(range(-256, 256), found["weights"], strict=True))
    assert [weights[w] for w in (-256, -255, -253, -1, 1, 2, 3, 255)] == [-254, -254, -252, 0, 0, 2, 2, 254]
    assert found["threshold"] == round(1000 * 255 / 256) * 64 != 1000 * 64


# --- what it refuses, and how it is told --------------------------------------------------------------------------------

DENSE = LayerPlan("layer", np.full((3, 4), 2))


def dense(high: int = 1, **changes: Any) -> Deployment:
    return deployment_from(Plan((4,), (replace(DENSE, **changes),), high=high))


def with_contract(**changes: Any) -> Deployment:
    made = dense()
    return made.replace(contract=made.contract.model_copy(update=changes))


def with_population(**changes: int) -> Deployment:
    made = dense()
    return made.replace(populations={"layer": replace(made.populations["layer"], **changes)})


def with_pool() -> Deployment:
    made = deployment_from(Plan((1, 4, 4), (LayerPlan("layer", np.full((2, 1, 4, 4), 2)),)))
    nodes = {**made.graph.nodes, "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))}
    nodes["layer.weight"] = nir.Conv2d(None, np.full((2, 1, 2, 2), 2.0), (1, 1), (0, 0), (1, 1), 1, np.zeros(2))
    edges = [("input", "pool"), ("pool", "layer.weight"), ("layer.weight", "layer"), ("layer", "output")]
    return made.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


REFUSED = {
    "floats": (with_contract(quantisation=None), "SNX302"),
    "a reset by subtraction": (with_contract(neurons={"layer": NeuronSpec(0, reset="subtract")}), "SNX203"),
    "a wrong latency": (with_contract(latency={"layer": 2}), "SNX267"),
    "a pool": (with_pool(), "SNX267"),
    "a long delay": (dense(before=63), "SNX267"),
    "an odd weight": (dense(weight=np.array([[3, -2, 0, 0]])), "SNX269"),
    "a large weight": (dense(weight=np.full((1, 4), 256)), "SNX269"),
    "a large exponent": (dense(weight_exponent=8), "SNX269"),
    "bits shifted out": (dense(weight_exponent=-2), "SNX269"),
    "an odd bias of the current": (dense(current_bias=np.array([1, 2, 4])), "SNX269"),
    "a large bias": (dense(bias=np.full(3, 4096)), "SNX269"),
    "a threshold": (with_population(threshold=1 << 17), "SNX269"),
    "a decay": (with_population(dv=4096), "SNX269"),
    "sums beyond 32 bits": (dense(high=(1 << 22)), "SNX268"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_hold_is_refused_with_its_code(what: str) -> None:
    deployment, code = REFUSED[what]
    simulator = NengoLoihiSimulator()
    assert [item.code for item in simulator.check(deployment)] == [code]
    with pytest.raises(UserError):
        simulator.compile(deployment)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    two = (replace(DENSE, weight=np.array([[3, -3, 1, 0]])), LayerPlan("after", np.full((2, 1), 300), "layer"))
    found = NengoLoihiSimulator().check(deployment_from(Plan((4,), two)))
    assert [(item.code, item.where) for item in found] == [("SNX269", "layer.weight"), ("SNX269", "after.weight")]


def test_the_longest_delay_and_an_exponent_that_loses_nothing_are_held() -> None:
    assert NengoLoihiSimulator().check(dense(before=62)) == []
    assert NengoLoihiSimulator().check(dense(weight=np.full((3, 4), 8), weight_exponent=-2)) == []


def test_a_layer_of_too_many_synapses_is_refused_before_it_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snn_export.hardware_sims.nengo_loihi.expressible.SYNAPSES_MAX", 35)
    conv = deployment_from(Plan((1, 4, 4), (LayerPlan("layer", np.full((1, 1, 2, 2), 2)),)))  # 9 places, 4 weights each
    (found,) = NengoLoihiSimulator().check(conv)
    assert found.code == "SNX267" and "36 synapses" in found.what
    (found,) = NengoLoihiSimulator().check(dense(high=7))
    assert found.code == "SNX267" and "36 synapses" in found.what  # 12 weights, 3 bits
    assert NengoLoihiSimulator().check(dense(high=3)) == []


def test_each_node_is_told_what_becomes_of_it() -> None:
    conv = LayerPlan("conv", np.full((2, 1, 2, 2), 2))
    after = LayerPlan("late", np.full((3, 18), 2), "conv", before=1, more=(SynapsePlan(np.full((3, 3), 4), "late"),))
    biased = LayerPlan("biased", np.full((2, 3), 2), "late", current_bias=np.array([2, -4]))
    deployment = deployment_from(Plan((1, 4, 4), (conv, after, biased), high=3))
    found = {name: item.kind for name, item in NengoLoihiSimulator().mapping(deployment).items()}
    assert found == {
        "conv": "native", "conv.weight": "rewritten", "late": "native", "late.flatten": "native",
        "late.weight.before": "rewritten", "late.weight": "native", "late.weight1": "native",
        "biased": "native", "biased.weight": "rewritten",
    }  # fmt: skip
    refused = NengoLoihiSimulator().mapping(with_population(dv=4096))
    assert refused["layer"].kind == "unsupported" and refused["layer.weight"].kind == "native"


def test_relays_are_shared_and_as_many_as_the_longest_delay() -> None:
    square = np.full((3, 3), 2)
    slow, slower = LayerPlan("slow", square, "layer", before=2), LayerPlan("slower", square, "layer", before=np.array([0, 3, 1]))
    made = lowering.lower(deployment_from(Plan((4,), (DENSE, slow, slower))))
    assert [item["source"] for item in made.relays] == [["population", 0], ["relay", 0], ["relay", 1]]
    heard = {tuple(item["source"]) for item in made.synapses if item["target"] == 2}
    assert heard == {("population", 0), ("relay", 0), ("relay", 2)}


# --- registers and self-test --------------------------------------------------------------------------------------------


def test_with_lavas_registers_a_step_is_the_chips() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.integers(-(2**23), 2**23, (2, 5000))
    a, du, dv = rng.integers(-40000, 40000, 5000), *rng.integers(0, 4096, (2, 5000))
    bias, threshold = rng.integers(-524288, 524161, 5000), rng.integers(0, 131072, 5000) << 6
    found = emulated_step(u, v, a, bias, du, dv, threshold, ())
    wanted = loihi_step(u, v, a, bias, du, dv, threshold)[:3]
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert signed(np.array([2**21, -(2**21) - 1, 2**21 - 1]), 22).tolist() == [-(2**21), 2**21 - 1, 2**21 - 1]


@needs_it
def test_the_self_test_shows_the_arithmetic_and_notices_another() -> None:
    python = environments.interpreter("nengo_loihi")
    done = subprocess.run(
        [str(python), "-I", str(WORKER), "--self-test"], check=True, capture_output=True, text=True, timeout=120
    )
    told, versions = (json.loads(line) for line in done.stdout.splitlines())
    assert judge(told)[0] and versions["nengo-loihi"] == "1.1.0"
    told["seen"]["edge"]["current"][4] *= -1
    assert judge(told) == (False, "the emulator computes otherwise: neuron 'edge', current of step 4 is 8388608, not -8388608")
    told["seen"]["edge"]["current"][4] *= -1
    told["narrow"].pop("sum")
    assert judge(told) == (False, "neuron 'sum' left the registers (), not ('sum',)")
    assert judge({"levels": []}) == (False, "its self-test does not tell narrow, neurons, seen")
