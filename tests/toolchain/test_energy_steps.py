from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import Counter
from snn_export.energy.curve import chosen_threshold, knee
from snn_export.energy.estimate import estimate
from snn_export.energy.observer import EnergyObserver
from snn_export.energy.operations import Beside
from snn_export.energy.step_counts import OPERATIONS, Answers, StepCounter, answers_of
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import LayerTrace, Trace, layer_trace, read_out
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec
from snn_export.reporting.energy_records import EnergyPoint, ExitOperations
from tests.builders import LayerPlan, Plan, deployment_from, random_deployment, random_inputs


def run(deployment: Deployment, inputs: np.ndarray) -> Trace:
    """The integer network with everything recorded."""
    found = interpreter.run(deployment, inputs, "int64")
    layers = {name: layer_trace(item.spikes, item.membrane, None, ("spikes", "membrane")) for name, item in found.items()}
    rule = deployment.contract.readout
    readout, predictions, ties = read_out(rule, found[rule.node].spikes, found[rule.node].membrane)
    return Trace("test", layers, readout, predictions, ties)


def shortened(deployment: Deployment, trace: Trace, inputs: np.ndarray, steps: int) -> tuple[Deployment, Trace, np.ndarray]:
    """The same run as if the network had fewer steps."""
    contract = deployment.contract.model_copy(update={"steps": steps})
    layers = {
        name: layer_trace(layer.spikes[:steps], layer.membrane[:steps], None, ("spikes", "membrane"))
        for name, layer in trace.layers.items()
    }
    shorter = Trace("test", layers, trace.readout, trace.predictions, 0)
    return (
        deployment.replace(contract=contract),
        shorter,
        inputs[:steps] if deployment.contract.encoder.kind == "events" else inputs,
    )


def sequential(deployment: Deployment) -> Deployment:
    """The same as if a spike crossed all layers within one step: the layers of a chip are then no steps apart."""
    latency = dict.fromkeys(deployment.contract.latency, 0)
    return deployment.replace(contract=deployment.contract.model_copy(update={"latency": latency}))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), steps=st.integers(1, 6))
