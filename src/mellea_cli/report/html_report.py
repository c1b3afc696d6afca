"""The report as one HTML file that needs nothing but itself.

A content security policy inside the page allows its one style sheet and its one script, by their hashes, and nothing
else: no request, no other script, no inline style. Feedback reaches the page in two ways only: as text that the
template escapes, and as JSON in a block that no browser runs, which the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import jinja2
from markupsafe import Markup

from mellea_cli.report.dates import read_day, settle
from mellea_cli.report.figures import Figures, in_order, many, percent
from mellea_cli.report.results import SENTIMENTS, URGENCIES, Record

if TYPE_CHECKING:
    from mellea_cli.report.figures import Trend


# The charts of the page: drawn by pygal, reduced to shapes with classes, so that our own style sheet colours them.
#
# pygal's drawings bring style sheets, a script and hints for it. The page's content security policy allows none of
# that, and colours have to follow light and dark. What stays is geometry, and a title on each shape.

_SPACE = re.compile(r"\{[^}]*\}")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DROPPED = {"defs", "desc", "script", "style", "title"}
_OVERLAYS = {"overlay", "text-overlay", "tooltip-overlay", "titles"}
_BAR = (400, 20)
_PLAIN: Mapping[str, Any] = {
    "show_legend": False,
    "js": (),
    "css": (),
    "margin": 0,
    "no_data_text": "",
    "disable_xml_declaration": True,
}
_LABEL_SIZE = 12


def _drawing() -> Any:
    """Load pygal, without what it leaves in Python's import system: a finder for its plug-ins of a form long gone."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("pygal")]
    return pygal


def tone(name: str) -> str:
    """The class that gives a judgement its colour."""
    return f"tone-{name}" if name in (*SENTIMENTS, *URGENCIES) else "tone-rest"


def donut(pairs: Sequence[tuple[str, int]], label: str) -> Markup:
    """A ring of shares; the numbers stand beside it in the page."""
    pygal = _drawing()

    chart = pygal.Pie(width=200, height=200, inner_radius=0.68, **_PLAIN)
    return _drawn(chart, pairs, label)


def bar(pairs: Sequence[tuple[str, int]], longest: int) -> Markup:
    """One bar in parts that stretches to whatever width it is given; `longest` fills all of it.

    It is hidden from screen readers: the numbers stand beside it.
    """
    pygal = _drawing()

    width, height = _BAR
    plain = {"show_x_labels": False, "show_y_labels": False, "show_x_guides": False, "show_y_guides": False}
    chart = pygal.HorizontalStackedBar(
        width=width, height=height, range=(0, max(longest, 1)), spacing=0, **plain, **_PLAIN
    )
    root = _tree(chart, pairs)
    # pygal leaves a fiftieth of the plot free at each side: the view is cut to the plot itself.
    free_x, free_y = width * 0.02 / 1.04, height * 0.02 / 1.04
    root.set("viewBox", f"{free_x:.3f} {free_y:.3f} {width - 2 * free_x:.3f} {height - 2 * free_y:.3f}")
    root.set("preserveAspectRatio", "none")
    root.set("aria-hidden", "true")
    return _markup(root)


def trend_chart(trend: Trend, names: Sequence[str], label: str, *, wide: bool) -> Markup:
    """A column for each bucket of a trend, in parts by judgement."""
    pygal = _drawing()
    from pygal.style import Style

    width, height, labels = (960, 280, 12) if wide else (380, 260, 5)
    style = Style(label_font_size=_LABEL_SIZE, major_label_font_size=_LABEL_SIZE, font_family="sans-serif")
    chart = pygal.StackedBar(
        width=width,
        height=height,
        style=style,
        spacing=14 if wide else 8,
        x_labels_major_every=math.ceil(len(trend.points) / labels),
        show_minor_x_labels=False,
        truncate_label=-1,
        y_labels=_ticks(max(point.rows for point in trend.points)),
        formatter=lambda value: f"{value:,.0f}",
        **{**_PLAIN, "margin": 6, "margin_right": 24},
    )
    chart.x_labels = [point.name for point in trend.points]
    for name in names:
        values = [
            {"value": number, "label": _xml(f"{point.name}: {number:,} {name}")} if number else None
            for point in trend.points
            for number in (point.mix.get(name, 0),)
        ]
        chart.add(_xml(name), values)
    root = _reduced(chart, names)
    return _image(root, label)


def _drawn(chart: Any, pairs: Sequence[tuple[str, int]], label: str) -> Markup:
    return _image(_tree(chart, pairs), label)


def _tree(chart: Any, pairs: Sequence[tuple[str, int]]) -> ElementTree.Element:
    present = [(name, number) for name, number in pairs if number]
    for name, number in present:
        chart.add(_xml(name), [{"value": number, "label": _xml(f"{name}: {number:,}")}])
    return _reduced(chart, [name for name, _ in present])


def _reduced(chart: Any, names: Sequence[str]) -> ElementTree.Element:
    """What is left of a drawing: shapes, their classes and their titles."""
    root = ElementTree.fromstring(chart.render())  # noqa: S314 - drawn by us a moment ago
    _strip(root, names)
    for attribute in ("id", "class"):
        root.attrib.pop(attribute, None)
    return root


def _strip(element: ElementTree.Element, names: Sequence[str]) -> None:
    element.tag = _SPACE.sub("", element.tag)
    element.attrib = {
        name: value for name, value in element.attrib.items() if name != "style" and not name.startswith("{")
    }
    classes = element.get("class", "").split()
    for one in classes:
        if one.startswith("color-"):
            element.set("class", f"series {tone(names[int(one.removeprefix('color-'))])}")
    if "reactive" in classes:
        element.set("class", "mark")
    title = ""
    for child in list(element):
        name = _SPACE.sub("", child.tag) if isinstance(child.tag, str) else ""
        if child.get("class") == "label":
            title = child.text or ""
        if not name or name in _DROPPED or _OVERLAYS & set(child.get("class", "").split()):
            element.remove(child)
        else:
            _strip(child, names)
    if title:
        told = ElementTree.Element("title")
        told.text = title
        for child in element:
            child.insert(0, told)


def _image(root: ElementTree.Element, label: str) -> Markup:
    root.set("role", "img")
    root.set("aria-label", _xml(label))
    return _markup(root)


def _markup(root: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - writing it out escapes all its texts


def _xml(text: str) -> str:
    return _NOT_XML.sub("", text)


def _ticks(most: int) -> list[int]:
    """Round numbers from 0 to at least `most`, four steps or so."""
    step = max(1, math.ceil(most / 4))
    size = 10 ** (len(str(step)) - 1)
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= step)
    return list(range(0, (math.ceil(most / step) or 1) * step + 1, step))


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
    environment.globals |= {
        "many": many,
        "in_order": in_order,
        "charts": SimpleNamespace(tone=tone, donut=donut, bar=bar, columns=trend_chart),
    }
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
