"""Takes the screenshots of the HTML report that the documentation shows.

    python benchmarks/screenshots.py [--report snn-export-out/report/report.json]

It renders the example report in which two backends diverge (tests/report_examples.py), opens it in headless Chromium at 1400
and 390 pixels, light and dark, and writes docs/screenshots/report-WIDTH-SCHEME.png; of a report that is named, its energy page
as well. Needs Chromium and its driver: sudo apt-get install -y chromium chromium-driver
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))  # browser and example are those of the tests

from snn_export.reporting import html  # noqa: E402
from snn_export.reporting.json_file import read_report  # noqa: E402
from snn_export.reporting.report import Report  # noqa: E402
from tests.chromium import INSTALL, Chromium, browser_path, chromium, driver_path  # noqa: E402
from tests.report_examples import diverging_report  # noqa: E402
from tests.toolchain.test_energy_page import report as placed_report  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
WINDOWS = ((1400, 1000), (390, 844))
SCHEMES = ("light", "dark")
COLOURS = 256
ENERGY = (
    ("energy", 1400, 1000, "light", "h1"),
    ("energy", 390, 844, "dark", "[aria-labelledby*=energy-curve]"),
)
"""Of the energy page: name, width and height of the window, its colours, and the part that stands at its top."""
PLACEMENT = ("placement", 1400, 1000, "light", "#placement")
LAYERS = {1400: 760, 390: 844}
"""Height of the picture of one comparison."""


def main() -> int:
    """Write all screenshots; 0 if that worked."""
    parser = argparse.ArgumentParser(description="Screenshots of the documentation.")
    parser.add_argument("--report", type=Path, help="of a finished run, for those of the energy page")
    options = parser.parse_args()
    if browser_path() is None or driver_path() is None:
        print(f"no Chromium or no driver found: {INSTALL}", file=sys.stderr)
        return 4
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = Path(folder) / "report.html"
        html.write_html(diverging_report(), page)
        for width, height in WINDOWS:
            for scheme in SCHEMES:
                browser.show(page, width, height, scheme=scheme)
                save(browser, FOLDER / f"report-{width}-{scheme}.png")
            browser.show(page, width, LAYERS[width])
            browser.ask("document.querySelector('#comparison-2').scrollIntoView()")
            save(browser, FOLDER / f"layers-{width}-light.png")
        show_part(browser, placed_report(), Path(folder), *PLACEMENT)
        if options.report is not None:
            for part in ENERGY:
                show_part(browser, read_report(options.report), Path(folder), *part)
    return 0


def show_part(browser: Chromium, report: Report, folder: Path, name: str, width: int, height: int, scheme: str, top: str) -> None:
    """One part of a report's energy page."""
    page = folder / "energy.html"
    page.write_text(html.render_energy(report), encoding="utf-8")
    browser.show(page, width, height, scheme=scheme)
    browser.ask(f"document.querySelector('{top}').scrollIntoView()")
    save(browser, FOLDER / f"{name}-{width}-{scheme}.png")


def save(browser: Chromium, path: Path) -> None:
    """The window as a PNG of few colours, which is enough for a page of text and flat drawings."""
    browser.picture(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    sys.exit(main())
