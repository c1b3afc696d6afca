"""Rates follow what happens now."""

from __future__ import annotations

import pytest

from mellea_cli.ui.run_state import SlidingRate, TokenMeter


def test_the_window_forgets_the_start() -> None:
    """A fast start does not flatter a slow present."""
    rate = SlidingRate(10)
    counted = 0.0
    for second in range(60):
        counted += 100 if second < 20 else 2
        rate.observe(float(second), counted)
    assert rate.per_second() == pytest.approx(2)


def test_a_slow_run_has_a_rate_too() -> None:
    """One item every 30 s is a rate, though most windows of 20 s are empty."""
    rate = SlidingRate(20, least=4)
    for second in range(600):
        rate.observe(float(second), float(second // 30))
    assert rate.per_second() == pytest.approx(1 / 30, rel=0.3)


def test_a_standstill_wears_the_rate_down_within_bounds() -> None:
    """When nothing happens any more the rate falls, and the samples stay few."""
    rate = SlidingRate(20, least=50)
    for step in range(40):
        rate.observe(step / 4, float(step))
    before = rate.per_second()
    for step in range(20_000):
        rate.observe(10 + step / 4, 40.0)
    assert rate.per_second() < before / 100
    assert len(rate._samples) <= 1024


def test_a_counter_that_is_corrected_downwards_is_no_negative_rate() -> None:
    """An estimate that turns out too high shows as a standstill."""
    rate = SlidingRate(10)
    rate.observe(0, 100)
    rate.observe(1, 90)
    assert rate.per_second() == 0


def test_nothing_is_claimed_from_one_sample() -> None:
    """A rate needs two points in time."""
    rate = SlidingRate(10)
    assert rate.per_second() == 0
    rate.observe(5, 3)
    assert rate.per_second() == 0


def test_tokens_are_scaled_by_what_servers_say() -> None:
    """After usage has come in, estimates use its ratio; a server without usage leaves them as they are."""
    meter = TokenMeter()
    assert meter.raw(0, 0) == 0
    assert meter.raw(10, 40) == 10
    assert meter.raw(1, 400) == 80
    assert meter.scaled(10) == 10
    meter.learn(100, 150)
    assert meter.scaled(10) == pytest.approx(15)
    meter.learn(100, 0)
    assert meter.scaled(10) == pytest.approx(15)
