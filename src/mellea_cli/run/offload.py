"""A run's questions by the provider's batch queue: gathered, handed in, watched, collected, round after round.

What the queue does not answer well is left to the live run that follows, which finds everything else in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mellea_cli.backends.openai_batch import Batch
from mellea_cli.engine.stop import Stop
from mellea_cli.errors import BackendError, EndpointMissing, ExitCode, Scope
from mellea_cli.io.jobs import Job, JobBook
from mellea_cli.messages import Usage
from mellea_cli.run.budget import Caps
from mellea_cli.run.gather import Gathered, Gatherer
from mellea_cli.run.handin import Files
from mellea_cli.run.queue import Queue
from mellea_cli.run.room import Room, Spending, total

_FIRST_LOOK_S = 1.0
_QUEUE_FULL = "token_limit_exceeded"


class BatchEnded(BackendError):
    """A batch ended without having been worked on: refused by the server, cancelled, or no longer known."""

    kind = "batch-ended"
    scope = Scope.RUN


@dataclass(frozen=True, slots=True)
class Parts:
    """What an offload works with.

    Args:
        plan: the plan's fingerprint in hex.
        gatherer: looks through the input.
        queue: the server's queue.
        book: where jobs are kept.
        files: writes what is handed in.
    """

    plan: str
    gatherer: Gatherer
    queue: Queue
    book: JobBook
    files: Files


@dataclass(frozen=True, slots=True)
class Watched:
    """What is told about a batch each time somebody looked."""

    batch: Batch
    requests: int


class Offload:
    """Brings a plan's questions through a queue.

    Args:
        parts: what it works with.
        caps: the user's limits.
        stop: carries the wish to stop; it may come at any moment, as nothing is lost then.
        wait: whether to stay until the last batch is over.
        poll_s: the longest time between two looks, in seconds.
        tell: told a line now and then.
        watch: told how a batch stands.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        caps: Caps,
        stop: Stop,
        wait: bool = True,
        poll_s: float = 60.0,
        tell: Callable[[str], None] = lambda _: None,
        watch: Callable[[Watched], None] = lambda _: None,
    ) -> None:
        self._plan = parts.plan
        self._gatherer = parts.gatherer
        self._queue = parts.queue
        self._book = parts.book
        self._files = parts.files
        self._caps = caps
        self._stop = stop
        self._wait = wait
        self._poll_s = poll_s
        self._tell = tell
        self._watch = watch
        self._most: int | None = None
        self._first_look = True

    async def run(self) -> Gathered:
        """Go on until a batch could answer nothing more, or until somebody asks to stop.

        Returns:
            What went into the journal, and what is left for the live run.

        Raises:
            BackendError: the queue cannot be used, or a batch ended without having been worked on.
        """
        try:
            async with self._until_stopped():
                await self._rounds()
        finally:
            self._files.discard()
        return self._gatherer.gathered

    async def _rounds(self) -> None:
        for job in self._book.jobs(self._plan):
            await self._queue.hand_in(job)
        await self._look()
        self._first_look = False
        while True:
            room = self._room()
            may = self._most is None or len(self._book.jobs(self._plan)) < self._most
            self._files.begin(self._hand_in, room, may=may)
            await self._gatherer.look(self._files)
            jobs = self._book.jobs(self._plan)
            if jobs and not self._wait:
                number = f"{len(jobs)} batches are" if len(jobs) > 1 else "1 batch is"
                self._stop.ask_once(f"{number} being worked on by the server", ExitCode.STOPPED_EARLY)
                return
            if jobs:
                await self._until_one_is_over()
            elif self._files.asked_one:
                continue
            elif room.full:
                self._stop.ask_once(room.reason, ExitCode.STOPPED_EARLY)
                return
            elif not self._files.held_back:
                return

    def _room(self) -> Room:
        answered, used = self._book.used(self._plan)
        reserved = total(Usage(job.prompt, job.completion) for job in self._book.jobs(self._plan))
        return Room(self._caps, Spending(answered, used, reserved))

    async def _hand_in(self, job: Job, custom_ids: list[str]) -> bool:
        """Submit one file.

        Returns:
            Whether another one may follow now.
        """
        self._book.add(job, custom_ids)
        await self._queue.hand_in(job)
        jobs = self._book.jobs(self._plan)
        batch_id = next((one.batch_id for one in jobs if one.tag == job.tag), "")
        self._tell(f"handed in {job.requests:,} requests as {batch_id}")
        return self._most is None or len(jobs) < self._most

    async def _until_one_is_over(self) -> None:
        wait = min(_FIRST_LOOK_S, self._poll_s)
        while not await self._look():
            await asyncio.sleep(wait)
            wait = min(self._poll_s, wait * 1.5)

    async def _look(self) -> bool:
        """Look at every batch once and bring in what is over; return whether one was."""
        over = False
        for job in self._book.jobs(self._plan):
            try:
                over = await self._look_at(job) or over
            except EndpointMissing as error:
                self._book.finish(job.tag, "unknown", release=True)
                raise BatchEnded(
                    f"the server does not know {job.batch_id} or its files any more: {error.message}",
                    status=error.status,
                    hint="the same command hands its rows in again",
                ) from error
        return over

    async def _look_at(self, job: Job) -> bool:
        batch = await self._queue.look(job)
        self._watch(Watched(batch, job.requests))
        if batch.over:
            await self._end(job, batch)
        return batch.over

    async def _end(self, job: Job, batch: Batch) -> None:
        """Bring in what a finished batch has, and say what becomes of the rest of its requests."""
        await self._queue.collect(job, batch)
        again = batch.status in {"failed", "cancelled"}
        self._book.finish(job.tag, batch.status, release=again)
        await self._queue.clear_away(batch)
        if batch.status == "failed":
            self._failed(batch)
        if batch.status == "cancelled" and not self._first_look:
            raise BatchEnded(
                f"{batch.id} was cancelled; what it had answered is kept",
                hint="the same command hands the rest in again, without --offload it is asked live",
            )

    def _failed(self, batch: Batch) -> None:
        others = len(self._book.jobs(self._plan))
        if batch.error_code == _QUEUE_FULL and others:
            # The account's queue takes no more tokens at once: what is left goes in as the others come out.
            self._most = others
            self._tell(f"the queue is full for now: {batch.error}")
            return
        said = f": {batch.error}" if batch.error else ""
        hint = "hand in smaller files with --batch-requests" if batch.error_code == _QUEUE_FULL else ""
        raise BatchEnded(
            f"the server refused {batch.id} as a whole{said}",
            hint=hint or "mend that and type the same command again, or leave --offload out to ask live",
        )

    @asynccontextmanager
    async def _until_stopped(self) -> AsyncIterator[None]:
        """Leave the body when somebody asks to stop: the book says what has been done, whenever that is."""
        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
                guard = group.create_task(self._guard(deadline))
                yield
                guard.cancel()
        except TimeoutError:
            if not self._stop.asked.is_set():
                raise
        except BaseExceptionGroup as failures:
            error: BaseException = failures
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _guard(self, deadline: asyncio.Timeout) -> None:
        await self._stop.asked.wait()
        deadline.reschedule(asyncio.get_running_loop().time())
