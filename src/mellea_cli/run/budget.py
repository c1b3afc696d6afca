"""What the user allows a whole run to take: time, failed items, tokens, money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from mellea_cli.items import Failure, Outcome
from mellea_cli.messages import Usage

_MILLION = 1_000_000
# A share means little among the first few items.
_SHARE_FROM = 50


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many items may fail.

    Args:
        count: the run stops when so many have failed; `None` for no such limit.
        share: or when this share of the items that were asked about has, from 0 to 1, once there are 50 of them.
    """

    count: int | None = None
    share: float | None = None

    def reached(self, failed: int, asked: int) -> bool:
        """Whether so many failures are too many."""
        if self.count is not None and failed >= self.count:
            return True
        return self.share is not None and asked >= _SHARE_FROM and failed > 0 and failed >= self.share * asked


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever currency."""

    prompt: float
    completion: float

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / _MILLION


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits on a whole run; `None` sets none."""

    deadline_s: float | None = None
    """Seconds from the start of the run after which no new item is taken."""
    errors: ErrorLimit = ErrorLimit()
    tokens: int | None = None
    """Tokens, prompts and answers together."""
    cost: float | None = None
    """Money, by `prices`."""
    prices: Prices | None = None
    likely: Usage = Usage()
    """What an item is expected to take as long as none of the run's has shown it."""

    def left(self, usage: Usage, elapsed_s: float, likely: Usage) -> Caps:
        """What is left of them once that much has been used: for the next of several runs that share them.

        A limit that has been reached is left at next to nothing, so that the next run stops before its first item.

        Args:
            usage: what has been used.
            elapsed_s: how long that took, in seconds.
            likely: what the next run's first item is expected to take.
        """
        return replace(
            self,
            deadline_s=None if self.deadline_s is None else max(self.deadline_s - elapsed_s, 0.0),
            tokens=None if self.tokens is None else max(self.tokens - usage.total_tokens, 0),
            cost=None if self.cost is None or self.prices is None else max(self.cost - self.prices.of(usage), 0.0),
            likely=likely,
        )


class Budget:
    """Keeps a run within its caps. Items in flight are expected to cost as much as those before them did.

    Args:
        caps: the limits.
    """

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._asked = 0
        self._failed = 0
        self._usage = Usage()
        self._in_flight = 0
        self._counted = caps.tokens is not None or caps.cost is not None
        self._first = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this around one item: where tokens count, one goes alone until it is known what an item takes."""
        if not self._unknown():
            yield
            return
        async with self._first:
            if self._unknown():
                yield
                return
        yield

    def _unknown(self) -> bool:
        return self._counted and self._usage.total_tokens == 0

    def before_one(self) -> str:
        """Count an item in that is about to be asked about.

        Returns:
            Why it must not be; empty when it may.
        """
        caps, tokens = self._caps, self._usage.total_tokens
        seen, items = (self._usage, self._asked) if self._asked else (caps.likely, 1)
        share = (self._in_flight + 1) / items
        if caps.tokens is not None and (not caps.tokens or tokens + share * seen.total_tokens > caps.tokens):
            return f"the next answers would go beyond {caps.tokens:,} tokens; {tokens:,} are used"
        if caps.cost is not None and caps.prices is not None:
            cost = caps.prices.of(self._usage)
            if not caps.cost or cost + share * caps.prices.of(seen) > caps.cost:
                return f"the next answers would cost more than {caps.cost:g}; {cost:.4g} is spent"
        self._in_flight += 1
        return ""

    def after_one(self, outcome: Outcome | None) -> str:
        """Count an item out.

        Args:
            outcome: what became of it; `None` when it was given up.

        Returns:
            Why no further item may be asked about; empty when they may.
        """
        self._in_flight -= 1
        if outcome is None or outcome.attempts == 0:
            return ""
        self._asked += 1
        self._failed += isinstance(outcome, Failure)
        self._usage += outcome.usage
        if self._caps.errors.reached(self._failed, self._asked):
            return f"{self._failed:,} of {self._asked:,} items failed (--max-errors)"
        if self._counted and not isinstance(outcome, Failure) and outcome.usage.total_tokens == 0:
            return "the model server does not say how many tokens it used, so no limit on them can be kept"
        return ""
