"""Spans of text with a role, and how a role looks on this terminal.

Text from outside is only ever the text of a span. It is never parsed as markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len, set_cell_size
from rich.style import Style

from mellea_cli.ui.console import clean, encodable

if TYPE_CHECKING:
    from rich.console import Console


Role = Literal[
    "plain",
    "quiet",
    "strong",
    "label",
    "frame",
    "good",
    "bad",
    "mixed",
    "warn",
    "cursor",
    "done",
    "rest",
]
Span = tuple[Role, str]
Line = tuple[Span, ...]

# Names from the terminal's own palette, so that light and dark themes both stay readable.
_LOOKS: dict[Role, str] = {
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
_JUDGED: dict[str, Role] = {
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
    """The signs that a display is drawn with."""

    corners: str
    """Top left, top right, bottom left, bottom right."""
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


_UNICODE = Glyphs("╭╮╰╯", "─", "│", "━", "╸", "━", "█", "▌", "✓", "✗", "↻", "…", "·", "–", "→", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")  # noqa: RUF001 - the dash is meant
_ASCII = Glyphs("++++", "-", "|", "=", ">", ".", "#", "_", "ok", "x", "retry", "~", "-", "-", "->", "|/-\\")


class Palette:
    """Turns spans into what this terminal understands.

    Args:
        console: tells colours and encoding.
    """

    def __init__(self, console: Console) -> None:
        from rich.color import ColorSystem

        self.encoding = console.encoding
        self.glyphs = _UNICODE if console.encoding.lower().startswith("utf") else _ASCII
        system = ColorSystem.STANDARD if console.color_system else None  # every terminal with colours has these
        self._marks: dict[Role, tuple[str, str]] = {}
        for role in _LOOKS:
            style = look(role)
            if console.no_color:
                style = style.without_color
            before, _, after = style.render("x", color_system=system).partition("x")
            self._marks[role] = (before, after)

    def ansi(self, line: Line) -> str:
        """The line with its escape sequences, without a line break."""
        marks = self._marks
        return "".join([f"{marks[role][0]}{text}{marks[role][1]}" for role, text in line])

    def fit(self, text: str) -> str:
        """The text with a `?` for what the terminal's encoding has no letter for."""
        return encodable(text, self.encoding)

    def safe(self, text: str) -> str:
        """Text from anywhere in a form that can be shown here; for what stays the same from frame to frame."""
        return _safe(text, self.encoding)


@lru_cache(maxsize=256)
def _safe(text: str, encoding: str) -> str:
    return encodable(clean(text), encoding)


def look(role: Role) -> Style:
    """The Rich style of a role."""
    return Style.parse(_LOOKS[role])


def judged(value: str) -> Role:
    """The role of a field's value: words that judge have a colour, everything else is plain."""
    return _JUDGED.get(value.strip().lower(), "plain")


def cells_of(text: str) -> int:
    """Terminal cells that clean text takes."""
    return len(text) if text.isascii() else cell_len(text)


def width(line: Iterable[Span]) -> int:
    """Terminal cells that the line takes."""
    return sum([cells_of(text) for _, text in line])


def pad(line: Line, cells: int) -> Line:
    """The line with spaces up to `cells`."""
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
    """Break `text` into lines of at most `cells` cells, at spaces where there are any."""
    return list(_wrapped(text, cells))


# Frame after frame most of what is shown is what was shown before.
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
        *whole, current = _pieces(word, cells) if size > cells else [word]
        lines += whole
        room = cells - cells_of(current)
    return [*lines, current] if current or not lines else lines


def _pieces(word: str, cells: int) -> list[str]:
    """Cut a word that is longer than a line."""
    pieces = [""]
    taken = 0
    for letter in word:
        size = cells_of(letter)
        if taken + size > cells and pieces[-1]:
            pieces.append("")
            taken = 0
        pieces[-1] += letter
        taken += size
    return pieces
