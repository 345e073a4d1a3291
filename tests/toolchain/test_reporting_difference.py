from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snn_export import cli
from snn_export.exit_codes import worst_exit_code
from snn_export.models.diagnostics import UserError
from snn_export.reporting import difference, difference_text
from snn_export.reporting.difference import Change, Difference
from snn_export.reporting.difference_gates import Limits, judge
from snn_export.reporting.json_file import write_report
from snn_export.reporting.report import Comparison, NetworkSize, Report
from tests.golden import check_golden
from tests.report_examples import diverging_report, example_report

SIZE = NetworkSize(neurons=1_610, synapses=38_160, nonzero=31_775, weight_bits=8, memory_bits=305_280)
SETTINGS = '[quantize]\nweight_bits = 8\n[data]\nsource = "digits"\n'


def base() -> Report:
    return example_report().model_copy(update={"size": SIZE, "settings": SETTINGS})


def changed(report: Report, **fields: Any) -> Report:
    return report.model_copy(update=fields)


def rung(report: Report, name: str, **fields: Any) -> Report:
    ladder = tuple(item.model_copy(update=fields) if item.name == name else item for item in report.ladder)
    return changed(report, ladder=ladder)


def comparison(report: Report, target: str, change: Callable[[Comparison], Comparison | None]) -> Report:
    found = tuple(change(item) if item.target == target else item for item in report.comparisons)
    return changed(report, comparisons=tuple(item for item in found if item is not None))


def layer(report: Report, target: str, name: str, **fields: Any) -> Report:
    def change(item: Comparison) -> Comparison:
        layers = tuple(part.model_copy(update=fields) if part.layer == name else part for part in item.layers)
        return item.model_copy(update={"layers": layers})

    return comparison(report, target, change)


def gate(report: Report, name: str, **fields: Any) -> Report:
    return changed(report, gates=tuple(item.model_copy(update=fields) if item.name == name else item for item in report.gates))


def outcome(found: Difference) -> tuple[int, list[str]]:
    return found.exit_code, [item.name for item in found.gates if not item.passed]


def hotter(report: Report, factor: float) -> Report:
    return changed(report, activity=tuple(item.model_copy(update={"rate": item.rate * factor}) for item in report.activity))


def dearer(report: Report, factor: float) -> Report:
    assert report.energy is not None
    assert report.energy.total is not None
    return changed(report, energy=report.energy.model_copy(update={"total": report.energy.total * factor}))


def test_golden() -> None:
    found = judge(base(), changed(diverging_report(), settings=SETTINGS.replace("8", "4")))
    check_golden("difference.txt", difference_text.render(found))
    check_golden("difference.md", difference_text.markdown(found))
    check_golden("difference.json", json.dumps(difference_text.document(found), indent=2, sort_keys=True) + "\n")
    check_golden("difference.github.txt", difference_text.annotation(found))


def test_the_same_report_has_not_changed() -> None:
    found = judge(base(), base())
    assert (found.changes, found.notes, outcome(found)) == ((), (), (0, []))
    assert "Nothing changed." in difference_text.render(found)
    assert difference_text.annotation(found) == ""
    assert {item.name for item in found.gates} == {
        "gates that fail now", "verdicts", "coverage", "accuracy", "spikes per inference", "energy per inference",
        "size of the weights",
    }  # fmt: skip


def test_only_what_changed_is_shown() -> None:
    head = rung(layer(base(), "lava", "lif2", mismatched_spikes=7), "integer", accuracy=97.7)
    head = changed(head, versions={**head.versions, "torch": "9.9"}, fingerprints={**head.fingerprints, "checkpoint": "a" * 64})
    found = judge(base(), head).changes
    assert set(found) == {
        Change("layer", "loihi → lava: lif2, spikes that differ", 0, 7, "count", True),
        Change("accuracy", "integer", base().ladder[4].accuracy, 97.7, "percent", True),
        Change("version", "torch", "2.13.0", "9.9"),
        Change("fingerprint", "checkpoint", base().fingerprints["checkpoint"], "a" * 64),
    }


