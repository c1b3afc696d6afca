"""A session's way to its model: chosen and opened by the first request, then kept."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import UsageError
from mellea_cli.session.session_options import CallOptions

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.session.event_loop import EventLoopThread


# A call's place among the calls of one conversation.


class Turn:
    """A call's place among the calls of one conversation: it comes when all calls before it have ended.

    A call that is given up while it waits ends before those it waited for. So whoever comes next looks behind it as
    well, and does not take its end for the end of them all.

    Args:
        done: done when this call has ended.
        before: the call before it; `None` for the first.
    """

    __slots__ = ("before", "done")

    def __init__(self, done: Future[bool], before: Turn | None) -> None:
        self.done = done
        self.before = before

    async def comes(self) -> None:
        """Wait until every call before this one has ended."""
        while (before := self.before) is not None:
            if not before.done.done():
                await asyncio.wrap_future(before.done)
            # Empty once that call had its own turn, so that a long conversation does not pile up turns.
            self.before = before.before


_LOG = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 16
# The embedded model gains nothing beyond four slots on a small machine, and each takes memory of its own.
_LOCAL_CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a session's requests go and how patient it is; `mellea_cli.session.session.start_session` explains each."""

    backend: str | Backend | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    max_retries: int = 5
    retry_for_s: float = 120.0
    timeout_s: float | None = 600.0


@dataclass(frozen=True, slots=True)
class Line:
    """An open way to a model."""

    sender: ModelClient
    model: str

    def sender_for(self, options: CallOptions) -> ModelClient:
        """The sender, with the time limits of this call; limiter and connections are shared."""
        if not options.timeout_set:
            return self.sender
        limit = options.stream_timeout_s
        return self.sender.with_deadlines(Deadlines(limit, limit, self.sender.deadlines.total_s))


class Link:
    """Chooses and opens a backend when it is first needed; everything in it runs in the portal's loop.

    A backend that cannot be used fails the call that needed it, and the next call tries again.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._line: Line | None = None
        self._opening = asyncio.Lock()
        self._unready: tuple[Backend, str] | None = None

    async def open(self, portal: EventLoopThread) -> Line:
        """The way to the model, opened by the first caller.

        Raises:
            UsageError: a setting cannot be used.
            BackendError: the server cannot be used, or does not have the model.
            ModelFileError: the embedded model cannot be had.
        """
        if self._line is not None:
            return self._line
        async with self._opening:
            if self._line is None:
                self._line = await self._opened(portal)
            return self._line

    async def _opened(self, portal: EventLoopThread) -> Line:
        if self._unready is None:
            self._unready = await self._chosen()
            portal.on_close(self._unready[0].aclose)
        backend, model = self._unready
        if backend.name == "local":
            await asyncio.to_thread(_fetch_default, model)
        await backend.prepare(model)
        wish = self._endpoint
        policy = RetryPolicy(max_retries=wish.max_retries, max_elapsed_s=wish.retry_for_s)
        concurrency = wish.concurrency or _concurrency(backend.name)
        client = ModelClient(
            [EndpointConfig(backend.name, backend, model, concurrency)],
            policy=policy,
            deadlines=Deadlines(total_s=wish.timeout_s),
            # A server that is away fails the call within its own retries: a call does not wait for minutes.
            breaker=lambda: CircuitBreaker(threshold=None),
        )
        return Line(client, model)

    async def _chosen(self) -> tuple[Backend, str]:
        """The backend, opened but not asked anything yet, and the model."""
        from mellea_cli.backends.base import BackendSettings
        from mellea_cli.backends.registry import open_backend

        wish = self._endpoint
        if wish.backend is not None and not isinstance(wish.backend, str):
            return wish.backend, wish.model or wish.backend.name
        name, model = await _named(wish)
        settings = BackendSettings(
            model=model,
            base_url=wish.base_url,
            api_key=wish.api_key,
            concurrency=wish.concurrency or _concurrency(name),
        )
        return open_backend(name, settings), model


def check(endpoint: Endpoint) -> None:
    """Refuse what can be seen to be wrong without asking anybody.

    Raises:
        UsageError: there is no such backend, or no model is named where one must be.
        ValueError: a number is out of its range.
    """
    from mellea_cli.backends.registry import BACKENDS

    name = endpoint.backend
    if isinstance(name, str) and name not in {*BACKENDS, "auto"}:
        raise UsageError(f"there is no backend {name!r}", hint=f"choose one of auto, {', '.join(BACKENDS)}")
    if name == "openai" and not endpoint.model:
        raise UsageError("an OpenAI-compatible server needs a model to be named", hint='give model_id="..."')
    if endpoint.concurrency is not None and endpoint.concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {endpoint.concurrency}")
    if endpoint.max_retries < 0:
        raise ValueError(f"max_retries cannot be negative, but is {endpoint.max_retries}")


async def _named(wish: Endpoint) -> tuple[str, str]:
    """The names of backend and model, settled as `mellea summarise` settles them."""
    from mellea_cli.backends.registry import resolve_backend

    name = wish.backend if isinstance(wish.backend, str) else "auto"
    choice = await resolve_backend(name, wish.model, wish.base_url)
    if choice.reason:
        _LOG.info("%s", choice.reason)
    return choice.backend, choice.model


def _fetch_default(model: str) -> None:
    """Fetch the default model's file when it is missing, as `mellea summarise` does; other models are not fetched."""
    from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore

    if model != DEFAULT_MODEL:
        return
    store = ModelStore()
    if store.find(model) is None:
        _LOG.warning("fetching the model %s (%d MB), once", model, CATALOGUE[model].size // 1_000_000)
        store.pull(model)


def _concurrency(backend: str) -> int:
    return _LOCAL_CONCURRENCY if backend == "local" else DEFAULT_CONCURRENCY
