"""What the user allows a run to take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.items import Failure, Success
from mellea_cli.messages import Usage
from mellea_cli.run.plan import Budget, Caps, ErrorLimit, Prices


@given(st.integers(100, 100_000), st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 16))
def test_tokens_stay_within_the_cap_but_for_uneven_answers(cap: int, costs: list[int], width: int) -> None:
    """When items cost alike the cap is never exceeded once the first round is over, whatever the concurrency."""
    cost = costs[0]
    budget, used, out = Budget(Caps(tokens=cap)), 0, 0
    for _ in costs:
        while out < width and not budget.before_one():
            out += 1
        if not out:
            break
        budget.after_one(Success({}, Usage(cost, 0)))
        out -= 1
        used += cost
    assert used <= max(cap, width * cost)


def test_errors_by_number_and_by_share() -> None:
    """Five are five; a share counts from fifty items on."""
    assert not ErrorLimit(count=5).reached(4, 4)
    assert ErrorLimit(count=5).reached(5, 5)
    assert not ErrorLimit(share=0.1).reached(40, 40)
    assert ErrorLimit(share=0.1).reached(5, 50)
    assert not ErrorLimit(share=0.1).reached(5, 51)
    assert not ErrorLimit().reached(10_000, 10_000)


def test_a_server_that_does_not_count_ends_a_run_with_a_cap() -> None:
    """A limit that cannot be kept is not pretended."""
    for caps in (Caps(tokens=10), Caps(cost=1.0, prices=Prices(1, 1))):
        budget = Budget(caps)
        assert not budget.before_one()
        assert "does not say" in budget.after_one(Success({}))
    assert not Budget(Caps()).after_one(Success({}))


def test_what_was_not_asked_does_not_count() -> None:
    """Blank texts and items that were given up change no share."""
    budget = Budget(Caps(errors=ErrorLimit(count=1)))
    assert not budget.after_one(Success({}, attempts=0))
    assert not budget.after_one(None)
    assert "1 of 1" in budget.after_one(Failure("parse", "no"))


def test_prices() -> None:
    """A million tokens cost what they cost."""
    assert Prices(2.0, 8.0).of(Usage(500_000, 250_000)) == 3.0
