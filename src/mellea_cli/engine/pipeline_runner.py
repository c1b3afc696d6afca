"""Pipeline runner: takes one item through the steps of its pipeline."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mellea_cli.backends.security import Secrets
from mellea_cli.engine.attempts import Answer, Question, ask
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.generate import CallObserver
from mellea_cli.errors import AnswerError, BackendError, MelleaError, NoLogprobs, Scope
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
from mellea_cli.pipelines.confidence import read_choices
from mellea_cli.pipelines.pipeline import PROBABILITIES, LabelReading, Pipeline, Step, read_labels
from mellea_cli.requirements.requirement import Answered

_log = logging.getLogger(__name__)

# Tokens of reasoning that a step's answer may take in addition to its own: by the level that is asked for, and at most.
_REASONING_TOKENS: Mapping[bool | str | None, int] = {True: 4_096, "low": 1_024, "medium": 4_096, "high": 16_384}
_MOST_REASONING = 16_384


class PipelineRunner:
    """Answers every step of a pipeline for one item at a time.

    Args:
        pipeline: the steps.
        model: the model's name.
        options: how to generate; each step sets its own `max_tokens` unless they have one.
        client: the model client.
        observer: receives what happens to each item.
        budget: attempts for each step.
        mask: makes what the model sees of an item's text; by default all of it.
        unfinished: receives the tokens and requests of an item that was cut short and so has no outcome.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        model: str,
        options: Options,
        client: ModelClient,
        *,
        observer: Observer,
        budget: int = 3,
        mask: Callable[[str], str] = str,
        unfinished: Callable[[Usage, int], None] = lambda _usage, _calls: None,
    ) -> None:
        self.pipeline = pipeline
        self.observer = observer
        self.mask = mask
        self._model = model
        self._client = client
        self._budget = budget
        self._unfinished = unfinished
        self.repairs = 0  # Answers whose form had to be repaired
        self.shared = 0  # How often a request was counted for a row although another row's outcome counts it already
        self._options = {step.name: step_options(options, step) for step in pipeline.steps}

    async def run(self, item: Item) -> Outcome:
        """Answer every step for `item`.

        An item that cannot be answered is a `Failure`, not an exception.

        Raises:
            BackendError: of scope RUN, because no item can be answered.
        """
        if not item.text.strip():
            return Success(self.pipeline.blank(), attempts=0)
        self.observer(ItemStarted(item.position, str(item.id), item.text))
        pipeline = self.pipeline if item.known is None else self.pipeline.narrowed(item.known)
        running = _RunningItem(item, self)
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            await running.run(pipeline.steps)
            values = pipeline.assemble({**running.values, "text": item.text})
        except Exception as error:  # noqa: BLE001 - the one catch-all around an item: a bad row fails alone
            cause = _furthest_reaching(error)
            if not _ends_run(cause):
                return running.failure(cause, round(clock() - start, 3), pipeline)
            self._unfinished(running.usage, running.calls)
            raise cause from cause.__cause__
        except BaseException:
            self._unfinished(running.usage, running.calls)
            raise
        return Success(values, usage=running.usage, latency_s=round(clock() - start, 3), attempts=running.calls)

    def _count_repair(self) -> None:
        self.repairs += 1

    async def read(self, step: Step, text: str, observer: CallObserver, into: Answer[Any]) -> tuple[LabelReading, ...]:
        """Read a step's labels off the log-probabilities of one token for each part of a masked text.

        Raises:
            AnswerError: an answer is none of the labels.
            BackendError: the server gives no log-probabilities, or the transport failed.
        """
        found = []
        for part, request in step.label_requests(self._model, self._options[step.name], text):
            completion = await self._client.send(request, observer)
            into.count(completion)
            if not completion.tokens:
                raise NoLogprobs(
                    "the model server gives no log-probabilities, which this pipeline reads",
                    hint="use -p single, or the embedded model: -b local",
                )
            found.append(read_labels(part, step.labels, completion.tokens[0].likely))
        return tuple(found)

    async def ask(
        self, step: Step, values: Mapping[str, Any], text: str, observer: CallObserver, into: Answer[Any]
    ) -> None:
        """Ask one step's question; the result is in `into`.

        Args:
            step: what is asked.
            values: variables of the prompt: the masked text, and the answers of earlier steps.
            text: the text of the input, which the answer is judged by.
            observer: follows the call.
            into: an empty answer.
        """
        fallback = step.fallback
        question = Question(
            step.request(self._model, self._options[step.name], values),
            partial(step.output_for(values).parse, repaired=self._count_repair),
            step.requirements,
            budget=self._budget,
            subject=lambda request, completion, value: Answered(completion.text, value, request.messages, text),
            fallback=None if fallback is None else lambda value: fallback(value, text),
        )
        await ask(question, self._client, observer, into)


def variables(pipeline: Pipeline, item: Item, mask: Callable[[str], str] = str) -> dict[str, Any]:
    """The variables of the prompts for an item before its first answer; `mask` makes what the model sees of texts."""
    known: dict[str, Any] = {"text": mask(item.text)}
    if pipeline.inputs:
        cells = ((name, item.fields.get(name)) for name in pipeline.inputs)
        known["row"] = {name: mask(cell) if isinstance(cell, str) else cell for name, cell in cells}
    if item.known:
        # Prompts of later steps name the parts of a nested column by themselves.
        nested = (value for value in item.known.values() if isinstance(value, Mapping))
        known = {**{name: part for value in nested for name, part in value.items()}, **item.known, **known}
    return known


