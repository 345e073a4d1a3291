from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from snn_export.reporting import junit
from snn_export.reporting.report import Report
from tests.golden import check_golden
from tests.report_examples import diverging_report, example_report, failing_report

SCHEMA = Path(__file__).parents[1] / "fixtures" / "schemas" / "junit.xsd"
REPORTS = {"passing": example_report(), "failing": failing_report(), "diverging": diverging_report()}


def suites(report: Report) -> dict[str | None, ET.Element]:
    return {suite.get("name"): suite for suite in ET.fromstring(junit.render(report))}


def with_verdict(verdict: str) -> Report:
    report = diverging_report()
    comparison = report.comparisons[2]
    layer = comparison.layers[0].model_copy(update={"verdict": verdict})
    return report.model_copy(update={"comparisons": (comparison.model_copy(update={"layers": (layer,)}),)})


@pytest.mark.parametrize("name", REPORTS)
def test_golden(name: str) -> None:
    check_golden(f"{name}.junit.xml", junit.render(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_it_is_what_ci_services_read(name: str) -> None:
    xmlschema = pytest.importorskip("xmlschema", reason="pip install xmlschema")
    schema = xmlschema.XMLSchema(SCHEMA)
    text = junit.render(REPORTS[name])
    assert list(schema.iter_errors(text)) == []
    assert list(schema.iter_errors(text.replace('tests="', 'test="')))
    assert list(schema.iter_errors(text.replace("<testcase", "<test").replace("</testcase", "</test")))


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("EXACT", None), ("TIE", None), ("WITHIN", None), ("DRIFT", "failure"), ("NOT_COMPARED", "failure"),
        ("SKIPPED", "skipped"), ("UNAVAILABLE", "error"), ("ERROR", "error"),
    ],
)  # fmt: skip
def test_a_verdict_decides_what_becomes_of_a_case(verdict: str, outcome: str | None) -> None:
    (case,) = suites(with_verdict(verdict))["loihi -> lava"].iter("testcase")
    found = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    assert found == ([] if outcome is None else [outcome])


def test_layers_are_cases_and_sums_are_right() -> None:
    report = failing_report()
    found = suites(report)
    for comparison in report.comparisons:
        suite = found[f"{comparison.reference} -> {comparison.target}"]
        names = [case.get("name") for case in suite.iter("testcase")]
        assert names == ([layer.layer for layer in comparison.layers] or [junit.WHOLE])
    for element in (*found.values(), ET.fromstring(junit.render(report))):
        cases = list(element.iter("testcase"))
        sums = {"tests": cases}
        sums |= {f"{tag}s": [case for case in cases if case.find(tag) is not None] for tag in ("failure", "error")}
        if element.tag == "testsuite":
            sums["skipped"] = [case for case in cases if case.find("skipped") is not None]
        assert {name: element.get(name) for name in sums} == {name: str(len(held)) for name, held in sums.items()}


def test_a_failed_gate_fails_and_an_absent_backend_is_an_error() -> None:
    cases = {case.get("name"): case for case in suites(failing_report())[junit.GATES].iter("testcase")}
    tags = {name: [child.tag for child in case if child.tag != "system-out"] for name, case in cases.items()}
    assert tags == {
        "loihi against lava": ["failure"],
        "accuracy drop": ["failure"],
        "netx": ["error"],
        "overflow": [],
        "coverage": [],
    }
    skipped = failing_report().gates[0].model_copy(update={"skipped": True, "passed": True})
    (case,) = suites(failing_report().model_copy(update={"gates": (skipped,)}))[junit.GATES].iter("testcase")
    assert case.find("skipped") is not None


def test_a_failure_says_where_and_whose_fault() -> None:
    cases = {case.get("name"): case for case in suites(diverging_report())["loihi -> netx"].iter("testcase")}
    told = cases["lif1"].findtext("failure") or ""
    assert "sample 3, step 2, neuron 17" in told
    assert "First layer at fault by itself: lif1 (netx's run leaves the contract" in told
    assert "agree best 1 step later than the declared latency" in told
    assert "at fault" not in (cases["lif2"].findtext("failure") or "")


@pytest.mark.parametrize("text", ["\x00\x01\x1b[31m", "\ud800", "\ufffe\uffff", "]]> & < > \" '", "a\nb\tc", "\U0001f600 é"])
def test_whatever_a_name_holds_the_file_is_xml(text: str) -> None:
    report = failing_report()
    comparison = report.comparisons[2].model_copy(update={"target": text, "message": text, "log": text})
    gate = report.gates[0].model_copy(update={"name": text, "measured": text})
    root = ET.fromstring(
        junit.render(report.model_copy(update={"comparisons": (comparison,), "gates": (gate,), "network": text}))
    )
    assert not any(character in ET.tostring(root, encoding="unicode") for character in "\x00\x01\x1b\ufffe\uffff")
    if text.isprintable():
        assert root.get("name") == text


def test_two_cases_never_share_a_name() -> None:
    report = failing_report()
    gates = tuple(gate.model_copy(update={"name": "same"}) for gate in report.gates[:3])
    names = [case.get("name") for case in suites(report.model_copy(update={"gates": gates}))[junit.GATES].iter("testcase")]
    assert names == ["same", "same (2)", "same (3)"]
