"""Lays a snapshot out on a screen of a given size."""

from __future__ import annotations

from dataclasses import dataclass

from mellea_cli.ui.card import animated, card
from mellea_cli.ui.itemstate import PanelView
from mellea_cli.ui.paint import Line, Palette, pad, shorten, width
from mellea_cli.ui.plaintext import clean
from mellea_cli.ui.progressline import progress_line
from mellea_cli.ui.view import Snapshot

_CARD_ROWS_LEAST, _CARD_ROWS_GOOD, _CARD_ROWS_MOST = 5, 8, 11
_CARD_COLUMNS_LEAST, _CARD_COLUMNS_WIDE, _CARD_COLUMNS_MOST = 38, 46, 76
_WIDE_SCREEN = 120


@dataclass(frozen=True, slots=True)
class Grid:
    """How the panels stand: `columns` by `rows` of them, each `card` cells wide and high."""

    columns: int = 0
    rows: int = 0
    card: tuple[int, int] = (0, 0)

    @property
    def places(self) -> int:
        """How many panels there are."""
        return self.columns * self.rows


def plan(size: tuple[int, int], wanted: int) -> Grid:
    """Choose the number of panels and their size for a screen.

    Args:
        size: columns and rows of the terminal.
        wanted: the most panels that could be of use.

    Returns:
        A grid that leaves room for the progress line, the line below and the line on which the cursor rests; no
        panels when the screen is too small for one.
    """
    columns, rows = size[0] - 1, size[1] - 3
    if wanted <= 0 or columns < 28 or rows < _CARD_ROWS_LEAST:
        return Grid()
    least = _CARD_COLUMNS_WIDE if size[0] >= _WIDE_SCREEN else _CARD_COLUMNS_LEAST
    across = min(wanted, max(1, (columns + 1) // (least + 1)))
    down = min(-(-wanted // across), max(1, rows // _CARD_ROWS_GOOD))
    card_columns = min((columns + 1) // across - 1, _CARD_COLUMNS_MOST)
    return Grid(across, down, (card_columns, min(rows // down, _CARD_ROWS_MOST)))


class Painter:
    """Draws frames and remembers panels, so that one that has not changed costs nothing.

    Args:
        palette: looks and signs of the terminal.
    """

    def __init__(self, palette: Palette) -> None:
        self._palette = palette
        self._drawn: dict[int, tuple[PanelView, tuple[int, int], int, list[str]]] = {}

    def frame(self, snapshot: Snapshot, grid: Grid, size: tuple[int, int], beat: int = 0) -> list[str]:
        """The lines of one frame, with their escape sequences.

        There are at most `size[1] - 1` of them, none wider than `size[0] - 1` cells.
        """
        columns, rows = size[0] - 1, size[1] - 1
        if columns < 1 or rows < 1:
            return []
        head = progress_line(snapshot.progress, columns, self._palette, paused_s=snapshot.paused_s)
        lines = [self._palette.ansi(head), *self._panels(snapshot, grid, beat)]
        if rows >= 3:
            lines.append(self._palette.ansi(self._foot(snapshot, columns)))
        return lines[:rows]

    def _panels(self, snapshot: Snapshot, grid: Grid, beat: int) -> list[str]:
        blank = [" " * grid.card[0]] * grid.card[1]
        lines: list[str] = []
        for row in range(grid.rows):
            cards = []
            for place in range(row * grid.columns, (row + 1) * grid.columns):
                panel = snapshot.panels[place] if place < len(snapshot.panels) else None
                cards.append(self._card(place, panel, grid.card, beat) if panel is not None else blank)
            lines += map(" ".join, zip(*cards, strict=True))
        return lines

    def _card(self, place: int, panel: PanelView, size: tuple[int, int], beat: int) -> list[str]:
        beat = beat if animated(panel) else 0
        known = self._drawn.get(place)
        if known is not None and known[:3] == (panel, size, beat):
            return known[3]
        lines = [self._palette.ansi(line) for line in card(panel, size, self._palette, beat)]
        self._drawn[place] = (panel, size, beat, lines)
        return lines

    def _foot(self, snapshot: Snapshot, columns: int) -> Line:
        """Trouble first, then what no panel shows, and who answers."""
        palette, glyphs = self._palette, self._palette.glyphs
        line: Line = ()
        more = f"+{snapshot.more} more in flight" if snapshot.more and snapshot.panels else ""
        room = columns - (len(more) + 2 if more else 0)
        if snapshot.paused:
            reason = f"paused {snapshot.paused_s}s: {palette.fit(clean(snapshot.paused))}"
            line = (("warn", shorten(reason, room, glyphs.cut)),)
        elif snapshot.progress.failures:
            last = snapshot.progress.failures[-1]
            told = f"{glyphs.bad} {clean(last.id)} {clean(last.kind)}: {clean(last.message)}"
            line = (("bad", shorten(palette.fit(told), room, glyphs.cut)),)
        if more:
            line = (*line, ("quiet", f"  {more}" if line else more))
        model = clean(snapshot.model)
        if model.endswith(".gguf"):  # a path: its last part says enough
            model = model.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")
        who = f" {glyphs.dot} ".join(filter(None, (model, clean(snapshot.backend))))
        who = palette.fit(who)
        left = columns - width(line) - 2
        if who and len(who) <= left:
            line = (*pad(line, columns - width((("quiet", who),))), ("quiet", who))
        return line
