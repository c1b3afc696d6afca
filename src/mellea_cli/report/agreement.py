"""Agreement of a model with people, and of people with each other; totals corrected by a reviewed random sample.

docs/figures.md has the formulas, where they come from, and when not to trust them.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from itertools import combinations
from typing import Any

from mellea_cli.errors import name_some
from mellea_cli.io.corrections import Corrections, Sample, sample_rank
from mellea_cli.pipelines.confidence import LEAST_JUDGED, recalibrated, recalibration
from mellea_cli.pipelines.pipeline import Column
from mellea_cli.pipelines.theme_prompts import anchored
from mellea_cli.report.figures import CorrectedShare, FieldReview, ReviewFigures, value_names
from mellea_cli.report.intervals import Interval, Z, correction, share_interval
from mellea_cli.report.results import SENTIMENTS, URGENCIES, Record

# What a reviewer sees.

BUILT_IN_KINDS = {
    "sentiment": "label",
    "urgency": "label",
    "main_complaint": "text",
    "positive_aspect": "text",
    "summary": "text",
}
"""The fields of the built-in pipelines that are judged, and their kind."""
_LONG_WORD = 4


@dataclass(frozen=True, slots=True)
class ReviewField:
    """A field that is judged.

    Args:
        name: its name.
        kind: `label` or `text` for a built-in one, `themes`, or the type of an own field.
        choices: its values in the order of their keys; empty for any text.
        joint: separates the values of a list when it is typed.
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    joint: str = " | "

    @property
    def has_choices(self) -> bool:
        return self.kind in ("label", "bool", "category", "categories", "themes")

    @property
    def is_list(self) -> bool:
        return self.kind in ("categories", "themes", "list")

    def shown(self, value: Any) -> str:
        """The value for people; empty for null."""
        if isinstance(value, list):
            return self.joint.join(map(str, value))
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def typed(self, text: str) -> Any:
        """The value that a person has typed; nothing is null.

        Raises:
            ValueError: it is none of this type; the message says what to type.
        """
        from mellea_cli.pipelines.pipeline_spec import as_date

        text = " ".join(text.split())
        if not text and self.kind != "label":
            return [] if self.is_list else None
        if self.is_list:
            return [self._one(part.strip()) for part in text.split(self.joint.strip() or "|") if part.strip()]
        if self.kind in ("int", "number"):
            try:
                return int(text) if self.kind == "int" else float(text)
            except ValueError:
                raise ValueError("type a number") from None
        if self.kind == "date" and as_date(text) is None:
            raise ValueError("type a date such as 2026-01-31")
        if self.kind == "bool":
            return self._one(text) == "true"
        return self._one(text)

    def _one(self, text: str) -> str:
        found = next((choice for choice in self.choices if choice.casefold() == text.casefold()), None)
        if found is None and self.choices and self.has_choices:
            raise ValueError(f"type one of {name_some(self.choices, 12)}")
        return found or text


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A row to judge."""

    record: Record
    sample: Sample
    seed: int | None = None
    confidence: float | None = None
    size: int | None = None  # The rows that the random sample is to have


def evidence(record: Record, text: str) -> list[tuple[int, int, str]]:
    """The passages of a text that the answers rest on: start, end, and `complaint`, `praise` or `quote`.

    A quote is marked where it stands. Complaint and praise are the model's own words, so the words that they share
    with the text are marked.
    """
    marks: list[tuple[int, int, str]] = []
    quotes = [*record.quotes.values(), *(value for value in record.own.values() if isinstance(value, str))]
    for quote in quotes:
        passage = anchored(quote, text) if len(quote) > _LONG_WORD else None
        if passage and (start := text.find(passage)) >= 0:
            marks.append((start, start + len(passage), "quote"))
    for kind, said in (("complaint", record.complaint), ("praise", record.praise)):
        words = {word.casefold() for word in re.findall(r"\w+", said) if len(word) >= _LONG_WORD}
        marks += [
            (word.start(), word.end(), kind)
            for word in re.finditer(r"\w+", text)
            if len(word[0]) >= _LONG_WORD and any(_same_word(word[0].casefold(), one) for one in words)
        ]
    kept: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(marks):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, kind))
    return kept


def _same_word(one: str, other: str) -> bool:
    """Whether two words are equal but for their last letters."""
    shorter = min(len(one), len(other))
    return one == other or (shorter > _LONG_WORD and one[: shorter - 1] == other[: shorter - 1])


# Totals corrected by a sample.


def corrected_share(population: int, model: int, cells: tuple[int, int, int, int]) -> tuple[float, Interval]:
    """The share of a value among all rows of a file, from the model's answers and a reviewed random sample.

    Prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Science 382, 2023), in the closed
    form for a mean, with the weight of the model's answers tuned as in PPI++ (Angelopoulos, Duchi and Zrnic, 2023). In
    survey sampling it is the regression estimator of Cochran (1977, chapter 7). The interval is about the rows of this
    file: the variance has the finite-population correction. Half a row is added to each cell for the variance, as
    Agresti and Min (2005) do it, so that a sample without errors does not claim certainty.

    Args:
        population: the answered rows.
        model: the rows to which the model gives the value.
        cells: reviewed rows: value by both, by the person only, by the model only, by neither.
    """
    both, person_only, model_only, _ = cells
    size = sum(cells)
    by_person, by_model = (both + person_only) / size, (both + model_only) / size
    total = size + 2
    chances = [(cell + 0.5) / total for cell in cells]
    p, f = chances[0] + chances[1], chances[0] + chances[2]
    weight = max(0.0, min(1.0, (chances[0] - p * f) / (f * (1 - f))))
    value = min(1.0, max(0.0, by_person + weight * (model / population - by_model)))
    errors = (1 - weight, 1.0, -weight, 0.0)
    mean = sum(chance * error for chance, error in zip(chances, errors, strict=True))
    variance = sum(chance * (error - mean) ** 2 for chance, error in zip(chances, errors, strict=True))
    half = Z * math.sqrt(variance * total / (total - 1) / size * correction(size, population))
    return value, Interval(max(0.0, value - half), min(1.0, value + half))


class UnreviewedRows:
    """Counts the rows of the random sample that nobody has judged: skipped, never reached, or added later.

    Args:
        corrections: what people have said about the rows.
        whole: whether it gets all rows of the output. Of some of them nobody knows how many of the sample are there, so
            only those before the last judged one count.
    """

    def __init__(self, corrections: Corrections, *, whole: bool = True) -> None:
        self._corrections = corrections
        self._size = corrections.size or 0 if whole and corrections.seed is not None else 0
        self._before = 0
        # The rows with the smallest ranks, the largest first; of each, whether it is one to count.
        self._drawn: list[tuple[int, bool]] = []

    def add(self, record: Record) -> None:
        """Count an answered row."""
        is_before = not record.is_sampled and self._corrections.expects(record.id, record.text)
        self._before += is_before
        if self._size:
            rank = int.from_bytes(sample_rank(self._corrections.seed or 0, record.id, record.text))
            entry = -rank, not record.is_sampled and not is_before
            if len(self._drawn) < self._size:
                heapq.heappush(self._drawn, entry)
            elif entry > self._drawn[0]:
                heapq.heapreplace(self._drawn, entry)

    @property
    def count(self) -> int:
        return self._before + sum(is_missing for _, is_missing in self._drawn)


class ReviewedTotals:
    """Takes the rows of an output one by one; `figures` gives the corrected shares.

    Args:
        corrections: what people have said about the rows.
        own: the columns of own fields.
        whole: whether it gets all rows of the output.
    """

    def __init__(self, corrections: Corrections, own: Sequence[Column] = (), *, whole: bool = True) -> None:
        self._unreviewed = UnreviewedRows(corrections, whole=whole)
        labelled = [one.name for one in own if one.is_categorical]
        # An own field may be called sentiment, too.
        self._names = list(dict.fromkeys(["sentiment", "urgency", *labelled, "themes"]))
        self._rows = self._sampled = self._others = 0
        self._model: dict[str, Counter[str]] = {name: Counter() for name in self._names}
        self._pairs: dict[str, Counter[tuple[frozenset[str], frozenset[str]]]] = defaultdict(Counter)

    def add(self, record: Record) -> None:
        if record.state != "answered":
            return
        self._rows += 1
        self._sampled += record.is_sampled
        self._others += bool(record.reviewed) and not record.is_sampled
        self._unreviewed.add(record)
        for name in self._names:
            said = frozenset(value_names(record.model_value(name)))
            self._model[name].update(said)
            if record.is_sampled and name in record.reviewed:
                self._pairs[name][frozenset(value_names(record.reviewed[name].person)), said] += 1

    def figures(self) -> ReviewFigures | None:
        """The corrected shares; `None` without any judgement."""
        if not self._sampled and not self._others:
            return None
        found = [self._field(name, self._pairs[name]) for name in self._names if self._pairs[name].total() > 1]
        return ReviewFigures(self._sampled, self._others, self._unreviewed.count, found)

    def _field(self, name: str, pairs: Counter[tuple[frozenset[str], frozenset[str]]]) -> FieldReview:
        order = {"sentiment": SENTIMENTS, "urgency": URGENCIES}.get(name, ())
        counts = Counter(self._model[name])
        counts.update({value: 0 for person, _ in pairs for value in person})
        names = sorted(
            counts, key=lambda value: (order.index(value) if value in order else len(order), -counts[value], value)
        )
        right = sum(number for (person, said), number in pairs.items() if person == said)
        return FieldReview(name, pairs.total(), right, [self._share(name, value, pairs) for value in names[:_VALUES]])

    def _share(self, name: str, value: str, pairs: Counter[tuple[frozenset[str], frozenset[str]]]) -> CorrectedShare:
        found: Counter[tuple[bool, bool]] = Counter()
        for (person, said), number in pairs.items():
            found[value in person, value in said] += number
        cells = (found[True, True], found[True, False], found[False, True], found[False, False])
        size, by_person, by_model = pairs.total(), cells[0] + cells[1], self._model[name][value]
        corrected, interval = corrected_share(self._rows, by_model, cells)
        return CorrectedShare(
            value,
            by_model / self._rows,
            share_interval(by_model, self._rows),
            by_person / size,
            share_interval(by_person, size, self._rows),
            corrected,
            interval,
        )


_VALUES = 12


# Evaluation against a person's labels.


@dataclass(frozen=True, slots=True)
class Share:
    """A number of rows out of others, with the interval of its share."""

    number: int
    size: int

    @property
    def value(self) -> float:
        return self.number / self.size if self.size else 0.0

    @property
    def interval(self) -> Interval:
        return share_interval(self.number, self.size)

    def record(self) -> dict[str, Any]:
        """The share for JSON; a share of no rows is null."""
        ends = self.interval
        told = [None] * 3 if not self.size else [round(one, 6) for one in (self.value, ends.low, ends.high)]
        return {"number": self.number, "of": self.size, "share": told[0], "low": told[1], "high": told[2]}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the percentile interval of the bootstrap."""

    value: float
    interval: Interval

    def record(self) -> dict[str, Any]:
        return {"value": round(self.value, 6), "low": round(self.interval.low, 6), "high": round(self.interval.high, 6)}


