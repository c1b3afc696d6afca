"""Aggregating rows into figures: every sum holds, and the figures agree with the rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.errors import InputError
from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.aggregate import ReportOptions
from mellea_cli.report.figures import Figures, percent
from resultrows import THEMES, figures_of, result_rows


def sums_of(figures: Figures) -> Iterator[tuple[str, int, int]]:
    """Each sum that has to hold, with both of its sides."""
    yield "answered + blank + failed = rows", figures.answered + figures.blank + figures.failed, figures.rows
    yield "urgencies = answered", figures.mix.urgency.total(), figures.answered
    yield "kinds of failure = failed", sum(figures.failures.values()), figures.failed
    if (labels := figures.labels) is not None:
        yield "labels = rows", labels.themed + labels.other + labels.none + labels.unlabelled, figures.rows
    if (trend := figures.trend) is not None:
        yield "dated + empty + unreadable = rows", trend.dated + trend.empty + trend.unreadable, figures.rows
        yield "points = dated", sum(point.rows for point in trend.points), trend.dated
    for split in figures.splits:
        yield split.column, sum(group.mix.rows for group in split.groups) + split.others.rows, figures.rows


@pytest.mark.parametrize("themed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_sum_holds(tmp_path: Path, seed: int, themed: bool) -> None:
    """Whatever rows come, every row is in exactly one place of each sum."""
    draw = random.Random(seed)  # noqa: S311 - made-up rows
    rows = draw.sample(result_rows(400, themed=themed), draw.randrange(1, 400))
    for row in rows:
        row["created_at"] = draw.choice((row["created_at"], "soon", None, "", "05/06/2026", "31/31/2026", 5))
        row["channel"] = draw.choice((row["channel"], None, 7, ["a"], "x" * 500, draw.random()))
    figures = figures_of(tmp_path, rows, ReportOptions(by=("channel", "created_at"), date="created_at"))
    sums = list(sums_of(figures))
    assert len(sums) == (8 if themed else 7)
    for name, left, right in sums:
        assert left == right, name
    assert figures.rows == len(rows)


def test_the_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    """Counts by sentiment, urgency, theme and value are what counting by hand gives."""
    rows = result_rows(260, themed=True)
    figures = figures_of(tmp_path, rows, ReportOptions(by=("channel",)))
    answered = [row for row in rows if row["sentiment"]]
    assert figures.answered == len(answered)
    assert figures.blank == 26
    assert figures.failed == sum("error" in row for row in rows) == figures.failures["parse"]
    assert figures.mix.sentiment["negative"] == sum(row["sentiment"] == "negative" for row in answered)
    assert figures.mix.urgency["high"] == sum(row["issues"]["urgency"] == "high" for row in answered)
    for theme in figures.themes:
        with_it = [row for row in answered if theme.name in row["themes"]]
        assert theme.count == len(with_it)
        assert theme.mix.urgency["high"] == sum(row["issues"]["urgency"] == "high" for row in with_it)
    labels = figures.labels
    assert labels is not None
    assert labels.other == sum(row["themes"] == ["other"] for row in answered)
    assert labels.unlabelled == len(rows) - len(answered)
    (split,) = figures.splits
    assert {group.value: group.mix.rows for group in split.groups} == {
        value: sum(row["channel"] == value for row in rows) for value in {row["channel"] for row in rows}
    }


def test_the_urgent_quotes_are_high_and_negative_first(tmp_path: Path) -> None:
    """Only high urgency counts, then the sentiment, then the place; the same words are shown once."""

    def row(text: str, urgency: str, sentiment: str) -> dict[str, Any]:
        return {"text": text, "summary": "s", "sentiment": sentiment, "issues": {"urgency": urgency}}

    rows = [
        row("low", "low", "negative"),
        row("medium", "medium", "negative"),
        row("high mixed", "high", "mixed"),
        row("high", "high", "negative"),
        row("high", "high", "negative"),
    ]
    assert [quote.text for quote in figures_of(tmp_path, rows).urgent] == ["high", "high mixed"]
    assert not figures_of(tmp_path, rows[:2]).urgent


def test_praise_is_proved_by_happy_customers(tmp_path: Path) -> None:
    """A theme of kind praise shows positive quotes first, any other theme negative ones."""
    rows = [
        {"text": mood, "summary": "s", "sentiment": mood, "issues": {"urgency": "low"}, "themes": ["A", "B"]}
        for mood in ("negative", "positive")
    ]
    options = ReportOptions(themes=(Theme("A", "a", kind="praise"), Theme("B", "b", kind="complaint")))
    first, second = figures_of(tmp_path, rows, options).themes
    assert (first.name, first.quotes[0].text, second.quotes[0].text) == ("A", "positive", "negative")


def test_a_theme_of_the_file_that_no_row_has_is_shown_with_none(tmp_path: Path) -> None:
    """A theme that disappeared is news too."""
    options = ReportOptions(themes=(Theme("Gone", definition="No longer said."),))
    figures = figures_of(tmp_path, result_rows(30, themed=True), options)
    assert figures.themes[-1].name == "Gone"
    assert figures.themes[-1].count == 0
    assert {theme.name for theme in figures.themes[:-1]} <= set(THEMES)


def test_a_parent_counts_a_row_with_two_of_its_themes_once(tmp_path: Path) -> None:
    """Its themes stand below it; a heading that rows have as a label, from before a split, counts among its own."""
    labels = [["Refunds", "Wrong charge"], ["Refunds"], ["Staff"], ["Money"], ["other"], ["Staff"]]
    rows = [
        {"text": str(number), "summary": "s", "sentiment": "negative", "issues": {"urgency": "high"}, "themes": themes}
        for number, themes in enumerate(labels)
    ]
    themes = [Theme(name, name, parent="Money") for name in ("Refunds", "Wrong charge")]
    figures = figures_of(tmp_path, rows, ReportOptions(themes=(*themes, Theme("Staff", "s"))))
    assert [(one.name, one.count, parent) for one, parent in figures.theme_rows()] == [
        ("Money", 3, ""),
        ("Refunds", 2, "Money"),
        ("Wrong charge", 1, "Money"),
        ("Money", 1, "Money"),
        ("Staff", 2, ""),
    ]
    assert [(one.name, one.share, one.mix.urgency["high"]) for one in figures.parents] == [("Money", 0.5, 3)]
    assert [(one.rows, one.of) for one in figures.shares() if one.group == "parent"] == [(3, 6)]


def test_a_date_column_is_found_by_its_name(tmp_path: Path) -> None:
    """Without --date a column that is called like one and mostly holds dates makes the trend."""
    rows = result_rows(50)
    assert figures_of(tmp_path, rows).trend is not None
    for row in rows:
        row["created_at"] = "soon"
    assert figures_of(tmp_path, rows).trend is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Datum",
            " DATE ",
            "Erstellt am",
            "erstellt  am",
            "Zeitstempel",
            "Fecha",
            "Data",
            "Date de création",
            "createdAt",
        ),
        *("Fecha de creacion", "Criado em", "Creato il", "Aangemaakt op", "Horodateur", "Created-At", "Marca temporal"),
    ],
)
def test_a_date_column_has_a_usual_name_in_several_languages(tmp_path: Path, name: str) -> None:
    """Case, accents, signs and white space do not count."""
    rows = [{**row, name: "03.11.2026 09:15"} for row in result_rows(10)]
    for row in rows:
        del row["created_at"]
    figures = figures_of(tmp_path, rows)
    assert figures.trend is not None
    assert (figures.trend.column, figures.trend.dated, figures.notes) == (name, 10, [])


def test_a_column_that_looks_like_dates_and_makes_no_trend_is_named(tmp_path: Path) -> None:
    """With the flag to type; numbers, times and texts do not look like dates, and a trend needs no note."""
    rows = [
        {**row, "Ihr Besuch": "2026-11-03", "zip": "20261103", "at": "09:30", "why": "on 3 May 2026", "size": 4.5}
        for row in result_rows(10)
    ]
    assert figures_of(tmp_path, rows).notes == []
    for number, row in enumerate(rows):
        row["created_at"] = "2026-11-03" if number < 4 else None
    assert figures_of(tmp_path, rows).notes == [
        "column 'created_at' makes no trend: it has a date in 4 of 10 rows; --date created_at takes it",
        "column 'Ihr Besuch' looks like dates and was not taken; --date 'Ihr Besuch' adds the trend",
    ]


def test_dates_that_cannot_be_read_are_counted_and_said(tmp_path: Path) -> None:
    """The note shows what they look like."""
    rows = result_rows(20)
    rows[3]["created_at"], rows[4]["created_at"] = "last week", None
    figures = figures_of(tmp_path, rows, ReportOptions(date="created_at"))
    assert figures.trend is not None
    assert (figures.trend.dated, figures.trend.unreadable, figures.trend.empty) == (18, 1, 1)
    assert figures.notes == ["created_at: not read as dates: 'last week'"]


@pytest.mark.parametrize(
    ("options", "flag"), [(ReportOptions(by=("chanel",)), "--by"), (ReportOptions(date="chanel"), "--date")]
)
def test_a_column_that_is_not_there_is_an_error(tmp_path: Path, options: ReportOptions, flag: str) -> None:
    """It names the nearest one that is."""
    with pytest.raises(InputError) as caught:
        figures_of(tmp_path, result_rows(3), options)
    assert caught.value.hint == f"did you mean {flag} 'channel'?"


def test_rare_values_are_added_up(tmp_path: Path) -> None:
    """A column with many values shows the most frequent and one line for the rest."""
    rows = [row | {"city": f"city {min(number, 40)}"} for number, row in enumerate(result_rows(60))]
    (split,) = figures_of(tmp_path, rows, ReportOptions(by=("city",))).splits
    assert (len(split.groups), split.other_values, split.groups[0].value) == (12, 29, "city 40")
    assert split.others.rows == 29


def test_no_rows_are_figures_too(tmp_path: Path) -> None:
    """Nothing divides by zero, and no column is missed."""
    figures = figures_of(tmp_path, [], ReportOptions(by=("channel",), date="created_at"))
    assert (figures.rows, figures.answered, figures.labels, figures.trend) == (0, 0, None, None)
    assert all(left == right for _, left, right in sums_of(figures))


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "<1 %"), (0.004, "<1 %"), (0.434, "43 %"), (0.999, ">99 %"), (1, "100 %")]
)
def test_a_share_that_is_not_nothing_never_looks_so(share: float, text: str) -> None:
    """Rounding does not hide a row."""
    assert percent(share) == text
