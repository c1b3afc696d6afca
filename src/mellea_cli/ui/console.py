"""The terminal, as Rich sees it, and short messages on it. Talk goes to stderr; stdout carries data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from mellea_cli.ui.display import choose_display, is_terminal
from mellea_cli.ui.plaintext import clean, encodable

if TYPE_CHECKING:
    from rich.console import Console

    from mellea_cli.ui.paint import Span

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
    from mellea_cli.ui.paint import Palette

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

    from mellea_cli.ui.paint import look

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
