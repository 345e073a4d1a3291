"""Comparison of traces: what must not slip through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from snn_export.hardware_sims.trace import LayerTrace, Trace, layer_trace
from snn_export.models.spec import NeuronSpec
from snn_export.reporting.report import LayerComparison
from snn_export.verification.compare import ComparisonTally, Kind, Tolerance
from snn_export.verification.statistics import wilson_interval
from tests.builders import LayerPlan, Plan, deployment_from

STEPS, BATCH, NEURONS = 5, 4, 6
DEPLOYMENT = deployment_from(
    Plan(
        (1,),
        (
            LayerPlan("lif", np.full((NEURONS, 1), 2, np.int16), threshold=9),
            LayerPlan("readout", np.full((3, NEURONS), 2, np.int16), "lif"),
        ),
        readout="readout",
    )
)


def integer_trace(spikes: NDArray[np.bool_], membrane: NDArray[np.int32]) -> Trace:
    layer = layer_trace(spikes, membrane, membrane.copy(), ("spikes", "membrane", "current"), latency=1)
    return Trace("test", {"lif": layer}, membrane[-1], membrane[-1].argmax(axis=1), 0)


def example(seed: int = 0) -> Trace:
    rng = default_rng(seed)
    return integer_trace(rng.random((STEPS, BATCH, NEURONS)) < 0.4, rng.integers(-99, 99, (STEPS, BATCH, NEURONS), np.int32))


def changed(trace: Trace, **fields: object) -> Trace:
    layer = replace(trace.layers["lif"], **fields)  # type: ignore[arg-type]
    return replace(trace, layers={"lif": layer})


def compare(reference: Trace, got: Trace, kind: Kind = "exact", tolerance: float = 0.0) -> LayerComparison:
    tally = ComparisonTally(kind, DEPLOYMENT)
    tally.add(np.zeros((BATCH, 1)), reference, got)
    (layer,) = tally.finish(Tolerance(100.0 * tolerance))
    return layer


def test_equal_is_exact() -> None:
    layer = compare(example(), example())
    assert layer.verdict == "EXACT"
    assert (layer.positions, layer.membranes_compared, layer.currents_compared) == (STEPS * BATCH * NEURONS,) * 3
    assert layer.mismatched_spikes == layer.mismatched_membranes == layer.mismatched_currents == 0
    assert layer.first_divergence is None


def test_equal_totals_do_not_hide_swapped_neurons() -> None:
    """The published case: 119 spikes on both sides, another network."""
    reference = example()
    spikes = np.asarray(reference.layers["lif"].spikes)[:, :, ::-1]
    got = changed(reference, spikes=spikes, counts=spikes.sum(axis=0, dtype=np.int64))
    layer = compare(reference, got)
    assert layer.reference_spikes == layer.got_spikes
    assert layer.verdict == "DRIFT"
    assert layer.mismatched_spikes > 0
    assert layer.count_error_sum > 0
    assert layer.neurons_with_count_error > 0


def test_equal_counts_do_not_hide_a_shift_in_time() -> None:
    reference = example()
    spikes = np.roll(np.asarray(reference.layers["lif"].spikes), 1, axis=0)
    layer = compare(reference, changed(reference, spikes=spikes))
    assert layer.count_error_sum == 0
    assert layer.verdict == "DRIFT"


@pytest.mark.parametrize("field", ["membrane", "current"])
def test_one_unit_in_one_state_is_drift(field: str) -> None:
    reference = example()
    state = np.array(getattr(reference.layers["lif"], field))
    state[3, 2, 5] += 1
    layer = compare(reference, changed(reference, **{field: state}))
    assert layer.mismatched_spikes == 0
    assert layer.verdict == "DRIFT"
    if field == "membrane":
        assert layer.first_divergence is not None
        assert (layer.first_divergence.sample, layer.first_divergence.step, layer.first_divergence.neuron) == (2, 3, 5)


def test_first_divergence_is_the_lowest_sample_then_the_earliest_step() -> None:
    reference = example()
    spikes = np.array(reference.layers["lif"].spikes)
    for step, sample, neuron in ((0, 3, 0), (4, 1, 2), (2, 1, 4)):
        spikes[step, sample, neuron] ^= True
    found = compare(reference, changed(reference, spikes=spikes)).first_divergence
    assert found is not None
    assert (found.sample, found.step, found.neuron, found.kind) == (1, 2, 4, "spike")


def test_chunks_add_up() -> None:
    """Splitting the samples changes nothing, and the divergence keeps its sample's own index."""
    reference, got = example(0), example(1)
    whole = compare(reference, got)

    def part(trace: Trace, samples: slice) -> Trace:
        layer = trace.layers["lif"]
        cut = LayerTrace(
            counts=layer.counts[samples],
            spikes=np.asarray(layer.spikes)[:, samples],
            membrane=np.asarray(layer.membrane)[:, samples],
            current=np.asarray(layer.current)[:, samples],
            latency=layer.latency,
        )
        return Trace("test", {"lif": cut}, trace.readout[samples], trace.predictions[samples], 0)

    tally = ComparisonTally("exact", DEPLOYMENT)
    for samples in (slice(0, 1), slice(1, 3), slice(3, 4)):
        tally.add(np.zeros((BATCH, 1)), part(reference, samples), part(got, samples))
    assert tally.finish(Tolerance()) == (whole,)
    assert tally.samples == BATCH


