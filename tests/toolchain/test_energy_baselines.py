from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_export.energy import baselines, verdicts
from snn_export.energy.charging import Amount
from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import Counts, count
from snn_export.energy.estimate import estimate
from snn_export.energy.operations import Beside, operations_of
from snn_export.export.chips import CHIPS
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting import energy_words, formatting
from snn_export.reporting.energy_records import AnnOperations, EnergyFigure, EnergyReport, ExitOperations, StepOperations
from tests.builders import LayerPlan, Plan, deployment_from

CMOS = load_table("cmos45")


def network(high: int = 15, du: int = 4095) -> Deployment:
    """3 inputs -> 2 hidden -> 2 out, 4 steps; one zero weight in each layer."""
    hidden = LayerPlan("hidden", np.array([[2, 0, 4], [6, 8, 10]]), du=du)
    out = LayerPlan("out", np.array([[2, 4], [0, 6]]), source="hidden")
    return deployment_from(Plan((3,), (hidden, out), steps=4, high=high))


def counted(deployment: Deployment) -> Counts:
    fired = {"hidden": LayerTrace(np.array([[3, 1], [0, 2]])), "out": LayerTrace(np.array([[1, 0], [0, 0]]))}
    trace = Trace("test", fired, np.zeros((2, 2)), np.zeros(2, np.int64), 0)
    return count(deployment, trace, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))


def report(high: int = 15, teacher: AnnOperations | None = None) -> EnergyReport:
    deployment = network(high)
    return estimate(deployment, counted(deployment), load_table("loihi1"), Beside(teacher=teacher))


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
    assert memory.low == pytest.approx(int8.low + ((10 + 3) * 8 + 2 * 16) * bit), (
        "each of the 10 weights and 3 inputs once, and a bit per neuron and step, written and read"
    )
    binary = figures(report(high=1).cmos)
    assert binary["this network, INT8, with memory"].low - binary["this network, INT8, arithmetic"].low == pytest.approx(
        (10 * 8 + 3 + 2 * 16) * bit
    ), "inputs of one bit"
    assert memory.high == pytest.approx(int8.high + operands + 2 * 32 * (acs + macs) * bit)
    skipped = own["this network, INT8, arithmetic, zeros skipped"]
    assert skipped.count == 4.5 + 4 * (2 + 2 + 1) / 2


def test_state_and_biases_are_as_wide_as_the_chip_holds_them_and_in_a_float_network_32_bits() -> None:
    deployment = network()
    quantised = operations_of(deployment, counted(deployment))
    chip = next(chip for chip in CHIPS if chip.name == quantised.target)
    assert (quantised.state_bits, quantised.bias_bits) == (chip.state_bits, 13 + 3)
    assert load_chip("loihi2").synapses.neuron_state == 2 * quantised.state_bits + quantised.bias_bits, "current, membrane, bias"
    floats = deployment.replace(contract=deployment.contract.model_copy(update={"quantisation": None}))
    found = operations_of(floats, counted(floats))
    assert (found.state_bits, found.bias_bits, found.weight_bits) == (32, 32, 32)
    memory = baselines.Terms("INT8", memory=True)
    narrow, wide = (baselines.figures("", baselines.own_work(item), CMOS)[memory].value for item in (quantised, found))
    assert wide - narrow == pytest.approx(16 * 2 * (32 - 24) * 10 / 64), "16 updates, read and written"


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


def on_all_terms(low: float, value: float, high: float) -> dict[baselines.Terms, EnergyFigure]:
    figure = EnergyFigure(component="", operation="", count=1.0, value=value, low=low, high=high, coefficient="", source="")
    return dict.fromkeys(verdicts.TERMS, figure)


def compared(
    own: tuple[float, float, float], other: tuple[float, float, float], papers: tuple[float, float] = (2.0, 1.0)
) -> tuple:
    """The comparisons of networks whose figures are these: in 8 bits with memory, and as papers charge."""

    def figures_of(fairest: tuple[float, float, float], flat: float) -> dict[baselines.Terms, EnergyFigure]:
        return on_all_terms(flat, flat, flat) | {verdicts.FAIREST: on_all_terms(*fairest)[verdicts.FAIREST]}

    return verdicts.compare(figures_of(own, papers[0]), {}, {"twin": figures_of(other, papers[1])}, UNPLACED)


UNPLACED = verdicts.ChipEstimate("a chip", "14 nm", None)


def verdict(found: tuple) -> tuple[str, ...]:
    return verdicts.verdict(found, "45 nm", UNPLACED)


