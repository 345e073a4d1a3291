"""What is charged to whom: the host's layer, data that change over time, biases that are always on, packets with values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_export.energy import baselines
from snn_export.energy.cost_table import load_table
from snn_export.energy.estimate import estimate
from snn_export.energy.observer import Counted, EnergyObserver
from snn_export.energy.operations import Beside
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import place
from snn_export.hardware_sims.registry import simulator
from snn_export.models.spec import EncoderSpec
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyFigure, EnergyReport, ExitOperations
from tests.builders import LayerPlan, Plan, deployment_from, even

LOIHI1 = load_table("loihi1")


def counted(deployment: Deployment, x: np.ndarray, threshold: float | None = None) -> Counted:
    runner, observer = simulator("loihi"), EnergyObserver("loihi", deployment, threshold)
    trace = runner.run(runner.compile(deployment), x, ("spikes", "membrane"))
    observer.chunk(x, {"loihi": trace}, 0, np.zeros(len(trace.predictions), np.int64))
    return observer.counted


def report(deployment: Deployment, x: np.ndarray, placed: bool = False, threshold: float | None = None) -> EnergyReport:
    found = counted(deployment, x, threshold)
    placement = place(deployment, load_chip("loihi1"), found.activity) if placed else None
    early = None
    if threshold is not None:
        total, on_chip = found.steps.exit_records()
        early = ExitOperations(
            threshold=threshold, chosen_on=0, validation_correct=0, validation_correct_full=0,
            exits=tuple(found.steps.exits.tolist()), total=total, on_chip=on_chip,
        )  # fmt: skip
    return estimate(
        deployment, found.counts, LOIHI1, Beside(by_step=found.steps.records(), placement=placement, early_exit=early)
    )


def figures(found: tuple[EnergyFigure, ...]) -> dict[str, EnergyFigure]:
    return {figure.operation: figure for figure in found}


def convnet(kind: str) -> Deployment:
    rng = np.random.default_rng(0)
    first = LayerPlan("first", even(rng, (8, 1, 3, 3), 100), threshold=2000, padding=(1, 1))
    out = LayerPlan("out", even(rng, (10, 8 * 64), 50), "first")
    return deployment_from(Plan((1, 8, 8), (first, out), 8, encoder=EncoderSpec(kind, gain=1.0, low=0, high=15)))


def test_a_first_layer_that_the_host_computes_is_free_for_nobody() -> None:
    """22 x 22 x 8 multiplications, once per inference: for this network, stopped early or not, and for its twin."""
    x = np.random.default_rng(1).integers(0, 16, (4, 1, 8, 8)).astype(float)
    direct, bias = (report(convnet(kind), x, threshold=0.0).operations for kind in ("direct", "bias"))
    host = 22 * 22 * 8
    assert (bias.host_macs, bias.host_weights, bias.host_biases) == (4 * host, 72, 512)
    assert (direct.host_macs, direct.host_weights) == (0, 0)
    twin, same = baselines.twin_work(bias), baselines.twin_work(direct)
    assert (twin.macs, twin.moved_bits) == (same.macs, same.moved_bits), "who computes a layer changes nothing for an ANN"
    assert twin.fewest_macs >= host
    own = baselines.own_work(bias)
    assert (own.macs, own.fewest_macs) == (host, host)
    assert baselines.early_work(bias, bias.early_exit.total).macs == host, "an early exit does not take it back"
    assert own.moved_bits[1] == 8 * (72 + 5120 + 64 + 2 * 512) + 2 * 8 * 522
    assert bias.input_events == 4 * 512, "a message per bias that is written, not per pixel and step"


def test_what_the_host_wrote_is_there_from_the_first_step_on() -> None:
    found = report(convnet("bias"), np.full((2, 1, 8, 8), 3.0), threshold=0.0)
    assert figures(found.figures)["input_message"].count == 512
    assert [step.input_messages for step in found.operations.by_step] == [2 * 512] + [0] * 7
    assert found.operations.early_exit.on_chip.input_messages == 2 * 512
    (told,) = [limit for limit in found.limits if "host computes the first layer" in limit]
    assert f"{formatting.amount(22 * 22 * 8)} MACs per inference" in told
    assert not any("host computes" in limit for limit in report(convnet("direct"), np.full((2, 1, 8, 8), 3.0)).limits)


@pytest.mark.parametrize("steps", [1, 8])
def test_the_twin_of_a_network_on_changing_data_runs_once_per_frame(steps: int) -> None:
    rng = np.random.default_rng(0)
    hidden = LayerPlan("hidden", even(rng, (20, 64), 100), threshold=3000)
    out = LayerPlan("out", even(rng, (10, 20), 100), "hidden")
    deployment = deployment_from(Plan((64,), (hidden, out), steps, high=1, events=True))
    x = (rng.random((steps, 3, 64)) < 0.2) * 1.0
    found = report(deployment, x)
    twin = baselines.twin_work(found.operations)
    assert twin.macs == steps * (64 * 20 + 20 * 10)
    nonzero = np.count_nonzero(hidden.weight, axis=0)
    assert twin.fewest_macs == pytest.approx((x * nonzero).sum() / 3 + steps * np.count_nonzero(out.weight))
    weights = 64 * 20 + 20 * 10
    assert twin.moved_bits[1] == 8 * (weights + steps * (64 + 2 * 30)), "weights are read once for all frames"
    assert baselines.own_work(found.operations).moved_bits[1] == 8 * weights + steps * (64 + 2 * 30), "bits, and not bytes"
    assert any("runs on each of the 8 frames" in limit for limit in found.limits) is (steps > 1)


def test_values_that_do_not_change_move_once_and_changing_ones_with_the_steps_that_are_taken() -> None:
    layer = LayerPlan("out", np.full((2, 6), 2))
    constant, rng = deployment_from(Plan((6,), (layer,), 4, high=9)), np.random.default_rng(0)
    changing = deployment_from(Plan((6,), (layer,), 4, high=9, events=True))
    for deployment, x, frames in ((constant, np.full((2, 6), 3.0), 1), (changing, rng.integers(1, 9, (4, 2, 6)) * 1.0, 4)):
        found = report(deployment, x, threshold=0.0).operations
        assert found.early_exit.exits == (2, 0, 0, 0)
        assert baselines.own_work(found).moved_bits[1] == 8 * (12 + 6 * frames) + 2 * 8
        assert baselines.early_work(found, found.early_exit.total).moved_bits[1] == 8 * (12 + 6) + 2 * 2


def silent(readout: str = "membrane_last", high: int = 1) -> Deployment:
    """Nobody fires; three always-on sources of one synapse each carry the bias of every neuron of the first layer."""
    first = LayerPlan("first", np.full((4, 3), 2), du=1000, current_bias=np.full(4, 254 * 3))
    deployment = deployment_from(Plan((3,), (first, LayerPlan("out", np.full((2, 4), 2), "first")), 8, high=high))
    contract = deployment.contract
    return deployment.replace(contract=contract.model_copy(update={"readout": replace(contract.readout, rule=readout)}))


def test_biases_that_are_always_on_are_charged_and_are_no_spikes() -> None:
    found = report(silent(), np.zeros((2, 3)))
    assert figures(found.figures)["synaptic_operation"].count == 4 * 3 * 8
    assert baselines.own_work(found.operations).acs == 4 * 3 * 8
    assert (found.spikes_per_synapse, found.neurobench.effective_acs) == (0, 0)
    assert "below both" in found.break_even[1]
    assert [step.axon_operations for step in found.operations.by_step][1:-1] == [2 * 4 * 3] * 6


@pytest.mark.parametrize("readout", ["membrane_last", "membrane_mean", "membrane_max", "spike_count"])
@pytest.mark.parametrize("high", [1, 9])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_curve_ends_at_the_total_of_a_placed_network_whoever_sends(readout: str, high: int, level: float) -> None:
    """Input alone, biases alone, readings alone: each source's packets follow what it sends, so nothing is lost at the end."""
    found = report(silent(readout, high), np.full((2, 3), level), placed=True, threshold=1e300)
    assert not any(layer.spikes for layer in found.operations.layers)
    last, early = found.curve[-1], found.early_exit
    assert (last.value, last.low, last.high) == pytest.approx((found.total, found.total_low, found.total_high), rel=1e-12)
    if readout in ("membrane_last", "spike_count"):
        assert early.value == pytest.approx(found.total, rel=1e-12)
    energies = [point.value for point in found.curve]
    assert energies == sorted(set(energies)), "every further step costs something"


