"""A session's connection to its model: chosen and opened by the first request, then kept."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import Deadlines, NothingInTime
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import BackendError, MelleaError, ModelFileError, StreamBroken, UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.model_ids import ModelIdentifier
    from mellea_cli.session.calls import CallOptions
    from mellea_cli.session.event_loop import EventLoopThread

_LOG = logging.getLogger(__name__)

_CONCURRENCY = 16
# The embedded model gains nothing beyond four slots on a small machine, and each slot takes memory.
_LOCAL_CONCURRENCY = 4


@dataclass(slots=True, repr=False)
class Connection:
    """A session's model, which the first call chooses and opens: what `session.backend` and `start_backend` give.

    The arguments are those of `mellea_cli.session.session.start_session`. A backend that cannot be used fails the call
    that needs it, and the next call tries again.

    Raises:
        UsageError: there is no such backend, or a model must be named.
        TypeError: an argument has the wrong type.
        ValueError: a number is out of its range.
    """

    backend: str | Backend | None
    model_id: str | ModelIdentifier | None = None
    base_url: str | None = None
    api_key: str | None = None
    concurrency: int | None = None
    max_retries: int = 5
    retry_for_s: float = 120.0
    timeout_s: float | None = 600.0
    fetch: bool = True
    model_options: Mapping[str, Any] | None = None
    model: str = field(default="", init=False)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _opened: Backend | None = field(default=None, init=False)
    _client: ModelClient | None = field(default=None, init=False)
    _why: str = field(default="", init=False)  # Why the embedded model was chosen

    def __post_init__(self) -> None:
        from mellea_cli.backends.registry import BACKENDS

        name: Any = self.backend
        if isinstance(name, str) and name not in {*BACKENDS, "auto"}:
            raise UsageError(f"there is no backend {name!r}", hint=f"choose one of auto, {', '.join(BACKENDS)}")
        if name is not None and not isinstance(name, str) and not callable(getattr(name, "stream", None)):
            raise TypeError(f"a backend is a name such as 'ollama', or a backend object, not {type(name).__name__}")
        wanted: Any = self.model_id or getattr(name, "model_id", None) or ""
        if not isinstance(wanted, str):
            kind = name if isinstance(name, str) else getattr(name, "name", "openai" if self.base_url else "ollama")
            if not callable(getattr(wanted, "on", None)):
                raise TypeError(f"model_id is a str or one of model_ids, not {type(wanted).__name__}")
            wanted = wanted.on(kind)
        self.model = wanted
        if name == "openai" and not self.model:
            raise UsageError("an OpenAI-compatible server needs a model to be named", hint='give model_id="..."')
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries cannot be negative, but is {self.max_retries}")

    def __repr__(self) -> str:
        name = self.backend if self.backend is None or isinstance(self.backend, str) else self.backend.name
        return f"Connection({name or 'auto'!r}, {self.model!r})"

    def again(self) -> Connection:
        """A connection to the same model that nothing has used."""
        return dataclasses.replace(self)

    async def client(self, options: CallOptions, event_loop: EventLoopThread) -> ModelClient:
        """The model client, with the time limits of one call; all calls share the limiter and the connections.

        Runs in `event_loop`, which closes the connection at its end.

        Raises:
            UsageError: a setting cannot be used.
            BackendError: the server cannot be used, or does not have the model.
            ModelFileError: the embedded model cannot be used or downloaded.
        """
        client = self._client
        if client is None:
            async with self._opening:
                client = self._client = self._client or await self._open(event_loop)
        if not options.timeout_set:
            return client
        limit_s = options.stream_timeout_s
        return client.with_deadlines(Deadlines(limit_s, limit_s, client.deadlines.total_s))

    async def _open(self, event_loop: EventLoopThread) -> ModelClient:
        if self._opened is None:
            self._opened = await self._choose()
            event_loop.on_close(self._opened.aclose)
        backend, model = self._opened, self.model
        await self._prepare(backend)
        return ModelClient(
            [EndpointConfig(backend.name, backend, model, self.limit(backend.name))],
            policy=RetryPolicy(max_retries=self.max_retries, max_elapsed_s=self.retry_for_s),
            deadlines=Deadlines(total_s=self.timeout_s),
            # An unreachable server fails the call within its own retries: a call does not wait for minutes.
            breaker=lambda: CircuitBreaker(threshold=None),
        )

    async def open_backend(self) -> Backend:
        """Choose the model and open a backend with it, which the caller closes; raises as `client` does."""
        backend = await self._choose()
        try:
            await self._prepare(backend)
        except BaseException:
            await backend.aclose()
            raise
        return backend

    async def _prepare(self, backend: Backend) -> None:
        if backend.name == "local":
            await asyncio.to_thread(_download_default, self.model, self._why, fetch=self.fetch)
        await backend.prepare(self.model)

    async def _choose(self) -> Backend:
        from mellea_cli.backends.base import BackendSettings
        from mellea_cli.backends.registry import open_backend, resolve_backend

        if self.backend is not None and not isinstance(self.backend, str):
            self.model = self.model or self.backend.name
            reopened = getattr(self.backend, "reopened", None)
            # Sessions have an event loop each, and a backend's connections belong to one.
            return self.backend if reopened is None else reopened(self.limit(self.backend.name))
        choice = await resolve_backend(self.backend or "auto", self.model or None, self.base_url)
        if choice.reason:
            _LOG.info("%s", choice.reason)
        self.model, self._why = choice.model, choice.reason
        concurrency = self.limit(choice.backend)
        settings = BackendSettings(choice.model, base_url=self.base_url, api_key=self.api_key, concurrency=concurrency)
        return open_backend(choice.backend, settings)

    def limit(self, backend: str) -> int:
        """Maximum number of requests in flight."""
        return self.concurrency or (_LOCAL_CONCURRENCY if backend == "local" else _CONCURRENCY)


def _download_default(model: str, why: str, *, fetch: bool) -> None:
    """Download the default model when it is missing, as `mellea summarise` does; others must be there already."""
    from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore

    store = ModelStore()
    if model == DEFAULT_MODEL and store.find(model) is None:
        size = f"{CATALOGUE[model].size / 1e9:.1f} GB"
        if not fetch:
            hint = f"start an Ollama that has the model, or allow the download of {size} with fetch=True"
            raise ModelFileError(f"the embedded model {model} is not on this machine, and fetch=False", hint=hint)
        reason = f"{why}: " if why else ""
        _LOG.warning("%sdownloading the model %s (%s), once; fetch=False prevents it", reason, model, size)
        store.pull(model)


class FirstTokenTimeout(NothingInTime, TimeoutError):
    """Nothing of the answer came in time."""


class StreamTimeout(StreamBroken, TimeoutError):
    """The answer stalled, or took too long as a whole; `partial` holds what had come."""


# The engine's hints name the command's flags; the session's callers have arguments.
_WORDS = (
    (r"name it with -m MODEL", "name it with model_id"),
    (r"a slow machine needs more time: --timeout SECONDS", "a slow machine needs more time: timeout=SECONDS"),
    (r"--key-file FILE|a file for --key-file|--key-file", "api_key"),
    (r"give --backend and --base-url", "give backend_name and base_url"),
    (r"--backend (\w+)", r'start_session("\1")'),
    (r"--model\b|-m\b", "model_id"),
    (r" or drop --local-only \((\w+)\)", r" or unset \1"),
    (r"without --local-only \((\w+)\)", r"without \1"),
    (r"--allow-http", "MELLEA_ALLOW_HTTP=1"),
    (r"-vv shows", "logging at DEBUG shows"),
    (r"run the same command again( then)?: finished items are kept \(--max-wait waits longer\)", "call again"),
    (r"(?<!`)\bmellea models (list|pull \S+)", r"`mellea models \1` in a shell"),
    (r"--([a-z]+)-?([a-z]*)", lambda found: "_".join(filter(None, found.groups()))),
)


def in_api_words(error: Exception, options: CallOptions | None = None) -> Exception:
    """The error as a caller of the API gets it: the hint names arguments and stands in the traceback, which is short.

    One that was caused by a time limit is a `TimeoutError` too.
    """
    if not isinstance(error, MelleaError) or isinstance(error, TimeoutError):
        return error
    stalled = isinstance(error, StreamBroken) and isinstance(error.__cause__ or error.__context__, TimeoutError)
    if isinstance(error, BackendError) and (isinstance(error, NothingInTime) or stalled):
        error = _timeout(error, options)
    hint = error.hint
    for pattern, words in _WORDS:
        hint = re.sub(pattern, words, hint)
    error.hint = hint
    note = f"Hint: {hint}"
    if hint and note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    if error.__cause__ is not None:
        _LOG.debug("%s", error, exc_info=error)
        error.__cause__, error.__suppress_context__ = None, True
    return error


def _timeout(error: BackendError, options: CallOptions | None) -> BackendError:
    kind = FirstTokenTimeout if isinstance(error, NothingInTime) else StreamTimeout
    limited = options is not None and options.timeout_set
    why = f" (ModelOption.STREAM_TIMEOUT is {options.stream_timeout_s:g} s)" if limited and options is not None else ""
    late = kind(f"{error.message}{why}", partial=error.partial, hint=error.hint)
    late.attempts, late.__cause__ = error.attempts, error
    if limited:
        late.hint = "give ModelOption.STREAM_TIMEOUT more seconds, or None for no limit"
    return late
