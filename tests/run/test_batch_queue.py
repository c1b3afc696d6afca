"""Which requests may be submitted under the caps."""

from __future__ import annotations

from mellea_cli.messages import GenerateRequest, Message, Options, Usage
from mellea_cli.run.batch_queue import BatchBudget
from mellea_cli.run.plan import Caps, Prices

REQUEST = GenerateRequest("m", (Message("user", "x" * 299),), Options(max_tokens=100))


def taken(budget: BatchBudget) -> int:
    """The number of requests within the budget."""
    count = 0
    while count < 1_000 and budget.reserve(REQUEST) is not None:
        count += 1
    return count


def test_without_caps_everything_is_submitted() -> None:
    """Nothing is held back."""
    budget = BatchBudget(Caps(), 0, Usage(), Usage())
    assert taken(budget) == 1_000
    assert not budget.full


def test_the_first_requests_count_as_the_longest_they_may_be() -> None:
    """A token for three characters, and the whole answer: 100 and 100 here."""
    budget = BatchBudget(Caps(tokens=1_000), 0, Usage(), Usage())
    assert taken(budget) == 5
    assert budget.full
    assert "1,000 tokens" in budget.reason


def test_later_ones_count_as_the_mean_of_those_before() -> None:
    """What has been used, and what is under way, counts before them."""
    assert taken(BatchBudget(Caps(tokens=1_000), 4, Usage(200, 40), Usage(100, 60))) == 10


def test_money_is_counted_at_half_the_price() -> None:
    """200 tokens at 1 for a million cost 0.0001 in the queue."""
    caps = Caps(cost=0.0011, prices=Prices(1.0, 1.0))
    assert taken(BatchBudget(caps, 0, Usage(), Usage())) == 11
