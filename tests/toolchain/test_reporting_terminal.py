from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from snn_export.reporting import terminal, wording
from snn_export.reporting.formatting import text_of, to_ascii
from snn_export.reporting.report import Report
from tests.golden import check_golden
from tests.report_examples import diverging_report, example_report, failing_report
from tests.toolchain import test_energy_page as energy_page

EXAMPLES = {"passing": example_report(), "failing": failing_report(), "diverging": diverging_report()}
REPORTS = pytest.mark.parametrize("report", EXAMPLES.values(), ids=EXAMPLES.keys())
LAYER_FIELDS = (
    "reference_spikes",
    "got_spikes",
    "mismatched_spikes",
    "count_error_sum",
    "mismatched_membranes",
    "membrane_difference_max",
    "overflows",
    "tolerance_that_would_pass",
)
RUNG_FIELDS = ("accuracy", "interval", "samples", "mismatched_spikes")


def numbers(line: str) -> list[str]:
    return [part for part in re.split(r" {2,}", line.strip()) if part]


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden(name: str) -> None:
    check_golden(f"{name}.txt", terminal.render(EXAMPLES[name]))


@REPORTS
def test_it_fits_a_hundred_columns(report: Report) -> None:
    for ascii_only in (False, True):
        text = terminal.render(report, ascii_only=ascii_only)
        assert max(len(line) for line in text.splitlines()) <= terminal.WIDTH


@REPORTS
def test_every_number_of_the_ladder_is_the_one_of_the_report(report: Report) -> None:
    lines = terminal.render(report).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Rung")) + 2
    for index, rung in enumerate(report.ladder):
        shown = numbers(lines[start + index])
        expected = [text_of(report, f"ladder.{index}.{field}") for field in RUNG_FIELDS]
        assert shown[:2] == [rung.name, rung.backend]
        assert [*shown[2:5], shown[-1]] == expected


def test_every_number_of_the_layer_tables_is_the_one_of_the_report() -> None:
    report = failing_report()
    lines = terminal.render(report, width=160).splitlines()
    seen = 0
    for number, comparison in enumerate(report.comparisons):
        if all(layer.verdict == "EXACT" for layer in comparison.layers):
            continue  # told in a line
        start = next(
            index for index, line in enumerate(lines) if line.startswith(f"{comparison.reference} → {comparison.target}")
        )
        for index, layer in enumerate(comparison.layers):
            line = next(line for line in lines[start:] if line.startswith(layer.layer))
            path = f"comparisons.{number}.layers.{index}"
            assert numbers(line)[2:] == [text_of(report, f"{path}.{field}") for field in LAYER_FIELDS]
            seen += 1
    assert seen == 9


def test_the_verdict_comes_first_and_every_cause_and_gap_is_named() -> None:
    report = failing_report()
    text = " ".join(terminal.render(report).split())
    assert text.startswith("FAIL")
    for sentence in (*report.causes, *(item.why for item in report.coverage), report.comparisons[2].log or ""):
        assert sentence in text
    assert "sample 3, step 2, neuron 17 (channel 1, row 0, column 1): spike expected, none came" in text
    assert "The first layer that differs is lif2." in text
    assert terminal.render(example_report()).startswith("PASS")


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_narrow_terminal_loses_columns_and_never_digits(name: str, width: int) -> None:
    report = EXAMPLES[name]
    lines = terminal.render(report, width=width).splitlines()
    assert max(map(len, lines)) <= width
    start = next(index for index, line in enumerate(lines) if line.startswith("Rung")) + 2
    for index, rung in enumerate(report.ladder):
        shown = numbers(lines[start + index])
        assert (shown[0], shown[-1]) == (rung.name, text_of(report, f"ladder.{index}.mismatched_spikes"))
    for number, comparison in enumerate(report.comparisons):
        at = lines.index(next(line for line in lines if line.startswith(f"{comparison.reference} → {comparison.target}")))
        for index, layer in enumerate(comparison.layers):
            if any(found.verdict != "EXACT" for found in comparison.layers):
                shown = numbers(next(line for line in lines[at:] if line.startswith(layer.layer[:12])))
                assert text_of(report, f"comparisons.{number}.layers.{index}.mismatched_spikes") in shown[2:]
    left_out = f"{width} columns leave no room for: " in terminal.render(report, width=width)
    assert left_out or width >= 100


def test_layers_that_are_all_equal_take_one_line() -> None:
    text = terminal.render(example_report(), width=160)
    assert (
        "loihi → lava  = EXACT  same decision in 64 of 64 samples; every spike and every compared membrane of 4 layers is" in text
    )
    assert sum(line.startswith("lif1") for line in text.splitlines()) == sum(
        any(layer.verdict != "EXACT" for layer in found.layers) for found in example_report().comparisons
    )


def test_a_failed_report_ends_with_what_to_do_next() -> None:
    text = terminal.render(diverging_report())
    ending = " ".join(text[text.index("What to do next") :].split())
    assert "Look at lif2 in lava" in ending
    assert "snn-export bisect NET.nir --reference loihi --target lava" in ending
    assert "What to do next" not in terminal.render(example_report())


