"""The standard streams: clean text, numbers, messages, tables and secrets. Data go to stdout, messages to stderr."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO

from mellea_cli.ui.terminal import is_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from mellea_cli.ui.theme import Span

_ESCAPE_SEQUENCE = re.compile(
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
    "\U000e0000-\U000e01ef"  # tags and more selectors: invisible text
    "]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED_MARKS = re.compile(f"({_MARK}{{2}}){_MARK}+")


def clean(text: str, *, one_line: bool = True) -> str:
    """Remove from `text` whatever a terminal would obey instead of show; one line unless `one_line` is off.

    Feedback, answers, server messages and file names all pass here before they reach a terminal. Escape sequences,
    control characters, characters that change the direction of writing, and invisible ones are dropped; a lone
    surrogate becomes U+FFFD; at most two combining marks stay on one character. Tabs and other breaks become spaces.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split()) if one_line else text
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    text = _HARMFUL.sub("", _BREAK.sub(" ", text))
    text = _SURROGATE.sub("\ufffd", _STACKED_MARKS.sub(r"\1", text))
    return " ".join(text.split()) if one_line else text


def encodable(text: str, encoding: str) -> str:
    """Replace by `?` what `encoding` lacks, so that a width measured now is the width that shows."""
    if text.isascii():
        return text
    try:
        return text.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "replace").decode("ascii")


# Numbers for people: every display writes them alike.


def count(number: int) -> str:
    """A whole number with thousands separators: `48,210`."""
    return f"{number:,}"


def plural(number: int, one: str, several: str = "") -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def rate(per_second: float) -> str:
    """A rate with about two significant digits: `0.08`, `2.4`, `31`, `1,240`."""
    if per_second >= 9.95:
        return f"{per_second:,.0f}"
    if per_second >= 0.095 or per_second == 0:
        return f"{per_second:.1f}"
    return f"{per_second:.2f}"


def duration(seconds: float) -> str:
    """A length of time, coarser the longer it is: `4.2s`, `38s`, `2m 38s`, `1h 05m`, `2d 3h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def remaining(seconds: float) -> str:
    """A time still to come: rounded up to whole seconds, and to steps of 10 s from five minutes on. Never `0s`."""
    whole = max(1, math.ceil(seconds))
    if whole >= 300:
        whole = math.ceil(whole / 10) * 10
    return f"{whole}s" if whole < 60 else duration(whole)


def money(amount: float, currency: str = "") -> str:
    """An amount with its cents, and with three digits below a hundredth: `$12.40`, `0.0042`."""
    if amount >= 0.995:
        return f"{currency}{amount:,.2f}"
    return f"{currency}{amount:.3g}" if amount else f"{currency}0"


def make_console(stream: IO[str], environ: Mapping[str, str]) -> Console:
    """A Rich console that obeys the environment (`NO_COLOR`, `FORCE_COLOR`, `COLORTERM`, `TERM` …) and no markup."""
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False, _environ=environ)


def say(stream: IO[str], message: str) -> None:
    """Print one line of information, such as which backend was chosen."""
    _write(stream, f"mellea: {clean(message)}\n")


def say_error(stream: IO[str], environ: Mapping[str, str], message: str, hint: str = "") -> None:
    """Print one line for what went wrong and where, and one for what to type next."""
    lines: list[tuple[Span, Span]] = [(("bad", "error: "), ("plain", clean(message)))]
    if hint := clean(hint):
        lines.append((("done", "try: "), ("plain", hint)))
    if not _may_colour(stream, environ):
        _write(stream, "".join(f"mellea: {head[1]}{text[1]}\n" for head, text in lines))
        return
    from mellea_cli.ui.theme import Palette

    palette = Palette(make_console(stream, environ))
    _write(stream, "".join(f"{palette.ansi((('plain', 'mellea: '), *line))}\n" for line in lines))


def say_record(stream: IO[str], record: Mapping[str, Any]) -> None:
    """Print one line of JSON for programs."""
    import json

    text = json.dumps(record, ensure_ascii=False)
    # What a terminal would obey, and what cannot be encoded, is escaped.
    _write(stream, (text if clean(text, one_line=False) == text else json.dumps(record)) + "\n")


def print_table(
    rows: Sequence[Sequence[str | Span]], *, headers: Sequence[str] = (), stream: IO[str], environ: Mapping[str, str]
) -> None:
    """Print a table: folded to its width and coloured at a terminal, plain aligned text anywhere else."""
    cells: list[list[Span]] = [[("plain", cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if not _may_colour(stream, environ):
        texts = [list(headers)] if headers else []
        texts += [[clean(text) for _, text in row] for row in cells]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for line in texts:
            aligned = (text.ljust(size) for text, size in zip(line, widths, strict=True))
            _write(stream, "  ".join(aligned).rstrip() + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    from mellea_cli.ui.theme import rich_style

    console = make_console(stream, environ)
    table = Table(box=None, pad_edge=False, show_header=bool(headers), header_style="dim")
    for index in range(max(map(len, cells), default=0)):
        table.add_column(headers[index] if index < len(headers) else "", overflow="fold")
    for row in cells:
        table.add_row(*(Text(encodable(clean(text), console.encoding), style=rich_style(role)) for role, text in row))
    console.print(table)


def _may_colour(stream: IO[str], environ: Mapping[str, str]) -> bool:
    forced = environ.get("FORCE_COLOR") or environ.get("TTY_COMPATIBLE") == "1"
    return bool(forced) or is_terminal(stream, environ)


def _write(stream: IO[str], text: str) -> None:
    stream.write(encodable(text, getattr(stream, "encoding", None) or "utf-8"))
    stream.flush()


def ask_secret(question: str, stream: TextIO) -> str:
    """Ask at the terminal without showing what is typed; empty for no answer, or without a terminal."""
    if not (sys.stdin.isatty() and stream.isatty()):
        return ""
    import getpass

    try:
        return getpass.getpass(f"{clean(question)} ", stream=stream).strip()
    except EOFError:
        return ""
