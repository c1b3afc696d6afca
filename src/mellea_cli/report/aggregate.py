"""Folds rows into figures in one pass; memory does not grow with the rows, only with the values that they hold."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.dates import DATE_COLUMNS, Days, bucket_name, bucket_start, buckets, fitting_bucket
from mellea_cli.report.figures import (
    Figures,
    Group,
    Labels,
    Mix,
    Point,
    Quote,
    Split,
    ThemeFigures,
    Trend,
    many,
    part,
    severity,
)
from mellea_cli.report.results import NONE, OTHER, Record, Results

NO_ANSWER = "no answer"
"""What the rows of a trend without an answer stand under."""
EMPTY_VALUE = "(empty)"
_QUOTES = 5
_URGENT = 3
_GROUPS = 12
_MOST_VALUES = 10_000
_LONGEST_VALUE = 80


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a report is to show."""

    by: Sequence[str] = ()
    """Columns to split all rows by."""
    date: str | None = None
    """The column with the date; `None` takes one that is called like a date, if there is one."""
    month_first: bool | None = None
    """Whether 03/04/2026 is in March; `None` goes by the column's other dates."""
    themes: Sequence[Theme] = ()
    """Definitions, and the order of themes that are equally common."""


@dataclass
class _Best:
    """The few quotes that stand highest, without two of the same words."""

    most: int
    heap: list[tuple[tuple[int, ...], Quote]] = field(default_factory=list)

    def add(self, rank: tuple[int, ...], record: Record, words: str) -> None:
        """Take a quote if it ranks among the highest; a smaller rank is higher."""
        entry = (*(-one for one in rank), -record.number)
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
        """Highest first."""
        return [quote for _, quote in sorted(self.heap, key=lambda pair: pair[0], reverse=True)]


