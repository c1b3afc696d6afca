"""Rows as `summarise` and `themes` write them, made up but never the same: what tests of reports share."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mellea_cli.report.aggregate import Aggregator, ReportOptions
from mellea_cli.report.figures import Figures
from mellea_cli.report.html_report import to_html
from mellea_cli.report.results import open_results
from rowfiles import write_rows

THEMES = ("Waiting times", "Friendly staff", "Broken exports", "Price", "Delivery")
CHANNELS = ("web", "app store", "phone", "mail")
NASTY = (
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>{{ 7*7 }}{% raw %}"
    "<!--<script>]]>&lt;\u2028\u2029\u202e\x00\x1b[31m`${1}`\"'"
)
_OPENINGS = ("The hotline", "Your app", "The parcel", "The new invoice", "My contract", "The technician", "Your shop")
_MIDDLES = ("was late again", "crashes when I export", "came in two days", "lists two visits", "costs more than agreed")
_ENDS = ("and nobody answered.", "but the staff was kind.", "so I am leaving.", "and I am happy.", "which is a pity.")


def result_row(number: int, *, themed: bool = False) -> dict[str, Any]:
    """Row `number`, counted from 1: every tenth has no text, every thirteenth failed."""
    draw = random.Random(number)  # noqa: S311 - made-up rows
    text = f"{draw.choice(_OPENINGS)} {draw.choice(_MIDDLES)} {draw.choice(_ENDS)} Case {number}."
    row: dict[str, Any] = {
        "id": f"R-{number}",
        "created_at": f"2026-{1 + number % 9:02d}-{1 + number % 28:02d}",
        "channel": draw.choice(CHANNELS),
        "text": text,
    }
    if number % 10 == 0:
        row["text"] = ""
    if number % 10 == 0 or number % 13 == 0:
        row |= {"summary": None, "sentiment": None, "issues": None}
        if number % 10:
            row["error"] = {"kind": "parse", "message": "no JSON", "attempts": 3}
        return row | ({"themes": None, "theme_quotes": None} if themed else {})
    row |= {
        "summary": f"The customer writes about case {number}.",
        "sentiment": draw.choice(("negative", "negative", "mixed", "positive")),
        "issues": {
            "main_complaint": draw.choice((None, "late", "crash")),
            "positive_aspect": draw.choice((None, "kind staff")),
            "urgency": draw.choice(("high", "medium", "low", "low")),
        },
    }
    if themed:
        names = draw.choice(((), ("other",), ("none",), THEMES[:2], THEMES[1:2], THEMES[2:3], THEMES[3:4]))
        row["themes"] = list(names) or ["none"]
        row["theme_quotes"] = {name: text[:30] for name in names if name in THEMES}
    return row


def result_rows(count: int, *, themed: bool = False) -> list[dict[str, Any]]:
    """The first so many rows."""
    return [result_row(number, themed=themed) for number in range(1, count + 1)]


def nasty_rows() -> list[dict[str, Any]]:
    """Two rows in which every column tries to be something else than text."""
    row = result_row(1, themed=True)
    issues = {"main_complaint": NASTY, "positive_aspect": NASTY, "urgency": "high"}
    row |= {"text": NASTY, "summary": NASTY, "issues": issues, "channel": NASTY, "id": NASTY, NASTY: NASTY}
    return [row | {"themes": [NASTY], "theme_quotes": {NASTY: NASTY}}, row | {"sentiment": NASTY}]


def figures_of(folder: Path, rows: list[dict[str, Any]], options: ReportOptions | None = None) -> Figures:
    """The figures of these rows, read from a file."""
    aggregator = Aggregator(options)
    with open_results(str(write_rows(folder / "rows.jsonl", rows))) as results:
        for record in results:
            aggregator.add(record)
        return aggregator.figures(results)


def make_page(folder: Path, rows: list[dict[str, Any]], title: str = "Report", **options: Any) -> str:
    """The page of these rows, read from a file."""
    aggregator, records = Aggregator(ReportOptions(**options)), []
    with open_results(str(write_rows(folder / "rows.jsonl", rows))) as results:
        for record in results:
            aggregator.add(record)
            records.append(record)
        figures, columns = aggregator.figures(results), list(results.columns)
    return "".join(to_html(figures, records, columns, title=title, written=datetime(2026, 11, 22, tzinfo=UTC)))
