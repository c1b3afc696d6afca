"""A session's connection to its model: chosen and opened by the first request, then kept."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.session.calls import CallOptions
    from mellea_cli.session.event_loop import EventLoopThread

_LOG = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 16
# The embedded model gains nothing beyond four slots on a small machine, and each slot takes memory.
_LOCAL_CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The arguments of `mellea_cli.session.session.start_session`, which describes them.

    Raises:
        UsageError: there is no such backend, or a model must be named.
        ValueError: a number is out of its range.
    """

    backend: str | Backend | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    max_retries: int = 5
    retry_for_s: float = 120.0
    timeout_s: float | None = 600.0

    def __post_init__(self) -> None:
        from mellea_cli.backends.registry import BACKENDS

        name = self.backend
        if isinstance(name, str) and name not in {*BACKENDS, "auto"}:
            raise UsageError(f"there is no backend {name!r}", hint=f"choose one of auto, {', '.join(BACKENDS)}")
        if name == "openai" and not self.model:
            raise UsageError("an OpenAI-compatible server needs a model to be named", hint='give model_id="..."')
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries cannot be negative, but is {self.max_retries}")

    def limit(self, backend: str) -> int:
        """Maximum number of requests in flight."""
        return self.concurrency or (_LOCAL_CONCURRENCY if backend == "local" else DEFAULT_CONCURRENCY)


class Connection:
    """Chooses and opens a backend when it is first needed.

    A backend that cannot be used fails the call that needs it, and the next call tries again. Everything but the
    constructor runs in the session's event loop.

    Attributes:
        model: the model's name, once the connection is open.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.model = ""
        self._settings = settings
        self._opening = asyncio.Lock()
        self._backend: Backend | None = None
        self._client: ModelClient | None = None

    async def open(self, event_loop: EventLoopThread) -> None:
        """Open the connection, unless it is open; `event_loop` closes it at its end.

        Raises:
            UsageError: a setting cannot be used.
            BackendError: the server cannot be used, or does not have the model.
            ModelFileError: the embedded model cannot be used or downloaded.
        """
        if self._client is None:
            async with self._opening:
                await self._prepare(event_loop)

    def client(self, options: CallOptions) -> ModelClient:
        """The model client with the time limits of one call; all calls share the limiter and the connections."""
        if self._client is None:
            raise RuntimeError("the connection is not open")
        if not options.timeout_set:
            return self._client
        limit_s = options.stream_timeout_s
        return self._client.with_deadlines(Deadlines(limit_s, limit_s, self._client.deadlines.total_s))

    async def _prepare(self, event_loop: EventLoopThread) -> None:
        if self._client is not None:
            return
        if self._backend is None:
            self._backend = await self._choose()
            event_loop.on_close(self._backend.aclose)
        backend, settings = self._backend, self._settings
        if backend.name == "local":
            await asyncio.to_thread(_download_default, self.model)
        await backend.prepare(self.model)
        self._client = ModelClient(
            [EndpointConfig(backend.name, backend, self.model, settings.limit(backend.name))],
            policy=RetryPolicy(max_retries=settings.max_retries, max_elapsed_s=settings.retry_for_s),
            deadlines=Deadlines(total_s=settings.timeout_s),
            # An unreachable server fails the call within its own retries: a call does not wait for minutes.
            breaker=lambda: CircuitBreaker(threshold=None),
        )

    async def _choose(self) -> Backend:
        from mellea_cli.backends.base import BackendSettings
        from mellea_cli.backends.registry import open_backend, resolve_backend

        settings = self._settings
        if settings.backend is not None and not isinstance(settings.backend, str):
            self.model = settings.model or settings.backend.name
            return settings.backend
        choice = await resolve_backend(settings.backend or "auto", settings.model, settings.base_url)
        if choice.reason:
            _LOG.info("%s", choice.reason)
        self.model = choice.model
        opened = BackendSettings(
            model=choice.model,
            base_url=settings.base_url,
            api_key=settings.api_key,
            concurrency=settings.limit(choice.backend),
        )
        return open_backend(choice.backend, opened)


def _download_default(model: str) -> None:
    """Download the default model when it is missing, as `mellea summarise` does; others must be there already."""
    from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore

    store = ModelStore()
    if model == DEFAULT_MODEL and store.find(model) is None:
        _LOG.warning("downloading the model %s (%d MB), once", model, CATALOGUE[model].size // 1_000_000)
        store.pull(model)
