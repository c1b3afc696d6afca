"""The page as text: its policy, its inert data, its charts, and that feedback is only ever text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.aggregate import Aggregator, ReportOptions
from mellea_cli.report.html_report import to_html
from mellea_cli.report.results import open_results
from resultrows import NASTY, figures_of, make_page, nasty_rows, result_rows
from rowfiles import write_rows


class Elements(HTMLParser):
    """Collects what a parser of HTML sees: elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw.append((self.cdata_elem, data))


def test_the_policy_allows_the_two_blocks_and_nothing_else(tmp_path: Path) -> None:
    """Hashes of the one style sheet and the one script; no `unsafe-inline`, no source, no inline style or handler."""
    elements = Elements(make_page(tmp_path, result_rows(30, themed=True), by=("channel",)))
    (policy,) = [attrs["content"] for tag, attrs in elements.seen if attrs.get("http-equiv")]
    blocks = {tag: data for tag, data in elements.raw if not data.lstrip().startswith(("{", "["))}
    hashes = {tag: base64.b64encode(hashlib.sha256(data.encode()).digest()).decode() for tag, data in blocks.items()}
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for tag, attrs in elements.seen:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"style", "src", "srcset"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        assert not attrs.get("href") or str(attrs["href"]).startswith("#")


def test_feedback_adds_no_element(tmp_path: Path) -> None:
    """A page of rows full of HTML, scripts and template marks has the elements of a harmless one."""
    harmless = [json.loads(json.dumps(row).replace(json.dumps(NASTY)[1:-1], "word")) for row in nasty_rows()]
    shapes = [
        [tag for tag, _ in Elements(make_page(tmp_path, rows, title, by=(column,))).seen]
        for rows, title, column in ((nasty_rows(), NASTY, NASTY), (harmless, "word", "word"))
    ]
    assert shapes[0] == shapes[1]


def test_the_data_block_is_lossless(tmp_path: Path) -> None:
    """The block is JSON without characters that HTML interprets, and reads back unchanged."""
    text = make_page(tmp_path, nasty_rows())
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    assert not re.search("[<>&\u2028\u2029]", block[1])
    (first, _) = json.loads(block[1])
    assert first[0] == first[1] == first[2] == NASTY


def test_an_empty_file_makes_a_page_of_nothing(tmp_path: Path) -> None:
    """It says so, and needs no script."""
    text = make_page(tmp_path, [])
    assert "The file holds no rows" in text
    assert "<script" not in text


def test_links_lead_to_parts_of_the_page(tmp_path: Path) -> None:
    """Every link is a part that is there, or a row that there is."""
    elements = Elements(make_page(tmp_path, result_rows(60, themed=True), by=("channel",)))
    ids = {attrs["id"] for _, attrs in elements.seen if "id" in attrs}
    links = {str(attrs["href"])[1:] for tag, attrs in elements.seen if tag == "a"}
    rows = {link for link in links if link.startswith("row-")}
    assert rows
    assert {int(row.removeprefix("row-")) for row in rows} <= set(range(1, 61))
    assert links - rows <= ids
    assert len(ids) == len([attrs for _, attrs in elements.seen if "id" in attrs])


