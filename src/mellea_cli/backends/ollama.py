"""Ollama's own protocol: it takes a JSON schema and a context window with each request."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import Event, WireClient
from mellea_cli.backends.http_errors import Hints
from mellea_cli.backends.security import NetworkPolicy, redact_url
from mellea_cli.backends.wire_format import (
    CachedJson,
    IdentityCache,
    NdjsonDecoder,
    as_object,
    as_text,
    as_token_count,
    cached_message,
)
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    RequestRefused,
    StreamBroken,
    UsageError,
)
from mellea_cli.messages import Chunk, GenerateRequest, Usage

DEFAULT_PORT = 11434

_LOG = logging.getLogger(__name__)

_HINTS: Hints = {
    BackendUnavailable: "start it with `ollama serve`, or use --backend local, which needs no server",
    NotAuthorized: "sign in with `ollama signin`",
    EndpointMissing: "is this Ollama? its address has no path, such as http://127.0.0.1:11434",
    ModelMissing: "get it with `ollama pull {model}`, or add --pull",
}


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Progress of a model pull."""

    status: str
    """Ollama's current step, in its words."""
    completed: int | None = None
    """Bytes of the current file that have arrived."""
    total: int | None = None
    """Bytes of the current file."""


class OllamaBackend:
    """Client of one Ollama.

    Args:
        base_url: `None` for `OLLAMA_HOST`, else http://127.0.0.1:11434. Either may omit the scheme and the port, as
            Ollama's own commands allow.
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
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        merge_chunks: bool = False,
        network: NetworkPolicy | None = None,
    ) -> None:
        self._wire = WireClient(
            host_url(base_url or os.environ.get("OLLAMA_HOST", "")),
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            hints=_HINTS,
            network=network,
        )
        self._merge_chunks = merge_chunks
        self._without_think: frozenset[str] = frozenset()
        """Models that have refused the option `think`."""

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Self:
        return cls(
            base_url=settings.base_url,
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
        if not await self.has(model):
            hint = _HINTS[ModelMissing].replace("{model}", model)
            raise ModelMissing(f"Ollama at {self.base_url} does not have the model {full_name(model)}", hint=hint)

    async def has(self, model: str) -> bool:
        """Whether Ollama has exactly this model. Raises `BackendError` when it cannot be asked."""
        wanted = full_name(model).casefold()
        return any(full_name(name).casefold() == wanted for name in await self.models())

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        body = _chat_body(request)
        if request.model in self._without_think:
            body.pop("think", None)
        while True:
            answer = _Answer(merge_chunks=self._merge_chunks)
            try:
                async with aclosing(self._wire.stream("/api/chat", body, NdjsonDecoder)) as batches:
                    async for events in batches:
                        for chunk in answer.read(events):
                            yield chunk
            except BackendError as error:
                # After `done` nothing of an answer can be lost.
                if not (isinstance(error, StreamBroken) and answer.finished):
                    error.partial = answer.text
                    if not (isinstance(error, RequestRefused) and "think" in body and "think" in error.message):
                        raise
                    _LOG.info("%s does not take `think`: going on without it", request.model)
                    self._without_think |= {request.model}
                    del body["think"]
                    continue
            if not answer.finished:
                message = f"the answer from {self._wire.base_url} ended without its `done`"
                raise StreamBroken(message, partial=answer.text)
            return

    async def models(self) -> list[str]:
        listed = as_object(await self._wire.get_json("/api/tags")).get("models") or []
        return [str(entry["name"]) for entry in listed if isinstance(entry, dict) and "name" in entry]

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Let Ollama fetch a model, and yield its progress; raises `ModelMissing` when its library lacks the model."""
        last = ""
        body = {"model": model, "stream": True}
        try:
            async with aclosing(self._wire.stream("/api/pull", body, NdjsonDecoder)) as batches:
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


class _Answer:
    """State of one answer while its events arrive."""

    __slots__ = ("_merge_chunks", "_parts", "finished")

    def __init__(self, *, merge_chunks: bool) -> None:
        self._merge_chunks = merge_chunks
        self._parts: list[str] = []
        self.finished = False

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
            message = as_object(event.get("message"))
            text, done = as_text(message.get("content")), event.get("done")
            thinking = as_text(message["thinking"]) if "thinking" in message else ""
            if text:
                self._parts.append(text)
            if self._merge_chunks and text and not thinking and not done:
                texts.append(text)
                continue
            if texts:
                chunks.append(Chunk("".join(texts)))
                texts.clear()
            if done:
                self.finished = True
                reason = as_text(event.get("done_reason")) or "stop"
                usage = Usage(as_token_count(event.get("prompt_eval_count")), as_token_count(event.get("eval_count")))
                chunks.append(Chunk(text, thinking, reason, usage))
            elif text or thinking:
                chunks.append(Chunk(text, thinking))
        if texts:
            chunks.append(Chunk("".join(texts)))
        return chunks


_REQUEST_FIELDS = frozenset({"model", "messages", "stream", "format", "options"})
# Native options that belong next to `options`, not into it.
_TOP_LEVEL = frozenset({"keep_alive", "logprobs", "top_logprobs", "think"})
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
    if chosen.thinking is not None:
        body["think"] = chosen.thinking
    if request.output_schema is not None:
        body["format"] = _format(request.output_schema)
    for name, value in chosen.native.items():
        (body if name in _TOP_LEVEL else options)[name] = value
    return body


def full_name(model: str) -> str:
    """Return a model's name with its tag: `x` means `x:latest`, and a registry's port is no tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


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