def test_ranges_apart_have_a_winner_and_a_factor() -> None:
    lost, won = compared((30, 40, 50), (1, 2, 3)), compared((1, 2, 3), (30, 40, 50))
    assert [found[0].winner for found in (lost, won)] == ["ann", "snn"]
    assert verdict(lost)[0] == (
        "The spiking network loses against the ANN twin. In 45 nm, with 8-bit weights and memory counted: the ANN twin takes "
        "less energy, by a factor of 30 (perfect reuse) to 16.7 (no reuse). This network takes 40.0 pJ (30.0 to 50.0), the "
        "ANN twin 2.00 pJ (1.00 to 3.00). The ranges do not overlap."
    ).replace("0 pJ", "0\u202fpJ")
    assert "better choice" in verdict(lost)[-1], "a sentence for the case where it loses"
    assert verdict(won)[0].startswith("The spiking network wins against the ANN twin. ")
    assert "this network takes less energy, by a factor of 30 (perfect reuse) to 16.7 (no reuse)" in verdict(won)[0]
    assert not any("better choice" in line for line in verdict(won))
    assert lost[0].ratio == 20


def test_overlapping_ranges_tell_who_takes_less_if_both_use_memory_alike_and_that_it_could_be_reversed() -> None:
    higher, lower = compared((2, 4, 9), (1, 3, 5)), compared((1, 3, 5), (2, 4, 9))
    assert (higher[0].winner, higher[0].at_every_end) == ("undecided", "ann")
    first = verdict(higher)[0]
    assert first.startswith("In 45 nm, with 8-bit weights and memory counted: if both networks reuse what they read from memory ")
    assert "equally well, the ANN twin takes less energy, by a factor of 2 (perfect reuse) to 1.80 (no reuse)." in first
    assert first.endswith("The ranges as such overlap: better reuse in this network alone could reverse this.")
    assert "nothing here speaks for spiking" in verdict(higher)[-1], "no winner, so no better choice"
    assert (lower[0].winner, lower[0].at_every_end) == ("undecided", "snn")
    assert "this network takes less energy, by a factor of 2 (perfect reuse)" in lower[0].sentence
    assert "better reuse in the ANN twin alone could reverse this" in lower[0].sentence
    assert not any("nothing here speaks" in line for line in verdict(lower))


@pytest.mark.parametrize(
    ("own", "other", "told"),
    [
        (
            (2, 4, 5), (1, 3, 9),
            "with perfect reuse, the ANN twin takes less, by a factor of 2; with no reuse, this network takes less, by a "
            "factor of 1.80. ",
        ),
        (
            (1, 4, 5), (2, 3, 9),
            "with perfect reuse, this network takes less, by a factor of 2; with every operand read anew, the ANN twin takes "
            "less, by a factor of 1.33; with no reuse, this network takes less, by a factor of 1.80. ",
        ),
        ((0, 4, 9), (1, 3, 5), "with perfect reuse, this network takes less; with no reuse, the ANN twin takes less, by a"),
        ((1, 4, 9), (1, 3, 5), "with perfect reuse, both take the same; with no reuse, the ANN twin takes less, by a"),
    ],
)  # fmt: skip
def test_where_the_ends_disagree_it_is_told_who_takes_less_at_which(
    own: tuple[float, float, float], other: tuple[float, float, float], told: str
) -> None:
    found = compared(own, other)
    assert (found[0].winner, found[0].at_every_end) == ("undecided", "undecided")
    assert f"who takes less energy depends on how well: {told}" in found[0].sentence
    assert not any("speaks for" in line or "better choice" in line for line in verdict(found))


def test_nothing_is_divided_by_nothing_and_the_same_is_called_the_same() -> None:
    free, same = compared((0, 0, 1), (0.5, 2, 3)), compared((1, 2, 3), (1, 2, 3))
    assert "this network takes less energy. This" in free[0].sentence
    assert same[0].sentence.startswith("both networks take the same energy. ")
    assert [energy_words.takes_less(item[0]) for item in (free, same)] == [
        "this network, if memory is reused alike", "both the same",
    ]  # fmt: skip