def test_packets_of_each_source_follow_what_it_has_sent() -> None:
    """Three steps of eight: the input is one layer ahead of the first and two ahead of the readout."""
    found = report(silent(), np.ones((2, 3)), placed=True).operations
    journeys = {item.source: item.packets for item in found.journeys}
    assert (journeys["input"], journeys["always on: first"]) == (3 * 8, 3 * 8), (
        "three sources in every step, heard by four neurons of one core"
    )
    chip = report(silent(), np.ones((2, 3)), placed=True)
    packets = figures(chip.figures)["spike_message"].count
    assert packets == 3 * 8 + 3 * 8
    steps = chip.operations.by_step[:3]
    assert sum(step.input_messages for step in steps) == 2 * 3 * 5
    assert sum(step.axon_operations for step in steps) == 2 * 12 * 4


def test_packets_with_values_are_counted_and_never_charged_as_spikes() -> None:
    graded, binary = (report(silent(high=high), np.ones((2, 3)), placed=True) for high in (9, 1))
    found = figures(graded.figures)
    assert (found["value_packet"].count, found["value_packet"].value) == (3 * 8 + 2, None)
    assert found["spike_message"].count == 3 * 8
    assert figures(binary.figures)["value_packet"].count == 2, "the membranes of two classes, on their way to the host"
    assert figures(binary.figures)["spike_message"].count == 3 * 8 + 3 * 8
    counts = figures(report(silent("spike_count"), np.ones((2, 3)), placed=True).figures)
    assert "value_packet" not in counts, "a class that is counted in spikes sends spikes"
    for each in (graded, binary):
        assert any("carry a value and are no binary spike" in limit for limit in each.limits)