def step_options(options: Options, step: Step) -> Options:
    """How one step's answers are generated. A length limit that the user did not set may be raised for reasoning."""
    if options.max_tokens is not None:
        return options
    most = step.max_tokens + _REASONING_TOKENS.get(options.thinking, 0)
    return dataclasses.replace(options, max_tokens=most, most_reasoning=_MOST_REASONING)


def _furthest_reaching(error: BaseException) -> BaseException:
    """The error inside a task group's exception group; of several the one that ends the run, if there is one."""
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if _ends_run(one)), error.exceptions[0])
    return error


def _ends_run(error: BaseException) -> bool:
    if isinstance(error, BackendError):
        return error.scope is Scope.RUN
    return isinstance(error, MelleaError) and not isinstance(error, AnswerError)


class _RunningItem:
    """One item on its way through the steps."""

    __slots__ = ("_runner", "_variables", "calls", "failed_step", "item", "salvaged", "usage", "values")

    def __init__(self, item: Item, runner: PipelineRunner) -> None:
        self.item = item
        self.values: dict[str, Any] = {}
        self.usage = Usage()
        self.calls = 0
        self.failed_step = ""
        self.salvaged: dict[str, Any] = {}
        units = runner.pipeline.units
        self._variables = variables(runner.pipeline, item, runner.mask) if units else {"text": runner.mask(item.text)}
        self._runner = runner

    async def run(self, steps: tuple[Step, ...]) -> None:
        """Run the steps; those that do not need each other run concurrently."""
        waiting = list(steps)
        while waiting:
            ready = [step for step in waiting if all(need in self.values for need in step.needs)]
            waiting = [step for step in waiting if step not in ready]
            if len(ready) == 1:
                await self._step(ready[0])
                continue
            async with asyncio.TaskGroup() as group:
                for step in ready:
                    group.create_task(self._step(step))

    async def _step(self, step: Step) -> None:
        observer, position = self._runner.observer, self.item.position
        if step.when is not None and not step.when(self._variables):
            self.values[step.name] = None
            if step.exports is not None:
                self._variables.update(step.exports(None))
            return
        observer(StepStarted(position, step.name))
        answer: Answer[Any] = Answer()
        follow = _StepObserver(observer, position, step.name)
        value: Any = None
        try:
            if step.labels:
                value = await self._runner.read(step, self._variables["text"], follow, answer)
            else:
                await self._runner.ask(step, self._variables, self.item.text, follow, answer)
        except BaseException:
            self.failed_step = self.failed_step or step.name
            raise
        finally:
            # Bad answers are paid for as well, also when the transport fails after them.
            self.usage += answer.usage
            self.calls += answer.calls
        if not step.labels:
            # A row does not fail because of a reading that only checks another one.
            if answer.last.error is not None and not step.second_look:
                self.failed_step = self.failed_step or step.name
                if step.salvage is not None and answer.last.checked:
                    held = [bool(result) for _, result in answer.last.checked]
                    self.salvaged |= step.salvage(answer.last.value, self.item.text, held)
                raise answer.last.error
            value = answer.last.value if answer.last.error is None else None
            if step.reads_choices and answer.last.completion is not None:
                read = read_choices(step.output.schema, answer.last.completion.tokens)
                self.values.setdefault(PROBABILITIES, {}).update(read)
        self.values[step.name] = value
        exported: Mapping[str, Any] = {step.name: value} if step.exports is None else step.exports(value)
        self._variables.update(exported)
        observer(StepFinished(position, step.name, answer.usage))

    def failure(self, error: BaseException, latency_s: float, pipeline: Pipeline) -> Failure:
        """The failure of the item, with the fields that were answered."""
        status = None
        match error:
            case BackendError():
                kind, message, status = error.kind, error.message, error.status
            case AnswerError():
                kind, message = error.kind, f"no good answer after {error.attempts} tries: {error.message}"
            case _:
                _log.debug("item %s at %s", self.item.id, self.failed_step, exc_info=error)
                kind = "bug"
                text = f"this is a bug in mellea: {type(error).__name__}: {error}"
                message = Secrets.from_environ(os.environ).scrub(text)
        answered: Mapping[str, Any] | None = None
        if pipeline.units and kind != "bug":
            answered = {**pipeline.assemble({**self.values, "text": self.item.text}), **self.salvaged}
        return Failure(kind, message, self.failed_step, self.calls, status, self.usage, latency_s, answered)


class _StepObserver(CallObserver):
    """Turns what happens to one step's question into events."""

    __slots__ = ("_observer", "_position", "_step")

    def __init__(self, observer: Observer, position: int, step: str) -> None:
        self._observer = observer
        self._position = position
        self._step = step

    def text(self, piece: str) -> None:
        self._observer(TokensReceived(self._position, self._step, piece))

    def failed(self, kind: str, message: str) -> None:
        self._observer(AttemptFailed(self._position, self._step, kind, message))

    def retry(self, delay_s: float, attempt: int) -> None:
        self._observer(RetryScheduled(self._position, self._step, delay_s, attempt))

    def reprompt(self, attempt: int) -> None:
        self._observer(RetryScheduled(self._position, self._step, 0.0, attempt, reprompt=True))
