"""Numbers as people read them."""

from __future__ import annotations

import pytest

from mellea_cli.ui.number_format import count, duration, rate, remaining


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (-1, "0.0s"),
        (4.23, "4.2s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (158, "2m 38s"),
        (3599.7, "1h 00m"),
        (3900, "1h 05m"),
        (183_600, "2d 3h"),
    ],
)
def test_durations_get_coarser(seconds: float, shown: str) -> None:
    """Two units are shown at most, and none of them ever reads 60."""
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "1s"), (0.2, "1s"), (37.1, "38s"), (61, "1m 01s"), (301, "5m 10s"), (4000, "1h 06m")]
)
def test_time_left_is_never_nothing(seconds: float, shown: str) -> None:
    """What is left is rounded up: as long as there is work, it does not read 0."""
    assert remaining(seconds) == shown


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(0, "0.0"), (0.034, "0.03"), (2.44, "2.4"), (9.96, "10"), (310.2, "310"), (12345, "12,345")],
)
def test_rates_have_two_figures_that_mean_something(per_second: float, shown: str) -> None:
    """Slow rates keep decimals, fast ones do not."""
    assert rate(per_second) == shown


def test_counts_have_their_thousands_set_apart() -> None:
    """Large counts can be read at a glance."""
    assert count(1_234_567) == "1,234,567"
