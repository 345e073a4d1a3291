"""Everything a deployment may hold, at random and mixed: the compiled simulator is the int64 interpreter, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.loihi import rules
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.spec import EncoderSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs, random_neuron
from tests.networks import conv_deployment

EVERYTHING: tuple[Record, ...] = ("spikes", "membrane", "current")
Generator = np.random.Generator


def simulated(deployment: Deployment, inputs: Any, record: Any = EVERYTHING, **options: Any) -> Trace:
    simulator = LoihiSimulator(**options)
    return simulator.run(simulator.compile(deployment), inputs, record)


def assert_bit_identical(deployment: Deployment, inputs: Any, **options: Any) -> dict[str, interpreter.Activity]:
    trace, expected = simulated(deployment, inputs, **options), interpreter.run(deployment, inputs, "int64")
    assert list(trace.layers) == list(expected)
    for name, activity in expected.items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(layer.spikes, activity.spikes, err_msg=name)
        np.testing.assert_array_equal(layer.current, activity.current, err_msg=name)
        np.testing.assert_array_equal(layer.membrane, activity.membrane, err_msg=name)
        np.testing.assert_array_equal(layer.counts, activity.spikes.sum(axis=0), err_msg=name)
        assert layer.overflows == activity.overflows, name
    return expected


def firing(rng: Generator, layer: LayerPlan, drive: int = 400) -> LayerPlan:
    """A random neuron that fires now and then, with everything a neuron may have."""
    layer = random_neuron(rng, layer, drive)
    interval = int(rng.integers(0, 6))
    return replace(
        layer,
        du=4095 if rng.random() < 0.4 else layer.du,
        threshold=min(layer.threshold, 6 * drive),
        bias_exponent=int(rng.integers(0, 3)),
        bias=None if layer.scale else layer.bias,
        current_bias=None if layer.scale or rng.random() < 0.6 else 2 * rng.integers(-200, 200, len(layer.weight)),
        reset_interval=interval,
        reset_offset=int(rng.integers(0, interval)) if interval else 0,
    )


def delays(rng: Generator, shape: tuple[int, ...], chance: float = 0.4) -> Any:
    """No delay, one for all, or one per feature."""
    kind = rng.random()
    if kind > chance:
        return 0
    return int(rng.integers(1, 7)) if kind > chance / 2 else rng.integers(0, 6, shape)


def matrix(rng: Generator, source: str, sizes: tuple[int, int], **changes: Any) -> SynapsePlan:
    weight = even(rng, (sizes[1], sizes[0]), int(rng.choice([20, 120, 256])))
    if rng.random() < 0.2:
        weight *= rng.random(weight.shape) < 0.15  # sparse, as composed pools are
    return SynapsePlan(weight, source, **{"weight_exponent": int(rng.integers(0, 3)), **changes})


def planned(name: str, synapse: SynapsePlan, rng: Generator, *more: SynapsePlan) -> LayerPlan:
    return firing(rng, LayerPlan(name, **{key: getattr(synapse, key) for key in synapse.__dataclass_fields__}, more=more))


def random_maps(rng: Generator, plan: dict[str, Any]) -> Deployment:
    """Convolutions of all kinds, a Scale that adds a map to itself later, and a dense readout that hears itself."""
    groups = int(rng.choice([1, 2]))
    same = rng.random() < 0.3
    first = SynapsePlan(
        even(rng, (4, 2 // groups, int(rng.integers(1, 4)), int(rng.integers(1, 4))), 200), groups=groups,
        stride=(1, 1) if same else (int(rng.integers(1, 4)), int(rng.integers(1, 3))),
        padding="same" if same else (int(rng.integers(0, 3)), int(rng.integers(0, 3))),
        dilation=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
    )  # fmt: skip
    c1 = planned("c1", first, rng)
    shape = deployment_from(Plan((2, 9, 8), (c1,), **plan)).shapes["c1"]
    c1 = replace(c1, before=delays(rng, (2, 9, 8)), after=delays(rng, shape))
    around = SynapsePlan(
        even(rng, (4, 4, 3, 3), 60), "c1", padding=(1, 1), before=1 + delays(rng, shape), after=delays(rng, shape)
    )
    scale = SynapsePlan(even(rng, shape, 200), "c1", scale=True, before=int(rng.integers(0, 4)))
    c2 = planned("c2", SynapsePlan(even(rng, (4, 4, 3, 3), 100), "c1", padding=(1, 1)), rng, scale)
    c1 = replace(c1, more=(around,) if rng.random() < 0.4 else ())
    size = int(np.prod(shape))
    out = planned(
        "out", matrix(rng, "c2", (size, 5), before=delays(rng, shape)), rng, *(
            (matrix(rng, "out", (5, 5), before=1 + delays(rng, (5,))),) if rng.random() < 0.5 else ()
        ), matrix(rng, "c1", (size, 5), after=delays(rng, (5,))),
    )  # fmt: skip
    return deployment_from(Plan((2, 9, 8), (c1, c2, out), **plan))


def random_lines(rng: Generator, plan: dict[str, Any]) -> Deployment:
    """Conv1d, then populations in a ring: the last one speaks back to the first after a while."""
    groups = int(rng.choice([1, 3]))
    c1 = planned("c1", SynapsePlan(
        even(rng, (6, 3 // groups, 3), 200), groups=groups, stride=(int(rng.integers(1, 3)),), padding=(int(rng.integers(0, 3)),),
        dilation=(int(rng.integers(1, 3)),), before=delays(rng, (3, 11)),
    ), rng)  # fmt: skip
    length = deployment_from(Plan((3, 11), (c1,), **plan)).shapes["c1"][1]
    a = planned("a", matrix(rng, "c1", (6 * length, 7)), rng, matrix(rng, "b", (9, 7), before=2 + delays(rng, (9,), 0.8)),
                SynapsePlan(even(rng, (7,), 100), "a", scale=True))  # fmt: skip
    b = planned("b", matrix(rng, "a", (7, 9), before=delays(rng, (7,)), after=delays(rng, (9,))), rng)
    out = planned("out", matrix(rng, "b", (9, 4)), rng, matrix(rng, "input", (33, 4), before=int(rng.integers(0, 5))))
    return deployment_from(Plan((3, 11), (c1, a, b, out), **plan))


ENCODERS = {
    "events": EncoderSpec("events", gain=1.0, low=0, high=1),
    "graded events": EncoderSpec("events", gain=1.0, low=-3, high=9),
    "direct": EncoderSpec("direct", gain=2.0, low=-4, high=15),
    "binary direct": EncoderSpec("direct", gain=1.0, low=0, high=1),
    "rate": EncoderSpec("rate", seed=5, full_scale=12.0),
}


def some_inputs(rng: Generator, deployment: Deployment, samples: int) -> Any:
    shape = (samples, *deployment.input_shape)
    if deployment.contract.encoder.kind == "events":
        shape = (deployment.contract.steps, *shape)
    if deployment.contract.encoder.kind == "events" and deployment.contract.encoder.binary:
        chance = rng.choice([0.05, 0.3, 0.9])
        return (rng.random(shape) < chance).astype(rng.choice([bool, np.uint8, np.float32, np.int64]))
    return rng.uniform(-4, 10, shape)


def test_random_networks_of_everything() -> None:
    """What never fires proves nothing: many networks must, and some of their last populations too."""
    total: list[int] = []
    last: list[int] = []

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        network=st.sampled_from([random_maps, random_lines]),
        encoder=st.sampled_from(sorted(ENCODERS)),
        steps=st.integers(1, 14),
        chunk=st.sampled_from([1, 60_000, 1 << 26]),
        threads=st.integers(1, 3),
    )
    def compare(seed: int, network: Any, encoder: str, steps: int, chunk: int, threads: int) -> None:
        activities = random_network_compared(seed, network, encoder, steps, chunk_bytes=chunk, threads=threads)
        spikes = [int(activity.spikes.sum()) for activity in activities.values()]
        total.append(sum(spikes))
        last.append(spikes[-1])

    compare()
    assert sum(count > 0 for count in total) > len(total) / 4
    assert sum(last) > 0


def random_network_compared(seed: int, network: Any, encoder: str, steps: int, **options: int) -> dict[str, interpreter.Activity]:
    rng = np.random.default_rng(seed)
    deployment = network(rng, {"steps": steps, "encoder": ENCODERS[encoder]})
    if rng.random() < 0.3:  # microcode neurons
        neurons = deployment.contract.neurons
        chosen = {name: replace(spec, reset="subtract") for name, spec in neurons.items() if rng.random() < 0.5}
        deployment = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": {**neurons, **chosen}}))
    found = [d for d in rules.check(deployment) if d.code != "SNX327"]
    assert found == []
    return assert_bit_identical(deployment, some_inputs(rng, deployment, int(rng.integers(1, 5))), **options)


@pytest.mark.parametrize("device", ["torch on the cpu", "cuda"])
@pytest.mark.parametrize("seed", range(6))
def test_the_path_of_a_gpu_gives_the_same_bits(seed: int, device: str) -> None:
    """Once through torch on the CPU, the very lines that a GPU runs, and once on a GPU where there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng, steps=7, low=-15 if seed % 2 else 0)
    name = "cuda" if device == "cuda" else "cpu:0"
    expected = assert_bit_identical(deployment, random_inputs(rng, deployment, 3), device=name, chunk_bytes=20_000)
    assert sum(int(activity.spikes.sum()) for activity in expected.values()) > 0
