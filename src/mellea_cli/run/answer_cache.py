"""What a run would find: which answers are there already, and what is left to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mellea_cli.items import Item, Outcome, Success
from mellea_cli.run.plan import RunPlan

# Which answers are there already: from an earlier run, or for an identical text of this one.

# Items that wait for an identical text in flight; beyond it their workers wait too, so that memory stays bounded.
_MOST_PARKED = 10_000


class Answers(Protocol):
    """Where answers are kept by key: the journal, or memory when there is no file to put one beside."""

    def lookup(self, key: bytes) -> Outcome | None:
        """The outcome under `key`, if there is one."""

    def mark(self) -> int:
        """Where in the order of storing the next answer will be."""

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Whether the answer under `key`, if there is one, was stored after that `mark`."""


class Claim(Enum):
    """What became of a claim to ask a question."""

    MINE = "mine"
    """The caller is to ask, and to `settle` the question afterwards."""
    PARKED = "parked"
    """Somebody is asking; the item comes back from `settle`."""
    LANDED = "landed"
    """Somebody was asking and is done: look again whether the answer is known."""


@dataclass(slots=True)
class _Flight:
    """A text that is being asked about, and the items that wait for the same answer."""

    followers: list[Item] = field(default_factory=list)
    landed: asyncio.Event = field(default_factory=asyncio.Event)


class AnswerCache:
    """Finds answers that need not be asked for.

    Only the event loop's thread uses it. An answer is known here from the moment its item is claimed until it can be
    looked up in the journal, so there is no instant at which an identical text would be asked twice.

    Args:
        answers: where earlier answers are.
        retry_failed: whether an item that failed in an earlier run is asked again.
    """

    def __init__(self, answers: Answers, *, retry_failed: bool = True) -> None:
        self._answers = answers
        self._retry_failed = retry_failed
        self._flights: dict[bytes, _Flight] = {}
        self._fresh: dict[bytes, Outcome] = {}
        self._began = answers.mark()
        self._parked = 0

    def known(self, key: bytes) -> Outcome | None:
        """The outcome under `key` that this run may use as it is."""
        outcome = self.stored(key)
        if isinstance(outcome, Success) or outcome is None:
            return outcome
        # A failure of this run stands for identical texts; one of an earlier run gets another chance.
        return outcome if not self._retry_failed or self.settled(key) else None

    def stored(self, key: bytes) -> Outcome | None:
        """The outcome under `key`, of whatever run; an earlier failure too."""
        return self._fresh.get(key) or self._answers.lookup(key)

    def settled(self, key: bytes) -> bool:
        """Whether the question under `key` was answered, or failed, in this run."""
        return key in self._fresh or self._answers.stored_after(self._began, key)

    async def claim(self, key: bytes, item: Item) -> Claim:
        """Take on the question under `key`, or leave `item` with whoever has it in flight."""
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = _Flight()
            return Claim.MINE
        if self._parked < _MOST_PARKED:
            self._parked += 1
            flight.followers.append(item)
            return Claim.PARKED
        await flight.landed.wait()
        return Claim.LANDED

    def settle(self, key: bytes, outcome: Outcome | None) -> list[Item]:
        """The question under `key` is answered, or given up with `None`.

        Returns:
            The items that waited for it.
        """
        flight = self._flights.pop(key)
        if outcome is not None:
            self._fresh[key] = outcome
        self._parked -= len(flight.followers)
        flight.landed.set()
        return flight.followers

    def committed(self, keys: Iterable[bytes]) -> None:
        """These answers can be looked up from now on."""
        for key in keys:
            self._fresh.pop(key, None)


@dataclass(slots=True)
class Forecast:
    """Items of an input by what a run would do with them; together they are all of it."""

    new: int = 0
    """Nobody has asked about them, or not in these words."""
    known: int = 0
    """Answered by an earlier run."""
    failed: int = 0
    """Failed in an earlier run."""
    blank: int = 0
    """Without any text: nothing is asked."""
    identical: int = 0
    """Their text stands further up as well: it is asked about once."""

    def asks(self, *, retry_failed: bool) -> int:
        """Items that a run would ask about."""
        return self.new + (self.failed if retry_failed else 0)


def look_ahead(items: Iterable[Item], plan: RunPlan, answers: Answers) -> Forecast:
    """Go through the items of an input without asking anything; holds 16 bytes for each different text."""
    outlook = Forecast()
    seen: set[bytes] = set()
    for item in items:
        if not item.text.strip():
            outlook.blank += 1
            continue
        key = plan.key(item.text)
        if key in seen:
            outlook.identical += 1
            continue
        seen.add(key)
        match answers.lookup(key):
            case None:
                outlook.new += 1
            case Success():
                outlook.known += 1
            case _:
                outlook.failed += 1
    return outlook
