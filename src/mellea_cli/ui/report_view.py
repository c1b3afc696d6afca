"""Two outputs side by side at a terminal: what went up, what went down, what came and what went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from mellea_cli.report.comparison import Change, Comparison, points, row_sentence, theme_notes
from mellea_cli.report.figures import Figures, in_order, percent
from mellea_cli.ui.console import clean
from mellea_cli.ui.number_format import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mellea_cli.ui.theme import Line, Palette, Role, Span


# A report on one screen: how the feedback was judged, its themes, and the rows that need somebody first.

_LABEL_CELLS = 11
_NARROW = 72
_LEAST_BAR, _MOST_BAR = 4, 40
_FEWEST_THEMES = 4
_LONGEST_NAME = 30
_GROUPS = 4
_STEPS = " ▁▂▃▄▅▆▇█"
_UNBOUNDED = 10_000


def print_report(figures: Figures, next_steps: Sequence[str], stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print the picture: as large as the terminal at one, with every theme anywhere else.

    Args:
        figures: what to show.
        next_steps: what to type next, a line each.
        stream: usually stdout.
        environ: the environment, for colours and for what the terminal can do.
    """
    from mellea_cli.ui.console import is_terminal, make_console
    from mellea_cli.ui.theme import Palette

    console = make_console(stream, environ)
    palette = Palette(console)
    columns, rows = (console.width, console.height) if is_terminal(stream, environ) else (80, _UNBOUNDED)
    lines = report_lines(figures, next_steps, (max(24, columns - 1), rows), palette)
    stream.write("".join(f"{palette.ansi(line).rstrip()}\n" for line in lines))
    stream.flush()


def report_lines(
    figures: Figures, next_steps: Sequence[str], size: tuple[int, int], palette: Palette
) -> Iterator[Line]:
    """The picture for a screen of `size` cells across and down; only what to type next may be longer than that."""
    columns, rows = size
    head = list(_head(figures, columns, palette))
    mixes = list(_mixes(figures, columns, palette))
    splits = list(_splits(figures, columns, palette))
    tail = list(_tail(figures, next_steps, columns, palette))
    over_time = list(_trend(figures, columns, palette))
    urgent = list(_urgent(figures, columns, palette, lines=2))

    def left() -> int:
        # The prompt needs a line of its own, and each block an empty one before it.
        return rows - sum(len(block) + 1 for block in (head, mixes, over_time, splits, urgent, tail) if block) - 1

    if left() < _FEWEST_THEMES:
        over_time = []
    if left() < _FEWEST_THEMES:
        urgent = list(_urgent(figures, columns, palette, lines=1))
    themes = list(_themes(figures, columns, max(_FEWEST_THEMES, left()), palette))
    written = False
    for block in (head, mixes, themes, over_time, splits, urgent, tail):
        if block and written:
            yield ()
        yield from block
        written = written or bool(block)


def _tail(figures: Figures, next_steps: Sequence[str], columns: int, palette: Palette) -> Iterator[Line]:
    """What a reader should know about the figures, and what to type next."""
    from mellea_cli.ui.theme import shorten, wrap

    for note in figures.notes:
        first, *more = wrap(palette.fit(clean(note)), columns - _LABEL_CELLS)
        yield (("label", f"{'note':<{_LABEL_CELLS}}"), ("warn", first))
        if more:
            rest = shorten(" ".join(more), columns - _LABEL_CELLS, palette.glyphs.cut)
            yield (("plain", " " * _LABEL_CELLS), ("warn", rest))
    for index, step in enumerate(next_steps):
        yield (("label", f"{'next' if index == 0 else '':<{_LABEL_CELLS}}"), ("strong", palette.fit(clean(step))))


