"""Hands files of requests to a provider's batch queue and brings back what it made of them.

Each step is noted in the book before it is taken and again when it is done. A step that may have been taken without our
learning of it (the process was killed, the connection broke) is looked for at the server before it is taken again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from mellea_cli.backends.batch_lines import read_reply
from mellea_cli.backends.openai_batch import MAX_BYTES, MAX_REQUESTS, WINDOW, Batch, BatchClient, reading
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import BackendError, BackendUnavailable, EndpointMissing, RequestRefused, ServerFault
from mellea_cli.io.jobs import Answered, Gone, Job, JobBook

T = TypeVar("T")

# A batch of ours is no older in the server's list than its job here, give or take what the two clocks differ.
_CLOCKS_S = 86_400.0
_SHORT_FILES_TRIES = 3
_GROUP = 500
_BYTES_A_S = 50_000


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a server's queue takes, and how patiently it is watched."""

    requests: int = MAX_REQUESTS
    """Requests in one file at most."""
    size: int = MAX_BYTES
    """Bytes in one file at most."""
    window: str = WINDOW
    """The completion window, by the server's own name for it."""
    poll_s: float = 60.0
    """The longest time between two looks at a batch, in seconds; the first ones come sooner."""


class Patience:
    """Calls the server again while it is away or fails, for as long as the user will wait.

    Args:
        policy: how soon.
        max_wait_s: how long after the first failure in a row, in seconds.
        call_s: the longest time for one call, in seconds; `None` for no limit.
        tell: told why it waits.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        max_wait_s: float,
        call_s: float | None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._max_wait_s = max_wait_s
        self._call_s = call_s
        self._tell = tell

    async def __call__(self, call: Callable[[], Awaitable[T]], *, more_s: float = 0.0) -> T:
        """Call until it succeeds; `more_s` is what the call may take longer than others.

        Raises:
            BackendError: it cannot succeed, or has not for too long.
        """
        clock = asyncio.get_running_loop().time
        failures, since = 0, clock()
        while True:
            began = clock()
            try:
                async with asyncio.timeout(None if self._call_s is None else self._call_s + more_s):
                    return await call()
            except TimeoutError:
                error: BackendError = BackendUnavailable(
                    f"the server has not answered for {clock() - began:.0f} s", hint="--timeout waits longer"
                )
            except BackendError as failed:
                error = failed
            failures += 1
            delay = self._policy.delay_s(failures, error.retry_after_s, random.random)
            if not error.retryable or delay is None or clock() + delay - since > self._max_wait_s:
                raise error
            if failures > 1:
                self._tell(f"{error.message}; trying again in {delay:.0f} s")
            await asyncio.sleep(delay)


class Queue:
    """One server's queue, for one plan.

    Args:
        client: the way to it.
        book: where jobs and replies are kept.
        patience: calls again what failed.
        window: the completion window.
        moment_s: seconds until a completed batch is looked at again that has not brought everything.
    """

    def __init__(
        self, client: BatchClient, book: JobBook, patience: Patience, window: str = WINDOW, *, moment_s: float = 1.0
    ) -> None:
        self._client = client
        self._book = book
        self._patient = patience
        self._window = window
        self._moment_s = moment_s

    async def hand_in(self, job: Job) -> None:
        """Take a job from wherever it stands to a submitted batch.

        Raises:
            BackendError: the server will not have it, and its requests may be handed in anew; or it cannot be reached,
                and the book says how far the job came.
        """
        path = self._book.path.with_name(job.file)
        try:
            await self._submit(job, path)
        except BackendError as error:
            if not error.retryable and error.status is not None:
                self._book.finish(job.tag, "refused", release=True)
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)

    async def _submit(self, job: Job, path: Path) -> None:
        file_id = job.file_id
        if job.state in {"written", "uploading"}:
            size = _size(path)
            if size is None:
                # It went with the disk's cache, or somebody cleared up: its requests are gathered again.
                self._book.finish(job.tag, "lost", release=True)
                return
            in_doubt = job.state == "uploading"
            self._book.change(job.tag, state="uploading")
            file_id = await self._once(
                in_doubt,
                lambda: self._client.find_file(job.remote_name),
                lambda: self._client.upload(path, job.remote_name),
                more_s=size / _BYTES_A_S,
            )
            self._book.change(job.tag, state="uploaded", file_id=file_id)
        if job.state != "submitted":
            in_doubt = job.state == "submitting"
            self._book.change(job.tag, state="submitting")
            batch_id = await self._once(
                in_doubt, lambda: self._find(job, file_id), lambda: self._create(job, file_id), more_s=0.0
            )
            self._book.change(job.tag, state="submitted", batch_id=batch_id, status="validating")

    async def _once(
        self, in_doubt: bool, find: Callable[[], Awaitable[str]], send: Callable[[], Awaitable[str]], *, more_s: float
    ) -> str:
        """Send something that must not be sent twice: where it may have been sent before, look for it first."""
        doubtful = in_doubt

        async def attempt() -> str:
            nonlocal doubtful
            if doubtful and (found := await _if_listed(find)):
                return found
            doubtful = True
            return await send()

        return await self._patient(attempt, more_s=more_s)

    async def _create(self, job: Job, file_id: str) -> str:
        return (await self._client.create(file_id, job.tag, self._window)).id

    async def _find(self, job: Job, file_id: str) -> str:
        async for batch in self._client.batches():
            if batch.tag == job.tag or batch.input_file_id == file_id:
                return batch.id
            if 0 < batch.created_at < job.created - _CLOCKS_S:
                break
        return ""

    async def look(self, job: Job) -> Batch:
        """How a submitted job stands; the book is told when that has changed."""
        batch = await self._patient(lambda: self._client.get(job.batch_id))
        if batch.status != job.status and not batch.over:
            self._book.change(job.tag, state="submitted", status=batch.status)
        return batch

    async def collect(self, job: Job, batch: Batch) -> None:
        """Bring everything that a finished batch has answered into the book.

        Raises:
            BackendError: its files cannot be read to their ends.
            OutputError: the book cannot be written.
        """
        for tries in range(1, _SHORT_FILES_TRIES + 1):
            for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                await self._patient(partial(self._read, job, file_id), more_s=job.requests / 10)
            missing = self._book.unanswered(job.tag)
            # An expired or cancelled batch may leave requests out; a completed one has a line for each.
            if not missing or batch.status != "completed":
                return
            # Some servers name the files a moment after they call the batch completed.
            await asyncio.sleep(tries * self._moment_s)
            batch = await self._patient(partial(self._client.get, job.batch_id))
        if missing == job.requests:
            raise ServerFault(
                f"{job.batch_id} is completed, but no answer can be read from it",
                hint="type the same command again later; or give it up: mellea jobs cancel",
            )

    async def _read(self, job: Job, file_id: str) -> None:
        group: list[Answered] = []
        source = f"batch {job.batch_id}"
        async with reading(self._client, file_id) as batches:
            async for lines in batches:
                replies = (read_reply(line, source) for line in lines if line.strip())
                group += [(one.custom_id, one.completion or Gone(one.error)) for one in replies if one is not None]
                if len(group) >= _GROUP:
                    self._book.keep(job.tag, group)
                    group = []
        self._book.keep(job.tag, group)

    async def clear_away(self, batch: Batch) -> None:
        """Remove a finished batch's files from the server: they hold feedback. Only an attempt."""
        for file_id in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
            with suppress(BackendError, TimeoutError):  # it is housekeeping: the run has what it needs
                async with asyncio.timeout(30.0):
                    await self._client.delete_file(file_id)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


async def _if_listed(find: Callable[[], Awaitable[str]]) -> str:
    """Look for something; a server that has no such list has nothing to find."""
    try:
        return await find()
    except (EndpointMissing, RequestRefused):
        return ""
