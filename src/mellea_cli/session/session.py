"""Sessions: a model, how to generate, and what has been said so far."""

# ruff: noqa: A002 - `format` is the reference library's name

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack, overload

from mellea_cli.engine.attempts import validate
from mellea_cli.errors import MelleaError
from mellea_cli.messages import Message
from mellea_cli.pipelines.pipeline import OutputType, render
from mellea_cli.requirements.requirement import JUDGE, Answered, Requirement, ValidationResult, reqify_all
from mellea_cli.session.calls import Call, CallOptions, Conversation, SessionJudge, output_type, read_options
from mellea_cli.session.connection import Connection, in_api_words
from mellea_cli.session.event_loop import EventLoopThread
from mellea_cli.session.thunk import Gathered, Generation, ModelOutputThunk, gathered, public_names
from mellea_cli.stdlib.components import CBlock, Component, Instruction, ObjectTask, Requirements, as_component
from mellea_cli.stdlib.context import ChatContext, Context, SimpleContext
from mellea_cli.stdlib.sampling import DEFAULT_STRATEGY, SamplingResult, SamplingStrategy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.model_ids import ModelIdentifier
    from mellea_cli.session.row_runs import AnsweredRow, MapSettings, RowMap

_LOG = logging.getLogger(__name__)

_STALE_CONTEXT = (
    "Not using a SimpleContext with asynchronous requests could cause unexpected results due to stale contexts."
    " Ensure you await between requests."
)

ModelOptions = Mapping[str, Any]  # Options by `ModelOption` key or by the server's own name

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


# What generative functions and other modules use: it stands in no completion list.
_INTERNAL = frozenset(("start", "run"))


def as_options(given: ModelOptions | None) -> ModelOptions:
    """The options of an argument.

    Raises:
        TypeError: they are no mapping.
    """
    if not isinstance(given, Mapping | None):
        raise TypeError(f"model_options is a dict from ModelOption to values, not {type(given).__name__}")
    return given or {}


class ActArguments(TypedDict, total=False):
    """The keyword arguments of `act` and `aact`."""

    requirements: Requirements | None
    format: type[BaseModel] | None
    model_options: ModelOptions | None


class InstructArguments(ActArguments, total=False):
    """The keyword arguments of `instruct` and `ainstruct`."""

    icl_examples: Sequence[str | CBlock] | None
    grounding_context: Mapping[str, str | CBlock | ModelOutputThunk] | None
    user_variables: Mapping[str, Any] | None
    prefix: str | CBlock | None


class BackendArguments(TypedDict, total=False):
    """The keyword arguments of `start_session` that say how to reach the model."""

    base_url: str | None
    api_key: str | None
    concurrency: int | None
    max_retries: int
    retry_for: float
    timeout: float | None
    fetch: bool
    model_options: ModelOptions | None


def start_session(  # noqa: PLR0913 - the reference's signature, and what it hides in backend_kwargs
    backend_name: str | Backend | None = None,
    model_id: str | ModelIdentifier | None = None,
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
    fetch: bool = True,
) -> MelleaSession:
    """Start a session. No request is sent and no thread is started before its first call.

    Without a server, the first call may download the embedded model, once: about 1.1 GB. It says so on stderr, and
    `fetch=False` makes it an error instead.

    Args:
        backend_name: `"ollama"`, `"openai"` (any server that speaks that protocol), `"local"` (the embedded model) or
            `"scripted"`, or a backend object. By default an Ollama that runs on this machine and has the model, else
            the embedded model; with a `base_url`, the OpenAI protocol.
        model_id: the model's name there, or one of `backends.model_ids`. By default `granite4.1:3b` on Ollama, the
            catalogue's first model when embedded; an OpenAI-compatible server needs one to be named.
        ctx: what has been said so far; a new `SimpleContext` by default.
        context_type: `"simple"` or `"chat"`, instead of `ctx`.
        model_options: options of every call, by `ModelOption` or by the server's own names.
        base_url: the server's address; the environment's (`OLLAMA_HOST`, `OPENAI_BASE_URL`) by default.
        api_key: by default `OPENAI_API_KEY`.
        concurrency: maximum number of requests in flight; 16 by default, 4 for the embedded model.
        max_retries: maximum number of retries of a request after a transport error.
        retry_for: seconds after which a request is not retried any more.
        timeout: maximum time for one request in seconds, from sending it to the end of its answer; `None` for no limit.
        fetch: whether the embedded default model is downloaded when it is missing.

    Raises:
        UsageError: there is no such backend, or an option or a setting cannot be used.
        ValueError: both `ctx` and `context_type` were given, or a number is out of its range.
        TypeError: an argument has the wrong type.
    """
    context, backend = start_backend(
        backend_name,
        model_id,
        ctx,
        context_type=context_type,
        base_url=base_url,
        api_key=api_key,
        concurrency=concurrency,
        max_retries=max_retries,
        retry_for=retry_for,
        timeout=timeout,
        fetch=fetch,
    )
    return MelleaSession(backend, context, model_options=model_options)


