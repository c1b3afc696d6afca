"""One browser for all tests of a module: starting it takes longer than any of them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'mellea-cli[dev]'")

from browser.chromium import Browser, browser, missing
from resultrows import make_page

Open = Callable[..., Path]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A running browser."""
    if why := missing():
        pytest.skip(why)
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


_AXE = "axe-core@4.14.1"
_AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core, which npm brings once; it checks pages for what keyboards and screen readers need."""
    folder = request.config.cache.mkdir("axe-core")
    script = folder / "node_modules/axe-core/axe.min.js"
    # Two processes of pytest-xdist may need it at the same time.
    with FileLock(folder / "lock"):
        if not script.exists():
            npm = shutil.which("npm")
            if npm is None:
                pytest.skip("npm is not installed, which brings axe-core (Debian: apt-get install npm)")
            options = ("--no-save", "--no-package-lock", "--ignore-scripts", "--silent")
            subprocess.run([npm, "install", "--prefix", str(folder), *options, _AXE], check=True, timeout=180)
    source = script.read_bytes()
    assert hashlib.sha256(source).hexdigest() == _AXE_SHA256
    return source.decode()


@pytest.fixture
def show(page: Browser, tmp_path: Path) -> Open:
    """Make the report page of these rows and open it; returns its file."""

    def make(rows: list[dict[str, Any]], *, window: str = "desktop", scheme: str = "light", **wishes: Any) -> Path:
        path = tmp_path / "report.html"
        path.write_text(make_page(tmp_path, rows, **wishes), encoding="utf-8")
        page.show(path, window, scheme)
        return path

    return make