@pytest.mark.parametrize(
    "fields",
    [{"spikes": None}, {"membrane": None}, {"spikes": np.zeros((STEPS, BATCH, NEURONS + 1), bool)}],
    ids=["spikes", "membrane", "shape"],
)
def test_what_was_not_seen_is_not_compared(fields: dict[str, object]) -> None:
    reference = example()
    assert compare(reference, changed(reference, **fields)).verdict == "NOT_COMPARED"


def test_missing_layer_is_not_compared_whichever_side_lacks_it() -> None:
    reference = example()
    assert compare(reference, replace(reference, layers={})).verdict == "NOT_COMPARED"
    assert compare(replace(reference, layers={}), reference).verdict == "NOT_COMPARED"


def test_exact_asks_for_integers_on_both_sides() -> None:
    reference = example()
    floats = changed(reference, membrane=np.asarray(reference.layers["lif"].membrane, np.float64))
    assert compare(reference, floats).verdict == "NOT_COMPARED"


def test_a_dead_layer_differs_by_all_its_spikes_however_rare_they_were() -> None:
    spikes = np.zeros((STEPS, BATCH, NEURONS), bool)
    spikes[2, 1, 3] = True
    membrane = np.zeros(spikes.shape, np.int32)
    layer = compare(integer_trace(spikes, membrane), integer_trace(spikes & False, membrane), "approximate", tolerance=0.99)
    assert layer.tolerance_that_would_pass == 1.0
    assert layer.verdict == "DRIFT"


def test_a_layer_that_cannot_spike_is_judged_by_decisions() -> None:
    """A readout that votes the other way has no spike to differ in."""
    membrane = default_rng(3).integers(1, 99, (STEPS, BATCH, 3), np.int32)
    neurons = {**DEPLOYMENT.contract.neurons, "readout": NeuronSpec(0, reset="none", spiking=False)}
    silent_readout = DEPLOYMENT.replace(contract=DEPLOYMENT.contract.model_copy(update={"neurons": neurons}))
    spikes = np.zeros(membrane.shape, bool)

    def readout(values: NDArray[np.int32]) -> Trace:
        layer = layer_trace(spikes, values, None, ("spikes", "membrane"))
        return Trace("test", {"readout": layer}, values[-1], values[-1].argmax(axis=1), 0)

    for got, verdict in ((membrane, "WITHIN"), (-membrane, "DRIFT")):
        tally = ComparisonTally("approximate", silent_readout)
        tally.add(np.zeros((BATCH, 1)), readout(membrane), readout(got))
        assert [layer.verdict for layer in tally.finish(Tolerance())] == [verdict]


def test_approximate_is_never_exact_and_obeys_its_tolerance() -> None:
    reference, got = example(0), example(1)
    fraction = compare(reference, got, "approximate").tolerance_that_would_pass
    assert compare(reference, reference, "approximate").verdict == "WITHIN"
    assert compare(reference, got, "approximate", tolerance=fraction).verdict == "WITHIN"
    assert compare(reference, got, "approximate", tolerance=fraction * 0.999).verdict == "DRIFT"


def test_wilson_interval() -> None:
    """Against the closed form worked out by hand for 8 of 10: centre 0.7169, half width 0.2269 (z = 1.96)."""
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(49.02, abs=0.01)
    assert high == pytest.approx(94.33, abs=0.01)
    assert wilson_interval(10, 10)[1] == pytest.approx(100.0)
    assert wilson_interval(10, 10)[0] < 100.0
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0, 0)
