from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_export.energy import baselines, verdicts
from snn_export.energy.charging import Amount
from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import count
from snn_export.energy.estimate import estimate
from snn_export.energy.operations import Beside, operations_of
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting.energy_records import AnnOperations, EnergyFigure, EnergyReport, ExitOperations, StepOperations
from tests.builders import LayerPlan, Plan, deployment_from

CMOS = load_table("cmos45")


def network(high: int = 15, du: int = 4095) -> Deployment:
    """3 inputs -> 2 hidden -> 2 out, 4 steps; one zero weight in each layer."""
    hidden = LayerPlan("hidden", np.array([[2, 0, 4], [6, 8, 10]]), du=du)
    out = LayerPlan("out", np.array([[2, 4], [0, 6]]), source="hidden")
    return deployment_from(Plan((3,), (hidden, out), steps=4, high=high))


def report(high: int = 15, teacher: AnnOperations | None = None) -> EnergyReport:
    deployment = network(high)
    fired = {"hidden": LayerTrace(np.array([[3, 1], [0, 2]])), "out": LayerTrace(np.array([[1, 0], [0, 0]]))}
    trace = Trace("test", fired, np.zeros((2, 2)), np.zeros(2, np.int64), 0)
    counts = count(deployment, trace, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    return estimate(deployment, counts, load_table("loihi1"), Beside(teacher=teacher))


def figures(found: tuple[EnergyFigure, ...]) -> dict[str, EnergyFigure]:
    return {figure.component: figure for figure in found}


def test_this_network_on_the_terms_of_an_ordinary_chip_by_hand() -> None:
    """Per inference: 6 events, 12 graded operations (4 steps of 3 inputs in 2 samples, 2 synapses each), 16 updates."""
    own = figures(report().cmos)
    acs, macs, updates = 6, 12, 16
    int8 = own["this network, INT8, arithmetic"]
    assert int8.value == pytest.approx(acs * 0.03 + macs * 0.23 + updates * 3.2)
    assert int8.high == pytest.approx(acs * 0.1 + macs * 0.3 + updates * 3.2)
    assert own["this network, FP32, arithmetic"].value == pytest.approx(acs * 0.9 + macs * 4.6 + updates * 4.6)
    memory = own["this network, INT8, with memory"]
    bit = 10 / 64
    operands = (8 * acs + 16 * macs + 2 * 24 * updates) * bit
    assert memory.value == pytest.approx(int8.value + operands)
    assert memory.low == pytest.approx(int8.low + 10 * 8 * bit), "each of the 10 weights once"
    assert memory.high == pytest.approx(int8.high + operands + 2 * 32 * (acs + macs) * bit)
    skipped = own["this network, INT8, arithmetic, zeros skipped"]
    assert skipped.count == 4.5 + 4 * (2 + 2 + 1) / 2


def test_memory_is_counted_as_it_is_told() -> None:
    memory = report().memory
    assert (memory.weight_reads, memory.state_reads, memory.state_writes, memory.sum_accesses) == (18, 16, 16, 36)
    deployment = network(du=1000)
    layers = {name: LayerTrace(np.zeros((1, 2), np.int64)) for name in ("hidden", "out")}
    trace = Trace("test", layers, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    filtered = operations_of(deployment, count(deployment, trace, np.zeros((1, 3))))
    assert [layer.state_variables for layer in filtered.layers] == [2, 1], "a synaptic filter has a current of its own"
    assert baselines.memory_accesses(filtered).state_reads == 4 * (2 * 2 + 2)


def test_the_teacher_is_charged_with_its_own_multiplications() -> None:
    teacher = AnnOperations(
        name="teacher", samples=2, dense_macs=100, effective_macs=2 * 60, weights=30, activations=40, layers=3
    )  # fmt: skip
    found = report(teacher=teacher)
    by_name = figures(found.teacher)
    assert by_name["teacher, FP32, arithmetic"].value == pytest.approx(460)
    assert by_name["teacher, INT8, arithmetic, zeros skipped"].value == pytest.approx(60 * 0.23)
    memory = by_name["teacher, INT8, with memory"]
    assert memory.low == pytest.approx(23 + 70 * 8 * 10 / 64), "weights and activations once"
    assert memory.value == pytest.approx(23 + 100 * 16 * 10 / 64)
    assert {item.other for item in found.comparisons} == {"ANN twin", "teacher"}
    assert report().teacher == ()
    assert {item.other for item in report().comparisons} == {"ANN twin"}


def amounts(low: float, value: float, high: float) -> dict[str, float]:
    return {"low": low, "value": value, "high": high}


def compared(
    own: tuple[float, float, float], other: tuple[float, float, float], papers: tuple[float, float] = (2.0, 1.0)
) -> tuple:
    """The comparisons of networks whose figures are these: in 8 bits with memory, and as papers charge."""

    def figure(name: str, ends: dict[str, float]) -> EnergyFigure:
        return EnergyFigure(component=name, count=1.0, coefficient="", source="", **ends)

    made = {"this network": own, "ANN twin": other}
    flat = {"this network": papers[0], "ANN twin": papers[1]}
    rows = [
        figure(f"{name}, {terms}", amounts(*made[name]) if terms == verdicts.FAIREST else amounts(*(flat[name],) * 3))
        for terms in verdicts.TERMS
        for name in made
    ]
    return verdicts.compare(rows[::2], rows[1::2], ("a chip", None))


def test_ranges_apart_have_a_winner_and_overlapping_ones_have_none() -> None:
    lost, won, close = compared((30, 40, 50), (1, 2, 3)), compared((1, 2, 3), (30, 40, 50)), compared((1, 4, 9), (2, 3, 5))
    assert [found[0].winner for found in (lost, won, close)] == ["ann", "snn", "undecided"]
    assert "The spiking network loses against its ANN twin." in verdicts.verdict(lost)[0]
    assert "takes 20 times less" in verdicts.verdict(lost)[0]
    assert "better choice" in verdicts.verdict(lost)[-1], "a sentence for the case where it loses"
    assert "wins against its ANN twin" in verdicts.verdict(won)[0]
    assert not any("better choice" in line for line in verdicts.verdict(won))
    assert "cannot be told apart, the ranges overlap" in close[0].sentence
    assert lost[0].ratio == 20


def test_overlapping_ranges_still_tell_who_is_lower_at_both_ends() -> None:
    higher, crossing = compared((2, 4, 9), (1, 3, 5)), compared((1, 4, 9), (2, 3, 5))
    assert (higher[0].winner, higher[0].at_every_end) == ("undecided", "ann")
    assert "at either end and between, its ANN twin takes less" in higher[0].sentence
    assert "nothing here speaks for spiking" in verdicts.verdict(higher)[-1], "no winner, so no better choice"
    assert not any("speaks for" in line or "better choice" in line for line in verdicts.verdict(crossing))
    assert (crossing[0].winner, crossing[0].at_every_end) == ("undecided", "undecided")
    assert "either end" not in crossing[0].sentence


def test_the_flattering_comparison_is_named_where_it_alone_wins() -> None:
    lost = verdicts.verdict(compared((30, 40, 50), (1, 2, 3), papers=(1.0, 5.0)))
    assert any("as most papers do" in line and "5 times less" in line for line in lost)
    assert not any("most papers" in line for line in verdicts.verdict(compared((30, 40, 50), (1, 2, 3), papers=(5.0, 1.0))))


def test_another_chip_is_no_like_for_like_comparison() -> None:
    (chip,) = [item for item in report().comparisons if not item.like_for_like]
    assert chip.own == "this network by Loihi 1's published coefficients"
    assert chip.own_value == report().total
    assert any(line.startswith("Another chip, another process") for line in report().verdict)
    assert all(item.own == "this network" for item in report().comparisons if item.like_for_like)


def test_stopping_early_is_compared_on_the_fairest_terms() -> None:
    """Half of everything, in half of the steps."""
    deployment = network()
    fired = {"hidden": LayerTrace(np.array([[3, 1], [0, 2]])), "out": LayerTrace(np.array([[1, 0], [0, 0]]))}
    trace = Trace("test", fired, np.zeros((2, 2)), np.zeros(2, np.int64), 0)
    counts = count(deployment, trace, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    done = StepOperations(
        spike_operations=6, effective_spike_operations=4, input_operations=12, effective_input_operations=10, spikes=4,
        messages=3, updates=16,
    )  # fmt: skip
    early = ExitOperations(
        threshold=1.0, chosen_on=5, validation_correct=4, validation_correct_full=4, exits=(0, 2, 0, 0), total=done
    )  # fmt: skip
    found = estimate(deployment, counts, load_table("loihi1"), Beside(early_exit=early))
    stopped = figures(found.cmos)["this network with early exit, INT8, with memory"]
    bit = 10 / 64
    assert stopped.value == pytest.approx(3 * 0.03 + 6 * 0.23 + 8 * 3.2 + (8 * 3 + 16 * 6 + 48 * 8) * bit)
    (compared_with,) = [item for item in found.comparisons if item.own == "this network with early exit"]
    assert (compared_with.other, compared_with.own_value, compared_with.like_for_like) == ("ANN twin", stopped.value, True)
    assert any(line.startswith("Stopping early: ") for line in found.verdict)
    assert not any(line.startswith("Stopping early: ") for line in report().verdict)


def test_what_the_host_computes_is_listed_and_never_charged() -> None:
    deployment = network()
    contract = deployment.contract
    contract = contract.model_copy(update={"encoder": replace(contract.encoder, kind="bias")})
    synapses = {name: item for name, item in deployment.synapses.items() if name != "hidden.weight"}
    on_host = deployment.replace(contract=contract, synapses=synapses)
    fired = {"hidden": LayerTrace(np.array([[3, 1]])), "out": LayerTrace(np.array([[1, 0]]))}
    trace = Trace("test", fired, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    found = estimate(on_host, count(on_host, trace, np.array([[1.0, 0.0, 1.0]])), load_table("loihi1"))
    by_name = figures(found.figures)
    host = by_name["multiplications of the first layer, on the host"]
    assert (host.count, host.value) == (6, None)
    assert "graded operations" not in by_name
    assert "host" in host.source


def test_other_chips_are_shown_for_orientation_and_none_of_them_as_loihi_2() -> None:
    chips = figures(report().other_chips)
    assert chips["SENECA"].value == pytest.approx(6 * 2.8)
    assert (chips["SpiNNaker2"].low, chips["SpiNNaker2"].high) == (pytest.approx(4.5 * 10), pytest.approx(6 * 450))
    assert not any("2" in name and "oihi" in name for name in chips)
    assert any("orientation only" in limit for limit in report().limits)


def test_amounts_that_touch_overlap() -> None:
    assert Amount(2, 1, 3).overlaps(Amount(4, 3, 5))
    assert not Amount(2, 1, 3).overlaps(Amount(4, 3.5, 5))
    assert Amount(4, 3.5, 5).overlaps(Amount(1, 0, 9))
