from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from markdown_it import MarkdownIt

from snn_export.reporting import markdown, wording
from snn_export.reporting.formatting import text_of
from snn_export.reporting.report import Report
from tests.golden import check_golden
from tests.report_examples import diverging_report, example_report, failing_report
from tests.toolchain import test_energy_page as energy_page

REPORTS = {"passing": example_report(), "failing": failing_report(), "diverging": diverging_report()}
HOSTILE = (
    "a | b", "`code`", "```\nfence", "<b>x</b>", "</details>", "<!-- x", "x\n\n# heading", "- item", "1. item", "---", "+ x",
    "# x",
    "[text](https://example.org)", "![i](https://example.org/x.png)", "<https://example.org>", "*a* _b_ **c** __d__ ~~e~~",
    "a\\", "\\| x", "&lt;b&gt;", "@owner/team", "#12", "owner/name#12", "https://example.org", "www.example.org", "x@example.org",
    "$x$", "\x1b[31m\x00", "\u202eabc", "> quote", "[^1]", "| a | b |\n| - | - |", "<script>alert(1)</script>", "=",
)  # fmt: skip
BLOCKS = ("heading_open", "table_open", "tr_open", "td_open", "list_item_open", "fence", "html_block", "html_inline", "link_open",
          "image", "code_inline", "em_open", "s_open", "hr", "blockquote_open", "strong_open", "code_block")  # fmt: skip


