"""Control of a terminal: whether it can be drawn on, its echo, and an area of lines that is redrawn in place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prompt_toolkit.enums import EditingMode


class Writable(Protocol):
    """A stream that rows are written to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


def is_terminal(stream: IO[str] | None, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal; `TTY_COMPATIBLE=0` says that it is not."""
    if stream is None or environ.get("TTY_COMPATIBLE") == "0":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def can_draw(stream: IO[str] | None, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor; a dumb one cannot."""
    return is_terminal(stream, environ) and environ.get("TERM", "").lower() not in {"dumb", "unknown"}


def in_foreground(stream: IO[str]) -> bool:
    """Whether this process may draw on the terminal; also true where there are no background processes."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return True


def editing_mode(environ: Mapping[str, str]) -> EditingMode:
    """Vi or emacs keys, as the user's inputrc says."""
    from prompt_toolkit.enums import EditingMode

    path = Path(environ.get("INPUTRC") or "~/.inputrc").expanduser()
    try:
        found = re.findall(r"^\s*set\s+editing-mode\s+(\w+)", path.read_text("utf-8", "replace"), re.MULTILINE)
    except (OSError, RuntimeError):
        return EditingMode.EMACS
    return EditingMode.VI if found and found[-1].lower() == "vi" else EditingMode.EMACS


class NoEcho:
    """Turns the terminal's echo off, so that typed keys do not tear what is drawn. They wait for the shell.

    Does nothing without a terminal, or in the background: changing the terminal from there would stop the process.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._before: list[Any] | None = None

    def start(self) -> None:
        """Turn the echo off."""
        try:
            import termios
        except ImportError:  # Windows
            return
        try:
            if in_foreground(self._stream):
                before = termios.tcgetattr(self._stream.fileno())
                changed = [*before]
                changed[3] = before[3] & ~termios.ECHO
                termios.tcsetattr(self._stream.fileno(), termios.TCSANOW, changed)
                self._before = before
        except (OSError, ValueError, termios.error):  # not a terminal
            return

    def stop(self) -> None:
        """Restore the terminal. May be called twice."""
        before, self._before = self._before, None
        if before is None:
            return
        import termios

        try:
            if in_foreground(self._stream):
                termios.tcsetattr(self._stream.fileno(), termios.TCSANOW, before)
        except (OSError, ValueError, termios.error):  # the terminal is gone
            return


# Terminals that show a program's progress in their tab or in the taskbar (OSC 9;4, from ConEmu). Others would take the
# sequence for the text of a notification, so it is for those that are known.
_PROGRESS_PROGRAMS = frozenset({"ghostty", "WezTerm", "rio"})
_NO_TITLE = frozenset({"", "linux", "dumb", "unknown"})


class OutsideProgress:
    """A run's progress outside of the text area: in the window's title (OSC 0) and in the taskbar (OSC 9;4).

    The methods return escape sequences, empty where nothing has changed.

    Args:
        environ: the environment, which tells the terminal.
        name: what runs, such as the name of the output.
    """

    def __init__(self, environ: Mapping[str, str], name: str) -> None:
        self._name = name
        self._titled = environ.get("TERM", "") not in _NO_TITLE or bool(environ.get("WT_SESSION"))
        self._taskbar = bool(
            environ.get("WT_SESSION")
            or environ.get("ConEmuANSI") == "ON"
            or environ.get("TERM_PROGRAM") in _PROGRESS_PROGRAMS
            or "4;" in environ.get("TERM_FEATURES", "")
        )
        self._shown: tuple[int | None, str] | None = None

    def update(self, progress: tuple[int | None, str]) -> str:
        """The sequences for a share in percent, `None` when unknown, and a state, `running` or `paused`."""
        if progress == self._shown or not (self._titled or self._taskbar):
            return ""
        first, self._shown = self._shown is None, progress
        percent, state = progress
        text = ""
        if self._titled:
            share = "" if percent is None else f"{percent}% "
            paused = "paused " if state == "paused" else ""
            # The title that was there is pushed on the terminal's stack of titles.
            text += f"{_PUSH_TITLE if first else ''}\x1b]0;{paused}{share}{self._name} - mellea\x07"
        if self._taskbar:
            code = 3 if percent is None else 4 if state == "paused" else 1
            text += f"\x1b]9;4;{code};{percent or 0}\x07"
        return text

    def reset(self) -> str:
        """The sequences that restore title and taskbar."""
        if self._shown is None:
            return ""
        self._shown = None
        return (f"\x1b]0;\x07{_POP_TITLE}" if self._titled else "") + ("\x1b]9;4;0;0\x07" if self._taskbar else "")


_PUSH_TITLE, _POP_TITLE = "\x1b[22;0t", "\x1b[23;0t"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\x1b[J"
_ERASE_LINE_END = "\x1b[K"


class RedrawnArea:
    """A few lines at the bottom of a terminal that are redrawn in place. Not locked: its owner is."""

    # Rich's `Live` erases its whole area for each frame and finds it again by counting the lines it wrote: it flickers,
    # and after the terminal has become narrower the count is wrong, because terminals differ in how they wrap existing
    # lines. Here the cursor rests at the first cell of the area instead. A terminal keeps the cursor with its text
    # through a resize, so the area is always what follows the cursor, and only changed lines are written.

    def __init__(self, stream: IO[str], fallback: tuple[int, int] = (80, 24)) -> None:
        self._stream = stream
        self._fallback = fallback
        self._lines: list[str] = []
        self._size = (0, 0)
        self._open = False
        self._used = False
        self.gone = False  # The terminal accepts nothing any more

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return self._fallback
        return (columns or self._fallback[0], rows or self._fallback[1])

    def draw(self, lines: list[str], size: tuple[int, int], *, above: str = "") -> None:
        """Bring the area up to date.

        Args:
            lines: the new lines, with their escape sequences; narrower than the terminal, fewer than it has rows.
            size: the size that they were made for.
            above: whole lines to print above the area, each with its line feed; they stay when the area goes.
        """
        if not lines and not self._open:
            text = above
        elif above or size != self._size or not self._open:
            text = self._redraw(lines, above)
        else:
            text = self._update(lines)
        self._lines, self._size, self._open = lines, size, bool(lines)
        self._used = self._used or self._open
        if text:
            self._write(_NO_WRAP + text + _WRAP if self._used else text)

    def insert(self, above: str) -> None:
        """Print whole lines above the area."""
        if self._open:
            self.draw(self._lines, self._size, above=above)
        else:
            self._write(above)

    def close(self, *, above: str = "") -> None:
        """Print the last lines, remove the area and show the cursor. May be called twice."""
        start = f"\r{_ERASE_BELOW}" if self._open else ""
        end = _WRAP + _SHOW_CURSOR if self._used else ""
        if start or above or end:
            self._write(start + above + end)
        self._lines, self._open, self._used = [], False, False

    def control(self, sequence: str) -> None:
        """Write escape sequences that move nothing, such as a title's."""
        if sequence:
            self._write(sequence)

    def abandon(self) -> None:
        """Something else has written to the terminal: start again on the line where the cursor is now."""
        self._lines, self._open = [], False

    def _redraw(self, lines: list[str], above: str) -> str:
        start = "\r" + _ERASE_BELOW if self._open else ""
        # Lines above may be longer than the terminal is wide: they wrap like any text.
        wrapped = f"{_WRAP}{above}{_NO_WRAP}" if above else ""
        body = "\r\n".join(line + _ERASE_LINE_END for line in lines)
        return _HIDE_CURSOR + start + wrapped + body + _up(len(lines) - 1) + "\r"

    def _update(self, lines: list[str]) -> str:
        """Write only the lines that differ from the last frame."""
        before = self._lines
        if not lines:
            return "\r" + _ERASE_BELOW
        text: list[str] = []
        at = 0
        for index, line in enumerate(lines):
            if index < len(before) and line == before[index]:
                continue
            if index >= len(before):
                text.append(_down(len(before) - 1 - at) + "\r\n" if index == len(before) else "\r\n")
            else:
                text.append(_down(index - at) + "\r")
            text.append(line + _ERASE_LINE_END)
            at = index
        if len(lines) < len(before):
            text.append(_down(len(lines) - 1 - at) + "\r\n" + _ERASE_BELOW)
            at = len(lines)
        return "".join(text) + _up(at) + "\r" if text else ""

    def _write(self, text: str) -> None:
        if self.gone:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:  # somebody made the terminal non-blocking, and it is full: redraw with the next frame
            self._size = (0, 0)
        except (OSError, ValueError):
            self.gone = True


def _up(lines: int) -> str:
    return f"\x1b[{lines}A" if lines > 0 else ""


def _down(lines: int) -> str:
    return f"\x1b[{lines}B" if lines > 0 else ""
