from __future__ import annotations

import numpy as np
import pytest

from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import Counter, count
from snn_export.energy.estimate import estimate
from snn_export.energy.latency import busiest_core
from snn_export.energy.observer import EnergyObserver
from snn_export.energy.operations import Beside
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import Placement, place
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from snn_export.reporting.energy_records import EnergyReport
from tests.builders import LayerPlan, Plan, deployment_from

LOIHI1 = load_table("loihi1")


def large(high: int = 1) -> Deployment:
    """16 x 16 pixels -> 8 maps of 16 x 16 -> 10: two or more cores' worth of neurons, and a few hops."""
    rng = np.random.default_rng(0)
    first = LayerPlan("first", rng.integers(-4, 5, (8, 1, 3, 3)) * 2, padding=(1, 1))
    second = LayerPlan("second", rng.integers(-4, 5, (8, 8, 3, 3)) * 2, "first", padding=(1, 1))
    out = LayerPlan("out", rng.integers(-4, 5, (10, 8 * 256)) * 2, "second")
    return deployment_from(Plan((1, 16, 16), (first, second, out), steps=4, high=high))


def ran(deployment: Deployment, samples: int = 3) -> EnergyObserver:
    rng = np.random.default_rng(1)
    layers = {}
    for name in deployment.layers:
        spikes = rng.random((4, samples, *deployment.shapes[name])) < (0.0 if name == "out" else 0.3)
        layers[name] = LayerTrace(spikes.sum(axis=0), spikes, rng.integers(-9, 9, spikes.shape))
    observer = EnergyObserver("loihi", deployment)
    inputs = (rng.random((samples, 1, 16, 16)) < 0.5).astype(float)
    observer.chunk(inputs, {"loihi": Trace("loihi", layers, np.zeros((samples, 10)), np.zeros(samples, np.int64), 0)}, 0)
    return observer


def placed(high: int = 1, chip: str = "loihi1") -> tuple[EnergyReport, Placement, EnergyObserver, Deployment]:
    deployment = large(high)
    observer = ran(deployment)
    placement = place(deployment, load_chip(chip), observer.counted.activity)
    busiest = busiest_core(deployment, placement, observer.counted.activity)
    beside = Beside(placement=placement, busiest=busiest, by_step=observer.counted.steps.records())
    return estimate(deployment, observer.counts, LOIHI1, beside), placement, observer, deployment


def test_the_work_of_all_cores_is_that_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed over cores, what each does in a step is what the whole network does."""
    deployment = large()
    observer = ran(deployment)
    placement = place(deployment, load_chip("loihi1"), observer.counted.activity)
    assert len(placement.cores) > 3
    loads = []
    monkeypatch.setattr("snn_export.energy.latency._weight", lambda load: loads.append(load) or 0.0)
    busiest_core(deployment, placement, observer.counted.activity)
    counts = observer.counts
    per_step = counts.samples * counts.steps
    assert sum(load.synops for load in loads) == pytest.approx(
        sum(counts.synops(name, effective=True) for name in counts.layers) / per_step
    )
    assert sum(load.active_updates for load in loads) == pytest.approx(sum(x.spikes for x in counts.layers.values()) / per_step)
    neurons = sum(item.neurons for item in counts.structure.values())
    assert sum(load.active_updates + load.inactive_updates for load in loads) == pytest.approx(neurons)


def test_a_step_lasts_as_long_as_the_busiest_core_and_the_barrier() -> None:
    report, placement, _, deployment = placed()
    found, load = report.latency, report.operations.busiest
    expected = 8.4 * load.active_updates + 5.3 * load.inactive_updates + 3.5 * load.synops + 465
    assert found.step.value == pytest.approx(expected)
    assert found.step.low < found.step.value < found.step.high
    assert found.steps == 4 + max(deployment.contract.latency.values())
    assert found.inference.value == pytest.approx(expected * found.steps)
    assert found.throughput == pytest.approx(1e9 / found.inference.value)
    assert found.throughput_low < found.throughput < found.throughput_high
    assert "lower estimate" in found.reason
    assert any("10.1109/MM.2018.112130359" in source for source in found.sources)
    assert any(found.busiest_core.startswith(f"core {number}:") for number in range(len(placement.cores)))


def test_packets_and_hops_are_those_of_the_placement_and_layers_still_add_up() -> None:
    report, placement, _, _ = placed()
    figures = {figure.component: figure for figure in report.figures}
    journeys = placement.journeys.values()
    assert figures["packets within a tile"].count == pytest.approx(sum(item.packets for item in journeys))
    east, north = (sum(getattr(item, name) for item in journeys) for name in ("east_west", "north_south"))
    assert east + north > 0, "the example must travel"
    assert figures["hops east or west"].value == pytest.approx(3.0 * east)
    assert figures["hops north or south"].value == pytest.approx(4.0 * north)
    assert "spike messages within a tile" not in figures
    assert sum(layer.value for layer in report.layers) == pytest.approx(report.total)
    assert {"(input)", "(to the host)"} <= {layer.layer for layer in report.layers}
    assert report.curve[-1].value == pytest.approx(report.total)
    assert any("placement on loihi1" in limit for limit in report.limits)


def test_without_a_placement_hops_are_not_placed_and_time_is_not_estimated() -> None:
    deployment = large()
    observer = ran(deployment)
    report = estimate(deployment, observer.counts, LOIHI1, Beside(unplaced="SNX453 too large"))
    hops = {figure.component: figure for figure in report.figures}["hops between tiles"]
    assert (hops.count, hops.value, hops.coefficient) == (None, None, "not placed on cores")
    assert (report.latency.step, report.latency.inference, report.latency.throughput) == (None, None, None)
    assert report.latency.reason.startswith("not estimated")
    assert "(SNX453 too large)" in report.latency.reason
    assert any("SNX453 too large" in limit for limit in report.limits)


def test_another_chips_placement_gets_no_times_and_says_whose_model_exists() -> None:
    report, *_ = placed(chip="loihi2")
    assert report.latency.step is None
    assert "not estimated" in report.latency.reason
    assert "arXiv 2601.10035" in report.latency.reason
    assert "placement on loihi2, whose figures loihi1 does not hold" in " ".join(report.limits)


def test_a_table_without_times_says_which() -> None:
    deployment = large()
    report = estimate(deployment, ran(deployment).counts, LOIHI1.model_copy(update={"times": {}}))
    assert "has no time for synaptic_operation" in report.latency.reason


def test_graded_work_is_told_apart_and_said() -> None:
    report, *_ = placed(high=9)
    assert report.operations.busiest is not None
    if report.operations.busiest.graded:
        assert "graded ones counted as if they were binary" in report.latency.reason
    deployment = large(high=9)
    observer = ran(deployment)
    placement = place(deployment, load_chip("loihi1"), observer.counted.activity)
    busiest = busiest_core(deployment, placement, observer.counted.activity)
    assert busiest.synops + busiest.graded > 0


def test_a_placement_of_another_network_is_refused() -> None:
    _, placement, *_ = placed()
    other = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4]])),)))
    trace = Trace("test", {"out": LayerTrace(np.array([[3]]))}, np.zeros((1, 1)), np.zeros(1, np.int64), 0)
    with pytest.raises(UserError, match="SNX321"):
        estimate(other, count(other, trace, np.ones((1, 3))), LOIHI1, Beside(placement=placement))
    assert Counter(other).deployment is other
