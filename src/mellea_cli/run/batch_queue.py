"""A run's requests through the provider's batch queue: planned, written into files, submitted, watched, collected.

A scan of the input writes what is answered to the journal and passes what can be asked next to a sink. It covers one
level of the pipeline: a step is asked once the answers that it needs are there and valid. So a pipeline of one step
takes one scan, and one of two levels takes two. What the queue does not answer well is left to the live run that
follows, which finds everything else in the journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mellea_cli.backends.base import Backend
from mellea_cli.backends.openai_batch import (
    MAX_BYTES,
    MAX_REQUESTS,
    WINDOW,
    Batch,
    BatchClient,
    Reply,
    read_reply,
    request_line,
)
from mellea_cli.backends.rate_limits import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.attempts import check_complete
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.generate import runaway
from mellea_cli.engine.pipeline_runner import step_options, variables
from mellea_cli.engine.workers import Prefetcher, Stop
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    BackendUnavailable,
    EndpointMissing,
    ExitCode,
    RequestRefused,
    Scope,
    ServerFault,
    first_error,
)
from mellea_cli.io.batch_jobs import (
    BatchFile,
    BatchJobStore,
    Job,
    NamedReply,
    Unanswered,
    Waiting,
    custom_id,
    is_custom_id,
    reply_lines,
)
from mellea_cli.io.journal import Answers
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Usage, estimate_tokens
from mellea_cli.pipelines.pipeline import Step
from mellea_cli.pipelines.redact import redact
from mellea_cli.requirements.requirement import Answered
from mellea_cli.run.answer_cache import UnitAnswers, completed, row_answers
from mellea_cli.run.plan import KEY_BYTES, SHORT_TEXT, Caps, RunPlan

T = TypeVar("T")
Body = Callable[[GenerateRequest], dict[str, Any]]
Submit = Callable[[Job, list[str]], Awaitable[bool]]

BATCH_PRICE = 0.5  # The price of a token in the queue, relative to a live one (OpenAI's price list)

# How far the server's clock and ours may differ: a batch in its list is no older than its job here, give or take this.
_CLOCK_SKEW_S = 86_400.0
_COLLECT_ATTEMPTS = 3
_GROUP = 500
_BYTES_PER_S = 50_000
_FIRST_POLL_S = 1.0
_QUEUE_FULL = "token_limit_exceeded"
_TAIL = 400
# Other languages than English have fewer characters a token, and a budget must not be exceeded.
_TOKEN_MARGIN = 4 / 3


# Which requests can be asked now, within the user's limits.


class RequestSink(Protocol):
    """Takes the requests that can be asked now, each under its custom id."""

    def has(self, name: str) -> bool: ...

    async def add(self, name: str, request: GenerateRequest) -> None: ...

    async def finish(self) -> None:
        """End of a scan."""


@dataclass(slots=True)
class BatchProgress:
    """The answers of all scans so far, and the open requests of the last one."""

    settled: int = 0  # Answers that went into the journal
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    # Custom ids of the replies for items that must be asked live, by their request's digest.
    replays: dict[bytes, str] = field(default_factory=dict)
    live: int = 0  # Texts that must be asked live
    waiting: int = 0  # Requests in the queue


@dataclass
class BatchPlanner:
    """Scans the input, again whenever a batch has come back."""

    plan: RunPlan
    items: Callable[[], Iterator[Item]]  # iterates over the input from its start, each time it is called
    answers: Answers
    store: BatchJobStore
    retry_failed: bool = True  # whether items that failed in an earlier run are asked again
    again: bool = False  # whether unanswered requests go out once more; otherwise the live run asks them

    def __post_init__(self) -> None:
        plan = self.plan
        self.progress = BatchProgress()
        self._mask = redact if plan.redacted else str
        self._options = {step.name: step_options(plan.options, step) for step in plan.pipeline.steps}
        self._group: dict[bytes, Outcome] = {}
        self._rows = row_answers(self.answers, plan)

    async def scan(self, sink: RequestSink | None) -> BatchProgress:
        """Go through the input once; without a sink, unanswered requests are left to the live run."""
        progress = self.progress
        progress.live = progress.waiting = 0
        progress.replays.clear()
        planned: set[bytes] = set()  # keys that nearly identical short texts share
        async with Prefetcher(self.items(), ahead=256) as prefetcher:
            while (item := await prefetcher.next()) is not None:
                key = self.plan.key(item.text, item.id, item.fields)
                shared = self.plan.shared_key(item, key)
                # The live run gives this text the answer of the first one.
                if shared in planned or not item.text.strip():
                    continue
                if self.plan.near is not None or (len(item.text) <= SHORT_TEXT and self.plan.normalise):
                    planned.add(shared)
                if not self._is_answered(key) and not self._is_answered(shared):
                    await self._plan_item(item, key, shared, sink)
        self._commit()
        if sink is not None:
            await sink.finish()
        return progress

    def _is_answered(self, key: bytes) -> bool:
        if key in self._group:
            return True
        outcome = self._rows.lookup(key)
        return isinstance(outcome, Success) or (outcome is not None and not self.retry_failed)

    async def _plan_item(self, item: Item, key: bytes, shared: bytes, sink: RequestSink | None) -> None:
        pipeline, name, known = self.plan.pipeline, key, {}
        if isinstance(self._rows, UnitAnswers):
            known = self._rows.known(key)
            pipeline = pipeline.narrowed(known)
            # A request is known by the units that it asks.
            name = hashlib.blake2b(self._rows.missing(key)[1], digest_size=KEY_BYTES).digest()
        item = replace(item, known=known or None)
        planned = _PlannedItem(item.text, variables(pipeline, item, self._mask))
        for step in pipeline.steps:
            if all(need in planned.values for need in step.needs):
                await self._plan_step(step, name, planned, sink)
        progress = self.progress
        progress.waiting += planned.waiting
        if len(planned.values) == len(pipeline.steps):
            values = pipeline.assemble({**planned.values, "text": item.text})
            outcome = Success(values, usage=planned.usage, attempts=planned.calls)
            self._group[key] = self._group[shared] = completed(outcome, known) if known else outcome
            progress.settled += 1
            progress.calls += planned.calls
            progress.usage += planned.usage
            if len(self._group) >= _GROUP:
                self._commit()
        elif not planned.waiting:
            progress.live += 1
            progress.replays.update(planned.replays)

    async def _plan_step(self, step: Step, key: bytes, planned: _PlannedItem, sink: RequestSink | None) -> None:
        if step.when is not None and not step.when(planned.variables):
            planned.finish(step, None)
            return
        name = custom_id(key, step.name)
        reply = self.store.request_state(name)
        if isinstance(reply, Unanswered) and not self.again:
            return
        if isinstance(reply, Waiting) or (sink is not None and sink.has(name)):
            planned.waiting += 1
            return
        request = step.request(self.plan.model, self._options[step.name], planned.variables)
        if not isinstance(reply, Completion):
            if sink is not None:
                await sink.add(name, request)
            planned.waiting += 1
            return
        planned.replays[_digest(request)] = name
        value = await _valid_value(step, request, reply, planned.text)
        if value is not None:
            planned.usage += reply.usage
            planned.calls += 1
            planned.finish(step, value)

    def _commit(self) -> None:
        if self._group:
            self._rows.commit(list(self._group.items()))
            self._group.clear()


@dataclass(slots=True)
class _PlannedItem:
    text: str
    variables: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    replays: dict[bytes, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    waiting: int = 0
    calls: int = 0

    def finish(self, step: Step, value: Any) -> None:
        self.values[step.name] = value
        self.variables |= {step.name: value} if step.exports is None else step.exports(value)


async def _valid_value(step: Step, request: GenerateRequest, completion: Completion, text: str) -> Any:
    """The value of an answer that is good by the rules of a live run; `None` for any other, which is judged there."""
    if any(requirement.validation_fn is None for requirement in step.requirements) or runaway(completion.text[-_TAIL:]):
        return None
    try:
        check_complete(completion)
        value = step.output.parse(completion.text)
    except (AnswerError, BackendError):
        return None
    subject = Answered(completion.text, value, request.messages, text)
    for requirement in step.requirements:
        if not await requirement.check(subject):
            return None
    return value


def _digest(request: GenerateRequest) -> bytes:
    facts = [request.model, [[message.role, message.content] for message in request.messages], request.output_schema]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).digest()


class ReplayBackend:
    """A `Backend` that gives the replies of batches, and asks the real backend for everything else.

    A first answer that came by a batch is judged like a live one; the re-prompt after a bad one goes to the real one.
    """

    def __init__(self, backend: Backend, store: BatchJobStore, replays: Mapping[bytes, str]) -> None:
        self._backend = backend
        self._store = store
        self._replays = replays
        self.prepare = backend.prepare
        self.models = backend.models
        self.aclose = backend.aclose

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def slots(self) -> int | None:
        return self._backend.slots

    @property
    def rate_limit_status(self) -> RateLimitStatus | None:
        return self._backend.rate_limit_status if isinstance(self._backend, ReportsRateLimits) else None

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        name = self._replays.get(_digest(request)) if self._replays else None
        reply = self._store.request_state(name) if name else None
        if isinstance(reply, Completion):
            yield Chunk(reply.text, "", reply.finish_reason, reply.usage)
            return
        async with aclosing(self._backend.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class BatchBudget:
    """Keeps the submitted requests within the caps.

    The first requests count as the longest they may be, later ones as the mean of those that were answered.
    """

    def __init__(self, caps: Caps, answered: int, used: Usage, reserved: Usage) -> None:
        self._caps = caps
        self._answered = answered  # requests
        self._used = used  # by these
        self._reserved = used + reserved  # and by the requests in the queue
        self.full = False  # whether a request was refused

    def reserve(self, request: GenerateRequest) -> Usage | None:
        """Reserve the expected usage of a request; `None` when it would exceed a cap."""
        answered, used = self._answered, self._used
        if answered:
            expected = Usage(-(-used.prompt_tokens // answered), -(-used.completion_tokens // answered))
        else:
            characters = sum(len(message.content) for message in request.messages)
            expected = Usage(math.ceil(estimate_tokens(characters) * _TOKEN_MARGIN), request.options.max_tokens or 0)
        reserved, caps = self._reserved + expected, self._caps
        if caps.tokens is not None and reserved.total_tokens > caps.tokens:
            self.full = True
        if caps.cost is not None and caps.prices and caps.prices.of(reserved) * BATCH_PRICE > caps.cost:
            self.full = True
        if self.full:
            return None
        self._reserved = reserved
        return expected

    @property
    def reason(self) -> str:
        used = self._used.total_tokens
        limit = f"{self._caps.tokens:,} tokens" if self._caps.tokens is not None else f"a cost of {self._caps.cost:g}"
        return f"the next answers would exceed {limit}; {used:,} tokens are used"


# The queue.


class BatchEnded(BackendError):
    """A batch ended without being processed: refused by the server, cancelled, or unknown to it."""

    kind = "batch-ended"
    scope = Scope.RUN


@dataclass
class OffloadRun:
    """Sends a plan's requests through a queue."""

    plan: RunPlan
    planner: BatchPlanner
    client: BatchJobClient
    writer: BatchFileWriter
    stop: Stop  # it may come at any moment, because nothing is lost then
    wait: bool = True  # until the last batch is over
    poll_s: float = 60.0  # longest time between two polls
    tell: Callable[[str], None] = lambda _: None
    watch: Callable[[Batch, int], None] = lambda _batch, _requests: None  # at each poll, with the number of requests

    def __post_init__(self) -> None:
        self._fingerprint = self.plan.fingerprint.hex()
        self._store = self.client.store
        self._most_jobs: int | None = None
        self._first_poll = True

    async def run(self) -> BatchProgress:
        """Go on until no batch could answer anything more, or until the user stops it."""
        try:
            async with self._until_stopped():
                await self._rounds()
        finally:
            self.writer.discard()
        return self.planner.progress

    async def _rounds(self) -> None:
        for job in self._store.jobs(self._fingerprint):
            await self.client.submit(job)
        await self._poll()
        self._first_poll = False
        while True:
            budget = self._budget()
            self.writer.begin(self._submit, budget, is_open=self._takes_more())
            await self.planner.scan(self.writer)
            jobs = self._store.jobs(self._fingerprint)
            if jobs and not self.wait:
                number = f"{len(jobs)} batches are" if len(jobs) > 1 else "1 batch is"
                self.stop.ask_once(f"{number} being worked on by the server", ExitCode.STOPPED_EARLY)
                return
            if jobs:
                await self._until_one_is_over()
            elif self.writer.asked_live:
                continue
            elif budget.full:
                self.stop.ask_once(budget.reason, ExitCode.STOPPED_EARLY)
                return
            elif not self.writer.held_back:
                return

    def _budget(self) -> BatchBudget:
        answered, used = self._store.used(self._fingerprint)
        reserved = sum((Usage(job.prompt, job.completion) for job in self._store.jobs(self._fingerprint)), Usage())
        return BatchBudget(self.plan.caps, answered, used, reserved)

    def _takes_more(self) -> bool:
        return self._most_jobs is None or len(self._store.jobs(self._fingerprint)) < self._most_jobs

    async def _submit(self, job: Job, custom_ids: list[str]) -> bool:
        """Submit one file; return whether another one may follow now."""
        self._store.add(job, custom_ids)
        await self.client.submit(job)
        batch_id = next((one.batch_id for one in self._store.jobs(self._fingerprint) if one.tag == job.tag), "")
        self.tell(f"submitted {job.requests:,} requests as {batch_id}")
        return self._takes_more()

    async def _until_one_is_over(self) -> None:
        wait = min(_FIRST_POLL_S, self.poll_s)
        while not await self._poll():
            await asyncio.sleep(wait)
            wait = min(self.poll_s, wait * 1.5)

    async def _poll(self) -> bool:
        """Poll every batch once and collect what is over; return whether one was."""
        over = False
        for job in self._store.jobs(self._fingerprint):
            try:
                batch = await self.client.poll(job)
                self.watch(batch, job.requests)
                if batch.over:
                    over = True
                    await self._end(job, batch)
            except EndpointMissing as error:
                self._store.finish(job.tag, "unknown", release=True)
                raise BatchEnded(
                    f"the server no longer knows {job.batch_id} or its files: {error.message}",
                    status=error.status,
                    hint="the same command submits its rows again",
                ) from error
        return over

    async def _end(self, job: Job, batch: Batch) -> None:
        await self.client.collect(job, batch)
        # A refused or cancelled batch releases its unanswered requests for another batch; an expired one leaves them
        # to the live run.
        self._store.finish(job.tag, batch.status, release=batch.status in {"failed", "cancelled"})
        await self.client.delete_files(batch)
        if batch.status == "failed":
            others = len(self._store.jobs(self._fingerprint))
            if batch.error_code == _QUEUE_FULL and others:
                # The account's queue takes no more tokens at once: the rest goes in as the others come out.
                self._most_jobs = others
                self.tell(f"the queue is full for now: {batch.error}")
                return
            hint = "submit smaller files with --batch-requests" if batch.error_code == _QUEUE_FULL else ""
            raise BatchEnded(
                f"the server refused {batch.id} as a whole{f': {batch.error}' if batch.error else ''}",
                hint=hint or "fix that and type the same command again, or ask live without --offload",
            )
        if batch.status == "cancelled" and not self._first_poll:
            raise BatchEnded(
                f"{batch.id} was cancelled; its answers are kept",
                hint="the same command submits the rest again, without --offload it is asked live",
            )

    @asynccontextmanager
    async def _until_stopped(self) -> AsyncIterator[None]:
        """Leave the body when the user stops the run: the store says what has been done, whenever that is."""
        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
                guard = group.create_task(self._expire_when_stopped(deadline))
                yield
                guard.cancel()
        except TimeoutError:
            if not self.stop.asked.is_set():
                raise
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None

    async def _expire_when_stopped(self, deadline: asyncio.Timeout) -> None:
        await self.stop.asked.wait()
        deadline.reschedule(asyncio.get_running_loop().time())


