"""One look through the input of a run that uses a batch queue.

What is answered goes into the journal, what can be asked next goes into files. A round is one level of the pipeline: a
step is asked for once the answers that it needs are there and hold. So a pipeline of one step takes one round, and one
of two levels takes two.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.backends.http_errors import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.attempts import whole
from mellea_cli.engine.generate import runaway
from mellea_cli.engine.workers import Prefetcher
from mellea_cli.errors import AnswerError, BackendError
from mellea_cli.io.batch_jobs import BatchJobStore, Gone, Waiting, custom_id
from mellea_cli.items import Item, Success
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Usage, estimate_tokens
from mellea_cli.pipelines.pipeline import Step
from mellea_cli.pipelines.redact import redact
from mellea_cli.requirements.requirement import Answered
from mellea_cli.run.batch import AnswerStore
from mellea_cli.run.plan import Caps, RunPlan

# How much may be handed to a queue under the user's limits on tokens and money, before anybody knows what it takes.

BATCH_PRICE = 0.5
"""What a token costs in the queue, against one that is asked for live (OpenAI's price list)."""

# Other languages than English have fewer characters a token, and a budget must not be exceeded.
_TOKEN_MARGIN = 4 / 3


@dataclass(frozen=True, slots=True)
class Spending:
    """What a plan's requests have taken so far, and what those under way may take."""

    answered: int
    used: Usage
    reserved: Usage


class BatchBudget:
    """Keeps what is handed in within the caps.

    The first requests count as the longest they may be, later ones as the mean of those that were answered.

    Args:
        caps: the limits.
        spending: what counts already.
    """

    def __init__(self, caps: Caps, spending: Spending) -> None:
        self._caps = caps
        self._spending = spending
        self._taken = spending.used + spending.reserved
        self.full = False
        """Whether something had to stay behind."""

    def take(self, request: GenerateRequest) -> Usage | None:
        """Make room for one request.

        Returns:
            What it is expected to use; `None` when it would go beyond a cap.
        """
        expected = self._expected(request)
        taken = self._taken + expected
        if not self._within(taken):
            self.full = True
            return None
        self._taken = taken
        return expected

    def _expected(self, request: GenerateRequest) -> Usage:
        answered, used = self._spending.answered, self._spending.used
        if answered:
            return Usage(-(-used.prompt_tokens // answered), -(-used.completion_tokens // answered))
        letters = sum(len(message.content) for message in request.messages)
        return Usage(math.ceil(estimate_tokens(letters) * _TOKEN_MARGIN), request.options.max_tokens or 0)

    def _within(self, usage: Usage) -> bool:
        caps = self._caps
        if caps.tokens is not None and usage.total_tokens > caps.tokens:
            return False
        return caps.cost is None or caps.prices is None or caps.prices.of(usage) * BATCH_PRICE <= caps.cost

    @property
    def reason(self) -> str:
        """Why something had to stay behind."""
        used = self._spending.used.total_tokens
        limit = f"{self._caps.tokens:,} tokens" if self._caps.tokens is not None else f"a cost of {self._caps.cost:g}"
        return f"the next answers would go beyond {limit}; {used:,} tokens are used"


def total(usages: Iterable[Usage]) -> Usage:
    """Add them up."""
    return sum(usages, Usage())


# A backend that gives answers which came by a batch, and asks the real one for all others.


def digest(request: GenerateRequest) -> bytes:
    """What tells one request from every other: 16 bytes."""
    facts = [
        request.model,
        [[message.role, message.content] for message in request.messages],
        request.options.max_tokens,
        request.output_schema,
    ]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).digest()


class ReplayBackend:
    """Stands in front of a backend; see `mellea_cli.backends.base.Backend`.

    A request whose first answer came by a batch gets that answer, so what was wrong with it is judged as always and
    asked about again. Every other request, also the one that asks again, goes to the backend.

    Args:
        backend: the real one.
        book: where the replies are.
        replays: custom ids by the digest of their request.
    """

    def __init__(self, backend: Backend, book: BatchJobStore, replays: Mapping[bytes, str]) -> None:
        self._backend = backend
        self._book = book
        self._replays = replays

    @property
    def name(self) -> str:
        """The real backend's name."""
        return self._backend.name

    @property
    def slots(self) -> int | None:
        """The real backend's slots."""
        return self._backend.slots

    @property
    def rate_limit_status(self) -> RateLimitStatus | None:
        """What the server's headers last said is left, where it says so."""
        return self._backend.rate_limit_status if isinstance(self._backend, ReportsRateLimits) else None

    async def prepare(self, model: str) -> None:
        """Prepare the real backend."""
        await self._backend.prepare(model)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer that is there, or the backend's."""
        name = self._replays.get(digest(request)) if self._replays else None
        reply = self._book.standing(name) if name else None
        if isinstance(reply, Completion):
            yield Chunk(reply.text, "", reply.finish_reason, reply.usage)
            return
        async with aclosing(self._backend.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self) -> list[str]:
        """The real backend's models."""
        return await self._backend.models()

    async def aclose(self) -> None:
        """Close the real backend."""
        await self._backend.aclose()


_GROUP = 500
_TAIL = 400


class Outgoing(Protocol):
    """Where requests go that can be asked now."""

    def has(self, name: str) -> bool:
        """Whether this one is among them already."""

    async def add(self, name: str, request: GenerateRequest) -> None:
        """Take one."""

    async def finish(self) -> None:
        """There are no more for now."""


@dataclass(slots=True)
class PlannedBatch:
    """What has become of the input so far, over all looks at it."""

    settled: int = 0
    """Answers that went into the journal."""
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    replays: dict[bytes, str] = field(default_factory=dict)
    """For items that have to be asked live: what came back for them all the same, by the request's digest."""
    live: int = 0
    """Texts of the last look that have to be asked live."""
    waiting: int = 0
    """Requests of the last look that are in the queue."""


class BatchPlanner:
    """Looks through the input, as often as something has come back.

    Args:
        plan: the run.
        items: goes through the input from its start, each time it is called.
        answers: the journal.
        book: what the queue has brought.
        retry_failed: whether items that failed in an earlier run are asked again.
        again: whether requests that came back without an answer go out once more; otherwise they are left to the live
            run.
    """

    def __init__(
        self,
        plan: RunPlan,
        items: Callable[[], Iterator[Item]],
        answers: AnswerStore,
        book: BatchJobStore,
        *,
        retry_failed: bool = True,
        again: bool = False,
    ) -> None:
        self._plan = plan
        self._items = items
        self._answers = answers
        self._book = book
        self._retry_failed = retry_failed
        self._again = again
        self._mask = redact if plan.redacted else str
        steps = plan.pipeline.steps
        self._options = {step.name: dataclasses.replace(plan.options, max_tokens=step.max_tokens) for step in steps}
        self._group: dict[bytes, Success] = {}
        self.gathered = PlannedBatch()

    async def look(self, outgoing: Outgoing) -> PlannedBatch:
        """Go through the input once.

        Raises:
            InputError: it cannot be read on.
            OutputError: journal or files cannot be written.
        """
        found = self.gathered
        found.live = found.waiting = 0
        found.replays.clear()
        async with Prefetcher(self._items(), ahead=256) as feed:
            while (item := await feed.next()) is not None:
                key = self._plan.key(item.text, item.id)
                if item.text.strip() and not self._is_known(key):
                    await self._item(item, key, outgoing)
        self._commit()
        await outgoing.finish()
        return found

    def _is_known(self, key: bytes) -> bool:
        if key in self._group:
            return True
        outcome = self._answers.lookup(key)
        return isinstance(outcome, Success) or (outcome is not None and not self._retry_failed)

    async def _item(self, item: Item, key: bytes, outgoing: Outgoing) -> None:
        visit = _Visit(self._mask(item.text))
        for step in self._plan.pipeline.steps:
            if all(need in visit.values for need in step.needs):
                await self._step(step, key, visit, outgoing)
        found = self.gathered
        found.waiting += visit.waiting
        if len(visit.values) == len(self._plan.pipeline.steps):
            self._settle(key, visit)
        elif not visit.waiting:
            found.live += 1
            found.replays.update(visit.replays)

    async def _step(self, step: Step, key: bytes, visit: _Visit, outgoing: Outgoing) -> None:
        name = custom_id(key, step.name)
        standing = self._book.standing(name)
        if isinstance(standing, Gone) and not self._again:
            return
        if isinstance(standing, Waiting) or outgoing.has(name):
            visit.waiting += 1
            return
        request = step.request(self._plan.model, self._options[step.name], visit.variables)
        if not isinstance(standing, Completion):
            await outgoing.add(name, request)
            visit.waiting += 1
            return
        visit.replays[digest(request)] = name
        value = await _good(step, request, standing)
        if value is not None:
            visit.usage += standing.usage
            visit.values[step.name] = visit.variables[step.name] = value

    def _settle(self, key: bytes, visit: _Visit) -> None:
        pipeline, found = self._plan.pipeline, self.gathered
        calls = len(pipeline.steps)
        self._group[key] = Success(pipeline.assemble(visit.values), usage=visit.usage, attempts=calls)
        found.settled += 1
        found.calls += calls
        found.usage += visit.usage
        if len(self._group) >= _GROUP:
            self._commit()

    def _commit(self) -> None:
        if self._group:
            self._answers.commit(list(self._group.items()))
            self._group.clear()


class _Visit:
    """One item's way through the steps, as far as it has come."""

    __slots__ = ("replays", "usage", "values", "variables", "waiting")

    def __init__(self, text: str) -> None:
        self.variables: dict[str, Any] = {"text": text}
        self.values: dict[str, Any] = {}
        self.replays: dict[bytes, str] = {}
        self.usage = Usage()
        self.waiting = 0


async def _good(step: Step, request: GenerateRequest, completion: Completion) -> Any:
    """The value of an answer that holds by the rules of a live one; `None` for any other, which is judged there."""
    if any(requirement.judged_by_model for requirement in step.requirements) or runaway(completion.text[-_TAIL:]):
        return None
    try:
        whole(completion)
        value = step.output.parse(completion.text)
    except (AnswerError, BackendError):
        return None
    subject = Answered(completion.text, value, request.messages)
    for requirement in step.requirements:
        if not await requirement.check(subject):
            return None
    return value
