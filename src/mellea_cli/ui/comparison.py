"""Two outputs side by side at a terminal: what went up, what went down, what came and what went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from mellea_cli.report.changes import points, row_sentence, theme_notes
from mellea_cli.report.compare import Change, Comparison
from mellea_cli.report.figures import percent
from mellea_cli.ui.figures import count
from mellea_cli.ui.plaintext import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mellea_cli.ui.paint import Line, Palette, Role, Span

_LABEL_CELLS = 11
_MOST_NAME = 34
_GOOD_WHEN_MORE = {"positive", "low"}
_BAD_WHEN_MORE = {"negative", "high"}


def print_comparison(comparison: Comparison, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print a comparison.

    Args:
        comparison: what changed.
        stream: usually stdout.
        environ: the environment, for colours and for what the terminal can do.
    """
    from mellea_cli.ui.console import make_console
    from mellea_cli.ui.display import is_terminal
    from mellea_cli.ui.paint import Palette

    console = make_console(stream, environ)
    palette = Palette(console)
    columns = console.width - 1 if is_terminal(stream, environ) else 79
    lines = comparison_lines(comparison, max(40, columns), palette)
    stream.write("".join(f"{palette.ansi(line).rstrip()}\n" for line in lines))
    stream.flush()


def comparison_lines(comparison: Comparison, columns: int, palette: Palette) -> Iterator[Line]:
    """The comparison for a terminal of `columns` cells."""
    from mellea_cli.ui.paint import shorten, wrap

    for label, figures in (("old", comparison.old), ("new", comparison.new)):
        told = palette.fit(clean(f"{figures.name}: {figures.reconciliation()}"))
        yield (
            ("label", f"{label:<{_LABEL_CELLS}}"),
            ("strong", shorten(told, columns - _LABEL_CELLS, palette.glyphs.cut)),
        )
    for index, part in enumerate(wrap(palette.fit(row_sentence(comparison)), columns - _LABEL_CELLS)):
        yield (("label", f"{'rows' if index == 0 else '':<{_LABEL_CELLS}}"), ("plain", part))
    for group in ("sentiment", "urgency", "theme"):
        if changes := comparison.of(group):
            yield ()
            yield from _table(group, changes, columns, palette)
    notes = theme_notes(comparison)
    if notes:
        yield ()
    for note in notes:
        for part in wrap(palette.fit(clean(note)), columns - _LABEL_CELLS):
            yield (("label", f"{'note':<{_LABEL_CELLS}}"), ("warn", part))


def _table(group: str, changes: list[Change], columns: int, palette: Palette) -> Iterator[Line]:
    from mellea_cli.ui.paint import cells_of, clip, pad, shorten

    named = [(palette.fit(clean(change.name)), change) for change in changes]
    digits = max(len(count(number)) for change in changes for number in (change.old, change.new))
    arrow = palette.glyphs.arrow
    names = min(max(cells_of(name) for name, _ in named), _MOST_NAME, max(8, columns - _LABEL_CELLS - 2 * digits - 34))
    for index, (name, change) in enumerate(named):
        line: list[Span] = [("label", f"{group if index == 0 else '':<{_LABEL_CELLS}}")]
        line += pad((("plain", shorten(name, names, palette.glyphs.cut)),), names + 2)
        line += [("plain", f"{count(change.old):>{digits}} {arrow} {count(change.new):>{digits}}")]
        line += [("quiet", f"   {percent(change.old_share):>4} {arrow} {percent(change.new_share):>4}   ")]
        line += [(_role(change), points(change))]
        yield clip(tuple(line), columns)


def _role(change: Change) -> Role:
    if abs(change.points) < 0.05:
        return "quiet"
    if change.group == "theme":
        return "warn" if change.arrival else "strong"
    up = change.points > 0
    if change.name in _GOOD_WHEN_MORE:
        return "good" if up else "bad"
    if change.name in _BAD_WHEN_MORE:
        return "bad" if up else "good"
    return "strong"