def test_headings_are_in_order_and_every_chart_has_words(tmp_path: Path) -> None:
    """One h1, no level left out; each chart is hidden next to its numbers or has a label."""
    elements = Elements(make_page(tmp_path, result_rows(60, themed=True), by=("channel",)))
    levels = [int(tag[1]) for tag, _ in elements.seen if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    drawings = [attrs for tag, attrs in elements.seen if tag == "svg"]
    assert drawings
    assert all(attrs.get("aria-hidden") == "true" or attrs.get("aria-label") for attrs in drawings)


def test_the_page_has_a_sum_that_a_reader_can_check(tmp_path: Path) -> None:
    """Every row occurs once in it."""
    assert "60 rows = 50 answered + 6 without text + 4 failed." in make_page(tmp_path, result_rows(60))


def charts(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[ElementTree.Element]:
    """Every chart of a page of these rows, in order; a chart that is no XML fails here."""
    text = make_page(folder, rows, **options)
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]  # noqa: S314


def test_charts_contain_shapes_only(tmp_path: Path) -> None:
    """No script, style, reference or id, and a label where the chart is not hidden."""
    drawn = charts(tmp_path, result_rows(60, themed=True), by=("channel",))
    assert len(drawn) == 2 + 4 + 2 + 4  # rings, a bar for each theme, trends for two widths, a bar for each channel
    for chart in drawn:
        assert chart.get("aria-hidden") == "true" or (chart.get("role") == "img" and chart.get("aria-label"))
        assert {shape.tag for shape in chart.iter()} <= {"svg", "path", "rect", "text", "title"}
        for shape in chart.iter():
            assert not {"style", "id", "href", "onload"} & shape.attrib.keys()


def test_segments_have_the_class_of_their_judgement(tmp_path: Path) -> None:
    """The style sheet colours them; an unknown judgement gets the neutral colour and is escaped."""
    rows = [{"text": "t", "sentiment": name, "issues": None} for name in ("negative", "negative", "<odd&>\x0b")]
    sentiment, urgency = charts(tmp_path, rows)
    assert [shape.get("class") for shape in sentiment.iter("path")] == ["mark tone-negative", "mark tone-rest"]
    assert [title.text for title in sentiment.iter("title")] == ["negative: 2", "<odd&>\x0b".strip() + ": 1"]
    assert [title.text for title in urgency.iter("title")] == ["not said: 3"]


@pytest.mark.parametrize(("counts", "angles"), [((1, 1, 2), (0, 90, 180)), ((3, 1, 0), (0, 270)), ((5, 0, 0), (0,))])
def test_a_ring_is_divided_by_the_counts(tmp_path: Path, counts: tuple[int, int, int], angles: tuple[int, ...]) -> None:
    """Each segment begins at its share of the circle, clockwise from the top; one judgement alone is a whole ring."""
    names = ("negative", "mixed", "positive")
    rows = [
        {"text": f"t{name}", "sentiment": name, "issues": None}
        for name, count in zip(names, counts, strict=True)
        for _ in range(count)
    ]
    starts = [re.match(r"M(\S+) ([\d.]+)A", shape.get("d", "")) for shape in charts(tmp_path, rows)[0].iter("path")]
    found = [math.degrees(math.atan2(float(one[1]) - 100, 100 - float(one[2]))) % 360 for one in starts if one]
    assert found == pytest.approx(angles, abs=0.1)


def test_a_bar_is_as_long_as_its_share_of_the_longest(tmp_path: Path) -> None:
    """The most frequent theme fills the view, one with half of its rows fills half."""
    rows = [{"text": "t", "sentiment": "mixed", "issues": {"urgency": "high"}, "themes": ["A", "B"]} for _ in range(2)]
    rows += [{"text": "t", "sentiment": "mixed", "issues": {"urgency": "low"}, "themes": ["A"]} for _ in range(2)]
    _, _, first, second = charts(tmp_path, rows)
    widths = [[float(shape.get("width", 0)) for shape in chart.iter("rect")] for chart in (first, second)]
    assert widths == [[200, 200], [200]]


def test_a_trend_shows_each_bucket_with_its_figures(tmp_path: Path) -> None:
    """Each column has a title and its height; the axis has round numbers only."""
    rows = [
        {"text": "t", "sentiment": "negative", "issues": None, "date": f"2026-{month:02d}-01"}
        for month in range(1, 10)
        for _ in range(month)
    ]
    wide, narrow = charts(tmp_path, rows)[2:]
    assert "2026-09: 9 negative" in [title.text for title in wide.iter("title")]
    assert [text.text for text in wide.iter("text") if text.get("class") == "y-label"] == ["0", "5", "10"]
    heights = [float(shape.get("height", 0)) for shape in wide.iter("rect")]
    assert [height / heights[0] for height in heights] == pytest.approx(range(1, 10), abs=0.05)
    assert [text.text for text in narrow.iter("text") if text.get("class") == "x-label"][1] == "2026-03"


def test_the_charts_of_no_answers_are_left_out(tmp_path: Path) -> None:
    """Failed rows have no mix to draw."""
    assert charts(tmp_path, [{"text": "t", "sentiment": None, "error": {"kind": "parse", "message": "no"}}]) == []


def test_a_shared_page_has_no_path_and_no_command(tmp_path: Path) -> None:
    """The name of the file is enough for a reader; notes about unreadable rows name no folder either."""
    path = write_rows(tmp_path / "rows.jsonl", result_rows(20))
    path.write_text(path.read_text() + "{broken\n")
    aggregator = Aggregator()
    with open_results(str(path)) as results:
        records = list(results)
        for record in records:
            aggregator.add(record)
        figures = aggregator.figures(results)
    page = "".join(
        to_html(figures, records, [], title="T", brand="Acme <&>", written=datetime(2026, 11, 28, tzinfo=UTC))
    )
    assert "rows.jsonl:21" in page
    assert str(tmp_path) not in page
    assert "mellea themes" not in page
    assert '<p class="eyebrow" dir="auto">Acme &lt;&amp;&gt;</p>' in page


def test_top_complaint_and_top_praise_are_apart(tmp_path: Path) -> None:
    """Each is the most frequent theme of its kind, with its share and interval."""
    themes = (Theme("Waiting times", "", "complaint"), Theme("Friendly staff", "", "praise"))
    figures = figures_of(tmp_path, result_rows(90, themed=True), ReportOptions(themes=themes))
    page = make_page(tmp_path, result_rows(90, themed=True), themes=themes)
    complaint, praise = figures.top("complaint"), figures.top("praise")
    assert complaint is not None
    assert praise is not None
    assert (complaint.tone, praise.name) == ("complaint", "Friendly staff")
    for heading, theme in (("Top complaint", complaint), ("Top praise", praise)):
        assert re.search(
            rf"{heading}</dt><dd[^>]*>{theme.name}</dd><dd class=\"small\">{theme.count} rows, \d+ % \(", page
        )


def test_themes_stand_below_their_parent(tmp_path: Path) -> None:
    """The parent is first, with its rows counted once, and has no filter of its own."""
    themes = tuple(Theme(name, "d", parent="<Service>") for name in ("Waiting times", "Friendly staff"))
    page = make_page(tmp_path, result_rows(90, themed=True), themes=themes)
    figures = figures_of(tmp_path, result_rows(90, themed=True), ReportOptions(themes=themes))
    (parent,) = figures.parents
    assert parent.count < sum(theme.count for theme in figures.themes if theme.parent)
    assert "<bdi>&lt;Service&gt;</bdi></span>" in page
    assert page.count('<li class="child">') == 2
    assert '<span class="hidden">&lt;Service&gt;: </span><bdi>Waiting times</bdi>' in page
    assert 'data-value="&lt;Service&gt;"' not in page
    assert 'data-value="Waiting times"' in page
