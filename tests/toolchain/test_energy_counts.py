from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.energy import neurobench
from snn_export.energy.counts import Counter, Counts, LayerCounts, count
from snn_export.energy.operations import operations_of, spikes_per_synapse
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.interpreter import Activity
from snn_export.export.linear import apply
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from snn_export.reporting.energy_records import Arrivals
from tests.builders import LayerPlan, Plan, deployment_from, random_deployment, random_inputs


def trace_of(counts: dict[str, np.ndarray]) -> Trace:
    layers = {name: LayerTrace(np.asarray(value, np.int64)) for name, value in counts.items()}
    samples = len(next(iter(layers.values())).counts)
    return Trace("test", layers, np.zeros((samples, 1)), np.zeros(samples, np.int64), 0)


def run(deployment: Deployment, inputs: np.ndarray) -> tuple[Trace, dict[str, Activity]]:
    activity = interpreter.run(deployment, inputs, "int64")
    return trace_of({name: layer.spikes.sum(axis=0) for name, layer in activity.items()}), activity


def tiny(**changes: object) -> Deployment:
    """3 inputs -> 2 hidden -> 2 out, with one zero weight in each layer; 4 steps."""
    hidden = LayerPlan("hidden", np.array([[2, 0, 4], [6, 8, 10]]))
    out = LayerPlan("out", np.array([[2, 4], [0, 6]]), source="hidden")
    return deployment_from(replace(Plan((3,), (hidden, out), steps=4, high=15), **changes))


def synops(counts: Counts, layer: str, effective: bool = False) -> int:
    return arrivals(counts, layer).synops(counts.binary_input, effective)


def graded(counts: Counts, layer: str, effective: bool = False) -> int:
    return arrivals(counts, layer).graded(counts.binary_input, effective)


def arrivals(counts: Counts, layer: str) -> Arrivals:
    """What a report holds of a layer."""
    return Arrivals(**{name: getattr(counts.layers[layer], name) for name in Arrivals.model_fields})


TINY_TRACE = trace_of({"hidden": [[3, 1], [0, 2]], "out": [[1, 0], [0, 0]]})
TINY_INPUTS = np.array([[5.0, 0.0, 1.0], [0.0, 7.0, 0.0]])


def test_a_tiny_network_counted_by_hand() -> None:
    deployment = tiny()
    counts = count(deployment, TINY_TRACE, TINY_INPUTS)
    hidden, out = counts.layers["hidden"], counts.layers["out"]
    assert (counts.samples, counts.steps, counts.binary_input) == (2, 4, False)
    assert counts.input_events == 4 * 3, "three nonzero values, each sent in each of the four steps"
    assert graded(counts, "hidden") == 4 * 3 * 2
    assert graded(counts, "hidden", effective=True) == 4 * (2 + 2 + 1), "inputs 0 and 2 have two weights, input 1 has one"
    assert hidden.twin_input_macs == 2 + 2 + 1, "an ANN sees its input once"
    assert (synops(counts, "hidden"), synops(counts, "out"), graded(counts, "out")) == (0, 6 * 2, 0)
    assert synops(counts, "out", effective=True) == 3 * 1 + 3 * 2
    assert (hidden.spikes, hidden.messages, hidden.updates) == (6, 6, 2 * 4 * 2)
    assert (out.spikes, out.messages, out.updates) == (1, 0, 16), "nobody listens to the output layer"
    found = operations_of(deployment, counts)
    assert (found.synops(), found.graded(), found.synops(effective=True), found.graded(effective=True)) == (12, 24, 9, 20)
    assert spikes_per_synapse(found) == 12 / (4 * 2)
    metrics = neurobench.metrics(found)
    assert (metrics.dense, metrics.activation_sparsity) == (10 * 4, 1 - 7 / 32)
    assert metrics.connection_sparsity == pytest.approx(2 / 10)


