"""Audit: how often a cheap reading of rows agrees with the full one, and which rows may therefore have the cheap one.

A cheap reading gives each row a score, higher where it is surer. Rows from a threshold on keep the cheap answer. A
random part of all rows is answered by the full reading in any case, and tells how often both agree. The threshold is
the lowest one that these rows let pass:

- A threshold passes if the agreement of the rows above it would be as good by chance in at most a small share of all
  cases, were the true agreement below the target. The cheap reading may change ten times; together they have `RISK`.
  This is the binomial tail test of "Learn then Test" (A. Angelopoulos, S. Bates, E. Candès, M. Jordan, L. Lei, Annals
  of Applied Statistics 19, 2025), with its fixed sequence of tests: from the surest rows down to the first threshold
  that fails.
- The agreement that was measured has the interval of C. Clopper and E. Pearson (Biometrika 26, 1934), which is exact.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

RISK = 0.05
"""Share of the runs in which a threshold may pass although the agreement is below the target."""
CONFIDENCE = 0.95
"""Of the interval of the agreement that was measured."""

# The sequence of tests starts at this share of the rows and goes down in such steps.
_START, _STEP = 0.3, 0.05
# The risk is divided among so many readings: each is a chance for a bad threshold to pass.
_READINGS = 10
# A change in the rows is recognised when so bad an agreement would be rarer than this at the target.
_ALARM = 0.01
_DIGEST_BYTES = 8


def binomial_tail(most: int, tries: int, rate: float) -> float:
    """The probability of at most so many events in independent tries with this rate."""
    if most < 0:
        return 0.0
    if most >= tries or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    # Each term in logarithms: the first one is too small for a number where there are many tries.
    whole, log_rate, log_rest = math.lgamma(tries + 1), math.log(rate), math.log1p(-rate)
    terms = (
        math.exp(whole - math.lgamma(n + 1) - math.lgamma(tries - n + 1) + n * log_rate + (tries - n) * log_rest)
        for n in range(most + 1)
    )
    return min(1.0, math.fsum(terms))


def exact_interval(hits: int, tries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided interval of Clopper and Pearson for a share of which `hits` of `tries` were seen."""
    tail = (1 - confidence) / 2
    # The lower end is the upper one of the misses.
    low = 0.0 if hits == 0 else 1.0 - _upper_end(tries - hits, tries, tail)
    return low, 1.0 if hits == tries else _upper_end(hits, tries, tail)


def _upper_end(hits: int, tries: int, tail: float) -> float:
    """The rate at which at most `hits` would be as rare as `tail`."""
    low, high = hits / tries if tries else 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if binomial_tail(hits, tries, middle) > tail:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class Compared:
    """A row that both readings have answered.

    Args:
        score: how sure the cheap one is.
        agreed: whether both agree, for each field.
    """

    score: float
    agreed: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class FieldAgreement:
    """What the audit has measured for one field."""

    field: str
    agreement: float  # Share of the audited rows in which both readings agree
    low: float  # Ends of the interval
    high: float


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """What was promised and what was measured."""

    promised: float  # The agreement that every field is to have in the rows without the full reading
    rows: int  # Rows of the output without the full reading
    audited: int  # Rows that would have been without it, and were drawn
    confidence: float = CONFIDENCE
    fields: Sequence[FieldAgreement] = ()

    @property
    def kept(self) -> bool | None:
        """Whether every field was measured at the target or above; `None` without an audited row."""
        return all(one.agreement >= self.promised for one in self.fields) if self.audited else None


def passing_threshold(rows: Sequence[Compared], target: float, risk: float = RISK) -> float:
    """The lowest score from which on the agreement of every field is at least `target`; infinity if there is none.

    Args:
        rows: a random sample of the rows.
        target: the agreement, from 0 to 1.
        risk: the share of the cases in which the result may be wrong.
    """
    ranked = sorted(rows, key=lambda row: -row.score)
    if not ranked:
        return math.inf
    misses = [0] * len(ranked[0].agreed)
    steps: list[tuple[int, int]] = []  # the number of rows down to each step, and the misses of the worst field
    places = {math.ceil(len(ranked) * _STEP * step) for step in range(1, round(1 / _STEP) + 1)}
    for place, row in enumerate(ranked, 1):
        for field, agreed in enumerate(row.agreed):
            misses[field] += not agreed
        if place in places:
            steps.append((place, max(misses)))
    best = 0
    for place, most in steps:
        if place < _START * len(ranked):
            continue
        # All fields must hold, so the largest of their p-values counts, without a part of the risk for each.
        if binomial_tail(most, place, 1 - target) > risk:
            break
        best = place
    return ranked[best - 1].score if best else math.inf


class Audit:
    """Holds a target: draws the rows of the sample, and moves the threshold of the cheap reading.

    Args:
        target: the agreement that is promised.
        fields: the names of the fields that are compared.
        share: the share of the rows that is drawn.
    """

    def __init__(self, target: float, fields: Sequence[str], share: float) -> None:
        self.target = target
        self.threshold = math.inf
        """The score from which on a row keeps the cheap answer."""
        self.changed = False
        """Whether the rows have changed so that the sample before says nothing about those to come."""
        self._fields = tuple(fields)
        self._share = share
        self._sample: list[Compared] = []
        self._recent: list[Compared] = []
        self._audited = [0] * len(self._fields)
        self._tries = 0

    def draws(self, key: bytes) -> bool:
        """Whether the row with this key is in the sample: at random, and the same in each run."""
        digest = hashlib.blake2b(key, digest_size=_DIGEST_BYTES, person=b"mellea-audit").digest()
        return int.from_bytes(digest) < int(self._share * 256**_DIGEST_BYTES)

    def calibrate(self, sample: Sequence[Compared]) -> None:
        """Set the threshold by a random sample of the rows, where the cheap reading is a new one."""
        self._sample, self._recent, self.changed = list(sample), [], False
        self.threshold = passing_threshold(self._sample, self.target, RISK / _READINGS)

    def compare(self, row: Compared, *, audited: bool) -> None:
        """Take a drawn row; one that would have kept the cheap answer is audited, and can end the present threshold."""
        self._sample.append(row)
        if not audited:
            return
        self.count(row.agreed)
        self._recent.append(row)
        for field in range(len(self._fields)):
            misses = sum(not one.agreed[field] for one in self._recent)
            if misses and 1 - binomial_tail(misses - 1, len(self._recent), 1 - self.target) < _ALARM:
                self.changed, self.threshold = True, math.inf
                return
        if not all(row.agreed):
            self.threshold = max(self.threshold, passing_threshold(self._sample, self.target, RISK / _READINGS))

    def count(self, agreed: Sequence[bool]) -> None:
        """Count an audited row, also one of an earlier run."""
        self._tries += 1
        self._audited = [number + good for number, good in zip(self._audited, agreed, strict=True)]

    def figures(self, rows: int) -> AuditFigures:
        """What was promised and measured, where so many rows have no full reading."""
        tries = self._tries
        measured = [
            FieldAgreement(name, hits / tries, *exact_interval(hits, tries))
            for name, hits in zip(self._fields, self._audited, strict=True)
            if tries
        ]
        return AuditFigures(self.target, rows, tries, fields=tuple(measured))