def test_a_cell_says_in_short_what_the_sentence_says() -> None:
    cells = {
        "the ANN": compared((30, 40, 50), (1, 2, 3)),
        "the ANN, if memory is reused alike": compared((2, 4, 9), (1, 3, 5)),
        "this network with perfect reuse, the ANN with none": compared((1, 4, 9), (2, 3, 5)),
        "depends on the reuse of memory": compared((1, 4, 5), (2, 3, 9)),
    }
    assert [energy_words.takes_less(found[0]) for found in cells.values()] == list(cells)
    (chip,) = [item for item in report().comparisons if item.subject == "chip"]
    overlapping = chip.model_copy(update={"winner": "undecided"})
    assert (energy_words.takes_less(chip, ann="ANN"), energy_words.takes_less(overlapping)) == ("ANN", "the ranges overlap")


def test_sums_as_wide_on_both_sides_are_what_8_bit_arithmetic_alone_leaves_open() -> None:
    (item,) = [item for item in report().comparisons if (item.subject, item.precision, item.memory) == ("network", "INT8", False)]
    assert item.winner == "ann"
    near = verdicts.compare(on_all_terms(2, 2, 4), {}, {"twin": on_all_terms(1, 1, 3)}, UNPLACED)[1]
    assert near.sentence.startswith(
        "if both networks add into sums of the same width, the ANN twin takes less energy, by a factor of 2 (narrow sums) to "
        "1.33 (wide sums). "
    )
    assert near.sentence.endswith("narrower sums in this network alone could reverse this.")


def test_the_flattering_comparison_is_named_where_it_alone_wins() -> None:
    lost = verdict(compared((30, 40, 50), (1, 2, 3), papers=(1.0, 5.0)))
    (told,) = [line for line in lost if "as most papers do" in line]
    assert "this network takes less energy, by a factor of 5." in told
    assert "range" not in told, "FP32 arithmetic has none"
    assert not any("most papers" in line for line in verdict(compared((30, 40, 50), (1, 2, 3), papers=(5.0, 1.0))))


def test_another_chip_is_no_like_for_like_comparison() -> None:
    (chip,) = [item for item in report().comparisons if not item.like_for_like]
    assert chip.own == "this network by Loihi 1's published coefficients"
    assert chip.own_value == report().total
    (line,) = [line for line in report().verdict if line.startswith("Another chip")]
    assert line.startswith(
        "Another chip and another process (14 nm against 45 nm), so no like-for-like comparison: this network by "
    )
    assert "The ranges do not overlap: the ANN twin takes less energy, by a factor of" in line
    assert all(item.own == "this network" for item in report().comparisons if item.like_for_like)
    near = compared((1, 2, 3), (2, 3, 4))[0].model_copy(update={"subject": "chip", "like_for_like": False})
    same = verdicts.verdict((near,), "45 nm", verdicts.ChipEstimate("mine", "45 nm", Amount(2, 1, 3)))
    assert same[0].startswith("Another chip, so no like-for-like comparison: "), "a chip of one's own in the same process"


def test_of_another_chip_only_the_ranges_as_such_are_compared() -> None:
    own = on_all_terms(2, 3, 4)
    for total, told in (
        (Amount(20, 10, 40), "The ranges do not overlap: the ANN twin takes less energy, by a factor of 2.50 to 20."),
        (Amount(0.5, 0, 1), "The ranges do not overlap: this network by mine takes less energy, by a factor of 2 to 8."),
        (Amount(5, 3, 7), "The ranges overlap, so the figures do not say which takes less."),
    ):
        found = verdicts.compare(own, {}, {"twin": own}, verdicts.ChipEstimate("mine", "7 nm", total))
        assert found[-1].sentence.endswith(told)


def test_stopping_early_is_compared_on_the_fairest_terms() -> None:
    """Half of everything, in half of the steps."""
    deployment = network()
    counts = counted(deployment)
    done = StepOperations(
        spike_operations=6, effective_spike_operations=4, axon_operations=0, input_operations=12, effective_input_operations=10,
        spikes=4, messages=3, layer_messages=(3, 0), readout_spikes=0, input_messages=6, updates=16, idle_updates=0,
    )  # fmt: skip
    ahead = done.model_copy(update={"spike_operations": 12, "updates": 24, "idle_updates": 8})
    early = ExitOperations(
        threshold=1.0, chosen_on=5, validation_correct=4, validation_correct_full=4, exits=(0, 2, 0, 0), total=done, on_chip=ahead
    )  # fmt: skip
    found = estimate(deployment, counts, load_table("loihi1"), Beside(early_exit=early))
    stopped = figures(found.cmos)["this network with early exit, INT8, with memory"]
    bit = 10 / 64
    assert stopped.value == pytest.approx(3 * 0.03 + 6 * 0.23 + 8 * 3.2 + (8 * 3 + 16 * 6 + 48 * 8) * bit)
    assert stopped.low == pytest.approx(3 * 0.03 + 6 * 0.23 + 8 * 3.2 + ((10 + 3) * 8 + 2 * 8) * bit), "half of the activations"
    assert found.early_exit.value == pytest.approx(6 * 23.6 + 2 * 81 + 14 * 52 + 1.5 * 1.7), "on the chip other layers are ahead"
    (compared_with,) = [item for item in found.comparisons if item.subject == "early_exit"]
    assert stopped.operation == "int8_memory_early_exit"
    assert compared_with.own == "this network with early exit"
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


