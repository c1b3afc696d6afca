"""A few lines at the bottom of a terminal that are redrawn in place.

Rich's `Live` erases its whole area for each frame and finds it again by counting the lines it wrote: it flickers, and
after the terminal has become narrower the count is wrong, because terminals differ in how they break old lines anew.
Here the cursor rests at the first cell of the area instead. A terminal keeps the cursor with its text through a
resize, so "from here down" is ours whatever happened to it, and only lines that changed are written.
"""

from __future__ import annotations

import os
from typing import IO

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_TO_END = "\x1b[J"
_REST_OF_LINE = "\x1b[K"


class Area:
    """The redrawn lines. Not locked: its owner is.

    Args:
        stream: where the terminal is.
        fallback: columns and rows to assume where the terminal does not tell.
    """

    def __init__(self, stream: IO[str], fallback: tuple[int, int] = (80, 24)) -> None:
        self._stream = stream
        self._fallback = fallback
        self._lines: list[str] = []
        self._size = (0, 0)
        self._open = False
        self._used = False
        self.gone = False
        """The terminal no longer takes anything."""

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal at this moment."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return self._fallback
        return (columns or self._fallback[0], rows or self._fallback[1])

    def draw(self, lines: list[str], size: tuple[int, int], *, above: str = "") -> None:
        """Bring the area up to date.

        Args:
            lines: the new lines, with their escape sequences; narrower than the terminal, fewer than it has rows.
            size: the size they were made for.
            above: whole lines to print above the area, each with its line feed; they stay when the area goes.
        """
        if not lines and not self._open:
            text = above
        elif above or size != self._size or not self._open:
            text = self._anew(lines, above)
        else:
            text = self._changes(lines)
        self._lines, self._size, self._open = lines, size, bool(lines)
        self._used = self._used or self._open
        if text:
            self._write(_NO_WRAP + text + _WRAP if self._used else text)

    def insert(self, above: str) -> None:
        """Print whole lines above the area, which is drawn again below them."""
        if self._open:
            self.draw(self._lines, self._size, above=above)
        else:
            self._write(above)

    def close(self, *, above: str = "") -> None:
        """Print the last lines, take the area away and give the cursor back. May be called twice."""
        start = f"\r{_TO_END}" if self._open else ""
        end = _WRAP + _SHOW if self._used else ""
        if start or above or end:
            self._write(start + above + end)
        self._lines, self._open, self._used = [], False, False

    def lose(self) -> None:
        """Someone else wrote to the terminal: begin again on the line where the cursor is now."""
        self._lines, self._open = [], False

    def _anew(self, lines: list[str], above: str) -> str:
        start = "\r" + _TO_END if self._open else ""
        # Lines above may be longer than the terminal is wide: they are wrapped as any text.
        told = f"{_WRAP}{above}{_NO_WRAP}" if above else ""
        body = "\r\n".join(line + _REST_OF_LINE for line in lines)
        return _HIDE + start + told + body + _up(len(lines) - 1) + "\r"

    def _changes(self, lines: list[str]) -> str:
        """Write only what differs from the last frame."""
        before = self._lines
        if not lines:
            return "\r" + _TO_END
        text: list[str] = []
        at = 0
        for index, line in enumerate(lines):
            if index < len(before) and line == before[index]:
                continue
            if index >= len(before):
                text.append(_down(len(before) - 1 - at) + "\r\n" if index == len(before) else "\r\n")
            else:
                text.append(_down(index - at) + "\r")
            text.append(line + _REST_OF_LINE)
            at = index
        if len(lines) < len(before):
            text.append(_down(len(lines) - 1 - at) + "\r\n" + _TO_END)
            at = len(lines)
        return "".join(text) + _up(at) + "\r" if text else ""

    def _write(self, text: str) -> None:
        if self.gone:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:  # a terminal that someone made non-blocking, and that is full: draw all of the next one
            self._size = (0, 0)
        except (OSError, ValueError):
            self.gone = True


def _up(lines: int) -> str:
    return f"\x1b[{lines}A" if lines > 0 else ""


def _down(lines: int) -> str:
    return f"\x1b[{lines}B" if lines > 0 else ""
