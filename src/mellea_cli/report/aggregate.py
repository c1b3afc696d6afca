"""Aggregates rows into the figures of a report, in one pass.

Memory does not grow with the rows, only with the number of different values in the columns that are split.
"""

from __future__ import annotations

import heapq
import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from mellea_cli.errors import InputError
from mellea_cli.pipelines.pipeline import Column
from mellea_cli.pipelines.theme_prompts import NONE, OTHER, Theme
from mellea_cli.report.agreement import ReviewedTotals
from mellea_cli.report.dates import (
    Bucket,
    DayCounts,
    bucket_name,
    bucket_start,
    buckets,
    date_rank,
    fitting_bucket,
    looks_like_date,
)
from mellea_cli.report.figures import (
    CATEGORICAL,
    FieldFigures,
    Figures,
    Group,
    Labels,
    Mix,
    Point,
    Quote,
    Split,
    ThemeFigures,
    Trend,
    in_order,
    many,
    ratio,
    value_name,
    value_names,
)
from mellea_cli.report.results import SENTIMENTS, UNSAID, URGENCIES, Record, Results
from mellea_cli.report.score import ScoreFigures, ScoreKind, ScoreTally, recognised_kind

ANSWERED = "answered"  # The name of rows with own fields only
NO_ANSWER = "no answer"  # The name under which a trend counts rows without an answer
_QUOTES = 5
_URGENT = 3
_GROUPS = 12
_MOST_VALUES = 10_000


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report shows beyond the usual figures."""

    by: Sequence[str] = ()  # Columns to split all rows by
    date: str | None = None  # The column with the date; `None` takes one with a usual name, if there is one
    month_first: bool | None = None  # Whether 03/04/2026 is in March; `None` decides by the column's other dates
    themes: Sequence[Theme] = ()  # Definitions, and the order of themes that are equally frequent
    score: tuple[ScoreKind, str] | None = None  # The kind and the column; `None` takes one with a usual name


_LOOKED_AT = 100
_LEAST_DATES = 3


class Aggregator:
    """Takes rows one by one; `figures` gives the result so far."""

    def __init__(self, options: ReportOptions | None = None, reviewed: ReviewedTotals | None = None) -> None:
        self._options = options or ReportOptions()
        self._reviewed = reviewed
        self._mix = Mix()
        self._blank = 0
        self._non_answers = 0
        self._failures: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._themes = defaultdict(Mix, {theme.name: Mix() for theme in self._options.themes})
        self._polarity: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # A heading that rows have as a label was a theme once, and counts among its own.
        self._parent = {theme.parent: theme.parent for theme in self._options.themes if theme.parent}
        self._parents = {name: Mix() for name in self._parent}
        self._parent |= {theme.name: theme.parent for theme in self._options.themes if theme.parent}
        self._scores: dict[str, ScoreTally] = {}
        self._praise = {theme.name for theme in self._options.themes if theme.kind == "praise"}
        self._quotes: defaultdict[str, _TopQuotes] = defaultdict(lambda: _TopQuotes(_QUOTES))
        self._urgent = _TopQuotes(_URGENT)
        self._days: defaultdict[str, DayCounts] = defaultdict(DayCounts)
        # The first values of other columns: how many look like dates, and how many do not.
        self._likely: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._splits: dict[str, defaultdict[str, Mix]] = {column: defaultdict(Mix) for column in self._options.by}
        self._fields: dict[str, _FieldValues] = {}
        self._split_themes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, record: Record) -> None:
        self._mix.add(record)
        if self._reviewed is not None:
            self._reviewed.add(record)
        for name, value in record.own.items() if record.state == "answered" else ():
            if name not in self._fields:
                self._fields[name] = _FieldValues()
            self._fields[name].add(value)
        severity = _rank(record.urgency, URGENCIES), _rank(record.sentiment, SENTIMENTS)
        if record.state == "blank":
            self._blank += 1
        elif record.state == "non-answer":
            self._non_answers += 1
        elif record.state == "failed":
            self._failures[record.error_kind or "error"] += 1
        elif record.urgency == "high":
            self._urgent.add(severity, record, record.words)
        themes = [name for name in record.themes or () if name not in (OTHER, NONE)]
        self._add_themes(record, themes, severity)
        for column in self._date_columns(record):
            unjudged = ANSWERED if record.state == "answered" else NO_ANSWER
            self._days[column].add(record.rest.get(column), record.sentiment or unjudged)
        self._add_scores(record, themes)
        for column, groups in self._splits.items():
            value = value_name(record.rest.get(column))
            if value not in groups and len(groups) >= _MOST_VALUES:
                value = ""
            groups[value].add(record)
            self._split_themes[column, value].update(themes)

    def _add_themes(self, record: Record, themes: Sequence[str], severity: tuple[int, int]) -> None:
        if record.themes is None:
            self._labels["unlabelled"] += 1
        else:
            self._labels["themed" if themes else OTHER if OTHER in record.themes else NONE] += 1
        urgency, sentiment = severity
        for parent in {self._parent[name] for name in themes if name in self._parent}:
            self._parents[parent].add(record)
        for name in themes:
            self._themes[name].add(record)
            self._polarity[name][mention_polarity(record, name)] += 1
            rank = (urgency, -sentiment if name in self._praise else sentiment, 0 if name in record.quotes else 1)
            self._quotes[name].add(rank, record, record.quotes.get(name, "") or record.words)

    def _add_scores(self, record: Record, themes: Sequence[str]) -> None:
        if (wanted := self._options.score) is not None:
            columns = {wanted[1]: wanted[0]}
        else:
            columns = {name: kind for name in record.rest if (kind := recognised_kind(name)) is not None}
        if not columns:
            return
        groups = [("theme", name) for name in themes]
        groups += [(f"field {field}", name) for field, value in record.own.items() for name in set(value_names(value))]
        groups += [(column, value_name(record.rest.get(column))) for column in self._options.by]
        for column, kind in columns.items():
            if column not in self._scores:
                self._scores[column] = ScoreTally(kind, column)
            self._scores[column].add(record.rest.get(column), groups)

    def _score(self, results: Results) -> ScoreFigures | None:
        # Of the columns with a usual name, the one in which most rows have a score, and at least half of all.
        tally = max(self._scores.values(), key=lambda one: one.rows, default=None)
        if tally is None or (self._options.score is None and 2 * tally.rows < self._mix.rows):
            return None
        if not tally.rows and tally.unreadable:
            kind, column = tally.kind, tally.column
            raise InputError(
                f"no value of {column!r} is a score of kind {kind}",
                path=results.name,
                hint=f"name a column of numbers: --score {kind} COLUMN",
            )
        fields = [f"field {one.name}" for one in results.own if one.type in CATEGORICAL]
        sample = results.sample
        drawn = (sample.size, sample.population) if sample is not None and sample.size else None
        return tally.figures(["theme", *fields, *self._options.by], drawn)

    def _date_columns(self, record: Record) -> list[str]:
        if self._options.date is not None:
            return [self._options.date]
        found = [name for name in record.rest if date_rank(name) is not None]
        if self._mix.rows <= _LOOKED_AT:
            for name, value in record.rest.items():
                if name not in found and value not in (None, ""):
                    self._likely[name][not looks_like_date(value)] += 1
        return found

    def _date_notes(self, trend: Trend | None) -> Iterator[str]:
        """Columns that look like dates, where none of them made a trend."""
        if trend is not None or self._options.date is not None:
            return
        for name, days in self._days.items():
            if days.rows:
                found = f"{days.rows:,} of {many(self._mix.rows, 'row')}"
                yield f"column {name!r} makes no trend: it has a date in {found}; --date {shlex.quote(name)} takes it"
        for name, (dates, others) in self._likely.items():
            if dates >= _LEAST_DATES and dates >= 9 * others:
                yield f"column {name!r} looks like dates and was not taken; --date {shlex.quote(name)} adds the trend"

    def figures(self, results: Results) -> Figures:
        """The figures of all rows added so far; raises `InputError` when no row has a column that the options name."""
        if self._mix.rows:
            wanted = self._options.score
            named = (("--date", self._options.date), (f"--score {wanted[0]}", wanted[1]) if wanted else ("", None))
            for flag, column in (*named, *(("--by", name) for name in self._options.by)):
                if column is not None and column not in results.columns:
                    raise results.missing(column, flag)
        trend, score = self._trend(), self._score(results)
        parents = sorted(self._parents.items(), key=lambda pair: -pair[1].rows) if results.labelled else ()
        labels = self._labels
        return Figures(
            name=results.name,
            mix=self._mix,
            blank=self._blank,
            failed=self._failures.total(),
            unreadable=results.unreadable,
            failures=dict(self._failures.most_common()),
            labels=Labels(labels["themed"], labels[OTHER], labels[NONE], labels["unlabelled"])
            if results.labelled
            else None,
            themes=self._theme_figures() if results.labelled else (),
            parents=[ThemeFigures(name, mix, ratio(mix.rows, self._mix.answered)) for name, mix in parents],
            urgent=self._urgent.quotes(),
            trend=trend,
            splits=[self._split(column, groups) for column, groups in self._splits.items()] if self._mix.rows else (),
            notes=[*_notes(results, trend, score), *self._date_notes(trend)],
            fields=[self._fields[one.name].figures(one) for one in results.own if one.name in self._fields],
            review=self._reviewed.figures() if self._reviewed is not None else None,
            non_answers=self._non_answers,
            sample=results.sample,
            score=score,
            sentiments=self._sentiments(results.sentiments),
        )

    def _sentiments(self, labels: Sequence[str]) -> Sequence[str]:
        """The labels of the run where its journal has them; else those that occur, or the usual ones."""
        occurring = [name for name, number in in_order(self._mix.sentiment) if number]
        return labels or (SENTIMENTS if set(occurring) <= set(SENTIMENTS) else occurring)

    def _theme_figures(self) -> list[ThemeFigures]:
        defined = {theme.name: theme for theme in self._options.themes}
        figures = []
        for name, mix in self._themes.items():
            theme = defined.get(name)
            from_file: tuple[str, str, Sequence[str]] = (
                ("", "", ()) if theme is None else (theme.definition, theme.kind, theme.examples)
            )
            quotes = self._quotes[name].quotes()
            share, polarity = ratio(mix.rows, self._mix.answered), dict(self._polarity[name])
            parent = self._parent.get(name, "")
            figures.append(ThemeFigures(name, mix, share, quotes, *from_file, polarity=polarity, parent=parent))
        return sorted(figures, key=lambda theme: -theme.count)

    def _trend(self) -> Trend | None:
        column = self._options.date
        if column is None:
            # Of the columns with a usual name, the first one in which most rows have a date.
            order = sorted(self._days, key=lambda name: date_rank(name) or 0)
            column = next((name for name in order if 2 * self._days[name].rows > self._mix.rows), None)
        if column is None or column not in self._days:
            return None
        days = self._days[column]
        month_first = self._options.month_first
        note = ""
        if month_first is None:
            month_first = days.month_first
            if days.ambiguous:
                note = (
                    "no date says whether day or month comes first; the day was taken (--month-first takes the month)"
                )
        if not note and days.samples:
            note = "not read as dates: " + ", ".join(map(repr, days.samples))
        by_day = days.resolved(month_first=month_first)
        points: list[Point] = []
        bucket: Bucket = "day"
        if by_day:
            first, last = min(by_day), max(by_day)
            bucket = fitting_bucket(first, last)
            counts = {start: Counter[str]() for start in buckets(first, last, bucket)}
            for day, judgements in by_day.items():
                counts[bucket_start(day, bucket)].update(judgements)
            points = [Point(start, bucket_name(start, bucket), dict(mix)) for start, mix in counts.items()]
        dated = sum(point.rows for point in points)
        impossible = days.rows - dated  # look like dates, but there is no such day
        return Trend(column, bucket, points, dated, days.empty, days.unreadable + impossible, note, month_first)

    def _split(self, column: str, groups: dict[str, Mix]) -> Split:
        order = sorted((value for value in groups if value), key=lambda value: -groups[value].rows)
        # Rows beyond the limit on different values are counted under the empty name, which no group has.
        rest = [*order[_GROUPS:], *([""] if "" in groups else [])]
        others = Mix()
        for value in rest:
            others.rows += groups[value].rows
            others.sentiment.update(groups[value].sentiment)
            others.urgency.update(groups[value].urgency)
            others.unjudged += groups[value].unjudged
        shown = []
        for value in order[:_GROUPS]:
            most_common = self._split_themes[column, value].most_common(1)
            shown.append(Group(value, groups[value], *(most_common[0] if most_common else ())))
        return Split(column, shown, others, len(rest))


@dataclass
class _TopQuotes:
    """The quotes with the smallest ranks, without two of the same words."""

    most: int
    heap: list[tuple[tuple[int, ...], Quote]] = field(default_factory=list)

    def add(self, rank: tuple[int, ...], record: Record, words: str) -> None:
        entry = (*(-part for part in rank), -record.number)
        if not words or (len(self.heap) == self.most and entry <= self.heap[0][0]):
            return
        if any(quote.text == words for _, quote in self.heap):
            return
        quote = Quote(record.number, record.id, words, record.sentiment, record.urgency)
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, (entry, quote))
        else:
            heapq.heapreplace(self.heap, (entry, quote))

    def quotes(self) -> list[Quote]:
        return [quote for _, quote in sorted(self.heap, key=lambda pair: pair[0], reverse=True)]


_MOST_RANGES = 10


class _FieldValues:
    """The values of one own field so far."""

    def __init__(self) -> None:
        self._counts: Counter[Any] = Counter()
        self._answered = self._empty = 0
        self._sum = 0.0
        self._numbers = 0

    def add(self, value: Any) -> None:
        if value in (None, [], ""):
            self._empty += 1
            return
        self._answered += 1
        if _is_number(value):
            self._sum += value
            self._numbers += 1
            # Different numbers beyond the limit are counted by their first two digits.
            self._count(value, float(f"{value:.1e}"))
            return
        for name in value_names(value):
            self._count(name, "")

    def _count(self, value: Any, beyond: Any) -> None:
        self._counts[value if value in self._counts or len(self._counts) < _MOST_VALUES else beyond] += 1

    def figures(self, column: Column) -> FieldFigures:
        numbers = sorted(value for value in self._counts if _is_number(value))
        if numbers:
            ranges = self._ranges(numbers)
            mean = self._sum / self._numbers
            figures = (0, mean, float(numbers[0]), float(numbers[-1]))
            return FieldFigures(column.name, column.type, self._answered, self._empty, ranges, *figures)
        counts = Counter(self._counts)
        rarest = counts.pop("", 0)
        common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        more = len(common[_GROUPS:]) + bool(rarest)
        return FieldFigures(column.name, column.type, self._answered, self._empty, common[:_GROUPS], more)

    def _ranges(self, numbers: Sequence[Any]) -> list[tuple[str, int]]:
        """Rows by number, or by range where there are many numbers."""
        low, high = numbers[0], numbers[-1]
        if len(numbers) <= _GROUPS:
            return [(f"{number:g}", self._counts[number]) for number in numbers]
        width = (high - low) / _MOST_RANGES
        # Round steps: 1, 2 or 5 times a power of ten.
        size = 10.0 ** math.floor(math.log10(width))
        width = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= width)
        counts: Counter[int] = Counter()
        for number in numbers:
            counts[math.floor(number / width)] += self._counts[number]
        places = range(min(counts), max(counts) + 1)
        return [(f"{place * width:g} to {(place + 1) * width:g}", counts[place]) for place in places]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(judgement: str, order: tuple[str, ...]) -> int:
    """A judgement's index in its order, worst first; unknown ones come after all known ones."""
    return order.index(judgement) if judgement in order else len(order)


