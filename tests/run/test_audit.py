"""The audit: its statistics against published values, its thresholds, and what it measures."""

from __future__ import annotations

import math
import random

import pytest

from mellea_cli.run.row_model import Audit, Compared, exact_interval, passing_threshold


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.691503, 1.0),
        (95, 100, 0.887165, 0.983569),
        (100, 100, 0.963783, 1.0),
    ],
)
def test_the_exact_interval(hits: int, tries: int, low: float, high: float) -> None:
    """The tables of Clopper and Pearson, two-sided, 95 %."""
    assert exact_interval(hits, tries) == pytest.approx((low, high), abs=2e-6)


def sample(size: int, agreement: float, seed: int) -> list[Compared]:
    """Rows whose agreement does not depend on their score."""
    chance = random.Random(seed)  # noqa: S311 - made-up rows
    return [Compared(chance.random(), (chance.random() < agreement,)) for _ in range(size)]


def test_a_threshold_passes_where_the_surer_rows_agree() -> None:
    """The upper half always agrees, the lower one never: the threshold is at the half, or one step above it."""
    rows = [Compared(place / 400, (place >= 200,)) for place in range(400)]
    assert 0.5 <= passing_threshold(rows, 0.95) <= 0.55


def test_few_rows_prove_nothing() -> None:
    """Fifteen rows that all agree do not show an agreement of 0.95; four hundred do."""
    assert passing_threshold([Compared(1.0, (True,))] * 15, 0.95) == math.inf
    assert passing_threshold([Compared(1.0, (True,))] * 400, 0.95) == 1.0
    assert passing_threshold([], 0.95) == math.inf


def test_every_field_must_hold() -> None:
    """One field that disagrees keeps the threshold shut, however good the other is."""
    rows = [Compared(place / 400, (True, place % 5 > 0)) for place in range(400)]
    assert passing_threshold(rows, 0.95) == math.inf
    assert passing_threshold([Compared(one.score, one.agreed[:1]) for one in rows], 0.95) < 0.1


def test_a_threshold_rarely_passes_below_the_target() -> None:
    """True agreement 0.94, target 0.95: no more than about the stated risk of 5 % of 600 samples pass one."""
    passed = sum(passing_threshold(sample(300, 0.94, seed), 0.95) < math.inf for seed in range(600))
    assert passed / 600 < 0.07
    good = sum(passing_threshold(sample(1_000, 0.99, seed), 0.95) < math.inf for seed in range(100))
    assert good > 90


def test_rows_are_drawn_at_random_and_alike_in_each_run() -> None:
    """The key decides, so a run that is continued draws the same rows."""
    keys = [number.to_bytes(16) for number in range(20_000)]
    drawn = [Audit(0.95, ("a",), 0.1).draws(key) for key in keys]
    assert drawn == [Audit(0.9, ("b",), 0.1).draws(key) for key in keys]
    assert 0.09 < sum(drawn) / len(drawn) < 0.11
    assert not any(Audit(0.95, ("a",), 0.0).draws(key) for key in keys)
    assert all(Audit(0.95, ("a",), 1.0).draws(key) for key in keys)


def test_what_is_measured() -> None:
    """Only rows that would have kept the cheap answer are audited; the interval is around their agreement."""
    audit = Audit(0.9, ("label",), 0.1)
    assert audit.figures(0).kept is None
    audit.calibrate([Compared(1.0, (True,))] * 100)
    for place in range(100):
        audit.compare(Compared(1.0, (place % 20 > 0,)), audited=True)
        audit.compare(Compared(0.1, (False,)), audited=False)
    figures = audit.figures(1_000)
    assert (figures.promised, figures.rows, figures.audited, figures.kept) == (0.9, 1_000, 100, True)
    (field,) = figures.fields
    assert (field.field, field.agreement) == ("label", 0.95)
    assert (field.low, field.high) == pytest.approx((0.887165, 0.983569), abs=2e-6)


def test_a_change_of_the_rows_ends_the_threshold() -> None:
    """Where the audited rows suddenly disagree, none keeps the cheap answer until a new sample shows better."""
    audit = Audit(0.95, ("label",), 0.1)
    audit.calibrate([Compared(1.0, (True,))] * 400)
    assert audit.threshold == 1.0
    for _ in range(40):
        audit.compare(Compared(1.0, (True,)), audited=True)
    assert not audit.changed
    for _ in range(8):
        audit.compare(Compared(1.0, (False,)), audited=True)
    assert audit.changed
    assert audit.threshold == math.inf
    audit.calibrate([Compared(1.0, (True,))] * 400)
    assert not audit.changed
    assert audit.threshold == 1.0
