"""The figures of a report, as plain values that every output format is written from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal

from mellea_cli.report.dates import Bucket
from mellea_cli.report.intervals import Interval, share_interval
from mellea_cli.report.results import SENTIMENTS, UNSAID, URGENCIES, Record, Sample
from mellea_cli.report.score import ScoreFigures

Tone = Literal["complaint", "praise"]


@dataclass(slots=True)
class Mix:
    """Sentiment and urgency of a group of rows. Each answered row counts once in each of the two."""

    rows: int = 0  # All rows, answered or not
    sentiment: Counter[str] = field(default_factory=Counter)
    urgency: Counter[str] = field(default_factory=Counter)
    unjudged: int = 0  # Answered rows without a sentiment, where only own fields were asked

    def add(self, record: Record) -> None:
        self.rows += 1
        if record.state == "answered" and not record.sentiment:
            self.unjudged += 1
        elif record.state == "answered":
            self.sentiment[record.sentiment] += 1
            self.urgency[record.urgency or UNSAID] += 1

    @property
    def answered(self) -> int:
        return self.sentiment.total() + self.unjudged

    def share(self, name: str, kind: str = "sentiment") -> float:
        """The share of the answered rows with this judgement, from 0 to 1."""
        counts = self.sentiment if kind == "sentiment" else self.urgency
        return ratio(counts[name], self.answered)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows with its interval."""

    group: str  # `sentiment`, `urgency`, `theme`, `parent`, `field NAME`; `COLUMN=VALUE` before it in a split
    name: str
    rows: int
    of: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return with_interval(self.share, Interval(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Quote:
    """A customer's words."""

    number: int  # The row's number, counted from 1
    id: str
    text: str
    sentiment: str
    urgency: str


@dataclass(frozen=True, slots=True)
class ThemeFigures:
    """A theme or a heading: how often it occurs, how its rows were judged, and quotes that prove it."""

    name: str
    mix: Mix
    share: float  # Of the answered rows
    quotes: Sequence[Quote] = ()
    definition: str = ""
    kind: str = ""
    examples: Sequence[str] = ()
    polarity: Mapping[str, int] = field(default_factory=dict)  # What its mentions say, as a sentiment
    parent: str = ""

    @property
    def count(self) -> int:
        return self.mix.rows

    @property
    def tone(self) -> Tone:
        """What its mentions are: by its kind, or where that is unknown or both, what most of them are."""
        if self.kind in ("complaint", "praise"):
            return "praise" if self.kind == "praise" else "complaint"
        return "praise" if self.polarity.get("positive", 0) * 2 > self.mix.answered else "complaint"


@dataclass(frozen=True, slots=True)
class Labels:
    """Rows by what they are labelled with; the four add up to all rows."""

    themed: int  # Rows with at least one theme of the list
    other: int
    none: int
    unlabelled: int  # Rows that failed or were never labelled


@dataclass(frozen=True, slots=True)
class Point:
    """One bucket of a trend."""

    start: date
    name: str
    mix: Mapping[str, int]  # Rows by sentiment; rows without an answer count as `no answer`

    @property
    def rows(self) -> int:
        return sum(self.mix.values())


@dataclass(frozen=True, slots=True)
class Trend:
    """Rows over time. `dated`, `empty` and `unreadable` add up to all rows."""

    column: str
    bucket: Bucket
    points: Sequence[Point]
    dated: int
    empty: int
    unreadable: int
    note: str = ""
    month_first: bool = False  # How dates such as 03/04/2026 were read


@dataclass(frozen=True, slots=True)
class Group:
    """The rows with one value in a column."""

    value: str
    mix: Mix
    theme: str = ""  # Its most frequent theme; empty without themes
    theme_count: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """All rows by the values of a column; the groups and `others` add up to all rows."""

    column: str
    groups: Sequence[Group]
    others: Mix  # The rows of rarer values
    other_values: int  # The number of rarer values


CATEGORICAL = ("bool", "category", "categories")  # The types of own fields whose values are choices


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """The answers of one own field."""

    name: str
    type: str
    answered: int  # Rows with a value
    empty: int  # Answered rows without one: null, or an empty list
    values: Sequence[tuple[str, int]]  # Rows by value: choices by frequency, numbers in their order and in ranges
    other_values: int = 0  # The number of rarer values
    mean: float | None = None  # Of numbers, as the next two
    lowest: float | None = None
    highest: float | None = None

    @property
    def is_categorical(self) -> bool:
        return self.type in CATEGORICAL

    @property
    def has_chart(self) -> bool:
        """Whether the counts of its values say something: not where no text occurs twice."""
        if self.type in ("quote", "model") or not self.answered:
            return False
        return self.is_categorical or self.mean is not None or self.values[0][1] > 1

    def summary(self) -> str:
        """Mean and range of numbers, or how many different values there are without a chart; else empty."""
        if not self.has_chart:
            different = len(self.values) + self.other_values
            return many(different, "different value") if self.answered else "no value in any row"
        if self.mean is None or self.lowest is None or self.highest is None:
            return ""
        if self.type != "int" and self.lowest >= 0 and 0.1 <= self.highest <= 1:
            return f"mean {self.mean:.2f}, from {self.lowest:.2f} to {self.highest:.2f}"
        return f"mean {self.mean:.4g}, from {self.lowest:g} to {self.highest:g}"


@dataclass(frozen=True, slots=True)
class CorrectedShare:
    """The share of one value: by the model, by the reviewed sample alone, and by both together."""

    name: str
    model: float
    model_interval: Interval  # About all rows of the kind
    sample: float
    sample_interval: Interval  # About the rows of this file, as the next one
    corrected: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class FieldReview:
    """The corrected shares of one field."""

    name: str
    reviewed: int  # Rows of the random sample in which this field was judged
    right: int  # Of these, those in which the person has the model's value
    values: Sequence[CorrectedShare]


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """What the review of an output says."""

    sampled: int  # Reviewed rows of the random sample
    others: int  # Other rows with a judgement: they correct themselves, but no total
    unreviewed: int  # Rows that belong to the sample and were not reviewed: skipped, never reached, or added later
    fields: Sequence[FieldReview]


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that a report says. Answered, blank and failed rows and non-answers add up to all rows."""

    name: str  # The file
    mix: Mix
    blank: int
    failed: int
    unreadable: int = 0  # Rows of the file that could not be read; no other figure includes them
    failures: Mapping[str, int] = field(default_factory=dict)  # Failed rows by kind
    labels: Labels | None = None  # `None` when the rows have no themes
    themes: Sequence[ThemeFigures] = ()
    parents: Sequence[ThemeFigures] = ()  # Rows with a theme of each heading, once however many of them they have
    urgent: Sequence[Quote] = ()  # Rows of high urgency, negative ones first
    trend: Trend | None = None
    splits: Sequence[Split] = ()
    notes: Sequence[str] = ()  # What a reader should know about the figures
    fields: Sequence[FieldFigures] = ()  # Own fields, in the order of their columns
    non_answers: int = 0  # Rows with a text such as "n/a", which no share counts
    sample: Sample | None = None  # Where the rows are a random sample
    score: ScoreFigures | None = None
    review: ReviewFigures | None = None  # `None` when nobody has reviewed a row
    sentiments: Sequence[str] = SENTIMENTS  # The labels of the run, or those that occur

    def has_sentiment(self, label: str) -> bool:
        """Whether rows of this run can have this label."""
        return label in self.sentiments or bool(self.mix.sentiment[label])

    @property
    def rows(self) -> int:
        """All rows that could be read."""
        return self.mix.rows

    @property
    def answered(self) -> int:
        return self.mix.answered

    @property
    def judged(self) -> bool:
        """Whether any row has a sentiment; none has where only own fields were asked."""
        return bool(self.mix.sentiment) or not self.mix.unjudged

    def theme_rows(self) -> list[tuple[ThemeFigures, str]]:
        """The rows of a table of themes: each parent before its themes, and the parent's name with these."""
        top = sorted((*self.parents, *(theme for theme in self.themes if not theme.parent)), key=lambda one: -one.count)
        below = {one.name: [(theme, one.name) for theme in self.themes if theme.parent == one.name] for one in top}
        return [row for one in top for row in ((one, ""), *below[one.name])]

    def reconciliation(self) -> str:
        """One sentence in which every row occurs once."""
        parts = [f"{self.answered:,} answered"]
        parts += [f"{self.blank:,} without text"] if self.blank else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f'{many(self.non_answers, "non-answer")} such as "n/a"'] if self.non_answers else []
        return f"{many(self.rows, 'row')} = {' + '.join(parts)}"

    def share(self, number: int, of: int, group: str = "", name: str = "") -> Share:
        """A share of rows of this output. A sample's interval is about the input that it was drawn from."""
        population = None
        if self.sample is not None and self.sample.size:
            population = max(of, round(of * self.sample.population / self.sample.size))
        number = min(number, of)  # labels of rows without an answer are in no share
        interval = share_interval(number, of, population)
        return Share(group, name, number, of, ratio(number, of), interval.low, interval.high)

    def shown(self, number: int, of: int | None = None) -> str:
        """A share with its interval for people; of the answered rows, unless `of` says of which."""
        return str(self.share(number, self.answered if of is None else of))

    def shares(self) -> Iterator[Share]:
        """Every share of the report."""
        yield from self._mix_shares(self.mix, "")
        for column in self.fields:
            for name, number in column.values:
                yield self.share(number, self.answered, f"field {column.name}", name)
        for theme in self.themes:
            yield self.share(theme.count, self.answered, "theme", theme.name)
        for parent in self.parents:
            yield self.share(parent.count, self.answered, "parent", parent.name)
        for split in self.splits:
            for group in split.groups:
                yield from self._mix_shares(group.mix, f"{split.column}={group.value} ")

    def _mix_shares(self, mix: Mix, before: str) -> Iterator[Share]:
        for kind, counts in (("sentiment", mix.sentiment), ("urgency", mix.urgency)) if self.judged else ():
            for name, number in in_order(counts, kind, self.sentiments):
                yield self.share(number, mix.answered, f"{before}{kind}", name)

    def top(self, tone: Tone) -> ThemeFigures | None:
        """The most frequent theme that is complained about, or praised."""
        return next((theme for theme in self.themes if theme.count and theme.tone == tone), None)

    def sureness(self) -> str:
        """What the intervals are about, in one sentence."""
        if self.sample is None:
            return (
                "Shares are of the answered rows. Ranges are 95 % intervals: how far so many rows can be off by chance."
            )
        size, population = self.sample.size, self.sample.population
        rows = f"The {size:,} rows were drawn at random from {population:,}"
        return f"{rows}. Shares are of the answered rows; ranges are 95 % intervals for the answered ones of all rows."

    def label_sentence(self) -> str:
        """One sentence in which every row occurs once by its labels; empty without themes."""
        if self.labels is None:
            return ""
        labels = self.labels
        parts = [f"{labels.themed:,} with themes"]
        named = ((labels.other, "other"), (labels.none, "none"), (labels.unlabelled, "not labelled"))
        parts += [f"{number:,} {name}" for number, name in named if number]
        return f"{many(self.rows, 'row')} = {' + '.join(parts)}"


def review_sentence(review: ReviewFigures) -> str:
    """What the corrected totals rest on."""
    parts = [f"{many(review.sampled, 'row')} of a random sample reviewed"]
    if review.others:
        values = "its own values count" if review.others == 1 else "their own values count"
        parts.append(f"{many(review.others, 'other row')} judged: {values} in the shares, but not in this correction")
    if review.unreviewed:
        parts.append(f"{many(review.unreviewed, 'row')} of the sample not reviewed: mellea review continues")
    return "; ".join(parts)


EMPTY_VALUE = "(empty)"
_LONGEST_VALUE = 80


def value_name(value: Any) -> str:
    """The name of a value in tables and filters, in one line."""
    if value is None:
        return EMPTY_VALUE
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    return text or EMPTY_VALUE


def value_names(value: Any) -> list[str]:
    """The names of an own field's values in a row: several for a list, none for null."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [value_name(one) for one in values]


def ratio(number: int, whole: int) -> float:
    """A share from 0 to 1; 0 of nothing is 0."""
    return number / whole if whole else 0.0


def percent(share: float) -> str:
    """A share for people, such as `43 %`; 0 and 100 are written for nothing and all only."""
    whole = round(share * 100)
    if share > 0 and whole == 0:
        return "<1 %"
    if share < 1 and whole == 100:
        return ">99 %"
    return f"{whole} %"


def with_interval(share: float, interval: Interval) -> str:
    """A share and its interval for people, such as `38 % (35 to 41)`."""
    # Whole percentages would hide a narrow interval.
    narrow = 0 < interval.high - interval.low < 0.02
    shown = f"{share * 100:.1f} %" if narrow else percent(share)
    low, high = (f"{end * 100:.{int(narrow)}f}" for end in (interval.low, interval.high))
    return f"{shown} ({low} to {high})"


def many(number: int, name: str) -> str:
    """A number with its noun, such as `1 row` or `2,000 rows`."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def in_order(
    counts: Mapping[str, int], kind: str = "sentiment", sentiments: Collection[str] = SENTIMENTS
) -> list[tuple[str, int]]:
    """Judgements with their counts: known ones in their fixed order, own labels as declared, then others by frequency.

    Urgencies and the run's `sentiments` are there even at 0.
    """
    always = tuple(sentiments) if kind == "sentiment" else URGENCIES
    order = SENTIMENTS if set(always) <= set(SENTIMENTS) else always
    found = {name: counts.get(name, 0) for name in (*always, *counts)}
    shown = {name: number for name, number in found.items() if number or name in always}
    unknown = [(name, number) for name, number in shown.items() if name not in order]
    known = [(name, shown[name]) for name in order if name in shown]
    return [*known, *sorted(unknown, key=lambda pair: (-pair[1], pair[0]))]


_SHARES = ("share", "low", "high")


def figures_to_json(figures: Figures) -> str:
    """Render the figures as JSON. Keys are only ever added."""
    from pydantic import TypeAdapter

    fields = TypeAdapter(Figures).dump_python(figures, mode="json")
    shares = [{**asdict(one), **{key: round(getattr(one, key), 6) for key in _SHARES}} for one in figures.shares()]
    record = {"answered": figures.answered, "rows": figures.rows, **fields, "shares": shares}
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"