def mention_polarity(record: Record, theme: str) -> str:
    """What a row says about a theme, as a sentiment.

    In a mixed row the words of the theme's quote decide: whether more of them are in the complaint or in the praise.
    """
    if record.sentiment != "mixed" or not (quote := record.quotes.get(theme)):
        return record.sentiment or UNSAID
    words = set(_WORDS.findall(quote.casefold()))
    complaint, praise = (
        len(words & set(_WORDS.findall(phrase.casefold()))) for phrase in (record.complaint, record.praise)
    )
    return "mixed" if complaint == praise else "negative" if complaint > praise else "positive"


_WORDS = re.compile(r"\w{3,}")


def _notes(results: Results, trend: Trend | None, score: ScoreFigures | None) -> Iterable[str]:
    yield from results.notes
    if score is not None and score.unreadable:
        yield f"{score.column}: {many(score.unreadable, 'value')} not read as a score"
    if results.unreadable:
        verb = "is" if results.unreadable == 1 else "are"
        rows = many(results.unreadable, "row")
        # Without the folder of the file: a report goes to other people.
        bad = results.bad[0].message.replace(results.name, PurePath(results.name).name)
        yield f"{rows} could not be read and {verb} not counted; the first one: {bad}"
    if not results.has_text and results.columns:
        yield "no column looks like the feedback itself, so summaries are shown instead (--text-field names it)"
    if trend is not None and trend.note:
        yield f"{trend.column}: {trend.note}"
