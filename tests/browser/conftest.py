"""One browser for all tests of a module: starting it takes longer than any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def show(page: Browser, tmp_path: Path) -> Open:
    """Make the report page of these rows and open it; returns its file."""

    def make(rows: list[dict[str, Any]], *, window: str = "desktop", scheme: str = "light", **wishes: Any) -> Path:
        path = tmp_path / "report.html"
        path.write_text(make_page(tmp_path, rows, **wishes), encoding="utf-8")
        page.show(path, window, scheme)
        return path

    return make
