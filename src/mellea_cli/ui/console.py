"""The terminal, as Rich sees it, and short messages on it. Talk goes to stderr; stdout carries data."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from mellea_cli.ui.run_state import RunState
    from mellea_cli.ui.theme import Span


# Text from outside, made safe to show: it may say anything, it may do nothing.
#
# Feedback, answers, server messages and file names all pass here before they reach a terminal.

_SEQUENCE = re.compile(
    r"""
      (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]                            # CSI: colours, cursor, erase
    | (?: \x1b[\]PX^_] | [\x90\x98\x9d-\x9f] ) [^\x07\x1b\x9c]* (?: \x07 | \x1b\\ | \x9c )  # OSC, DCS and kin, closed
    | \x1b [ -/]+ [0-~]                                                  # character sets and the like
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"[\t\x0b-\x0d\x1c-\x1f\x85\u2028\u2029]")
_HARMFUL = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # controls, the line feed excepted
    "\u00ad\u061c\u180e\u200b\u200d-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # direction, joiners, zero width
    "\ufe00-\ufe0f"  # variation selectors: terminals do not agree on the width they give
    "\U000e0000-\U000e01ef"  # tags and more selectors: text that nobody can see
    "]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED = re.compile(f"({_MARK}{{2}}){_MARK}+")


def clean(text: str, *, one_line: bool = True) -> str:
    """Take out of `text` whatever a terminal would obey instead of show.

    Escape sequences, control characters, characters that turn the direction of writing round, and invisible ones
    are dropped; a lone surrogate becomes U+FFFD; at most two combining marks stay on one letter.

    Args:
        text: anything, from anywhere.
        one_line: make every run of white space, line breaks included, one space; otherwise line feeds are kept and
            tabs and other breaks become spaces.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split()) if one_line else text
    text = _SEQUENCE.sub("", text).replace("\r\n", "\n")
    text = _HARMFUL.sub("", _BREAK.sub(" ", text))
    text = _SURROGATE.sub("\ufffd", _STACKED.sub(r"\1", text))
    return " ".join(text.split()) if one_line else text


def encodable(text: str, encoding: str) -> str:
    """Replace by `?` what `encoding` has no letter for, so that a width measured now is the width that shows."""
    if text.isascii():
        return text
    try:
        return text.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "replace").decode("ascii")


# Keeps what is typed during a run from being echoed into the panels.


class Unechoed:
    """Turns the terminal's echo off between `start` and `stop`. What is typed waits for the shell; Ctrl-C works.

    Does nothing where there is no such terminal, or while the process is in the background: changing the terminal
    from there would stop the process.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._before: list[Any] | None = None

    def start(self) -> None:
        """Turn it off."""
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
        """Put it back as it was. May be called twice."""
        before, self._before = self._before, None
        if before is None:
            return
        import termios

        try:
            if in_foreground(self._stream):
                termios.tcsetattr(self._stream.fileno(), termios.TCSANOW, before)
        except (OSError, ValueError, termios.error):  # the terminal is gone
            return


def in_foreground(stream: IO[str]) -> bool:
    """Whether this process may draw on the terminal: it has not been sent to the background.

    True also where the question makes no sense.
    """
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return True


# What a display is, and which one a run gets.

DisplayName = Literal["live", "plain", "none"]


class Writable(Protocol):
    """Where data rows are written: all that is asked of a stream."""

    def write(self, text: str, /) -> int:
        """Take text."""

    def flush(self) -> None:
        """Pass it on."""


class Display(Protocol):
    """Shows a run while it goes on: a context manager around the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""

    def line(self, text: str) -> None:
        """Print one line without harm to what is shown."""

    def rows(self, stream: IO[str]) -> Writable:
        """The stream through which data rows reach `stream` without harm to what is shown."""


class NoDisplay:
    """Shows nothing (`--quiet`)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def rows(self, stream: IO[str]) -> Writable:
        """The stream itself."""
        return stream


def choose_display(*, stream: IO[str], environ: Mapping[str, str], quiet: bool, no_live: bool) -> DisplayName:
    """Decide how a run is shown.

    Args:
        stream: where talk goes: stderr.
        environ: the environment; `TERM`, `CI`, `TTY_COMPATIBLE` and `TTY_INTERACTIVE` are looked at.
        quiet: `--quiet` was given.
        no_live: `--no-live` was given.

    Returns:
        `"live"` at a terminal that can be drawn on and that is ours (not the shell's: `mellea ... &`), `"plain"`
        anywhere else, `"none"` when asked to be quiet.
    """
    if quiet:
        return "none"
    if no_live or not is_terminal(stream, environ):
        return "plain"
    dumb = environ.get("TERM", "").lower() in {"dumb", "unknown"}
    automatic = environ.get("CI", "").lower() not in {"", "0", "false"}
    still = environ.get("TTY_INTERACTIVE") == "0"
    return "plain" if dumb or automatic or still or not in_foreground(stream) else "live"


