"""Calls: the options of a call, its request, its answer, and the order of the calls in a conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from mellea_cli.backends.model_options import ModelOption
from mellea_cli.engine.attempts import Answer, Question, ask, validate
from mellea_cli.engine.client import ModelClient
from mellea_cli.errors import ContentFiltered, UsageError
from mellea_cli.messages import Completion, GenerateRequest, Message, Options
from mellea_cli.pipelines.pipeline import OutputType
from mellea_cli.requirements.requirement import JUDGE, Requirement, ValidationResult
from mellea_cli.session.thunk import ModelOutputThunk, Stream
from mellea_cli.stdlib.context import Context, SimpleContext, text_of
from mellea_cli.stdlib.sampling import SamplingStrategy, best_answer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The model options of one call."""

    options: Options = Options()  # What is sent to the server
    system: str = ""  # The system message; empty for none
    stream: bool = False  # Whether `astream()` passes on each piece as it arrives
    stream_timeout_s: float | None = None  # Until the first and between any two pieces; counts only when it was set
    timeout_set: bool = False  # Whether the caller set the timeout, `None` included


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model."""

    component: Any  # The message: a `Component` or a `Message`
    options: CallOptions
    output: OutputType | None = None  # The answer's type; `None` for plain text
    strategy: SamplingStrategy | None = None  # How often to ask; `None` asks once and checks nothing but the type
    requirements: tuple[Requirement, ...] = ()  # What must hold for the answer, with a strategy
    shown: Callable[[Any], tuple[str, Any]] | None = None  # The answer's text and value as validators see them

    async def answer(
        self, client: ModelClient, model: str, context: Context, stream: Stream
    ) -> tuple[ModelOutputThunk, Exception | None]:
        """Ask the model; returns the answer, and why it cannot be used."""
        system = [Message("system", self.options.system)] if self.options.system else []
        messages = (*system, *map(_as_message, context.view_for_generation()), _as_message(self.component))
        request = GenerateRequest(model, messages, self.options.options, self.output.schema if self.output else None)
        if self.strategy is None:
            return await self._ask_once(client, request, stream), None
        asked = await self._sample(client, self.strategy, request, context, stream)
        return best_answer(asked, self.strategy, model)

    async def _ask_once(self, client: ModelClient, request: GenerateRequest, stream: Stream) -> ModelOutputThunk:
        """Ask once, and accept any answer of the right type."""
        completion = await client.send(request, stream)
        if completion.finish_reason == "content_filter":
            raise ContentFiltered("the server's content filter stopped the answer", partial=completion.text)
        parsed = self._parse(completion.text)
        if completion.finish_reason == "length":
            tokens = completion.usage.completion_tokens
            _LOG.warning("the answer was cut off by the length limit after %d tokens", tokens)
        elif not completion.text.strip():
            _LOG.warning("the answer was empty%s", "; there was only reasoning" if completion.thinking else "")
        return ModelOutputThunk.of(completion, model=request.model, messages=request.messages, parsed=parsed)

    async def _sample(
        self,
        client: ModelClient,
        strategy: SamplingStrategy,
        request: GenerateRequest,
        context: Context,
        stream: Stream,
    ) -> Answer[Any]:
        """Ask until an answer is good or the strategy's budget is used up."""

        def in_context(_: GenerateRequest, completion: Completion, value: Any) -> Any:
            text, value = (completion.text, value) if self.shown is None else self.shown(value)
            answer = ModelOutputThunk(text, parsed_repr=value)
            answer.messages = request.messages
            return context.add(self.component).add(answer)

        question: Question[Any] = Question(
            request,
            self._parse,
            requirements=self.requirements if strategy.requirements is None else tuple(strategy.requirements),
            budget=strategy.loop_budget,
            repair=strategy.repair(),
            subject=in_context,
            repair_unparsed=strategy.repair_unparsed(),
        )
        JUDGE.set(SessionJudge(client, request.model, request.options))
        return await ask(question, client, stream)

    def _parse(self, text: str) -> Any:
        return text if self.output is None else self.output.parse(text)


@dataclass(frozen=True, slots=True)
class SessionJudge:
    """The session's model as the backend of `Requirement.validate`."""

    client: ModelClient
    model: str
    options: Options

    async def judge(self, requirement: Requirement, context: Any) -> ValidationResult:
        """Ask the model whether the requirement holds for the context's last answer."""
        checked = await validate(context, [requirement], self.client, self.model, lambda _: None, self.options)
        return checked[0][1]


def _as_message(data: Any) -> Message:
    if isinstance(data, Message):
        return data
    return Message("assistant" if isinstance(data, ModelOutputThunk) else "user", text_of(data))


def output_type(format: Any) -> OutputType | None:  # noqa: A002 - the argument's name in the API
    """The type of an answer for the argument `format`.

    Raises:
        TypeError: it cannot be the type of an answer.
    """
    if format is None:
        return None
    if not isinstance(format, type) and get_origin(format) is None:
        raise TypeError(f"format is a pydantic model class, not {format!r}")
    return _output_type(format)


# The schema and the validator of a type are built once.
_output_type = lru_cache(maxsize=128)(OutputType)


_TURN: ContextVar[object] = ContextVar("turn", default=None)


