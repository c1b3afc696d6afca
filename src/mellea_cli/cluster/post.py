"""One worker as the driver sees it: what it was given, what it still owes, and the way to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mellea_cli.cluster.report import Ending
from mellea_cli.cluster.share import Share
from mellea_cli.errors import BackendUnavailable, MelleaError, Scope
from mellea_cli.events import Event, ItemStarted, StepFinished, StepStarted
from mellea_cli.items import Item, Outcome


class ClusterLost(BackendUnavailable):
    """No worker is left, and none is coming."""

    kind = "cluster-lost"
    scope = Scope.RUN


class Abandoned(Exception):
    """A worker says that it cannot answer any item, for a reason of its own machine.

    Args:
        error: what it says.
    """

    def __init__(self, error: MelleaError) -> None:
        super().__init__(error.message)
        self.error = error


class WorkerLost(Exception):
    """A worker cannot be reached any more: its process or its node is gone.

    Args:
        message: what happened, in a few words.
        for_good: whether another one in its place cannot be had either.
    """

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.for_good = for_good


class Link(Protocol):
    """The way to one worker; see `mellea_cli.cluster.outpost.Outpost` for the calls.

    Every call raises `WorkerLost` when the worker is gone, and is made at most once: nothing is sent again.
    """

    async def up(self) -> None:
        """Wait until the worker runs."""

    async def open(self, version: str, packed: bytes) -> bytes:
        """Make it ready."""

    async def serve(self) -> None:
        """Let it answer what it is given; returns when it does so no longer."""

    async def give(self, packed: bytes) -> None:
        """Hand over items."""

    async def collect(self) -> bytes:
        """Its next report."""

    async def wind_up(self) -> None:
        """Have it give back what it has not begun."""

    async def close(self) -> None:
        """Have it stop its backend."""

    def kill(self) -> None:
        """End its process; does not wait."""


class Links(Protocol):
    """Where workers come from: what the crew needs of a cluster."""

    def hire(self, number: int) -> Link:
        """A new worker for place `number`, counted from 0; it may take a while until it runs."""


class Given(Enum):
    """How an item comes back that was not answered."""

    BACK = "back"
    """The worker had not begun with it, and the run stops."""
    LOST = "lost"
    """The worker was lost."""
    LOST_BEGUN = "lost, begun"
    """The worker was lost and had begun with it."""


@dataclass(slots=True)
class Ticket:
    """An item at a worker."""

    item: Item
    answer: asyncio.Future[Outcome | Given]
    begun: bool = False
    """The worker has begun with it."""
    steps: set[str] = field(default_factory=set)
    """The steps that it is being asked just now."""

    def back(self, given: Given) -> None:
        """Return it without an answer, to whoever still waits for one."""
        if not self.answer.done():
            self.answer.set_result(given)


@dataclass(slots=True, eq=False)
class Post:
    """The place of one worker, which may be filled again when the worker is lost.

    Args:
        number: which place, counted from 0.
        share: what whoever fills it gets.
    """

    number: int
    share: Share
    link: Link | None = None
    """`None` while nobody fills it."""
    node: str = ""
    """The machine that the worker runs on."""
    closed: bool = False
    """Nobody will fill it any more."""
    tickets: dict[int, Ticket] = field(default_factory=dict)
    answered: int = 0
    """Outcomes that came from here."""
    retries: int = 0
    peak: int = 0
    _outgoing: list[Item] = field(default_factory=list)
    _some: asyncio.Event = field(default_factory=asyncio.Event)
    _past_retries: int = 0

    @property
    def load(self) -> float:
        """How full it is: 1 and more mean that it takes nothing just now."""
        return len(self.tickets) / self.share.places if self.link is not None else 1.0

    def take(self, item: Item) -> asyncio.Future[Outcome | Given]:
        """Take an item on; the future tells what becomes of it."""
        answer: asyncio.Future[Outcome | Given] = asyncio.get_running_loop().create_future()
        self.tickets[item.position] = Ticket(item, answer)
        # Only what the engine looks at travels: the row's other columns stay here.
        self._outgoing.append(Item(item.position, str(item.id), item.text))
        self._some.set()
        return answer

    async def outgoing(self) -> list[Item]:
        """The items that are to be sent, once there are any."""
        while not self._outgoing:
            self._some.clear()
            await self._some.wait()
        items, self._outgoing = self._outgoing, []
        return items

    def unsent(self) -> list[Item]:
        """Take back what has not been sent."""
        items, self._outgoing = self._outgoing, []
        return items

    def hear(self, event: Event) -> Event:
        """Note what an event from the worker says of its tickets; return the event as observers are to hear it."""
        ticket = self.tickets.get(getattr(event, "position", -1))
        match event:
            case ItemStarted() if ticket is not None:
                ticket.begun = True
                return ItemStarted(event.position, event.id, ticket.item.text)
            case StepStarted() if ticket is not None:
                ticket.steps.add(event.step)
            case StepFinished() if ticket is not None:
                ticket.steps.discard(event.step)
            case _:
                pass
        return event

    def settle(self, position: int, ending: Ending) -> None:
        """An item is done with: tell whoever waits for it."""
        ticket = self.tickets.pop(position, None)
        if ticket is None or ticket.answer.done():
            return
        match ending:
            case MelleaError():
                ticket.answer.set_exception(ending)
            case None:
                ticket.answer.set_result(Given.BACK)
            case _:
                self.answered += 1
                ticket.answer.set_result(ending)

    def count(self, retries: int, peak: int) -> None:
        """The worker's own figures; those of workers before it are kept."""
        self.retries = self._past_retries + retries
        self.peak = max(self.peak, peak)

    def vacate(self) -> list[Ticket]:
        """The worker is gone: return what it owed, each ticket's future not yet told."""
        self.link = None
        self._past_retries = self.retries
        self._outgoing.clear()
        tickets, self.tickets = list(self.tickets.values()), {}
        return tickets
