"""What terminal output is made of: spans of text with a role, how a role looks, wrapping, and bar charts.

Text from outside is only ever the text of a span. It is never parsed as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Literal

from rich.cells import cell_len, set_cell_size
from rich.style import Style

from mellea_cli.ui.console import clean, count, encodable

if TYPE_CHECKING:
    from rich.console import Console


Role = Literal[
    "plain", "quiet", "strong", "label", "frame", "good", "bad", "mixed", "warn", "cursor", "done", "rest"
]  # fmt: skip
Span = tuple[Role, str]
Line = tuple[Span, ...]

# Names from the terminal's own palette, so that light and dark themes both stay readable.
STYLES: Mapping[Role, str] = {
    "plain": "none",
    "quiet": "dim",
    "strong": "bold",
    "label": "cyan",
    "frame": "dim",
    "good": "green",
    "bad": "red",
    "mixed": "yellow",
    "warn": "yellow",
    "cursor": "cyan",
    "done": "cyan",
    "rest": "dim",
}
_JUDGEMENTS: dict[str, Role] = {
    "positive": "good",
    "negative": "bad",
    "mixed": "mixed",
    "neutral": "quiet",
    "high": "bad",
    "medium": "mixed",
    "low": "good",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that a display is drawn with."""

    corners: str  # Top left, top right, bottom left, bottom right
    across: str
    down: str
    bar: str
    bar_end: str
    bar_rest: str
    block: str
    cursor: str
    ok: str
    bad: str
    retry: str
    cut: str
    dot: str
    none: str
    arrow: str
    spinner: str


