"""The energy benchmark's Markdown: every comparison of a report, the words that go with it, and the steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snn_export.reporting.json_file import write_report
from tests.benchmark_modules import benchmark
from tests.report_examples import example_report
from tests.toolchain.test_energy_page import energy

bench = benchmark("energy")


def test_the_markdown_has_a_row_per_comparison_and_per_step() -> None:
    found = energy()
    text = "\n".join(bench.lines(found))
    comparisons, steps = text.split("| steps |")
    rows = [line for line in comparisons.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(found.comparisons) > 0
    ends = (
        " spiking |",
        " ANN |",
        " memory is reused alike |",
        " sums are equally wide |",
        " with none |",
        " the ranges overlap |",
    )
    assert sum(line.endswith(ends) for line in rows) == len(rows)
    early = [item for item in found.comparisons if item.subject == "early_exit"]
    assert early
    assert text.count("early exit |") == len(early)
    assert all(f"- {sentence}" in text for sentence in (*found.verdict, *found.break_even))
    assert [int(number) for number in re.findall(r"^\| (\d+)(?: \(knee\))? \|", "| steps |" + steps, re.M)] == [1, 2, 3, 4]
    assert steps.count("(knee)") == 1
    assert "(early exit)" in steps
    assert "- Time: " in steps


def test_a_table_has_as_many_cells_in_every_row() -> None:
    width = 0
    for line in bench.lines(energy()):
        cells = line.count("|")
        assert not (width and cells) or cells == width, line
        width = cells


def test_what_a_report_may_lack_is_written_as_a_dash() -> None:
    """A ratio to nothing, and accuracies without labels."""
    found = energy()
    without = found.model_copy(
        update={
            "comparisons": tuple(item.model_copy(update={"ratio": None}) for item in found.comparisons),
            "curve": tuple(point.model_copy(update={"accuracy": None}) for point in found.curve),
            "early_exit": found.early_exit.model_copy(update={"accuracy": None}),
        }
    )
    text = "\n".join(bench.lines(without))
    assert text.count(" | - | ") == len(found.comparisons) + len(found.curve) + 1


def test_a_student_that_was_not_trained_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "available", lambda name: True)
    monkeypatch.setattr("sys.argv", ["energy.py", "--cifar", "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"recipes\.py --data cifar10 --only idsnn"):
        bench.main()


def test_a_report_without_energy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(example_report().model_copy(update={"energy": None}), tmp_path / "report.json")
    monkeypatch.setattr("sys.argv", ["energy.py", "--report", str(tmp_path / "report.json")])
    with pytest.raises(SystemExit, match="holds no energy"):
        bench.main()
