"""The pace of requests and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.engine.rate_limiter import RateLimiter


@given(st.floats(1, 6_000), st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_no_minute_has_more_requests_than_allowed(rpm: float, gaps: list[float]) -> None:
    """However requests come, no 60 seconds hold more starts than the limit and the tenth of a second of slack."""
    pace, now, starts = RateLimiter(rpm=rpm), 100.0, []
    for gap in gaps:
        now += gap
        starts.append(now + pace.start(now))
    starts.sort()
    for first in starts:
        held = sum(first <= start < first + 60 for start in starts)
        assert held <= rpm * (60.1 / 60) + 1.001


def test_tokens_are_spread_and_made_good_afterwards() -> None:
    """A request of as many tokens as a minute allows holds the next one back by a minute, or by what it really cost."""
    pace = RateLimiter(tpm=6_000)
    assert pace.start(100, 6_000) == 0
    pace.spent(6_000, 500, 100)  # it was a tenth of what was expected
    assert pace.start(100, 100) == pytest.approx(5.9, abs=0.2)


def test_a_server_that_does_not_count_is_believed_nothing() -> None:
    """Without usage the expected cost stands."""
    pace = RateLimiter(tpm=6_000)
    pace.start(100, 6_000)
    pace.spent(6_000, 0, 0)
    assert pace.start(100, 100) == pytest.approx(59.9, abs=0.2)


def test_expected_tokens_follow_the_answers() -> None:
    """The mean of the answers so far stands for the next one."""
    pace = RateLimiter(tpm=1)
    before = pace.tokens(400)
    for _ in range(200):
        pace.spent(0, 100, 1_000)
    assert before < pace.tokens(400) == pytest.approx(1_100, rel=0.01)


@pytest.mark.parametrize("limits", [{"rpm": 0}, {"tpm": -1}])
def test_a_limit_of_nothing_is_refused(limits: dict[str, float]) -> None:
    """A run that may send nothing would wait for ever."""
    with pytest.raises(ValueError, match="above 0"):
        RateLimiter(**limits)
