"""Pages that people share: what axe-core finds, their width, their printout, and what is not in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from browser.chromium import Browser
from mellea_cli.report.comparison import compare
from mellea_cli.report.html_report import comparison_to_html
from mellea_cli.report.results import open_results
from resultrows import result_rows
from rowfiles import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
Open = Callable[..., Path]


def scored_rows(count: int) -> list[dict[str, Any]]:
    """Rows with themes and an NPS that waiting times lower."""
    rows = result_rows(count, themed=True)
    for number, row in enumerate(rows):
        row["nps"] = 2 if "Waiting times" in (row["themes"] or ()) else number % 11
    return rows


def comparison_page(folder: Path, files: int) -> Path:
    """The page of a comparison in which the last file has fewer complaints about waiting times."""
    rows = scored_rows(240 * files)
    paths = [write_rows(folder / f"week-{one}.jsonl", rows[240 * one : 240 * one + 240]) for one in range(files)]
    changed = [row | {"themes": ["Price"] if row["themes"] else None, "nps": 9} for row in rows[-240:]]
    write_rows(paths[-1], changed)
    with ExitStack() as stack:
        found = compare(*(stack.enter_context(open_results(str(path))) for path in paths))
    assert found.held
    page = folder / "compare.html"
    page.write_text("".join(comparison_to_html(found, title="Weeks", written=datetime(2026, 11, 28, tzinfo=UTC))))
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", ["phone", "tablet", "desktop"])
def test_axe_finds_nothing_wrong_with_a_report(page: Browser, show: Open, axe: str, window: str, scheme: str) -> None:
    """With score, themes, trend and a split, at three widths, light and dark; nothing is wider than the window."""
    show(scored_rows(120), window=window, scheme=scheme, by=("channel",))
    assert page.run("return document.getElementById('score') !== null")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.violations(axe) == []


@pytest.mark.parametrize("files", [2, 4])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", ["phone", "tablet", "desktop"])
def test_axe_finds_nothing_wrong_with_a_comparison(
    page: Browser, tmp_path: Path, axe: str, window: str, scheme: str, files: int
) -> None:
    """Also as a series; the page complains about nothing and asks for nothing."""
    path = comparison_page(tmp_path, files)
    page.show(path, window, scheme)
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith(("file:", "about:"))] == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.violations(axe) == []


def test_a_report_of_520_rows_prints_on_few_pages(page: Browser, show: Open) -> None:
    """The list of rows is left out, the figures and open themes are there."""
    show(scored_rows(520), by=("channel",))
    assert page.pages_on_paper() <= 8


def test_all_rows_are_printed_on_request(page: Browser, show: Open) -> None:
    """Every row that the filters leave is on paper, and afterwards the page is as it was."""
    show(scored_rows(120))
    few = page.pages_on_paper()
    page.run("window.print = () => {}")
    page.driver.find_element(By.ID, "print").click()
    assert page.run("return document.querySelectorAll('#body tr').length") == 120
    assert page.run("return document.body.classList.contains('with-rows')")
    assert page.pages_on_paper() > few
    assert page.run("return document.querySelectorAll('#body tr').length") == 50
    assert not page.run("return document.body.classList.contains('with-rows')")


def test_impacts_have_the_colour_of_what_they_do(page: Browser, show: Open) -> None:
    """What lowers the score beyond chance is marked, and the rest is not."""
    show(scored_rows(400))
    rows = page.run(
        "return [...document.querySelectorAll('.impacts tbody tr')].map(row => "
        "[row.querySelector('th').textContent, row.querySelector('rect').className.baseVal, row.className])"
    )
    found = {name: (mark, row) for name, mark, row in rows}
    assert found["Waiting times"] == ("mark flat tone-negative", "")
    assert found["Price"][1] == "quiet"
    assert "tone-rest" in found["Price"][0]