def test_an_accuracy_that_nothing_parts_is_not_tested() -> None:
    report = diverging_report()
    same = report.comparisons[1].model_copy(update={"only_reference_right": 0, "only_target_right": 0, "mcnemar_p": 1.0})
    assert "McNemar" not in terminal.render(report.model_copy(update={"comparisons": (same,)}))
    one = same.model_copy(update={"only_reference_right": 1})
    told = terminal.render(report.model_copy(update={"comparisons": (one,)}))
    assert f"Right only in {one.reference}: 1 sample, only in {one.target}: 0 (McNemar p 1)." in told


def test_ascii_output_is_ascii_and_says_the_same_numbers() -> None:
    report = example_report()
    text = terminal.render(report, ascii_only=True)
    assert text.isascii()
    assert to_ascii(text_of(report, "comparisons.0.layers.0.reference_spikes")) in text


def test_names_are_text_and_not_markup() -> None:
    report = failing_report().model_copy(update={"dataset": "[bold]x[/bold]\x1b]0;title\x07"})
    text = terminal.render(report)
    assert "\x1b" not in text
    assert "[bold]x[/bold]\\x1b]0;title\\x07" in text


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["default", "no-color", "dumb"],
)
def test_the_console_decides_on_colour_and_ascii(environment: dict[str, str], coloured: bool) -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, width=100, _environ={"TERM": "xterm-256color", **environment})
    terminal.print_report(example_report(), console)
    assert ("\x1b[1;32mPASS" in buffer.getvalue()) is coloured
    assert buffer.getvalue().isascii() is (environment.get("TERM") == "dumb")


def test_a_report_with_nothing_in_it_still_prints() -> None:
    empty = example_report().model_copy(
        update={
            "gates": (),
            "ladder": (),
            "comparisons": (),
            "coverage": (),
            "energy": None,
            "passed": False,
            "causes": ("nothing",),
        }
    )
    assert "nothing was left out" in terminal.render(empty)


def test_where_two_runs_part_it_says_whose_fault_it_is_and_what_it_comes_from() -> None:
    report = diverging_report()
    text = " ".join(terminal.render(report).split())
    for told in (
        "First layer at fault by itself: lif2 (lava's run leaves the contract, 12 spikes in the first 5 samples that differ).",
        "lif1: spikes agree best 1 step later than the declared latency of 0 (8 214 differ, 0 then).",
        "Right only in loihi: 3 samples, only in lava: 1 (McNemar p 0.625).",
        "41 802 spikes of 360 samples change from folded to loihi, of 214 311 of both together",
        "weight rounding 38 914 31 207 7 707 6 530 84.4 % 96.7 % explained",
        "without it in lif2 alone 15 210 are left",
        "fix: quantize with weight_bits = 6",
        "1 610 neurons, 38 160 weights stored (31 775 not zero) of 4 bits: 152 640 bits of weights",
    ):
        assert " ".join(told.split()) in text


def test_what_was_not_measured_is_not_spoken_of() -> None:
    text = terminal.render(example_report())
    for word in ("by itself", "McNemar", "latency", "Attribution", "Size"):
        assert word not in text


@pytest.mark.parametrize(
    ("side", "spikes", "membranes", "told"),
    [
        ("reference", 0, 4, "loihi's run leaves the contract, 4 membranes"),
        ("both", 1, 4, "both leave the contract, 12 spikes"),
        (None, 1, 4, "lif2 (12 spikes in the first 5 samples that differ)"),
    ],
)
def test_either_side_can_be_at_fault(side: str | None, spikes: int, membranes: int, told: str) -> None:
    report = diverging_report()
    comparison = report.comparisons[2]
    isolated = comparison.layers[1].isolated
    assert isolated is not None
    changed = isolated.model_copy(update={"reference_mismatched_spikes": spikes, "reference_mismatched_membranes": membranes})
    layers = (comparison.layers[0], comparison.layers[1].model_copy(update={"isolated": changed}), *comparison.layers[2:])
    changes = {"layers": layers, "faulty_side": side}
    assert told in terminal.render(report.model_copy(update={"comparisons": (comparison.model_copy(update=changes),)}))


def test_the_energy_is_shown_with_what_both_networks_take_in_one_process_and_where_it_lies() -> None:
    report = energy_page.report()
    energy = report.energy
    text = " ".join(terminal.render(report).split())
    fair = [n for n, item in enumerate(energy.comparisons) if (item.subject, item.terms) == ("network", "INT8, with memory")]
    assert [energy.comparisons[n].opponent for n in fair] == ["twin", "teacher"]
    for number in fair:
        item, at = energy.comparisons[number], f"energy.comparisons.{number}"
        assert f"{' '.join(text_of(report, f'{at}.own_value').split())} this network" in text
        assert f"{' '.join(text_of(report, f'{at}.value').split())} {item.other}" in text
        assert " ".join(item.sentence.split())[1:] in text
    assert all(figure.component in text for figure in energy.figures if figure.value is None)
    assert f"Placement {' '.join(wording.placement_sentence(report.placement).split())}" in text
    assert max(len(line) for line in terminal.render(report).splitlines()) <= 100
