"""From a call to a thunk: what every method of a session comes down to."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypedDict

from mellea_cli.engine.attempts import Answer, Question, SubjectOf, ask, validate
from mellea_cli.errors import ContentFiltered, RequirementFailed
from mellea_cli.messages import Completion, GenerateRequest, Message, Usage
from mellea_cli.pipelines.pipeline import OutputType, render
from mellea_cli.requirements.requirement import Answered, Requirement, ValidationResult, options_like, reqify
from mellea_cli.session.connection import Turn
from mellea_cli.session.contexts import Context, SimpleContext, text_of
from mellea_cli.session.sampling import RejectionSamplingStrategy, SamplingStrategy, sampling_result
from mellea_cli.session.session_options import CallOptions, ModelOptions
from mellea_cli.session.thunk import ModelOutputThunk, Stream

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mellea_cli.session.connection import Line, Link
    from mellea_cli.session.event_loop import EventLoopThread
    from mellea_cli.session.sampling import SamplingResult


# What a session's methods take, sync and async alike, and how it is read.

DEFAULT_STRATEGY: SamplingStrategy = RejectionSamplingStrategy(loop_budget=2)

Requirements = Sequence[Requirement | str]


class ActArguments(TypedDict, total=False):
    """What `act` takes by name."""

    requirements: Requirements | None
    strategy: SamplingStrategy | None
    format: type[BaseModel] | None
    model_options: ModelOptions | None


class InstructArguments(ActArguments, total=False):
    """What `instruct` takes by name."""

    icl_examples: Sequence[str] | None
    grounding_context: Mapping[str, str | ModelOutputThunk] | None
    user_variables: Mapping[str, Any] | None
    prefix: str | None


def requirements_of(
    said: Any, given: Requirements | None, strategy: SamplingStrategy | None
) -> tuple[Requirement, ...]:
    """What must hold for the answer to something said. Raises `ValueError` when nothing would check it."""
    if strategy is None and given:
        raise ValueError("requirements are checked by a strategy: give one, such as RejectionSamplingStrategy()")
    return (*getattr(said, "requirements", ()), *(reqify(one) for one in given or ()))


def chat_message(content: str, role: str, variables: Mapping[str, Any] | None) -> Message:
    """What is said in a chat. Raises `TemplateError` when a variable is missing, `TypeError` when it is no text."""
    if not isinstance(content, str):
        raise TypeError(f"a chat's content is a str, not {type(content).__name__}")
    return Message(role, content if variables is None else render(content, variables))


def reply(thunk: ModelOutputThunk) -> Message:
    """The model's turn in a chat."""
    return Message("assistant", thunk.value or "")


def as_requirements(reqs: Requirement | str | Requirements) -> list[Requirement]:
    """One requirement or several, as a list."""
    return [reqify(one) for one in ([reqs] if isinstance(reqs, Requirement | str) else reqs)]


@lru_cache(maxsize=128)
def output_type(type_: Any) -> OutputType:
    """The type of an answer; its schema and its validator are made once."""
    return OutputType(type_)


# The one task, in a session's loop, that brings a thunk's answer about.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a generation came to."""

    completion: Completion
    """The answer that counts."""
    model: str
    messages: tuple[Message, ...]
    """What was sent for it."""
    usage: Usage
    """Over all attempts, judges included."""
    attempts: int
    """Requests that were sent for it, judges not counted."""
    parsed: Any = None
    sampling: SamplingResult | None = None
    error: Exception | None = None
    """Why none of the answers will do."""


Work = Callable[[Stream], Awaitable[Outcome]]


