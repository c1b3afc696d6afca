"""The charts: shapes with classes, and nothing that the page's policy forbids."""

from __future__ import annotations

import re
from datetime import date
from xml.etree import ElementTree

import pytest

from mellea_cli.report.figures import Point, Trend
from mellea_cli.report.html_report import bar, donut, trend_chart

POINTS = [Point(date(2026, month, 1), f"2026-{month:02d}", {"negative": month, "mixed": 0}) for month in range(1, 10)]
TREND = Trend("date", "month", POINTS, 45, 0, 0)
CHARTS = {
    "donut": lambda: donut([("negative", 3), ("odd", 1)], "Sentiment"),
    "bar": lambda: bar([("high", 2), ("low", 1)], 9),
    "wide": lambda: trend_chart(TREND, ["negative", "mixed"], "Rows", wide=True),
    "narrow": lambda: trend_chart(TREND, ["negative", "mixed"], "Rows", wide=False),
    "empty donut": lambda: donut([("negative", 0)], "Nothing"),
    "empty bar": lambda: bar([], 0),
}


def parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)  # noqa: S314 - we drew it


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_geometry_only(name: str) -> None:
    """No script, no style, no reference to anywhere, no id that another chart has too."""
    drawn = CHARTS[name]()
    for forbidden in ("<script", "<style", "style=", "xlink", "href", "http", " id=", "<!--"):
        assert forbidden not in drawn
    root = parsed(drawn)
    assert root.get("aria-hidden") == "true" or (root.get("role") == "img" and root.get("aria-label"))


def test_parts_have_the_class_of_their_judgement() -> None:
    """The style sheet colours them; a judgement that it does not know gets the rest's colour."""
    drawn = donut([("negative", 3), ("odd", 1)], "Sentiment")
    assert re.findall(r"tone-\w+", drawn) == ["tone-negative", "tone-rest"]
    assert "<title>negative: 3</title>" in drawn


def test_a_bar_is_as_long_as_its_share_of_the_longest() -> None:
    """Of 12, parts of 6 and 3 take a half and a quarter of the view."""
    root = parsed(bar([("high", 6), ("low", 3)], 12))
    _, _, width, _ = map(float, root.get("viewBox", "").split())
    sizes = [float(shape.get("width", 0)) / width for shape in root.iter("rect") if shape.get("class") == "mark"]
    assert sizes == pytest.approx([0.5, 0.25], abs=0.001)


def test_a_judgement_with_markup_or_controls_is_text() -> None:
    """A sentiment that some file holds cannot break the drawing."""
    drawn = donut([("<script>\x00\x0b&", 3)], "a < b")
    assert "&lt;script&gt;" in drawn
    parsed(drawn)


def test_a_trend_shows_each_bucket_with_its_figures() -> None:
    """Each column says what it stands for, and whole numbers only stand at the axis."""
    drawn = trend_chart(TREND, ["negative", "mixed"], "Rows", wide=True)
    assert "<title>2026-09: 9 negative</title>" in drawn
    assert re.findall(r">(\d+)</text>", drawn) == ["0", "5", "10"]
