"""Report view: a report on one screen, and two outputs compared side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

from mellea_cli.report.agreement import Agreement, Estimate, FieldEvaluation, Share
from mellea_cli.report.comparison import Change, Comparison, group_name, points, row_sentence, theme_notes
from mellea_cli.report.figures import (
    FieldFigures,
    Figures,
    Quote,
    ReviewFigures,
    in_order,
    percent,
    review_sentence,
    share_range,
)
from mellea_cli.ui.console import make_console
from mellea_cli.ui.number_format import count
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

_LABEL_CELLS = 11
_SIDE_BY_SIDE_COLUMNS = 72
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
    columns, rows = (console.width, console.height) if is_terminal(stream, environ) else (80, _UNBOUNDED)
    palette.print(report_lines(figures, next_steps, (max(24, columns - 1), rows), palette), stream)


def report_lines(
    figures: Figures, next_steps: Sequence[str], size: tuple[int, int], palette: Palette
) -> Iterator[Line]:
    """The report for a screen of `size` columns and rows; only what to type next may be wider than that."""
    columns, rows = size
    head = list(_head(figures, columns, palette))
    judgements = list(_judgements(figures, columns, palette))
    splits = list(_splits(figures, columns, palette))
    fields = [line for field in figures.fields for line in _field(field, figures.answered, columns, palette)]
    review = list(_review(figures.review, columns, palette))
    tail = list(_notes_and_next(figures, next_steps, columns, palette))
    trend = list(_trend(figures, columns, palette))
    urgent = list(_urgent(figures.urgent, columns, palette, lines=2))

    def room() -> int:
        # Each block needs an empty line before it, and the shell's prompt a line below.
        blocks = (head, judgements, fields, review, trend, splits, urgent, tail)
        return rows - sum(len(block) + 1 for block in blocks if block) - 1

    if room() < _MIN_THEMES:
        trend = []
    if room() < _MIN_THEMES:
        urgent = list(_urgent(figures.urgent, columns, palette, lines=1))
    themes = list(_themes(figures, columns, max(_MIN_THEMES, room()), palette))
    blocks = [block for block in (head, judgements, fields, themes, review, trend, splits, urgent, tail) if block]
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
    side_by_side = columns >= _SIDE_BY_SIDE_COLUMNS
    room = (columns - 2) // 2 if side_by_side else columns

    def chart(label: str, pairs: Iterable[tuple[str, int]]) -> list[Line]:
        named = [(judgement_role(name), name, number) for name, number in pairs]
        return list(_chart(label, named, (figures.answered, figures.answered), room, palette))

    left = chart("sentiment", in_order(figures.mix.sentiment))
    right = chart("urgency", in_order(figures.mix.urgency, "urgency"))
    if not side_by_side:
        yield from (*left, (), *right)
        return
    for first, second in itertools.zip_longest(left, right, fillvalue=()):
        yield (*pad(first, room + 2), *second)


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
            model = palette.fit(share_range(one.model, one.model_interval))
            corrected = palette.fit(share_range(one.corrected, one.interval))
            spans: Line = (
                *pad((_label(""), (judgement_role(one.name), name)), _LABEL_CELLS + widest + 2),
                ("quiet", f"model {model:<14}"),
                ("strong", f"  corrected {corrected}"),
            )
            yield clip(spans, columns)


_MAX_VALUES = 6


def _field(field: FieldFigures, answered: int, columns: int, palette: Palette) -> Iterator[Line]:
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
    yield from _chart(label, entries, (longest, answered), columns, palette)
    others = [f"{count(more)} more values"] if (more := len(field.values) - len(shown) + field.other_values) else []
    others += [f"{count(field.empty)} without a value"] if field.empty else []
    if others:
        yield clip((_label(""), ("quiet", f" {palette.glyphs.dot} ".join(others))), columns)


def _chart(
    label: str, entries: Sequence[tuple[Role, str, int]], scale: tuple[int, int], columns: int, palette: Palette
) -> Iterator[Line]:
    """A bar chart of (colour, name, number); `scale` is the number of the longest bar, and that of 100 %."""
    longest, total = scale
    bars = [
        Bar(palette.safe(name), number, percent(number / total) if total else "", role)
        for role, name, number in entries
    ]
    digits = max((len(count(bar.number)) for bar in bars), default=1)
    widest = max((cells_of(bar.name) for bar in bars), default=0)
    names = min(widest, _LONGEST_NAME, columns - _LABEL_CELLS - digits - 9)
    size = ChartSize(columns, _LABEL_CELLS, names, digits, _LONGEST_BAR)
    yield from bar_chart(label, bars, longest, size, palette)


def _themes(figures: Figures, columns: int, room: int, palette: Palette) -> Iterator[Line]:
    """The most frequent themes, as many as there is room for, and a line for the others."""
    if (labels := figures.labels) is None:
        return
    shown = list(figures.themes)
    others = [f"{count(labels.other)} other", f"{count(labels.none)} none", f"{count(labels.unlabelled)} not labelled"]
    if len(shown) > room - 1:
        shown = shown[: max(1, room - 1)]
        others.insert(0, f"{len(figures.themes) - len(shown)} more themes")
    entries: list[tuple[Role, str, int]] = [("done", theme.name, theme.count) for theme in shown]
    longest = max((theme.count for theme in shown), default=0)
    yield from _chart("themes", entries, (longest, figures.answered), columns, palette)
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
            line += [("bad", f"{percent(mix.share('negative')):>4}"), ("quiet", " negative  ")]
            line += [("warn", f"{percent(mix.share('high', 'urgency')):>4}"), ("quiet", " high urgency")]
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


_LONGEST_COMPARED_NAME = 34
_GOOD_WHEN_MORE = {"positive", "low"}
_BAD_WHEN_MORE = {"negative", "high"}


def print_comparison(comparison: Comparison, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print a comparison, as wide as the terminal."""
    console = make_console(stream, environ)
    palette = Palette(console)
    columns = console.width - 1 if is_terminal(stream, environ) else 79
    palette.print(comparison_lines(comparison, max(40, columns), palette), stream)


