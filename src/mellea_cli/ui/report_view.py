"""Report view: a report on one screen, and two outputs compared side by side."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from mellea_cli.report.agreement import Agreement, Estimate, FieldEvaluation, Share
from mellea_cli.report.comparison import Change, Comparison, held_sentence, points, row_sentence, theme_notes
from mellea_cli.report.figures import (
    FieldFigures,
    Figures,
    Quote,
    ReviewFigures,
    in_order,
    many,
    percent,
    review_sentence,
    with_interval,
)
from mellea_cli.ui.console import count, make_console
from mellea_cli.ui.terminal import is_terminal
from mellea_cli.ui.theme import (
    Bar,
    ChartSize,
    Line,
    Palette,
    Role,
    Span,
    bar_chart,
    cells_of,
    clip,
    judgement_role,
    pad,
    shorten,
    wrap,
)

if TYPE_CHECKING:
    from rich.console import Console

_LABEL_CELLS = 11
_SHORT_LABEL = 8  # Of a chart next to another
_LONGEST_BAR = 40
_MIN_THEMES = 4
_LONGEST_NAME = 30
_MAX_GROUPS = 4
_COLUMN_GLYPHS = " ▁▂▃▄▅▆▇█"
_UNBOUNDED = 10_000


def print_report(figures: Figures, next_steps: Sequence[str], stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print a report and what to type next: as large as the terminal at one, with every theme anywhere else."""
    console = make_console(stream, environ)
    palette = Palette(console)
    columns = _columns(console, stream, environ, 79)
    rows = console.height if is_terminal(stream, environ) else _UNBOUNDED
    palette.print(report_lines(figures, next_steps, (max(24, columns), rows), palette), stream)


def _columns(console: Console, stream: IO[str], environ: Mapping[str, str], otherwise: int) -> int:
    """The width to write in: that of the terminal without its last column, else `COLUMNS`, else a usual one."""
    if is_terminal(stream, environ):
        return console.width - 1
    told = environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else otherwise


def report_lines(
    figures: Figures, next_steps: Sequence[str], size: tuple[int, int], palette: Palette
) -> Iterator[Line]:
    """The report for a screen of `size` columns and rows; only what to type next may be wider than that."""
    columns, rows = size
    head = list(_head(figures, columns, palette))
    judgements = list(_judgements(figures, columns, palette))
    splits = list(_splits(figures, columns, palette))
    fields = [line for field in figures.fields for line in _field(field, figures, columns, palette)]
    review = list(_review(figures.review, columns, palette))
    tail = list(_notes_and_next(figures, next_steps, columns, palette))
    trend = list(_trend(figures, columns, palette))
    score = list(_score(figures, columns, palette))
    urgent = list(_urgent(figures.urgent, columns, palette, lines=2))

    def room() -> int:
        # Each block needs an empty line before it, and the shell's prompt a line below.
        blocks = (head, judgements, score, fields, review, trend, splits, urgent, tail)
        return rows - sum(len(block) + 1 for block in blocks if block) - 1

    if room() < _MIN_THEMES:
        trend = []
    if room() < _MIN_THEMES:
        urgent = list(_urgent(figures.urgent, columns, palette, lines=1))
    themes = list(_themes(figures, columns, max(_MIN_THEMES, room()), palette))
    blocks = [
        block for block in (head, judgements, score, fields, themes, review, trend, splits, urgent, tail) if block
    ]
    for index, block in enumerate(blocks):
        if index:
            yield ()
        yield from block


