"""The driver's side of a cluster: hands each item to the worker with the most room, and takes in what comes back.

Where workers run, and that a lost one is replaced, is the cluster's business. The driver keeps what each worker owes:
what a lost one owed goes to the others, and an answer that arrived is never asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mellea_cli import __version__
from mellea_cli.cluster.remote_worker import Abandoned, ClusterLost, Given, Link, Links, Post, WorkerLost
from mellea_cli.cluster.worker_messages import Report, Share, pack, unpack
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import BackendUnavailable, MelleaError
from mellea_cli.events import AttemptFailed, Event, Note, Observer, Paused
from mellea_cli.items import Failure, Item, Outcome
from mellea_cli.run.executor import Executor

# A place is filled again so often when nothing came back from its worker in between.
_MOST_LOSSES = 3
# An item that so many workers were lost with, one after the other, is taken to be the reason.
_MOST_LOST_WITH = 4
_CLOSE_S = 3.0
_SOON_S = 15.0


class ClusterExecutor(Executor):
    """The workers of a run; `mellea_cli.run.executor.Executor` for the run. Use `crew` to have one.

    Args:
        posts: the workers' places.
        links: where workers come from.
        observer: hears what happens to each item.
        stop: the run's wish to stop: what is not begun comes back then.
        patience_s: how long the cluster may take to find room for a worker, in seconds.
    """

    def __init__(
        self, posts: Sequence[Post], links: Links, observer: Observer, stop: Stop, *, patience_s: float
    ) -> None:
        self._posts = posts
        self._links = links
        self._observer = observer
        self._stop = stop
        self._patience_s = patience_s
        self._needed = asyncio.Event()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_error: MelleaError | None = None
        self._paused_until = 0.0
        self._over = False

    @property
    def places(self) -> int:
        """Items that can be taken on at once when every worker is there."""
        return sum(post.share.places for post in self._posts)

    @property
    def slots(self) -> None:
        """Every place may have work: what a worker takes at once is settled by its share."""

    @property
    def concurrency(self) -> int:
        """Requests in flight that all workers together are allowed."""
        return sum(post.share.settings.concurrency or 0 for post in self._posts)

    @property
    def hired(self) -> bool:
        """Whether there was anything for workers to do."""
        return self._needed.is_set()

    @property
    def retries(self) -> int:
        """Requests that were sent again because of the transport, so far, at all workers."""
        return sum(post.retries for post in self._posts)

    @property
    def peak_in_flight(self) -> int:
        """The workers' own peaks added up: there were never more in flight at once."""
        return sum(post.peak for post in self._posts)

    async def work(self, item: Item) -> Outcome | None:
        """Have `item` answered by one of the workers; see `mellea_cli.run.executor.Executor.work`.

        The first call brings the workers to life: a run that finds every answer in its journal needs none.
        """
        self._needed.set()
        lost_with = 0
        while (post := await self._roomiest()) is not None:
            answer = await post.take(item)
            if not isinstance(answer, Given):
                return answer
            lost_with += answer is Given.LOST_BEGUN
            if answer is Given.BACK or self._stop.asked.is_set():
                return None
            if lost_with >= _MOST_LOST_WITH:
                message = f"{lost_with} workers were lost while they worked on it"
                return Failure("worker-lost", message, attempts=lost_with)
        return None

    async def _roomiest(self) -> Post | None:
        """The worker with the most room, once one has any; none when the run stops first.

        Raises:
            MelleaError: there is no worker any more.
        """
        while not self._stop.asked.is_set():
            if all(post.closed for post in self._posts):
                raise self._last_error or ClusterLost("no worker is left on the cluster")
            post = min(self._posts, key=lambda post: post.load)
            if post.load < 1:
                return post
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        return None

    def _wake(self, most: int) -> None:
        while self._waiting and most > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                most -= 1

    async def attend(self, post: Post) -> None:
        """Keep a place filled until it is of no use any more."""
        await self._needed.wait()
        losses = 0
        while not (self._over or self._stop.asked.is_set()):
            link = self._links.hire(post.number)
            answered = post.answered
            try:
                await self._employ(post, link)
            except WorkerLost as lost:
                losses = 1 if post.answered > answered else losses + 1
                self._lost(post, lost, again=not lost.for_good and losses < _MOST_LOSSES)
                if post.closed:
                    return
            except Abandoned as reason:
                self._abandon(post, reason.error)
                return
            finally:
                link.kill()

    async def _employ(self, post: Post, link: Link) -> None:
        """Work with one worker until it is lost, or says that it is of no use."""
        await self._up(link)
        ready = unpack(await link.open(__version__, pack(post.share)))
        if isinstance(ready, MelleaError):
            raise Abandoned(ready)
        post.node, post.link = ready, link
        self._wake(post.share.places)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.serve())
                group.create_task(self._deliver(post, link))
                group.create_task(self._gather(post, link))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _up(self, link: Link) -> None:
        """Wait until the worker runs."""
        soon_s = min(_SOON_S, self._patience_s)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(link.up(), soon_s)
        self._observer(Note("waiting for the cluster to find room for a worker (ray status says what is taken)"))
        try:
            await asyncio.wait_for(link.up(), self._patience_s - soon_s)
        except TimeoutError:
            why = f"the cluster had no room for it within {self._patience_s:.0f} s"
            raise WorkerLost(why, for_good=True) from None

    async def _deliver(self, post: Post, link: Link) -> None:
        while True:
            await link.give(pack(await post.outgoing()))

    async def _gather(self, post: Post, link: Link) -> None:
        while True:
            self._take_in(post, unpack(await link.collect()))

    def _take_in(self, post: Post, report: Report) -> None:
        for event in report.events:
            self._pass_on(post, event)
        post.count(report.retries, report.peak_in_flight)
        alone = len(self._open()) == 1
        away: BackendUnavailable | None = None
        for position, ending in report.endings:
            if isinstance(ending, BackendUnavailable) and not alone:
                # This worker's server is away for good; the others may have another one, or a better way to it.
                away = ending
            else:
                post.settle(position, ending)
        self._wake(len(report.endings))
        if away is not None:
            raise Abandoned(away)

    def _pass_on(self, post: Post, event: Event) -> None:
        if isinstance(event, Paused):
            # Each worker meets the same server: what is known already is not said again.
            until = asyncio.get_running_loop().time() + event.delay_s
            if until <= self._paused_until + 0.05:
                return
            self._paused_until = until
        self._observer(post.hear(event))

    def _open(self) -> list[Post]:
        return [post for post in self._posts if not post.closed]

    def _lost(self, post: Post, lost: WorkerLost, *, again: bool) -> None:
        post.closed = not again
        where = f" on {post.node}" if post.node else ""
        owed = len(post.tickets)
        happened = f"the worker{where} was lost" if post.link else "a worker cannot start"
        what = f"{happened} ({lost.message})"
        more = f"; its {owed} unfinished items run elsewhere" if owed else ""
        if not (self._over or self._stop.asked.is_set()):
            self._observer(Note(what + more))
        if post.closed:
            self._last_error = ClusterLost(
                f"no worker is left on the cluster: {what}",
                hint="run the same command again when the cluster is well: finished items are kept",
            )
        for ticket in post.vacate():
            for step in () if ticket.answer.done() else ticket.steps:
                self._observer(AttemptFailed(ticket.item.position, step, "worker-lost", what))
            ticket.back(Given.LOST_BEGUN if ticket.begun else Given.LOST)
        self._wake(len(self._waiting))

    def _abandon(self, post: Post, error: MelleaError) -> None:
        post.closed = True
        self._last_error = error
        if self._open():
            where = f"{post.node}: " if post.node else "a worker is of no use: "
            self._observer(Note(f"{where}{error.message}; going on without it"))
        for ticket in post.vacate():
            ticket.back(Given.LOST)
        self._wake(len(self._waiting))

    async def wind_up_when_asked(self) -> None:
        """When the run is asked to stop, take back what no worker has begun."""
        await self._stop.asked.wait()
        self._wake(len(self._waiting))
        for post in self._posts:
            for item in post.unsent():
                post.settle(item.position, None)
            if post.link is not None:
                with contextlib.suppress(WorkerLost):
                    await post.link.wind_up()

    async def dismiss(self) -> None:
        """Let every worker stop its backend, for a moment; then end it. Nobody is hired any more."""
        self._over = True
        links = [post.link for post in self._posts if post.link is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(link.close() for link in links), return_exceptions=True)
        for link in links:
            link.kill()


@asynccontextmanager
async def crew(
    shares: Sequence[Share], links: Links, *, observer: Observer, stop: Stop, patience_s: float = 300.0
) -> AsyncIterator[ClusterExecutor]:
    """The workers of one run, one for each share; they are ended on leaving.

    Args:
        shares: what each gets.
        links: where workers come from.
        observer: hears what happens.
        stop: the run's wish to stop.
        patience_s: how long the cluster may take to find room for a worker, in seconds.
    """
    posts = [Post(number, share) for number, share in enumerate(shares)]
    hands = ClusterExecutor(posts, links, observer, stop, patience_s=patience_s)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(hands.attend(post)) for post in posts]
            tasks.append(group.create_task(hands.wind_up_when_asked()))
            try:
                yield hands
            finally:
                await hands.dismiss()
                tasks.pop().cancel()
                # Calls under way end with their workers; cancelled, they would make Ray's client complain.
                await asyncio.wait(tasks, timeout=_CLOSE_S if hands.hired else 0)
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        error: BaseException = failures
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
