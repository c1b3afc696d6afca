"""The server in a thread of its own, with its own event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from loopback.app import ModelApp
from loopback.plan import Settings
from loopback.state import State


class ModelServer:
    """A model server on a free port of 127.0.0.1, running between `start` and `stop`.

    Args:
        settings: how it behaves; `None` means the defaults.
        changes: fields of `Settings` to change, such as `latency_s=0.1`.
    """

    def __init__(self, settings: Settings | None = None, **changes: Any) -> None:
        self.settings = dataclasses.replace(settings or Settings(), **changes)
        self.state = State()
        self.port = self.settings.port
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The address without a path: Ollama's base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """The base URL of the OpenAI protocol."""
        return f"{self.url}/v1"

    def start(self) -> None:
        """Start, on the port of the last time if there was one: an outage is `stop` and `start`."""
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="loopback", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the loopback server did not start")

    def stop(self) -> None:
        """Release what stalls, close every connection and end the thread. May be called twice."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._thread = None
        with self.state.change():
            self.state.in_flight = 0

    def wait(self, until: Callable[[State], bool], timeout: float = 10) -> None:
        """Block until the state says so; `TimeoutError` with the counts when it does not in time."""
        self.state.wait(until, timeout)

    async def until(self, until: Callable[[State], bool], timeout: float = 10) -> None:  # noqa: ASYNC109 - a real wait in a thread
        """Do what `wait` does without blocking the event loop."""
        await asyncio.to_thread(self.state.wait, until, timeout)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = ModelApp(self.settings, self.state)
        runner = web.AppRunner(app.build(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        app.closing.set()
        await runner.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