@pytest.mark.parametrize(
    ("readout", "whole"), [("membrane_last", 2), ("spike_count", 2), ("membrane_mean", 16), ("membrane_max", 16)]
)
def test_who_reads_every_step_reads_fewer_values_in_fewer_steps(readout: str, whole: int) -> None:
    """Priced at a picojoule per value and nothing else."""
    table = LOIHI1.model_copy(
        update={"coefficients": {"readout_value": LOIHI1.coefficients["synaptic_operation"].model_copy(
            update={"value": 1.0, "low": 1.0, "high": 1.0})}}
    )  # fmt: skip
    deployment = silent(readout)
    found = counted(deployment, np.zeros((2, 3)), threshold=0.0)
    total, on_chip = found.steps.exit_records()
    early = ExitOperations(
        threshold=0.0, chosen_on=0, validation_correct=0, validation_correct_full=0, exits=(1, 0, 1, 0, 0, 0, 0, 0), total=total,
        on_chip=on_chip,
    )  # fmt: skip
    made = estimate(deployment, found.counts, table, Beside(by_step=found.steps.records(), early_exit=early))
    assert made.total == whole
    assert [point.value for point in made.curve] == ([2.0] * 8 if whole == 2 else [2.0 * step for step in range(1, 9)])
    assert made.early_exit.value == 2 * 2, "an early exit looks at every step: one sample at one, the other at three"


def test_the_knee_is_chosen_by_validation_samples_where_there_are_any() -> None:
    deployment, x = convnet("direct"), np.random.default_rng(1).integers(0, 16, (4, 1, 8, 8)).astype(float)
    found = counted(deployment, x)
    right = (1, 2, 9, 10, 10, 10, 10, 10)
    beside = Beside(by_step=found.steps.records(), validation_samples=10, validation_correct=right)
    chosen = estimate(deployment, found.counts, LOIHI1, beside)
    assert (chosen.knee, chosen.knee_chosen_on) == (3, 10)
    flat = estimate(deployment, found.counts, LOIHI1, replace(beside, validation_correct=(10,) * 8))
    assert flat.knee == 1
    assert flat.curve == chosen.curve, "accuracies shown are those of the samples of the report"
    assert any("10 validation samples" in limit for limit in chosen.limits)
    alone = estimate(deployment, found.counts, LOIHI1, Beside(by_step=found.steps.records()))
    assert alone.knee_chosen_on is None
    assert any("no other sample has confirmed" in limit for limit in alone.limits)
