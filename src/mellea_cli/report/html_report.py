"""HTML report: one self-contained page.

A content security policy in the page allows its one style sheet and its one script, by their hashes, and nothing
else: no request, no other script, no inline style. Feedback reaches the page in two ways only: as text that the
template escapes, and as JSON in a block that browsers do not run, which the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from mellea_cli.report.agreement import ReviewField, ReviewRow, evidence
from mellea_cli.report.comparison import Comparison, held_sentence, points, row_sentence, theme_notes
from mellea_cli.report.dates import read_day, resolve_order
from mellea_cli.report.figures import (
    FieldFigures,
    Figures,
    in_order,
    many,
    percent,
    review_sentence,
    value_names,
    with_interval,
)
from mellea_cli.report.results import SENTIMENTS, UNSAID, URGENCIES, Record
from mellea_cli.report.score import Impact

_STATES = ("answered", "blank", "failed", "non-answer")
_LONGEST_QUOTE = 600
# An arc cannot end where it begins, so both circles are two halves; the inner one runs backwards and is left unfilled.
_WHOLE_RING = "M100 10A90 90 0 0 1 100 190A90 90 0 0 1 100 10ZM100 32A68 68 0 0 0 100 168A68 68 0 0 0 100 32Z"
# Inside a script element an HTML parser reacts to `</script` and `<!--` only: without these characters there is
# neither. U+2028 and U+2029 end a line in the scripts of older browsers.
_SCRIPT_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def to_html(
    figures: Figures,
    records: Sequence[Record],
    columns: Sequence[str],
    *,
    title: str,
    written: datetime,
    brand: str = "",
) -> Iterator[str]:
    """Render a report as a page, in pieces; `columns` are the input's other columns, in their order.

    `brand` is the line above the title.
    """
    environment, style = _environment()
    script = _file("page.js")
    buckets = figures.trend.points if figures.trend is not None else ()
    occurring = {name: 1 for bucket in buckets for name in bucket.mix}
    facts, rows = _data_block(figures, records, columns)
    impacts = figures.score.impacts if figures.score is not None else ()
    yield from environment.get_template("page.html.j2").generate(
        figures=figures,
        title=title,
        brand=brand or "Feedback report",
        written=written,
        source=PurePath(figures.name).name,
        trend_names=[name for name, number in in_order(occurring, sentiments=figures.sentiments) if number],
        longest_value={field.name: max((rows for _, rows in field.values), default=0) for field in figures.fields},
        longest_theme=max((theme.count for theme, _ in figures.theme_rows()), default=0),
        impacts=_strongest(impacts),
        widest_impact=max((max(abs(one.low), abs(one.high)) for one in impacts), default=1) or 1,
        rows=rows,
        facts=facts,
        style=style,
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=_hash(script),
    )


def comparison_to_html(comparison: Comparison, *, title: str, written: datetime, brand: str = "") -> Iterator[str]:
    """Render a comparison as a page, in pieces; it has no script."""
    environment, style = _environment()
    yield from environment.get_template("compare.html.j2").generate(
        comparison=comparison,
        title=title,
        brand=brand or "Feedback compared",
        written=written,
        names=comparison.labels,
        sections=list(comparison.sections()),
        result=held_sentence(comparison),
        rows=row_sentence(comparison),
        notes=list(_page_notes(comparison)),
        points=points,
        style=style,
    )


def _page_notes(comparison: Comparison) -> Iterator[str]:
    """Notes as sentences; one that begins with a name keeps it as it is."""
    names = [*comparison.labels, *(field.name for one in comparison.files for field in one.fields)]
    for note in theme_notes(comparison):
        starts_with_name = note.startswith(tuple(f"{name}:" for name in names))
        yield note if starts_with_name else f"{note[:1].upper()}{note[1:]}."


_MOST_IMPACTS = 40


def _strongest(impacts: Sequence[Impact]) -> list[Impact]:
    """The impacts that a page shows, in their order: the strongest."""
    kept = sorted(impacts, key=lambda one: (not one.holds, -abs(one.impact)))[:_MOST_IMPACTS]
    return sorted(kept, key=lambda one: one.impact)


def _environment() -> tuple[jinja2.Environment, Markup]:
    """The templates' environment, and the style sheet of the pages."""
    style = _file("page.css")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mellea_cli.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "quoted": _quoted, "number": lambda value: f"{value:,}", "tone": _tone}
    environment.globals |= {
        "many": many,
        "in_order": in_order,
        "ring_segments": _ring_segments,
        "axis_ticks": _axis_ticks,
        "review_sentence": review_sentence,
        "with_interval": with_interval,
        "style_hash": _hash(style),
    }
    return environment, Markup(style)  # noqa: S704 - a file of this package


def _file(name: str) -> str:
    return (files("mellea_cli.report") / "templates" / name).read_text(encoding="utf-8")