def comparison_lines(comparison: Comparison, columns: int, palette: Palette) -> Iterator[Line]:
    """The comparison for a terminal of `columns` cells."""
    room = columns - _LABEL_CELLS
    for label, figures in (("old", comparison.old), ("new", comparison.new)):
        text = palette.safe(f"{figures.name}: {figures.reconciliation()}")
        yield (_label(label), ("strong", shorten(text, room, palette.glyphs.cut)))
    for index, part in enumerate(wrap(palette.safe(row_sentence(comparison)), room)):
        yield (_label("" if index else "rows"), ("plain", part))
    for group in comparison.groups:
        if changes := comparison.of(group):
            yield ()
            label = shorten(palette.safe(group_name(group)), _LABEL_CELLS - 1, palette.glyphs.cut)
            yield from _changes(label, changes, columns, palette)
    if notes := theme_notes(comparison):
        yield ()
    for note in notes:
        for part in wrap(palette.safe(note), room):
            yield (_label("note"), ("warn", part))


def _changes(group: str, changes: list[Change], columns: int, palette: Palette) -> Iterator[Line]:
    named = [(palette.safe(change.name), change) for change in changes]
    digits = max(len(count(number)) for change in changes for number in (change.old, change.new))
    arrow = palette.glyphs.arrow
    room = max(8, columns - _LABEL_CELLS - 2 * digits - 34)
    names = min(max(cells_of(name) for name, _ in named), _LONGEST_COMPARED_NAME, room)
    for index, (name, change) in enumerate(named):
        line: list[Span] = [_label("" if index else group)]
        line += pad((("plain", shorten(name, names, palette.glyphs.cut)),), names + 2)
        line += [("plain", f"{count(change.old):>{digits}} {arrow} {count(change.new):>{digits}}")]
        line += [("quiet", f"   {percent(change.old_share):>4} {arrow} {percent(change.new_share):>4}   ")]
        line += [(_change_role(change), points(change))]
        yield clip(tuple(line), columns)


def _change_role(change: Change) -> Role:
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
    columns = max(24, console.width - 1) if is_terminal(stream, environ) else 100
    lines: list[Line] = [(("strong", part),) for note in notes for part in wrap(palette.safe(note), columns)]
    for field in fields:
        lines += [(), *(clip(line, columns) for line in _evaluated(field, palette))]
    if people:
        lines += [(), (("label", "agreement of people"),)]
        lines += [clip(line, columns) for one in people for line in _agreed(one, palette)]
    palette.print(lines, stream)


def _share(share: Share) -> str:
    return f"{share_range(share.value, share.interval)}, {count(share.number)} of {count(share.size)}"


def _estimate(one: Estimate) -> str:
    return f"{one.value:.2f} ({one.interval.low:.2f}–{one.interval.high:.2f})"  # noqa: RUF001 - the dash is meant


def _evaluated(field: FieldEvaluation, palette: Palette) -> Iterator[Line]:
    yield (("strong", palette.safe(field.name)), ("quiet", f"  {count(field.rows)} rows"))
    figures = [("right", field.right), ("opposite label", field.opposite)]
    figures += [("null where null", field.null_found), ("value where value", field.value_found)]
    for name, share in figures:
        if share is not None and share.size:
            yield (("plain", f"  {name:<18}{palette.fit(_share(share))}"),)
        if name == "right" and field.macro_f1 is not None:
            yield (("plain", f"  {'macro F1':<18}{palette.fit(_estimate(field.macro_f1))}"),)
    yield from _confusion(field, palette)
    for column, value, share in field.groups:
        name = palette.safe(f"{column} {value}")
        yield (("plain", f"  {shorten(name, 28, palette.glyphs.cut):<30}{palette.fit(_share(share))}"),)


_MAX_LABELS = 8


def _confusion(field: FieldEvaluation, palette: Palette) -> Iterator[Line]:
    """The table of the person's labels and the model's; the most frequent ones where there are many."""
    totals: dict[str, int] = {}
    for person, said, rows in field.confusion:
        totals[person] = totals.get(person, 0) + rows
        totals.setdefault(said, 0)
    labels = sorted(totals, key=lambda label: -totals[label])[:_MAX_LABELS]
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
    if len(totals) > len(labels):
        yield (("quiet", f"  {len(totals) - len(labels)} more labels: --json has all"),)


def _agreed(one: Agreement, palette: Palette) -> Iterator[Line]:
    who = palette.safe(" and ".join(one.people))
    yield (("plain", f"  {palette.safe(one.field)}: {who}, "), ("quiet", f"{count(one.rows)} rows"))
    parts = [f"same label {_share(one.same)}"] if one.same is not None else []
    parts += [f"Cohen's kappa {_estimate(one.kappa)}"] if one.kappa is not None else []
    parts += [f"Krippendorff's alpha {_estimate(one.alpha)}"]
    for part in parts:
        yield (("plain", f"    {palette.fit(part)}"),)
