"""Retry arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.engine.retry import RetryBudget, RetryPolicy


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_wait_is_a_share_of_a_doubling_span(retry: int, share: float) -> None:
    """Without Retry-After the wait is a random share of base times two to the retry, never beyond the cap."""
    delay = RetryPolicy(base_s=0.5, cap_s=20).delay_s(retry, None, lambda: share)
    assert delay is not None
    assert 0 <= delay <= min(20, 0.5 * 2 ** min(retry - 1, 30))


@given(st.integers(1, 50), st.floats(0, 300), st.floats(0, 0.999))
def test_retry_after_is_never_undercut(retry: int, asked: float, share: float) -> None:
    """A wait is at least what the server asked for, and at most a second longer."""
    delay = RetryPolicy().delay_s(retry, asked, lambda: share)
    assert delay is not None
    assert asked <= delay <= asked + 1


def test_a_retry_after_beyond_the_cap_is_not_waited_for() -> None:
    """A server that asks for a day gets no second request."""
    assert RetryPolicy(retry_after_cap_s=60).delay_s(1, 86_400, lambda: 0) is None


@pytest.mark.parametrize(
    ("faults", "rate_limited", "refusals", "allowed"),
    [
        (0, 0, 0, True),
        (5, 0, 0, True),
        (6, 0, 0, False),
        (0, 9, 0, True),
        (0, 10, 0, False),
        (5, 4, 0, True),
        (5, 5, 0, False),
        (0, 0, 2, True),
        (0, 0, 3, False),
    ],
)
def test_budgets_add_up_and_never_multiply(faults: int, rate_limited: int, refusals: int, allowed: bool) -> None:
    """A question may cost five faults, nine failures in all with rate limits, and two refusals."""
    budget = RetryBudget(faults=faults, rate_limited=rate_limited, refusals=refusals)
    assert RetryPolicy(max_retries=5).allows(budget) is allowed


@pytest.mark.parametrize("failed", ["faults", "rate_limited", "refusals"])
def test_no_retries_means_none(failed: str) -> None:
    """With `max_retries=0` nothing is tried again."""
    assert not RetryPolicy(max_retries=0).allows(RetryBudget(**{failed: 1}))
