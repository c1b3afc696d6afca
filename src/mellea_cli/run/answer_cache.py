"""Answer cache: which answers are known already, from an earlier run or for an identical text of this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mellea_cli.io.journal import Answers
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.run.plan import RunPlan

# Items that wait for the in-flight answer of an identical text. More of them keep their workers waiting instead, so
# that memory stays bounded.
_MOST_PARKED = 10_000


class Claim(Enum):
    """Result of a claim to ask a question."""

    ASK = "ask"
    """The caller asks, and calls `settle` afterwards."""
    PARKED = "parked"
    """The question is in flight; `settle` returns the item."""
    ANSWERED = "answered"
    """The question was in flight and is done: look again whether the answer is known."""


@dataclass(slots=True)
class _InFlight:
    """A question in flight, and the items that wait for the same answer."""

    followers: list[Item] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class AnswerCache:
    """Finds answers that need not be asked for.

    Only the event loop's thread uses it. An answer is known here from the claim until it can be looked up in the
    journal, so there is no moment at which an identical text would be asked twice.

    Args:
        answers: the journal.
        retry_failed: whether an item that failed in an earlier run is asked again.
    """

    def __init__(self, answers: Answers, *, retry_failed: bool = True) -> None:
        self._answers = answers
        self._retry_failed = retry_failed
        self._in_flight: dict[bytes, _InFlight] = {}
        self._uncommitted: dict[bytes, Outcome] = {}
        # The journal tells by the order of storing which answers are of this run, so no key stays in memory.
        self._began = answers.mark()
        self._parked = 0

    def known(self, key: bytes) -> Outcome | None:
        """The outcome for `key` that this run may use as it is."""
        outcome = self.stored(key)
        if isinstance(outcome, Success) or outcome is None:
            return outcome
        # A failure of this run also stands for identical texts; one of an earlier run is asked again.
        return outcome if not self._retry_failed or self.is_of_this_run(key) else None

    def stored(self, key: bytes) -> Outcome | None:
        """The outcome for `key` of any run, also a failure of an earlier one."""
        return self._uncommitted.get(key) or self._answers.lookup(key)

    def is_of_this_run(self, key: bytes) -> bool:
        """Whether the outcome for `key` is of this run."""
        return key in self._uncommitted or self._answers.stored_after(self._began, key)

    async def claim(self, key: bytes, item: Item) -> Claim:
        """Take on the question for `key`, or park `item` with the one in flight."""
        question = self._in_flight.get(key)
        if question is None:
            self._in_flight[key] = _InFlight()
            return Claim.ASK
        if self._parked < _MOST_PARKED:
            self._parked += 1
            question.followers.append(item)
            return Claim.PARKED
        await question.done.wait()
        return Claim.ANSWERED

    def settle(self, key: bytes, outcome: Outcome | None) -> list[Item]:
        """End the question for `key`; `outcome` is `None` when it was given up.

        Returns:
            The items that waited for it.
        """
        question = self._in_flight.pop(key)
        if outcome is not None:
            self._uncommitted[key] = outcome
        self._parked -= len(question.followers)
        question.done.set()
        return question.followers

    def committed(self, keys: Iterable[bytes]) -> None:
        """Forget answers that can be looked up in the journal from now on."""
        for key in keys:
            self._uncommitted.pop(key, None)


@dataclass(slots=True)
class Forecast:
    """Items of an input by what a run would do with them; the counts add up to all items."""

    new: int = 0
    """Not asked about yet, or not with this plan."""
    known: int = 0
    """Answered by an earlier run."""
    failed: int = 0
    """Failed in an earlier run."""
    blank: int = 0
    """Without any text: nothing is asked."""
    identical: int = 0
    """Same text as an earlier item of the input: asked once."""
    again: int = 0
    """Those of the new ones that were answered with other settings."""

    def asks(self, *, retry_failed: bool) -> int:
        """Items that a run would ask about."""
        return self.new + (self.failed if retry_failed else 0)


def forecast(
    items: Iterable[Item],
    plan: RunPlan,
    answers: Answers,
    *,
    carried: Callable[[Item], Outcome | None] | None = None,
    earlier: Sequence[bytes] = (),
) -> Forecast:
    """Go through the items of an input without asking anything; holds 16 bytes for each distinct text.

    Args:
        items: the items.
        plan: the run.
        answers: the journal.
        carried: finds an answer that need not be asked for, see `mellea_cli.run.batch.RunIO`.
        earlier: the fingerprints of plans of earlier runs.
    """
    found = Forecast()
    seen: set[bytes] = set()
    for item in items:
        if not item.text.strip():
            found.blank += 1
            continue
        key = plan.key(item.text, item.id)
        if key in seen:
            found.identical += 1
            continue
        seen.add(key)
        outcome = answers.lookup(key)
        if not isinstance(outcome, Success) and carried is not None:
            outcome = carried(item) or outcome
        if outcome is None:
            found.new += 1
            keys = (plan.key(item.text, item.id, fingerprint=one) for one in earlier)
            found.again += any(isinstance(answers.lookup(key), Success) for key in keys)
        elif isinstance(outcome, Success):
            found.known += 1
        else:
            found.failed += 1
    return found