def test_steps_add_up_to_the_whole_and_to_every_shorter_run(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    try:
        deployment = sequential(random_deployment(rng, steps=steps))
    except UserError as error:
        assert error.code == "SNX206", "only a kernel that does not fit is no example"
        return
    inputs = random_inputs(rng, deployment, 4)
    trace = run(deployment, inputs)
    totals = StepCounter(Counter(deployment)).count(trace, inputs)
    assert totals is not None
    cumulative = totals.by_step.cumsum(axis=0)
    for taken in range(1, steps + 1):
        shorter = shortened(deployment, trace, inputs, taken)
        counts = Counter(shorter[0]).count(*shorter[1:])
        layers = list(counts.layers.values())
        done = dict(zip(OPERATIONS, cumulative[taken - 1].tolist(), strict=False))
        assert (done.pop("input_messages"), done.pop("readout_spikes")) == (counts.input_events, layers[-1].spikes)
        assert done == {name: sum(getattr(layer, name) for layer in layers) for name in done}
        assert cumulative[taken - 1, len(OPERATIONS) :].tolist() == [layer.messages for layer in layers]
        updates = totals.updates.cumsum(axis=0)[taken - 1]
        assert (updates * 4).tolist() == [sum(layer.updates for layer in layers), 0]


def on_the_chip(deployment: Deployment, trace: Trace, inputs: np.ndarray, sample: int, steps: int, last: bool) -> dict[str, int]:
    """What one sample makes the chip do until the readout has taken so many steps: one step of the chip after the other."""
    counter, latency = Counter(deployment), deployment.contract.latency
    counts = dict.fromkeys(("spike_operations", "spikes", "input_operations", "input_messages", "updates", "idle_updates"), 0)
    outgoing, sent = counter.outgoing(), counter.sent(inputs)
    (source,) = set(outgoing) - set(deployment.layers)
    whole = len(trace.layers[deployment.contract.readout.node].spikes)
    for now in range(whole + max(latency.values()) if last else steps + latency[deployment.contract.readout.node]):
        if now < whole:
            message = sent[now if len(sent) > 1 else 0, sample]
            counts["input_messages"] += int(message.sum())
            counts["input_operations"] += int((message * outgoing[source][0]).sum())
        for name in deployment.layers:
            spikes, own = trace.layers[name].spikes, now - latency[name]
            if not 0 <= own < whole:
                counts["idle_updates"] += spikes[0, 0].size
                continue
            counts["updates"] += spikes[0, 0].size
            counts["spikes"] += int(spikes[own, sample].sum())
            counts["spike_operations"] += int((spikes[own, sample] * outgoing[name][0]).sum())
    return counts


@pytest.mark.parametrize("readout", ["out", "first"])
@pytest.mark.parametrize("events", [False, True])
def test_on_a_chip_the_layers_in_front_of_the_readout_have_run_ahead_of_it(readout: str, events: bool) -> None:
    """Four layers, six steps: whoever reads the last layer early has had the others work on later steps already."""
    rng = np.random.default_rng(5)
    sizes = {"first": 4, "second": 6, "third": 5, "out": 3}
    plans, source, width = [], "input", 7
    for name, size in sizes.items():
        plans.append(LayerPlan(name, rng.integers(-40, 90, (size, width)) * 2, source, threshold=60, dv=900))
        source, width = name, size
    deployment = deployment_from(Plan((7,), tuple(plans), steps=6, high=1, events=events, readout=readout))
    assert list(deployment.contract.latency.values()) == [1, 2, 3, 4]
    inputs = random_inputs(rng, deployment, 5)
    layers = {}
    for name, size in sizes.items():
        spikes = rng.random((6, 5, size)) < 0.4
        layers[name] = LayerTrace(spikes.sum(axis=0), spikes, rng.integers(-900, 900, spikes.shape))
    trace = Trace("test", layers, np.zeros((5, 3)), np.zeros(5, np.int64), 0)
    answers = answers_of("membrane_last", trace.layers[readout])
    limit = float(np.quantile(answers.margins, 0.7))
    totals = StepCounter(Counter(deployment), limit).count(trace, inputs)
    records = totals.records()
    names = ("spike_operations", "spikes", "input_operations", "input_messages", "updates", "idle_updates")
    for steps in range(1, 7):
        expected = [on_the_chip(deployment, trace, inputs, sample, steps, steps == 6) for sample in range(5)]
        for name in names:
            assert sum(getattr(item, name) for item in records[:steps]) == sum(item[name] for item in expected), (name, steps)
    last = answers.stops(limit) + 1
    assert len(set(last)) > 2, "the example must stop at different steps"
    expected = [on_the_chip(deployment, trace, inputs, n, int(last[n]), last[n] == 6) for n in range(5)]
    own, chip = totals.exit_records()
    for name in names:
        assert getattr(chip, name) == sum(item[name] for item in expected), name
    assert (own.updates, own.idle_updates) == (18 * int(last.sum()), 0)
    if readout == "out":
        assert chip.spikes > own.spikes


@pytest.mark.parametrize("rule", ["membrane_last", "membrane_mean", "membrane_max", "spike_count"])
def test_the_answer_after_a_step_is_that_of_a_run_that_ends_there(rule: str) -> None:
    rng = np.random.default_rng(3)
    spikes, membrane = rng.random((6, 20, 5)) < 0.4, rng.integers(-900, 900, (6, 20, 5))
    answers = answers_of(rule, LayerTrace(spikes.sum(axis=0), spikes, membrane))
    for steps in range(1, 7):
        values, predictions, _ = read_out(ReadoutSpec("out", rule), spikes[:steps], membrane[:steps])
        assert answers.classes[steps - 1].tolist() == predictions.tolist()
        ordered = np.sort(values, axis=1)
        assert answers.margins[steps - 1] == pytest.approx(ordered[:, -1] - ordered[:, -2])
    assert answers.classes.dtype.itemsize == 1
    nothing = LayerTrace(spikes.sum(axis=0))
    assert answers_of(rule, nothing) is None


def test_an_exit_carries_out_the_steps_up_to_it_and_no_more() -> None:
    rng = np.random.default_rng(7)
    deployment = sequential(random_deployment(rng, steps=6))
    inputs = random_inputs(rng, deployment, 16)
    trace = run(deployment, inputs)
    counter = Counter(deployment)
    answers = answers_of("membrane_last", trace.layers[deployment.contract.readout.node])
    limit = float(np.median(answers.margins))
    labels = rng.integers(0, answers.classes.max() + 1, 16)
    totals = StepCounter(counter, limit).count(trace, inputs, labels)
    alone, right = np.zeros(totals.by_step.shape[1], np.int64), 0
    last = np.array([next((t for t in range(6) if answers.margins[t, n] >= limit), 5) for n in range(16)])
    assert len(set(last)) > 2, "the example must stop at different steps"
    for sample in range(16):
        part = Trace(
            "test", {k: _sample(v, sample) for k, v in trace.layers.items()}, trace.readout[:1], trace.predictions[:1], 0
        )
        one = StepCounter(counter).count(part, inputs[sample : sample + 1])
        alone += one.by_step[: last[sample] + 1].sum(axis=0)
        right += int(answers.classes[last[sample], sample] == labels[sample])
    found, on_chip = totals.exit_records()
    assert totals.until_exit.tolist() == [alone.tolist()] * 2
    assert (found.correct, found.updates) == (right, totals.neurons * int((last + 1).sum()))
    assert on_chip == found
    assert totals.exits.tolist() == np.bincount(last, minlength=6).tolist()


def _sample(layer: LayerTrace, sample: int) -> LayerTrace:
    at = slice(sample, sample + 1)
    return LayerTrace(layer.counts[at], layer.spikes[:, at], layer.membrane[:, at])


def test_the_threshold_loses_nothing_on_its_samples_and_takes_the_fewest_steps() -> None:
    labels = np.array([0, 0, 1, 1])
    classes = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    margins = np.array([[9.0, 3.0, 8.0, 4.0], [9.0, 5.0, 8.0, 6.0], [9.0, 7.0, 8.0, 7.0]])
    chosen = chosen_threshold(Answers(classes, margins), labels)
    assert chosen.threshold == 5.0, "below, sample 1 or 3 would stop where it is wrong; above, they would go on for nothing"
    assert (chosen.samples, chosen.correct, chosen.correct_full, chosen.by_step) == (4, 4, 4, (2, 4, 4))
    assert Answers(classes, margins).stops(5.0).tolist() == [0, 1, 0, 1]
    hopeless = chosen_threshold(Answers(1 - classes, margins), labels)
    assert hopeless.correct >= hopeless.correct_full


def test_where_every_early_answer_is_wrong_nothing_stops_early() -> None:
    classes, margins = np.array([[1, 1], [1, 1], [0, 0]]), np.array([[9.0, 9.0], [9.0, 9.0], [1.0, 1.0]])
    answers = Answers(classes, margins)
    chosen = chosen_threshold(answers, np.array([0, 0]))
    assert answers.stops(chosen.threshold).tolist() == [2, 2]
    assert np.isfinite(chosen.threshold)


def points(*pairs: tuple[float, float | None]) -> list[EnergyPoint]:
    return [
        EnergyPoint(steps=number, synops=1.0, accuracy=accuracy, value=value, low=value, high=value)
        for number, (value, accuracy) in enumerate(pairs, 1)
    ]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (((1, 50), (2, 90), (3, 95), (10, 96)), 2),
        (((1, 90), (2, 99), (3, 99), (4, 99)), 2),
        (((1, 10), (2, 20), (3, 40), (4, 99)), 4),
        (((1, 99), (2, 99), (3, 98)), 1),
        (((1, 99),), 1),
        (((1, None), (2, None)), None),
        ((), None),
    ],
)
def test_the_knee_is_where_more_energy_stops_paying(pairs: tuple[tuple[float, float | None], ...], expected: int | None) -> None:
    assert knee(points(*pairs)) == expected