class Job:
    """The one task, in a session's loop, that brings one thunk's answer about.

    It does not hold its thunk, so that a thunk nobody wants any more can go, and its request with it.

    Args:
        portal: the way into the loop.
        stream: where the pieces go.
    """

    __slots__ = ("_after", "_asked", "_error", "_kept", "_portal", "_task", "_thunk", "done", "stream")

    def __init__(self, portal: EventLoopThread, stream: Stream) -> None:
        self.stream = stream
        self.done: Future[bool] = Future()
        """Done when the answer stands or never will; its result is whether it failed."""
        # A future that runs cannot be cancelled, so a cancelled waiter leaves it to the others.
        self.done.set_running_or_notify_cancel()
        self._portal: EventLoopThread | None = portal
        self._task: asyncio.Future[Outcome] | None = None
        self._asked = False
        self._error: Exception | None = None
        self._after: Callable[[ModelOutputThunk], None] | None = None
        self._thunk: weakref.ref[ModelOutputThunk] | None = None
        self._kept: ModelOutputThunk | None = None

    def start(self, work: Work, *, after: Callable[[ModelOutputThunk], None], keep: bool) -> ModelOutputThunk:
        """Start `work` in the loop and return the thunk of its answer.

        Args:
            work: brings the answer.
            after: called in the loop with the thunk once its answer stands, before anybody else is told.
            keep: go on even when nobody holds the thunk any more.

        Raises:
            RuntimeError: the session has been closed.
        """
        thunk = ModelOutputThunk()
        self._thunk, self._kept, self._after = weakref.ref(thunk), thunk if keep else None, after
        if self._portal is not None:
            self._portal.call(self._begin, work)
        thunk.begun(self)
        return thunk

    def wait(self) -> None:
        """Block this thread until the answer stands or never will."""
        portal = self._portal
        if portal is not None:
            portal.wait(self.done)

    def cancel(self, error: Exception | None) -> None:
        """Give the generation up; `error` is what readers are to get instead of the text so far."""
        portal = self._portal
        if portal is not None:
            try:
                portal.call(self._cancel, error)
            except RuntimeError:
                # The session is closed, and everything in it cancelled already.
                return

    def _begin(self, work: Work) -> None:
        self._task = asyncio.get_running_loop().create_task(_run(work, self.stream))
        self._task.add_done_callback(self._ended)

    def _cancel(self, error: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._asked, self._error = True, error
            self._task.cancel()

    def _ended(self, task: asyncio.Future[Outcome]) -> None:
        # Not the task's own last step: a task that is cancelled before it begins takes none.
        failed = True
        try:
            failed = self._settle(task)
        finally:
            self._after = self._kept = self._portal = self._task = None
            self.done.set_result(failed)

    def _settle(self, task: asyncio.Future[Outcome]) -> bool:
        """Put the task's result into the thunk; returns whether it failed. Holds the thunk no longer than this."""
        thunk = (self._thunk() if self._thunk is not None else None) or ModelOutputThunk()
        if task.cancelled():
            thunk.give_up(self.stream.partial, self._error if self._asked else _closed())
        elif (error := task.exception()) is not None:
            thunk.fail(error)
        else:
            thunk.fill(task.result())
        try:
            if self._after is not None and not thunk.failed and not thunk.cancelled:
                self._after(thunk)
        finally:
            self.stream.end(thunk.text, cut=thunk.cancelled)
        return thunk.failed


def _closed() -> RuntimeError:
    return RuntimeError("the session was closed before the answer stood")


async def _run(work: Work, stream: Stream) -> Outcome:
    return await work(stream)


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, with everything decided that can be decided where it is made.

    Args:
        said: what is said to the model: a component or a `Message`.
        options: how to generate.
        output: the answer's type; `None` for plain text.
        strategy: how often to ask; `None` asks once and judges nothing but the type.
        requirements: what must hold for the answer, with a strategy.
        subject: what validators are given; the context with the answer at its end by default.
    """

    said: Any
    options: CallOptions
    output: OutputType | None = None
    strategy: SamplingStrategy | None = None
    requirements: tuple[Requirement, ...] = ()
    subject: SubjectOf | None = None

    def parse(self, text: str) -> Any:
        """The answer's value. Raises `ParseError` when it is not of the type."""
        return text if self.output is None else self.output.parse(text)

    def messages(self, context: Context) -> tuple[Message, ...]:
        """What is sent: the system message, what the context shows, and what is said now."""
        system = (Message("system", self.options.system),) if self.options.system else ()
        return (*system, *(as_message(data) for data in context.view_for_generation()), as_message(self.said))


def as_message(data: Any) -> Message:
    """A context's node as one turn of the conversation."""
    if isinstance(data, Message):
        return data
    return Message("assistant" if isinstance(data, ModelOutputThunk) else "user", text_of(data))


class Calls:
    """Turns calls into thunks, and keeps a session's context.

    With a `SimpleContext` all calls run side by side. With a context that shows the model what was said before they
    take turns, in the order in which they were made, so that each sees the one before it and none is lost.
    """

    def __init__(self, portal: EventLoopThread, link: Link, context: Context) -> None:
        self.portal = portal
        self.link = link
        self._context = context
        self._era = 0
        self._order = threading.Lock()
        self._tail: Turn | None = None
        self._turn: asyncio.Task[Any] | None = None

    @property
    def context(self) -> Context:
        """What has been said so far."""
        return self._context

    @context.setter
    def context(self, context: Context) -> None:
        # A call that is still running belongs to the old context and must not write into this one.
        with self._order:
            self._era += 1
            self._context = context

    @property
    def takes_turns(self) -> bool:
        """Whether calls wait for one another."""
        return not isinstance(self._context, SimpleContext)

    def fire(self, call: Call) -> ModelOutputThunk:
        """Start a call and return its thunk; nothing here waits.

        Raises:
            RuntimeError: the session has been closed.
        """
        stream = Stream(live=call.options.stream and call.strategy is None)
        job = Job(self.portal, stream)
        with self._order:
            turns = self.takes_turns
            after = partial(self._remember, call, self._era)
            # A validator that calls its own session is inside a turn: it cannot wait for that turn to end.
            if not turns or self._inside_a_turn():
                return job.start(partial(self._work, call), after=after, keep=turns)
            turn = Turn(job.done, self._tail)
            thunk = job.start(partial(self._in_turn, turn, call), after=after, keep=True)
            self._tail = turn
            return thunk

    async def check(
        self, requirements: Sequence[Requirement], output: ModelOutputThunk | str | None, options: CallOptions
    ) -> list[ValidationResult]:
        """Check requirements on an answer, or on the context's last one, in the session's loop."""
        line = await self.link.open(self.portal)
        if isinstance(output, ModelOutputThunk):
            await output.avalue()
        subject: Any = self._context
        if output is not None:
            subject = Answered(output) if isinstance(output, str) else self._context.add(output)
        judges = options_like(options.options)
        checked = await validate(subject, requirements, line.sender_for(options), line.model, _uncounted, judges)
        return [verdict for _, verdict in checked]

    def _inside_a_turn(self) -> bool:
        return self.portal.inside() and self._turn is not None and self._turn is asyncio.current_task()

    def _remember(self, call: Call, era: int, thunk: ModelOutputThunk) -> None:
        # Only the session's loop comes here, so nobody else lets the context grow; but any thread may replace it
        # meanwhile. It grows outside the lock, since a context may be of the caller's own kind.
        grown = self._context.add(call.said).add(thunk)
        with self._order:
            if era == self._era:
                self._context = grown

    async def _in_turn(self, turn: Turn, call: Call, stream: Stream) -> Outcome:
        await turn.comes()
        self._turn = asyncio.current_task()
        return await self._work(call, stream)

    async def _work(self, call: Call, stream: Stream) -> Outcome:
        for thunk in pending(call.said):
            await thunk.avalue()
        line = await self.link.open(self.portal)
        context, options = self._context, call.options
        schema = call.output.schema if call.output is not None else None
        request = GenerateRequest(line.model, call.messages(context), options.options, schema)
        if call.strategy is None:
            return await _once(call, request, line, stream)
        return await _sampled(call, call.strategy, request, line, context, stream)


def pending(said: Any) -> list[ModelOutputThunk]:
    """The thunks that must be awaited before something can be said."""
    wanted = getattr(said, "pending", None)
    return wanted() if callable(wanted) else []


async def _once(call: Call, request: GenerateRequest, line: Line, stream: Stream) -> Outcome:
    """Ask once; the answer is taken as it comes, but for its type."""
    completion = await line.sender_for(call.options).send(request, stream)
    if completion.finish_reason == "content_filter":
        raise ContentFiltered("the server's content filter stopped the answer", partial=completion.text)
    parsed = call.parse(completion.text)
    if completion.finish_reason == "length":
        _LOG.warning("the answer was cut off by the length limit after %d tokens", completion.usage.completion_tokens)
    elif not completion.text.strip():
        _LOG.warning("the answer was empty%s", "; there was only reasoning" if completion.thinking else "")
    return Outcome(completion, line.model, request.messages, completion.usage, completion.attempts, parsed)


async def _sampled(
    call: Call, strategy: SamplingStrategy, request: GenerateRequest, line: Line, context: Context, stream: Stream
) -> Outcome:
    """Ask until the answer is good or the strategy's budget is spent."""

    def in_context(_: GenerateRequest, completion: Completion, value: Any) -> Any:
        return context.add(call.said).add(ModelOutputThunk(completion.text, parsed_repr=value))

    requirements = call.requirements if strategy.requirements is None else tuple(strategy.requirements)
    question: Question[Any] = Question(
        request,
        call.parse,
        requirements=requirements,
        budget=strategy.loop_budget,
        repair=strategy.repair(),
        repair_unparsed=strategy.mend(),
    )
    if requirements:
        question = dataclasses.replace(question, subject=call.subject or in_context)
    return _outcome(await ask(question, line.sender_for(call.options), stream), strategy, line)


def _outcome(answer: Answer[Any], strategy: SamplingStrategy, line: Line) -> Outcome:
    index, error = len(answer.tries) - 1, answer.last.error
    # What breaks a requirement is an answer all the same; what is empty, cut off or does not parse is none.
    usable = [place for place, tried in enumerate(answer.tries) if isinstance(tried.error, RequirementFailed)]
    if error is not None and usable:
        index = usable[strategy.select_from_failure([answer.tries[place] for place in usable])]
        error = None
        failed = answer.tries[index].error
        _LOG.warning("no answer met the requirements in %d attempts: %s", len(answer.tries), failed)
    tried = answer.tries[index]
    completion = tried.completion or Completion(tried.text, "error")
    return Outcome(
        completion,
        line.model,
        tried.request.messages,
        answer.usage,
        sum(one.completion.attempts if one.completion is not None else 1 for one in answer.tries),
        tried.value,
        sampling_result(answer, index, line.model),
        error,
    )


def _uncounted(_: Completion) -> None:
    """Count nothing: a validation has no thunk that could carry its usage."""