@dataclass
class BatchJobClient:
    """Takes the jobs of one plan through one server's queue. Calls that fail are repeated while the server may recover.

    Each step is written to the store before it is taken and again when it is done. A step that may have been taken
    without our learning of it (the process was killed, the connection broke) is looked up at the server before it is
    repeated.
    """

    plan: RunPlan
    client: BatchClient
    store: BatchJobStore
    window: str = WINDOW
    tell: Callable[[str], None] = lambda _: None  # takes the reason of each wait
    moment_s: float = 1.0  # until a completed batch with missing answers is read again

    async def submit(self, job: Job) -> None:
        path = self.store.path.with_name(job.file)
        try:
            await self._submit(job, path)
        except BackendError as error:
            if not error.retryable and error.status is not None:
                self.store.finish(job.tag, "refused", release=True)
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)

    async def _submit(self, job: Job, path: Path) -> None:
        client, file_id = self.client, job.file_id
        if job.state in {"written", "uploading"}:
            size = _size(path)
            if size is None:
                # Lost with the disk's cache, or deleted by a user: its requests are planned again.
                self.store.finish(job.tag, "lost", release=True)
                return
            self.store.change(job.tag, state="uploading")
            file_id = await self._once(
                lambda: client.find_file(job.remote_name),
                lambda: client.upload(path, job.remote_name),
                in_doubt=job.state == "uploading",
                more_s=size / _BYTES_PER_S,
            )
            self.store.change(job.tag, state="uploaded", file_id=file_id)
        if job.state != "submitted":
            self.store.change(job.tag, state="submitting")
            batch_id = await self._once(
                lambda: self._find(job, file_id), lambda: self._create(job, file_id), in_doubt=job.state == "submitting"
            )
            self.store.change(job.tag, state="submitted", batch_id=batch_id, status="validating")

    async def _once(
        self,
        find: Callable[[], Awaitable[str]],
        send: Callable[[], Awaitable[str]],
        *,
        in_doubt: bool,
        more_s: float = 0.0,
    ) -> str:
        """Send something that must not be sent twice: where it may have been sent before, look for it first."""

        async def attempt() -> str:
            nonlocal in_doubt
            if in_doubt:
                # A server without such a list has nothing to find.
                with suppress(EndpointMissing, RequestRefused):
                    if found := await find():
                        return found
            in_doubt = True
            return await send()

        return await self._call(attempt, more_s=more_s)

    async def _create(self, job: Job, file_id: str) -> str:
        return (await self.client.create(file_id, job.tag, self.window)).id

    async def _find(self, job: Job, file_id: str) -> str:
        async for batch in self.client.batches():
            if batch.tag == job.tag or batch.input_file_id == file_id:
                return batch.id
            if 0 < batch.created_at < job.created - _CLOCK_SKEW_S:
                break
        return ""

    async def poll(self, job: Job) -> Batch:
        """The state of a submitted job; a change is written to the store."""
        batch = await self._call(lambda: self.client.get(job.batch_id))
        if batch.status != job.status and not batch.over:
            self.store.change(job.tag, state="submitted", status=batch.status)
        return batch

    async def collect(self, job: Job, batch: Batch) -> None:
        """Read all answers of a finished batch into the store."""
        for attempt in range(1, _COLLECT_ATTEMPTS + 1):
            for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                await self._call(partial(self._read, job, file_id), more_s=job.requests / 10)
            missing = self.store.unanswered(job.tag)
            # An expired or cancelled batch may leave requests out; a completed one has a line for each.
            if not missing or batch.status != "completed":
                return
            # Some servers name the files a moment after they call the batch completed.
            await asyncio.sleep(attempt * self.moment_s)
            batch = await self._call(partial(self.client.get, job.batch_id))
        if missing == job.requests:
            raise ServerFault(
                f"{job.batch_id} is completed, but no answer can be read from it",
                hint="type the same command again later; or give it up: mellea jobs cancel",
            )

    async def _read(self, job: Job, file_id: str) -> None:
        group: list[NamedReply] = []
        async with aclosing(self.client.lines(file_id)) as batches:
            async for lines in batches:
                replies = (read_reply(line, f"batch {job.batch_id}") for line in lines if line.strip())
                group += [_answered(reply) for reply in replies if reply is not None]
                if len(group) >= _GROUP:
                    self.store.store_replies(job.tag, group)
                    group = []
        self.store.store_replies(job.tag, group)

    async def delete_files(self, batch: Batch) -> None:
        """Try to delete a finished batch's files from the server: they hold feedback."""
        for file_id in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
            with suppress(BackendError, TimeoutError):  # the run has what it needs: a failure must not end it
                async with asyncio.timeout(30.0):
                    await self.client.delete_file(file_id)

    async def _call(self, call: Callable[[], Awaitable[T]], *, more_s: float = 0.0) -> T:
        """Call until it succeeds or has failed for too long; `more_s` is added to the longest time for one call."""
        plan, clock = self.plan, asyncio.get_running_loop().time
        longest_s = plan.deadlines.total_s
        failures, since = 0, clock()
        while True:
            began = clock()
            try:
                async with asyncio.timeout(None if longest_s is None else longest_s + more_s):
                    return await call()
            except TimeoutError:
                error: BackendError = BackendUnavailable(
                    f"the server has not answered for {clock() - began:.0f} s", hint="--timeout waits longer"
                )
            except BackendError as failed:
                error = failed
            failures += 1
            delay = plan.policy.delay_s(failures, error.retry_after_s, random.random)
            if not error.retryable or delay is None or clock() + delay - since > plan.max_wait_s:
                raise error
            if failures > 1:
                self.tell(f"{error.message}; trying again in {delay:.0f} s")
            await asyncio.sleep(delay)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@dataclass
