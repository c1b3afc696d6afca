"""Workers for tests without Ray: the real outpost, in this process, behind a wire that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mellea_cli.backends.base import BackendSettings
from mellea_cli.cluster.remote_worker import Link, RemoteWorker, WorkerLost
from mellea_cli.cluster.worker_messages import Share, shares
from mellea_cli.run.plan import RunPlan

T = TypeVar("T")


class NearLink:
    """A way to a worker that ends when it is cut."""

    def __init__(self, outpost: RemoteWorker) -> None:
        self.outpost = outpost
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

    async def up(self) -> None:
        """It runs already."""
        await self._call("up", asyncio.sleep(0))

    async def open(self, version: str, packed: bytes) -> bytes:
        """Pass on."""
        return await self._call("open", self.outpost.open(version, packed))

    async def serve(self) -> None:
        """Pass on."""
        await self._call("serve", self.outpost.serve())

    async def give(self, packed: bytes) -> None:
        """Pass on."""
        await self._call("give", self.outpost.give(packed))

    async def collect(self) -> bytes:
        """Pass on."""
        return await self._call("collect", self.outpost.collect())

    async def wind_up(self) -> None:
        """Pass on."""
        await self._call("wind_up", self.outpost.wind_up())

    async def close(self) -> None:
        """Pass on."""
        await self._call("close", self.outpost.close())

    def kill(self) -> None:
        """End it."""
        self.calls.append("kill")
        self.cut()


class NearLinks:
    """Starts workers in this process.

    Args:
        hired: called with each link before it is used.
    """

    def __init__(self, hired: Callable[[NearLink], None] = lambda _: None) -> None:
        self.links: list[NearLink] = []
        self._hired = hired

    def hire(self, number: int) -> Link:
        """A worker in this process."""
        link = NearLink(RemoteWorker())
        self.links.append(link)
        self._hired(link)
        return link


def split(plan: RunPlan, url: str | None, workers: int = 2) -> list[Share]:
    """Shares of a run against a server at `url`."""
    return shares(plan, BackendSettings(base_url=url), workers, pull=False)