def both(own: Amount, twin: Amount, teacher: Amount, papers: tuple[float, float, float]) -> tuple:
    """Against both ANNs: the same on all terms but FP32 arithmetic, where there are no ranges."""

    def figures_of(amount: Amount, flat: float) -> dict:
        made = dict(on_all_terms(amount.low, amount.value, amount.high))
        bare = made[verdicts.AS_PAPERS_DO]
        made[verdicts.AS_PAPERS_DO] = bare.model_copy(update=dict.fromkeys(("low", "value", "high"), flat))
        return made

    others = {"twin": figures_of(twin, papers[1]), "teacher": figures_of(teacher, papers[2])}
    mine = figures_of(own, papers[0])
    chip = verdicts.ChipEstimate("mine", "45 nm", own, ("input messages",))
    return verdicts.compare(mine, mine, others, chip), chip


def test_every_line_after_the_first_compares_with_the_ann_that_takes_less() -> None:
    """The network takes less than its twin everywhere, and more than its teacher everywhere: it does not pay."""
    found, chip = both(Amount(20, 15, 25), Amount(60, 50, 70), Amount(2, 1, 3), (10.0, 20.0, 1.0))
    told = verdicts.verdict(found, "45 nm", chip)
    assert told[0].startswith("The spiking network wins against the ANN twin. ")
    assert told[1].startswith("The spiking network loses against the teacher. ")
    for start in ("Stopping early", "Another chip"):
        (line,) = [line for line in told if line.startswith(start)]
        assert "the teacher takes less energy" in line
        assert "twin" not in line
    assert not any("most papers" in line for line in told)
    assert told[-1].startswith(
        "Where energy alone decides and every step is taken, the teacher, in 8 bits, is the better choice."
    )
    swapped, chip = both(Amount(20, 15, 25), Amount(2, 1, 3), Amount(60, 50, 70), (10.0, 1.0, 20.0))
    assert "an ordinary 8-bit ANN of the same layers is the better choice" in verdicts.verdict(swapped, "45 nm", chip)[-1]


def test_stopping_early_says_what_it_costs_in_accuracy() -> None:
    found, chip = both(Amount(20, 15, 25), Amount(60, 50, 70), Amount(2, 1, 3), (10.0, 20.0, 1.0))
    known = verdicts.Accuracies(98.9, 99.2, 99.7)
    (line,) = [line for line in verdicts.verdict(found, "45 nm", chip, known) if line.startswith("Stopping early")]
    percents = [formatting.percent(value) for value in (98.9, 99.2, 99.7)]
    assert line.startswith("Stopping early ({} right, {} with all steps, {} the teacher's): ".format(*percents))
    assert any(line.startswith("Stopping early: ") for line in verdicts.verdict(found, "45 nm", chip))


def test_a_partial_total_of_a_chip_says_what_is_not_in_it() -> None:
    found, chip = both(Amount(20, 15, 25), Amount(60, 50, 70), Amount(2, 1, 3), (10.0, 20.0, 1.0))
    (line,) = [line for line in verdicts.verdict(found, "45 nm", chip) if line.startswith("Another chip")]
    assert line.endswith("The chip's total is without what has no figure: input messages.")
    (line,) = [line for line in report().verdict if line.startswith("Another chip")]
    assert line.endswith(": graded operations, input messages, values read out, input values encoded by the host.")


def test_factors_are_never_written_with_exponents_and_near_one_they_say_about_the_same() -> None:
    far = compared((1, 1.5, 2), (140_000, 150_000, 160_000))[0].sentence
    assert "e+" not in far
    assert formatting.amount(140_000) in far
    near = compared((1.0, 2.0, 3.0), (1.02, 2.04, 3.06))[0].sentence
    assert "by a factor of 1.02, about the same. " in near
    ends = compared((1.0, 4, 9), (1.02, 3, 5))[0].sentence
    assert "with perfect reuse, both take about the same; with no reuse, the ANN twin takes less, by a factor of 1.80" in ends