class Counting:
    """Takes rows one by one; `figures` says at any time what they come to.

    Args:
        wishes: what to count besides the usual.
    """

    def __init__(self, wishes: Wishes | None = None) -> None:
        self._wishes = wishes or Wishes()
        self._mix = Mix()
        self._blank = 0
        self._failures: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._themes: dict[str, Mix] = {theme.name: Mix() for theme in self._wishes.themes}
        self._praise = {theme.name for theme in self._wishes.themes if theme.kind == "praise"}
        self._quotes: defaultdict[str, _Best] = defaultdict(lambda: _Best(_QUOTES))
        self._urgent = _Best(_URGENT)
        self._days: dict[str, Days] = {}
        self._splits: dict[str, dict[str, Mix]] = {column: {} for column in self._wishes.by}
        self._split_themes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, record: Record) -> None:
        """Count one row."""
        self._mix.add(record)
        if record.state == "blank":
            self._blank += 1
        elif record.state == "failed":
            self._failures[record.error_kind or "error"] += 1
        elif record.urgency in ("high", "medium"):
            self._urgent.add(severity(record), record, record.words)
        self._add_themes(record)
        for column in self._date_columns(record):
            self._days.setdefault(column, Days()).add(record.rest.get(column), record.sentiment or NO_ANSWER)
        for column, groups in self._splits.items():
            value = shown(record.rest.get(column))
            if value not in groups and len(groups) >= _MOST_VALUES:
                value = ""
            if (mix := groups.get(value)) is None:
                mix = groups[value] = Mix()
            mix.add(record)
            self._split_themes[column, value].update(one for one in record.themes or () if one not in (OTHER, NONE))

    def add_all(self, records: Iterable[Record]) -> None:
        """Count rows until there are no more."""
        for record in records:
            self.add(record)

    def _add_themes(self, record: Record) -> None:
        named = [one for one in record.themes or () if one not in (OTHER, NONE)]
        if record.themes is None:
            self._labels["unlabelled"] += 1
        else:
            self._labels["themed" if named else OTHER if OTHER in record.themes else NONE] += 1
        for name in named:
            if (mix := self._themes.get(name)) is None:
                mix = self._themes[name] = Mix()
            mix.add(record)
            urgency, mood = severity(record)
            rank = (urgency, -mood if name in self._praise else mood, 0 if name in record.quotes else 1)
            self._quotes[name].add(rank, record, record.quotes.get(name, "") or record.words)

    def _date_columns(self, record: Record) -> list[str]:
        if self._wishes.date is not None:
            return [self._wishes.date]
        return [name for name in record.rest if name.strip().casefold() in DATE_COLUMNS]

    def figures(self, results: Results) -> Figures:
        """The figures of all rows that were added.

        Args:
            results: where the rows came from.

        Raises:
            InputError: a column that was asked for is in no row.
        """
        if self._mix.rows:
            for flag, column in (("--date", self._wishes.date), *(("--by", one) for one in self._wishes.by)):
                if column is not None and column not in results.columns:
                    raise results.missing(column, flag)
        trend = self._trend()
        return Figures(
            name=results.name,
            mix=self._mix,
            blank=self._blank,
            failed=self._failures.total(),
            unreadable=results.unreadable,
            failures=dict(self._failures.most_common()),
            labels=self._label_figures() if results.labelled else None,
            themes=self._theme_figures() if results.labelled else (),
            urgent=self._urgent.quotes(),
            trend=trend,
            splits=[self._split(column, groups) for column, groups in self._splits.items()] if self._mix.rows else (),
            notes=list(_notes(results, trend)),
        )

    def _label_figures(self) -> Labels:
        labels = self._labels
        return Labels(labels["themed"], labels[OTHER], labels[NONE], labels["unlabelled"])

    def _theme_figures(self) -> list[ThemeFigures]:
        known = {theme.name: theme for theme in self._wishes.themes}
        figures = []
        for name, mix in self._themes.items():
            theme = known.get(name)
            told = ("", "", ()) if theme is None else (theme.definition, theme.kind, theme.examples)
            quotes = self._quotes[name].quotes() if name in self._quotes else ()
            share = part(mix.rows, self._mix.answered)
            figures.append(ThemeFigures(name, mix, share, quotes, *told))
        return sorted(figures, key=lambda theme: -theme.count)

    def _trend(self) -> Trend | None:
        chosen = self._wishes.date
        if chosen is None:
            # Of columns that look like dates the first one counts that holds more dates than anything else.
            order = sorted(self._days, key=lambda name: DATE_COLUMNS.index(name.strip().casefold()))
            usable = (name for name in order if 2 * self._days[name].rows > self._mix.rows)
            chosen = next(usable, None)
        if chosen is None or chosen not in self._days:
            return None
        days = self._days[chosen]
        note = ""
        if days.undecided and self._wishes.month_first is None:
            note = "no date says whether day or month comes first; the day was taken (--month-first takes the month)"
        month_first = self._wishes.month_first
        if month_first is None:
            month_first = days.month_leads
        by_day = days.settled(month_first=month_first)
        if not by_day:
            return Trend(chosen, "day", (), 0, days.empty, days.unreadable + days.rows, _samples(days), month_first)
        first, last = min(by_day), max(by_day)
        bucket = fitting_bucket(first, last)
        gathered = {start: Counter[str]() for start in buckets(first, last, bucket)}
        for day, counts in by_day.items():
            gathered[bucket_start(day, bucket)].update(counts)
        points = [Point(start, bucket_name(start, bucket), dict(counts)) for start, counts in gathered.items()]
        dated = sum(point.rows for point in points)
        lost = days.rows - dated  # looked like dates, but there is no such day
        return Trend(
            chosen, bucket, points, dated, days.empty, days.unreadable + lost, note or _samples(days), month_first
        )

    def _split(self, column: str, groups: dict[str, Mix]) -> Split:
        order = sorted((value for value in groups if value), key=lambda value: -groups[value].rows)
        shown_values, rest = order[:_GROUPS], [*order[_GROUPS:], *([""] if "" in groups else [])]
        others = Mix()
        for value in rest:
            others.rows += groups[value].rows
            others.sentiment.update(groups[value].sentiment)
            others.urgency.update(groups[value].urgency)
        made = []
        for value in shown_values:
            common = self._split_themes[column, value].most_common(1)
            made.append(Group(value, groups[value], *(common[0] if common else ())))
        return Split(column, made, others, len(rest))


def shown(value: Any) -> str:
    """A cell's value as the name of a group; never empty."""
    if value is None:
        return EMPTY_VALUE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    return text or EMPTY_VALUE


def _samples(days: Days) -> str:
    if not days.unreadable or not days.samples:
        return ""
    return "not read as dates: " + ", ".join(repr(one) for one in days.samples)


def _notes(results: Results, trend: Trend | None) -> Iterable[str]:
    yield from results.notes
    if results.unreadable:
        rows = many(results.unreadable, "row")
        yield (
            f"{rows} could not be read and {'is' if results.unreadable == 1 else 'are'} not counted; the first one: "
            + (results.bad[0].message)
        )
    if not results.has_text and results.columns:
        yield "no column looks like the feedback itself, so summaries stand in its place (--text-field names it)"
    if trend is not None and trend.note:
        yield f"{trend.column}: {trend.note}"