def is_terminal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal that can be drawn on; `TTY_COMPATIBLE=0` says that it is not."""
    if environ.get("TTY_COMPATIBLE") == "0":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def make_display(name: DisplayName, view: RunState, stream: IO[str], environ: Mapping[str, str]) -> Display:
    """Build the display called `name` for what `view` sees."""
    if name == "live":
        from mellea_cli.ui.live_panels import LiveDisplay

        console = make_console(stream, environ)
        if not console.legacy_windows:
            return LiveDisplay(view, console)
        name = "plain"
    if name == "plain":
        from mellea_cli.ui.plain_lines import PlainDisplay

        return PlainDisplay(view, stream)
    return NoDisplay()


__all__ = ["choose_display", "clean", "make_console", "print_table", "say", "say_error"]


def make_console(stream: IO[str], environ: Mapping[str, str]) -> Console:
    """A Rich console that obeys the environment and no markup.

    `NO_COLOR`, `FORCE_COLOR`, `TTY_COMPATIBLE`, `COLORTERM` and `TERM` are honoured.

    Args:
        stream: the stream to write to, usually stderr.
        environ: the environment.
    """
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False, _environ=environ)


def say(stream: IO[str], message: str) -> None:
    """Print one line of talk, such as which backend was chosen."""
    _write(stream, f"mellea: {clean(message)}\n")


def say_error(stream: IO[str], environ: Mapping[str, str], message: str, hint: str = "") -> None:
    """Print one line for what went wrong, and one for what to do next.

    Args:
        stream: stderr.
        environ: the environment, for colours.
        message: what happened, and where.
        hint: what to type next; nothing is printed when empty.
    """
    told, next_step = clean(message), clean(hint)
    if not _may_colour(stream, environ):
        _write(stream, f"mellea: error: {told}\n" + (f"mellea: try: {next_step}\n" if next_step else ""))
        return
    from mellea_cli.ui.theme import Palette

    palette = Palette(make_console(stream, environ))
    lines = [palette.ansi((("plain", "mellea: "), ("bad", "error: "), ("plain", palette.fit(told))))]
    if next_step:
        lines.append(palette.ansi((("plain", "mellea: "), ("done", "try: "), ("plain", palette.fit(next_step)))))
    _write(stream, "".join(f"{line}\n" for line in lines))


def print_table(
    rows: Sequence[Sequence[str | Span]],
    *,
    headers: Sequence[str] = (),
    stream: IO[str],
    environ: Mapping[str, str],
) -> None:
    """Print a table: folded to its width and coloured at a terminal, plain aligned text anywhere else.

    Args:
        rows: the cells; a cell with a role is a pair of the role and its text.
        headers: names of the columns; none when empty.
        stream: usually stdout.
        environ: the environment, for colours.
    """
    parted: list[list[Span]] = [[("plain", cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if not _may_colour(stream, environ):
        texts = [list(headers)] if headers else []
        texts += [[clean(text) for _, text in row] for row in parted]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for cells in texts:
            aligned = (text.ljust(size) for text, size in zip(cells, widths, strict=True))
            _write(stream, "  ".join(aligned).rstrip() + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    from mellea_cli.ui.theme import look

    console = make_console(stream, environ)
    table = Table(box=None, pad_edge=False, show_header=bool(headers), header_style="dim")
    for index in range(max(map(len, parted), default=0)):
        table.add_column(headers[index] if index < len(headers) else "", overflow="fold")
    for row in parted:
        table.add_row(*(Text(encodable(clean(text), console.encoding), style=look(role)) for role, text in row))
    console.print(table)


def _may_colour(stream: IO[str], environ: Mapping[str, str]) -> bool:
    forced = environ.get("FORCE_COLOR") or environ.get("TTY_COMPATIBLE") == "1"
    return bool(forced) or is_terminal(stream, environ)


def _write(stream: IO[str], text: str) -> None:
    stream.write(encodable(text, getattr(stream, "encoding", None) or "utf-8"))
    stream.flush()


# Asks for what must not be seen.


def ask_secret(question: str, stream: TextIO) -> str:
    """Ask at the terminal, without showing what is typed.

    Args:
        question: what to ask, one line.
        stream: where the question goes.

    Returns:
        What was typed; empty for nothing, also where nobody can be asked.
    """
    if not (sys.stdin.isatty() and stream.isatty()):
        return ""
    import getpass

    try:
        return getpass.getpass(f"{clean(question)} ", stream=stream).strip()
    except EOFError:
        return ""
