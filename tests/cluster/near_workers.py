"""Workers for tests without Ray: the real worker, in this process, behind a connection that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mellea_cli.backends.base import BackendSettings
from mellea_cli.cluster.remote_worker import Method, RemoteWorker, WorkerHandle, WorkerLost
from mellea_cli.cluster.worker_messages import WorkerSetup, split_plan
from mellea_cli.run.plan import RunPlan


class NearWorker:
    """A handle whose worker is lost when it is cut."""

    def __init__(self, worker: RemoteWorker) -> None:
        self.worker = worker
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Lose the worker: every call fails from now on, those under way too."""
        self._cut.set()

    async def started(self) -> None:
        """It runs already."""
        await self._unless_cut(asyncio.sleep(0))

    async def call(self, method: Method, *arguments: Any) -> Any:
        """Call the worker."""
        return await self._unless_cut(getattr(self.worker, method)(*arguments))

    async def _unless_cut(self, answer: Awaitable[Any]) -> Any:
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

    def kill(self) -> None:
        """End it."""
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
    return split_plan(plan, BackendSettings(base_url=url), workers, pull=False)