def start_backend(
    backend_name: str | Backend | None = None,
    model_id: str | ModelIdentifier | None = None,
    ctx: Context | None = None,
    *,
    context_type: Literal["simple", "chat"] | None = None,
    **settings: Unpack[BackendArguments],
) -> tuple[Context, Connection]:
    """What `start_session` puts together, for `MelleaSession(backend, context)`: a context, and how to reach a model.

    The arguments and errors are those of `start_session`.
    """
    if ctx is not None and context_type is not None:
        raise ValueError("Cannot specify both ctx and context_type")
    if context_type not in {None, "simple", "chat"}:
        raise ValueError(f"context_type is 'simple' or 'chat', not {context_type!r}")
    try:
        given = {
            {"retry_for": "retry_for_s", "timeout": "timeout_s"}.get(key, key): one for key, one in settings.items()
        }
        connection = Connection(backend_name, model_id, **given)  # type: ignore[arg-type]  # renamed keys
    except MelleaError as error:
        raise in_api_words(error) from None
    context = ctx if ctx is not None else ChatContext() if context_type == "chat" else SimpleContext()
    return context, connection


def _parameters_of(method: Callable[..., Any]) -> Callable[[F], F]:
    """Show a sync method with the parameters of its async form, but for `await_result`."""

    def decorate(function: F) -> F:
        signature = inspect.signature(method)
        parameters = [one for one in signature.parameters.values() if one.name != "await_result"]
        # inspect reads this attribute of any callable.
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate


