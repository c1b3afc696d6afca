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
    ("faults", "refusals", "allowed"),
    [(0, 0, True), (5, 0, True), (6, 0, False), (0, 9, True), (0, 10, False), (5, 4, True), (5, 5, False)],
)
def test_budgets_add_up_and_never_multiply(faults: int, refusals: int, allowed: bool) -> None:
    """Five faults, or nine failures in all when some were refusals, are the most that a question may cost."""
    assert RetryPolicy(max_retries=5).allows(RetryBudget(faults=faults, refusals=refusals)) is allowed


def test_no_retries_means_none() -> None:
    """With `max_retries=0` neither a fault nor a refusal is tried again."""
    policy = RetryPolicy(max_retries=0)
    assert not policy.allows(RetryBudget(faults=1))
    assert not policy.allows(RetryBudget(refusals=1))


def test_spent_counts_by_kind() -> None:
    """Refusals and faults are counted apart."""
    spent = RetryBudget()
    spent.count(rate_limited=True)
    spent.count(rate_limited=False)
    assert (spent.refusals, spent.faults) == (1, 1)
