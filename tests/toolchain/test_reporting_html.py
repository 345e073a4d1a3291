from __future__ import annotations

import dataclasses
import hashlib
import itertools
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

from snn_export.reporting import guidance, html, plots, plots_inline
from snn_export.reporting.formatting import text_of, value_at
from snn_export.reporting.json_file import read_report, write_report
from snn_export.reporting.report import Comparison, EffectLeftOut, Gate, LayerComparison, Raster, Report
from snn_export.text_safety import printable
from tests.report_examples import diverging_report, example_report, failing_report

REPORTS = pytest.mark.parametrize(
    "report", [example_report(), failing_report(), diverging_report()], ids=["passing", "failing", "diverging"]
)
VOID = {"meta", "link", "br", "img", "input", "hr"}
DRAWN = {
    "both", "only_reference", "only_target", "membrane_reference", "membrane_target", "weight_histogram", "rate_histogram",
    "count_error_histogram",
}  # fmt: skip
"""Numbers that are drawn and not printed."""
OF_DIFFERING_LAYERS = {
    "count_error_sum", "count_error_max", "neurons_with_count_error", "rate_error_mean", "rate_error_max",
    "spike_distance_trains",
}  # fmt: skip
"""Shown of layers whose spikes differ; 0 in all others."""
OF_SOME = {"currents_compared", "mismatched_currents", "ties", "positions", "membranes_compared"}
"""Left out where 0: a column without anything to tell, and "of 0"."""
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

    def ids(self) -> set[str]:
        return {element.attributes["id"] for element in self.elements if "id" in element.attributes}

    def texts(self, tag: str, kind: str = "") -> list[str]:
        """Texts of all elements of this tag and class, in order, white space collapsed."""
        found = [e for e in self.elements if e.tag == tag and (not kind or kind in e.attributes.get("class", "").split())]
        return [" ".join(element.text.split()) for element in found]

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
    elif isinstance(node, list | tuple) and not name.endswith("interval"):
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
    left_out = {path for path in expected - shown if not value_at(report, path) and may_be_left_out(report, path)}
    assert expected - shown - left_out == set()
    assert {"ladder.2.accuracy", "comparisons.1.layers.1.mismatched_spikes", "energy.layers.0.synops"} <= expected


def may_be_left_out(report: Report, path: str) -> bool:
    """Whether a 0 at ``path`` need not be printed: its column or its table has nothing to tell."""
    match = re.fullmatch(r"comparisons\.(\d+)(?:\.layers\.(\d+))?\.(.+)", path)
    if match is None:
        return False
    comparison, name = report.comparisons[int(match[1])], match[3]
    if match[2] is None:
        return comparison.samples == 0 and name in {"samples", "decisions_equal"}
    layer = comparison.layers[int(match[2])]
    if name == "spike_distance_trains" and layer.spike_distance_mean is None:
        return True
    return name in OF_SOME or (name in OF_DIFFERING_LAYERS and layer.mismatched_spikes == 0)


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
    charts = [plots.accuracy_over_time(report.accuracy_over_time, "a"), plots.membrane_trace(report.rasters[0], "b")]
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
    counts["both"] = paths["both"].count("h0")
    raster = report.rasters[0]
    assert counts == {
        "both": len(raster.both),
        "only-reference": len(raster.only_reference),
        "only-target": len(raster.only_target),
    }