def test_the_curve_ends_at_the_whole_and_an_exit_that_never_comes_costs_the_whole() -> None:
    rng = np.random.default_rng(11)
    deployment = random_deployment(rng, steps=5)
    inputs = random_inputs(rng, deployment, 6)
    labels = np.zeros(6, np.int64)
    observer = EnergyObserver("loihi", deployment, threshold=1e300)
    observer.chunk(inputs, {"loihi": run(deployment, inputs)}, 0, labels)
    counted = observer.counted
    steps = counted.steps.records()
    total, on_chip = counted.steps.exit_records()
    exit_ = ExitOperations(
        threshold=1e300, chosen_on=3, validation_correct=2, validation_correct_full=2, exits=tuple(counted.steps.exits.tolist()),
        total=total, on_chip=on_chip,
    )  # fmt: skip
    report = estimate(deployment, counted.counts, load_table("loihi1"), Beside(by_step=steps, early_exit=exit_))
    last = report.curve[-1]
    assert len(report.curve) == 5
    assert (last.value, last.low, last.high) == pytest.approx((report.total, report.total_low, report.total_high))
    assert last.synops == pytest.approx(report.figures[0].count)
    assert [point.value for point in report.curve] == sorted(point.value for point in report.curve)
    assert last.accuracy == pytest.approx(100 * np.mean(run(deployment, inputs).predictions == 0))
    early = report.early_exit
    assert (early.value, early.mean_steps, early.accuracy) == (pytest.approx(report.total), 5.0, last.accuracy)
    assert (early.chosen_on, early.validation_accuracy) == (3, pytest.approx(200 / 3))
    assert "validation" in early.rule


