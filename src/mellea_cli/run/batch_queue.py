"""A run's questions by the provider's batch queue: gathered, handed in, watched, collected, round after round.

What the queue does not answer well is left to the live run that follows, which finds everything else in the journal.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mellea_cli.backends.openai_batch import (
    MAX_BYTES,
    MAX_REQUESTS,
    WINDOW,
    Batch,
    BatchClient,
    read_reply,
    request_line,
)
from mellea_cli.engine.client import Way
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    BackendUnavailable,
    EndpointMissing,
    ExitCode,
    RequestRefused,
    Scope,
    ServerFault,
)
from mellea_cli.io.batch_jobs import Answered, BatchFile, BatchJobStore, Gone, Job, is_ours, reply_lines
from mellea_cli.messages import Completion, GenerateRequest, Usage
from mellea_cli.run.batch_planner import BatchBudget, BatchPlanner, PlannedBatch, Spending, total
from mellea_cli.run.plan import Caps

# Hands files of requests to a provider's batch queue and brings back what it made of them.
#
# Each step is noted in the book before it is taken and again when it is done. A step that may have been taken without
# our learning of it (the process was killed, the connection broke) is looked for at the server before it is taken
# again.

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


class RetryingCaller:
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
        self,
        client: BatchClient,
        book: BatchJobStore,
        patience: RetryingCaller,
        window: str = WINDOW,
        *,
        moment_s: float = 1.0,
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
        async with aclosing(self._client.lines(file_id)) as batches:
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


# Writes requests into files within a queue's limits, and passes each file on as soon as it is full.

Body = Callable[[GenerateRequest], dict[str, Any]]
HandIn = Callable[[Job, list[str]], Awaitable[bool]]


class Files:
    """Takes requests for a queue; see `mellea_cli.run.batch_planner.Outgoing`.

    The very first request is asked live instead: a wrong key, an unknown model or a parameter that the server refuses
    comes to light before thousands of requests have been handed in, and the answer counts like any other.

    Args:
        plan: the plan's fingerprint in hex.
        model: the model's name.
        base_url: the server.
        book: where replies are kept.
        limits: what a file may hold.
        body: writes a request's body as the server takes it.
        sender: the live way to the server.
    """

    def __init__(
        self, plan: str, model: str, base_url: str, book: BatchJobStore, limits: QueueLimits, body: Body, sender: Way
    ) -> None:
        self._plan = plan
        self._model = model
        self._base_url = base_url
        self._book = book
        self._limits = limits
        self._body = body
        self._sender = sender
        self._probed = False
        self._file: BatchFile | None = None
        self._names: set[str] = set()
        self._expected = Usage()
        self._hand_in: HandIn | None = None
        self._room: BatchBudget | None = None
        self.asked_one = False
        """Whether the last look asked a question live."""
        self.held_back = False
        """Whether the last look left requests behind because the queue takes no more files for now."""
        self._open = True

    def begin(self, hand_in: HandIn, room: BatchBudget, *, may: bool = True) -> None:
        """A new look through the input begins.

        Args:
            hand_in: takes a file that is on the disk, and says whether another one may follow now.
            room: what the caps leave.
            may: whether the queue takes another file now.
        """
        self._hand_in, self._room = hand_in, room
        self._names.clear()
        self.asked_one = self.held_back = False
        self._open = may

    def has(self, name: str) -> bool:
        """Whether a request is in the file that is being written."""
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Take a request, unless the queue or the caps have no room for it."""
        if not self._open:
            self.held_back = True
            return
        expected = self._room.take(request) if self._room is not None else Usage()
        if expected is None:
            return
        if not self._probed:
            await self._probe(name, request)
            return
        line = request_line(name, self._body(request))
        if len(line) > self._limits.size:
            self._book.bring(self._plan, [(name, Gone("it is too long for a batch file"))])
            self.asked_one = True
            return
        if self._file is not None and self._is_full(self._file, len(line)) and not await self._pass_on():
            self.held_back = True
            return
        if self._file is None:
            self._file = BatchFile(self._new_path())
        self._file.add(name, line)
        self._names.add(name)
        self._expected += expected

    def _is_full(self, file: BatchFile, more: int) -> bool:
        return len(file.custom_ids) >= self._limits.requests or file.size + more > self._limits.size

    async def finish(self) -> None:
        """Pass the last file on."""
        if self._file is not None:
            await self._pass_on()

    def discard(self) -> None:
        """Give up what is being written."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    async def _pass_on(self) -> bool:
        file, self._file = self._file, None
        if file is None or self._hand_in is None:
            return self._open
        file.finish()
        job = Job(
            tag=tag_of(self._book.path, file.path),
            plan=self._plan,
            base_url=self._base_url,
            model=self._model,
            state="written",
            file=file.path.name,
            requests=len(file.custom_ids),
            prompt=self._expected.prompt_tokens,
            completion=self._expected.completion_tokens,
            created=time.time(),
        )
        self._expected = Usage()
        self._open = await self._hand_in(job, file.custom_ids)
        self._names.clear()
        return self._open

    async def _probe(self, name: str, request: GenerateRequest) -> None:
        reply: Completion | Gone
        try:
            reply = await self._sender.send(request)
        except AnswerError as error:
            reply = Gone(error.message)
        except BackendError as error:
            if error.scope is not Scope.ITEM:
                raise
            reply = Gone(error.message)
        self._probed = self.asked_one = True
        self._book.bring(self._plan, [(name, reply)])

    def _new_path(self) -> Path:
        tag = f"{int(time.time()):x}-{secrets.token_hex(6)}"
        return self._book.path.with_name(f"{_stem(self._book.path)}{tag}.jsonl")


def tag_of(journal: Path, file: Path) -> str:
    """The tag in a file's name."""
    return file.name.removeprefix(_stem(journal)).removesuffix(".jsonl")


