"""Ollama's own protocol: it takes a JSON schema and a context window with each request."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import DONE, Event, WireClient
from mellea_cli.backends.http_errors import Hints
from mellea_cli.backends.model_ids import IBM_GRANITE_4_1_3B, ModelIdentifier
from mellea_cli.backends.openai import schema_in_prompt
from mellea_cli.backends.security import API_KEY, NetworkPolicy, Secrets, redact_url
from mellea_cli.backends.wire_format import (
    CachedJson,
    IdentityCache,
    as_object,
    as_text,
    as_token_count,
    cached_message,
    prompt_was_cut,
    read_tokens,
)
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    ServerFault,
    StreamBroken,
    UsageError,
    name_some,
    nearest_first,
)
from mellea_cli.messages import Chunk, GenerateRequest, Usage

DEFAULT_PORT = 11434
OLLAMA_KEY = "OLLAMA_API_KEY"  # The variable with the key of an Ollama behind a proxy, or of Ollama's cloud

_LOG = logging.getLogger(__name__)

_BAD_REQUEST = 400

_HINTS: Hints = {
    BackendUnavailable: "start it with `ollama serve`, or use --backend local, which needs no server",
    NotAuthorized: f"sign in with `ollama signin`, or set {OLLAMA_KEY} or --key-file FILE to its key",
    EndpointMissing: "is this Ollama? its address has no path, such as http://127.0.0.1:11434",
    ModelMissing: "get it with `ollama pull {model}`, or add --pull",
}


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Progress of a model pull."""

    status: str  # Ollama's current step, in its words
    completed: int | None = None  # Bytes of the current file that have arrived
    total: int | None = None  # Bytes of the current file