class BatchFileWriter:
    """Writes requests into files within a queue's limits, and submits each file when it is full. A `RequestSink`.

    The very first request is asked live instead: a wrong key, an unknown model or a refused parameter fails before
    thousands of requests have been submitted, and the answer counts like any other.
    """

    plan: RunPlan
    base_url: str
    store: BatchJobStore
    body: Body  # writes a request's body in the server's form
    client: ModelClient  # for the live request
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        self.asked_live = False  # whether the last scan asked a request live
        self.held_back = False  # whether it left requests out because the queue takes no more files for now
        self._fingerprint = self.plan.fingerprint.hex()
        self._probed = False
        self._file: BatchFile | None = None
        self._tag = ""
        self._names: set[str] = set()
        self._expected = Usage()

    def begin(self, submit: Submit, budget: BatchBudget, *, is_open: bool) -> None:
        """Begin a new scan. `submit` takes a finished file and says whether another one may follow now."""
        self._submit, self._budget, self._is_open = submit, budget, is_open
        self._names.clear()
        self.asked_live = self.held_back = False

    def has(self, name: str) -> bool:
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        if not self._is_open:
            self.held_back = True
            return
        expected = self._budget.reserve(request)
        if expected is None:
            return
        if not self._probed:
            await self._probe(name, request)
            return
        line = request_line(name, self.body(request))
        if len(line) > self.max_bytes:
            self.store.import_replies(self._fingerprint, [(name, Unanswered("it is too long for a batch file"))])
            self.asked_live = True
            return
        file = self._file
        if file and (len(file.custom_ids) >= self.max_requests or file.size + len(line) > self.max_bytes):
            if not await self._submit_file(file):
                self.held_back = True
                return
            file = None
        if file is None:
            self._tag = f"{int(time.time()):x}-{secrets.token_hex(6)}"
            path = self.store.path
            file = self._file = BatchFile(path.with_name(f"{_stem(path)}{self._tag}.jsonl"))
        file.add(name, line)
        self._names.add(name)
        self._expected += expected

    async def finish(self) -> None:
        if self._file is not None:
            await self._submit_file(self._file)

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _submit_file(self, file: BatchFile) -> bool:
        self._file = None
        file.commit()
        job = Job(
            tag=self._tag,
            plan=self._fingerprint,
            base_url=self.base_url,
            model=self.plan.model,
            state="written",
            file=file.path.name,
            requests=len(file.custom_ids),
            prompt=self._expected.prompt_tokens,
            completion=self._expected.completion_tokens,
            created=time.time(),
        )
        self._expected = Usage()
        self._is_open = await self._submit(job, file.custom_ids)
        self._names.clear()
        return self._is_open

    async def _probe(self, name: str, request: GenerateRequest) -> None:
        reply: Completion | Unanswered
        try:
            reply = await self.client.send(request)
        except (AnswerError, BackendError) as error:
            if isinstance(error, BackendError) and error.scope is not Scope.ITEM:
                raise
            reply = Unanswered(error.message)
        self._probed = self.asked_live = True
        self.store.import_replies(self._fingerprint, [(name, reply)])


