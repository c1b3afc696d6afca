"""Rate limiter: requests and tokens per minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.messages import Usage


def started(limiter: RateLimiter, now: float, tokens: float = 0.0) -> float:
    """Start a request as soon as it may start; return the time."""
    at = now + max(0.0, limiter.wait_s(now))
    limiter.start(at, tokens)
    return at


@given(st.floats(1, 6_000), st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_no_minute_has_more_requests_than_allowed(rpm: float, gaps: list[float]) -> None:
    """However requests come, no 60 seconds hold more starts than the limit and the tenth of a second of slack."""
    limiter, now, starts = RateLimiter(rpm=rpm), 100.0, []
    for gap in gaps:
        now = started(limiter, now + gap)
        starts.append(now)
    for first in starts:
        held = sum(first <= start < first + 60 for start in starts)
        assert held <= rpm * (60.1 / 60) + 1.001


def test_tokens_are_spread_and_corrected_afterwards() -> None:
    """A request of a minute's tokens holds the next one back by a minute, or by what it really took."""
    limiter = RateLimiter(tpm=6_000)
    limiter.start(100, 6_000)
    limiter.settle(6_000, Usage(500, 100))  # a tenth of what was expected
    assert limiter.wait_s(100) == pytest.approx(5.9, abs=0.2)


def test_without_usage_the_expected_tokens_count() -> None:
    """A server that counts no tokens changes nothing."""
    limiter = RateLimiter(tpm=6_000)
    limiter.start(100, 6_000)
    limiter.settle(6_000, Usage())
    assert limiter.wait_s(100) == pytest.approx(59.9, abs=0.2)


def test_expected_tokens_follow_the_answers() -> None:
    """The mean of the answers so far stands for the next one."""
    limiter = RateLimiter(tpm=1)
    before = limiter.expected_tokens(400)
    for _ in range(200):
        limiter.settle(0, Usage(100, 1_000))
    assert before < limiter.expected_tokens(400) == pytest.approx(1_100, rel=0.01)


def test_without_a_limit_nothing_waits() -> None:
    """Requests per minute alone do not count tokens."""
    limiter = RateLimiter(rpm=60)
    assert limiter.expected_tokens(1_000_000) == 0


@pytest.mark.parametrize("limits", [{"rpm": 0}, {"tpm": -1}])
def test_a_limit_of_nothing_is_refused(limits: dict[str, float]) -> None:
    """A run that may send nothing would wait for ever."""
    with pytest.raises(ValueError, match="above 0"):
        RateLimiter(**limits)
