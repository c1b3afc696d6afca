"""The median in little memory."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.engine.endpoint import RunningMedian


def test_without_values_there_is_none() -> None:
    """Nobody was asked, so nobody took any time."""
    assert RunningMedian().value() is None


@given(st.lists(st.floats(0.001, 10_000), min_size=1, max_size=200))
def test_it_is_within_one_per_cent(values: list[float]) -> None:
    """Whatever the values are, the lower median comes out nearly as it is."""
    median = RunningMedian()
    for value in values:
        median.add(value)
    found, true = median.value(), statistics.median_low(values)
    assert found is not None
    assert abs(found - true) <= 0.0101 * true


def test_nothing_is_very_little() -> None:
    """A time of zero, as a scripted model has, is no error."""
    median = RunningMedian()
    median.add(0.0)
    value = median.value()
    assert value is not None
    assert value < 0.001