@pytest.mark.parametrize(
    ("head", "code", "failing"),
    [
        (rung(base(), "integer", accuracy=base().ladder[4].accuracy - 0.5), 0, []),  # type: ignore[operator]
        (rung(base(), "integer", accuracy=base().ladder[4].accuracy - 0.51), 1, ["accuracy"]),  # type: ignore[operator]
        (rung(base(), "integer", accuracy=99.9), 0, []),
        (rung(base(), "integer", accuracy=None), 5, ["coverage"]),
        (rung(base(), "integer", samples=100), 5, ["accuracy"]),
        (hotter(base(), 1.0499), 0, []),
        (hotter(base(), 1.06), 1, ["spikes per inference"]),
        (hotter(base(), 0.5), 0, []),
        (changed(base(), activity=()), 5, ["spikes per inference"]),
        (dearer(base(), 1.0999), 0, []),
        (dearer(base(), 1.11), 1, ["energy per inference"]),
        (changed(base(), energy=None), 5, ["energy per inference"]),
        (changed(base(), size=SIZE.model_copy(update={"memory_bits": 305_281})), 1, ["size of the weights"]),
        (changed(base(), size=SIZE.model_copy(update={"memory_bits": 1})), 0, []),
        (changed(base(), size=None), 5, ["size of the weights"]),
        (gate(base(), "overflow", passed=False, measured="3"), 1, ["gates that fail now"]),
        (gate(base(), "coverage", passed=False), 5, ["gates that fail now"]),
        (layer(base(), "lava", "lif2", verdict="DRIFT"), 1, ["verdicts"]),
        (layer(base(), "reference (folded)", "lif2", verdict="EXACT"), 0, []),
        (layer(base(), "lava", "lif2", verdict="NOT_COMPARED"), 5, ["coverage"]),
        (comparison(base(), "lava", lambda item: item.model_copy(update={"verdict": "DRIFT"})), 1, ["verdicts"]),
        (comparison(base(), "lava", lambda item: None), 5, ["coverage"]),
        (comparison(base(), "lava", lambda item: item.model_copy(update={"verdict": "SKIPPED", "layers": ()})), 5, ["coverage"]),
        (comparison(base(), "lava", lambda item: item.model_copy(update={"layers": item.layers[:-1]})), 5, ["coverage"]),
        (comparison(base(), "lava", lambda item: item.model_copy(update={"samples": 63})), 5, ["coverage"]),
        (comparison(base(), "lava", lambda item: item.model_copy(update={"samples": 65})), 0, []),
        (changed(base(), fingerprints={**base().fingerprints, "data": "b" * 64}), 5, ["accuracy"]),
        (changed(base(), settings=SETTINGS.replace("8", "4")), 0, []),
        (hotter(comparison(base(), "lava", lambda item: None), 2.0), 5, ["coverage", "spikes per inference"]),
    ],
)  # fmt: skip
def test_each_way_to_get_worse(head: Report, code: int, failing: list[str]) -> None:
    found = judge(base(), head)
    assert outcome(found) == (code, failing)
    assert found.exit_code == worst_exit_code(item.exit_code for item in found.gates if not item.passed)


def test_a_gate_that_failed_already_does_not_fail_again() -> None:
    failed = gate(base(), "overflow", passed=False)
    assert outcome(judge(failed, failed)) == (0, [])
    assert outcome(judge(failed, base())) == (0, [])
    (change,) = judge(failed, base()).changes
    assert (change.base, change.head, change.worse) == ("FAIL", "pass", False)


@pytest.mark.parametrize(
    ("limits", "head"),
    [
        (Limits(accuracy_drop=5), rung(base(), "integer", accuracy=95.0)),
        (Limits(more_spikes=100), hotter(base(), 2.0)),
        (Limits(more_energy=100), dearer(base(), 2.0)),
        (Limits(larger=1), changed(base(), size=SIZE.model_copy(update={"memory_bits": 308_000}))),
        (Limits(other_data=True), changed(base(), fingerprints={**base().fingerprints, "data": "b" * 64})),
        (Limits(other_data=True), rung(base(), "integer", samples=100)),
        (Limits(other_data=True), comparison(base(), "lava", lambda item: item.model_copy(update={"samples": 8}))),
    ],
)
def test_a_limit_can_be_set(limits: Limits, head: Report) -> None:
    assert judge(base(), head, limits).exit_code == 0
    assert judge(base(), head).exit_code != 0