def clear_leftovers(journal: Path, wanted: set[str]) -> None:
    """Delete files of requests that a killed run left and that no job needs: they hold feedback."""
    for path in journal.parent.iterdir():
        name = path.name
        if name.startswith(_stem(journal)) and name.endswith((".jsonl", ".jsonl.new")) and name not in wanted:
            path.unlink(missing_ok=True)


def _stem(journal: Path) -> str:
    return f"{journal.name.removesuffix('.journal')}.batch-"


class ExportFile:
    """Writes all requests of a scan into one file: a `RequestSink`. Without a request an earlier file stays."""

    def __init__(self, path: Path, body: Body) -> None:
        self._path = path
        self._body = body
        self._file: BatchFile | None = None
        self._names: set[str] = set()

    @property
    def requests(self) -> int:
        return len(self._names)

    def has(self, name: str) -> bool:
        return name in self._names

    async def add(self, name: str, request: GenerateRequest) -> None:
        if self._file is None:
            self._file = BatchFile(self._path)
        self._file.add(name, request_line(name, self._body(request)))
        self._names.add(name)

    async def finish(self) -> None:
        if self._file is not None:
            self._file.commit()

    def discard(self) -> None:
        """Delete the file, unless it is finished."""
        if self._file is not None:
            self._file.close()


def _answered(reply: Reply) -> NamedReply:
    return reply.custom_id, reply.completion or Unanswered(reply.error)


def import_replies(path: Path, plan: str, store: BatchJobStore) -> tuple[int, int, int]:
    """Read a file of replies, such as the output of `vllm run-batch`, into the store of the plan with this fingerprint.

    Returns:
        The number of answers, of requests without an answer, and of lines that are no replies to requests of a run.
    """
    answers = errors = strange = 0
    group: list[NamedReply] = []
    for line in reply_lines(path):
        reply = read_reply(line, str(path))
        if reply is None or not is_custom_id(reply.custom_id):
            strange += 1
            continue
        answers += reply.completion is not None
        errors += reply.completion is None
        group.append(_answered(reply))
        if len(group) >= _GROUP:
            store.import_replies(plan, group)
            group = []
    store.import_replies(plan, group)
    return answers, errors, strange
