"""Loops, delays and biases of the current: the interpreter against sums written out spike by spike."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.export import interpreter
from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import latencies
from snn_export.models import arithmetic
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, random_inputs

DT, STEPS, BATCH = 1e-3, 9, 3


def cuba(size: int, spec: NeuronSpec) -> nir.CubaLIF:
    ones = np.ones(size)
    return nir.CubaLIF(ones * DT * 4096 / (spec.du + 1), ones * DT * 4096 / spec.dv, ones, ones * 0, ones, ones * 0, ones)


def looped(rng: np.random.Generator, sizes: tuple[int, int] = (4, 3), spec: NeuronSpec | None = None) -> Deployment:
    """x -> p -> q; p hears itself, and q after two to four steps that differ between its neurons; p has a bias of its current."""
    spec = spec or NeuronSpec(int(rng.integers(1, 4000)), int(rng.integers(0, 4095)))
    p, q = sizes
    nodes = {
        "x": nir.Input({"input": np.array([2])}), "p": cuba(p, spec), "q": cuba(q, spec),
        "d": nir.Delay(DT * rng.integers(2, 5, q)), "xp": nir.Affine(np.ones((p, 2)), np.zeros(p)),
        "pp": nir.Linear(np.ones((p, p))), "pq": nir.Affine(np.ones((q, p)), np.zeros(q)),
        "qp": nir.Linear(np.ones((p, q))), "y": nir.Output({"output": np.array([q])}),
    }  # fmt: skip
    edges = [("x", "xp"), ("xp", "p"), ("p", "pp"), ("pp", "p"), ("p", "pq"), ("pq", "q"), ("q", "d"), ("d", "qp"), ("qp", "p")]
    graph = nir.NIRGraph(nodes, [*edges, ("q", "y")], type_check=False)
    synapses = {
        name: IntegerSynapse(2 * rng.integers(-60, 61, nodes[name].weight.shape).astype(np.int16))
        for name in ("xp", "pp", "pq", "qp")
    }
    synapses["xp"] = replace(synapses["xp"], current_bias=2 * rng.integers(-30, 31, p).astype(np.int32))
    synapses["pq"] = replace(synapses["pq"], bias_mantissa=rng.integers(-500, 501, q).astype(np.int16))
    populations = {name: IntegerPopulation(int(rng.integers(20, 200)), spec.du, spec.dv, 1.0, 2) for name in "pq"}
    contract = ExecutionContract(
        dt=DT, steps=STEPS, latency=latencies(graph, DT), neurons=dict.fromkeys("pq", spec), readout=ReadoutSpec("q"),
        encoder=EncoderSpec("events", gain=1.0, low=0, high=1),
        quantisation=Quantisation(target="loihi2", weight_bits=8, scale={"p": 1.0, "q": 1.0}, binding={"p": "", "q": ""}),
    )  # fmt: skip
    return Deployment(graph, contract, MappingProxyType(synapses), MappingProxyType(populations))


def by_hand(deployment: Deployment, inputs: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Spikes, u and v of p and q for one sample (T, 2), from the definition: a sum over single spikes with their delays."""
    weight = {name: synapse.weight.astype(np.int64) for name, synapse in deployment.synapses.items()}
    spec = deployment.contract.neurons["p"]
    back = np.rint(deployment.graph.nodes["d"].delay / DT).astype(int)
    bias = {"p": 0, "q": deployment.synapses["pq"].bias_mantissa.astype(np.int64) << 2}
    state = {name: [np.zeros(len(weight[into]), np.int64)] * 2 for name, into in (("p", "xp"), ("q", "pq"))}
    history: dict[str, list] = {"p": [], "q": []}
    for t in range(STEPS):
        for name in ("p", "q"):
            if name == "p":
                a = weight["xp"] @ inputs[t].astype(np.int64) + deployment.synapses["xp"].current_bias
                if t >= 1:
                    a = a + weight["pp"] @ history["p"][t - 1][0]
                for j, delay in enumerate(back):
                    if t >= delay:
                        a = a + weight["qp"][:, j] * history["q"][t - delay][0][j]
            else:
                a = weight["pq"] @ history["p"][t][0]
            if spec.resets_at(t):
                state[name] = [np.zeros_like(s) for s in state[name]]
            threshold = deployment.populations[name].threshold << 6
            step = arithmetic.loihi_step_subtract if spec.microcode else arithmetic.loihi_step
            u, v, fired, *_ = step(*state[name], a, bias[name], spec.du, spec.dv, threshold)
            state[name] = [u, v]
            history[name].append((fired.astype(np.int64), u, v))
    return history