def test_synops_are_the_spikes_pushed_through_the_synapses() -> None:
    """NeuroBench's definition: a layer of ones (or of nonzero marks), applied to the nonzero marks of what arrives."""
    rng = np.random.default_rng(5)
    deployment = random_deployment(rng, steps=5)
    inputs = random_inputs(rng, deployment, 3)
    trace, activity = run(deployment, inputs)
    counts = count(deployment, trace, inputs)
    assert sum(synops(counts, name) for name in deployment.layers) > 0
    for name in deployment.layers:
        (connection,) = deployment.connections[name]
        is_input = isinstance(deployment.graph.nodes[connection.source], nir.Input)
        arriving = np.repeat(inputs[None], 5, axis=0) != 0 if is_input else activity[connection.source].spikes
        for effective in (False, True):
            x = arriving.reshape(-1, *arriving.shape[2:]).astype(np.int64)
            for node in connection.path:
                synapse = deployment.synapses.get(node)
                weight = None if synapse is None else ((synapse.weight != 0) | (not effective)).astype(np.int64)
                x = apply(
                    node, deployment.graph.nodes[node], x, weight, None if weight is None else np.zeros(len(weight), np.int64)
                )
            got = (graded if is_input else synops)(counts, name, effective)
            assert got == x.sum()
            assert (synops if is_input else graded)(counts, name, effective) == 0


