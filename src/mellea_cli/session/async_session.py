# ruff: noqa: A002 - `format` is what the reference calls it
"""The asynchronous half of a session: methods that hand out what is on its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from mellea_cli.messages import Message
from mellea_cli.requirements.base import Requirement, ValidationResult
from mellea_cli.session.arguments import (
    DEFAULT_STRATEGY,
    ActArguments,
    InstructArguments,
    Requirements,
    as_requirements,
    chat_message,
    output_type,
    reply,
    requirements_of,
)
from mellea_cli.session.calls import Call, Calls
from mellea_cli.session.components import Component, Instruction, Query, Transform, component
from mellea_cli.session.options import CallOptions, ModelOptions, read_options
from mellea_cli.session.sampling import SamplingResult
from mellea_cli.session.strategies import SamplingStrategy
from mellea_cli.session.thunk import ModelOutputThunk
from mellea_cli.session.waiting import wait_for_all_mots

if TYPE_CHECKING:
    from pydantic import BaseModel

_LOG = logging.getLogger("mellea")

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
