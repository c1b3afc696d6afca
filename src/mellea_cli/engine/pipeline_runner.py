"""One item through a pipeline's steps."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from mellea_cli.backends.security import Secrets
from mellea_cli.engine.attempts import Answer, Question, ask
from mellea_cli.engine.client import Way
from mellea_cli.engine.generate import CallObserver
from mellea_cli.errors import AnswerError, BackendError, MelleaError, Scope
from mellea_cli.events import (
    AttemptFailed,
    ItemStarted,
    Observer,
    RetryScheduled,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.messages import Options, Usage
from mellea_cli.pipelines.pipeline import Pipeline, Step
from mellea_cli.requirements.requirement import Answered

_log = logging.getLogger(__name__)


class PipelineRunner:
    """Takes items through a pipeline, one call of `work` for each.

    Args:
        pipeline: the steps.
        model: the model's name on the way's servers.
        options: how to generate; each step sets its own `max_tokens`.
        sender: the way to the model.
        observer: hears what happens to each item.
        budget: answers that are judged at most, for each step.
        mask: takes an item's text and gives what the model gets to see of it; by default all.
        unfinished: told the tokens and requests that went into an item which was cut short, with no outcome of its own.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        model: str,
        options: Options,
        sender: Way,
        *,
        observer: Observer,
        budget: int = 3,
        mask: Callable[[str], str] = str,
        unfinished: Callable[[Usage, int], None] = lambda _usage, _calls: None,
    ) -> None:
        self._pipeline = pipeline
        self._model = model
        self._sender = sender
        self._observer = observer
        self._budget = budget
        self.mask = mask
        self._unfinished = unfinished
        self._options = {step.name: dataclasses.replace(options, max_tokens=step.max_tokens) for step in pipeline.steps}

    async def work(self, item: Item) -> Outcome:
        """Answer every step for `item`.

        An item that cannot be answered is a `Failure`, not an exception.

        Raises:
            BackendError: of scope RUN: no item can be answered.
        """
        if not item.text.strip():
            return Success(self._pipeline.blank(), attempts=0)
        self._observer(ItemStarted(item.position, str(item.id), item.text))
        visit = _Visit(item, self)
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            await visit.run(self._pipeline.steps)
            values = self._pipeline.assemble({**visit.values, "text": item.text})
        except Exception as error:  # noqa: BLE001 - the one place around one item: a bad row harms only itself
            cause = _cause(error)
            if not _ends_run(cause):
                return self._failure(cause, visit, clock() - start)
            self._unfinished(visit.usage, visit.calls)
            raise cause from cause.__cause__
        except BaseException:
            self._unfinished(visit.usage, visit.calls)
            raise
        return Success(values, usage=visit.usage, latency_s=round(clock() - start, 3), attempts=visit.calls)

    def _failure(self, error: BaseException, visit: _Visit, latency_s: float) -> Failure:
        step = visit.failed_step
        latency_s = round(latency_s, 3)
        match error:
            case BackendError():
                return Failure(error.kind, error.message, step, visit.calls, error.status, visit.usage, latency_s)
            case AnswerError():
                message = f"no good answer after {error.attempts} tries: {error.message}"
                return Failure(error.kind, message, step, visit.calls, None, visit.usage, latency_s)
            case _:
                _log.debug("item %s at %s", visit.item.id, step, exc_info=error)
                message = Secrets.from_environ(os.environ).scrub(
                    f"this is a bug in mellea: {type(error).__name__}: {error}"
                )
                return Failure("bug", message, step, visit.calls, None, visit.usage, latency_s)

    async def ask(
        self, step: Step, values: Mapping[str, Any], text: str, watch: CallObserver, into: Answer[Any]
    ) -> None:
        """Ask one step's question; what came of it stands in `into`.

        Args:
            step: what is asked.
            values: what the template sees: the text as the model gets it, and the answers of the steps before.
            text: the text as it stands in the input, which the answer is judged by.
            watch: told what happens.
            into: an empty answer.
        """
        rescue = step.last_resort
        question = Question(
            step.request(self._model, self._options[step.name], values),
            step.output.parse,
            step.requirements,
            budget=self._budget,
            subject=lambda request, completion, value: Answered(completion.text, value, request.messages, text),
            last_resort=None if rescue is None else lambda value: rescue(value, text),
        )
        await ask(question, self._sender, watch, into)

    @property
    def observer(self) -> Observer:
        """Who hears what happens."""
        return self._observer


def _cause(error: BaseException) -> BaseException:
    """The error itself, where a task group has wrapped it; of several the one that reaches furthest."""
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if _ends_run(one)), error.exceptions[0])
    return error


def _ends_run(error: BaseException) -> bool:
    """Whether no item can be answered any more; an answer that will not do harms only its own."""
    if isinstance(error, BackendError):
        return error.scope is Scope.RUN
    return isinstance(error, MelleaError) and not isinstance(error, AnswerError)


class _Visit:
    """One item's way through the steps."""

    __slots__ = ("_variables", "_worker", "calls", "failed_step", "item", "usage", "values")

    def __init__(self, item: Item, worker: PipelineRunner) -> None:
        self.item = item
        self.values: dict[str, Any] = {}
        self.usage = Usage()
        self.calls = 0
        self.failed_step = ""
        self._variables: dict[str, Any] = {"text": worker.mask(item.text)}
        self._worker = worker

    async def run(self, steps: tuple[Step, ...]) -> None:
        """Run the steps, those that do not wait for each other side by side."""
        left = list(steps)
        while left:
            ready = [step for step in left if all(need in self.values for need in step.needs)]
            left = [step for step in left if step not in ready]
            if len(ready) == 1:
                await self._step(ready[0])
                continue
            async with asyncio.TaskGroup() as group:
                for step in ready:
                    group.create_task(self._step(step))

    async def _step(self, step: Step) -> None:
        self._worker.observer(StepStarted(self.item.position, step.name))
        answer: Answer[Any] = Answer()
        watch = _StepWatch(self._worker.observer, self.item, step)
        try:
            await self._worker.ask(step, self._variables, self.item.text, watch, answer)
        except BaseException:
            self.failed_step = self.failed_step or step.name
            raise
        finally:
            # Answers that would not do are paid for as well, also when the transport fails after them.
            self.usage += answer.usage
            self.calls += answer.calls
        if answer.last.error is not None:
            self.failed_step = self.failed_step or step.name
            raise answer.last.error
        self.values[step.name] = self._variables[step.name] = answer.last.value
        self._worker.observer(StepFinished(self.item.position, step.name, answer.usage))


class _StepWatch(CallObserver):
    """Turns what happens to one question into events."""

    __slots__ = ("_observer", "_position", "_step")

    def __init__(self, observer: Observer, item: Item, step: Step) -> None:
        self._observer = observer
        self._position = item.position
        self._step = step.name

    def text(self, piece: str) -> None:
        self._observer(TokensReceived(self._position, self._step, piece))

    def failed(self, kind: str, message: str) -> None:
        self._observer(AttemptFailed(self._position, self._step, kind, message))

    def retry(self, delay_s: float, attempt: int) -> None:
        self._observer(RetryScheduled(self._position, self._step, delay_s, attempt))