UNICODE = Glyphs("╭╮╰╯", "─", "│", "━", "╸", "━", "█", "▌", "✓", "✗", "↻", "…", "·", "–", "→", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")  # noqa: RUF001 - the dash is meant
ASCII = Glyphs("++++", "-", "|", "=", ">", ".", "#", "_", "ok", "x", "retry", "~", "-", "-", "->", "|/-\\")


class Palette:
    """Turns spans into what one terminal understands."""

    def __init__(self, console: Console) -> None:
        from rich.color import ColorSystem

        self.encoding = console.encoding
        self.glyphs = UNICODE if console.encoding.lower().startswith("utf") else ASCII
        # Every terminal with colours has these sixteen.
        system = ColorSystem.STANDARD if console.color_system else None
        self._escapes: dict[Role, tuple[str, str]] = {}
        for role in STYLES:
            style = rich_style(role)
            if console.no_color:
                style = style.without_color
            before, _, after = style.render("x", color_system=system).partition("x")
            self._escapes[role] = (before, after)

    def ansi(self, line: Line) -> str:
        """The line with its escape sequences, without a line break."""
        escapes = self._escapes
        return "".join([f"{escapes[role][0]}{text}{escapes[role][1]}" for role, text in line])

    def print(self, lines: Iterable[Line], stream: IO[str]) -> None:
        stream.write("".join(f"{self.ansi(line).rstrip()}\n" for line in lines))
        stream.flush()

    def fit(self, text: str) -> str:
        """Clean text with `?` for what the terminal's encoding lacks."""
        return encodable(text, self.encoding)

    def safe(self, text: str) -> str:
        """Text from outside, cleaned and fitted on one line; cached, for what is drawn again and again."""
        return _safe(text, self.encoding)


@lru_cache(maxsize=256)
def _safe(text: str, encoding: str) -> str:
    return encodable(clean(text), encoding)


def rich_style(role: Role) -> Style:
    """The role's style for Rich."""
    return Style.parse(STYLES[role])


def judgement_role(value: str) -> Role:
    """The role of a field's value: judgements have a colour, everything else is plain."""
    return _JUDGEMENTS.get(value.strip().lower(), "plain")


def cells_of(text: str) -> int:
    """Terminal cells that clean text takes."""
    return len(text) if text.isascii() else cell_len(text)


def width(line: Iterable[Span]) -> int:
    """Terminal cells that the line takes."""
    return sum([cells_of(text) for _, text in line])


def pad(line: Line, cells: int) -> Line:
    """The line, filled with spaces up to `cells`."""
    missing = cells - width(line)
    return (*line, ("plain", " " * missing)) if missing > 0 else line


def clip(line: Line, cells: int) -> Line:
    """The line, cut off after `cells` cells."""
    kept: list[Span] = []
    for role, text in line:
        room = cells - width(kept)
        kept.append((role, text if cells_of(text) <= room else set_cell_size(text, max(0, room))))
    return tuple(kept)


def shorten(text: str, cells: int, cut: str) -> str:
    """At most `cells` cells of `text`, ending in `cut` when something is left out."""
    if cells_of(text) <= cells:
        return text
    room = cells - cells_of(cut)
    return set_cell_size(text, room).rstrip() + cut if room > 0 else set_cell_size(text, max(0, cells))


def wrap(text: str, cells: int) -> list[str]:
    """Break `text` into lines of at most `cells` cells, at spaces where possible."""
    return list(_wrapped(text, cells))


# Most of a frame is what the last frame showed.
@lru_cache(maxsize=256)
def _wrapped(text: str, cells: int) -> list[str]:
    if cells <= 0:
        return []
    if cells_of(text) <= cells:
        return [text]
    lines: list[str] = []
    current, room = "", cells
    for word in text.split(" "):
        size = cells_of(word)
        if current and size < room:
            current += f" {word}"
            room -= size + 1
            continue
        if current:
            lines.append(current)
        *whole, current = _split_word(word, cells) if size > cells else [word]
        lines += whole
        room = cells - cells_of(current)
    return [*lines, current] if current or not lines else lines


def _split_word(word: str, cells: int) -> list[str]:
    pieces = [""]
    taken = 0
    for character in word:
        size = cells_of(character)
        if taken + size > cells and pieces[-1]:
            pieces.append("")
            taken = 0
        pieces[-1] += character
        taken += size
    return pieces


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart: a name, how many, and their share in words."""

    name: str
    number: int
    share: str
    role: Role = "plain"  # The bar's colour
    name_role: Role = "plain"


@dataclass(frozen=True, slots=True)
class ChartSize:
    """The widths of a bar chart, in cells. Charts below each other line up by sharing them."""

    columns: int  # Of the whole chart
    label: int
    names: int  # Longer names are shortened
    digits: int
    bar: int

    @classmethod
    def of(cls, bars: Sequence[Bar], columns: int, label: int, longest_name: int, longest_bar: int) -> ChartSize:
        """The widths that these bars need, with names and bars of at most so many cells."""
        digits = max((len(count(bar.number)) for bar in bars), default=1)
        room = columns - label - digits - max((len(bar.share) for bar in bars), default=0) - 4
        names = min(max((cells_of(bar.name) for bar in bars), default=0), longest_name, room)
        return cls(columns, label, names, digits, min(longest_bar, room - names))


_SHORTEST_BAR = 4


def bar_chart(label: str, bars: Sequence[Bar], full: int, size: ChartSize, palette: Palette) -> Iterator[Line]:
    """A line for each bar, with `label` before the first; the number `full` fills a whole bar.

    The names are clean and fitted. Where there is no room for bars, only the numbers are shown.
    """
    for index, bar in enumerate(bars):
        line: list[Span] = [*pad((("label", label if index == 0 else ""),), size.label)]
        line += pad(((bar.name_role, shorten(bar.name, size.names, palette.glyphs.cut)),), size.names + 2)
        if size.bar >= _SHORTEST_BAR and full:
            filled = max(1, round(size.bar * bar.number / full)) if bar.number else 0
            line += [(bar.role, palette.glyphs.block * filled), ("plain", " " * (size.bar - filled + 1))]
        line += [("plain", f"{count(bar.number):>{size.digits}}"), ("quiet", f" {bar.share}")]
        yield clip(tuple(line), size.columns)
