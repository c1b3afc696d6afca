"""A score column: NPS, CSAT or the mean of stars, and how much each theme and each value moves it.

Every score is a mean of one number for each row: 100, 0 or -100 for NPS, 100 or 0 for CSAT, the stars themselves. The
impact of a group of rows is the score of all rows minus the score without that group.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mellea_cli.report.intervals import (
    Interval,
    Z,
    benjamini_hochberg,
    correction,
    mean_interval,
    normal_p,
    share_interval,
)

ScoreKind = Literal["nps", "csat", "stars"]
SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)
LABELS: Mapping[ScoreKind, str] = {"nps": "NPS", "csat": "CSAT", "stars": "mean stars"}

_NAMES: Mapping[ScoreKind, frozenset[str]] = {
    "nps": frozenset(("nps", "npsscore", "netpromoterscore", "likelihoodtorecommend", "recommend", "recommendation")),
    "csat": frozenset(("csat", "csatscore", "satisfaction", "customersatisfaction", "satisfactionscore")),
    "stars": frozenset(("stars", "rating", "starrating", "ratings", "reviewrating", "overallrating")),
}
_CSAT_SCALES = (5, 7, 10)
_STAR_SCALES = (5, 10, 100)
_MOST_GROUPS = 10_000
_LEAST_ROWS = 5  # Fewer rows in or outside of a group: its impact is never said to hold


def recognised_kind(column: str) -> ScoreKind | None:
    """The kind of score that a column's name stands for; `None` for any other column."""
    name = re.sub(r"[\W_]+", "", column.casefold())
    return next((kind for kind, names in _NAMES.items() if name in names), None)


@dataclass(frozen=True, slots=True)
class Impact:
    """How much a group of rows moves the score."""

    group: str  # `theme`, `field NAME`, or the column of a split
    name: str
    rows: int  # Rows of the group with a score
    score: float  # Of these rows
    impact: float  # The score of all rows minus the score without them
    low: float
    high: float
    holds: bool  # Whether it differs from 0 beyond chance, over all impacts


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """The score of a column, and what moves it."""

    kind: ScoreKind
    column: str
    rows: int  # Rows with a score
    missing: int  # Rows without one
    unreadable: int  # Rows whose value is no number of the scale
    value: float
    low: float
    high: float
    parts: Sequence[tuple[str, int]]  # Rows by what their score means, such as `promoters`
    impacts: Sequence[Impact]  # Worst first
    standard_error: float

    @property
    def label(self) -> str:
        return LABELS[self.kind]

    @property
    def unit(self) -> str:
        return "stars" if self.kind == "stars" else "points"

    @property
    def scale(self) -> str:
        """Which values count as satisfied; empty for a kind that has only one scale."""
        return self.parts[0][0] if self.kind == "csat" else ""

    def shown(self, value: float, *, signed: bool = False) -> str:
        """A score for people: NPS and CSAT in tenths at most, stars in hundredths."""
        places = 2 if self.kind == "stars" else 1
        return f"{value:{'+' if signed else ''}.{places}f}"

    def sentence(self) -> str:
        """The score with its interval and the number of rows."""
        end = f"{self.shown(self.low)} to {self.shown(self.high)}"
        percent = " %" if self.kind == "csat" else ""
        rows = "row" if self.rows == 1 else "rows"
        return f"{self.label} {self.shown(self.value)}{percent} ({end}), {self.rows:,} {rows} with a score"


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """How a score moved between two outputs."""

    kind: ScoreKind
    old: float
    new: float
    change: float
    low: float
    high: float
    p: float
    holds: bool = False
    unit: str = "points"

    def sentence(self) -> str:
        places = 2 if self.kind == "stars" else 1
        old, new, low, high = (f"{value:.{places}f}" for value in (self.old, self.new, self.low, self.high))
        verdict = "no clear change" if not self.holds else "up" if self.change > 0 else "down"
        return f"{LABELS[self.kind]} {old} → {new}: {self.change:+.{places}f} {self.unit} ({low} to {high}), {verdict}"