class OllamaBackend:
    """Client of one Ollama.

    Args:
        base_url: `None` for `OLLAMA_HOST`, else http://127.0.0.1:11434. Either may omit the scheme and the port, as
            Ollama's own commands allow.
        api_key: sent as a bearer token; empty for none. Only an Ollama behind a proxy and Ollama's cloud ask for one.
        max_connections, connect_timeout_s, merge_chunks, network: see `BackendSettings`.

    Raises:
        UsageError: the address cannot be used.
    """

    name = "ollama"
    slots = None

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str = "",
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        merge_chunks: bool = False,
        network: NetworkPolicy | None = None,
    ) -> None:
        self._wire = WireClient(
            host_url(base_url or os.environ.get("OLLAMA_HOST", "")),
            api_key=api_key,
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            hints=_HINTS,
            network=network,
        )
        self._merge_chunks = merge_chunks
        # Models that have refused the option `think`, or obey `format` only while they think
        self._without_think: frozenset[str] = frozenset()
        self._without_format: frozenset[str] = frozenset()  # Models, or an Ollama before 0.5, that take no schema

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Self:
        secrets = settings.secrets or Secrets.from_environ(os.environ)
        # The key of an OpenAI-compatible server is none of Ollama's business, unless a file or a pool names it.
        named = settings.key_variable if settings.key_variable != API_KEY or secrets.key_file else OLLAMA_KEY
        return cls(
            base_url=settings.base_url,
            api_key=secrets.key(named) if settings.api_key is None else settings.api_key,
            max_connections=settings.concurrency,
            connect_timeout_s=settings.connect_timeout_s,
            merge_chunks=settings.merge_chunks,
            network=settings.network,
        )

    @property
    def base_url(self) -> str:
        return self._wire.base_url

    async def prepare(self, model: str) -> None:
        """Check that the model is there, by its exact tag: `x` means `x:latest`."""
        names = await self.models()
        if not _is_among(model, names):
            message = f"Ollama at {self.base_url} does not have the model {full_name(model)}"
            raise ModelMissing(message, hint=_missing_hint(model, names))

    async def has(self, model: str) -> bool:
        """Whether Ollama has exactly this model. Raises `BackendError` when it cannot be asked."""
        return _is_among(model, await self.models())

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        body = _chat_body(request)
        if request.model in self._without_think:
            body.pop("think", None)
        if request.model in self._without_format and "format" in body:
            self._to_prompt(body)
        while True:
            answer = _Answer(merge_chunks=self._merge_chunks)
            try:
                async with aclosing(self._wire.stream("/api/chat", body)) as batches:
                    async for events in batches:
                        for chunk in answer.read(events):
                            yield chunk
            except BackendError as error:
                # After `done` nothing of an answer can be lost.
                if not (isinstance(error, StreamBroken) and answer.finished):
                    error.partial = answer.text or error.partial
                    if isinstance(error, ModelMissing):
                        with suppress(BackendError):
                            error.hint = _missing_hint(request.model, await self.models())
                    refused = next((name for name in ("think", "format") if name in body and name in error.message), "")
                    if error.status != _BAD_REQUEST or not refused:
                        raise
                    _LOG.info("%s does not take `%s`: going on without it", request.model, refused)
                    if refused == "format":
                        self._without_format |= {request.model}
                        self._to_prompt(body)
                    else:
                        self._without_think |= {request.model}
                        del body[refused]
                    continue
            self._check_end(answer, request, body)
            return

    def _to_prompt(self, body: dict[str, Any]) -> None:
        body["messages"] = schema_in_prompt(body["messages"], body.pop("format"))

    def _check_end(self, answer: _Answer, request: GenerateRequest, body: Mapping[str, Any]) -> None:
        """Raise `BackendError` for an answer that is not whole, or to a prompt that was cut."""
        text = answer.text
        if not answer.finished:
            raise StreamBroken(f"the answer from {self._wire.base_url} ended without its `done`", partial=text)
        if "format" in body and body.get("think") is False and text.strip() and not any(mark in text for mark in "{["):
            # The parsers of some models switch the format on at the end of the thoughts: without them it has no effect.
            _LOG.info("%s ignores `format` unless it thinks: going on without `think`", request.model)
            self._without_think |= {request.model}
        if prompt_was_cut(request.messages, answer.prompt_tokens):
            raise ContextTooLong(
                f"{self._wire.base_url} has cut the prompt to {answer.prompt_tokens} tokens: it is too long for the"
                " context window",
                partial=text,
                hint="a newer Ollama refuses such a prompt; OLLAMA_CONTEXT_LENGTH of its server may limit the window",
            )

    async def models(self) -> list[str]:
        listed = as_object(await self._wire.get_json("/api/tags")).get("models") or []
        named = [entry.get("name") or entry.get("model") for entry in listed if isinstance(entry, dict)]
        return [str(name) for name in named if name]

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Let Ollama fetch a model, and yield its progress; raises `ModelMissing` when its library lacks the model."""
        last = ""
        body = {"model": model, "stream": True}
        try:
            async with aclosing(self._wire.stream("/api/pull", body)) as batches:
                async for events in batches:
                    for event in events:
                        last = str(event.get("status", ""))
                        yield PullProgress(last, event.get("completed"), event.get("total"))
        except BackendError as error:
            if "file does not exist" not in error.message:
                raise
            raise ModelMissing(
                f"Ollama's library has no model {model}", hint="see https://ollama.com/library"
            ) from error
        if last != "success":
            raise StreamBroken(f"Ollama stopped pulling {model} before it was done", hint="run the same command again")

    async def aclose(self) -> None:
        await self._wire.aclose()


class OllamaModelBackend(OllamaBackend):
    """An Ollama and the model that a session asks there: `MelleaSession(OllamaModelBackend("granite4.1:3b"))`.

    Args:
        model_id: the model's name.
        base_url, api_key: see `OllamaBackend`.
        model_options: options of every call, by `ModelOption` or by Ollama's own names.
        timeout: maximum time for one request in seconds; `None` for no limit.
    """

    def __init__(
        self,
        model_id: str | ModelIdentifier = IBM_GRANITE_4_1_3B,
        *,
        base_url: str | None = None,
        api_key: str = "",
        model_options: Mapping[str, Any] | None = None,
        timeout: float | None = 600.0,
    ) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.model_id, self.model_options, self.timeout = model_id, dict(model_options or {}), timeout
        self._opened_with = {"base_url": base_url, "api_key": api_key}

    def reopened(self, concurrency: int) -> OllamaBackend:
        """A backend of the same server for one session, which has connections of its own."""
        # mypy takes every keyword for a parameter's type; they are those of `__init__`.
        return OllamaBackend(**self._opened_with, max_connections=concurrency)  # type: ignore[arg-type]


class _Answer:
    """State of one answer while its events arrive."""

    __slots__ = ("_call", "_merge_chunks", "_parts", "finished", "prompt_tokens")

    def __init__(self, *, merge_chunks: bool) -> None:
        self._merge_chunks = merge_chunks
        self._parts: list[str] = []
        self._call = ""
        self.finished = False
        self.prompt_tokens = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def read(self, events: Sequence[Event]) -> list[Chunk]:
        """Turn events that have arrived together into chunks; an event without news gives none."""
        chunks: list[Chunk] = []
        texts: list[str] = []
        for event in events:
            if self.finished:
                break
            if event is DONE:
                break
            message = as_object(event.get("message"))
            text, done = as_text(message.get("content")), event.get("done")
            thinking = as_text(message["thinking"]) if "thinking" in message else ""
            if not text and "tool_calls" in message:
                self._call = self._call or _call_arguments(message)
            if done and self._call and not self.text.strip():
                text = self._call  # As of a proxy that imitates the schema by a tool
            if text:
                self._parts.append(text)
            tokens = read_tokens(event["logprobs"]) if "logprobs" in event else ()
            if self._merge_chunks and text and not thinking and not done and not tokens:
                texts.append(text)
                continue
            if texts:
                chunks.append(Chunk("".join(texts)))
                texts.clear()
            if done:
                reason = as_text(event.get("done_reason")) or "stop"
                if reason in ("load", "unload"):
                    raise ServerFault("Ollama has loaded the model and answered nothing")
                self.finished = True
                self.prompt_tokens = as_token_count(event.get("prompt_eval_count"))
                usage = Usage(self.prompt_tokens, as_token_count(event.get("eval_count")))
                chunks.append(Chunk(text, thinking, reason, usage, tokens))
            elif text or thinking or tokens:
                chunks.append(Chunk(text, thinking, tokens=tokens))
        if texts:
            chunks.append(Chunk("".join(texts)))
        return chunks


def _call_arguments(message: Event) -> str:
    calls = message["tool_calls"]
    call = as_object(calls[0]) if isinstance(calls, list) and calls else {}
    given = as_object(call.get("function")).get("arguments")
    return given if isinstance(given, str) else json.dumps(given) if given else ""


_REQUEST_FIELDS = frozenset({"model", "messages", "stream", "format", "options"})
# Native options that belong next to `options`, not into it.
_TOP_LEVEL = frozenset({"keep_alive", "logprobs", "top_logprobs", "think", "truncate", "shift"})
_format = IdentityCache(CachedJson)


def _chat_body(request: GenerateRequest) -> dict[str, Any]:
    chosen = request.options
    if wrong := _REQUEST_FIELDS & chosen.native.keys():
        raise UsageError(f"the option {min(wrong)!r} cannot be set here: it is part of every request")
    parameters: dict[str, Any] = {
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "num_predict": chosen.max_tokens,
        "num_ctx": chosen.context_window,
        "seed": chosen.seed,
        "stop": list(chosen.stop) or None,
    }
    options = {name: value for name, value in parameters.items() if value is not None}
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [cached_message(message.role, message.content) for message in request.messages],
        "stream": True,
        "options": options,
    }
    if chosen.context_window is not None:
        # Without it Ollama cuts a prompt that is too long, and leaves out the instructions. Older ones ignore it.
        body["truncate"] = False
    if request.top_logprobs:
        body.update(logprobs=True, top_logprobs=request.top_logprobs)
    if chosen.thinking is not None:
        body["think"] = chosen.thinking
    if request.output_schema is not None:
        body["format"] = _format(request.output_schema)
    for name, value in chosen.native.items():
        (body if name in _TOP_LEVEL else options)[name] = value
    return body


def full_name(model: str) -> str:
    """Return a model's name with its tag and without Ollama's own library: `library/x` means `x:latest`."""
    model = model.removeprefix("registry.ollama.ai/").removeprefix("library/")
    # A registry's port is no tag.
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _is_among(model: str, names: Sequence[str]) -> bool:
    return full_name(model).casefold() in {full_name(name).casefold() for name in names}


def _missing_hint(model: str, names: Sequence[str]) -> str:
    hint = _HINTS[ModelMissing].replace("{model}", model)
    others = [name for name in nearest_first(model, names) if full_name(name) != full_name(model)]
    return f"{hint}, or choose one that is there with -m: {name_some(others)}" if others else hint


def host_url(host: str) -> str:
    """Return the URL for an address in the form of `OLLAMA_HOST`, as Ollama's own commands read it.

    Without a scheme it is http, on port 11434 unless it names one; with a scheme the port is the scheme's own. An
    address that means "every interface" is one to listen on: it becomes loopback.

    Raises:
        UsageError: it is not an address.
    """
    text = host.strip().strip("\"'").strip()
    scheme, mark, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port or (None if mark else DEFAULT_PORT)
    except ValueError as exc:
        raise UsageError(f"{redact_url(text)} is not an address of Ollama", hint="write HOST:PORT") from exc
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - replaced, not listened on
    name = f"[{name}]" if ":" in name else name
    return urlunsplit((parts.scheme, f"{name}:{port}" if port else name, parts.path.rstrip("/"), "", ""))
