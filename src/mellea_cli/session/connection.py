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

_CONCURRENCY = 16
# The embedded model gains nothing beyond four slots on a small machine, and each slot takes memory.
_LOCAL_CONCURRENCY = 4


@dataclass(slots=True)
class Connection:
    """A session's model, which the first call chooses and opens.

    The arguments are those of `mellea_cli.session.session.start_session`. A backend that cannot be used fails the call
    that needs it, and the next call tries again.

    Raises:
        UsageError: there is no such backend, or a model must be named.
        ValueError: a number is out of its range.
    """

    backend: str | Backend | None
    model: str | None
    base_url: str | None
    api_key: str | None = field(repr=False)
    concurrency: int | None
    max_retries: int
    retry_for_s: float
    timeout_s: float | None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _opened: Backend | None = field(default=None, init=False)
    _client: ModelClient | None = field(default=None, init=False)

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
        backend, model = self._opened, self.model or ""
        await _prepare(backend, model)
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
            await _prepare(backend, self.model or "")
        except BaseException:
            await backend.aclose()
            raise
        return backend

    async def _choose(self) -> Backend:
        from mellea_cli.backends.base import BackendSettings
        from mellea_cli.backends.registry import open_backend, resolve_backend

        if self.backend is not None and not isinstance(self.backend, str):
            self.model = self.model or self.backend.name
            return self.backend
        choice = await resolve_backend(self.backend or "auto", self.model, self.base_url)
        if choice.reason:
            _LOG.info("%s", choice.reason)
        self.model = choice.model
        concurrency = self.limit(choice.backend)
        settings = BackendSettings(choice.model, base_url=self.base_url, api_key=self.api_key, concurrency=concurrency)
        return open_backend(choice.backend, settings)

    def limit(self, backend: str) -> int:
        """Maximum number of requests in flight."""
        return self.concurrency or (_LOCAL_CONCURRENCY if backend == "local" else _CONCURRENCY)


async def _prepare(backend: Backend, model: str) -> None:
    if backend.name == "local":
        await asyncio.to_thread(_download_default, model)
    await backend.prepare(model)


def _download_default(model: str) -> None:
    """Download the default model when it is missing, as `mellea summarise` does; others must be there already."""
    from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore

    store = ModelStore()
    if model == DEFAULT_MODEL and store.find(model) is None:
        _LOG.warning("downloading the model %s (%d MB), once", model, CATALOGUE[model].size // 1_000_000)
        store.pull(model)
