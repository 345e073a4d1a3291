from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from snn_export.reporting import html, plots
from snn_export.reporting.formatting import text_of
from snn_export.reporting.json_file import read_report, write_report
from snn_export.reporting.report import Report
from snn_export.text_safety import printable
from tests.report_examples import example_report, failing_report

REPORTS = pytest.mark.parametrize("report", [example_report(), failing_report()], ids=["passing", "failing"])
VOID = {"meta", "link", "br", "img", "input", "hr"}
DRAWN = {"both", "only_reference", "only_target", "membrane_reference", "membrane_target", "weight_histogram", "rate_histogram"}
"""Numbers that are drawn and not printed."""
WITH_ANOTHER = {"total_low", "total_high", "low", "high", "value"}
"""Ends of a range: printed with the number they belong to."""


@dataclasses.dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """Elements of a page with their text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def fields(self) -> list[tuple[str, str]]:
        return [(e.attributes["data-field"], e.text) for e in self.elements if "data-field" in e.attributes]


def printed_numbers(node: Any, path: str = "") -> Iterator[str]:
    """Paths of all numbers below ``node`` (plain JSON values) that a reader must find printed."""
    name = path.rpartition(".")[2]
    if name in DRAWN or path.startswith(("accuracy_over_time", "rasters", "fingerprints", "versions", "gates")):
        return
    if isinstance(node, dict) and name != "first_divergence":
        for key, value in node.items():
            yield from printed_numbers(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list | tuple) and name != "interval":
        for index, value in enumerate(node):
            yield from printed_numbers(value, f"{path}.{index}")
    elif node is not None and not isinstance(node, str | bool) and name not in WITH_ANOTHER:
        yield path


@REPORTS
def test_every_number_shown_is_the_one_in_the_json_file(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    read_back = read_report(tmp_path / "report.json")
    fields = Page(html.render(report)).fields()
    assert len(fields) > 200
    for path, text in fields:
        assert text == text_of(read_back, path), path


@REPORTS
def test_every_number_of_the_report_is_shown(report: Report) -> None:
    shown = {path for path, _ in Page(html.render(report)).fields()}
    expected = set(printed_numbers(report.model_dump(mode="json")))
    unread = {
        f"comparisons.{n}.{field}"
        for n, c in enumerate(report.comparisons)
        if not c.samples
        for field in ("samples", "decisions_equal")
    }
    assert expected - shown - unread == set()
    assert {"ladder.2.accuracy", "comparisons.1.layers.1.mismatched_spikes", "energy.layers.0.synops"} <= expected


def test_what_the_page_says_in_numbers_is_literally_right() -> None:
    fields = dict(Page(html.render(example_report())).fields())
    assert fields["ladder.4.accuracy"] == "97.8\u202f%"
    assert fields["comparisons.1.layers.0.mismatched_spikes"] == "0"
    assert fields["comparisons.1.layers.0.positions"] == "524\u202f288"
    assert fields["energy.total"] == "4.95\u202fµJ (4.40 to 6.20)"


@REPORTS
def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert html.render(report) == html.render(report.model_copy(deep=True))


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    write_report(example_report(), tmp_path / "report.json")
    code = (
        "import hashlib, pathlib, sys; from snn_export.reporting import html, json_file;"
        "page = html.render(json_file.read_report(pathlib.Path(sys.argv[1])));"
        "print(hashlib.sha256(page.encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "report.json")]
    digests = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert digests == {hashlib.sha256(html.render(example_report()).encode()).hexdigest() + "\n"}


def test_text_of_the_report_stays_text() -> None:
    report = failing_report()
    page = html.render(report)
    assert "<script" not in page.lower()
    assert "\x1b" not in page
    assert not any(element.tag == "script" for element in Page(page).elements)
    assert not any(name.startswith("on") for element in Page(page).elements for name in element.attributes)
    text = " ".join(element.text for element in Page(page).elements)
    assert report.comparisons[1].layers[-1].layer in text
    assert printable(report.network) in text


@REPORTS
def test_the_page_asks_for_nothing_from_outside(report: Report) -> None:
    page = html.render(report)
    assert len(page.encode()) < 3_000_000
    elements = Page(page).elements
    policy = next(e for e in elements if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & {element.tag for element in elements}
    targets = [value for e in elements for name, value in e.attributes.items() if name in {"href", "src", "xlink:href", "action"}]
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"@import|url\((?!#)", page)


@REPORTS
def test_ids_are_unique_and_references_lead_somewhere(report: Report) -> None:
    elements = Page(html.render(report)).elements
    ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in elements:
        for name in ("href", "xlink:href"):
            target = element.attributes.get(name, "")
            assert not target.startswith("#") or target[1:] in ids
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
    styles = " ".join(element.attributes.get("clip-path", "") for element in elements)
    assert set(re.findall(r"url\(#([^)]*)\)", styles)) <= set(ids)


@REPORTS
def test_it_can_be_read_without_seeing_the_drawings(report: Report) -> None:
    elements = Page(html.render(report)).elements
    assert [element.tag for element in elements if element.tag in {"header", "nav", "main", "footer"}] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    assert sum(element.tag == "h1" for element in elements) == 1
    for element in elements:
        if element.tag == "svg":
            named = {"aria-label", "aria-labelledby"} & element.attributes.keys()
            assert element.attributes.get("aria-hidden") == "true" or (element.attributes.get("role") == "img" and named)
        if "scroll" in element.attributes.get("class", "").split():
            assert element.attributes["tabindex"] == "0"
            assert element.attributes["aria-label"]


def test_colours_of_the_charts_follow_the_theme() -> None:
    report = example_report()
    assert report.energy is not None
    charts = [
        plots.accuracy_over_time(report.accuracy_over_time, "a"),
        plots.membrane_trace(report.rasters[0], "b"),
        plots.weight_histogram(report.quantisation[0], "c"),
        plots.rate_histogram(report.activity[0], "d"),
        plots.energy_chart(report.energy, "e"),
    ]
    for chart in charts:
        ET.fromstring(chart.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
        assert not re.search(r"#[0-9a-f]{6}\b", chart)
        assert "var(--" in chart
        assert "DejaVu" not in chart


def test_the_three_kinds_of_spike_are_three_shapes_in_three_classes() -> None:
    report = failing_report()
    paths = {
        e.attributes["class"]: e.attributes["d"]
        for e in Page(html.render(report.model_copy(update={"rasters": report.rasters[:1]}))).elements
        if e.tag == "path"
        and e.attributes.get("class") in {"both", "only-reference", "only-target"}
        and e.attributes["d"].count("M") > 1
    }
    counts = {name: path.count("M") for name, path in paths.items()}
    raster = report.rasters[0]
    assert counts == {
        "both": len(raster.both),
        "only-reference": len(raster.only_reference),
        "only-target": len(raster.only_target),
    }


def test_a_report_with_nothing_in_it_still_makes_a_page(tmp_path: Path) -> None:
    empty = dict.fromkeys(("gates", "coverage", "ladder", "comparisons", "quantisation", "activity", "rasters", "training"), ())
    report = example_report().model_copy(update={**empty, "accuracy_over_time": (), "energy": None, "reproduce": ()})
    html.write_html(report, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert any("nothing was left out" in element.text for element in page.elements)


def test_the_axis_of_the_ladder_holds_every_interval() -> None:
    for report in (example_report(), failing_report()):
        low, high, ticks = html.ladder_axis(report)
        assert low <= min(rung.interval[0] for rung in report.ladder if rung.interval)
        assert ticks[0] == low
        assert ticks[-1] == high == 100