@dataclass(frozen=True, slots=True)
class Judged:
    """One field of one row with the person's value and the model's."""

    field: str
    type: str  # Of an own field; `label` for the built-in ones with labels, `text` for those with text
    person: Any
    model: Any
    groups: Mapping[str, str] = dataclass_field(default_factory=dict)  # The row's values in the columns to group by
    confidence: float | None = None


def calibration(judged: Sequence[tuple[float, bool]]) -> dict[str, Any] | None:
    """The calibration error as it is, and cross-validated with `recalibration`; `None` for too few rows."""
    if len(judged) < LEAST_JUDGED:
        return None
    after: list[tuple[float, bool]] = []
    for part in range(_PARTS):
        weights = recalibration([one for at, one in enumerate(judged) if at % _PARTS != part])
        after += [(recalibrated(sure, weights), is_right) for sure, is_right in judged[part::_PARTS]]
    errors = {"before": calibration_error(judged), "after": calibration_error(after)}
    return {name: round(error, 4) for name, error in errors.items()} | {"weights": recalibration(judged)}


def calibration_error(judged: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart, weighted over bins of equal width."""
    apart = [0.0] * bins
    for sure, is_right in judged:
        apart[min(bins - 1, max(0, math.ceil(sure * bins) - 1))] += sure - is_right
    return sum(map(abs, apart)) / len(judged)


_PARTS = 10


@dataclass(frozen=True, slots=True)
class FieldEvaluation:
    """How right the model is in one field."""

    name: str
    rows: int
    right: Share | None = None  # `None` for free text, which is right in many forms
    macro_f1: Estimate | None = None
    labels: Sequence[str] = ()  # Those in `confusion`, in the order of their declaration
    confusion: Sequence[tuple[str, str, int]] = ()  # The person's label, the model's, and rows
    opposite: Share | None = None  # Positive for negative, high for low, or the reverse
    null_found: Share | None = None  # The model has null too, of the rows where the person has null
    value_found: Share | None = None  # The model has a value too, of the rows where the person has one
    groups: Sequence[tuple[str, str, Share]] = ()  # Column, value, and how many are right
    surest: Share | None = None  # Right among the surest 80 % of the rows with a confidence
    unsure: Share | None = None  # Right among the others
    calibration: Mapping[str, Any] | None = None  # See `calibration`


_OPPOSITES = {"sentiment": {"positive", "negative"}, "urgency": {"high", "low"}}
_LABELS = ("label", "bool", "category")
_MEASURED = (*_LABELS, "categories", "int", "number", "date")
_GROUPS = 12
_SUREST = 0.8
NULL = "(null)"


def evaluate(judged: Iterable[Judged], choices: Mapping[str, Sequence[str]] | None = None) -> list[FieldEvaluation]:
    """Compare the model's values with a person's, field by field; `choices` are the labels of fields in their order."""
    by_field: defaultdict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in judged:
        by_field[one.field, one.type].append(one)
    return [_evaluated(name, kind, rows, (choices or {}).get(name, ())) for (name, kind), rows in by_field.items()]


def _evaluated(name: str, kind: str, rows: Sequence[Judged], choices: Sequence[str]) -> FieldEvaluation:
    nulls = [one.model is None for one in rows if one.person is None]
    values = [one.model is not None for one in rows if one.person is not None]
    has_nulls = bool(nulls) or not all(values)
    null_found = Share(sum(nulls), len(nulls)) if has_nulls else None
    value_found = Share(sum(values), len(values)) if has_nulls else None
    if kind not in _MEASURED:
        return FieldEvaluation(name, len(rows), null_found=null_found, value_found=value_found)
    groups: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    right = [_labels(one.person) == _labels(one.model) for one in rows]
    for one, is_right in zip(rows, right, strict=True):
        for column, value in one.groups.items():
            groups[column, value].append(is_right)
    by_size = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    cells = Counter((_labels(one.person), _labels(one.model)) for one in rows)
    opposites = _OPPOSITES.get(name, set())
    judged = [pair for pair in cells.elements() if pair[0] & opposites]
    turned = sum(bool(said & opposites) and said != person for person, said in judged)
    single = kind in _LABELS
    declared = [choice.casefold() for choice in choices]
    used = {label for pair in cells for one in pair for label in one} if single else set()
    place = {one: at for at, one in enumerate([*declared, *sorted(used - {*declared, NULL}), NULL])}
    pairs = zip(rows, right, strict=True)
    known = [(one.confidence, hit) for one, hit in pairs if one.confidence is not None]
    sure = sorted(known, key=lambda pair: -pair[0])
    at = round(_SUREST * len(sure))
    surest, unsure = (Share(sum(hit for _, hit in part), len(part)) for part in (sure[:at], sure[at:]))
    return FieldEvaluation(
        name,
        len(rows),
        Share(sum(right), len(rows)),
        bootstrap(cells, macro_f1) if single or kind == "categories" else None,
        sorted(used, key=place.__getitem__),
        sorted(
            ((min(person), min(said), number) for (person, said), number in cells.items()),
            key=lambda cell: (place[cell[0]], place[cell[1]]),
        )
        if single
        else (),
        Share(turned, len(judged)) if judged else None,
        null_found,
        value_found,
        [(column, value, Share(sum(hits), len(hits))) for (column, value), hits in by_size[:_GROUPS]],
        surest if sure else None,
        unsure if sure else None,
        calibration(known),
    )


def _labels(value: Any) -> frozenset[str]:
    """A value as the set of its labels; null is a label of its own."""
    if value is None:
        return frozenset((NULL,))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return frozenset(name.casefold() for name in value_names(value)) or frozenset((NULL,))


Pair = tuple[frozenset[str], frozenset[str]]


def macro_f1(cells: Mapping[Pair, int]) -> float:
    """The mean of the F1 scores of the labels that the person has used."""
    hits: Counter[str] = Counter()
    there: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for (person, model), number in cells.items():
        for label in person:
            there[label] += number
            hits[label] += number * (label in model)
        for label in model:
            said[label] += number
    used = [label for label, number in there.items() if number]
    return sum(2 * hits[label] / (there[label] + said[label]) for label in used) / len(used) if used else 0.0


# Agreement of people.


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two people agree in one field, or several people with Krippendorff's alpha."""

    field: str
    people: tuple[str, ...]
    rows: int
    same: Share | None  # `None` for several people
    kappa: Estimate | None  # Cohen's, of two people
    alpha: Estimate


def agreements(corrections: Corrections, names: Iterable[str]) -> list[Agreement]:
    """The agreement of each two people who have judged the same rows, and of all of them where they are more."""
    found: list[Agreement] = []
    units: defaultdict[str, list[dict[str, frozenset[str]]]] = defaultdict(list)
    wanted = set(names)
    for people in corrections.by_people():
        first = next(iter(people.values()))
        if len(people) > 1 and first.field in wanted:
            units[first.field].append({who: _labels(one.person) for who, one in people.items()})
    for name, rows in units.items():
        whole = tuple(sorted({who for row in rows for who in row}))
        for one, other in combinations(whole, 2):
            cells = Counter((row[one], row[other]) for row in rows if one in row and other in row)
            if cells:
                size = cells.total()
                same = Share(sum(number for (a, b), number in cells.items() if a == b), size)
                kappa, alpha = bootstrap(cells, cohen_kappa), bootstrap(cells, krippendorff_alpha)
                found.append(Agreement(name, (one, other), size, same, kappa, alpha))
        if len(whole) > 2:
            ratings = Counter(tuple(row.values()) for row in rows)
            found.append(Agreement(name, whole, len(rows), None, None, bootstrap(ratings, krippendorff_alpha)))
    return found


def cohen_kappa(cells: Mapping[Any, int]) -> float:
    """Cohen's kappa (1960): agreement of two people beyond what their own frequencies give by chance."""
    size = sum(cells.values())
    first: Counter[Any] = Counter()
    second: Counter[Any] = Counter()
    for (one, other), number in cells.items():
        first[one] += number
        second[other] += number
    observed = sum(number for (one, other), number in cells.items() if one == other) / size
    expected = sum(number * second[label] for label, number in first.items()) / size**2
    return (observed - expected) / (1 - expected) if expected < 1 else 1.0


def krippendorff_alpha(units: Mapping[Any, int]) -> float:
    """Krippendorff's alpha (2004, chapter 11) for names: any number of people, and rows that some have not judged.

    Args:
        units: the labels that people gave to a row, and the number of such rows.
    """
    together: defaultdict[tuple[Any, Any], float] = defaultdict(float)
    for labels, number in units.items():
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        for one, times in counts.items():
            for other, others in counts.items():
                pairs = times * (others - (one == other))
                together[one, other] += number * pairs / (len(labels) - 1)
    totals: defaultdict[Any, float] = defaultdict(float)
    for (one, _), weight in together.items():
        totals[one] += weight
    size = sum(totals.values())
    different = sum(weight for (one, other), weight in together.items() if one != other)
    by_chance = size**2 - sum(weight**2 for weight in totals.values())
    return 1 - (size - 1) * different / by_chance if by_chance else 1.0


# The bootstrap.

_DRAWS = 1_000


def bootstrap(cells: Counter[Any], statistic: Callable[[Mapping[Any, int]], float]) -> Estimate:
    """A figure of a table of counts, with its percentile interval (Efron and Tibshirani 1993, chapter 13).

    The draws are the same in each run.
    """
    chance = random.Random(0)  # noqa: S311 - no secret
    items, size = list(cells.items()), cells.total()
    draws = sorted(statistic(_drawn(items, size, chance)) for _ in range(_DRAWS))
    low, high = draws[round(0.025 * (_DRAWS - 1))], draws[round(0.975 * (_DRAWS - 1))]
    return Estimate(statistic(cells), Interval(low, high))


def _drawn(items: Sequence[tuple[Any, int]], size: int, chance: random.Random) -> dict[Any, int]:
    """As many rows as there are, drawn with replacement: each cell is binomial, given those before it."""
    drawn: dict[Any, int] = {}
    left, rows = size, size
    for cell, number in items:
        drawn[cell] = taken = _binomial(left, number / rows if rows > number else 1.0, chance)
        left, rows = left - taken, rows - number
    return {cell: number for cell, number in drawn.items() if number}


def _binomial(size: int, share: float, chance: random.Random) -> int:
    if size <= 0 or share <= 0:
        return 0
    if share >= 1:
        return size
    if share > 0.5:
        return size - _binomial(size, 1 - share, chance)
    if size * share * (1 - share) > 30:
        near = round(chance.gauss(size * share, math.sqrt(size * share * (1 - share))))
        return min(size, max(0, near))
    # The number of misses between two hits is geometric.
    hits, at = 0, 0
    step = math.log1p(-share)
    while True:
        at += int(math.log(1.0 - chance.random()) / step) + 1
        if at > size:
            return hits
        hits += 1


# Evaluation as JSON. Keys are only ever added.


def evaluation_to_json(record: Mapping[str, Any]) -> str:
    """Render an evaluation with what `evaluate` and `agreements` have found as JSON."""
    return json.dumps(record, ensure_ascii=False, default=_record) + "\n"


def _record(one: Any) -> dict[str, Any]:
    if not isinstance(one, FieldEvaluation | Agreement):
        found: dict[str, Any] = one.record()
        return found
    record = {part.name: getattr(one, part.name) for part in fields(one)}
    if isinstance(one, FieldEvaluation):
        record["confusion"] = [dict(zip(("person", "model", "rows"), cell, strict=True)) for cell in one.confusion]
        record["groups"] = [dict(zip(("column", "value", "right"), group, strict=True)) for group in one.groups]
    return record
