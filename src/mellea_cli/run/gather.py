"""One look through the input of a run that uses a batch queue.

What is answered goes into the journal, what can be asked next goes into files. A round is one level of the pipeline: a
step is asked for once the answers that it needs are there and hold. So a pipeline of one step takes one round, and one
of two levels takes two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mellea_cli.engine.attempt import whole
from mellea_cli.engine.feed import Feed
from mellea_cli.engine.generate import runaway
from mellea_cli.errors import AnswerError, BackendError
from mellea_cli.io.batchfile import custom_id
from mellea_cli.io.jobs import Gone, JobBook, Waiting
from mellea_cli.items import Item, Success
from mellea_cli.messages import Completion, GenerateRequest, Usage
from mellea_cli.pipelines.base import Step
from mellea_cli.pipelines.redact import redact
from mellea_cli.requirements.base import Answered
from mellea_cli.run.ends import AnswerStore
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.replay import digest

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
class Gathered:
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


class Gatherer:
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
        book: JobBook,
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
        self.gathered = Gathered()

    async def look(self, outgoing: Outgoing) -> Gathered:
        """Go through the input once.

        Raises:
            InputError: it cannot be read on.
            OutputError: journal or files cannot be written.
        """
        found = self.gathered
        found.live = found.waiting = 0
        found.replays.clear()
        async with Feed(self._items(), ahead=256) as feed:
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