def _head(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    from mellea_cli.ui.theme import wrap

    if not figures.rows:
        yield (("strong", "no rows: there is nothing to report"),)
        return
    for part in wrap(palette.fit(clean(figures.reconciliation())), columns):
        yield (("strong", part),)
    if figures.failures:
        kinds = ", ".join(f"{count(number)} {kind}" for kind, number in figures.failures.items())
        for part in wrap(palette.fit(clean(f"failed: {kinds}")), columns)[:2]:
            yield (("bad", part),)


def _mixes(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """Sentiment and urgency, side by side where there is room."""
    from mellea_cli.ui.theme import pad

    if not figures.answered:
        return
    wide = columns >= _NARROW
    room = (columns - 2) // 2 if wide else columns
    left = _bars("sentiment", in_order(figures.mix.sentiment), figures.answered, room, palette)
    right = _bars("urgency", in_order(figures.mix.urgency, "urgency"), figures.answered, room, palette)
    if not wide:
        yield from (*left, (), *right)
        return
    for index in range(max(len(left), len(right))):
        first = left[index] if index < len(left) else ()
        second = right[index] if index < len(right) else ()
        yield (*pad(first, room + 2), *second)


def _bars(label: str, pairs: Sequence[tuple[str, int]], whole: int, columns: int, palette: Palette) -> list[Line]:
    from mellea_cli.ui.theme import judged

    entries = [(judged(name), name, number) for name, number in pairs]
    return list(_chart(label, entries, (whole, whole), columns, palette))


def _chart(
    label: str, entries: Sequence[tuple[Role, str, int]], scale: tuple[int, int], columns: int, palette: Palette
) -> Iterator[Line]:
    """A bar for each entry: its colour, its name and how many.

    `scale` is how many the longest bar stands for, and how many are all.
    """
    from mellea_cli.ui.theme import cells_of, clip, pad, shorten

    longest, whole = scale
    named = [(role, palette.fit(clean(name)), number) for role, name, number in entries]
    digits = max((len(count(number)) for _, _, number in named), default=1)
    names = min(
        max((cells_of(name) for _, name, _ in named), default=0), _LONGEST_NAME, columns - _LABEL_CELLS - digits - 9
    )
    bar = min(_MOST_BAR, columns - _LABEL_CELLS - names - digits - 9)
    for index, (role, name, number) in enumerate(named):
        line: list[Span] = [("label", f"{label if index == 0 else '':<{_LABEL_CELLS}}")]
        line += pad((("plain", shorten(name, names, palette.glyphs.cut)),), names + 1)
        if bar >= _LEAST_BAR and longest:
            filled = max(1, round(bar * number / longest)) if number else 0
            line += [(role, palette.glyphs.block * filled), ("plain", " " * (bar - filled + 1))]
        share = percent(number / whole) if whole else ""
        line += [("plain", f"{count(number):>{digits}}"), ("quiet", f" {share:>4}")]
        yield clip(tuple(line), columns)


def _themes(figures: Figures, columns: int, room: int, palette: Palette) -> Iterator[Line]:
    """The most frequent themes, as many as there is room for, and a line for the rest."""
    if (labels := figures.labels) is None:
        return
    shown = list(figures.themes)
    rest = [f"{count(labels.other)} other", f"{count(labels.none)} none", f"{count(labels.unlabelled)} not labelled"]
    if len(shown) > room - 1:
        shown = shown[: max(1, room - 1)]
        rest.insert(0, f"{len(figures.themes) - len(shown)} more themes")
    entries: list[tuple[Role, str, int]] = [("done", theme.name, theme.count) for theme in shown]
    longest = max((theme.count for theme in shown), default=0)
    yield from _chart("themes", entries, (longest, figures.answered), columns, palette)
    from mellea_cli.ui.theme import clip

    between = f" {palette.glyphs.dot} "
    yield clip((("label", f"{'' if shown else 'themes':<{_LABEL_CELLS}}"), ("quiet", between.join(rest))), columns)


def _trend(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """Rows over time in one line of small columns between the names of the first and the last bucket."""
    trend = figures.trend
    if trend is None or len(trend.points) < 2 or palette.glyphs.block != "█":
        return
    most = max(point.rows for point in trend.points)
    steps = "".join(_STEPS[-(-point.rows * (len(_STEPS) - 1) // most)] for point in trend.points)
    first, last = trend.points[0].name, trend.points[-1].name
    if len(steps) + len(first) + len(last) + 2 > columns - _LABEL_CELLS:
        return
    label: Span = ("label", f"{f'by {trend.bucket}':<{_LABEL_CELLS}}")
    yield (label, ("quiet", f"{first} "), ("done", steps), ("quiet", f" {last}"))


def _splits(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """For each column that was asked for its most frequent values: rows, and how many of them are negative."""
    from mellea_cli.ui.theme import cells_of, clip, pad, shorten

    for split in figures.splits:
        groups = split.groups[:_GROUPS]
        named = [(palette.fit(clean(group.value)), group.mix) for group in groups]
        names = min(max((cells_of(name) for name, _ in named), default=0), _LONGEST_NAME)
        digits = max((len(count(mix.rows)) for _, mix in named), default=1)
        label = shorten(palette.fit(clean(split.column)), _LABEL_CELLS - 1, palette.glyphs.cut)
        for index, (name, mix) in enumerate(named):
            line: list[Span] = [*pad((("label", label if index == 0 else ""),), _LABEL_CELLS)]
            line += pad((("plain", shorten(name, names, palette.glyphs.cut)),), names + 1)
            line += [("plain", f"{count(mix.rows):>{digits}}"), ("quiet", " rows  ")]
            line += [("bad", f"{percent(mix.share('negative')):>4}"), ("quiet", " negative  ")]
            line += [("warn", f"{percent(mix.share('high', 'urgency')):>4}"), ("quiet", " high urgency")]
            yield clip(tuple(line), columns)
        if rest := split.other_values + len(split.groups) - len(groups):
            yield (("plain", " " * _LABEL_CELLS), ("quiet", f"{count(rest)} more"))


def _urgent(figures: Figures, columns: int, palette: Palette, *, lines: int) -> Iterator[Line]:
    """The rows that need somebody first, each with its id in the colour of its urgency, in at most so many lines."""
    from mellea_cli.ui.theme import cells_of, judged, shorten, wrap

    room = columns - _LABEL_CELLS
    for index, quote in enumerate(figures.urgent):
        label: Span = ("label", f"{'urgent' if index == 0 else '':<{_LABEL_CELLS}}")
        ident = shorten(f"[{palette.fit(clean(quote.id))}", room // 2, palette.glyphs.cut) + "] "
        # The beginning is wrapped around a word as wide as the id, which may hold spaces itself.
        first, *more = wrap("x" * (cells_of(ident) - 1) + " " + palette.fit(clean(quote.text)), room)
        words = first[cells_of(ident) :]
        if more and lines == 1:
            words = shorten(f"{words} {more[0]}", room - cells_of(ident), palette.glyphs.cut)
        yield (label, (judged(quote.urgency), ident), ("plain", words))
        if more and lines > 1:
            rest = shorten(" ".join(more[:2]), room, palette.glyphs.cut)
            yield (("plain", " " * _LABEL_CELLS), ("plain", rest))


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
    from mellea_cli.ui.console import is_terminal, make_console
    from mellea_cli.ui.theme import Palette

    console = make_console(stream, environ)
    palette = Palette(console)
    columns = console.width - 1 if is_terminal(stream, environ) else 79
    lines = comparison_lines(comparison, max(40, columns), palette)
    stream.write("".join(f"{palette.ansi(line).rstrip()}\n" for line in lines))
    stream.flush()


def comparison_lines(comparison: Comparison, columns: int, palette: Palette) -> Iterator[Line]:
    """The comparison for a terminal of `columns` cells."""
    from mellea_cli.ui.theme import shorten, wrap

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
    from mellea_cli.ui.theme import cells_of, clip, pad, shorten

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