def review_page(
    rows: Sequence[ReviewRow],
    fields: Sequence[ReviewField],
    said: Sequence[Mapping[str, Any]],
    *,
    who: str,
    target: str,
) -> Iterator[str]:
    """Render the page on which a person judges rows in a browser, in pieces.

    Args:
        rows: the rows.
        fields: the fields to judge.
        said: for each row, the values that the person has given to fields already.
        who: the person.
        target: the name of the corrections file that the page offers to save.
    """
    environment, style, script = _environment()[0], _file("review.css"), _file("review.js")
    shown = [
        {"name": one.name, "kind": one.kind, "choices": one.choices, "joint": one.joint, "list": one.is_list}
        for one in fields
    ]
    # Judgements outlive a reload of this page, and are not those of another page about the same rows.
    facts = {"page": secrets.token_hex(8), "who": who, "target": target, "fields": shown}
    yield from environment.get_template("review.html.j2").generate(
        count=len(rows),
        target=target,
        facts=_inert(facts),
        rows=[_inert(_review_row(row, fields, values)) for row, values in zip(rows, said, strict=True)],
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - as above
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _review_row(row: ReviewRow, fields: Sequence[ReviewField], said: Mapping[str, Any]) -> dict[str, Any]:
    record, words = row.record, row.record.words
    # Parts of the text: offsets would not be those of JavaScript, which counts other units.
    parts: list[tuple[str, str]] = []
    at = 0
    for start, end, kind in evidence(record, words):
        parts += [(words[at:start], ""), (words[start:end], kind)]
        at = end
    return {
        "item": record.id,
        "text": record.text,
        "parts": [*parts, (words[at:], "")],
        "sample": row.sample,
        "seed": row.seed,
        "size": row.size,
        "confidence": row.confidence,
        "model": {field.name: record.model_value(field.name) for field in fields},
        "said": said,
    }


def _data_block(figures: Figures, records: Sequence[Record], columns: Sequence[str]) -> tuple[Markup, Iterator[Markup]]:
    """The page's JSON, facts and rows: rows are lists, with repeated words as indexes, which halves the file's size."""
    trend = figures.trend
    sentiments = _indexes(name for name, _ in in_order(figures.mix.sentiment, sentiments=figures.sentiments))
    urgencies = _indexes(name for name, _ in in_order(figures.mix.urgency, "urgency"))
    filtered = [field for field in figures.fields if field.is_categorical]
    places = [_indexes(name for name, _ in field.values) for field in filtered]
    labels = ("other", "none") if figures.labels is not None else ()
    themes = _indexes([*(theme.name for theme in figures.themes), *labels])
    facts = {
        "sentiments": list(sentiments),
        "urgencies": list(urgencies),
        "themes": list(themes),
        "columns": list(columns),
        "date": trend.column if trend is not None else None,
        "judged": figures.judged,
        "fields": [{"name": field.name, "values": [name for name, _ in field.values]} for field in filtered],
    }

    def compact(record: Record) -> list[Any]:
        # In the order that page.js expects.
        day = None
        if trend is not None:
            day = resolve_order(read_day(record.rest.get(trend.column)), month_first=trend.month_first)
        urgency = record.urgency or (UNSAID if record.state == "answered" else "")
        rest = [_cell(record.rest.get(name)) for name in columns]
        while rest and not rest[-1]:
            rest.pop()
        return [
            record.id,
            record.text,
            record.summary,
            _STATES.index(record.state),
            sentiments.get(record.sentiment, -1),
            urgencies.get(urgency, -1),
            [themes[name] for name in record.themes or () if name in themes],
            record.complaint,
            record.praise,
            record.error,
            day.isoformat() if day is not None else "",
            rest,
            {themes[name]: quote for name, quote in record.quotes.items() if name in themes},
            *([[_chosen(record, field, at) for field, at in zip(filtered, places, strict=True)]] if filtered else []),
        ]

    return _inert(facts), (_inert(compact(record)) for record in records)


def _chosen(record: Record, field: FieldFigures, places: Mapping[str, int]) -> list[int]:
    """The indexes of a row's values among those of an own field."""
    return [places[name] for name in value_names(record.own.get(field.name)) if name in places]


def _indexes(names: Iterable[str]) -> Mapping[str, int]:
    return {name: index for index, name in enumerate(names)}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inert(value: Any) -> Markup:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_SCRIPT_SAFE))  # noqa: S704 - nothing is left that could be markup


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1].rstrip() + "…"


def _tone(name: str) -> str:
    """The CSS class that gives a judgement its colour."""
    return f"tone-{name}" if name in (*SENTIMENTS, *URGENCIES) else "tone-rest"


def _ring_segments(counts: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, str]]:
    """Each present name with its rows and the path of its segment, clockwise from the top of a 200 by 200 view."""
    total = sum(rows for _, rows in counts)
    start = 0.0
    for name, rows in counts:
        if not rows:
            continue
        if rows == total:
            yield name, rows, _WHOLE_RING
            return
        end = start + rows / total
        large = int(end - start > 0.5)
        outer = f"M{_on_circle(90, start)}A90 90 0 {large} 1 {_on_circle(90, end)}"
        inner = f"L{_on_circle(68, end)}A68 68 0 {large} 0 {_on_circle(68, start)}Z"
        yield name, rows, outer + inner
        start = end


def _on_circle(radius: float, turn: float) -> str:
    angle = 2 * math.pi * turn
    return f"{100 + radius * math.sin(angle):.2f} {100 - radius * math.cos(angle):.2f}"


def _axis_ticks(most: int) -> list[int]:
    """Round numbers from 0 to at least `most`, in about four steps."""
    step = max(1, math.ceil(most / 4))
    size = 10 ** (len(str(step)) - 1)
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= step)
    return list(range(0, (math.ceil(most / step) or 1) * step + 1, step))
