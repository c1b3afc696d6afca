"""The report page in a real browser: search, filters, sorting, links to rows, keyboard, and nothing that gets out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from browser.chromium import Browser
from resultrows import NASTY, make_page, nasty_rows, result_rows

# A browser and thousands of rows on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
Open = Callable[..., Path]

IDS = "return [...document.querySelectorAll('#body .id')].map(one => one.textContent)"
COLUMN = "return [...document.querySelectorAll('#body tr')].map(row => row.querySelector(arguments[0]).textContent)"


def hits(page: Browser) -> str:
    return str(page.run("return document.getElementById('hits').textContent"))


def until(page: Browser, condition: Callable[[], Any]) -> None:
    """Wait for a state of the page."""
    WebDriverWait(page.driver, 60, poll_frequency=0.02).until(lambda _: condition())


def search(page: Browser, words: str) -> None:
    field = page.driver.find_element(By.ID, "search")
    field.clear()
    field.send_keys(words)


def choose(page: Browser, control: str, beginning: str) -> None:
    select = Select(page.driver.find_element(By.ID, control))
    select.select_by_visible_text(next(one.text for one in select.options if one.text.startswith(beginning)))


def test_all_rows_are_there_a_page_at_a_time(page: Browser, show: Open) -> None:
    """The first fifty rows are shown, and the buttons lead to the others."""
    show(result_rows(120, themed=True))
    assert page.run(IDS) == [f"R-{number}" for number in range(1, 51)]
    assert hits(page) == "120 rows, 1 to 50 shown"
    page.driver.find_element(By.ID, "next").click()
    page.driver.find_element(By.ID, "next").click()
    assert page.run(IDS) == [f"R-{number}" for number in range(101, 121)]
    assert not page.driver.find_element(By.ID, "next").is_enabled()
    field = page.driver.find_element(By.ID, "page")
    field.send_keys(Keys.CONTROL, "a", Keys.NULL, "2", Keys.ENTER)
    until(page, lambda: page.run(IDS)[0] == "R-51")


def test_search_finds_words_in_any_column_and_marks_them(page: Browser, show: Open) -> None:
    """All words have to be there, whatever their case; the number of hits is announced."""
    rows = result_rows(120, themed=True)
    show(rows)
    search(page, "CASE 77.")
    until(page, lambda: hits(page) == "1 of 120 rows matches")
    assert page.run(IDS) == ["R-77"]
    assert "77." in page.run("return [...document.querySelectorAll('mark')].map(one => one.textContent)")
    search(page, "app store")
    expected = [row["id"] for row in rows if row["channel"] == "app store"]
    until(page, lambda: hits(page).startswith(f"{len(expected)} of 120"))
    assert page.run(IDS) == expected[:50]
    search(page, "there is no such word")
    until(page, lambda: hits(page).startswith("0 of"))
    assert "No row matches" in page.run("return document.getElementById('body').textContent")
    page.driver.find_element(By.ID, "reset").click()
    assert hits(page) == "120 rows, 1 to 50 shown"


def test_filters_work_together(page: Browser, show: Open) -> None:
    """Sentiment, urgency and theme each narrow the rows down; blank and failed rows can be chosen too."""
    rows = result_rows(120, themed=True)
    show(rows)
    choose(page, "filter-sentiment", "negative")
    choose(page, "filter-urgency", "high")
    wanted = [row for row in rows if row["sentiment"] == "negative" and row["issues"]["urgency"] == "high"]
    assert page.run(IDS) == [row["id"] for row in wanted]
    choose(page, "filter-theme", "Friendly staff")
    assert page.run(IDS) == [row["id"] for row in wanted if "Friendly staff" in row["themes"]]
    page.driver.find_element(By.ID, "reset").click()
    choose(page, "filter-sentiment", "failed")
    assert page.run(IDS) == [row["id"] for row in rows if "error" in row]
    choose(page, "filter-sentiment", "without text")
    assert page.run(IDS) == [row["id"] for row in rows if not row["text"]]


def test_sorting_goes_both_ways_and_says_so(page: Browser, show: Open) -> None:
    """A click on a heading sorts, a second one turns it round; rows without a value stay at the end."""
    show(result_rows(45, themed=True))
    order = ["high", "medium", "low", ""]
    heading = page.driver.find_element(By.CSS_SELECTOR, "th[data-order=urgency]")
    heading.find_element(By.TAG_NAME, "button").click()
    found = page.run(COLUMN, ".urgency")
    assert found == sorted(found, key=order.index)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.find_element(By.TAG_NAME, "button").click()
    found = page.run(COLUMN, ".urgency")
    assert found == sorted(found, key=["low", "medium", "high", ""].index)
    assert heading.get_attribute("aria-sort") == "descending"
    choose(page, "sort", "Date")
    dates = page.run(COLUMN, ".date")
    assert dates == sorted(dates)
    assert "Sorted by date, ascending." in hits(page)
    assert heading.get_attribute("aria-sort") == "none"
    choose(page, "sort", "Row")
    assert page.run(IDS) == [f"R-{number}" for number in range(1, 46)]  # by number, not by character


def test_a_quote_leads_to_its_row_wherever_it_is(page: Browser, show: Open) -> None:
    """The row is shown, marked, in view and focused: on another page, and when filters hid it."""
    show(result_rows(400, themed=True))
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    link = page.driver.find_elements(By.CSS_SELECTOR, "a.row-link")[-1]
    target = str(link.get_attribute("href")).split("#")[1]
    search(page, "there is no such word")
    until(page, lambda: hits(page).startswith("0 of"))
    link.click()
    until(page, lambda: page.run("return document.activeElement.id") == target)
    assert hits(page).startswith("Filters cleared to show the row. 400 rows")
    marked = page.run("return [...document.querySelectorAll('tr.found')].map(one => one.id)")
    assert marked == [target]
    in_view = (
        "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return box.top >= 0 && box.bottom <= innerHeight"
    )
    until(page, lambda: page.run(in_view, target))
    # Once more by the same link, although the address stays the same.
    page.run("scrollTo(0, 0)")
    link.click()
    until(page, lambda: page.run(in_view, target))


def test_an_address_with_a_row_opens_at_it(page: Browser, show: Open) -> None:
    """A link that was sent to another person works too."""
    path = show(result_rows(200))
    page.show(path, fragment="#row-187")
    until(page, lambda: page.run("return document.activeElement.id") == "row-187")


def test_a_theme_shows_its_rows(page: Browser, show: Open) -> None:
    """As many as its figure says."""
    rows = result_rows(200, themed=True)
    show(rows)
    page.run("document.querySelector('.themes details').open = true")
    button = page.driver.find_element(By.CSS_SELECTOR, ".themes button[data-filter=theme]")
    name = button.get_attribute("data-value")
    expected = [row["id"] for row in rows if name in (row["themes"] or ())]
    assert f"{len(expected)} rows" in button.text
    button.click()
    assert page.run(IDS) == expected[:50]
    assert hits(page).startswith(f"{len(expected)} of 200 rows match")


def test_a_row_opens_to_everything_it_holds(page: Browser, show: Open) -> None:
    """By keyboard as well: the button keeps the focus and says whether it is open."""
    show(result_rows(12, themed=True))
    button = page.driver.find_element(By.CSS_SELECTOR, "#row-1 button.more")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys(Keys.ENTER)
    focused = page.driver.switch_to.active_element
    assert (focused.get_attribute("aria-expanded"), focused.text) == ("true", "Less")
    assert "channel" in page.run("return document.querySelector('#row-1 .all').textContent")


def test_the_keyboard_reaches_everything(page: Browser, show: Open) -> None:
    """Tab goes from the first link through the page into the tools and the table, and never gets stuck."""
    show(result_rows(12, themed=True), by=("channel",))
    body = page.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the rows"
    reached = []
    for _ in range(120):
        active = page.driver.switch_to.active_element
        reached.append(active.get_attribute("id") or active.get_attribute("class") or active.tag_name)
        active.send_keys(Keys.TAB)
        if reached[-1] == "next":
            break
    for wanted in ("search", "filter-sentiment", "filter-theme", "sort", "reset", "more", "page", "summary"):
        assert wanted in reached, wanted


def test_a_screen_reader_finds_landmarks_and_a_table(page: Browser, show: Open) -> None:
    """The accessibility tree holds regions, navigation, a search, a status, a table with headings, on a phone too."""
    for window in ("desktop", "phone"):
        show(result_rows(12, themed=True), window=window, by=("channel",))
        nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        found = {
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        }
        roles = {role for role, _ in found}
        assert {"banner", "main", "contentinfo", "search", "status"} <= roles
        assert {("navigation", "Parts of this report"), ("table", "All rows"), ("searchbox", "Search")} <= found
        assert {("region", "Themes"), ("region", "Overview"), ("region", "All rows")} <= found
        names = [node.get("name", {}).get("value") for node in nodes if node["role"]["value"] in ("image", "img")]
        assert names
        assert all(names)
        rows = [node for node in nodes if node["role"]["value"] == "row" and not node.get("ignored")]
        assert len(rows) >= 12


def test_rows_that_want_to_be_something_else_are_text(page: Browser, show: Open) -> None:
    """HTML, scripts, template marks and a text of 100 kB run nothing and change nothing but their own cells."""
    long = "<b>long</b> & 'wide' " * 5_000
    show(
        [*nasty_rows(), {**result_rows(1, themed=True)[0], "text": long}, *result_rows(9, themed=True)], by=("channel",)
    )
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for number in (1, 2, 3):
        page.driver.find_element(By.CSS_SELECTOR, f"#row-{number} button.more").send_keys(Keys.ENTER)
    search(page, "</script>")
    until(page, lambda: hits(page).startswith("2 of 12"))
    page.driver.find_element(By.ID, "reset").click()
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('img, b, main script, iframe').length") == 0
    text = page.run("return document.querySelector('#row-1 .text').textContent")
    assert text == NASTY
    assert page.run("return document.querySelector('#row-3 .text').textContent") == long
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.complaints() == []


@pytest.mark.parametrize("window", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page: Browser, show: Open, window: str, scheme: str) -> None:
    """No sideways scrolling, no complaint on the console, and nothing is asked of any network."""
    path = show(result_rows(120, themed=True), window=window, scheme=scheme, by=("channel",))
    assert page.run("return document.documentElement.scrollWidth") <= page.run("return innerWidth")
    search(page, "invoice")
    until(page, lambda: " of 120 rows match" in hits(page))
    assert page.requests() == [path.as_uri()]
    assert page.complaints() == []
    dark = page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 27)"
    assert dark == (scheme == "dark")


CONTRAST = """
const channels = (text) => {
  const made = document.createElement('canvas').getContext('2d');
  made.fillStyle = arguments[1]; made.fillRect(0, 0, 1, 1);
  made.fillStyle = text; made.fillRect(0, 0, 1, 1);
  return [...made.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const style = getComputedStyle(document.querySelector(arguments[0]));
return [channels(style.color), channels(style.backgroundColor)];
"""


def luminance(channels: list[int]) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    linear = [(one / 255 / 12.92) if one <= 10 else ((one / 255 + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


SMALL_WORDS = (
    "#hits", ".lead", ".sum", ".tile dt", ".summary", ".rows .id", ".chip.tone-high", ".chip.tone-medium",
    ".chip.tone-low", ".chip.tone-negative", ".chip.tone-mixed", ".chip.tone-positive", ".chip.theme", ".meta",
    ".rows th button", "button.more", "a.row-link",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Browser, show: Open, scheme: str) -> None:
    """Every kind of small text has a contrast of 4.5 to 1, as WCAG 2.2 wants (success criterion 1.4.3)."""
    show(result_rows(30, themed=True), scheme=scheme)
    for place in SMALL_WORDS:
        light = "rgb(25, 28, 43)" if place == ".meta" else "rgb(246, 245, 242)"
        ink, paper = page.run(CONTRAST, place, light if scheme == "light" else "rgb(29, 32, 39)")
        first, second = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (first + 0.05) / (second + 0.05) >= 4.5, place


def test_the_policy_keeps_even_the_pages_own_script_from_the_network(page: Browser, show: Open) -> None:
    """A request from inside the page is refused by the browser."""
    show(result_rows(3))
    ask = "const done = arguments[1]; fetch(arguments[0]).then(() => done('sent'), (error) => done(error.name));"
    assert page.driver.execute_async_script(ask, "http://127.0.0.1:9/") == "TypeError"
    assert any("Content Security Policy" in line for line in page.complaints())
    inline = (
        "const made = document.createElement('script'); made.textContent = 'window.hit = 1'; document.body.append(made)"
    )
    page.run(inline)
    assert page.run("return window.hit") is None


def test_twenty_thousand_rows_are_searched_filtered_and_sorted(page: Browser, show: Open) -> None:
    """As many rows as a large survey has; every answer is right. How long it takes is a benchmark's business."""
    rows = result_rows(20_000, themed=True)
    show(rows)
    assert hits(page) == "20,000 rows, 1 to 50 shown"
    search(page, "case 19999.")
    until(page, lambda: hits(page) == "1 of 20,000 rows matches")
    page.driver.find_element(By.ID, "reset").click()
    choose(page, "filter-urgency", "high")
    wanted = [row["id"] for row in rows if row["issues"] and row["issues"]["urgency"] == "high"]
    assert hits(page).startswith(f"{len(wanted):,} of 20,000 rows match")
    assert page.run(IDS) == wanted[:50]
    assert page.run("return document.querySelectorAll('#body tr').length") == 50


def test_on_paper_every_theme_is_open(page: Browser, show: Open) -> None:
    """The quotes are printed, and afterwards the page is as it was."""
    show(result_rows(60, themed=True))
    count = "return document.querySelectorAll('.themes details[open]').length"
    themes = page.run("return document.querySelectorAll('.themes details').length")
    assert (themes, page.run(count)) == (4, 0)
    page.run(f"addEventListener('beforeprint', () => {{ {count.replace('return', 'window.printed =')}; }})")
    page.driver.execute_cdp_cmd("Page.printToPDF", {})
    until(page, lambda: page.run("return window.printed") == themes)
    until(page, lambda: page.run(count) == 0)


def test_a_page_of_nothing_is_a_page(page: Browser, show: Open) -> None:
    """No rows, no error."""
    show([])
    assert "there is nothing to report" in page.run("return document.body.textContent")
    assert page.complaints() == []


def test_the_figures_need_no_script(page: Browser, tmp_path: Path) -> None:
    """With scripts turned off everything but the list of rows is there, and the page says so."""
    path = tmp_path / "report.html"
    path.write_text(make_page(tmp_path, result_rows(30, themed=True)), encoding="utf-8")
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.show(path)
        text = page.driver.find_element(By.TAG_NAME, "main").text
        assert "The list of rows needs scripts." in text
        assert "Most urgent" in text
        assert not page.driver.find_element(By.ID, "table").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_data_of_the_page_is_that_of_the_file(page: Browser, show: Open) -> None:
    """Every row is in the page once, in the order of the file."""
    rows = result_rows(77)
    show(rows)
    data = json.loads(page.run("return document.getElementById('data').textContent"))
    assert [row[0] for row in data] == [row["id"] for row in rows]
