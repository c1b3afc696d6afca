"""The themes of a labelled run: counts and bars, and how the rows add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mellea_cli.ui.figures import count
from mellea_cli.ui.plaintext import clean

if TYPE_CHECKING:
    from mellea_cli.ui.paint import Line, Palette, Role, Span

_BAR_CELLS = 24
_NAME_CELLS = 32
_LABEL_CELLS = 10


@dataclass(frozen=True, slots=True)
class Themed:
    """What a run that labelled rows with themes has counted."""

    file: str
    """Where the themes are; empty when they were not kept."""
    counts: Mapping[str, int]
    """Rows by theme, in the themes' order; a row with several counts for each."""
    rows: int | None
    """Items in the input; `None` when nobody knows."""
    labelled: int = 0
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0
    """Quotes that were found in their rows' texts, letter by letter."""
    audited: bool = False
    """Whether the rows of the output were read back and counted again."""

    @property
    def accounted(self) -> int:
        """Rows that ended as one of the four."""
        return self.labelled + self.other + self.none + self.failed


def themed_record(themed: Themed) -> dict[str, Any]:
    """The counts and how they add up, for programs. Keys are only ever added."""
    return {
        "themes_file": themed.file or None,
        "rows": themed.rows,
        "accounted": themed.accounted,
        "labelled": themed.labelled,
        "other": themed.other,
        "none": themed.none,
        "failed": themed.failed,
        "themes": dict(themed.counts),
        "quotes": themed.quotes,
        "audited": themed.audited,
    }


def plain_themes(themed: Themed) -> Iterator[str]:
    """The themes as lines without colour or signs, then the figures."""
    for name, number in _ordered(themed):
        yield f"theme: {name}: {count(number)} ({_share(number, themed)})"
    for label, text in _figures(themed):
        yield f"{label}: {text}"


def drawn_themes(themed: Themed, columns: int, palette: Palette) -> Iterator[Line]:
    """The themes as a bar chart for a terminal of `columns` cells, then the figures."""
    from mellea_cli.ui.paint import cells_of, clip, pad, shorten, wrap

    glyphs = palette.glyphs
    pairs = [(palette.fit(clean(name)), number) for name, number in _ordered(themed)]
    pairs += [(name, number) for name, number in (("other", themed.other), ("none", themed.none)) if number]
    names = min(max((cells_of(name) for name, _ in pairs), default=0), _NAME_CELLS, max(8, columns // 2))
    digits = max((len(count(number)) for _, number in pairs), default=1)
    bar = min(_BAR_CELLS, columns - _LABEL_CELLS - names - digits - 11)
    most = max((number for _, number in pairs), default=0)
    yield ()
    label = "themes"
    for place, (name, number) in enumerate(pairs):
        role: Role = "plain" if place < len(themed.counts) else "quiet"
        line: list[Span] = [("label", f"  {label:<{_LABEL_CELLS}}")]
        line += pad(((role, shorten(name, names, glyphs.cut)),), names + 2)
        if bar >= 4:
            filled = max(1, round(bar * number / most)) if number else 0
            line += [
                ("done" if role == "plain" else "quiet", glyphs.block * filled),
                ("plain", " " * (bar - filled + 2)),
            ]
        line += [("plain", f"{count(number):>{digits}}"), ("quiet", f" {_share(number, themed):>4}")]
        yield clip(tuple(line), columns)
        label = ""
    yield ()
    for what, text in _figures(themed):
        for index, part in enumerate(wrap(palette.fit(clean(text)), columns - _LABEL_CELLS - 2)):
            yield (("label", f"  {what if not index else '':<{_LABEL_CELLS}}"), ("plain", part))


def _ordered(themed: Themed) -> list[tuple[str, int]]:
    """The most common theme first; of equals the one that stands first in the file."""
    return sorted(((clean(name), number) for name, number in themed.counts.items()), key=lambda pair: -pair[1])


def _share(number: int, themed: Themed) -> str:
    return f"{number / themed.accounted:.0%}" if themed.accounted else "0%"


def _figures(themed: Themed) -> Iterator[tuple[str, str]]:
    """How the rows add up, and what was checked."""
    parts = [f"{count(themed.labelled)} with themes", f"{count(themed.other)} other", f"{count(themed.none)} none"]
    parts.append(f"{count(themed.failed)} failed")
    told = f"{' + '.join(parts)} = {count(themed.accounted)} rows"
    if themed.rows is not None and themed.rows != themed.accounted:
        told += f" of {count(themed.rows)}; {count(themed.rows - themed.accounted)} not reached"
    yield "rows", told
    labels = sum(themed.counts.values())
    where = "read back from the output" if themed.audited else "counted as they were written"
    yield "checked", f"{count(labels)} labels, {count(themed.quotes)} quotes verbatim, {where}"
    if themed.file:
        yield "themes in", themed.file
