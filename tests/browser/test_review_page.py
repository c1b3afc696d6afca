"""The review page in a real browser: keys, what it saves, a reload, and nothing that gets out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from browser.chromium import Browser
from mellea_cli.io.corrections import Correction, read_lines
from mellea_cli.report.agreement import ReviewField, ReviewRow
from mellea_cli.report.html_report import review_page
from mellea_cli.report.results import Record
from resultrows import NASTY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FIELDS = (
    ReviewField("sentiment", "label", ("positive", "negative", "mixed")),
    ReviewField("main_complaint", "text"),
    ReviewField("tags", "categories", ("price", "staff", "room")),
    ReviewField("refund", "bool", ("true", "false")),
)


def _row(number: int) -> ReviewRow:
    text = f"Case {number}: the room was loud. {NASTY if number == 2 else ''}"
    own = {"tags": ["room"], "refund": False}
    record = Record(number, str(number), text, "answered", "S.", "negative", "low", "loud room", own=own)
    return ReviewRow(record, "random" if number < 3 else "doubtful", 7 if number < 3 else None, 0.41)


@pytest.fixture
def opened(page: Browser, tmp_path: Path) -> Browser:
    """The page of three rows."""
    rows = [_row(number) for number in (1, 2, 3)]
    path = tmp_path / "review.html"
    pieces = review_page(rows, FIELDS, [{}, {}, {}], who="eva", target="out.jsonl.corrections.jsonl")
    path.write_text("".join(pieces), encoding="utf-8")
    page.driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.show(path)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", ["phone", "tablet", "desktop"])
def test_axe_finds_nothing_wrong(opened: Browser, tmp_path: Path, axe: str, window: str, scheme: str) -> None:
    """At three widths, light and dark; nothing is wider than the window."""
    opened.show(tmp_path / "review.html", window, scheme)
    assert opened.run("return document.documentElement.scrollWidth <= innerWidth")
    assert opened.violations(axe) == []


def _press(page: Browser, *keys: str) -> None:
    for key in keys:
        page.driver.switch_to.active_element.send_keys(key)


def _place(page: Browser) -> str:
    return str(page.run("return document.getElementById('place').textContent"))


def _saved(page: Browser, folder: Path) -> list[Correction]:
    path = folder / "out.jsonl.corrections.jsonl"
    path.unlink(missing_ok=True)
    page.driver.find_element(By.ID, "save").click()
    WebDriverWait(page.driver, 60, poll_frequency=0.05).until(lambda _: path.exists() and path.stat().st_size)
    return read_lines(path)


def test_rows_are_judged_by_keys(opened: Browser, tmp_path: Path) -> None:
    """A label, a list, a yes or no, a text; the file is one that the command can add."""
    _press(opened, "3", Keys.ARROW_DOWN, "e")
    _press(opened, " and damp", Keys.ENTER)
    _press(opened, Keys.ARROW_DOWN, "2", Keys.ARROW_DOWN, "1", Keys.ENTER)
    assert _place(opened) == "Row 2 of 3, 1 judged, not saved"
    _press(opened, "s", Keys.ENTER)
    assert _place(opened) == "2 judged, not saved"
    found = _saved(opened, tmp_path)
    assert {one.field: one.person for one in found if one.item == "1"} == {
        "sentiment": "mixed",
        "main_complaint": "loud room and damp",
        "tags": ["staff", "room"],
        "refund": True,
    }
    assert [one.item for one in found] == ["1"] * 4 + ["3"] * 4
    assert {(one.item, one.sample, one.seed) for one in found} == {("1", "random", 7), ("3", "doubtful", None)}
    assert {one.who for one in found} == {"eva"}
    assert _place(opened) == "2 judged"


def test_undo_and_a_reload(opened: Browser, tmp_path: Path) -> None:
    """A key is taken back; what was judged is there after a reload."""
    _press(opened, "1", "u", Keys.ENTER)
    opened.driver.refresh()
    with suppress(NoAlertPresentException):  # not every browser asks
        opened.driver.switch_to.alert.accept()
    assert _place(opened).startswith("Row 2 of 3, 1 judged")
    _press(opened, "u")
    assert {one.field: one.person for one in _saved(opened, tmp_path)}["sentiment"] == "negative"


def test_nothing_gets_out_and_nothing_runs(opened: Browser) -> None:
    """Feedback is text, the policy has nothing to complain about, and no request leaves."""
    _press(opened, Keys.ENTER)
    assert opened.run("return window.hit") is None
    assert opened.run("return document.getElementById('text').textContent").startswith("Case 2: the room was loud.")
    assert opened.complaints() == []
    assert [url for url in opened.requests() if not url.startswith(("file:", "blob:"))] == []


def test_a_screen_reader_finds_its_way(opened: Browser) -> None:
    """Each button says whether it is chosen, each text has a name, and the place is announced."""
    pressed = "[...document.querySelectorAll('fieldset')[0].querySelectorAll('button')].map(b => b.ariaPressed)"
    assert opened.run(f"return {pressed}") == ["false", "true", "false"]
    assert opened.run("return document.querySelector('input').getAttribute('aria-label')") == "main_complaint"
    assert opened.run("return document.getElementById('place').getAttribute('aria-live')") == "polite"
    marks = "[...document.querySelectorAll('#text mark')].map(one => one.textContent + '/' + one.className)"
    assert opened.run(f"return {marks}") == ["room/complaint", "loud/complaint"]
    assert opened.run("return document.activeElement.id") in ("", "item")
