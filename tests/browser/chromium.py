"""A real browser without a window, its own profile, and no way out of this machine."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
WINDOWS = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (390, 844)}


def missing() -> str:
    """Why there is no browser to test with; empty when there is one."""
    if not _program():
        return f"none of {', '.join(_BROWSERS)} is installed (Debian: apt-get install chromium)"
    return "" if shutil.which("chromedriver") else "no chromedriver (Debian: apt-get install chromium-driver)"


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in `profile`, and end it."""
    options = ChromeOptions()
    options.binary_location = _program() or ""
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _program() -> str | None:
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """What tests do with a page. Everything that they read is what the browser made of it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def show(self, path: Path, window: str = "desktop", scheme: str = "light", fragment: str = "") -> None:
        """Open a file in a window of this kind, for a user who likes it light or dark."""
        width, height = WINDOWS[window]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": window == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
        self.driver.get("about:blank")  # another fragment of the same page would not load it again
        self.complaints()
        self.requests()
        self.driver.get(path.as_uri() + fragment)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What was written to the console since the last time: errors, warnings, what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def pages_on_paper(self) -> int:
        """How many pages of A4 a printout has."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
        pdf = base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", paper)["data"])
        return len(re.findall(rb"/Type\s*/Page\b", pdf))

    def violations(self, axe: str) -> list[str]:
        """What axe-core finds wrong with the page, opened details included."""
        self.run(axe)
        self.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        self.driver.set_script_timeout(120)
        found: list[str] = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run().then((result) => done(result.violations.flatMap("
            "(one) => one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 200)}`))),"
            " (error) => done([String(error)]))"
        )
        return found

    def requests(self) -> list[str]:
        """Every address that was asked for since the last time."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
