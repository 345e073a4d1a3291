"""Takes the screenshots of the HTML report that the documentation shows.

    python benchmarks/screenshots.py

It renders the example report in which two backends diverge (tests/report_examples.py), opens it in headless Chromium at 1400
and 390 pixels, light and dark, and writes docs/screenshots/report-WIDTH-SCHEME.png. Needs Chromium and its driver:
sudo apt-get install -y chromium chromium-driver
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))  # browser and example are those of the tests

from snn_export.reporting import html  # noqa: E402
from tests.chromium import INSTALL, Chromium, browser_path, chromium, driver_path  # noqa: E402
from tests.report_examples import diverging_report  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
WINDOWS = ((1400, 1000), (390, 844))
SCHEMES = ("light", "dark")
COLOURS = 256
LAYERS = {1400: 760, 390: 844}
"""Height of the picture of one comparison."""


def main() -> int:
    """Write all screenshots; 0 if that worked."""
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
    return 0


def save(browser: Chromium, path: Path) -> None:
    """The window as a PNG of few colours, which is enough for a page of text and flat drawings."""
    browser.picture(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    sys.exit(main())
