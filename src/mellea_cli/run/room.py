"""How much may be handed to a queue under the user's limits on tokens and money, before anybody knows what it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mellea_cli.messages import GenerateRequest, Usage
from mellea_cli.run.budget import Caps

BATCH_PRICE = 0.5
"""What a token costs in the queue, against one that is asked for live (OpenAI's price list)."""

# A token has about four letters in English and fewer elsewhere; too many tokens are the safe side.
_LETTERS_A_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Spending:
    """What a plan's requests have taken so far, and what those under way may take."""

    answered: int
    used: Usage
    reserved: Usage


class Room:
    """Keeps what is handed in within the caps.

    The first requests count as the longest they may be, later ones as the mean of those that were answered.

    Args:
        caps: the limits.
        spending: what counts already.
    """

    def __init__(self, caps: Caps, spending: Spending) -> None:
        self._caps = caps
        self._spending = spending
        self._taken = spending.used + spending.reserved
        self.full = False
        """Whether something had to stay behind."""

    def take(self, request: GenerateRequest) -> Usage | None:
        """Make room for one request.

        Returns:
            What it is expected to use; `None` when it would go beyond a cap.
        """
        expected = self._expected(request)
        taken = self._taken + expected
        if not self._within(taken):
            self.full = True
            return None
        self._taken = taken
        return expected

    def _expected(self, request: GenerateRequest) -> Usage:
        answered, used = self._spending.answered, self._spending.used
        if answered:
            return Usage(-(-used.prompt_tokens // answered), -(-used.completion_tokens // answered))
        letters = sum(len(message.content) for message in request.messages)
        return Usage(letters // _LETTERS_A_TOKEN + 1, request.options.max_tokens or 0)

    def _within(self, usage: Usage) -> bool:
        caps = self._caps
        if caps.tokens is not None and usage.total_tokens > caps.tokens:
            return False
        return caps.cost is None or caps.prices is None or caps.prices.of(usage) * BATCH_PRICE <= caps.cost

    @property
    def reason(self) -> str:
        """Why something had to stay behind."""
        used = self._spending.used.total_tokens
        limit = f"{self._caps.tokens:,} tokens" if self._caps.tokens is not None else f"a cost of {self._caps.cost:g}"
        return f"the next answers would go beyond {limit}; {used:,} tokens are used"


def total(usages: Iterable[Usage]) -> Usage:
    """Add them up."""
    return sum(usages, Usage())
