"""The figures of a report: what they are, and that they add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from mellea_cli.report.dates import Bucket
from mellea_cli.report.results import SENTIMENTS, UNSAID, URGENCIES, Record, ranked


@dataclass(slots=True)
class Mix:
    """How some rows were judged. Each answered row counts once in each of the two."""

    rows: int = 0
    """All rows, answered or not."""
    sentiment: Counter[str] = field(default_factory=Counter)
    urgency: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count one row."""
        self.rows += 1
        if record.state == "answered":
            self.sentiment[record.sentiment] += 1
            self.urgency[record.urgency or UNSAID] += 1

    @property
    def answered(self) -> int:
        """Rows with answers."""
        return self.sentiment.total()

    def share(self, name: str, kind: str = "sentiment") -> float:
        """The share of the answered rows that were judged so, from 0 to 1."""
        counts = self.sentiment if kind == "sentiment" else self.urgency
        return part(counts[name], self.answered)


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of one row."""

    number: int
    """The row's place, counted from 1."""
    id: str
    text: str
    sentiment: str
    urgency: str


@dataclass(frozen=True, slots=True)
class ThemeFigures:
    """One theme: how often it occurs, how it was judged, and words that prove it."""

    name: str
    mix: Mix
    share: float
    """Of the answered rows."""
    quotes: Sequence[Quote] = ()
    definition: str = ""
    kind: str = ""
    examples: Sequence[str] = ()

    @property
    def count(self) -> int:
        """Rows with this theme."""
        return self.mix.rows


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of every row when themes were given: the four add up to all rows."""

    themed: int
    """Rows with at least one theme of the list."""
    other: int
    none: int
    unlabelled: int
    """Rows that failed or were never labelled."""


@dataclass(frozen=True, slots=True)
class Point:
    """One bucket of a trend."""

    start: date
    name: str
    mix: Mapping[str, int]
    """Rows by sentiment; rows without an answer stand under `no answer`."""

    @property
    def rows(self) -> int:
        """All rows of the bucket."""
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
    month_first: bool = False
    """How dates such as 03/04/2026 were read."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rows with one value in a column."""

    value: str
    mix: Mix
    theme: str = ""
    """Its most frequent theme; empty without themes."""
    theme_count: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """All rows by the values of a column; the groups and `others` add up to all rows."""

    column: str
    groups: Sequence[Group]
    others: Mix
    """The rows of rarer values."""
    other_values: int
    """How many values these are."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that a report says, as plain numbers. Answered, blank and failed rows add up to all rows."""

    name: str
    """The file."""
    mix: Mix
    blank: int
    failed: int
    unreadable: int = 0
    """Rows of the file that could not be read; they take no part in any other figure."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed rows by kind."""
    labels: Labels | None = None
    """`None` when the rows have no themes."""
    themes: Sequence[ThemeFigures] = ()
    urgent: Sequence[Quote] = ()
    """The most urgent rows, worst first."""
    trend: Trend | None = None
    splits: Sequence[Split] = ()
    notes: Sequence[str] = ()
    """What a reader should know about the figures."""

    @property
    def rows(self) -> int:
        """All rows that could be read."""
        return self.mix.rows

    @property
    def answered(self) -> int:
        """Rows with answers."""
        return self.mix.answered

    def sums(self) -> Iterator[tuple[str, int, int]]:
        """Each sum that has to hold: what it says, and both of its sides."""
        yield "answered + blank + failed = rows", self.answered + self.blank + self.failed, self.rows
        yield "urgencies = answered", self.mix.urgency.total(), self.answered
        yield "kinds of failure = failed", sum(self.failures.values()), self.failed
        if (labels := self.labels) is not None:
            given = labels.themed + labels.other + labels.none + labels.unlabelled
            yield "themed + other + none + unlabelled = rows", given, self.rows
        if (trend := self.trend) is not None:
            yield "dated + empty + unreadable = rows", trend.dated + trend.empty + trend.unreadable, self.rows
            yield "points = dated", sum(point.rows for point in trend.points), trend.dated
        for split in self.splits:
            grouped = sum(group.mix.rows for group in split.groups) + split.others.rows
            yield f"groups of {split.column} = rows", grouped, self.rows

    def reconciliation(self) -> str:
        """One sentence in which every row occurs once."""
        parts = [f"{self.answered:,} answered"]
        parts += [f"{self.blank:,} without text"] if self.blank else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        return f"{many(self.rows, 'row')} = {' + '.join(parts)}"

    def label_sentence(self) -> str:
        """One sentence in which every row occurs once by what themes it has; empty without themes."""
        if self.labels is None:
            return ""
        labels = self.labels
        parts = [f"{labels.themed:,} with themes"]
        named = ((labels.other, "other"), (labels.none, "none"), (labels.unlabelled, "not labelled"))
        parts += [f"{number:,} {name}" for number, name in named if number]
        return f"{many(self.rows, 'row')} = {' + '.join(parts)}"


def part(number: int, whole: int) -> float:
    """A share from 0 to 1; 0 of nothing is 0."""
    return number / whole if whole else 0.0


def percent(share: float) -> str:
    """A share for people: `43%`; what is neither nothing nor all never looks so."""
    whole = round(share * 100)
    if share > 0 and whole == 0:
        return "<1%"
    if share < 1 and whole == 100:
        return ">99%"
    return f"{whole}%"


def many(number: int, name: str) -> str:
    """A number of things by its right name."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def in_order(counts: Mapping[str, int], kind: str = "sentiment") -> list[tuple[str, int]]:
    """Judgements with their counts, known ones always and in their order, others by how common they are."""
    order = SENTIMENTS if kind == "sentiment" else URGENCIES
    known = [(name, counts.get(name, 0)) for name in order]
    strange = sorted(((name, number) for name, number in counts.items() if name not in order and number), key=_common)
    return [*known, *strange]


def _common(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def severity(record: Record) -> tuple[int, int]:
    """How badly a row needs somebody to look at it: smaller is worse."""
    return ranked(record.urgency, URGENCIES), ranked(record.sentiment, SENTIMENTS)