def events_one_by_one(weight: np.ndarray, plan: LayerPlan, spikes: np.ndarray, produced: tuple[int, ...]) -> tuple[int, int]:
    """Synaptic events of a convolution, every output, kernel entry and spike looked at by itself: (all, of nonzero weights)."""
    total = nonzero = 0
    out_channels, per_group, rows, columns = weight.shape
    given_rows, given_columns = spikes.shape[-2:]
    for channel, row, column in np.ndindex(*produced):
        first = channel // (out_channels // plan.groups) * per_group
        for inner, i, j in np.ndindex(per_group, rows, columns):
            y = row * plan.stride[0] - plan.padding[0] + i * plan.dilation[0]
            x = column * plan.stride[1] - plan.padding[1] + j * plan.dilation[1]
            if 0 <= y < given_rows and 0 <= x < given_columns:
                arriving = int(spikes[..., first + inner, y, x].sum())
                total += arriving
                nonzero += arriving if weight[channel, inner, i, j] else 0
    return total, nonzero


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=40, deadline=None)
@given(
    kernel=SIZES, stride=SIZES, dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), groups=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), channels=SIZES, seed=st.integers(0, 2**16),
)  # fmt: skip
def test_synops_of_a_random_convolution_are_its_events_one_by_one(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int, padding: tuple[int, int],
    channels: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    hidden = groups * channels[0]
    weight = rng.integers(-8, 8, (groups * channels[1], channels[0], *kernel)) * 2 * (rng.random() < 0.9)
    weight = weight * (rng.random(weight.shape) < 0.7)
    before = LayerPlan("before", rng.integers(-8, 8, (hidden, 1, 1, 1)) * 2)
    layer = LayerPlan("lif", weight, "before", groups=groups, dilation=dilation, padding=padding, stride=stride)
    try:
        deployment = deployment_from(Plan((1, 5, 6), (before, layer), steps=3))
    except UserError as error:
        assert error.code == "SNX206", "only a kernel that does not fit is no example"
        return
    spikes = rng.random((3, 2, hidden, 5, 6)) < 0.3
    last = np.zeros((2, *deployment.shapes["lif"]), np.int64)
    counts = count(deployment, trace_of({"before": spikes.sum(axis=0), "lif": last}), np.zeros((2, 1, 5, 6)))
    expected = events_one_by_one(weight, layer, spikes, deployment.shapes["lif"])
    assert (synops(counts, "lif"), synops(counts, "lif", effective=True)) == expected


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), cuts=st.lists(st.integers(1, 6), max_size=3))
def test_chunks_add_up_to_the_whole(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    deployment = tiny(events=bool(seed % 2), high=1 + seed % 3)
    inputs = random_inputs(rng, deployment, 7)
    trace = trace_of({name: rng.integers(0, 5, (7, 2)) for name in deployment.layers})
    counter = Counter(deployment)
    whole = counter.count(trace, inputs)
    edges = [0, *sorted(set(cuts)), 7]
    parts: list[Counts] = []
    for start, stop in pairwise(edges):
        part = trace_of({name: layer.counts[start:stop] for name, layer in trace.layers.items()})
        parts.append(counter.count(part, inputs[:, start:stop] if seed % 2 else inputs[start:stop]))
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged == whole
    one_by_one = [counter.count(trace_of({n: t.counts[i : i + 1] for n, t in trace.layers.items()}),
                                inputs[:, i : i + 1] if seed % 2 else inputs[i : i + 1]) for i in range(7)]  # fmt: skip
    assert sum((part.layers["out"] for part in one_by_one), LayerCounts()) == whole.layers["out"]


def test_input_is_spikes_only_where_the_declared_range_says_so() -> None:
    frame = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    binary = count(tiny(high=1), TINY_TRACE, frame)
    assert (synops(binary, "hidden"), graded(binary, "hidden")) == (4 * 3 * 2, 0)
    assert spikes_per_synapse(operations_of(tiny(high=1), binary)) == (4 * 3 * 2 + 6 * 2) / (10 * 2), (
        "all ten synapses carry spikes"
    )
    levels = count(tiny(high=2), TINY_TRACE, frame)
    assert (synops(levels, "hidden"), graded(levels, "hidden")) == (0, 4 * 3 * 2), "levels of 0 and 1 are graded if 2 may come"
    signed = count(tiny(low=-1, high=1), TINY_TRACE, -frame)
    assert (synops(signed, "hidden"), graded(signed, "hidden")) == (0, 4 * 3 * 2), "a negative value is no spike"


def test_events_are_counted_in_the_steps_in_which_they_come() -> None:
    events = np.zeros((4, 2, 3))
    events[0, 0, 0] = events[3, 0, 0] = events[2, 1, 1] = 1.0
    counts = count(tiny(events=True, high=1), TINY_TRACE, events)
    assert (counts.input_events, synops(counts, "hidden"), counts.layers["hidden"].twin_input_macs) == (3, 6, 2 + 2 + 1), (
        "an ANN without memory runs on every frame"
    )


def test_a_float_network_takes_real_values_as_graded_and_zero_one_events_as_spikes() -> None:
    def floats(deployment: Deployment) -> Deployment:
        encoder = replace(deployment.contract.encoder, gain=None)
        contract = deployment.contract.model_copy(update={"quantisation": None, "encoder": encoder})
        return deployment.replace(contract=contract, synapses={}, populations={})

    direct, events = floats(tiny()), floats(tiny(events=True))
    assert graded(count(direct, TINY_TRACE, TINY_INPUTS * 0.01), "hidden") == 24, "no grid: every nonzero value is sent"
    spikes = np.ones((4, 2, 3))
    counter = Counter(events)
    one, other = counter.count(TINY_TRACE, spikes), counter.count(TINY_TRACE, spikes * 0.5)
    assert (one.binary_input, other.binary_input) == (True, False)
    both = one.merge(other)
    assert (synops(both, "hidden"), graded(both, "hidden")) == (0, 2 * 4 * 2 * 3 * 2)
    assert both == other.merge(one)


def test_values_that_fall_to_level_zero_are_not_sent() -> None:
    assert count(tiny(), TINY_TRACE, TINY_INPUTS * 0.01).input_events == 0


def test_what_does_not_belong_together_is_refused() -> None:
    counter = Counter(tiny())
    for trace, inputs in (
        (trace_of({"hidden": [[3, 1], [0, 2]]}), TINY_INPUTS),
        (trace_of({"hidden": [[3, 1, 1], [0, 2, 1]], "out": [[1, 0], [0, 0]]}), TINY_INPUTS),
        (TINY_TRACE, TINY_INPUTS[:1]),
    ):
        with pytest.raises(UserError, match="SNX321"):
            counter.count(trace, inputs)
    with pytest.raises(UserError, match="SNX501"):
        counter.count(trace_of({"hidden": np.zeros((0, 2)), "out": np.zeros((0, 2))}), TINY_INPUTS[:0])
    with pytest.raises(UserError, match="SNX321"):
        counter.count(TINY_TRACE, TINY_INPUTS).merge(count(tiny(steps=5), TINY_TRACE, TINY_INPUTS))


def test_counts_beyond_32_bits_stay_exact() -> None:
    spikes = 2**40 + 1
    counts = count(tiny(), trace_of({"hidden": [[spikes, 0]], "out": [[0, 0]]}), TINY_INPUTS[:1])
    assert synops(counts, "out") == 2 * spikes
