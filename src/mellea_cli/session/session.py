"""A session: a model, how to generate, and what has been said so far."""

# ruff: noqa: A002 - `format` is what the reference calls it

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from mellea_cli.messages import Message
from mellea_cli.requirements.requirement import Requirement, ValidationResult
from mellea_cli.session.calls import (
    DEFAULT_STRATEGY,
    ActArguments,
    Call,
    Calls,
    InstructArguments,
    Requirements,
    as_requirements,
    chat_message,
    output_type,
    reply,
    requirements_of,
)
from mellea_cli.session.components import Component, Instruction, Query, Transform, component
from mellea_cli.session.connection import Endpoint, Link, check
from mellea_cli.session.contexts import ChatContext, Context, SimpleContext
from mellea_cli.session.event_loop import EventLoopThread
from mellea_cli.session.sampling import SamplingResult, SamplingStrategy
from mellea_cli.session.session_options import CallOptions, ModelOptions, read_options
from mellea_cli.session.thunk import ModelOutputThunk, wait_for_all_mots

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mellea_cli.backends.base import Backend


# The asynchronous half of a session: methods that hand out what is on its way.

_LOG = logging.getLogger(__name__)

STALE_CONTEXT = (
    "Not using a SimpleContext with asynchronous requests could cause unexpected results due to stale contexts."
    " Ensure you await between requests."
)


