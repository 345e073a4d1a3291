from __future__ import annotations

import numpy as np
import pytest

from snn_export.energy.cost_table import CostTable, load_table
from snn_export.energy.counts import count
from snn_export.energy.estimate import estimate, estimate_from
from snn_export.energy.latency import MOST_CORES, core_loads, estimate_latency, may_be_busiest
from snn_export.energy.observer import EnergyObserver
from snn_export.energy.operations import Beside, operations_of
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import Placement, place
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import CoreLoad, EnergyReport
from tests.builders import LayerPlan, Plan, deployment_from

LOIHI1 = load_table("loihi1")


def large(high: int = 1) -> Deployment:
    """16 x 16 pixels -> 8 maps of 16 x 16 -> 10: two or more cores' worth of neurons, and a few hops."""
    rng = np.random.default_rng(0)
    first = LayerPlan("first", rng.integers(-4, 5, (8, 1, 3, 3)) * 2, padding=(1, 1))
    second = LayerPlan("second", rng.integers(-4, 5, (8, 8, 3, 3)) * 2, "first", padding=(1, 1))
    out = LayerPlan("out", rng.integers(-4, 5, (10, 8 * 256)) * 2, "second")
    return deployment_from(Plan((1, 16, 16), (first, second, out), steps=4, high=high))


def divided() -> Deployment:
    """16 x 16 pixels -> 8 maps -> 40: cores with many neurons and few operations each, and one with few and many."""
    rng = np.random.default_rng(0)
    first = LayerPlan("first", rng.integers(-4, 5, (8, 1, 3, 3)) * 2, padding=(1, 1))
    return deployment_from(
        Plan((1, 16, 16), (first, LayerPlan("out", rng.integers(-4, 5, (40, 2048)) * 2, "first")), steps=4, high=1)
    )


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


def loads_of(deployment: Deployment, placement: Placement, observer: EnergyObserver) -> tuple[CoreLoad, ...]:
    return core_loads(deployment, placement, observer.counted.activity, observer.counts.binary_input)


def placed(deployment: Deployment, chip: str = "loihi1") -> tuple[EnergyReport, Placement, EnergyObserver, Deployment]:
    observer = ran(deployment)
    placement = place(deployment, load_chip(chip), observer.counted.activity)
    cores = may_be_busiest(loads_of(deployment, placement, observer))
    beside = Beside(placement=placement, cores=cores, by_step=observer.counted.steps.records())
    return estimate(deployment, observer.counts, LOIHI1, beside), placement, observer, deployment


def barrier(placement: Placement) -> float:
    """Of the published table, with as many of 32 tiles as the placement uses."""
    tiles = len({(core.chip, core.row, core.column) for core in placement.cores})
    return 113 + (465 - 113) * (tiles - 1) / 31


def with_times(active: float, inactive: float, operation: float) -> CostTable:
    """The published table with other times."""
    times = {"neuron_update_active": active, "neuron_update_inactive": inactive, "synaptic_operation": operation}
    changed = {
        name: LOIHI1.times[name].model_copy(update={"value": time, "low": time, "high": time}) for name, time in times.items()
    }
    return LOIHI1.model_copy(update={"times": dict(LOIHI1.times) | changed})


@pytest.mark.parametrize("high", [1, 9])
def test_the_work_of_all_cores_is_that_of_the_network(high: int) -> None:
    """Summed over cores, what each does in a step is what the whole network does."""
    deployment = large(high)
    observer = ran(deployment)
    placement = place(deployment, load_chip("loihi1"), observer.counted.activity)
    assert len(placement.cores) > 3
    loads = loads_of(deployment, placement, observer)
    counts, found = observer.counts, operations_of(deployment, observer.counts)
    per_step = counts.samples * counts.steps
    assert sum(load.synops for load in loads) == pytest.approx(found.synops(effective=True) / per_step)
    assert sum(load.graded for load in loads) == pytest.approx(found.graded(effective=True) / per_step)
    assert (found.graded() > 0) == (high > 1)
    assert sum(load.active_updates for load in loads) == pytest.approx(sum(x.spikes for x in counts.layers.values()) / per_step)
    neurons = sum(item.neurons for item in counts.structure.values())
    assert sum(load.active_updates + load.inactive_updates for load in loads) == pytest.approx(neurons)


def test_events_of_a_float_network_are_spikes_for_a_core_if_they_are_for_the_counts() -> None:
    deployment = large()
    observer = ran(deployment)
    placement = place(deployment, load_chip("loihi1"), observer.counted.activity)
    spikes, values = (core_loads(deployment, placement, observer.counted.activity, binary) for binary in (True, False))
    assert sum(load.graded for load in spikes) == 0 < sum(load.graded for load in values)
    assert sum(load.synops for load in spikes) == pytest.approx(sum(load.synops + load.graded for load in values))


