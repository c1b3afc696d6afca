"""Batch planner: which requests of a run can go to a batch queue now, within the user's limits.

A scan of the input writes what is answered to the journal and passes what can be asked next to a sink. It covers one
level of the pipeline: a step is asked once the answers that it needs are there and valid. So a pipeline of one step
takes one scan, and one of two levels takes two.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.backends.rate_limits import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.attempts import check_complete
from mellea_cli.engine.generate import runaway
from mellea_cli.engine.pipeline_runner import step_options, variables
from mellea_cli.engine.workers import Prefetcher
from mellea_cli.errors import AnswerError, BackendError
from mellea_cli.io.batch_jobs import BatchJobStore, Unanswered, Waiting, custom_id
from mellea_cli.io.journal import Answers
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Usage, estimate_tokens
from mellea_cli.pipelines.pipeline import Step
from mellea_cli.pipelines.redact import redact
from mellea_cli.requirements.requirement import Answered
from mellea_cli.run.answer_cache import UnitAnswers, completed, row_answers
from mellea_cli.run.plan import KEY_BYTES, SHORT_TEXT, Caps, RunPlan

BATCH_PRICE = 0.5  # The price of a token in the queue, relative to a live one (OpenAI's price list)

_GROUP = 500
_TAIL = 400
# Other languages than English have fewer characters a token, and a budget must not be exceeded.
_TOKEN_MARGIN = 4 / 3


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
    facts = [
        request.model,
        [[message.role, message.content] for message in request.messages],
        request.output_schema,
    ]
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
