# ruff: noqa: A002 - `format` is what the reference calls it
"""A session: a model, how to generate, and what has been said so far."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from mellea_cli.messages import Message
from mellea_cli.requirements.base import Requirement, ValidationResult
from mellea_cli.session.arguments import (
    DEFAULT_STRATEGY,
    ActArguments,
    InstructArguments,
    Requirements,
    as_requirements,
    chat_message,
    reply,
    requirements_of,
)
from mellea_cli.session.async_session import AsyncSession, sampling_of
from mellea_cli.session.calls import Calls
from mellea_cli.session.components import Component, Instruction, Query, Transform, component
from mellea_cli.session.context import Context
from mellea_cli.session.options import ModelOptions
from mellea_cli.session.sampling import SamplingResult
from mellea_cli.session.strategies import SamplingStrategy
from mellea_cli.session.thunk import ModelOutputThunk

if TYPE_CHECKING:
    from pydantic import BaseModel


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
