"""The worker on a node: the same engine as at home, with a backend of its own. It knows nothing of Ray."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from mellea_cli.cluster.worker_messages import Ending, Reporter, Share, pack, unpack
from mellea_cli.errors import BackendUnavailable, MelleaError, ModelFileError, ModelMissing, Scope, UsageError
from mellea_cli.events import Event, ItemStarted, Note, StepFinished, StepStarted
from mellea_cli.items import Item, Outcome
from mellea_cli.run.executor import LocalExecutor

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.security import NetworkPolicy
    from mellea_cli.run.plan import RunPlan


# One worker as the driver sees it: what it was given, what it still owes, and the way to it.


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
    """The way to one worker; see `mellea_cli.cluster.remote_worker.RemoteWorker` for the calls.

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


class RemoteWorker:
    """Answers the items that it is given. What goes in and out is packed by `mellea_cli.cluster.worker_messages.pack`.

    The order of calls is `open`, then `serve` once, and beside it `give` and `collect` as often as there is something
    to give or to hear; `close` at the end. All of them run in one event loop.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._no_more = False
        self._backend: Backend | None = None
        self._hands: LocalExecutor | None = None
        self._report: Reporter | None = None

    async def open(self, version: str, packed: bytes) -> bytes:
        """Get ready for a share of a run: open its backend and make sure that the model can answer.

        Args:
            version: the driver's version of this package.
            packed: the `Share`.

        Returns:
            The name of this machine, or the `MelleaError` because of which nothing can be answered here.
        """
        try:
            await self._open(version, packed)
        except MelleaError as error:
            return pack(error)
        return pack(socket.gethostname())

    async def _open(self, version: str, packed: bytes) -> None:
        from mellea_cli import __version__
        from mellea_cli.backends.registry import open_backend

        if version != __version__:
            raise UsageError(
                f"mellea {__version__} is installed there, and {version} here",
                hint=f"on every node: pip install 'mellea-cli[ray]=={version}'",
            )
        share: Share = unpack(packed)
        plan = share.plan()
        self._report = Reporter(share.rhythm)
        if plan.backend == "local":
            network = share.settings.network
            await asyncio.to_thread(ensure_model, plan, network=network, pull=share.pull, tell=self._tell)
        self._backend = open_backend(plan.backend, share.settings)
        await self._prepare(self._backend, plan, pull=share.pull)
        self._hands = LocalExecutor(plan, self._backend, self._report)

    async def _prepare(self, backend: Backend, plan: RunPlan, *, pull: bool) -> None:
        from mellea_cli.backends.local import LocalBackend

        if isinstance(backend, LocalBackend):
            backend.share_prefixes(plan.prefixes, self._tell)
        try:
            await backend.prepare(plan.model)
        except ModelMissing:
            puller = getattr(backend, "pull", None)
            if not pull or puller is None:
                raise
            async for _ in puller(plan.model):
                pass
            await backend.prepare(plan.model)
        except BackendUnavailable:
            if isinstance(backend, LocalBackend):
                raise
            # A server that is away just now is waited for, as in the middle of a run.

    def _tell(self, sentence: str) -> None:
        if self._report is not None:
            self._report(Note(f"{socket.gethostname()}: {sentence}"))

    async def serve(self) -> None:
        """Answer items until `close`, as many at once as the share says."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._opened().places):
                group.create_task(self._work())

    async def _work(self) -> None:
        hands = self._opened()
        while (item := await self._next()) is not None:
            ending: Ending
            try:
                ending = await hands.work(item)
            except MelleaError as error:
                ending = error
            self._reporter().end(item.position, ending)

    async def _next(self) -> Item | None:
        while not self._items:
            if self._no_more:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()

    async def give(self, packed: bytes) -> None:
        """Take a list of items."""
        items: Sequence[Item] = unpack(packed)
        self._items.extend(items)
        self._arrived.set()

    async def collect(self) -> bytes:
        """The next `Report`, once there is something to tell."""
        report = await self._reporter().next()
        report.retries, report.peak_in_flight = self._opened().retries, self._opened().peak_in_flight
        return pack(report)

    async def wind_up(self) -> None:
        """Give back what has not been begun; items that are worked on go on to their end."""
        while self._items:
            self._reporter().end(self._items.popleft().position, None)

    async def close(self) -> None:
        """Stop the backend. Nothing can be asked after it."""
        self._no_more = True
        self._arrived.set()
        if self._backend is not None:
            await self._backend.aclose()

    def _opened(self) -> LocalExecutor:
        if self._hands is None:
            raise RuntimeError("the worker was not opened")
        return self._hands

    def _reporter(self) -> Reporter:
        if self._report is None:
            raise RuntimeError("the worker was not opened")
        return self._report


def ensure_model(plan: RunPlan, *, network: NetworkPolicy | None, pull: bool, tell: Callable[[str], None]) -> None:
    """Make sure that the embedded model's file is on this machine and is the right one.

    Args:
        plan: names the model, and for a file what tells it from others.
        network: hosts that may be reached.
        pull: fetch it when it is missing; the default model is fetched in any case.
        tell: told in a sentence when that takes a while.

    Raises:
        ModelFileError: it is missing and may not be fetched, or it is another one than the driver's.
    """
    from mellea_cli.models.catalogue import DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore, is_path

    store = ModelStore(network=network)
    path = store.find(plan.model)
    if path is None:
        if not (pull or plan.model == DEFAULT_MODEL):
            raise ModelFileError(
                f"the model {plan.model} is not on this machine",
                hint=f"add --pull, or there: mellea models pull {plan.model}",
            )
        tell(f"fetching {plan.model}, once")
        path = store.pull(plan.model)
    found = f"{path.name}:{path.stat().st_size}"
    if is_path(plan.model) and found != plan.identity:
        raise ModelFileError(
            f"{path} is another file ({found}) than the driver's ({plan.identity})", hint="copy the same file there"
        )