def test_a_report_with_nothing_in_it_still_makes_a_page(tmp_path: Path) -> None:
    empty = dict.fromkeys(("gates", "coverage", "ladder", "comparisons", "quantisation", "activity", "rasters", "training"), ())
    absent = {"accuracy_over_time": (), "energy": None, "reproduce": (), "attribution": None, "size": None}
    report = diverging_report().model_copy(update={**empty, **absent})
    html.write_html(report, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert any("nothing was left out" in element.text for element in page.elements)
    assert page.ids() & {"gates", "ladder", "layers", "attribution", "rasters", "activity", "size", "energy"} == set()


def test_the_axis_of_the_ladder_holds_every_interval() -> None:
    for report in (example_report(), failing_report()):
        low, high, ticks = html.ladder_axis(report)
        assert low <= min(rung.interval[0] for rung in report.ladder if rung.interval)
        assert ticks[0] == low
        assert ticks[-1] == high == 100


@REPORTS
def test_headings_go_down_one_level_at_a_time(report: Report) -> None:
    levels = [int(e.tag[1]) for e in Page(html.render(report)).elements if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def comparison_page(comparison: Comparison) -> Page:
    return page_without_charts(diverging_report().model_copy(update={"comparisons": (comparison,)}))


def page_without_charts(report: Report) -> Page:
    """What takes long to draw and is not looked at is left out."""
    return Page(html.render(report.model_copy(update={"rasters": (), "accuracy_over_time": ()})))


def test_the_first_layer_at_fault_is_marked_and_the_side_is_named() -> None:
    lava = diverging_report().comparisons[2].model_copy(update={"first_faulty_layer": "lif1"})
    page = comparison_page(lava)
    (marked,) = [text for text in page.texts("th") if "first at fault" in text]
    assert marked == "▶ lif2 first at fault"
    (finding,) = page.texts("p", "finding")
    assert "lif2" in finding
    assert "lava's run leaves the contract" in finding
    other = comparison_page(lava.model_copy(update={"faulty_side": "reference"}))
    assert "loihi's run leaves the contract" in other.texts("p", "finding")[0]


def test_without_a_layer_at_fault_none_is_marked() -> None:
    page = comparison_page(diverging_report().comparisons[1])
    assert page.texts("p", "finding") == []
    assert page.texts("span", "mark") == ["▶"], "the mark of the effect that is the cause, and no other"


def bars(page: Page) -> list[tuple[str, float]]:
    """Class and width of every bar of every pair of bars, in order."""
    return [
        (e.attributes["class"], float(e.attributes["width"]))
        for e in page.elements
        if e.tag == "rect" and e.attributes.get("class") in {"whole", "alone"} and e.attributes["width"] != "12"
    ]


def test_each_layer_has_a_bar_end_to_end_and_one_by_itself_on_one_axis() -> None:
    lava = diverging_report().comparisons[2]
    page = page_without_charts(example_report().model_copy(update={"comparisons": (lava,)}))
    found = bars(page)
    assert [kind for kind, _ in found] == ["whole", "alone", "whole"], "lif2 both ways, lif3 end to end; 0 has no bar"
    axis = plots_inline.count_axis([37, 12, 412])
    assert [width for _, width in found] == [pytest.approx(axis.at(value), abs=0.06) for value in (37, 12, 412)]


def test_where_only_membranes_differ_these_are_drawn() -> None:
    lava = diverging_report().comparisons[2]
    layers = tuple(
        layer.model_copy(
            update={
                "mismatched_spikes": 0,
                "isolated": layer.isolated and layer.isolated.model_copy(update={"mismatched_spikes": 0}),
            }
        )
        for layer in lava.layers
    )
    page = page_without_charts(example_report().model_copy(update={"comparisons": (lava.model_copy(update={"layers": layers}),)}))
    assert [kind for kind, _ in bars(page)] == ["whole", "alone", "whole"]
    assert "Membranes that differ, drawn" in page.texts("span", "hidden")


def test_an_exact_comparison_has_no_drawing_of_differences() -> None:
    page = comparison_page(example_report().comparisons[1])
    assert "Where the difference begins" not in page.texts("h4")
    assert "All layers" in page.texts("h4")


def test_a_wrong_latency_stands_out_and_a_right_one_does_not() -> None:
    report = diverging_report()
    page = comparison_page(report.comparisons[3])
    assert any(text.startswith("Wrong latency. lif1") for text in page.texts("p", "finding"))
    assert any(
        "latency that netx declares for lif1: 0, but its spikes agree at 1" in step.text for step in guidance.next_steps(report)
    )
    assert page.texts("span", "wrong") == ["wrong"]
    lag = report.comparisons[3].layers[0].lag
    assert lag is not None
    right = lag.model_copy(update={"best": 0})
    layers = (report.comparisons[3].layers[0].model_copy(update={"lag": right}), *report.comparisons[3].layers[1:])
    page = comparison_page(report.comparisons[3].model_copy(update={"layers": layers}))
    assert not any("latency" in text for text in page.texts("p", "finding"))
    assert page.texts("span", "wrong") == []


def test_the_tolerance_that_would_pass_stands_beside_the_one_allowed() -> None:
    fields = dict(comparison_page(diverging_report().comparisons[1]).fields())
    assert fields["comparisons.0.layers.0.tolerance_that_would_pass"] == "0.325\u202f%"
    assert fields["comparisons.0.layers.0.tolerance_spikes"] == "20.0\u202f%"


def test_count_errors_are_drawn_with_their_numbers_in_words() -> None:
    labels = [e.attributes["aria-label"] for e in comparison_page(diverging_report().comparisons[2]).elements if "counts" in
              e.attributes.get("class", "").split()]  # fmt: skip
    lif3 = diverging_report().comparisons[2].layers[2].count_error_histogram
    assert len(labels) == 2
    assert labels[1] == (
        f"off by 0: {text_count(lif3[0])}; off by 1: {lif3[1]}; off by 2: {lif3[2]}; off by 3-4: {lif3[3]}; "
        f"off by 5-8: {lif3[4]}; off by 9+: {lif3[5]}"
    )


def text_count(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def test_paired_decisions_are_told_with_their_chance() -> None:
    (told,) = [text for text in comparison_page(diverging_report().comparisons[2]).texts("p") if "McNemar" in text]
    assert told.startswith("The same decision in 60 of 64 samples (95 % interval 85.0 to 97.5 %). Right only in loihi: 3;")
    assert "only in lava: 1" in told
    assert "0.625" in told


def test_the_attribution_is_told_at_the_top_and_in_full_below() -> None:
    report = diverging_report()
    assert report.attribution is not None
    page = page_without_charts(report)
    assert report.attribution.sentence in page.texts("p", "claim")
    assert any(report.attribution.fix in step for step in page.texts("li"))
    fields = dict(page.fields())
    assert fields["attribution.effects.1.forward"] == "38\u202f914"
    assert fields["attribution.effects.1.backward"] == "31\u202f207"
    assert fields["attribution.effects.1.interaction"] == "7\u202f707"
    assert fields["attribution.effects.1.removed"] == "84.4\u202f%"
    assert [text for text in page.texts("th") if "; the cause" in text] == ["▶ weight rounding weights in 4 bits; the cause"]


def test_effects_that_can_change_nothing_are_named_with_the_reason() -> None:
    report = diverging_report()
    assert report.attribution is not None
    left_out = (EffectLeftOut(name="latency", why="no connection has a delay"),)
    found = report.model_copy(update={"attribution": report.attribution.model_copy(update={"left_out": left_out})})
    assert "latency: no connection has a delay" in page_without_charts(found).texts("li")


def test_a_remainder_is_not_passed_over() -> None:
    report = diverging_report()
    assert report.attribution is not None
    left = report.model_copy(update={"attribution": report.attribution.model_copy(update={"remainder": 41})})
    assert any("41 spikes differ between all effects together and loihi" in text for text in page_without_charts(left).texts("p"))


@REPORTS
def test_next_steps_are_few_and_lead_to_places_on_the_page(report: Report) -> None:
    steps = guidance.next_steps(report)
    assert 1 <= len(steps) <= guidance.MOST_STEPS
    assert {step.anchor for step in steps} <= Page(html.render(report)).ids()


def test_next_steps_name_what_failed() -> None:
    failing = [f"{step.text} {step.code}" for step in guidance.next_steps(failing_report())]
    assert any("lif2" in step for step in failing)
    assert any("netx" in step and "build/netx/worker.log" in step for step in failing)
    assert not any("norse" in step for step in failing), "an optional backend is nobody's next step"
    passing = example_report()
    assert "2 things were not covered" in guidance.next_steps(passing)[0].text
    assert "Let CI watch it" in guidance.next_steps(passing.model_copy(update={"coverage": ()}))[0].text


def test_a_name_that_the_run_does_not_have_is_the_first_step() -> None:
    gate = Gate(
        name="lva is a rung or backend of this run", required="a rung or backend", measured="no such rung or backend",
        passed=False, exit_code=5, setting="gates.targets.lva.agree", detail="SNX530: demanded, but there is no lva",
    )  # fmt: skip
    report = failing_report()
    first = guidance.next_steps(report.model_copy(update={"gates": (*report.gates, gate)}))[0]
    assert first.text == "Correct a name in the settings (gates.targets.lva.agree): no such rung or backend."


def test_many_reasons_are_shown_in_part_and_the_rest_on_request() -> None:
    def listed(number: int) -> tuple[int, list[str]]:
        page = page_without_charts(failing_report().model_copy(update={"causes": tuple(f"cause {n}" for n in range(number))}))
        first = next(e for e in page.elements if e.attributes.get("class") == "causes")
        assert all(f"cause {n}" in page.texts("li") for n in range(number))
        return len(first.text.split("\n")) - 2, [text for text in page.texts("summary") if text.endswith(" more")]

    assert listed(6) == (6, [])
    assert listed(9) == (5, ["4 more"])


def test_a_backend_that_did_not_run_is_a_step_even_without_a_log() -> None:
    failing = failing_report()
    netx = failing.comparisons[2].model_copy(update={"log": None, "message": "biases do not fit"})
    report = failing.model_copy(update={"comparisons": (netx,), "coverage": ()})
    assert [(step.text, step.anchor) for step in guidance.next_steps(report)] == [
        ("Read what kept netx from running, and what it asks for.", "comparison-0")
    ]


def test_a_run_is_told_how_to_do_without_a_backend_that_cannot_hold_the_network() -> None:
    failing = failing_report()
    refused = failing.comparisons[2].model_copy(update={"log": None, "message": "SNX203 lif1 resets by 'subtract'"})
    twice = (refused, refused.model_copy(update={"reference": "student"}))
    report = failing.model_copy(update={"comparisons": twice, "coverage": (), "reproduce": ("snn-export run",)})
    steps = [step for step in guidance.next_steps(report) if "netx" in step.text]
    assert [(step.text.split(",")[0], step.code) for step in steps] == [
        ("Read what kept netx from running", ""),
        ("Or do without netx", "--set verify.backends.netx.required=false"),
    ]
    broken = report.model_copy(update={"comparisons": (refused.model_copy(update={"message": "SNX420 it hangs"}),)})
    named = report.model_copy(update={"reproduce": ("snn-export verify net.nir --target netx",)})
    for other in (broken, named):
        assert not any("do without" in step.text for step in guidance.next_steps(other))


def test_a_failed_gate_alone_has_a_next_step() -> None:
    gate = Gate(name="accuracy", required="at most 1 point", measured="4 points", passed=False, exit_code=1)
    report = example_report().model_copy(update={"passed": False, "exit_code": 1, "gates": (gate,), "coverage": ()})
    (step,) = guidance.next_steps(report)
    assert step.anchor == "gates"


def test_failed_gates_come_first_and_keep_their_numbers() -> None:
    good = example_report()
    gates = (*good.gates, good.gates[0].model_copy(update={"name": "late", "passed": False, "exit_code": 4}))
    page = page_without_charts(good.model_copy(update={"gates": gates}))
    assert page.texts("p", "gate-name")[0] == "late"
    assert dict(page.fields())["gates.4.exit_code"] == "4"


def test_what_holds_in_a_failed_report_is_folded_up() -> None:
    good, bad = example_report(), diverging_report()
    exact = bad.model_copy(update={"comparisons": (good.comparisons[1], *bad.comparisons), "gates": (*bad.gates, *good.gates)})
    summaries = page_without_charts(exact).texts("summary")
    assert summaries[:2] == ["What holds all the same: 1 of 5 comparisons are exact", "6 other gates did not fail"]
    assert not any("hold" in text or "gates" in text for text in page_without_charts(good).texts("summary"))


def test_many_comparisons_are_folded_up_but_for_those_that_failed() -> None:
    def opened(report: Report) -> list[bool]:
        elements = page_without_charts(report).elements
        return ["open" in e.attributes for e in elements if "comparison" in e.attributes.get("class", "").split()]

    assert opened(example_report()) == [True, True]
    assert opened(diverging_report()) == [False, False, True, True]


def test_a_difference_within_the_tolerance_is_not_painted_as_a_failure() -> None:
    report = diverging_report()
    raster = report.rasters[0]
    tones = {}
    for verdict in ("DRIFT", "WITHIN"):
        layers = tuple(layer.model_copy(update={"verdict": verdict}) for layer in report.comparisons[2].layers)
        changed = report.comparisons[2].model_copy(update={"layers": layers})
        page = Page(html.render(report.model_copy(update={"comparisons": (changed,), "rasters": (raster,)})))
        (badge,) = [e for e in page.elements if e.tag == "span" and e.text == "differs"]
        tones[verdict] = badge.attributes["class"]
    assert tones == {"DRIFT": "badge bad", "WITHIN": "badge neutral"}


def test_an_axis_of_counts_begins_at_nothing_and_ends_above_the_largest() -> None:
    for values in ([0], [1], [10], [11, None], [999_999]):
        axis = plots_inline.count_axis(values)
        places = [axis.at(value) for value in (0, 1, axis.high)]
        assert places == sorted(places)
        assert (places[0], places[-1]) == (0, 100)
        assert axis.high >= max(value for value in values if value is not None)
        assert axis.ticks()[-1][1] == 100


def test_bars_below_zero_lie_left_of_zero() -> None:
    axis = plots_inline.signed_axis([-10, 30])
    found = re.findall(r'class="(whole|alone)" x="([\d.]+)" y="\d+" width="([\d.]+)"', plots_inline.bar_pair(axis, -10, 30))
    assert found == [("whole", "0.0", "25.0"), ("alone", "25.0", "75.0")]


def large_report() -> Report:
    """40 layers with everything to tell, twelve rungs compared."""
    report = diverging_report()
    lava = report.comparisons[2]
    names = [f"block{index // 4}.conv{index % 4}.lif" for index in range(40)]
    layers = tuple(
        LayerComparison.model_validate({**lava.layers[1 + index % 2].model_dump(), "layer": name})
        for index, name in enumerate(names)
    )
    comparisons = tuple(
        lava.model_copy(update={"target": f"backend{index}", "layers": layers, "first_faulty_isolated": names[0]})
        for index in range(11)
    )
    spikes = tuple((step, row) for step in range(32) for row in range(0, 64, 2))
    raster = report.rasters[0].model_copy(update={"steps": 32, "neurons": tuple(range(64)), "both": spikes})
    rung = report.ladder[-1]
    assert isinstance(raster, Raster)
    return report.model_copy(
        update={
            "comparisons": comparisons,
            "ladder": (report.ladder[0], *(rung.model_copy(update={"name": f"backend{index}"}) for index in range(11))),
            "quantisation": tuple(report.quantisation[0].model_copy(update={"layer": name}) for name in names),
            "activity": tuple(report.activity[0].model_copy(update={"layer": name}) for name in names),
            "rasters": tuple(raster.model_copy(update={"layer": name}) for name in names),
        }
    )


def test_a_large_report_stays_a_small_file() -> None:
    assert len(html.render(large_report()).encode()) < 3_000_000
