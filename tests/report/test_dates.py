"""Dates in many forms, those that say too little, and the buckets they are gathered in."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.report.dates import (
    DayCounts,
    bucket_name,
    bucket_start,
    buckets,
    fitting_bucket,
    read_day,
    resolve_order,
)

DAY = date(2026, 3, 4)


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-04", "2026-03-04T23:59:59Z", "2026-03-04T01:00:00+05:00", "2026-03-04 10:00:00.123", "20260304",
        "2026-03-04 10:00:00 UTC", "2026/3/4", "4.3.2026", "04.03.2026 10:00", "4 Mar 2026", "March 4, 2026",
        "Wed, 04 Mar 2026 10:00:00 +0000", 1772582400, "1772582400", 1772582400000, 1772582400.5, " 2026-03-04 ",
    ],
)  # fmt: skip
def test_a_day_is_read_in_every_usual_form(value: Any) -> None:
    """ISO, seconds and milliseconds, the dotted form, words, mail headers: the day is the one written there."""
    assert read_day(value) == DAY


@pytest.mark.parametrize(
    "value", ["", " ", None, "soon", "12", 7, True, "2026-13-01", "31/31/2026", "0001-01-01", [], "5"]
)
def test_what_is_no_date_is_none(value: Any) -> None:
    """Numbers that may be counts, words and impossible days are not guessed at."""
    assert read_day(value) is None


def test_a_date_of_two_small_numbers_stays_open() -> None:
    """Nobody knows whether 03/04 is in March or in April."""
    assert read_day("03/04/2026") == (3, 4, 2026)
    assert resolve_order((3, 4, 2026), month_first=True) == date(2026, 3, 4)
    assert resolve_order((3, 4, 2026), month_first=False) == date(2026, 4, 3)


@pytest.mark.parametrize(("telling", "expected"), [("25/12/2026", date(2026, 4, 3)), ("12/25/2026", date(2026, 3, 4))])
def test_one_clear_date_settles_the_column(telling: str, expected: date) -> None:
    """A 25 can only be a day; then every date of the column is read so."""
    days = DayCounts()
    for value in ("03/04/2026", telling):
        days.add(value, "mixed")
    assert not days.ambiguous
    assert expected in days.resolved(month_first=days.month_first)


def test_a_column_without_a_clear_date_says_so() -> None:
    """05/05 does not count as undecided: it is the same day either way."""
    days = DayCounts()
    days.add("05/05/2026", "mixed")
    assert not days.ambiguous
    days.add("03/04/2026", "mixed")
    assert days.ambiguous


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12), st.integers(), st.dates().map(str), st.floats()), max_size=40)
)
def test_every_value_is_counted_once(values: list[Any]) -> None:
    """Dated, empty and unreadable values add up to all, whatever they are."""
    days = DayCounts()
    for value in values:
        days.add(value, "mixed")
    assert days.rows + days.empty + days.unreadable == len(values)


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(0, 20_000))
def test_buckets_cover_a_time_without_gaps(first: date, length: int) -> None:
    """The fitting buckets of any time are few, in order, and hold both ends."""
    last = date.fromordinal(min(first.toordinal() + length, date(2150, 1, 1).toordinal()))
    bucket = fitting_bucket(first, last)
    starts = list(buckets(first, last, bucket))
    assert starts[0] == bucket_start(first, bucket)
    assert starts[-1] == bucket_start(last, bucket)
    assert starts == sorted(set(starts))
    assert len(starts) <= 61
    assert len({bucket_name(start, bucket) for start in starts}) == len(starts)


def test_buckets_are_called_by_their_usual_names() -> None:
    """ISO weeks know their own year."""
    assert bucket_name(bucket_start(date(2027, 1, 1), "week"), "week") == "2026-W53"
    assert bucket_name(bucket_start(date(2026, 11, 22), "quarter"), "quarter") == "2026-Q4"
    assert bucket_name(bucket_start(date(2026, 11, 22), "month"), "month") == "2026-11"