def _head(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    if not figures.rows:
        yield (("strong", "no rows: there is nothing to report"),)
        return
    for part in wrap(palette.safe(figures.reconciliation()), columns):
        yield (("strong", part),)
    if figures.failures:
        kinds = ", ".join(f"{count(number)} {kind}" for kind, number in figures.failures.items())
        for part in wrap(palette.safe(f"failed: {kinds}"), columns)[:2]:
            yield (("bad", part),)


def _judgements(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    if not figures.answered or not figures.judged:
        return
    sides = [
        (kind, in_order(counts, kind, figures.sentiments))
        for kind, counts in (("sentiment", figures.mix.sentiment), ("urgency", figures.mix.urgency))
    ]
    # Two charts are next to each other where both have room for their names and numbers.
    least = [
        max(cells_of(palette.safe(name)) for name, _ in pairs)
        + max(len(count(number)) for _, number in pairs)
        + max(len(figures.shown(number)) for _, number in pairs)
        + 4
        for _, pairs in sides
    ]
    side_by_side = sum(least) + _LABEL_CELLS + _SHORT_LABEL + 1 <= columns
    spare = max(0, columns - sum(least) - _LABEL_CELLS - _SHORT_LABEL - 1) // 2
    rooms = (least[0] + _LABEL_CELLS + spare, least[1] + _SHORT_LABEL + spare) if side_by_side else (columns, columns)
    left, right = (
        list(
            _chart(
                label,
                [(judgement_role(name), name, number) for name, number in pairs],
                figures.answered,
                figures,
                room,
                palette,
                _SHORT_LABEL if side_by_side and index else _LABEL_CELLS,
            )
        )
        for index, ((label, pairs), room) in enumerate(zip(sides, rooms, strict=True))
    )
    if not side_by_side:
        yield from (*left, (), *right)
        return
    for first, second in itertools.zip_longest(left, right, fillvalue=()):
        yield (*pad(first, rooms[0] + 1), *second)


_MOST_IMPACTS = 3


def _score(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """The score, and the themes and values that lower and raise it most beyond chance."""
    if (score := figures.score) is None:
        return
    head, _, rows = score.sentence().partition("), ")
    yield clip(
        (_label("score"), ("strong", f"{head})"), ("quiet", f"  {rows} by {palette.safe(score.column)}")), columns
    )
    held = [one for one in score.impacts if one.holds]
    down = [one for one in held if one.impact < 0][:_MOST_IMPACTS]
    up = [one for one in reversed(held) if one.impact > 0][:_MOST_IMPACTS]
    if score.impacts and not held:
        yield clip((_label(""), ("quiet", "no theme or value moves the score beyond chance")), columns)
    names = min(max((cells_of(palette.safe(one.name)) for one in (*down, *up)), default=0), _LONGEST_NAME)
    names = min(names, columns - _LABEL_CELLS - 47)
    for one in (*down, *up):
        line: list[Span] = [_label("")]
        line += pad((("plain", shorten(palette.safe(one.name), names, palette.glyphs.cut)),), names + 2)
        line += [("bad" if one.impact < 0 else "good", f"{score.shown(one.impact, signed=True):>6} {score.unit}")]
        line += [("quiet", f" ({score.shown(one.low)} to {score.shown(one.high)}), {count(one.rows)} rows")]
        yield clip(tuple(line), columns)


def _review(review: ReviewFigures | None, columns: int, palette: Palette) -> Iterator[Line]:
    """The shares by the model and as corrected by the reviewed sample."""
    if review is None:
        return
    for part in wrap(palette.safe(review_sentence(review)), columns):
        yield (("strong", part),)
    for field in review.fields:
        head = f"{field.right:,} of {field.reviewed:,} right"
        yield clip(
            (_label(shorten(palette.safe(field.name), _LABEL_CELLS - 1, palette.glyphs.cut)), ("quiet", head)), columns
        )
        shown = field.values[:_MAX_VALUES]
        names = [shorten(palette.safe(one.name), _LONGEST_NAME, palette.glyphs.cut) for one in shown]
        widest = max(map(cells_of, names), default=0)
        for name, one in zip(names, shown, strict=True):
            model = palette.fit(with_interval(one.model, one.model_interval))
            corrected = palette.fit(with_interval(one.corrected, one.interval))
            spans: Line = (
                *pad((_label(""), (judgement_role(one.name), name)), _LABEL_CELLS + widest + 2),
                ("quiet", f"model {model:<16}"),
                ("strong", f"  corrected {corrected}"),
            )
            yield clip(spans, columns)


_MAX_VALUES = 6


def _field(field: FieldFigures, figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """The most frequent values of an own field; mean and distribution of a number."""
    label = shorten(palette.safe(field.name), _LABEL_CELLS - 1, palette.glyphs.cut)
    if summary := field.summary():
        where = f"  in {count(field.answered)} rows" if field.has_chart else ""
        yield clip((_label(label), ("plain", summary), ("quiet", where)), columns)
        label = ""
    if not field.has_chart:
        return
    shown = field.values if field.mean is not None else field.values[:_MAX_VALUES]
    entries: list[tuple[Role, str, int]] = [("done", name, number) for name, number in shown]
    longest = max((number for _, _, number in entries), default=0)
    yield from _chart(label, entries, longest, figures, columns, palette)
    others = [f"{count(more)} more values"] if (more := len(field.values) - len(shown) + field.other_values) else []
    others += [f"{count(field.empty)} without a value"] if field.empty else []
    if others:
        yield clip((_label(""), ("quiet", f" {palette.glyphs.dot} ".join(others))), columns)


def _chart(
    label: str,
    entries: Sequence[tuple[Role, str, int]],
    longest: int,
    figures: Figures,
    columns: int,
    palette: Palette,
    label_cells: int = _LABEL_CELLS,
) -> Iterator[Line]:
    """A bar chart of (colour, name, number) with shares of the answered rows; `longest` rows fill a bar."""
    bars = [
        Bar(palette.safe(name), number, figures.shown(number) if figures.answered else "", role)
        for role, name, number in entries
    ]
    size = ChartSize.of(bars, columns, label_cells, _LONGEST_NAME, _LONGEST_BAR)
    yield from bar_chart(label, bars, longest, size, palette)


def _themes(figures: Figures, columns: int, room: int, palette: Palette) -> Iterator[Line]:
    """The most frequent themes, as many as there is room for, and a line for the others."""
    if (labels := figures.labels) is None:
        return
    rows = figures.theme_rows()
    shown = rows
    others = [f"{count(labels.other)} other", f"{count(labels.none)} none", f"{count(labels.unlabelled)} not labelled"]
    if len(shown) > room - 1:
        shown = shown[: max(1, room - 1)]
        others.insert(0, f"{len(rows) - len(shown)} more themes")
    entries: list[tuple[Role, str, int]] = [
        ("done", f"{palette.glyphs.dot} {theme.name}" if parent else theme.name, theme.count) for theme, parent in shown
    ]
    longest = max((theme.count for theme, _ in shown), default=0)
    yield from _chart("themes", entries, longest, figures, columns, palette)
    text = f" {palette.glyphs.dot} ".join(others)
    yield clip((_label("" if shown else "themes"), ("quiet", text)), columns)


def _trend(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    trend = figures.trend
    if trend is None or len(trend.points) < 2 or not palette.encoding.lower().startswith("utf"):
        return
    most = max(point.rows for point in trend.points)
    steps = "".join(_COLUMN_GLYPHS[-(-point.rows * (len(_COLUMN_GLYPHS) - 1) // most)] for point in trend.points)
    first, last = trend.points[0].name, trend.points[-1].name
    if len(steps) + len(first) + len(last) + 2 > columns - _LABEL_CELLS:
        return
    yield (_label(f"by {trend.bucket}"), ("quiet", f"{first} "), ("done", steps), ("quiet", f" {last}"))


def _splits(figures: Figures, columns: int, palette: Palette) -> Iterator[Line]:
    """The most frequent values of each column in `--by`: rows, and the shares of negative and highly urgent ones."""
    for split in figures.splits:
        groups = split.groups[:_MAX_GROUPS]
        named = [(palette.safe(group.value), group.mix) for group in groups]
        names = min(max((cells_of(name) for name, _ in named), default=0), _LONGEST_NAME)
        digits = max((len(count(mix.rows)) for _, mix in named), default=1)
        label = shorten(palette.safe(split.column), _LABEL_CELLS - 1, palette.glyphs.cut)
        for index, (name, mix) in enumerate(named):
            line: list[Span] = [*pad((("label", label if index == 0 else ""),), _LABEL_CELLS)]
            line += pad((("plain", shorten(name, names, palette.glyphs.cut)),), names + 1)
            line += [("plain", f"{count(mix.rows):>{digits}}"), ("quiet", " rows  ")]
            if not figures.judged:
                yield clip(tuple(line), columns)
                continue
            negative, high = (
                figures.shown(number, mix.answered) for number in (mix.sentiment["negative"], mix.urgency["high"])
            )
            if figures.has_sentiment("negative"):
                line += [("bad", f"{negative:>15}"), ("quiet", " negative ")]
            line += [("warn", f"{high:>14}"), ("quiet", " urgent")]
            yield clip(tuple(line), columns)
        if more := split.other_values + len(split.groups) - len(groups):
            yield (_label(""), ("quiet", f"{count(more)} more"))


def _urgent(quotes: Sequence[Quote], columns: int, palette: Palette, *, lines: int) -> Iterator[Line]:
    """The most urgent rows, each with its id in the colour of its urgency, in at most so many lines."""
    room = columns - _LABEL_CELLS
    for index, quote in enumerate(quotes):
        row_id = shorten(f"[{palette.safe(quote.id)}", room // 2, palette.glyphs.cut) + "] "
        # The first line is wrapped after a word as wide as the id, which may itself hold spaces.
        first, *more = wrap("x" * (cells_of(row_id) - 1) + " " + palette.safe(quote.text), room)
        text = first[cells_of(row_id) :]
        if more and lines == 1:
            text = shorten(f"{text} {more[0]}", room - cells_of(row_id), palette.glyphs.cut)
        yield (_label("" if index else "urgent"), (judgement_role(quote.urgency), row_id), ("plain", text))
        if more and lines > 1:
            yield (_label(""), ("plain", shorten(" ".join(more[:2]), room, palette.glyphs.cut)))


def _notes_and_next(figures: Figures, next_steps: Sequence[str], columns: int, palette: Palette) -> Iterator[Line]:
    room = columns - _LABEL_CELLS
    for note in figures.notes:
        first, *more = wrap(palette.safe(note), room)
        yield (_label("note"), ("warn", first))
        if more:
            yield (_label(""), ("warn", shorten(" ".join(more), room, palette.glyphs.cut)))
    for index, step in enumerate(next_steps):
        yield (_label("" if index else "next"), ("strong", palette.safe(step)))


def _label(text: str) -> Span:
    return ("label", f"{text:<{_LABEL_CELLS}}")


def _labelled(label: str, role: Role, text: str, room: int) -> Iterator[Line]:
    for index, part in enumerate(wrap(text, room)):
        yield (_label("" if index else label), (role, part))


_LONGEST_COMPARED_NAME = 34


def print_comparison(comparison: Comparison, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print a comparison, as wide as the terminal."""
    console = make_console(stream, environ)
    palette = Palette(console)
    columns = _columns(console, stream, environ, 79)
    palette.print(comparison_lines(comparison, max(40, columns), palette), stream)


def comparison_lines(comparison: Comparison, columns: int, palette: Palette) -> Iterator[Line]:
    """The comparison for a terminal of `columns` cells."""
    room = columns - _LABEL_CELLS
    for side, name, figures in comparison.sides():
        text = palette.safe(f"{name}: {figures.reconciliation()}")
        yield (_label(side), ("strong", shorten(text, room, palette.glyphs.cut)))
    yield from _labelled("rows", "plain", palette.safe(row_sentence(comparison)), room)
    yield from _labelled("result", "strong", held_sentence(comparison), room)
    if (score := comparison.score) is not None:
        role: Role = ("good" if score.change > 0 else "bad") if score.holds else "quiet"
        yield from _labelled("score", role, palette.safe(score.sentence()), room)
    for heading, changes in comparison.sections():
        yield ()
        label = shorten(palette.safe(heading), _LABEL_CELLS - 1, palette.glyphs.cut)
        yield from _changes(label, changes, columns, palette, series=bool(comparison.earlier))
    if notes := theme_notes(comparison):
        yield ()
    for note in notes:
        for part in wrap(palette.safe(note), room):
            yield (_label("note"), ("warn", part))


_WIDE_COMPARISON = 120
_LEAST_COMPARED_NAME = 12


def _changes(group: str, changes: list[Change], columns: int, palette: Palette, *, series: bool) -> Iterator[Line]:
    """A line for each share, or as many as its figures need: none is ever cut."""
    arrow = palette.glyphs.arrow
    wide = columns >= _WIDE_COMPARISON - 1  # The last column of a terminal stays empty

    def shares(change: Change) -> str:
        if series:
            return change.in_series(intervals=wide)
        if wide:
            return f"{change.side('old')} → {change.side('new')}"
        return f"{percent(change.old_share)} → {percent(change.new_share)}"

    digits = max(len(count(number)) for change in changes for number in (change.old, change.new))
    rows: list[list[Span]] = [
        [
            ("plain", palette.safe(change.name)),
            ("plain", f"{count(change.old):>{digits}} {arrow} {count(change.new):>{digits}}"),
            ("quiet", palette.safe(shares(change).replace("→", arrow))),
            (_change_role(change), points(change)),
            (_change_role(change), change.verdict),
        ]
        for change in changes
    ]
    widths = [max(cells_of(row[at][1]) for row in rows) for at in range(len(rows[0]))]
    room = columns - _LABEL_CELLS
    longest = min(widths[0], _LONGEST_COMPARED_NAME)
    on_one_line = room - sum(width + 2 for width in widths[1:])
    if on_one_line >= min(longest, _LEAST_COMPARED_NAME):
        layout, widths[0] = [[0, 1, 2, 3, 4]], min(longest, on_one_line)
    else:
        widths[0] = min(longest, max(8, room - sum(widths[at] + 2 for at in (1, 2, 4))))
        layout = _folded((0, 1, 2, 4, 3), widths, room)
    for index, row in enumerate(rows):
        row[0] = ("plain", shorten(row[0][1], widths[0], palette.glyphs.cut))
        for number, pieces in enumerate(layout):
            line: list[Span] = [_label(group if not index and not number else "")]
            if number:
                line.append(("plain", "  "))
            for at in pieces[:-1]:
                line += pad((row[at],), widths[at] + 2)
            # A series may be wider than the screen by itself.
            last = row[pieces[-1]]
            first, *more = wrap(last[1], max(8, room - 2)) if len(pieces) == 1 else [last[1]]
            yield (*line, (last[0], first))
            for part in more:
                yield (_label(""), ("plain", "  "), (last[0], part))


def _folded(pieces: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    """The pieces on as few lines as hold them; all lines but the first are indented by two cells."""
    lines: list[list[int]] = [[]]
    used = 0
    for at in pieces:
        if lines[-1] and used + widths[at] > room:
            lines.append([])
            used = 2
        lines[-1].append(at)
        used += widths[at] + 2
    return lines


def _change_role(change: Change) -> Role:
    """Colour only for what holds beyond chance."""
    if not change.holds:
        return "quiet"
    return "strong" if change.good is None else "good" if change.good else "bad"


def print_evaluation(
    fields: Sequence[FieldEvaluation],
    people: Sequence[Agreement],
    notes: Sequence[str],
    stream: IO[str],
    environ: Mapping[str, str],
) -> None:
    """Print how right the model is in each field, and how far people agree."""
    console = make_console(stream, environ)
    palette = Palette(console)
    columns = max(24, _columns(console, stream, environ, 100))
    lines: list[Line] = [(("strong", part),) for note in notes for part in wrap(palette.safe(note), columns)]
    for field in fields:
        # Free text is right in many forms: without a null in it there is no figure.
        if field.right or field.null_found:
            lines += [(), *(clip(line, columns) for line in _evaluated(field, palette))]
    if people:
        lines += [(), (("label", "agreement of people"),)]
        lines += [clip(line, columns) for one in people for line in _agreed(one, palette)]
    palette.print(lines, stream)


def _share(share: Share) -> str:
    return f"{with_interval(share.value, share.interval)}, {count(share.number)} of {count(share.size)}"


def _estimate(one: Estimate) -> str:
    return f"{one.value:.2f} ({one.interval.low:.2f} to {one.interval.high:.2f})"


def _evaluated(field: FieldEvaluation, palette: Palette) -> Iterator[Line]:
    yield (("strong", palette.safe(field.name)), ("quiet", f"  {many(field.rows, 'row')}"))
    figures = [("right", field.right), ("surest 80 %", field.surest), ("least sure 20 %", field.unsure)]
    figures += [("opposite label", field.opposite)]
    figures += [("null where null", field.null_found), ("value where value", field.value_found)]
    for name, share in figures:
        if share is not None and share.size:
            yield (("plain", f"  {name:<18}{palette.fit(_share(share))}"),)
        if name == "right" and field.macro_f1 is not None:
            yield (("plain", f"  {'macro F1':<18}{palette.fit(_estimate(field.macro_f1))}"),)
    if (found := field.calibration) is not None:
        then = f"{found['after']:.2f} calibrated by such rows" if found["weights"] else "no more than by chance"
        yield (("plain", f"  calibration error {found['before']:.2f}, {then}"),)
    yield from _confusion(field, palette)
    for column, value, share in field.groups:
        name = palette.safe(f"{column} {value}")
        yield (("plain", f"  {shorten(name, 28, palette.glyphs.cut):<30}{palette.fit(_share(share))}"),)


_MAX_LABELS = 8


def _confusion(field: FieldEvaluation, palette: Palette) -> Iterator[Line]:
    """The table of the person's labels and the model's; the most frequent ones where there are many."""
    totals: Counter[str] = Counter()
    for person, _, rows in field.confusion:
        totals[person] += rows
    shown = sorted(field.labels, key=lambda label: -totals[label])[:_MAX_LABELS]
    labels = [label for label in field.labels if label in shown]
    if len(labels) < 2:
        return
    cells = {(person, said): rows for person, said, rows in field.confusion}
    names = {label: shorten(palette.safe(label), 14, palette.glyphs.cut) for label in labels}
    widest = max(map(cells_of, names.values()))
    head = "".join(f"{names[label]:>{max(7, cells_of(names[label]) + 2)}}" for label in labels)
    yield (("quiet", f"  {'person / model':<{widest + 9}}{head}"),)
    for person in labels:
        spans: list[Span] = [("plain", f"  {names[person]:<{max(widest + 9, 14)}}")]
        for said in labels:
            rows = cells.get((person, said), 0)
            role: Role = "good" if person == said else "bad" if rows else "quiet"
            spans.append((role, f"{count(rows):>{max(7, cells_of(names[said]) + 2)}}"))
        yield tuple(spans)
    if len(field.labels) > len(labels):
        yield (("quiet", f"  {len(field.labels) - len(labels)} more labels: --json has all"),)


def _agreed(one: Agreement, palette: Palette) -> Iterator[Line]:
    who = palette.safe(" and ".join(one.people))
    yield (("plain", f"  {palette.safe(one.field)}: {who}, "), ("quiet", many(one.rows, "row")))
    parts = [f"same label {_share(one.same)}"] if one.same is not None else []
    parts += [f"Cohen's kappa {_estimate(one.kappa)}"] if one.kappa is not None else []
    parts += [f"Krippendorff's alpha {_estimate(one.alpha)}"]
    for part in parts:
        yield (("plain", f"    {palette.fit(part)}"),)
