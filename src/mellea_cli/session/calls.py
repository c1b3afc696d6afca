"""From a call to the thunk of its answer: what every method of a session and every generative function does."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from mellea_cli.engine.attempts import Answer, Question, SubjectOf, ask, validate
from mellea_cli.errors import ContentFiltered
from mellea_cli.messages import Completion, GenerateRequest, Message, Options
from mellea_cli.pipelines.pipeline import OutputType
from mellea_cli.requirements.requirement import Answered, Requirement, ValidationResult
from mellea_cli.session.connection import Connection
from mellea_cli.session.contexts import Context, SimpleContext, text_of
from mellea_cli.session.event_loop import EventLoopThread
from mellea_cli.session.sampling import SamplingStrategy, best_answer
from mellea_cli.session.thunk import Generation, ModelOutputThunk, Stream

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The model options of one call.

    Args:
        options: what is sent to the server.
        system: the system message; empty for none.
        stream: whether `astream()` passes on each piece as it arrives.
        stream_timeout_s: seconds until the first and between any two pieces; counts only when `timeout_set`.
        timeout_set: whether the caller set the timeout, `None` included.
    """

    options: Options = Options()
    system: str = ""
    stream: bool = False
    stream_timeout_s: float | None = None
    timeout_set: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model.

    Args:
        component: the message: a `Component` or a `Message`.
        options: how to generate.
        output: the answer's type; `None` for plain text.
        strategy: how often to ask; `None` asks once and checks nothing but the type.
        requirements: what must hold for the answer, with a strategy.
        subject: what validators are given; by default the context with the answer at its end.
    """

    component: Any
    options: CallOptions
    output: OutputType | None = None
    strategy: SamplingStrategy | None = None
    requirements: tuple[Requirement, ...] = ()
    subject: SubjectOf | None = None

    def parse(self, text: str) -> Any:
        """The answer's value. Raises `ParseError` when the text is not of the output's type."""
        return text if self.output is None else self.output.parse(text)

    def request(self, model: str, context: Context) -> GenerateRequest:
        """The request: the system message, what the context shows, and the component."""
        system = [Message("system", self.options.system)] if self.options.system else []
        messages = (*system, *map(_as_message, context.view_for_generation()), _as_message(self.component))
        return GenerateRequest(model, messages, self.options.options, self.output.schema if self.output else None)


def _as_message(data: Any) -> Message:
    if isinstance(data, Message):
        return data
    return Message("assistant" if isinstance(data, ModelOutputThunk) else "user", text_of(data))


@lru_cache(maxsize=128)
def output_type(format: Any) -> OutputType | None:  # noqa: A002 - the argument's name in the API
    """The type of an answer for the argument `format`; its schema and its validator are built once."""
    return None if format is None else OutputType(format)


_TURN: ContextVar[object] = ContextVar("turn", default=None)


class Conversation:
    """A context that grows, and the order of the calls on it.

    On a `SimpleContext` calls run concurrently. On any other context they take turns, in the order in which they were
    made, so that each one sees the answer before it and none is lost.

    Attributes:
        context: what has been said so far.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ordered = not isinstance(context, SimpleContext)
        self._lock = asyncio.Lock()
        self._turn: object = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until all earlier calls have ended."""
        # A validator that calls its own session is inside a turn, and cannot wait for that turn to end.
        nested = self._turn is not None and _TURN.get() is self._turn
        if nested or not self.ordered:
            yield
            return
        async with self._lock:
            self._turn = object()
            _TURN.set(self._turn)
            try:
                yield
            finally:
                self._turn = None


class CallScheduler:
    """Starts a session's calls in its event loop.

    Args:
        event_loop: where calls run.
        connection: the model.
        context: what has been said so far.

    Attributes:
        conversation: the conversation of new calls. A running call keeps its own, so replacing this one leaves no
            trace of that call in the new one.
    """

    def __init__(self, event_loop: EventLoopThread, connection: Connection, context: Context) -> None:
        self.event_loop = event_loop
        self.connection = connection
        self.conversation = Conversation(context)

    def start(self, call: Call) -> ModelOutputThunk:
        """Start a call and return its thunk, without waiting.

        Raises:
            RuntimeError: the session has been closed.
        """
        conversation = self.conversation
        generation = Generation(self.event_loop, live=call.options.stream and call.strategy is None)
        # The next turn of an ordered conversation needs the answer, also when the caller has dropped its thunk.
        return generation.start(partial(self._generate, call, conversation), keep=conversation.ordered)

    async def validate(
        self, requirements: Sequence[Requirement], output: ModelOutputThunk | str | None, options: CallOptions
    ) -> list[ValidationResult]:
        """Check requirements on an answer, or on the context's last one. Runs in the event loop."""
        await self.connection.open(self.event_loop)
        if isinstance(output, ModelOutputThunk):
            await output.avalue()
        subject: Any = self.conversation.context
        if output is not None:
            subject = Answered(output) if isinstance(output, str) else subject.add(output)
        client, model = self.connection.client(options), self.connection.model
        # A validation has no thunk that could carry its usage.
        checked = await validate(subject, requirements, client, model, lambda _: None, options.options)
        return [verdict for _, verdict in checked]

    async def _generate(self, call: Call, conversation: Conversation, generation: Generation) -> None:
        async with conversation.turn():
            for needed in getattr(call.component, "pending", list)():
                await needed.avalue()
            await self.connection.open(self.event_loop)
            request = call.request(self.connection.model, conversation.context)
            error: Exception | None = None
            if call.strategy is None:
                answer = await self._ask_once(call, request, generation.stream)
            else:
                asked = await self._sample(call, call.strategy, request, conversation.context, generation.stream)
                answer, error = best_answer(asked, call.strategy, request.model)
            thunk = generation.complete(answer, error)
            if thunk is not None:
                conversation.context = conversation.context.add(call.component).add(thunk)

    async def _ask_once(self, call: Call, request: GenerateRequest, stream: Stream) -> ModelOutputThunk:
        """Ask once, and accept any answer of the right type."""
        completion = await self.connection.client(call.options).send(request, stream)
        if completion.finish_reason == "content_filter":
            raise ContentFiltered("the server's content filter stopped the answer", partial=completion.text)
        parsed = call.parse(completion.text)
        if completion.finish_reason == "length":
            tokens = completion.usage.completion_tokens
            _LOG.warning("the answer was cut off by the length limit after %d tokens", tokens)
        elif not completion.text.strip():
            _LOG.warning("the answer was empty%s", "; there was only reasoning" if completion.thinking else "")
        return ModelOutputThunk.of(completion, model=request.model, messages=request.messages, parsed=parsed)

    async def _sample(
        self, call: Call, strategy: SamplingStrategy, request: GenerateRequest, context: Context, stream: Stream
    ) -> Answer[Any]:
        """Ask until an answer is good or the strategy's budget is used up."""

        def in_context(_: GenerateRequest, completion: Completion, value: Any) -> Any:
            return context.add(call.component).add(ModelOutputThunk(completion.text, parsed_repr=value))

        requirements = call.requirements if strategy.requirements is None else tuple(strategy.requirements)
        question: Question[Any] = Question(
            request,
            call.parse,
            requirements=requirements,
            budget=strategy.loop_budget,
            repair=strategy.repair(),
            repair_unparsed=strategy.repair_unparsed(),
        )
        if requirements:
            question = dataclasses.replace(question, subject=call.subject or in_context)
        return await ask(question, self.connection.client(call.options), stream)
