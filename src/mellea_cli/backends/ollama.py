"""Ollama, over its own protocol: it takes a JSON schema and a context window with each request."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.backends.base import chunks_of
from mellea_cli.backends.http import Event, WireClient
from mellea_cli.backends.http_errors import ErrorHints
from mellea_cli.backends.security import without_secrets
from mellea_cli.backends.wire_format import FixedPart, JsonLines, OncePer, a_count, a_text, an_object, valid_unicode
from mellea_cli.errors import BackendError, ModelMissing, RequestRefused, StreamBroken, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Usage

DEFAULT_PORT = 11434

_LOG = logging.getLogger(__name__)

_OURS = frozenset({"model", "messages", "stream", "format", "options"})
# Native options that stand beside `options`, not in it.
_TOP_LEVEL = frozenset({"keep_alive", "logprobs", "top_logprobs", "think"})

_ADVICE = ErrorHints(
    unreachable="start it with `ollama serve`, or use --backend local, which needs no server",
    not_authorized="sign in with `ollama signin`",
    endpoint_missing="is this Ollama? its address has no path, such as http://127.0.0.1:11434",
    model_missing="get it with `ollama pull {model}`, or add --pull",
)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull has come."""

    status: str
    """What Ollama does just now, in its words."""
    completed: int | None = None
    """Bytes of the current file that are there."""
    total: int | None = None
    """Bytes of the current file."""