def test_two_that_are_not_about_the_same_thing_say_so() -> None:
    head = changed(base(), settings=SETTINGS.replace("8", "4"), fingerprints={**base().fingerprints, "data": "b" * 64}, samples=9)
    found = judge(base(), head)
    text = difference_text.render(found)
    for sentence in ("different data", "360 samples, the second on 9", "Settings differ: quantize.weight_bits."):
        assert sentence in text
    assert "quantize.weight_bits" in [change.what for change in found.changes]
    assert difference_text.document(found)["same_subject"] is False
    assert difference.notes(changed(base(), fingerprints={}, dataset="mnist"), changed(base(), fingerprints={})) != ()


def test_settings_that_are_no_toml_are_compared_as_text() -> None:
    assert difference.settings(changed(base(), settings="[[[")) == {"settings": "[[["}


def test_nothing_is_not_a_baseline() -> None:
    with pytest.raises(UserError, match="SNX520") as caught:
        judge(changed(base(), comparisons=()), base())
    assert caught.value.exit_code == 5


def test_it_fits_a_hundred_columns_and_is_ascii_where_it_must_be() -> None:
    found = judge(base(), diverging_report())
    for ascii_only in (False, True):
        text = difference_text.render(found, ascii_only=ascii_only)
        assert max(len(line) for line in text.splitlines()) <= 100
    assert text.isascii()


def test_names_are_text(tmp_path: Path) -> None:
    hostile = "[red]x[/red]\x1b]0;t\x07 | <b> @owner"
    found = judge(base(), changed(base(), network=hostile, settings=""))
    assert "[red]x[/red]\\x1b]0;t\\x07" in difference_text.render(found)
    assert "\x1b" not in difference_text.render(found)
    assert "@owner" not in difference_text.markdown(found)
    assert "<b>" not in difference_text.markdown(found)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    write_report(base(), tmp_path / "base.json")
    write_report(hotter(base(), 1.5), tmp_path / "head.json")
    write_report(comparison(base(), "lava", lambda item: None), tmp_path / "less.json")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["base.json", "base.json"], 0),
        (["base.json", "head.json"], 1),
        (["base.json", "head.json", "--more-spikes", "60"], 0),
        (["base.json", "head.json", "--exit-zero"], 0),
        (["base.json", "less.json"], 5),
        (["base.json", "absent.json"], 2),
        (["base.json"], 2),
        (["base.json", "head.json", "--more-spikes", "-1"], 2),
    ],
)
def test_the_command_ends_with_the_worst(arguments: list[str], code: int, files: Path) -> None:
    assert cli.main(["report", "diff", *arguments]) == code


def test_the_command_writes_for_people_programs_and_comments(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for form in ("human", "json", "markdown"):
        assert cli.main(["report", "diff", "base.json", "head.json", "--format", form]) == 1
        shown[form] = capsys.readouterr().out
    assert shown["human"].startswith("FAIL")
    assert json.loads(shown["json"])["exit_code"] == 1
    assert shown["markdown"].startswith("## ✗ FAIL")


def test_for_github_it_is_one_annotation_and_a_summary(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(files / "summary.md"))
    assert cli.main(["report", "diff", "base.json", "head.json", "--github"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::error")]
    assert "worse than its baseline" in line
    assert "spikes per inference" in line
    assert (files / "summary.md").read_text(encoding="utf-8").startswith("## ✗ FAIL")


def test_counts_over_other_samples_are_neither_better_nor_worse() -> None:
    def fewer(samples: int) -> list[bool | None]:
        head = rung(layer(base(), "lava", "lif1", mismatched_spikes=9), "lava", samples=samples, accuracy=0.5)
        head = comparison(head, "lava", lambda item: item.model_copy(update={"samples": samples}))
        named = ("lava", "loihi → lava: lif1, spikes that differ")
        return [change.worse for change in difference.changes(base(), head) if change.what in named]

    was = next(item.samples for item in base().comparisons if item.target == "lava")
    assert fewer(was) == [True, True]
    assert fewer(was // 2) == [None, None]