class Conversation:
    """A context that grows, and the order of the calls on it.

    On a `SimpleContext` calls run concurrently. On any other context they take turns, in the order in which they were
    made, so that each one sees the answer before it and none is lost.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ordered = not isinstance(context, SimpleContext)
        self._lock = asyncio.Lock()
        self._turn: object = None

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait until all earlier calls have ended."""
        # A validator that calls its own session is inside a turn, and cannot wait for that turn to end.
        nested = self._turn is not None and _TURN.get() is self._turn
        return nullcontext() if nested or not self.ordered else self._next_turn()

    @asynccontextmanager
    async def _next_turn(self) -> AsyncIterator[None]:
        async with self._lock:
            self._turn = object()
            _TURN.set(self._turn)
            try:
                yield
            finally:
                self._turn = None


# The names of each option. Of several names in one dict the first one here counts: ours before a server's.
_OPTION_NAMES = {
    "temperature": (ModelOption.TEMPERATURE,),
    "top_p": ("top_p",),
    "max_tokens": (ModelOption.MAX_NEW_TOKENS, "num_predict", "max_tokens", "max_completion_tokens"),
    "context_window": (ModelOption.CONTEXT_WINDOW, "num_ctx"),
    "seed": (ModelOption.SEED, "seed"),
    "stop": (ModelOption.STOP_SEQUENCES, "stop"),
    "thinking": (ModelOption.THINKING, "think"),
    "system": (ModelOption.SYSTEM_PROMPT, "system"),
    "stream": (ModelOption.STREAM, "stream"),
    "stream_timeout": (ModelOption.STREAM_TIMEOUT,),
}
_NOT_OFFERED = {ModelOption.TOOLS, ModelOption.TOOL_CHOICE, ModelOption.LOGITS, ModelOption.RAW_LOGITS, "tools"}


@cache
def _option_types() -> Mapping[str, TypeAdapter[Any]]:
    # pydantic is loaded only by a session that has options.
    from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, TypeAdapter

    texts = Annotated[
        list[str] | None, Field(strict=False), BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop)
    ]
    types: dict[str, Any] = {
        **dict.fromkeys(("temperature", "top_p", "stream_timeout"), float | None),
        **dict.fromkeys(("max_tokens", "context_window"), PositiveInt | None),
        "seed": int | None,
        "stop": texts,
        "thinking": bool | str | None,
        "system": str | None,
        "stream": bool | None,
    }
    return {field: TypeAdapter(kind, config=ConfigDict(strict=True)) for field, kind in types.items()}


def read_options(session: Mapping[str, Any], call: Mapping[str, Any]) -> CallOptions:
    """Merge a session's options with a call's and check them; neither mapping is changed.

    Each is brought to one set of names first, so a call's `num_predict` overrides a session's `MAX_NEW_TOKENS`.

    Raises:
        UsageError: an option is not offered, or its value has the wrong type.
    """
    session_fields, session_native = _read(session)
    call_fields, call_native = _read(call)
    fields = session_fields | call_fields
    native = {name: value for name, value in (session_native | call_native).items() if value is not None}
    timeout_set = "stream_timeout" in fields
    timeout_s, system, stream = (fields.pop(name, None) for name in ("stream_timeout", "system", "stream"))
    fields["stop"] = tuple(fields.get("stop") or ())
    return CallOptions(Options(**fields, native=native), system or "", bool(stream), timeout_s, timeout_set)


def _read(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that are set, and the options that only the server knows."""
    if not isinstance(given, Mapping):
        raise TypeError(f"model_options is a dict from ModelOption to values, not {type(given).__name__}")
    options = dict(given)
    extra = options.pop("extra_body", None)
    if not isinstance(extra, Mapping | None):
        raise UsageError(f"the model option 'extra_body' must be a dict, not {type(extra).__name__}")
    options |= extra or {}
    fields = {}
    for field, names in _OPTION_NAMES.items():
        values = [(name, options.pop(name)) for name in names if name in options]
        if values:
            fields[field] = _checked(field, *values[0])
    return fields, {name: value for name, value in options.items() if _is_native(name, value)}


def _checked(field: str, name: str, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return _option_types()[field].validate_python(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        place = "".join(f"[{index}]" for index in problems[0]["loc"] if isinstance(index, int))
        wanted = " or ".join(dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in problems))
        got = problems[0]["input"]
        raise UsageError(f"the model option {_shown(name)}{place} must be {wanted}, not {got!r}") from None


def _is_native(name: Any, value: Any) -> bool:
    if not isinstance(name, str):
        raise UsageError(f"a model option's name must be a str, not {name!r}")
    if name in _NOT_OFFERED:
        if value:
            raise UsageError(f"the model option {_shown(name)} is not offered: sessions have neither tools nor logits")
        return False
    if name == "model":
        raise UsageError("the model cannot be set as an option", hint="name it in start_session(model_id=...)")
    if name.startswith("@@@"):
        raise UsageError(f"there is no model option {name!r}", hint="the names are those of ModelOption")
    return True


def _shown(name: str) -> str:
    """The name as the caller wrote it."""
    names = {value: f"ModelOption.{key}" for key, value in vars(ModelOption).items() if key.isupper()}
    return names[name] if name.startswith("@@@") else repr(name)
