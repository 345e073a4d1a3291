from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from snn_export.reporting import html
from snn_export.reporting.report import Report
from tests.chromium import Chromium, chromium, require_chromium
from tests.report_examples import diverging_report, example_report, failing_report

pytestmark = pytest.mark.browser

REPORTS = {"passing": example_report(), "failing": failing_report(), "diverging": diverging_report()}
EVERY_REPORT = pytest.mark.parametrize("name", list(REPORTS))
BOTH_WIDTHS = pytest.mark.parametrize("width", [1400, 390])
BOTH_SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
A4_WITHIN_MARGINS = 703
"""CSS pixels: 210 mm less 12 mm on both sides."""
LEAST_CONTRAST = 4.5
"""WCAG 2.2, level AA, text of any size."""

OPEN_ALL = "document.querySelectorAll('details').forEach(item => item.open = true)"

BEYOND_THE_EDGE = """
const edge = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')]
  .filter(item => item.getBoundingClientRect().right > edge + 1 && !item.closest('.scroll, nav, pre, .skip'))
  .map(item => `${item.tagName} ${item.textContent.trim().slice(0, 40)}`);
"""

LOW_CONTRAST = """
const least = arguments[0];
const parts = text => {
  const found = text.match(/^rgba?\\(([^)]+)\\)$/);
  if (!found) throw new Error(`no colour: ${text}`);
  const numbers = found[1].split(/[ ,/]+/).map(Number);
  return numbers.length === 4 ? numbers : [...numbers, 1];
};
const over = (top, ground) => [0, 1, 2].map(i => top[i] * top[3] + ground[i] * (1 - top[3]));
const light = colour => {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const groundOf = item => {
  const layers = [];
  for (let node = item; node; node = node.parentElement) {
    const colour = parts(getComputedStyle(node).backgroundColor);
    if (colour[3] > 0) layers.push(colour);
    if (colour[3] === 1) break;
  }
  return layers.reverse().reduce((ground, colour) => over(colour, ground), [255, 255, 255]);
};
const opacityOf = item => item ? Number(getComputedStyle(item).opacity) * opacityOf(item.parentElement) : 1;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const told = [];
let checked = 0;
while (walker.nextNode()) {
  const item = walker.currentNode.parentElement;
  const box = item.getBoundingClientRect();
  if (!walker.currentNode.textContent.trim() || !box.width || item.closest('title')) continue;
  const style = getComputedStyle(item);
  const colour = parts(item instanceof SVGElement ? style.fill : style.color);
  const ground = groundOf(item);
  const ink = over([...colour.slice(0, 3), colour[3] * opacityOf(item)], ground);
  const [a, b] = [light(ink), light(ground)];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  checked += 1;
  if (contrast < least) told.push(`${contrast.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
}
return [checked, told];
"""

LABELS_IN_TROUBLE = """
const told = [];
for (const drawing of document.querySelectorAll('svg, .axis, .count-axis')) {
  const frame = drawing.getBoundingClientRect();
  const labels = [...drawing.querySelectorAll('text, span')].map(item => [item.textContent.trim(), item.getBoundingClientRect()]);
  for (const [index, [text, box]] of labels.entries()) {
    if (!text || !box.width) continue;
    if (box.left < frame.left - 1 || box.right > frame.right + 1) told.push(`${text} is cut off`);
    for (const [other, place] of labels.slice(index + 1)) {
      const wide = Math.min(box.right, place.right) - Math.max(box.left, place.left);
      const high = Math.min(box.bottom, place.bottom) - Math.max(box.top, place.top);
      if (wide > 1 && high > 3) told.push(`${text} lies on ${other}`);
    }
  }
}
return told;
"""

STOPS = """
return [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
  .filter(item => item.checkVisibility({contentVisibilityAuto: true}))
  .map((item, index) => { item.dataset.stop = index; return index; }).length;
"""

FOCUSED = """
const item = document.activeElement;
if (!item || item === document.body) return null;
const style = getComputedStyle(item), box = item.getBoundingClientRect();
const bar = document.querySelector('nav.contents').getBoundingClientRect();
return {
  stop: Number(item.dataset.stop),
  outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  covered: !item.closest('nav') && bar.top <= 0 && box.bottom <= bar.bottom,
  text: item.textContent.trim().slice(0, 40),
};
"""

