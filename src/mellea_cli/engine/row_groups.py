"""Several rows in one request: `--rows-per-call`.

Rows that come at the same time share a request, whose answer has a key for each of them, in their order. An answer of
another form is asked again in halves. A row whose own answer is refused, and one that is left alone by the halves, is
asked by itself as without groups, so a group costs requests but no answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any

from mellea_cli.engine.attempts import Answer, Question, Try, ask, validate
from mellea_cli.engine.generate import CallObserver
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.errors import ParseError
from mellea_cli.messages import GenerateRequest, Message, Usage
from mellea_cli.pipelines.pipeline import OutputType, Pipeline, Step, render
from mellea_cli.requirements.requirement import Answered, reasons

# Rows come together when the request before is answered; a row of an input that has ended waits no longer than this.
_LINGER_S = 0.1

_SEVERAL = (
    "Several pieces of feedback come at once, each under a key of its own: row_1, row_2 and so on. They have nothing to"
    " do with each other. Answer with one JSON object that has these keys in this order; the value of each is the"
    " answer about that piece alone."
)


@dataclass(frozen=True)
class GroupPrompt:
    """The messages and the answer type of a step for groups of at most `rows` rows."""

    step: Step
    rows: int

    @cached_property
    def prefix(self) -> tuple[Message, ...]:
        """The messages that are the same for every group."""
        prompt = self.step.prompt
        messages = [Message("system", f"{prompt.system}\n{_SEVERAL}".lstrip())]
        for start in range(0, len(prompt.examples), self.rows):
            shown = prompt.examples[start : start + self.rows]
            answers = (f'"{key}":{example.answer}' for key, example in zip(_keys(len(shown)), shown, strict=True))
            messages.append(Message("user", self._asked([dict(example.variables) for example in shown])))
            messages.append(Message("assistant", "{" + ",".join(answers) + "}"))
        return tuple(messages)

    def messages(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """All messages for rows with these variables."""
        return (*self.prefix, Message("user", self._asked(rows)))

    def _asked(self, rows: Sequence[Mapping[str, Any]]) -> str:
        texts = (render(self.step.prompt.template, variables) for variables in rows)
        return "\n".join(f"{key}:\n{text}" for key, text in zip(_keys(len(rows)), texts, strict=True))

    def output(self, number: int) -> OutputType:
        """The type of an answer about so many rows."""
        return _output(self.step.output, number)

    def parse(self, number: int, text: str, repaired: Callable[[], None]) -> list[Any]:
        """The answers of the rows, in their order.

        Raises:
            ParseError: they are not there, are others, or have another order.
        """
        answers = self.output(number).parse(text, repaired=repaired)
        keys = _keys(number)
        places = [text.find(f'"{key}"') for key in keys]
        if places != sorted(places):
            raise ParseError("the rows are not in their order", text=text)
        return [getattr(answers, key) for key in keys]


def group_prefixes(pipeline: Pipeline, rows: int) -> tuple[tuple[Message, ...], ...]:
    """The beginnings that the prompts of each step share for groups of rows."""
    return tuple(GroupPrompt(step, rows).prefix for step in pipeline.steps)


def _keys(number: int) -> list[str]:
    return [f"row_{place}" for place in range(1, number + 1)]


@lru_cache(maxsize=256)
def _output(one: OutputType, number: int) -> OutputType:
    from pydantic import create_model

    fields: dict[str, Any] = dict.fromkeys(_keys(number), (one.type_, ...))
    return OutputType(create_model("Rows", **fields))


@dataclass(eq=False)
class _Row:
    """A row that waits for the answer of its group; the future says whether that is in `into`."""

    values: Mapping[str, Any]
    text: str
    observer: CallObserver
    into: Answer[Any]
    answered: asyncio.Future[bool]


@dataclass(eq=False)
class _Group:
    step: Step
    rows: list[_Row] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class GroupRunner(PipelineRunner):
    """Answers the steps of a pipeline for groups of rows.

    Args:
        arguments: those of `PipelineRunner`.
        rows: the most rows in one request.
    """

    def __init__(self, *arguments: Any, rows: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._rows = rows
        self._waiting: dict[int, _Group] = {}
        self._prompts: dict[int, GroupPrompt] = {}

    async def ask(
        self, step: Step, values: Mapping[str, Any], text: str, observer: CallObserver, into: Answer[Any]
    ) -> None:
        row = _Row(dict(values), text, observer, into, asyncio.get_running_loop().create_future())
        group = self._join(step, row)
        try:
            answered = await row.answered
        except asyncio.CancelledError:
            self._leave(group, row)
            raise
        if not answered:
            into.tries.clear()
            await super().ask(step, values, text, observer, into)

    def _join(self, step: Step, row: _Row) -> _Group:
        """Put a row into the group that waits for its step, and send a full group."""
        group = self._waiting.setdefault(id(step), _Group(step))
        group.rows.append(row)
        if group.timer is None:
            group.timer = asyncio.get_running_loop().call_later(_LINGER_S, self._send, group)
        if len(group.rows) == self._rows:
            self._send(group)
        return group

    def _leave(self, group: _Group, row: _Row) -> None:
        """Take a cancelled row out; a request that nobody waits for is given up."""
        if group.task is None:
            group.rows.remove(row)
        elif all(one.answered.done() for one in group.rows):
            group.task.cancel()

    def _send(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
        self._waiting.pop(id(group.step), None)
        if group.rows and group.task is None:
            group.task = asyncio.get_running_loop().create_task(self._answer_all(group))

    async def _answer_all(self, group: _Group) -> None:
        try:
            await self._answer(group.step, group.rows)
        except Exception as error:  # noqa: BLE001 - each row of the group has it, and tells what becomes of it
            for row in group.rows:
                if not row.answered.done():
                    row.answered.set_exception(error)

    async def _answer(self, step: Step, rows: Sequence[_Row]) -> None:
        """Answer rows in one request, or in halves where its answer is not about all of them."""
        prompt = self._prompts.setdefault(id(step), GroupPrompt(step, self._rows))
        options = self._options[step.name]
        if options.max_tokens is not None:
            options = dataclasses.replace(options, max_tokens=options.max_tokens * len(rows))
        schema = prompt.output(len(rows)).schema
        messages = prompt.messages([row.values for row in rows])
        question = Question(
            GenerateRequest(self._model, messages, options, schema),
            partial(prompt.parse, len(rows), repaired=self._count_repair),
            budget=1,
        )
        answer: Answer[list[Any]] = Answer()
        try:
            await ask(question, self._client, rows[0].observer, answer)
        finally:
            self._charge(rows, answer)
        tried = answer.last
        if tried.error is None and tried.value is not None:
            for row, value in zip(rows, tried.value, strict=True):
                held = await self._holds(step, row, value, tried)
                if not row.answered.done():
                    row.answered.set_result(held)
        elif len(rows) == 1:
            if not rows[0].answered.done():
                rows[0].answered.set_result(False)
        else:
            half = len(rows) // 2
            for part in (rows[:half], rows[half:]):
                await self._answer(step, part)

    async def _holds(self, step: Step, row: _Row, value: Any, tried: Try[Any]) -> bool:
        """Whether a row's answer meets the requirements; one that does is the row's last try."""
        subject = Answered(tried.text, value, tried.request.messages, row.text)
        requirements = step.requirements
        checked = await validate(
            subject, requirements, self._client, self._model, row.into.count, tried.request.options
        )
        row.into.tries.append(dataclasses.replace(tried, value=value, checked=checked))
        return not reasons(checked)

    def _charge(self, rows: Sequence[_Row], answer: Answer[Any]) -> None:
        """Divide what a request has cost among its rows; each of them has taken part in all of its calls."""
        usage, number = answer.usage, len(rows)
        for place, row in enumerate(rows):
            row.into.usage += Usage(
                *(
                    part // number + (place < part % number)
                    for part in (
                        usage.prompt_tokens,
                        usage.completion_tokens,
                        usage.reasoning_tokens,
                        usage.cached_tokens,
                    )
                )
            )
            row.into.calls += answer.calls
        self.shared += answer.calls * (number - 1)
