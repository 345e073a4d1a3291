"""Samples that follow each other in one Lava run hear nothing of each other: delays, loops, periodic resets, encoders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.lava.simulator import LavaSimulator, Program
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.spec import EncoderSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs
from tests.lava_environment import require_lava
from tests.lava_networks import EVERYTHING, compare

pytestmark = pytest.mark.lava


@pytest.fixture(autouse=True)
def _lava() -> None:
    require_lava()


def run(program: Program, inputs: np.ndarray, **options: object) -> Trace:
    return LavaSimulator(time_limit=900.0, **options).run(program, inputs, EVERYTHING)


def lava(deployment: Deployment, inputs: np.ndarray, **options: object) -> Trace:
    """A run in which all samples share one Lava process tree: they are small."""
    return run(LavaSimulator().compile(deployment), inputs, **options)


def differences(deployment: Deployment, inputs: np.ndarray, trace: Trace) -> tuple[str, ...]:
    return compare(deployment, inputs, trace).places


def uncleared(program: Program) -> Program:
    return replace(program, connections=tuple({**item, "cleared": False} for item in program.connections))


DELAYED = LayerPlan("layer", np.full((1, 1), 2), before=3)
LOOP = LayerPlan(
    "layer", np.full((1, 1), 2), threshold=1, more=(SynapsePlan(np.full((1, 1), 4), "layer"),), bias=np.zeros(1)
)  # rings for ever once it has fired


@pytest.mark.parametrize("layer", [DELAYED, LOOP], ids=["delay", "loop"])
def test_the_last_spikes_of_a_sample_do_not_reach_the_next_one(layer: LayerPlan) -> None:
    """The first sample spikes in its last steps, the second is silent; without clearing it would hear the first."""
    deployment = deployment_from(Plan((1,), (layer,), steps=4, events=True))
    inputs = np.zeros((4, 2, 1))
    inputs[2:, 0] = 1
    program = LavaSimulator().compile(deployment)
    trace, leaking = run(program, inputs), run(uncleared(program), inputs)
    assert differences(deployment, inputs, trace) == ()
    assert not trace.layers["layer"].current[:, 1].any() and leaking.layers["layer"].current[:, 1].any()


def test_what_a_bias_fires_before_the_first_step_does_not_come_in_late() -> None:
    """Deep populations with biases fire while the pipeline fills; delayed, that would arrive within the sample, in the first one
    too. In a loop the source starts after its target."""
    rng, one = np.random.default_rng(3), np.ones(4)
    fires = {"threshold": 3, "bias": one * 100, "bias_exponent": 6, "dv": 1000}
    layers = (
        LayerPlan("a", even(rng, (4, 2)), **fires, more=(SynapsePlan(even(rng, (4, 4)), "c", before=np.array([3, 4, 5, 6])),)),
        LayerPlan("b", even(rng, (4, 4)), "a", **fires),
        LayerPlan("c", even(rng, (4, 4)), "b", **fires, before=np.arange(4)),
        LayerPlan(
            "d", even(rng, (4, 4)), "c", **fires, before=5, more=(SynapsePlan(even(rng, (4, 4)), "a", after=np.arange(4)),)
        ),
    )
    deployment = deployment_from(Plan((2,), layers, steps=7, events=True))
    inputs = random_inputs(rng, deployment, 5)
    assert deployment.contract.latency == {"a": 1, "b": 2, "c": 3, "d": 4}
    program = LavaSimulator().compile(deployment)
    trace = run(program, inputs)
    assert differences(deployment, inputs, trace) == ()
    assert differences(deployment, inputs, run(uncleared(program), inputs)) != ()


def residual(rng: np.random.Generator) -> Deployment:
    """Conv, then a conv branch beside a scaled skip, added as currents in front of the last conv layer; a dense readout."""
    kernel = {"padding": (1, 1), "dv": 300, "bias_exponent": 5}
    skip = SynapsePlan(np.full((4, 6, 5), 200), "stem", scale=True)
    layers = (
        LayerPlan("stem", even(rng, (4, 2, 3, 3)), threshold=2000, bias=rng.integers(-40, 40, 4), **kernel),
        LayerPlan("branch", even(rng, (4, 4, 3, 3)), "stem", threshold=500, bias=rng.integers(-40, 40, 4), **kernel),
        LayerPlan("sum", even(rng, (4, 4, 3, 3)), "branch", threshold=700, more=(skip,), **kernel),
        LayerPlan("readout", even(rng, (10, 120)), "sum"),
    )
    return deployment_from(Plan((2, 6, 5), layers, steps=8, high=15))


def recurrent(rng: np.random.Generator) -> Deployment:
    """Two CubaLIF populations with biases into their currents, one with dense recurrence, one with a self-loop; a readout."""
    cuba = {"du": 1500, "dv": 400, "threshold": 400}
    bias = lambda size: even(rng, (size,), 60)
    back = SynapsePlan(even(rng, (20, 20), 60), "dense")
    layers = (
        LayerPlan("dense", even(rng, (20, 12), 60), **cuba, current_bias=bias(20), more=(back,)),
        LayerPlan("self", even(rng, (16, 20)), "dense", **cuba, current_bias=bias(16),
                  more=(SynapsePlan(even(rng, (16,)), "self", scale=True),)),
        LayerPlan("readout", even(rng, (5, 16)), "self", du=1000),
    )  # fmt: skip
    return deployment_from(Plan((12,), layers, steps=12, high=3))


@pytest.mark.parametrize("make", [residual, recurrent])
def test_sixteen_samples_in_one_stream(make: object) -> None:
    rng = np.random.default_rng(5)
    deployment = make(rng)
    inputs = random_inputs(rng, deployment, 17)
    program = LavaSimulator().compile(deployment)
    trace = run(program, inputs, samples_per_run=17)
    found = compare(deployment, inputs, trace)
    assert found.places == () and found.spikes > 1000
    assert all(
        0 < layer.counts.mean() < 0.9 * deployment.contract.steps for name, layer in trace.layers.items() if name != "readout"
    )
    assert any(item["delayed"] for item in program.connections) == (make is residual)
    ours = LoihiSimulator()
    if not ours.check(deployment):
        assert differences(deployment, inputs, ours.run(ours.compile(deployment), inputs, EVERYTHING)) == ()


def test_lavas_own_monitors_agree_across_pauses() -> None:
    rng = np.random.default_rng(6)
    deployment = recurrent(rng)
    inputs = random_inputs(rng, deployment, 3)
    assert differences(deployment, inputs, lava(deployment, inputs, monitors=True)) == ()


def test_periodic_resets_with_every_interval_and_offset() -> None:
    rng = np.random.default_rng(7)
    common = {"du": 700, "dv": 100, "threshold": 900}
    layers = tuple(
        LayerPlan(
            f"every{interval}from{offset}", even(rng, (3, 4)), **common, bias=rng.integers(-9, 9, 3),
            reset_interval=interval, reset_offset=offset,
        )
        for interval in range(1, 8)
        for offset in sorted({0, 1, interval - 1} & set(range(interval)))
    )  # fmt: skip
    behind = LayerPlan("behind", even(rng, (3, 3)), layers[3].name, dv=100, threshold=300, reset_interval=4)
    deployment = deployment_from(Plan((4,), (*layers, behind), steps=8, high=7))
    inputs = random_inputs(rng, deployment, 4)
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == ()
    specs = {name: replace(spec, reset_interval=0, reset_offset=0) for name, spec in deployment.contract.neurons.items()}
    never = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": specs}))
    changed = compare(never, inputs, trace).places
    assert {place.split()[0] for place in changed} == set(deployment.layers)


def test_rate_encoding_draws_the_same_spikes_everywhere() -> None:
    layer = LayerPlan("layer", even(np.random.default_rng(8), (4, 6)), dv=200, threshold=300)
    deployment = deployment_from(Plan((6,), (layer,), steps=20, encoder=EncoderSpec("rate", seed=3, full_scale=2.0)))
    inputs = np.linspace(0, 2, 24).reshape(4, 6)
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == () and trace.layers["layer"].counts.any()
    assert np.array_equal(lava(deployment, inputs[:2]).layers["layer"].spikes, trace.layers["layer"].spikes[:, :2])


def test_an_input_that_a_host_turns_into_biases() -> None:
    """Two populations behind the input that nothing else connects, and one behind both, which a loop feeds."""
    rng = np.random.default_rng(9)
    host = {"dv": 300, "threshold": 2, "bias_exponent": 2}
    layers = (
        LayerPlan("left", rng.normal(size=(5, 3)) * 90, **host),
        LayerPlan("right", rng.normal(size=(4, 3)) * 90, **host, more=(SynapsePlan(even(rng, (4, 4)), "right"),)),
        LayerPlan("both", even(rng, (6, 5)), "left", threshold=100, more=(SynapsePlan(even(rng, (6, 4)), "right", before=2),)),
    )
    deployment = deployment_from(Plan((3,), layers, steps=9, encoder=EncoderSpec("bias")))
    inputs = rng.uniform(0, 1, (6, 3))
    biases = encoding.host_bias(deployment, inputs)
    assert set(biases) == {"left", "right"} and not np.array_equal(biases["left"][0], biases["left"][1])
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == ()
    assert all(layer.counts.any() for layer in trace.layers.values())


def test_populations_that_only_a_host_drives_run_though_nothing_connects_them() -> None:
    layers = tuple(LayerPlan(name, np.array([[90.0], [-70.0]]), dv=100, threshold=1) for name in ("one", "two"))
    deployment = deployment_from(Plan((1,), layers, steps=4, encoder=EncoderSpec("bias")))
    inputs = np.array([[1.0], [2.0], [0.0]])
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == () and trace.layers["one"].counts.any()


def test_delays_of_every_length_in_front_and_behind() -> None:
    """One spike through every delay 0..62; it arrives in exactly that step."""
    before = LayerPlan("before", np.eye(63, dtype=int) * 2, before=np.arange(63))
    behind = LayerPlan("behind", np.full((63, 63), 2), after=np.arange(63))
    deployment = deployment_from(Plan((63,), (before, behind), steps=66, events=True))
    inputs = np.zeros((66, 1, 63))
    inputs[1] = 1
    trace = lava(deployment, inputs)
    assert differences(deployment, inputs, trace) == ()
    arrived = [np.argmax(trace.layers[name].current[:, 0] != 0, axis=0).tolist() for name in ("before", "behind")]
    assert arrived == [list(range(1, 64))] * 2
