from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from snn_export import cli
from snn_export.explanations import lookup
from snn_export.export import nir_io
from snn_export.models.diagnostics import Diagnostic
from snn_export.reporting import sarif
from tests.golden import check_golden
from tests.networks import dense_net, read

SCHEMA = Path(__file__).parents[1] / "fixtures" / "schemas" / "sarif-2.1.0.schema.json"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "nir"
FOUND: dict[str, Sequence[Diagnostic]] = {
    "nets/first one.nir": (
        Diagnostic("SNX203", "lif1 resets by subtraction", "lif1", "the chip resets to zero", "train with reset = zero"),
        Diagnostic(
            "SNX203", "lif2 resets by subtraction", "lif2", "the chip resets to zero", "train with reset = zero", "warning"
        ),
        Diagnostic("SNX209", "a note", "lif3", "it may matter", "nothing", "note"),
    ),
    "nets/broken.nir": (
        Diagnostic("SNX101", "cannot read broken.nir", "nets/broken.nir", "it is damaged\x1b[31m", "copy it again"),
    ),
    "nets/clean.nir": (),
}


def run_of(text: str) -> dict[str, Any]:
    (found,) = json.loads(text)["runs"]
    return dict(found)


def sarif_place(result: dict[str, Any]) -> str | None:
    places = result["locations"][0].get("logicalLocations", [{"name": None}])
    return str(places[0]["name"]) if places[0]["name"] else None


def errors(content: Any) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


def test_golden() -> None:
    content = sarif.log(FOUND)
    content["runs"][0]["tool"]["driver"]["version"] = "0.0.0"
    for rule in content["runs"][0]["tool"]["driver"]["rules"]:  # the pages have their own tests
        rule["help"] = {"text": rule["id"], "markdown": rule["id"]}
    check_golden("findings.sarif", json.dumps(content, indent=2, sort_keys=True) + "\n")


def test_it_is_sarif() -> None:
    content = json.loads(sarif.render(FOUND))
    assert errors(content) == []
    assert errors(json.loads(sarif.render({}))) == []
    content["runs"][0]["results"][0]["level"] = "fatal"
    content["runs"][0]["results"][1].pop("message")
    content["runs"][0]["extra"] = 1
    assert len(errors(content)) == 3


def test_every_finding_points_at_its_rule_and_its_file() -> None:
    run = run_of(sarif.render(FOUND))
    rules, artifacts = run["tool"]["driver"]["rules"], run["artifacts"]
    assert [rule["id"] for rule in rules] == ["SNX101", "SNX203", "SNX209"]
    assert [artifact["location"]["uri"] for artifact in artifacts] == [
        "nets/first%20one.nir",
        "nets/broken.nir",
        "nets/clean.nir",
    ]
    expected = [(path, item) for path, items in FOUND.items() for item in items]
    for result, (path, item) in zip(run["results"], expected, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == item.code
        (location,) = result["locations"]
        place = location["physicalLocation"]["artifactLocation"]
        assert (artifacts[place["index"]]["location"]["uri"], place["uri"]) == (sarif.uri_of(path), sarif.uri_of(path))
        assert result["level"] == item.severity
        assert item.fix in result["message"]["text"]
    assert [result["locations"][0].get("logicalLocations") for result in run["results"]] == [
        [{"name": "lif1"}], [{"name": "lif2"}], [{"name": "lif3"}], None,
    ]  # fmt: skip
    assert "\x1b" not in json.dumps(run, ensure_ascii=False)


def test_a_rule_brings_its_page() -> None:
    (rule,) = run_of(sarif.render({"x.nir": FOUND["nets/broken.nir"]}))["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"] == lookup.title("SNX101")
    assert rule["help"]["text"] == rule["help"]["markdown"] == lookup.page("SNX101")


def test_fingerprints_tell_findings_apart_and_stay_the_same() -> None:
    prints = [result["partialFingerprints"][sarif.FINGERPRINT] for result in run_of(sarif.render(FOUND))["results"]]
    assert len(set(prints)) == len(prints) == 4
    reordered = dict(reversed(FOUND.items()))
    assert {result["partialFingerprints"][sarif.FINGERPRINT] for result in run_of(sarif.render(reordered))["results"]} == set(
        prints
    )


@pytest.mark.parametrize(
    ("path", "uri"),
    [("a.nir", "a.nir"), ("a b/ü#.nir", "a%20b/%C3%BC%23.nir"), ("./a.nir", "a.nir"), ("/x/a b.nir", "file:///x/a%20b.nir")],
)
def test_paths_are_references(path: str, uri: str) -> None:
    assert sarif.uri_of(path) == uri


def test_check_and_lint_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    nir_io.write(read(dense_net(reset="subtract"), (4,)), tmp_path / "net.nir")
    (tmp_path / "bad.nir").write_bytes(b"not a network")
    assert cli.main(["check", "net.nir", "bad.nir", "--target", "loihi1", "--format", "sarif"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert errors(content) == []
    run = content["runs"][0]
    found = {(result["ruleId"], sarif_place(result)) for result in run["results"]}
    assert found >= {("SNX203", "lif1"), ("SNX203", "lif2"), ("SNX101", None)}
    assert [artifact["location"]["uri"] for artifact in run["artifacts"]] == ["net.nir", "bad.nir"]
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 2}]
    assert cli.main(["lint", str(FIXTURES / "norse_cnn.nir"), "--format", "sarif"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert errors(content) == []
    assert {result["level"] for result in content["runs"][0]["results"]} >= {"error"}
