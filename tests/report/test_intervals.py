"""Intervals and tests against published and independently computed values."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from mellea_cli.report import intervals
from mellea_cli.report.intervals import (
    Interval,
    benjamini_hochberg,
    fisher,
    mean_interval,
    share_difference,
    share_interval,
    student_quantile,
)


@pytest.mark.parametrize(
    ("number", "size", "low", "high"),
    [
        # statsmodels 0.14, proportion_confint(method="wilson")
        (38, 100, 0.2909759925, 0.4779024470),
        (0, 10, 0.0, 0.2775327999),
        (10, 10, 0.7224672001, 1.0),
        (1, 1, 0.2065493143, 1.0),
    ],
)
def test_the_interval_of_a_share_is_wilsons(number: int, size: int, low: float, high: float) -> None:
    """The ends agree with those of another implementation."""
    found = share_interval(number, size)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_a_sample_of_a_finite_population_narrows_the_interval() -> None:
    """Its ends solve the score equation with the variance of a draw without replacement; all rows leave no doubt."""
    found = share_interval(38, 100, 250)
    for end in (found.low, found.high):
        variance = end * (1 - end) / 100 * (250 - 100) / (250 - 1)
        assert abs(0.38 - end) == pytest.approx(intervals.Z * math.sqrt(variance), rel=1e-9)
    assert share_interval(38, 100, 100) == Interval(0.38, 0.38)
    assert share_interval(38, 100, 10**9).low == pytest.approx(share_interval(38, 100).low, abs=1e-6)


def test_no_rows_say_nothing_about_a_share() -> None:
    """Without rows the interval is the whole range and no difference holds."""
    assert share_interval(0, 0) == Interval(0.0, 1.0)
    assert share_difference(0, 0, 3, 10).p == 1.0


def test_a_difference_has_newcombes_interval() -> None:
    """The first example of Newcombe's paper, 56/70 and 48/80, gives his ends 0.0524 and 0.3339."""
    found = share_difference(48, 80, 56, 70)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(
        (0.2, 0.0524314, 0.3338727), abs=1e-6
    )
    assert found.interval.low > 0 or found.interval.high < 0


def _fisher_by_definition(old: int, old_size: int, new: int, new_size: int) -> float:
    hits = old + new
    tables = {
        number: math.comb(old_size, number) * math.comb(new_size, hits - number)
        for number in range(max(0, hits - new_size), min(hits, old_size) + 1)
    }
    return sum(ways for ways in tables.values() if ways <= tables[old]) / sum(tables.values())


def test_the_p_value_is_that_of_fishers_exact_test() -> None:
    """It equals the sum over all tables, for every small table, and scipy's values for larger ones."""
    for old_size, new_size in itertools.product((1, 2, 7, 12), repeat=2):
        for old, new in itertools.product(range(old_size + 1), range(new_size + 1)):
            expected = _fisher_by_definition(old, old_size, new, new_size)
            assert fisher(old, old_size, new, new_size) == pytest.approx(expected, rel=1e-5)
    assert fisher(48, 80, 56, 70) == pytest.approx(0.0125211297492)
    assert fisher(1, 20, 0, 1000) == pytest.approx(0.0196078431373)


def test_a_million_rows_are_tested_with_few_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of terms grows with the root of the rows."""
    calls = itertools.count()
    original = intervals._log_choose
    monkeypatch.setattr(intervals, "_log_choose", lambda *args: (next(calls), original(*args))[1])
    assert 0 < fisher(400_000, 1_000_000, 401_000, 1_000_000) < 1
    assert next(calls) < 60_000


def test_benjamini_hochberg_keeps_the_tests_below_the_line() -> None:
    """The example of their paper: of 15 p-values the first four hold."""
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719]
    p_values += [0.6528, 0.7590, 1.0]
    assert benjamini_hochberg(p_values) == [True] * 4 + [False] * 11
    assert benjamini_hochberg([0.049, 0.04]) == [True, True]
    assert benjamini_hochberg([]) == []


def test_a_mean_has_students_interval() -> None:
    """The ends agree with scipy's for five stars ratings; one number has none."""
    found = mean_interval(5, 16, 62)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1.1597378580, 5.2402621420), abs=0.01)
    assert mean_interval(1, 4, 16) is None
    assert mean_interval(5, 16, 62, population=5) == Interval(3.2, 3.2)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (1000, 1.96234)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    """Within the stated error."""
    assert student_quantile(freedom) == pytest.approx(quantile, abs=0.005)


def test_wilsons_interval_covers_the_truth() -> None:
    """Of samples without replacement about 95 % have the population's share in their corrected interval."""
    draw = random.Random(5)  # noqa: S311 - a simulation, not a secret
    population = [1] * 300 + [0] * 700
    covered = 0
    for _ in range(1000):
        found = share_interval(sum(draw.sample(population, 400)), 400, 1000)
        covered += found.low <= 0.3 <= found.high
    assert 930 <= covered <= 970