def score_change(old: ScoreFigures | None, new: ScoreFigures | None) -> ScoreChange | None:
    """The difference of two scores of one kind and one scale; `None` where there are none."""
    if old is None or new is None or old.kind != new.kind or old.scale != new.scale:
        return None
    change = new.value - old.value
    # The ends of a difference from those of both scores, as Newcombe's for shares.
    low = change - math.hypot(new.value - new.low, old.high - old.value)
    high = change + math.hypot(new.high - new.value, old.value - old.low)
    error = math.hypot(new.standard_error, old.standard_error)
    p = normal_p(change / error) if error else float(change == 0)
    return ScoreChange(old.kind, old.value, new.value, change, low, high, p, unit=new.unit)


@dataclass(slots=True)
class _Sums:
    """Number of rows, sum and sum of squares."""

    rows: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, counts: Mapping[float, int], points: Mapping[float, float]) -> _Sums:
        made = cls()
        for value, rows in counts.items():
            point = points[value]
            made.rows += rows
            made.total += rows * point
            made.squares += rows * point * point
        return made

    def minus(self, other: _Sums) -> _Sums:
        return _Sums(self.rows - other.rows, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else 0.0


@dataclass(slots=True)
class ScoreTally:
    """The scores of one column so far. Rows count whether or not they have a text: a score is an answer by itself."""

    kind: ScoreKind
    column: str
    missing: int = 0
    unreadable: int = 0
    _counts: Counter[float] = field(default_factory=Counter)
    _groups: dict[tuple[str, str], Counter[float]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, value: Any, groups: Iterable[tuple[str, str]]) -> None:
        """Count a row with this value, which belongs to these groups of a kind and a name each."""
        score = self._read(value)
        if score is None:
            return
        self._counts[score] += 1
        for group in groups:
            if group in self._groups or len(self._groups) < _MOST_GROUPS:
                self._groups[group][score] += 1

    def _read(self, value: Any) -> float | None:
        if value is None or (isinstance(value, str) and not value.strip()):
            self.missing += 1
            return None
        try:
            score = float(value.strip().replace(",", ".") if isinstance(value, str) else value)
        except (ValueError, TypeError):
            score = math.nan
        whole = self.kind == "stars" or score.is_integer()
        limits = {"nps": (0, 10), "csat": (0, 10), "stars": (0, 100)}[self.kind]
        if isinstance(value, bool) or not whole or not limits[0] <= score <= limits[1]:
            self.unreadable += 1
            return None
        return round(score, 2)

    @property
    def rows(self) -> int:
        return self._counts.total()

    def figures(self, groups: Sequence[str], sample: tuple[int, int] | None = None) -> ScoreFigures | None:
        """The score and the impacts of the kinds of groups in `groups`; `None` where no row has a score.

        `sample` has the size of a random sample and of its population.
        """
        if not self._counts:
            return None
        points, parts = self._points()
        everything = _Sums.of(self._counts, points)
        population = None if sample is None else max(self.rows, round(self.rows * sample[1] / sample[0]))
        interval = self._interval(everything, dict(parts), population)
        impacts = [
            (group, name, sums, *_impact(everything, sums, correction(self.rows, population)))
            for (group, name), counts in self._groups.items()
            if group in groups and 0 < (sums := _Sums.of(counts, points)).rows < self.rows
        ]
        tested = [
            min(sums.rows, self.rows - sums.rows) >= _LEAST_ROWS and error > 0 for _, _, sums, _, error in impacts
        ]
        p_values = [
            normal_p(impact / error) if test else 1.0 for (*_, impact, error), test in zip(impacts, tested, strict=True)
        ]
        holding = benjamini_hochberg(p_values)
        made = [
            Impact(group, name, sums.rows, sums.mean, impact, impact - Z * error, impact + Z * error, holds)
            for (group, name, sums, impact, error), holds in zip(impacts, holding, strict=True)
        ]
        made.sort(key=lambda one: (one.impact, one.name))
        standard_error = (interval.high - interval.low) / (2 * Z)
        least, most = self._scale_ends()
        ends = (max(interval.low, least), min(interval.high, most))
        counted = (self.rows, self.missing, self.unreadable)
        return ScoreFigures(self.kind, self.column, *counted, everything.mean, *ends, parts, made, standard_error)

    def _scale_ends(self) -> tuple[float, float]:
        """The lowest and the highest score that there can be; of stars by the smallest usual scale with all values."""
        if self.kind != "stars":
            return (-100.0 if self.kind == "nps" else 0.0), 100.0
        most = next(scale for scale in _STAR_SCALES if max(self._counts) <= scale)
        return (1.0 if most == _STAR_SCALES[0] and min(self._counts) >= 1 else 0.0), float(most)

    def _points(self) -> tuple[dict[float, float], list[tuple[str, int]]]:
        """The number that each value stands for, and rows by what their values mean."""
        values = sorted(self._counts)
        if self.kind == "stars":
            return {value: value for value in values}, [(f"{value:g}", self._counts[value]) for value in values[:11]]
        if self.kind == "nps":
            points = {value: 100.0 if value >= 9 else 0.0 if value >= 7 else -100.0 for value in values}
            names = {100.0: "promoters", 0.0: "passives", -100.0: "detractors"}
        else:
            # Satisfied are the two highest values of the smallest usual scale that has all values.
            scale = next(scale for scale in _CSAT_SCALES if values[-1] <= scale)
            points = {value: 100.0 if value >= scale - 1 else 0.0 for value in values}
            names = {100.0: f"satisfied ({scale - 1} or {scale} of {scale})", 0.0: "not satisfied"}
        rows = {point: sum(self._counts[value] for value in values if points[value] == point) for point in names}
        return points, [(name, rows[point]) for point, name in names.items()]

    def _interval(self, sums: _Sums, parts: Mapping[str, int], population: int | None) -> Interval:
        if self.kind == "csat":
            found = share_interval(next(iter(parts.values())), sums.rows, population)
            return Interval(found.low * 100, found.high * 100)
        if self.kind == "stars":
            return mean_interval(sums.rows, sums.total, sums.squares, population) or Interval(sums.mean, sums.mean)
        # Adjusted Wald: three rows more, of which 3/4 are promoters and 3/4 detractors. With the plain variance an
        # NPS of few rows that agree would be certain.
        rows = sums.rows + 3
        promoters, detractors = parts["promoters"] + 0.75, parts["detractors"] + 0.75
        mean = (promoters - detractors) / rows
        variance = (promoters + detractors) / rows - mean * mean
        half = Z * math.sqrt(variance / rows * correction(sums.rows, population))
        low, high = 100 * max(-1.0, mean - half), 100 * min(1.0, mean + half)
        return Interval(min(low, sums.mean), max(high, sums.mean))


def _impact(everything: _Sums, group: _Sums, factor: float) -> tuple[float, float]:
    """The impact of a group and its standard error, linearised: the spread of what each row adds to the impact.

    A row of the group adds its distance from the mean of all. Another row adds that minus its distance from the mean
    without the group, divided by the share of the rows without the group.
    """
    without = everything.minus(group)
    mean, rest = everything.mean, without.mean
    impact = mean - rest
    inside = group.squares - 2 * mean * group.total + group.rows * mean * mean
    factor_out = everything.rows / without.rows
    slope, offset = 1 - factor_out, factor_out * rest - mean
    outside = slope * slope * without.squares + 2 * slope * offset * without.total + without.rows * offset * offset
    variance = max(0.0, inside + outside) / everything.rows**2
    return impact, math.sqrt(variance * factor)
