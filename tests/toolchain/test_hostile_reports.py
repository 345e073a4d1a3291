"""Reports whose every text is hostile: no renderer may let one steer the service, the terminal or the page it is shown on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.reporting import difference_text, github, html, junit, layer_text, markdown, terminal
from snn_export.reporting.difference_gates import judge
from snn_export.reporting.json_file import LARGEST, read_report, report_text
from snn_export.reporting.report import Report
from tests.report_examples import diverging_report, example_report, failing_report

HOSTILE = (
    "::error title=x::y", "a\n::error::b", "\r::error::b", "%0A::error::c", "##[error]d", "]]>", "`x` ```\n```\n# h", "~~~",
    "<script>alert(1)</script>", "<!-- -->", "</details>", "\x1b[31mred\x1b[0m\x07", "\u202eabc", "\ufffe\uffff", "@team #12",
    "[a](javascript:x) ![x](http://y)", "a|b\\|c", "$x$", "", " ", "x" * 10_000,
)  # fmt: skip
KEPT = frozenset({"status", "verdict", "kind", "faulty_side", "winner", "schema_version"})
MAKERS = (example_report, failing_report, diverging_report)


def hostile(node: Any, text: str) -> Any:
    """The same data with every text replaced, but those with a fixed choice."""
    if isinstance(node, dict):
        return {key: value if key in KEPT else hostile(value, text) for key, value in node.items()}
    if isinstance(node, list):
        return [hostile(item, text) for item in node]
    return text if isinstance(node, str) else node


def reports(text: str) -> list[Report]:
    return [Report.model_validate(hostile(make().model_dump(mode="json"), text)) for make in MAKERS]


def outside_fences(text: str) -> str:
    return re.sub(r"(?ms)^(`{3,})text$.*?^\1$", "", text)


def commands(text: str) -> list[str]:
    """Lines that GitHub would carry out."""
    return [line for line in re.split("\r\n|\r|\n", text) if line.lstrip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text)[:24] for text in HOSTILE])
def test_no_text_steers_what_shows_it(text: str) -> None:
    for report in reports(text):
        found = judge(example_report(), report)
        for shown in (github.render(report), difference_text.annotation(found)):
            lines = shown.splitlines() if shown else []
            assert all(re.match("::(error|notice) title=", line) for line in lines)
            assert len(lines) <= github.SHOWN_PER_KIND + 1
        for written in (markdown.render(report), difference_text.markdown(found)):
            assert commands(written) == []
            plain = outside_fences(written)
            assert not any(mark in plain for mark in ("<script", "<!--", "\x1b", "](", "\u202e", "\r"))
            assert plain.count("</details>") == plain.count("<details>")
        ET.fromstring(junit.render(report).encode())
        for printed in (terminal.render(report), layer_text.failure_text(report), difference_text.render(found)):
            assert not any(mark in printed for mark in ("\x1b", "\x07", "\u202e", "\r"))
        json.dumps(difference_text.document(found), allow_nan=False)


def test_markdown_on_standard_output_is_no_command() -> None:
    """``report markdown`` prints into the log of a job, from which GitHub reads commands line by line."""
    for text in ("::error title=x::y", "  ::stop-commands::z", "a ##[error]z"):
        for report in reports(text):
            assert commands(markdown.render(report)) == []


@pytest.mark.parametrize("number", [0, -1, 10**18])
def test_numbers_without_sense_are_shown(number: int) -> None:
    """Counts that cannot be, from a file that somebody wrote by hand."""

    def counts(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: value if key == "schema_version" else counts(value) for key, value in node.items()}
        if isinstance(node, list):
            return [counts(item) for item in node]
        return number if isinstance(node, int) and not isinstance(node, bool) else node

    report = Report.model_validate(counts(diverging_report().model_dump(mode="json")))
    renderers: tuple[Callable[[Report], str], ...] = (
        github.render, junit.render, markdown.render, terminal.render, layer_text.failure_text, html.render,
    )  # fmt: skip
    for render in renderers:
        assert isinstance(render(report), str)


def test_a_report_that_is_too_large_or_holds_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    good = report_text(example_report())
    path.write_text(re.sub(r'"samples": \d+', f'"samples": {10**400}', good, count=1), encoding="utf-8")
    with pytest.raises(UserError, match="SNX130"):
        read_report(path)
    with path.open("wb") as handle:
        handle.truncate(LARGEST + 1)
    with pytest.raises(UserError, match="a report has at most"):
        read_report(path)
    settings = ".".join("a" * 200_000) + " = 1"
    path.write_text(re.sub(r'"settings": ".*"', f'"settings": "{settings}"', good, count=1), encoding="utf-8")
    with pytest.raises(UserError, match="SNX130"):
        read_report(path)
