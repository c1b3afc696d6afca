"""The charts of the page: drawn by pygal, reduced to shapes with classes, so that our own style sheet colours them.

pygal's drawings bring style sheets, a script and hints for it. The page's content security policy allows none of that,
and colours have to follow light and dark. What stays is geometry, and a title on each shape.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from mellea_cli.report.record import SENTIMENTS, URGENCIES

if TYPE_CHECKING:
    from mellea_cli.report.figures import Trend

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


def columns(trend: Trend, names: Sequence[str], label: str, *, wide: bool) -> Markup:
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