class OllamaBackend:
    """Talks to one Ollama.

    Args:
        base_url: its address; `None` takes `OLLAMA_HOST`, else http://127.0.0.1:11434. Either may leave out the scheme
            and the port, as Ollama's own commands allow.
        max_connections: at most this many connections; `None` sets no limit, the engine has its own.
        connect_timeout_s: seconds that opening a connection may take.

    Raises:
        UsageError: the address cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
    ) -> None:
        self.together = False
        """Whether texts that arrive together are one chunk; otherwise each of the wire's is one."""
        self._wire = WireClient(
            host_url(base_url or os.environ.get("OLLAMA_HOST", "")),
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            advice=_ADVICE,
        )
        self._unthinking: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name under which the registry lists it."""
        return "ollama"

    @property
    def slots(self) -> int | None:
        """`None`: Ollama does not tell how many requests it works on at once."""
        return None

    @property
    def base_url(self) -> str:
        """The address in full."""
        return self._wire.base_url

    async def prepare(self, model: str) -> None:
        """Check that the model is there, by its exact tag: `x` means `x:latest`.

        Raises:
            ModelMissing: it is not; the hint is the command that gets it.
            BackendError: Ollama cannot be asked.
        """
        if not await self.has(model):
            hint = _ADVICE.hint(ModelMissing, model)
            raise ModelMissing(f"Ollama at {self.base_url} does not have the model {full_name(model)}", hint=hint)

    async def has(self, model: str) -> bool:
        """Tell whether Ollama has exactly this model. Raises `BackendError` when it cannot be asked."""
        wanted = full_name(model).casefold()
        return any(full_name(name).casefold() == wanted for name in await self.models())

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Send one request and yield its chunks; `mellea_cli.backends.base.Backend.stream` has the contract."""
        body = _body(request)
        if request.model in self._unthinking:
            body.pop("think", None)
        while True:
            answer = _Answer(self.base_url)
            try:
                async with aclosing(self._wire.stream("/api/chat", body, JsonLines)) as batches:
                    async for events in batches:
                        for chunk in chunks_of(answer, events, together=self.together):
                            yield chunk
            except BackendError as error:
                # Behind its `done` nothing of an answer can be lost.
                if not (isinstance(error, StreamBroken) and answer.finished):
                    error.partial = answer.text
                    if not (isinstance(error, RequestRefused) and "think" in body and "think" in error.message):
                        raise
                    _LOG.info("%s does not take `think`: going on without it", request.model)
                    self._unthinking |= {request.model}
                    del body["think"]
                    continue
            answer.end()
            return

    async def models(self) -> list[str]:
        """Names of the models that are there, with their tags. Raises `BackendError` when Ollama cannot be asked."""
        listed = await self._wire.get_json("/api/tags")
        entries = listed.get("models") or [] if isinstance(listed, dict) else []
        return [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Have Ollama fetch a model, and yield how far it is.

        Raises:
            ModelMissing: its library has no such model.
            BackendError: the pull failed.
        """
        last = ""
        try:
            async with aclosing(self._wire.stream("/api/pull", {"model": model, "stream": True}, JsonLines)) as batches:
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
        """Close every connection."""
        await self._wire.aclose()


class _Answer:
    """One answer as its events arrive."""

    __slots__ = ("_parts", "_url", "finished")

    def __init__(self, url: str) -> None:
        self._url = url
        self._parts: list[str] = []
        self.finished = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def plain(self, event: Event) -> str | None:
        """Take an event of the form that nearly all have, and return its text; `None` for one that is to be `read`."""
        message = event.get("message")
        if self.finished or event.get("done") or type(message) is not dict or message.get("thinking"):
            return None
        text = message.get("content")
        if type(text) is not str or not text:
            return None
        text = valid_unicode(text)
        self._parts.append(text)
        return text

    def read(self, event: Event) -> Chunk | None:
        """Turn an event into a chunk, or into nothing when it says nothing new."""
        if self.finished:
            return None
        message = an_object(event.get("message"))
        text, thinking = a_text(message.get("content")), a_text(message.get("thinking"))
        if text:
            self._parts.append(text)
        if not event.get("done"):
            return Chunk(text, thinking) if text or thinking else None
        self.finished = True
        usage = Usage(a_count(event.get("prompt_eval_count")), a_count(event.get("eval_count")))
        return Chunk(text, thinking, a_text(event.get("done_reason")) or "stop", usage)

    def end(self) -> None:
        """Raise `StreamBroken` when the answer did not say that it was done."""
        if not self.finished:
            raise StreamBroken(f"the answer from {self._url} ended without its `done`", partial=self.text)


_FORMATS = OncePer(FixedPart)


def _body(request: GenerateRequest) -> dict[str, Any]:
    chosen = request.options
    if wrong := _OURS & chosen.native.keys():
        raise UsageError(f"the option {min(wrong)!r} cannot be set here: it is part of every request")
    options: dict[str, Any] = {
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "num_predict": chosen.max_tokens,
        "num_ctx": chosen.context_window,
        "seed": chosen.seed,
        "stop": list(chosen.stop) or None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    beside: Mapping[str, Any] = {name: value for name, value in chosen.native.items() if name in _TOP_LEVEL}
    options.update({name: value for name, value in chosen.native.items() if name not in _TOP_LEVEL})
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "stream": True,
        "options": options,
    }
    if chosen.thinking is not None:
        body["think"] = chosen.thinking
    if request.output_schema is not None:
        body["format"] = _FORMATS(request.output_schema)
    return {**body, **beside}


def full_name(model: str) -> str:
    """Return a model's name with its tag: `x` means `x:latest`, and a registry's port is no tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def host_url(host: str) -> str:
    """Read an address as Ollama's own commands read `OLLAMA_HOST`.

    Without a scheme it is http, on port 11434 unless it names one; with a scheme the port is the scheme's own. An
    address that means "every interface" is one to listen on, so that loopback is asked instead.

    Raises:
        UsageError: it is not an address.
    """
    text = host.strip().strip("\"'").strip()
    scheme, mark, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port or (None if mark else DEFAULT_PORT)
    except ValueError as exc:
        raise UsageError(f"{without_secrets(text)} is not an address of Ollama", hint="write HOST:PORT") from exc
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - replaced, not listened on
    name = f"[{name}]" if ":" in name else name
    return urlunsplit((parts.scheme, f"{name}:{port}" if port else name, parts.path.rstrip("/"), "", ""))