@pytest.mark.parametrize("times", [(8.4, 5.3, 3.5), (500.0, 500.0, 0.5), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
def test_another_table_finds_its_own_busiest_core_in_the_record(times: tuple[float, float, float]) -> None:
    report, placement, observer, deployment = placed(divided())
    every = loads_of(deployment, placement, observer)
    steps = {
        load.core: times[0] * load.active_updates + times[1] * load.inactive_updates + times[2] * (load.synops + load.graded)
        for load in every
    }
    found = estimate_latency(report.operations, with_times(*times))
    assert found.step.value == pytest.approx(max(steps.values()) + barrier(placement))
    assert steps[found.busiest_core] == pytest.approx(max(steps.values()))
    assert estimate_from(report.operations, with_times(*times)).latency == found


def test_tables_do_not_agree_on_the_busiest_core() -> None:
    """Without this the test above would show nothing."""
    operations = placed(divided())[0].operations
    busiest = {estimate_latency(operations, with_times(*times)).busiest_core for times in ((8.4, 5.3, 3.5), (500.0, 500.0, 0.5))}
    assert len(busiest) == 2


def load(number: int, active: float, inactive: float, synops: float) -> CoreLoad:
    return CoreLoad(core=f"core {number}", active_updates=active, inactive_updates=inactive, synops=synops, graded=0.0)


def test_a_core_that_another_one_exceeds_in_everything_is_not_kept() -> None:
    found = may_be_busiest((load(0, 1, 5, 2), load(1, 2, 5, 3), load(2, 9, 0, 0), load(3, 2, 5, 3), load(4, 0, 6, 0)))
    assert [item.core for item in found] == ["core 1", "core 2", "core 4"], "of equal ones the first"
    assert may_be_busiest(()) == ()


def test_of_very_many_cores_those_are_kept_that_lose_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    active, synops = rng.uniform(50, 150, 900), rng.uniform(1e4, 1.2e4, 900)
    loads = tuple(load(n, a, 1000 - a, s) for n, (a, s) in enumerate(zip(active, synops, strict=True)))
    kept = may_be_busiest(loads)
    assert 3 < len(kept) <= MOST_CORES
    for times in np.concatenate([np.eye(3), rng.random((50, 3))]):
        longest, found = (
            max(times @ (item.active_updates, item.inactive_updates, item.synops) for item in given) for given in (loads, kept)
        )
        assert found >= 0.98 * longest


def test_a_step_lasts_as_long_as_the_busiest_core_and_the_barrier() -> None:
    report, placement, _, deployment = placed(large())
    found = report.latency
    assert barrier(placement) < 465
    load = next(load for load in report.operations.cores if load.core == found.busiest_core)
    expected = 8.4 * load.active_updates + 5.3 * load.inactive_updates + 3.5 * load.synops + barrier(placement)
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
    report, placement, _, _ = placed(large())
    figures = {figure.component: figure for figure in report.figures}
    journeys = [item for name, item in placement.journeys.items() if name != "to the host"]
    assert figures["packets, each charged as a spike within a tile, placed on Loihi 1"].count == pytest.approx(
        sum(item.packets for item in journeys)
    )
    east, north = (sum(getattr(item, name) for item in journeys) for name in ("east_west", "north_south"))
    assert east + north > 0, "the example must travel"
    assert figures["hops east or west, placed on Loihi 1"].value == pytest.approx(3.0 * east)
    assert figures["hops north or south, placed on Loihi 1"].value == pytest.approx(4.0 * north)
    assert "spike messages within a tile" not in figures
    assert sum(layer.value for layer in report.layers) == pytest.approx(report.total)
    assert "(input)" in {layer.layer for layer in report.layers}
    assert report.curve[-1].value == pytest.approx(report.total)
    near = sum(item.within_router for item in journeys)
    assert 0 < near < sum(item.packets for item in journeys)
    (told,) = [limit for limit in report.limits if "placement on loihi1" in limit]
    assert f"{formatting.amount(near)} of " in told


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
    report, *_ = placed(large(), chip="loihi2")
    assert report.latency.step is None
    assert "not estimated" in report.latency.reason
    assert "arXiv 2601.10035" in report.latency.reason
    packets = {figure.operation: figure for figure in report.figures}
    for operation in ("spike_message", "hop_east_west", "hop_north_south"):
        assert packets[operation].count is not None
        assert (packets[operation].value, packets[operation].coefficient) == (None, "no figure")
        assert "counted on Loihi 2; on Loihi 1, which the table prices, they are others" in packets[operation].source
    assert "counted on Loihi 2" in " ".join(report.limits)
    assert report.curve[-1].value == pytest.approx(report.total), "fewer steps are charged the same way"


def test_a_table_of_no_chip_charges_a_placed_network_as_a_run_with_it_would() -> None:
    report, _, observer, deployment = placed(large())
    nowhere = LOIHI1.model_copy(update={"chip": "", "times": {}})
    again = estimate_from(report.operations, nowhere)
    ran_so = estimate(deployment, observer.counts, nowhere, Beside(unplaced="the table loihi1 names no chip"))
    assert [again.total, again.figures, again.layers] == [ran_so.total, ran_so.figures, ran_so.layers]
    assert again.operations == report.operations, "what was counted stays in the report"


def test_times_of_another_chip_than_the_networks_say_so_and_those_of_its_own_do_not() -> None:
    report, placement, *_ = placed(large())
    terms = f"by Loihi 1's times, were it placed on Loihi 1 ({len(placement.cores)} cores)"
    assert report.latency.terms == terms
    assert terms in report.latency.reason
    assert "arXiv 2601.10035" in report.latency.reason
    mine = LOIHI1.model_copy(update={"name": "lab", "file": "lab.toml", "digest": "0"})
    assert "by the times of lab (file lab.toml), were it" in estimate_from(report.operations, mine).latency.terms
    own = estimate_from(report.operations.model_copy(update={"target": "loihi1"}), LOIHI1)
    assert own.latency.terms == ""
    assert "Loihi 2" not in own.latency.reason
    assert own.latency.step == report.latency.step
    assert "placed on" not in " ".join(figure.component for figure in own.figures)


@pytest.mark.parametrize(("tiles", "value"), [(1, 113.0), (32, 465.0), (2, 113 + 352 / 31), (17, 113 + 352 * 16 / 31)])
def test_the_barrier_is_that_of_the_tiles_in_use(tiles: int, value: float) -> None:
    operations = placed(large())[0].operations
    nothing = LOIHI1.times["synaptic_operation"].model_copy(update={"value": 0.0, "low": 0.0, "high": 0.0})
    table = LOIHI1.model_copy(
        update={"times": {name: item if "barrier" in name else nothing for name, item in LOIHI1.times.items()}}
    )
    found = estimate_latency(operations.model_copy(update={"placed_tiles": tiles}), table)
    assert found.step.value == pytest.approx(value)
    assert f"with {tiles} tile" in found.reason
    whole = table.model_copy(update={"times": {name: item for name, item in table.times.items() if name != "barrier_one_tile"}})
    assert estimate_latency(operations.model_copy(update={"placed_tiles": tiles}), whole).step.value == 465


def test_for_several_chips_no_barrier_is_published_and_no_time_told() -> None:
    operations = placed(large())[0].operations.model_copy(update={"placed_chips": 2})
    found = estimate_latency(operations, LOIHI1)
    assert (found.step, found.inference, found.throughput) == (None, None, None)
    assert "takes 2 chips" in found.reason


def test_a_table_without_times_says_which() -> None:
    deployment = large()
    report = estimate(deployment, ran(deployment).counts, LOIHI1.model_copy(update={"times": {}}))
    assert "has no time for synaptic_operation" in report.latency.reason


def test_graded_work_is_told_apart_and_said() -> None:
    """One layer that hears values and nothing else: all its operations are graded."""
    rng = np.random.default_rng(0)
    deployment = deployment_from(Plan((1, 16, 16), (LayerPlan("out", rng.integers(-4, 5, (10, 256)) * 2),), steps=4, high=9))
    observer = ran(deployment)
    placement = place(deployment, load_chip("loihi1"), observer.counted.activity)
    cores = may_be_busiest(loads_of(deployment, placement, observer))
    report = estimate(deployment, observer.counts, LOIHI1, Beside(placement=placement, cores=cores))
    (busiest,) = report.operations.cores
    assert busiest.graded > 0 == busiest.synops
    assert report.latency.step.value == pytest.approx(
        8.4 * busiest.active_updates + 5.3 * busiest.inactive_updates + 3.5 * busiest.graded + barrier(placement)
    )
    assert "graded ones counted as if they were binary" in report.latency.reason
    assert "graded" not in placed(large())[0].latency.reason


def test_a_placement_of_another_network_is_refused() -> None:
    _, placement, *_ = placed(large())
    other = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4]])),)))
    trace = Trace("test", {"out": LayerTrace(np.array([[3]]))}, np.zeros((1, 1)), np.zeros(1, np.int64), 0)
    with pytest.raises(UserError, match="SNX321"):
        estimate(other, count(other, trace, np.ones((1, 3))), LOIHI1, Beside(placement=placement))