class AsyncSession:
    """The methods that start with an `a`; `MelleaSession` adds their synchronous twins.

    Args:
        calls: the way to the model, and the context.
        model_options: options of every call, under those given with it.
    """

    def __init__(self, calls: Calls, *, model_options: ModelOptions | None = None) -> None:
        self.calls = calls
        self.model_options = MappingProxyType(dict(model_options or {}))
        self._warned = False
        # Checked here, so that a session with an option that cannot be used does not start.
        self._options = read_options(self.model_options)

    @overload
    async def ainstruct(
        self, description: str, *, return_sampling_results: Literal[True], **how: Unpack[InstructArguments]
    ) -> SamplingResult: ...

    @overload
    async def ainstruct(
        self,
        description: str,
        *,
        return_sampling_results: Literal[False] = ...,
        await_result: bool = ...,
        **how: Unpack[InstructArguments],
    ) -> ModelOutputThunk: ...

    async def ainstruct(  # noqa: PLR0913 - the reference's signature
        self,
        description: str,
        *,
        requirements: Requirements | None = None,
        icl_examples: Sequence[str] | None = None,
        grounding_context: Mapping[str, str | ModelOutputThunk] | None = None,
        user_variables: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Give the model a task. Returns at once with a thunk whose generation runs already.

        Args:
            description: the task. With `user_variables` it is a Jinja2 template.
            requirements: what must hold for the answer: `Requirement`s, or sentences that the model judges.
            icl_examples: examples of good answers.
            grounding_context: texts to answer from, by a key; thunks that are not resolved yet are awaited first.
            user_variables: the values of the templates; they are data and never rendered themselves.
            prefix: text to put before everything else.
            strategy: how often to ask and how to ask again. `None` asks once and checks no requirement; only then can
                the answer be streamed.
            format: a pydantic model that the answer must be; `parsed_repr` of the thunk is then an instance.
            model_options: options by `ModelOption` or by the server's own names; they beat the session's.
            return_sampling_results: wait, and return all attempts with their verdicts.
            await_result: wait for the answer; cancelling then gives the generation up.

        Raises:
            TemplateError: a template names a variable that is not there.
            UsageError: an option cannot be used.
            ValueError: `return_sampling_results` without a strategy.
            RuntimeError: the session has been closed.
            MelleaError: when it waits, why there is no answer; otherwise reading the thunk raises it.
        """
        said = Instruction(
            description,
            requirements=requirements,
            icl_examples=icl_examples,
            grounding_context=grounding_context,
            user_variables=user_variables,
            prefix=prefix,
        )
        thunk = self._fire_async(said, said.requirements, strategy, format, model_options, return_sampling_results)
        return await self._sampled(thunk) if return_sampling_results else await self._given(thunk, wait=await_result)

    @overload
    async def aact(
        self, action: Any, *, return_sampling_results: Literal[True], **how: Unpack[ActArguments]
    ) -> SamplingResult: ...

    @overload
    async def aact(
        self,
        action: Any,
        *,
        return_sampling_results: Literal[False] = ...,
        await_result: bool = ...,
        **how: Unpack[ActArguments],
    ) -> ModelOutputThunk: ...

    async def aact(
        self,
        action: Component | Message | ModelOutputThunk | str,
        *,
        requirements: Requirements | None = None,
        strategy: SamplingStrategy | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Say something to the model: an `Instruction`, a `Message`, a thunk's answer, or plain text.

        The arguments mean what they mean for `ainstruct`, but here nothing is checked unless a strategy is given.

        Raises:
            ValueError: `requirements` or `return_sampling_results` without a strategy.
        """
        said = component(action)
        asked = requirements_of(said, requirements, strategy)
        thunk = self._fire_async(said, asked, strategy, format, model_options, return_sampling_results)
        return await self._sampled(thunk) if return_sampling_results else await self._given(thunk, wait=await_result)

    async def achat(
        self,
        content: str,
        role: str = "user",
        *,
        user_variables: Mapping[str, Any] | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> Message:
        """Say something in a conversation and wait for the reply; `str()` of it is its text.

        Args:
            content: what is said; with `user_variables` a Jinja2 template.
            role: who says it.
            user_variables: the template's values.
            format: a pydantic model that the reply must be; the reply's text is then its JSON.
            model_options: options of this call.

        Raises:
            MelleaError: why there is no reply.
        """
        said = chat_message(content, role, user_variables)
        thunk = await self._given(self._fire_async(said, (), None, format, model_options), wait=True)
        return reply(thunk)

    async def aquery(
        self,
        obj: Any,
        query: str,
        *,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        await_result: bool = False,
    ) -> ModelOutputThunk:
        """Ask about an object: a str, a dict or list, a dataclass, a pydantic model, a thunk, anything with a `str`."""
        thunk = self._fire_async(Query(obj, query), (), None, format, model_options)
        return await self._given(thunk, wait=await_result)

    async def atransform(
        self,
        obj: Any,
        transformation: str,
        *,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> ModelOutputThunk:
        """Have the model change an object, which may be what `aquery` takes, and wait for the result."""
        thunk = self._fire_async(Transform(obj, transformation), (), None, format, model_options)
        return await self._given(thunk, wait=True)

    async def avalidate(
        self,
        reqs: Requirement | str | Requirements,
        *,
        output: ModelOutputThunk | str | None = None,
        model_options: ModelOptions | None = None,
    ) -> list[ValidationResult]:
        """Check requirements on `output`, or on the context's last answer. The context stays as it is.

        Returns:
            A verdict for each requirement, in their order.

        Raises:
            BackendError: a judge could not be asked; that is never taken for a failed requirement.
        """
        self.warn_of_stale_context()
        wanted, options = as_requirements(reqs), self.options(model_options)
        future = self.calls.portal.submit(lambda: self.calls.check(wanted, output, options))
        return await asyncio.wrap_future(future)

    def fire(
        self,
        said: Any,
        requirements: Sequence[Requirement] = (),
        strategy: SamplingStrategy | None = None,
        format: Any = None,
        model_options: ModelOptions | None = None,
        sampling: bool = False,
    ) -> ModelOutputThunk:
        """Start a call; what every method does. Nothing here waits."""
        if sampling and strategy is None:
            raise ValueError("return_sampling_results needs a strategy")
        output = None if format is None else output_type(format)
        options = self.options(model_options)
        return self.calls.fire(Call(said, options, output, strategy, tuple(requirements)))

    def options(self, model_options: ModelOptions | None) -> CallOptions:
        """A call's options over the session's."""
        return read_options(self.model_options, model_options) if model_options else self._options

    def _fire_async(self, *call: Any) -> ModelOutputThunk:
        self.warn_of_stale_context()
        return self.fire(*call)

    def warn_of_stale_context(self) -> None:
        """Say once that calls on this context take turns."""
        if self.calls.takes_turns and not self._warned:
            self._warned = True
            _LOG.warning(STALE_CONTEXT)

    async def _given(self, thunk: ModelOutputThunk, *, wait: bool) -> ModelOutputThunk:
        return await resolved(thunk) if wait else thunk

    async def _sampled(self, thunk: ModelOutputThunk) -> SamplingResult:
        await resolved(thunk, raising=False)
        return sampling_of(thunk)


async def resolved(thunk: ModelOutputThunk, *, raising: bool = True) -> ModelOutputThunk:
    """Wait for a thunk that nobody else has: whoever is cancelled here gives its generation up."""
    try:
        await wait_for_all_mots([thunk], return_exceptions=not raising)
    except asyncio.CancelledError:
        if (job := thunk.job()) is not None:
            job.cancel(None)
        raise
    return thunk


def sampling_of(thunk: ModelOutputThunk) -> SamplingResult:
    """All attempts at a thunk that has ended. Raises its error when there was no attempt to judge."""
    if thunk.sampling is None:
        raise thunk.error or RuntimeError("the generation was cancelled")
    return thunk.sampling


class MelleaSession(AsyncSession):
    """Talks to one model, from threads and event loops alike; `start_session` makes one.

    Every method has a twin whose name starts with an `a`: the same call, for `await`. Requests run in a thread of the
    session's own, at most `concurrency` at a time. Use it as a context manager, sync or async, or close it; a session
    that is simply dropped closes by itself.

    Attributes:
        id: a name of its own.
        model_options: options of every call, under those given with it.
    """

    def __init__(self, calls: Calls, *, model_options: ModelOptions | None = None) -> None:
        super().__init__(calls, model_options=model_options)
        self.id = uuid.uuid4().hex
        self._closed = False

    @property
    def ctx(self) -> Context:
        """What has been said so far; may be set."""
        return self.calls.context

    @ctx.setter
    def ctx(self, context: Context) -> None:
        self.calls.context = context

    @overload
    def instruct(
        self, description: str, *, return_sampling_results: Literal[True], **how: Unpack[InstructArguments]
    ) -> SamplingResult: ...

    @overload
    def instruct(
        self, description: str, *, return_sampling_results: Literal[False] = ..., **how: Unpack[InstructArguments]
    ) -> ModelOutputThunk: ...

    def instruct(  # noqa: PLR0913 - the reference's signature
        self,
        description: str,
        *,
        requirements: Requirements | None = None,
        icl_examples: Sequence[str] | None = None,
        grounding_context: Mapping[str, str | ModelOutputThunk] | None = None,
        user_variables: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Give the model a task and wait for the answer; `ainstruct` describes the arguments.

        Raises:
            BackendError: the server failed at it, for good.
            AnswerError: the model did not answer what was asked, within the budget.
            TemplateError: a template names a variable that is not there.
            UsageError: an option cannot be used.
        """
        said = Instruction(
            description,
            requirements=requirements,
            icl_examples=icl_examples,
            grounding_context=grounding_context,
            user_variables=user_variables,
            prefix=prefix,
        )
        thunk = self.fire(said, said.requirements, strategy, format, model_options, return_sampling_results)
        return self._ended(thunk, sampling=return_sampling_results)

    @overload
    def act(
        self, action: Any, *, return_sampling_results: Literal[True], **how: Unpack[ActArguments]
    ) -> SamplingResult: ...

    @overload
    def act(
        self, action: Any, *, return_sampling_results: Literal[False] = ..., **how: Unpack[ActArguments]
    ) -> ModelOutputThunk: ...

    def act(
        self,
        action: Component | Message | ModelOutputThunk | str,
        *,
        requirements: Requirements | None = None,
        strategy: SamplingStrategy | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Say something to the model and wait for the answer; see `aact`."""
        said = component(action)
        asked = requirements_of(said, requirements, strategy)
        thunk = self.fire(said, asked, strategy, format, model_options, return_sampling_results)
        return self._ended(thunk, sampling=return_sampling_results)

    def chat(
        self,
        content: str,
        role: str = "user",
        *,
        user_variables: Mapping[str, Any] | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> Message:
        """Say something in a conversation and wait for the reply; see `achat`."""
        said = chat_message(content, role, user_variables)
        return reply(self._waited(self.fire(said, (), None, format, model_options)))

    def query(
        self,
        obj: Any,
        query: str,
        *,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> ModelOutputThunk:
        """Ask about an object and wait for the answer; see `aquery`."""
        return self._waited(self.fire(Query(obj, query), (), None, format, model_options))

    def transform(
        self,
        obj: Any,
        transformation: str,
        *,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> ModelOutputThunk:
        """Have the model change an object and wait for the result; see `atransform`."""
        return self._waited(self.fire(Transform(obj, transformation), (), None, format, model_options))

    def validate(
        self,
        reqs: Requirement | str | Requirements,
        *,
        output: ModelOutputThunk | str | None = None,
        model_options: ModelOptions | None = None,
    ) -> list[ValidationResult]:
        """Check requirements on `output`, or on the context's last answer, and wait for it; see `avalidate`."""
        portal, wanted, options = self.calls.portal, as_requirements(reqs), self.options(model_options)
        return portal.wait(portal.submit(lambda: self.calls.check(wanted, output, options)))

    def reset(self) -> None:
        """Forget what has been said; a call that is still running leaves no trace in the new context."""
        self.ctx = self.ctx.reset_to_new()

    def clone(self) -> MelleaSession:
        """A session on the same connections, with the same context so far; from here on the contexts part.

        Each of the two is closed for itself; the connections close with the last.
        """
        calls = Calls(self.calls.portal.share(), self.calls.link, self.ctx)
        return MelleaSession(calls, model_options=self.model_options)

    __copy__ = clone

    def last_prompt(self) -> list[dict[str, str]] | None:
        """What was sent for the context's last answer, as dicts of `role` and `content`; `None` before the first."""
        last = self.ctx.last_output()
        if last is None:
            return None
        return [{"role": message.role, "content": message.content} for message in last.messages]

    def close(self) -> None:
        """Give up what is still running, close the connections and end the thread. May be called twice."""
        if not self._closed:
            self._closed = True
            self.calls.portal.close()

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _ended(self, thunk: ModelOutputThunk, *, sampling: bool) -> ModelOutputThunk | SamplingResult:
        if not sampling:
            return self._waited(thunk)
        self._wait(thunk)
        return sampling_of(thunk)

    def _waited(self, thunk: ModelOutputThunk) -> ModelOutputThunk:
        self._wait(thunk)
        thunk.wait()
        return thunk

    def _wait(self, thunk: ModelOutputThunk) -> None:
        job = thunk.job()
        if job is not None:
            try:
                job.wait()
            except KeyboardInterrupt:
                job.cancel(None)
                raise


# How a session begins.


def start_session(  # noqa: PLR0913 - the reference's signature, and what it hides in backend_kwargs
    backend_name: str | Backend | None = None,
    model_id: str | None = None,
    ctx: Context | None = None,
    *,
    context_type: Literal["simple", "chat"] | None = None,
    model_options: ModelOptions | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    max_retries: int = 5,
    retry_for: float = 120.0,
    timeout: float | None = 600.0,
) -> MelleaSession:
    """Start a session. Nothing is asked and no thread is started before its first call.

    Args:
        backend_name: `"ollama"`, `"openai"` (any server that speaks that protocol), `"local"` (the embedded model) or
            `"scripted"`, or a backend object. By default an Ollama that runs on this machine and has the model, else
            the embedded model; with a `base_url`, the OpenAI protocol.
        model_id: the model's name there. By default `granite4.1:3b` on Ollama, the catalogue's first model when
            embedded; an OpenAI-compatible server needs one to be named.
        ctx: what has been said so far; a new `SimpleContext` by default.
        context_type: `"simple"` or `"chat"`, instead of `ctx`.
        model_options: options of every call, by `ModelOption` or by the server's own names.
        base_url: the server's address; the environment's (`OLLAMA_HOST`, `OPENAI_BASE_URL`) by default.
        api_key: by default `OPENAI_API_KEY`.
        concurrency: requests in flight at most; 16 by default, 4 for the embedded model.
        max_retries: times a request is sent again when the transport is at fault.
        retry_for: seconds after which a request is not sent again any more.
        timeout: seconds that one request may take, from sending it to the end of its answer; `None` for no limit.

    Raises:
        UsageError: there is no such backend, or an option or a setting cannot be used.
        ValueError: both `ctx` and `context_type` were given, or a number is out of its range.
    """
    endpoint = Endpoint(backend_name, model_id, base_url, api_key, concurrency, max_retries, retry_for, timeout)
    check(endpoint)
    calls = Calls(EventLoopThread(), Link(endpoint), _context(ctx, context_type))
    return MelleaSession(calls, model_options=model_options)


def _context(ctx: Context | None, kind: str | None) -> Context:
    if kind is None:
        return ctx if ctx is not None else SimpleContext()
    if ctx is not None:
        raise ValueError("Cannot specify both ctx and context_type")
    if kind not in {"simple", "chat"}:
        raise ValueError(f"context_type is 'simple' or 'chat', not {kind!r}")
    return ChatContext() if kind == "chat" else SimpleContext()
