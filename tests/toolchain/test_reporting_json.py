from __future__ import annotations

import json
from pathlib import Path

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.reporting import json_file
from snn_export.reporting.report import Report
from tests.report_examples import example_report, failing_report


@pytest.mark.parametrize("report", [example_report(), failing_report()], ids=["passing", "failing"])
def test_a_report_survives_the_file(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    json_file.write_report(report, path)
    assert json_file.read_report(path) == report
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_the_file_is_sorted_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    text = json_file.report_text(example_report())
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert text == json_file.report_text(example_report())


def test_the_stored_schema_is_the_one_of_the_model() -> None:
    assert json_file.SCHEMA_FILE.read_text(encoding="utf-8") == json_file.schema_text(), (
        "report.schema.json is out of date: write json_file.schema_text() to json_file.SCHEMA_FILE"
    )


def test_reports_validate_against_the_schema_and_damaged_ones_do_not() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    schema = json.loads(json_file.SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for report in (example_report(), failing_report()):
        content = json.loads(json_file.report_text(report))
        assert list(validator.iter_errors(content)) == []
    content["ladder"][0]["accuracy"] = "high"
    content["extra"] = 1
    assert len(list(validator.iter_errors(content))) == 2


def _damage(tmp_path: Path, change: str, into: str) -> Path:
    text = json_file.report_text(example_report())
    assert change in text
    path = tmp_path / "report.json"
    path.write_text(text.replace(change, into, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "into", "where"),
    [
        ('\n  "passed": true', '\n  "passed": "yes"', "passed"),
        ('\n  "steps": 8', '\n  "steps": 8.5', "steps"),
        ('"verdict": "TIE"', '"verdict": "FINE"', "comparisons.0.layers.1.verdict"),
        ('"dataset":', '"data_set":', "dataset"),
        ('"schema_version": 2', '"schema_version": 7', "schema_version"),
        ('"schema_version": 2', '"schema_version": 1', "schema_version"),
        ('"spikes_per_synapse": 0.811', '"spikes_per_synapse": NaN', "energy.spikes_per_synapse"),
        ('"spikes_per_synapse": 0.811', '"spikes_per_synapse": 1e999', "energy.spikes_per_synapse"),
    ],
)
def test_a_damaged_report_is_refused_with_the_field(change: str, into: str, where: str, tmp_path: Path) -> None:
    path = _damage(tmp_path, change, into)
    with pytest.raises(UserError) as caught:
        json_file.read_report(path)
    assert caught.value.code == "SNX130"
    assert f"{path}, {where}" in [diagnostic.where for diagnostic in caught.value.diagnostics]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "list", "bytes", "deep"]
)
def test_a_file_that_is_no_json_report_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="SNX130"):
        json_file.read_report(path)
    with pytest.raises(UserError, match="SNX130"):
        json_file.read_report(tmp_path / "absent.json")


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    report = example_report()
    bad = report.model_copy(update={"ladder": (report.ladder[0].model_copy(update={"accuracy": float("nan")}),)})
    with pytest.raises(UserError, match=r"SNX131[\s\S]*ladder\.0\.accuracy"):
        json_file.write_report(bad, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_coded_error_and_leaves_no_rubbish(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match="SNX132"):
        json_file.write_report(example_report(), tmp_path / "report.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