def parsed(text: str) -> tuple[Counter[str], str]:
    """How many of each element a reader would show, and all text of it."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    every = [token for block in tokens for token in (block, *(block.children or ()))]
    counted = Counter(token.type for token in every if token.type in BLOCKS)
    return counted, " ".join(token.content for token in every if token.type in ("text", "text_special", "fence"))


def named(name: str) -> Report:
    """A report in which every text that comes from outside is ``name``."""
    report = failing_report()
    comparison = report.comparisons[1]
    layers = tuple(layer.model_copy(update={"layer": f"{name}{index}"}) for index, layer in enumerate(comparison.layers))
    texts = {"reference": name, "target": name, "first_faulty_layer": f"{name}1", "first_faulty_isolated": f"{name}1"}
    empty = {"layers": (), "message": name, "log": name, "target": name}
    return report.model_copy(
        update={
            "network": name, "dataset": name, "target": name, "reference": name, "causes": (name,), "reproduce": (name,),
            "gates": tuple(
                gate.model_copy(update={"name": name, "required": name, "measured": name, "detail": name})
                for gate in report.gates
            ),
            "coverage": tuple(item.model_copy(update={"what": name, "why": name, "fix": name}) for item in report.coverage),
            "ladder": tuple(
                rung.model_copy(update={"name": name, "backend": name, "compared_with": name}) for rung in report.ladder
            ),
            "comparisons": (
                comparison.model_copy(update={**texts, "layers": layers}), report.comparisons[2].model_copy(update=empty)
            ),
            "attribution": diverging_report().attribution.model_copy(  # type: ignore[union-attr]
                update={"reference": name, "target": name, "sentence": name, "fix": name, "layer": name}
            ),
            "versions": {name: name},
        }
    )  # fmt: skip


@cache
def benign() -> Counter[str]:
    return parsed(markdown.render(named("name")))[0]


@pytest.mark.parametrize("name", REPORTS)
def test_golden(name: str) -> None:
    check_golden(f"{name}.md", markdown.render(REPORTS[name]))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_a_report_breaks_out_of_its_place(name: str) -> None:
    found, _ = parsed(markdown.render(named(name)))
    assert found == benign()


@pytest.mark.parametrize("name", HOSTILE)
def test_nobody_is_called_and_nothing_is_linked(name: str) -> None:
    text = markdown.render(named(name)).split("<details>")[0]
    assert not re.search(r"@\w|(?<!&)#\d|https?://|www\.\w", text)


@pytest.mark.parametrize("name", ["a | b", "<b>x</b>", "*a* __b__", "`x`", "a\\b", "lif_1", "3.5 points", "-0.5"])
def test_a_name_reads_as_it_is_written(name: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(f"| head |\n| --- |\n| {markdown.inline(name)} |\n")
    shown = re.search(r"<td>(.*?)</td>", html)
    assert shown is not None
    plain = shown[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == name


def test_the_numbers_are_those_of_the_report() -> None:
    report = diverging_report()
    _, text = parsed(markdown.render(report))
    for index, rung in enumerate(report.ladder):
        assert rung.name in text
        assert text_of(report, f"ladder.{index}.accuracy") in text
    for index, comparison in enumerate(report.comparisons):
        for number, layer in enumerate(comparison.layers):
            shown = text_of(report, f"comparisons.{index}.layers.{number}.mismatched_spikes")
            assert (shown in text) or layer.verdict == "EXACT"
    assert report.attribution is not None
    assert report.attribution.sentence in text
    assert (
        "First layer at fault by itself: lif2 (lava's run leaves the contract, 12 spikes in the first 5 samples that differ)"
        in text
    )
    assert "lif1: spikes agree best 1 step later than the declared latency of 0" in text
    assert "McNemar p 0.625" in text


def test_a_long_text_is_cut_and_counted() -> None:
    shown = markdown.inline("x" * 10_000)
    assert len(shown) < 700
    assert "9\u202f400 more characters" in shown


@cache
def large_text() -> str:
    report = diverging_report()
    comparison = report.comparisons[2]
    many = tuple(comparison.layers[1].model_copy(update={"layer": f"lif{index}"}) for index in range(900))
    return markdown.render(report.model_copy(update={"comparisons": (comparison.model_copy(update={"layers": many}),)}))


@pytest.mark.parametrize("limit", [1_000, 1_500, 4_000, 6_789, 20_000, 100_000])
def test_a_summary_is_cut_at_the_end_of_a_line_and_says_so(limit: int) -> None:
    whole = large_text()
    text = markdown.within(whole, limit, "out/report/report.html")
    assert len(text.encode()) <= limit
    *kept, blank, told = text.splitlines()
    assert (kept, blank) == (whole.splitlines()[: len(kept)], "")
    missing = len(whole.splitlines()) - len(kept)
    assert f"{missing:,}".replace(",", "\u202f") in told
    assert "out/report/report.html" in told


def test_a_cut_closes_what_it_fell_into() -> None:
    whole = markdown.render(
        example_report().model_copy(update={"reproduce": tuple(f"step {n} ``` </details>" for n in range(900))})
    )
    text = markdown.within(whole, 15_000, "elsewhere")
    found, shown = parsed(text)
    assert (found["fence"], "Cut short" in shown) == (1, True)
    assert text.count("\n````") == 2
    assert text.splitlines().count("</details>") == 1
    assert text.index("\n</details>\n") < text.index("Cut short")


def test_what_fits_is_left_as_it_is_and_no_room_is_an_error() -> None:
    text = markdown.render(example_report())
    assert markdown.within(text, len(text.encode()), "x") == text
    with pytest.raises(ValueError, match="999"):
        markdown.within(text, 999, "x")


def test_a_report_with_nothing_in_it_still_renders() -> None:
    nothing = {"gates": (), "ladder": (), "comparisons": (), "coverage": (), "energy": None, "reproduce": (), "versions": {}}
    text = markdown.render(example_report().model_copy(update=nothing))
    assert "Nothing was left out" in text


def test_energy_and_placement_have_a_short_section() -> None:
    report = energy_page.report()
    text = markdown.render(report)
    section = text[text.index("Energy per inference: ") : text.index("### Not covered")]
    assert f"- {markdown.inline(report.energy.verdict[0])}\n" in section
    fairest = [item for item in report.energy.comparisons if item.precision == "INT8" and item.memory]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(fairest) > 2
    assert all(f"| {markdown.inline(item.other)} |" in row for row, item in zip(rows, fairest, strict=True))
    assert f"Placement: {markdown.inline(wording.placement_sentence(report.placement))}" in section
    assert len(section) < 4_000
    assert len(markdown.within(text, 20_000, "x").encode()) <= 20_000