SPECS = (
    None, NeuronSpec(700, 300, reset_interval=4, reset_offset=1), NeuronSpec(700, 300, reset="subtract"),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SPECS))
def test_a_network_with_loops_does_what_its_definition_says(seed: int, spec: NeuronSpec | None) -> None:
    rng = np.random.default_rng(seed)
    deployment = looped(rng, spec=spec)
    assert deployment.stages == (("p", "q"),)
    inputs = rng.integers(0, 2, (STEPS, BATCH, 2))
    got = interpreter.run(deployment, inputs, "int64")
    for sample in range(BATCH):
        for name, steps in by_hand(deployment, inputs[:, sample]).items():
            for t, (spikes, u, v) in enumerate(steps):
                assert np.array_equal(got[name].spikes[t, sample], spikes), (name, t)
                assert np.array_equal(got[name].current[t, sample], u), (name, t)
                assert np.array_equal(got[name].membrane[t, sample], v), (name, t)


def test_a_population_driven_with_what_it_fired_repeats_itself() -> None:
    rng = np.random.default_rng(1)
    deployment = looped(rng)
    inputs = rng.integers(0, 2, (STEPS, BATCH, 2))
    run = interpreter.run(deployment, inputs, "int64")
    signals = interpreter.input_signals(deployment, inputs) | {n: a.spikes.astype(np.int64) for n, a in run.items()}
    assert sum(int(a.spikes.sum()) for a in run.values()) > 0
    for name, activity in run.items():
        again = interpreter.run_population(deployment, name, signals, "int64")
        assert np.array_equal(again.spikes, activity.spikes)
        assert np.array_equal(again.membrane, activity.membrane)


@pytest.mark.parametrize("delay", [0, 2, STEPS, 50])
def test_a_constant_input_that_is_delayed_starts_late(delay: int) -> None:
    ones = np.ones(1)
    nodes = {
        "x": nir.Input({"input": np.array([1])}), "d": nir.Delay(np.array([delay * DT])), "w": nir.Linear(np.ones((1, 1))),
        "n": nir.I(ones / DT), "y": nir.Output({"output": np.array([1])}),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, [("x", "d"), ("d", "w"), ("w", "n"), ("n", "y")], type_check=False)
    contract = ExecutionContract(
        dt=DT, steps=STEPS, latency={"n": 1}, neurons={"n": NeuronSpec(0, reset="none", spiking=False)}, readout=ReadoutSpec("n"),
        encoder=EncoderSpec(),
    )  # fmt: skip
    membrane = interpreter.run(Deployment(graph, contract), np.ones((1, 1)))["n"].membrane[:, 0, 0]
    assert membrane.tolist() == [max(0, t + 1 - delay) for t in range(STEPS)]


def test_rate_encoding_is_the_same_however_the_batch_is_cut() -> None:
    from snn_export.export.encoding import rate_spikes

    encoder = EncoderSpec("rate", seed=3, full_scale=2.0)
    values = np.linspace(0, 3, 12).reshape(4, 3)
    spikes = rate_spikes(encoder, values, 400)
    assert np.array_equal(spikes[:, :2], rate_spikes(encoder, values[:2], 400))
    assert np.array_equal(spikes[:, 2:], rate_spikes(encoder, values[2:], 400))
    assert not np.array_equal(spikes, rate_spikes(replace(encoder, seed=4), values, 400))
    assert np.abs(spikes.mean(axis=0) - np.clip(values / 2, 0, 1)).max() < 0.08
    assert (encoder.gain, encoder.low, encoder.high, encoder.binary) == (1.0, 0, 1, True)


def test_what_leads_into_the_middle_of_a_loop_runs_before_it() -> None:
    """a <-> b, and x drives b alone: the graph may name x between them or last."""
    weight = np.full((3, 3), 40)
    plans = {
        "a": LayerPlan("a", weight, "input", threshold=50, dv=100, more=(SynapsePlan(weight, "b", before=2),)),
        "b": LayerPlan("b", weight, "a", threshold=50, dv=100, more=(SynapsePlan(weight, "x"),)),
        "x": LayerPlan("x", weight, "input", threshold=90, dv=100),
    }
    found = []
    for order in ("axb", "abx"):
        deployment = deployment_from(Plan((3,), tuple(plans[name] for name in order), steps=6, high=3, readout="b"))
        assert deployment.stages == (("x",), ("a", "b"))
        found.append(interpreter.run(deployment, random_inputs(np.random.default_rng(0), deployment, 2), "int64"))
    assert all(found[0][name].spikes.any() for name in "abx")
    for name in "abx":
        assert np.array_equal(found[0][name].membrane, found[1][name].membrane)
