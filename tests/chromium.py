"""Headless Chromium for the tests of the HTML report and for its screenshots: one browser, any width, scheme and medium.

Browser and driver are those of the system, found on the path: nothing is downloaded. Where one of them is missing, tests skip
with the command that installs both, or fail under ``SNN_EXPORT_REQUIRE_BROWSER=1``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

INSTALL: Final = "sudo apt-get install -y chromium chromium-driver"
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
_PAGE_OF_ITS_OWN: Final = ("file:", "data:", "about:", "chrome:", "devtools:")


def require_chromium() -> None:
    """Skip, or fail under ``SNN_EXPORT_REQUIRE_BROWSER=1``, where Chromium or its driver is missing."""
    missing = [name for name, path in (("Chromium", browser_path()), ("chromedriver", driver_path())) if path is None]
    if not missing:
        return
    message = f"no {' and no '.join(missing)} found: {INSTALL}"
    if os.environ.get("SNN_EXPORT_REQUIRE_BROWSER") == "1":
        pytest.fail(message)
    pytest.skip(message)


def browser_path() -> str | None:
    """Chromium, or a browser of its kind."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def driver_path() -> str | None:
    """The program that steers it."""
    return shutil.which("chromedriver")


class Chromium:
    """One running browser. ``show`` opens a page; everything else asks about the page that is open."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def show(self, page: Path, width: int, height: int = 900, *, scheme: str = "light", medium: str = "") -> None:
        """Open ``page`` in a window of ``width`` x ``height`` CSS pixels; forget what earlier pages asked for."""
        self.driver.get("about:blank")
        self.requests()
        self.complaints()
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=medium, features=features)
        self.driver.get(page.as_uri())

    def command(self, name: str, **arguments: object) -> Any:
        """A command of Chromium's own protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def ask(self, script: str, *arguments: object) -> Any:
        """What a script answers that runs beside the page: not in it, where the page allows none."""
        return self.driver.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """Addresses the page asked for beyond its own file, since the last call."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        own = self.driver.current_url.partition("#")[0]
        return [address for address in asked if address != own and not address.startswith(_PAGE_OF_ITS_OWN)]

    def complaints(self) -> list[str]:
        """Lines of the console, since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """The window, or the whole page, as PNG."""
        size = self.ask("return [innerWidth, document.documentElement.scrollHeight]") if whole else None
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1} if size else None
        arguments = {"captureBeyondViewport": True, "clip": clip} if clip else {}
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png", **arguments)["data"]))

    def print_to(self, path: Path) -> None:
        """The page as PDF, A4, without backgrounds unless the page insists on them."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        path.write_bytes(base64.b64decode(self.command("Page.printToPDF", **paper)["data"]))


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser of its own, closed at the end."""
    options = Options()
    options.binary_location = str(browser_path())
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(driver_path())))
    try:
        yield Chromium(driver)
    finally:
        driver.quit()
