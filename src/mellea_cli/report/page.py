"""The report as one HTML file that needs nothing but itself.

A content security policy inside the page allows its one style sheet and its one script, by their hashes, and nothing
else: no request, no other script, no inline style. Feedback reaches the page in two ways only: as text that the
template escapes, and as JSON in a block that no browser runs, which the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from mellea_cli.report import charts
from mellea_cli.report.dates import read_day, settle
from mellea_cli.report.figures import Figures, in_order, many, percent
from mellea_cli.report.record import Record

_STATES = ("answered", "blank", "failed")
_LONGEST_QUOTE = 600
# Inside a script element only `</script` and `<!--` mean something, and only to the parser of HTML: without these
# letters there is neither. The two separators end a line in scripts of older browsers.
_INERT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands at the top of the page."""

    title: str
    written: datetime
    """When the report was made."""
    next_steps: Sequence[str] = ()


def page(figures: Figures, records: Sequence[Record], columns: Sequence[str], heading: Heading) -> Iterator[str]:
    """Write the page, piece by piece.

    Args:
        figures: what the rows come to.
        records: the rows.
        columns: the input's other columns, in their order.
        heading: what stands at the top.
    """
    folder = files("mellea_cli.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mellea_cli.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "quoted": _quoted, "number": lambda value: f"{value:,}"}
    environment.globals |= {"many": many, "in_order": in_order, "charts": charts}
    rows = _Rows(figures, columns)
    trend_names = _trend_names(figures)
    yield from environment.get_template("page.html.j2").generate(
        figures=figures,
        heading=heading,
        source=PurePath(figures.name).name,
        trend_names=trend_names,
        longest_theme=max((theme.count for theme in figures.themes), default=0),
        rows=rows.lines(records),
        facts=rows.facts,
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - as above
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


class _Rows:
    """Rows in the short form in which the page holds them: lists, with repeated words as their places in a list."""

    def __init__(self, figures: Figures, columns: Sequence[str]) -> None:
        self._columns = columns
        self._trend = figures.trend
        self._sentiments = [name for name, _ in in_order(figures.mix.sentiment)]
        self._urgencies = [name for name, _ in in_order(figures.mix.urgency, "urgency")]
        themes = [theme.name for theme in figures.themes]
        self._themes = [*themes, *(("other", "none") if figures.labels is not None else ())]
        self._place = {name: place for place, name in enumerate(self._themes)}

    def facts(self) -> Markup:
        """What the lists in the rows mean."""
        return _inert(
            {
                "sentiments": self._sentiments,
                "urgencies": self._urgencies,
                "themes": self._themes,
                "columns": list(self._columns),
                "date": self._trend.column if self._trend is not None else None,
            }
        )

    def lines(self, records: Sequence[Record]) -> Iterator[Markup]:
        """Each row, with what belongs between it and the one before."""
        between = Markup()
        for record in records:
            yield between + _inert(self._short(record))
            between = Markup(",\n")

    def _short(self, record: Record) -> list[Any]:
        day = None
        if self._trend is not None:
            read = read_day(record.rest.get(self._trend.column))
            day = settle(read, month_first=self._trend.month_first)
        urgency = record.urgency or ("not said" if record.state == "answered" else "")
        rest = [_cell(record.rest.get(name)) for name in self._columns]
        while rest and not rest[-1]:
            rest.pop()
        quotes = {self._place[name]: quote for name, quote in record.quotes.items() if name in self._place}
        return [
            record.id,
            record.text,
            record.summary,
            _STATES.index(record.state),
            self._sentiments.index(record.sentiment) if record.sentiment else -1,
            self._urgencies.index(urgency) if urgency else -1,
            [self._place[name] for name in record.themes or () if name in self._place],
            record.complaint,
            record.praise,
            record.error,
            day.isoformat() if day is not None else "",
            rest,
            quotes,
        ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inert(value: Any) -> Markup:
    """A value as JSON that no parser of HTML sees anything in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_INERT))  # noqa: S704 - nothing is left that could be markup


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1].rstrip() + "…"


def _trend_names(figures: Figures) -> list[str]:
    points = figures.trend.points if figures.trend is not None else ()
    seen = {name: 1 for point in points for name in point.mix}
    return [name for name, number in in_order(seen) if number]