def test_counts_of_shards_merge_to_those_of_one_run() -> None:
    rng = np.random.default_rng(2)
    deployment = random_deployment(rng, steps=4)
    inputs = random_inputs(rng, deployment, 9)
    trace = run(deployment, inputs)
    whole, merged = (EnergyObserver("loihi", deployment, 5.0) for _ in range(2))
    labels = rng.integers(0, 2, 9)
    whole.chunk(inputs, {"loihi": trace}, 0, labels)
    for at in (slice(0, 4), slice(4, 5), slice(5, 9)):
        layers = {name: LayerTrace(v.counts[at], v.spikes[:, at], v.membrane[:, at]) for name, v in trace.layers.items()}
        part = EnergyObserver("loihi", deployment, 5.0)
        part.chunk(
            inputs[at], {"loihi": Trace("test", layers, trace.readout[at], trace.predictions[at], 0)}, at.start, labels[at]
        )
        merged.merge(part.take())
        assert part.take() is None
    got, expected = merged.counted, whole.counted
    assert got.counts == expected.counts
    assert got.steps.records() == expected.steps.records()
    assert got.steps.exit_records() == expected.steps.exit_records()
    assert got.steps.exits.tolist() == expected.steps.exits.tolist()
    assert all(np.array_equal(got.activity[name], expected.activity[name]) for name in expected.activity)
    whole.forget("another")
    assert whole.counts is not None
    whole.forget("loihi")
    assert whole.counts is None


def test_without_recorded_spikes_there_is_no_curve_but_a_total() -> None:
    deployment = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4], [6, 8, 10]])),)))
    trace = Trace("test", {"out": LayerTrace(np.array([[3, 1]]))}, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    observer = EnergyObserver("loihi", deployment)
    observer.chunk(np.ones((1, 3)), {"loihi": trace}, 0)
    assert observer.counted.steps is None
    assert estimate(deployment, observer.counts, load_table("loihi1")).curve == ()
    assert replace(observer.counted).activity["out"].tolist() == [3.0, 1.0]