def clear_leftovers(journal: Path, wanted: set[str]) -> None:
    """Remove files of requests that a killed run left and that no job needs: they hold feedback."""
    for path in journal.parent.iterdir():
        name = path.name
        if name.startswith(_stem(journal)) and name.endswith(".jsonl") and name not in wanted:
            path.unlink(missing_ok=True)


def _stem(journal: Path) -> str:
    return f"{journal.name.removesuffix('.journal')}.batch-"


# Batch files that go by hand: requests written for another program, and its replies brought in.


class ExportFile:
    """Writes every request that can be asked now into one file; see `mellea_cli.run.batch_planner.Outgoing`.

    Args:
        path: the file. An old one of this name is replaced, but only by something.
        body: writes a request's body.
    """

    def __init__(self, path: Path, body: Body) -> None:
        self._path = path
        self._body = body
        self._file: BatchFile | None = None
        self._names: set[str] = set()

    @property
    def requests(self) -> int:
        """Requests that were written."""
        return len(self._names)

    def has(self, name: str) -> bool:
        """Whether a request is in the file."""
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Write one request. Raises `OutputError` when it cannot be written."""
        if self._file is None:
            self._file = BatchFile(self._path.with_name(f"{self._path.name}.new"))
        self._file.add(name, request_line(name, self._body(request)))
        self._names.add(name)

    async def finish(self) -> None:
        """Bring the file to the disk. Raises `OutputError` when that fails."""
        if self._file is not None:
            file, self._file = self._file, None
            file.finish()
            file.path.replace(self._path)

    def discard(self) -> None:
        """Give up what has not been finished."""
        if self._file is not None:
            self._file.discard()
            self._file = None


class NoRequests:
    """Takes no request: what is missing is asked live. See `mellea_cli.run.batch_planner.Outgoing`."""

    def has(self, name: str) -> bool:  # noqa: ARG002 - the protocol's form
        """Hold nothing."""
        return False

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Leave it to the live run."""

    async def finish(self) -> None:
        """Do nothing."""


def bring_in(path: Path, plan: str, book: BatchJobStore) -> tuple[int, int, int]:
    """Bring a file of replies into the book, line by line.

    Args:
        path: an output or error file of a batch, or what `vllm run-batch` has written.
        plan: the plan's fingerprint in hex.
        book: where replies are kept; one that is there already stays.

    Returns:
        Answers, requests without an answer, and lines that are no replies to requests of ours.

    Raises:
        InputError: the file cannot be read.
        OutputError: the book cannot be written.
    """
    answers = errors = strange = 0
    group: list[Answered] = []
    for _, line in reply_lines(path):
        reply = read_reply(line, str(path))
        if reply is None or not is_ours(reply.custom_id):
            strange += 1
            continue
        answers += reply.completion is not None
        errors += reply.completion is None
        group.append((reply.custom_id, reply.completion or Gone(reply.error)))
        if len(group) >= _GROUP:
            book.bring(plan, group)
            group = []
    book.bring(plan, group)
    return answers, errors, strange


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
    gatherer: BatchPlanner
    queue: Queue
    book: BatchJobStore
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

    async def run(self) -> PlannedBatch:
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

    def _room(self) -> BatchBudget:
        answered, used = self._book.used(self._plan)
        reserved = total(Usage(job.prompt, job.completion) for job in self._book.jobs(self._plan))
        return BatchBudget(self._caps, Spending(answered, used, reserved))

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