def _sync_form(
    method: Callable[Concatenate[MelleaSession, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[MelleaSession, P], T]:
    """The sync form of an async method: it runs in the session's event loop, and the caller's thread waits."""

    @_parameters_of(method)
    @functools.wraps(method)
    def call(self: MelleaSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def answered() -> T:
            result = await method(self, *args, **kwargs)
            if isinstance(result, ModelOutputThunk):
                await result.resolve_or_cancel()
            return result

        return self.run(answered)

    call.__name__ = method.__name__.removeprefix("a")
    return call


class MelleaSession:
    """Talks to one model, from threads and event loops alike; made by `start_session`, or of a backend object.

    Each generating method has an async form whose name begins with `a`. Requests run in a thread of the session's own,
    at most `concurrency` at a time. Use a session as a context manager, sync or async, or close it; a session that is
    dropped closes by itself.

    Args:
        backend: `OllamaModelBackend(model_id)`, `OpenAIBackend(model_id, base_url=...)`, another session's `backend`,
            or any object that is a backend. Each session has connections of its own.
        ctx: what has been said so far; a new `SimpleContext` by default.
        model_options: options of every call; they override the backend's.
        session_id: the session's `id`.

    Attributes:
        id: a unique name.
        model_options: options of every call; those given with a call override them.
    """

    def __init__(
        self,
        backend: Backend | Connection,
        ctx: Context | None = None,
        *,
        model_options: ModelOptions | None = None,
        session_id: str | None = None,
    ) -> None:
        if isinstance(backend, Connection):
            connection = backend.again()
        else:
            connection = Connection(backend, timeout_s=getattr(backend, "timeout", 600.0))
        given = connection.model_options or getattr(connection.backend, "model_options", None)
        options = {**as_options(given), **as_options(model_options)}
        self._start(EventLoopThread(), connection, SimpleContext() if ctx is None else ctx, options, session_id)

    def _start(
        self,
        event_loop: EventLoopThread,
        connection: Connection,
        context: Context,
        options: ModelOptions,
        session_id: str | None = None,
    ) -> None:
        if not isinstance(context, Context):
            raise TypeError(f"ctx is a context such as ChatContext(), not {type(context).__name__}")
        self.id = session_id or uuid.uuid4().hex
        self.model_options = MappingProxyType(dict(options))
        self._event_loop = event_loop
        self._connection = connection
        # A running call keeps its own conversation, so replacing this one leaves no trace of that call in the new one.
        self._conversation = Conversation(context)
        self._closed = False
        self._warned = False
        # Checked here, so that a session with a wrong option does not start.
        self._options = self._call_options({})

    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[True],
        strategy: SamplingStrategy = ...,
        **arguments: Unpack[InstructArguments],
    ) -> SamplingResult: ...

    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[False] = ...,
        strategy: SamplingStrategy | None = ...,
        await_result: bool = ...,
        **arguments: Unpack[InstructArguments],
    ) -> ModelOutputThunk: ...

    async def ainstruct(  # noqa: PLR0913 - the reference's signature
        self,
        description: str | CBlock,
        *,
        requirements: Requirements | None = None,
        icl_examples: Sequence[str | CBlock] | None = None,
        grounding_context: Mapping[str, str | CBlock | ModelOutputThunk] | None = None,
        user_variables: Mapping[str, Any] | None = None,
        prefix: str | CBlock | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Give the model a task. Returns at once with a thunk whose generation already runs.

        Args:
            description: the task. With `user_variables` it is a Jinja2 template.
            requirements: what must hold for the answer: `Requirement`s, or sentences that the model judges.
            icl_examples: examples of good answers.
            grounding_context: texts to answer from, by key; thunks that are not complete yet are awaited first.
            user_variables: the values of the templates; they are data and never rendered themselves.
            prefix: text before everything else.
            strategy: how often to ask and how to ask again. `None` asks once and checks no requirement; only then can
                the answer be streamed.
            format: a pydantic model that the answer must match; `parsed_repr` of the thunk is then an instance.
            model_options: options by `ModelOption` or by the server's own names; they override the session's.
            return_sampling_results: wait, and return all attempts with their verdicts.
            await_result: wait for the answer; cancelling then cancels the generation.

        Raises:
            TemplateError: a template names a variable that is not given.
            UsageError: an option cannot be used.
            ValueError: `return_sampling_results` without a strategy.
            RuntimeError: the session has been closed.
            BackendError: with one of the last two arguments: the request failed, after all retries. Otherwise reading
                the thunk raises this and the next.
            AnswerError: no answer could be used, within the strategy's budget.
        """
        task = Instruction(
            description,
            requirements=requirements,
            icl_examples=icl_examples,
            grounding_context=grounding_context,
            user_variables=user_variables,
            prefix=prefix,
        )
        return await self._ask(
            task,
            task.requirements,
            strategy,
            format,
            model_options,
            sampling=return_sampling_results,
            wait=await_result,
        )

    @overload
    async def aact(
        self,
        action: Any,
        *,
        return_sampling_results: Literal[True],
        strategy: SamplingStrategy,
        **arguments: Unpack[ActArguments],
    ) -> SamplingResult: ...

    @overload
    async def aact(
        self,
        action: Any,
        *,
        return_sampling_results: Literal[False] = ...,
        strategy: SamplingStrategy | None = ...,
        await_result: bool = ...,
        **arguments: Unpack[ActArguments],
    ) -> ModelOutputThunk: ...

    async def aact(
        self,
        action: Component | Message | CBlock | ModelOutputThunk | str,
        *,
        requirements: Requirements | None = None,
        strategy: SamplingStrategy | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
        return_sampling_results: bool = False,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Send an `Instruction`, a `Message`, a thunk's answer, or plain text.

        The arguments and errors are those of `ainstruct`, but by default there is no strategy.

        Raises:
            ValueError: `requirements` or `return_sampling_results` without a strategy.
        """
        if strategy is None and requirements:
            raise ValueError("requirements are checked by a strategy: give one, such as RejectionSamplingStrategy()")
        component = as_component(action)
        required = (*getattr(component, "requirements", ()), *reqify_all(requirements))
        return await self._ask(
            component, required, strategy, format, model_options, sampling=return_sampling_results, wait=await_result
        )

    async def achat(
        self,
        content: str,
        role: str = "user",
        *,
        user_variables: Mapping[str, Any] | None = None,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> Message:
        """Send a message of a conversation and wait for the reply; `str()` of the reply is its text.

        Args:
            content: the message's text; with `user_variables` a Jinja2 template.
            role: the message's role.
            user_variables: the template's values.
            format: a pydantic model that the reply must match; the reply's text is then its JSON.
            model_options: options of this call.

        Raises:
            TemplateError: the template names a variable that is not given.
            MelleaError: why there is no reply.
        """
        if not isinstance(content, str):
            raise TypeError(f"a chat's content is a str, not {type(content).__name__}")
        message = Message(role, content if user_variables is None else render(content, user_variables))
        thunk = await self.aact(message, format=format, model_options=model_options, await_result=True)
        return Message("assistant", thunk.value or "")

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
        component = ObjectTask("Answer the question about this object.", obj, f"Question: {query}")
        return await self.aact(component, format=format, model_options=model_options, await_result=await_result)

    async def atransform(
        self,
        obj: Any,
        transformation: str,
        *,
        format: type[BaseModel] | None = None,
        model_options: ModelOptions | None = None,
    ) -> ModelOutputThunk:
        """Have the model change an object of any type that `aquery` takes, and wait for the result."""
        lead = "Transform this object as described. Answer with the transformed object only."
        component = ObjectTask(lead, obj, f"Transformation: {transformation}")
        return await self.aact(component, format=format, model_options=model_options, await_result=True)

    async def avalidate(
        self,
        reqs: Requirements,
        *,
        output: ModelOutputThunk | CBlock | str | None = None,
        model_options: ModelOptions | None = None,
    ) -> list[ValidationResult]:
        """Check requirements on `output`, or on the context's last answer. The context does not change.

        Returns:
            A verdict for each requirement, in their order.

        Raises:
            BackendError: a judge could not be asked; that is not the same as a failed requirement.
        """
        self._warn_of_stale_context()
        required = reqify_all(reqs)
        options, context = self._call_options(model_options), self.ctx

        async def verdicts() -> list[ValidationResult]:
            if isinstance(output, ModelOutputThunk):
                await output.avalue()
            subject: Any = context
            if output is not None:
                subject = Answered(str(output)) if isinstance(output, str | CBlock) else context.add(output)
            try:
                client = await self._connection.client(options, self._event_loop)
                model = self._connection.model
                JUDGE.set(SessionJudge(client, model, options.options))
                # A validation has no thunk that could carry its usage.
                checked = await validate(subject, required, client, model, lambda _: None, options.options)
            except MelleaError as error:
                raise in_api_words(error, options) from None
            return [verdict for _, verdict in checked]

        return await asyncio.wrap_future(self._event_loop.submit(verdicts))

    @overload
    def instruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[True],
        strategy: SamplingStrategy = ...,
        **arguments: Unpack[InstructArguments],
    ) -> SamplingResult: ...

    @overload
    def instruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[False] = ...,
        strategy: SamplingStrategy | None = ...,
        **arguments: Unpack[InstructArguments],
    ) -> ModelOutputThunk: ...

    @_parameters_of(ainstruct)
    def instruct(self, description: str | CBlock, **arguments: Any) -> ModelOutputThunk | SamplingResult:
        """Give the model a task and wait for the answer; `ainstruct` describes arguments and errors."""
        return self.run(lambda: self.ainstruct(description, await_result=True, **arguments))

    @overload
    def act(
        self,
        action: Any,
        *,
        return_sampling_results: Literal[True],
        strategy: SamplingStrategy,
        **arguments: Unpack[ActArguments],
    ) -> SamplingResult: ...

    @overload
    def act(
        self,
        action: Any,
        *,
        return_sampling_results: Literal[False] = ...,
        strategy: SamplingStrategy | None = ...,
        **arguments: Unpack[ActArguments],
    ) -> ModelOutputThunk: ...

    @_parameters_of(aact)
    def act(self, action: Any, **arguments: Any) -> ModelOutputThunk | SamplingResult:
        """Send an `Instruction`, a `Message`, a thunk's answer, or plain text, and wait for the answer; see `aact`."""
        return self.run(lambda: self.aact(action, await_result=True, **arguments))

    chat = _sync_form(achat)
    query = _sync_form(aquery)
    transform = _sync_form(atransform)
    validate = _sync_form(avalidate)

    @property
    def ctx(self) -> Context:
        """What has been said so far; may be set. A call that still runs does not change the new context."""
        return self._conversation.context

    @ctx.setter
    def ctx(self, context: Context) -> None:
        self._conversation = Conversation(context)

    @property
    def backend(self) -> Backend | Connection:
        """The backend object that the session was made of, or how it reaches its model: for another session."""
        given = self._connection.backend
        return self._connection if given is None or isinstance(given, str) else given

    def gather(self) -> Gathered:
        """Wait for several calls at the end of a block, where the first failure is raised and cancels the others.

        Example::

            async with m.gather() as calls:
                for item in items:
                    await m.ainstruct("Summarise: {{text}}", user_variables={"text": item})
            print(calls.values)
        """
        return Gathered()

    def map(
        self,
        prompt: str,
        items: Iterable[str | Mapping[str, Any]],
        *,
        format: type[BaseModel] | None = None,
        concurrency: int | None = None,
        as_completed: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        model_options: ModelOptions | None = None,
    ) -> Iterator[AnsweredRow[Any]]:
        """Ask one prompt about many items with the batch engine, and yield each row when it is answered.

        Args:
            prompt: a Jinja2 template; `{{text}}` is an item that is a str, or the item's own keys.
            items: texts, or mappings with a `text`.
            format: a pydantic model that each answer must match; `row.answer` is then an instance, else the text.
            concurrency: maximum number of requests in flight; the session's by default.
            as_completed: yield rows as they complete, instead of in the order of the items.
            journal: a file in which the answers are kept: the same call again asks only what is missing there.
            progress: whether a line on stderr counts the rows; by default at a terminal and in a notebook.
            model_options: options of these calls.

        A row that could not be answered has an `error`. Leaving the loop early cancels the rest.

        Raises:
            TemplateError: the prompt names a variable that an item does not have.
            MelleaError: no row can be asked, such as when the server or the model is not there.
        """
        from mellea_cli.session.row_runs import MapSettings

        settings = MapSettings(format, concurrency, as_completed, journal, progress)
        return iter(self._row_map(prompt, items, settings, model_options))

    def amap(
        self,
        prompt: str,
        items: Iterable[str | Mapping[str, Any]],
        *,
        format: type[BaseModel] | None = None,
        concurrency: int | None = None,
        as_completed: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        model_options: ModelOptions | None = None,
    ) -> AsyncIterator[AnsweredRow[Any]]:
        """Do what `map` does, for `async for`."""
        from mellea_cli.session.row_runs import MapSettings

        settings = MapSettings(format, concurrency, as_completed, journal, progress)
        return aiter(self._row_map(prompt, items, settings, model_options))

    def _row_map(
        self,
        prompt: str,
        items: Iterable[str | Mapping[str, Any]],
        settings: MapSettings,
        model_options: ModelOptions | None,
    ) -> RowMap:
        from mellea_cli.session.row_runs import RowMap

        call = self._call_options(model_options)
        return RowMap(self._connection, self._event_loop, call, prompt, items, settings)

    def reset(self) -> None:
        """Start again with an empty context of the same kind."""
        self.ctx = self.ctx.reset_to_new()

    def clone(self) -> MelleaSession:
        """A session with the same connections and the same context so far; from then on each has its own.

        Both must be closed; the connections close with the last.
        """
        other = type(self).__new__(type(self))
        other._start(self._event_loop.share(), self._connection, self.ctx, self.model_options)  # noqa: SLF001 - its own class
        return other

    __copy__ = clone

    def last_prompt(self) -> list[dict[str, str]] | None:
        """What was sent for the context's last answer, as dicts of `role` and `content`; `None` before the first."""
        last = self.ctx.last_output()
        if last is None:
            return None
        return [{"role": message.role, "content": message.content} for message in last.messages]

    def start(
        self,
        component: Component | Message,
        requirements: Sequence[Requirement] = (),
        strategy: SamplingStrategy | None = None,
        output: OutputType | None = None,
        model_options: ModelOptions | None = None,
        *,
        shown: Callable[[Any], tuple[str, Any]] | None = None,
    ) -> ModelOutputThunk:
        """Start a call and return its thunk. All other methods, and generative functions, use this."""
        self._warn_of_stale_context()
        call = Call(component, self._call_options(model_options), output, strategy, tuple(requirements), shown)
        conversation = self._conversation
        work = partial(self._generate, call, conversation)
        live = call.options.stream and strategy is None
        # The next turn of an ordered conversation needs the answer, also when the caller has dropped its thunk.
        return Generation.start(self._event_loop, work, live=live, keep=conversation.ordered)

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function in the session's event loop and wait for its result; Ctrl-C cancels it."""
        return self._event_loop.run(function)

    def close(self) -> None:
        """Cancel running calls, close the connections and end the thread. May be called twice."""
        if not self._closed:
            self._closed = True
            self._event_loop.close()

    async def aclose(self) -> None:
        """Close the session without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __dir__(self) -> Iterable[str]:
        return public_names(super().__dir__(), _INTERNAL)

    def __repr__(self) -> str:
        return f"MelleaSession({self._connection!r}, {type(self.ctx).__name__})"

    async def _ask(
        self,
        component: Component | Message,
        requirements: Sequence[Requirement],
        strategy: SamplingStrategy | None,
        format: type[BaseModel] | None,
        model_options: ModelOptions | None,
        *,
        sampling: bool,
        wait: bool,
    ) -> ModelOutputThunk | SamplingResult:
        kind: Any = strategy
        if not isinstance(kind, SamplingStrategy | None):
            wanted = "a strategy such as RejectionSamplingStrategy(loop_budget=3), or None"
            raise TypeError(f"strategy is {wanted}, not {strategy!r}")
        if sampling and strategy is None:
            raise ValueError("return_sampling_results needs a strategy")
        thunk = self.start(component, requirements, strategy, output_type(format), model_options)
        if not sampling:
            return await thunk.resolve_or_cancel() if wait else gathered(thunk)
        await thunk.resolve_or_cancel(raising=False)
        if thunk.sampling is None:
            raise thunk.error or RuntimeError("the generation was cancelled")
        return thunk.sampling

    async def _generate(self, call: Call, conversation: Conversation, generation: Generation) -> None:
        async with conversation.turn():
            for needed in getattr(call.component, "pending", list)():
                await needed.avalue()
            try:
                client = await self._connection.client(call.options, self._event_loop)
                model, context = self._connection.model, conversation.context
                answer, error = await call.answer(client, model, context, generation.stream)
            except MelleaError as error:
                raise in_api_words(error, call.options) from None
            thunk = generation.complete(answer, None if error is None else in_api_words(error))
            if thunk is not None:
                conversation.context = conversation.context.add(call.component).add(thunk)

    def _call_options(self, model_options: ModelOptions | None) -> CallOptions:
        if model_options is None:
            return self._options
        return read_options(self.model_options, model_options)

    def _warn_of_stale_context(self) -> None:
        # The sync methods run in the session's own loop, and their callers wait for each answer.
        if self._conversation.ordered and not self._warned and not self._event_loop.inside():
            self._warned = True
            _LOG.warning(_STALE_CONTEXT)