UNREACHABLE_SCROLLERS = """
return [...document.querySelectorAll('body *')]
  .filter(item => /auto|scroll/.test(getComputedStyle(item).overflowX) && item.scrollWidth > item.clientWidth + 1)
  .filter(item => !item.querySelector('a[href]') && !(item.tabIndex === 0 && item.getAttribute('role') === 'region'
    && item.getAttribute('aria-label')))
  .map(item => `${item.tagName}.${item.className}`);
"""

FOLDED_UP = """
return [...document.querySelectorAll('details > *:not(summary)')].filter(item => !item.checkVisibility()).length;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    require_chromium()
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, report in REPORTS.items():
        html.write_html(report, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in REPORTS}


def changed(page: Path, tmp_path: Path, before: str, after: str) -> Path:
    """The page with a fault in it: every check here has to find one."""
    text = page.read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "changed.html").write_text(text.replace(before, after, 1), encoding="utf-8")
    return tmp_path / "changed.html"


@EVERY_REPORT
@BOTH_WIDTHS
@BOTH_SCHEMES
def test_it_opens_without_a_complaint_or_a_request_and_no_wider_than_its_window(
    name: str, width: int, scheme: str, browser: Chromium, pages: dict[str, Path]
) -> None:
    browser.show(pages[name], width, scheme=scheme)
    browser.ask(OPEN_ALL)
    assert browser.ask("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert browser.ask(BEYOND_THE_EDGE) == []
    dark = browser.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark is (scheme == "dark")
    assert browser.complaints() == []
    assert browser.requests() == []


def test_a_complaint_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.show(changed(pages["passing"], tmp_path, "</main>", "<script>1</script></main>"), 1400)
    assert any("Content Security Policy" in line for line in browser.complaints())


def test_a_request_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    open_to_all = changed(pages["passing"], tmp_path, "img-src data:", "img-src *")
    picture = '<img src="http://pictures.example/a.png"></main>'
    open_to_all.write_text(open_to_all.read_text(encoding="utf-8").replace("</main>", picture, 1), encoding="utf-8")
    browser.show(open_to_all, 1400)
    assert browser.requests() == ["http://pictures.example/a.png"]


def test_the_policy_of_the_page_keeps_a_request_in(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    picture = '<img src="http://pictures.example/a.png"></main>'
    browser.show(changed(pages["passing"], tmp_path, "</main>", picture), 1400)
    assert any("Content Security Policy" in line for line in browser.complaints())


def test_something_too_wide_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    wide = '<p style="width:500px;max-width:none">wide</p></main>'
    browser.show(changed(pages["passing"], tmp_path, "</main>", wide), 390)
    assert browser.ask(BEYOND_THE_EDGE) == ["P wide"]
    assert browser.ask("return document.documentElement.scrollWidth") > 390


@EVERY_REPORT
@BOTH_SCHEMES
def test_text_stands_out_from_its_ground(name: str, scheme: str, browser: Chromium, pages: dict[str, Path]) -> None:
    browser.show(pages[name], 1400, scheme=scheme)
    browser.ask(OPEN_ALL)
    checked, faint = browser.ask(LOW_CONTRAST, LEAST_CONTRAST)
    assert checked > 300
    assert faint == []


def test_faint_text_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    faint = '<p style="color:#777;background:#fafafa">faint</p><p style="opacity:.5">thin</p></main>'
    browser.show(changed(pages["passing"], tmp_path, "</main>", faint), 1400)
    assert [text.partition(": ")[2] for text in browser.ask(LOW_CONTRAST, LEAST_CONTRAST)[1]] == ["faint", "thin"]


@EVERY_REPORT
@BOTH_WIDTHS
def test_labels_of_drawings_neither_overlap_nor_are_cut_off(
    name: str, width: int, browser: Chromium, pages: dict[str, Path]
) -> None:
    browser.show(pages[name], width)
    browser.ask(OPEN_ALL)
    assert browser.ask(LABELS_IN_TROUBLE) == []


def test_labels_in_trouble_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    text = '<text x="{}" y="20">label</text>'
    drawing = f'<svg width="100" height="40">{text.format(10)}{text.format(20)}{text.format(90)}</svg></main>'
    browser.show(changed(pages["passing"], tmp_path, "</main>", drawing), 1400)
    assert browser.ask(LABELS_IN_TROUBLE) == ["label lies on label", "label is cut off"]


def walk(browser: Chromium, most: int) -> list[dict[str, Any]]:
    """What Tab reaches from the top of the page, in order, until it leaves the page or begins again."""
    visited: list[dict[str, Any]] = []
    for _ in range(most):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        found = browser.ask(FOCUSED)
        if found is None or any(item["stop"] == found["stop"] for item in visited):
            break
        visited.append(found)
    return visited


@BOTH_WIDTHS
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
    width: int, browser: Chromium, pages: dict[str, Path]
) -> None:
    browser.show(pages["diverging"], width, 1000)
    stops = browser.ask(STOPS)
    visited = walk(browser, stops + 5)
    assert [item["stop"] for item in visited] == list(range(stops))
    assert [item["text"] for item in visited if not item["outlined"]] == []
    assert [item["text"] for item in visited if not item["seen"] or item["covered"]] == []
    assert visited[0]["text"] == "Skip to the report"
    assert browser.ask(UNREACHABLE_SCROLLERS) == []


def test_a_region_the_keyboard_cannot_reach_would_be_seen(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    region = '<div style="overflow-x:auto"><p style="width:2000px;max-width:none">wide</p></div></main>'
    browser.show(changed(pages["passing"], tmp_path, "</main>", region), 1400)
    assert browser.ask(UNREACHABLE_SCROLLERS) == ["DIV."]


def test_the_skip_link_passes_the_header(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.show(pages["diverging"], 1400)
    body = browser.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.driver.current_url.endswith("#main")
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.ask("return document.activeElement.closest('main') !== null")


def test_a_step_leads_to_its_comparison_and_the_comparison_opens(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.show(pages["diverging"], 1400)
    browser.driver.find_element(By.CSS_SELECTOR, ".steps a").click()
    top = browser.ask("return document.querySelector('#comparison-2').getBoundingClientRect().top")
    bar = browser.ask("return document.querySelector('nav.contents').getBoundingClientRect().bottom")
    assert bar <= top < 300


@EVERY_REPORT
def test_in_print_everything_is_open_light_and_within_the_paper(
    name: str, browser: Chromium, pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.show(pages[name], A4_WITHIN_MARGINS, scheme="dark", medium="print")
    assert browser.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("return getComputedStyle(document.querySelector('nav.contents')).display") == "none"
    assert browser.ask("return document.documentElement.scrollWidth") <= A4_WITHIN_MARGINS
    assert browser.ask(FOLDED_UP) == 0
    assert browser.ask(LOW_CONTRAST, LEAST_CONTRAST)[1] == []
    browser.print_to(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") >= 4


def test_first_screen_tells_verdict_reasons_and_next_step(browser: Chromium, pages: dict[str, Path]) -> None:
    for width, height in ((1400, 900), (390, 844)):
        browser.show(pages["diverging"], width, height)
        for selector in ("h1", ".causes li:last-child", ".steps li"):
            bottom = browser.ask("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
            assert bottom <= height, (width, selector)


def test_names_of_any_length_stay_within_a_phone(browser: Chromium, tmp_path: Path) -> None:
    report: Report = REPORTS["diverging"]
    name = "backbone.stages.3.blocks.11.convolution_with_a_long_name.spiking_neurons"
    comparison = report.comparisons[2]
    layers = tuple(layer.model_copy(update={"layer": f"{name}.{index}"}) for index, layer in enumerate(comparison.layers))
    long = comparison.model_copy(update={"layers": layers, "first_faulty_isolated": f"{name}.1", "target": name})
    html.write_html(report.model_copy(update={"network": name, "comparisons": (long,)}), tmp_path / "long.html")
    browser.show(tmp_path / "long.html", 390)
    assert browser.ask("return document.documentElement.scrollWidth") == 390
    assert browser.ask(BEYOND_THE_EDGE) == []
