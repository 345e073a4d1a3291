"""Each layer by itself, shifts in time, paired decisions: what a comparison says beside "differs"."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting.report import LayerComparison
from snn_export.verification import isolated
from snn_export.verification.compare import ComparisonTally, Kind, Tolerance
from snn_export.verification.isolated import Form
from snn_export.verification.lags import lag_mismatches
from snn_export.verification.statistics import mcnemar_p
from tests.builders import random_deployment, random_inputs
from tests.networks import delayed_net, dense_net, quantised, read, residual_net, uniform

RECORD = ("spikes", "membrane", "current")
ALL = Tolerance(100.0, 100.0)


def integer_network(seed: int = 3) -> tuple[Deployment, NDArray[Any]]:
    rng = default_rng(seed)
    deployment = random_deployment(rng, steps=12)
    return deployment, random_inputs(rng, deployment, 6)


def run(deployment: Deployment, inputs: NDArray[Any], backend: str = "loihi") -> Trace:
    chosen = simulator(backend)
    return chosen.run(chosen.compile(deployment), inputs, RECORD)


def tally(deployment: Deployment, kind: Kind = "exact", form: Form | None = None) -> ComparisonTally:
    return ComparisonTally(kind, deployment, form or (Form(deployment, "int64") if kind == "exact" else None))


def wrong_weight(deployment: Deployment, layer: str) -> Deployment:
    """The network with the weights in front of one layer negated."""
    name = deployment.connections[layer][0].path[-1]
    synapse = deployment.synapses[name]
    return deployment.replace(synapses={**deployment.synapses, name: replace(synapse, weight=np.minimum(-synapse.weight, 254))})


def by_name(found: tuple[LayerComparison, ...]) -> dict[str, LayerComparison]:
    return {layer.layer: layer for layer in found}


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6])
def test_the_faulty_layer_is_named_and_those_behind_it_are_not(seed: int) -> None:
    deployment, inputs = integer_network(seed)
    faulty = deployment.layers[0]
    found = tally(deployment)
    found.add(inputs, run(deployment, inputs), run(wrong_weight(deployment, faulty), inputs))
    assert found.at_fault(ALL) == (faulty, "target")
    layers = by_name(found.finish(ALL))
    behind = [layers[name].isolated for name in deployment.layers[1:]]
    assert layers[faulty].isolated is not None
    assert layers[faulty].isolated.mismatched_membranes
    assert all(one is not None and (one.mismatched_spikes, one.mismatched_membranes) == (0, 0) for one in behind)
    assert any(layers[name].mismatched_membranes for name in deployment.layers[1:])


def test_a_faulty_reference_is_told_from_a_faulty_target() -> None:
    deployment, inputs = integer_network()
    faulty = deployment.layers[0]
    right, wrong = run(deployment, inputs), run(wrong_weight(deployment, faulty), inputs)
    found = tally(deployment)
    found.add(inputs, wrong, right)
    assert found.at_fault(ALL) == (faulty, "reference")
    both = tally(deployment)
    both.add(inputs, wrong, run(wrong_weight(deployment, deployment.layers[1]), inputs))
    assert both.at_fault(ALL) == (faulty, "both")


def test_equal_runs_drive_nothing() -> None:
    deployment, inputs = integer_network()
    found = tally(deployment)
    found.add(inputs, run(deployment, inputs), run(deployment, inputs))
    assert found.driven == []
    assert found.at_fault(ALL) == (None, None)
    assert all(layer.isolated is None and layer.lag is None for layer in found.finish(ALL))


@pytest.mark.parametrize(("build", "shape"), [(dense_net, (4,)), (residual_net, (2, 8, 6)), (delayed_net, (6,))])
def test_a_fault_between_floats_is_named_beyond_rounding(build: Callable[[], Any], shape: tuple[int, ...]) -> None:
    deployment = read(build(), shape)
    inputs = uniform(default_rng(0), 5, *shape, high=2.0)
    layer = deployment.layers[0]
    right, rounded = run(deployment, inputs, "reference"), run(deployment, inputs, "snntorch")
    changed = simulator("reference").run(_with_threshold(deployment, layer, 0.9), inputs, RECORD)
    for sides, expected in (((right, changed), "target"), ((changed, rounded), "reference")):
        found = tally(deployment, "float")
        signed = [replace(trace, backend="other") if trace is changed else trace for trace in sides]
        found.add(inputs, *signed)
        assert found.at_fault(ALL) == (layer, expected)
    rounding = tally(deployment, "float")
    rounding.add(inputs, right, rounded)
    assert rounding.at_fault(ALL) == (None, None)


def _with_threshold(deployment: Deployment, layer: str, factor: float) -> Any:
    graph = copy.deepcopy(deployment.graph)
    graph.nodes[layer].v_threshold = graph.nodes[layer].v_threshold * factor
    return simulator("reference").compile(deployment.replace(graph=graph))


def test_quantisation_is_charged_to_the_layer_that_causes_it() -> None:
    """What a layer changes by itself: less than what reaches it from the layers before."""
    deployment = read(dense_net(), (4,))
    inputs = uniform(default_rng(0), 30, 4, high=2.0)
    integers = quantised(deployment, high=2.0, weight_bits=4)
    found = ComparisonTally("approximate", integers, Form(deployment, "float64"))
    found.add(inputs, run(deployment, inputs, "reference"), run(integers, inputs))
    layers = found.finish(Tolerance(0.0, 0.0))
    own = {layer.layer: layer.isolated for layer in layers}
    assert all(one is not None and one.reference_mismatched_spikes is None for one in own.values())
    assert found.at_fault(Tolerance(0.0, 0.0))[1] is None


def later(trace: Trace, first: int, steps: int) -> Trace:
    """Layers from number ``first`` on shifted by ``steps``; what is shifted in is silence."""
    layers: dict[str, LayerTrace] = dict(trace.layers)
    for name in list(layers)[first:]:
        spikes = np.zeros_like(layers[name].spikes)
        source = np.asarray(layers[name].spikes)
        spikes[max(0, steps) : len(spikes) + min(0, steps)] = source[max(0, -steps) : len(source) - max(0, steps)]
        layers[name] = replace(layers[name], spikes=spikes, counts=spikes.sum(axis=0, dtype=np.int64))
    return replace(trace, layers=layers)


@pytest.mark.parametrize("steps", [-2, -1, 1, 2, 3])
def test_a_wrong_declared_latency_is_found(steps: int) -> None:
    deployment, inputs = integer_network(1)
    right = run(deployment, inputs)
    found = tally(deployment)
    found.add(inputs, right, later(right, 1, steps))
    layers = by_name(found.finish(ALL))
    first, second = deployment.layers[:2]
    assert layers[first].lag is None
    lag = layers[second].lag
    assert lag is not None
    assert (lag.best, lag.mismatched_at_best) == (steps, 0)


def test_no_shift_is_believed_that_leaves_most_differences() -> None:
    rng = default_rng(0)
    reference, got = rng.random((20, 3, 50)) < 0.4, rng.random((20, 3, 50)) < 0.4
    shifts = lag_mismatches(reference, got)
    assert shifts is not None
    assert len(shifts) == 7
    from snn_export.verification.lags import believed_lag

    lag = believed_lag(shifts, 2)
    assert lag is not None
    assert (lag.best, lag.declared) == (0, 2)
    assert lag_mismatches(reference[:2], got[:2]) is None


def test_spike_distance_tells_late_from_missing() -> None:
    """One spike, one step late: 0.5. The same at another end of the run: one removed, one added, 2."""
    deployment, inputs = integer_network(1)
    right = run(deployment, inputs)
    name, layer = next(iter(right.layers.items()))
    for moved_to, expected in ((1, 0.5), (3, 1.5), (9, 2.0)):
        spikes, other = np.zeros_like(layer.spikes), np.zeros_like(layer.spikes)
        spikes[0, 0].flat[0] = other[moved_to, 0].flat[0] = True
        one, two = (
            replace(right, layers={name: replace(layer, spikes=s, counts=s.sum(axis=0, dtype=np.int64))}) for s in (spikes, other)
        )
        found = tally(deployment)
        found.add(inputs, one, two)
        (result,) = found.finish(ALL)
        assert (result.spike_distance_mean, result.spike_distance_trains) == (expected, 1)
        assert result.count_error_sum == 0


def test_counts_are_told_apart_by_size() -> None:
    deployment, inputs = integer_network(1)
    right = run(deployment, inputs)
    name, layer = next(iter(right.layers.items()))
    neurons = layer.counts[0].size
    spikes, other = np.zeros_like(layer.spikes), np.zeros_like(layer.spikes)
    for neuron, error in enumerate((1, 2, 3, 4, 5, 9)[:neurons]):
        other[:error, 0].reshape(error, -1)[:, neuron] = True
    sides = [
        replace(right, layers={name: replace(layer, spikes=s, counts=s.sum(axis=0, dtype=np.int64))}) for s in (spikes, other)
    ]
    found = tally(deployment)
    found.add(inputs, *sides)
    (result,) = found.finish(ALL)
    assert sum(result.count_error_histogram) == layer.counts.size
    assert result.count_error_histogram[1:] == (1, 1, 2, 1, 1)
    assert result.rate_error_max == 9 / 12
    assert result.rate_error_mean == pytest.approx(24 / (layer.counts.size * 12))


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_results_do_not_depend_on_how_samples_were_cut(cut: int, kind: Kind) -> None:
    """Chunks added to one tally, and tallies of shards merged, equal the tally of all samples in everything."""
    deployment, inputs = integer_network(2)
    wrong = wrong_weight(deployment, deployment.layers[1])
    labels = default_rng(0).integers(0, 3, len(inputs))
    form = Form(deployment, "int64")
    whole, merged = tally(deployment, kind, form), tally(deployment, kind, form)
    whole.add(inputs, run(deployment, inputs), run(wrong, inputs), labels)
    for low in range(0, len(inputs), cut):
        part, shard = slice(low, low + cut), tally(deployment, kind, form)
        shard.add(inputs[part], run(deployment, inputs[part]), run(wrong, inputs[part]), labels[part])
        merged.merge(shard, low)
    assert merged.finish(Tolerance()) == whole.finish(Tolerance())
    assert merged.at_fault(Tolerance()) == whole.at_fault(Tolerance())
    assert [s.sample for s in merged.driven] == [s.sample for s in whole.driven]
    for name in ("samples", "labelled", "decisions_equal", "only_reference_right", "only_target_right"):
        assert getattr(merged, name) == getattr(whole, name)


def test_only_the_first_differing_samples_are_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "SAMPLES", 3)
    deployment, inputs = integer_network(2)
    found = tally(deployment)
    found.add(inputs, run(deployment, inputs), run(wrong_weight(deployment, deployment.layers[0]), inputs))
    assert len(found.driven) == 3


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (9, 1, 22 / 1024), (10, 10, 1.0)])
def test_mcnemar_is_the_exact_binomial(b: int, c: int, p: float) -> None:
    assert mcnemar_p(b, c) == mcnemar_p(c, b) == pytest.approx(p)


def test_mcnemar_equals_scipy() -> None:
    from scipy.stats import binomtest

    rng = default_rng(0)
    for b, c in rng.integers(0, 60, (50, 2)):
        if b + c:
            assert mcnemar_p(int(b), int(c)) == pytest.approx(binomtest(int(b), int(b + c)).pvalue, rel=1e-9)
