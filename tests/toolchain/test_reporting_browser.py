from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from snn_export.reporting import html
from tests.report_examples import example_report, failing_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
BROWSERS_OWN = {"accounts.google.com", "clients2.google.com", "update.googleapis.com"}
"""Hosts that Chromium itself asks on every start, whatever page it shows (no name is resolved here)."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: sudo apt-get install -y chromium"),
]


def chromium(folder: Path, *arguments: str, page: Path) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=folder)


def pixels(path: Path) -> tuple[int, int, list[bytes]]:
    """Width, height and a sample of the unfiltered scan lines of a PNG; enough to tell light from dark and blank from drawn."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    chunks, offset = b"", 8
    while offset < len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        if data[offset + 4 : offset + 8] == b"IDAT":
            chunks += data[offset + 8 : offset + 8 + length]
        offset += 12 + length
    raw = zlib.decompress(chunks)
    stride = len(raw) // height
    return width, height, [raw[row * stride : (row + 1) * stride] for row in range(height)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 500])
def test_the_page_opens_without_an_error(scheme: str, width: int, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    html.write_html(failing_report(), page)
    shot = tmp_path / "shot.png"
    settings = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    done = chromium(
        tmp_path, settings, f"--window-size={width},1600", f"--screenshot={shot}", "--enable-logging=stderr", "--v=0", page=page
    )
    assert "CONSOLE" not in done.stderr
    assert pixels(shot)[:2] == (width, 1600)
    assert shot.stat().st_size > 20_000
    first = pixels(shot)[2][0]
    corner = first[1:4]
    assert (max(corner) < 60) is (scheme == "dark")


def test_the_log_shows_a_console_error_where_there_is_one(tmp_path: Path) -> None:
    """The test above would be worth nothing if Chromium said nothing."""
    page = tmp_path / "report.html"
    html.write_html(example_report(), page)
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", "<script>1</script></main>"), encoding="utf-8")
    done = chromium(tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--enable-logging=stderr", "--v=0", page=page)
    assert "CONSOLE" in done.stderr
    assert "Content Security Policy" in done.stderr


def hosts_asked(folder: Path, page: Path) -> set[str]:
    log = folder / "net.json"
    chromium(folder, f"--log-net-log={log}", f"--screenshot={folder / 'shot.png'}", page=page)
    addresses = re.findall(r'"url":"([^"]+)"', log.read_text(encoding="utf-8", errors="replace"))
    return {urlsplit(address).hostname or "" for address in addresses if address.startswith("http")} - BROWSERS_OWN


def test_no_request_leaves_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    html.write_html(failing_report(), page)
    assert hosts_asked(tmp_path, page) == set()


def test_the_net_log_shows_a_request_where_there_is_one(tmp_path: Path) -> None:
    page = tmp_path / "other.html"
    page.write_text('<!DOCTYPE html><img src="http://pictures.example/a.png">', encoding="utf-8")
    assert hosts_asked(tmp_path, page) == {"pictures.example"}


def test_the_page_is_not_wider_than_a_phone(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    html.write_html(failing_report(), report)
    frame = tmp_path / "phone.html"
    frame.write_text(
        '<!DOCTYPE html><body><iframe src="report.html" width="390" height="800"></iframe><script>'
        "onload = () => { const page = document.querySelector('iframe').contentDocument.documentElement;"
        "document.title = `${page.scrollWidth} of ${page.clientWidth}`; }</script></body>",
        encoding="utf-8",
    )
    done = chromium(tmp_path, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", page=frame)
    found = re.search(r"<title>(\d+) of (\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= 390
