"""Workers for tests without Ray: the real worker, in this process, behind a connection that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mellea_cli.backends.registry import BackendSettings
from mellea_cli.cluster.remote_worker import RemoteWorker, WorkerHandle, WorkerLost
from mellea_cli.cluster.worker_messages import WorkerSetup, split_plan
from mellea_cli.run.plan import RunPlan

T = TypeVar("T")


class NearWorker:
    """A handle whose worker is lost when it is cut."""

    def __init__(self, worker: RemoteWorker) -> None:
        self.worker = worker
        self._cut = asyncio.Event()
        self.calls: list[str] = []

    def cut(self) -> None:
        """Lose the worker: every call fails from now on, those under way too."""
        self._cut.set()

    async def _call(self, name: str, answer: Awaitable[T]) -> T:
        self.calls.append(name)
        call = asyncio.ensure_future(answer)
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait([call, cut], return_when=asyncio.FIRST_COMPLETED)
            if self._cut.is_set():
                raise WorkerLost("cut")
            return call.result()
        finally:
            call.cancel()
            cut.cancel()
            await asyncio.gather(call, cut, return_exceptions=True)

    async def started(self) -> None:
        """It runs already."""
        await self._call("started", asyncio.sleep(0))

    async def open(self, version: str, packed: bytes) -> bytes:
        """Pass on."""
        return await self._call("open", self.worker.open(version, packed))

    async def run(self) -> None:
        """Pass on."""
        await self._call("run", self.worker.run())

    async def add_items(self, packed: bytes) -> None:
        """Pass on."""
        await self._call("add_items", self.worker.add_items(packed))

    async def next_report(self) -> bytes:
        """Pass on."""
        return await self._call("next_report", self.worker.next_report())

    async def return_unstarted(self) -> None:
        """Pass on."""
        await self._call("return_unstarted", self.worker.return_unstarted())

    async def close(self) -> None:
        """Pass on."""
        await self._call("close", self.worker.close())

    def kill(self) -> None:
        """End it."""
        self.calls.append("kill")
        self.cut()


class NearLauncher:
    """Starts workers in this process.

    Args:
        on_start: called with each handle before it is used.
    """

    def __init__(self, on_start: Callable[[NearWorker], None] = lambda _: None) -> None:
        self.workers: list[NearWorker] = []
        self._on_start = on_start

    def start(self, number: int) -> WorkerHandle:
        """A worker in this process."""
        worker = NearWorker(RemoteWorker())
        self.workers.append(worker)
        self._on_start(worker)
        return worker


def split(plan: RunPlan, url: str | None, workers: int = 2) -> list[WorkerSetup]:
    """The setups of a run against a server at `url`."""
    return split_plan(plan, BackendSettings(base_url=url), workers, environ={}, pull=False)
