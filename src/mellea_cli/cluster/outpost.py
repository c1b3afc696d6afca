"""The worker on a node: the same engine as at home, with a backend of its own. It knows nothing of Ray."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mellea_cli.cluster.report import Ending, Reporter, pack, unpack
from mellea_cli.errors import BackendUnavailable, MelleaError, ModelFileError, ModelMissing, UsageError
from mellea_cli.events import Note
from mellea_cli.items import Item
from mellea_cli.run.hands import OwnHands

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.cluster.share import Share
    from mellea_cli.run.plan import RunPlan


class Outpost:
    """Answers the items that it is given. What goes in and out is packed by `mellea_cli.cluster.report.pack`.

    The order of calls is `open`, then `serve` once, and beside it `give` and `collect` as often as there is something
    to give or to hear; `close` at the end. All of them run in one event loop.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._no_more = False
        self._backend: Backend | None = None
        self._hands: OwnHands | None = None
        self._report: Reporter | None = None

    async def open(self, version: str, packed: bytes) -> bytes:
        """Get ready for a share of a run: open its backend and make sure that the model can answer.

        Args:
            version: the driver's version of this package.
            packed: the `Share`.

        Returns:
            The name of this machine, or the `MelleaError` because of which nothing can be answered here.
        """
        try:
            await self._open(version, packed)
        except MelleaError as error:
            return pack(error)
        return pack(socket.gethostname())

    async def _open(self, version: str, packed: bytes) -> None:
        from mellea_cli import __version__
        from mellea_cli.backends.registry import open_backend

        if version != __version__:
            raise UsageError(
                f"mellea {__version__} is installed there, and {version} here",
                hint=f"on every node: pip install 'mellea-cli[ray]=={version}'",
            )
        share: Share = unpack(packed)
        os.environ.update(share.environ)
        plan = share.plan()
        self._report = Reporter(share.rhythm)
        if plan.backend == "local":
            await asyncio.to_thread(ensure_model, plan, pull=share.pull, tell=self._tell)
        self._backend = open_backend(plan.backend, share.settings)
        await self._prepare(self._backend, plan, pull=share.pull)
        self._hands = OwnHands(plan, self._backend, self._report)

    async def _prepare(self, backend: Backend, plan: RunPlan, *, pull: bool) -> None:
        from mellea_cli.backends.local import LocalBackend

        if isinstance(backend, LocalBackend):
            backend.expect(plan.prefixes, self._tell)
        try:
            await backend.prepare(plan.model)
        except ModelMissing:
            puller = getattr(backend, "pull", None)
            if not pull or puller is None:
                raise
            async for _ in puller(plan.model):
                pass
            await backend.prepare(plan.model)
        except BackendUnavailable:
            if isinstance(backend, LocalBackend):
                raise
            # A server that is away just now is waited for, as in the middle of a run.

    def _tell(self, sentence: str) -> None:
        if self._report is not None:
            self._report(Note(f"{socket.gethostname()}: {sentence}"))

    async def serve(self) -> None:
        """Answer items until `close`, as many at once as the share says."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._opened().places):
                group.create_task(self._work())

    async def _work(self) -> None:
        hands = self._opened()
        while (item := await self._next()) is not None:
            ending: Ending
            try:
                ending = await hands.work(item)
            except MelleaError as error:
                ending = error
            self._reporter().end(item.position, ending)

    async def _next(self) -> Item | None:
        while not self._items:
            if self._no_more:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()

    async def give(self, packed: bytes) -> None:
        """Take a list of items."""
        items: Sequence[Item] = unpack(packed)
        self._items.extend(items)
        self._arrived.set()

    async def collect(self) -> bytes:
        """The next `Report`, once there is something to tell."""
        report = await self._reporter().next()
        report.retries, report.peak_in_flight = self._opened().retries, self._opened().peak_in_flight
        return pack(report)

    async def wind_up(self) -> None:
        """Give back what has not been begun; items that are worked on go on to their end."""
        while self._items:
            self._reporter().end(self._items.popleft().position, None)

    async def close(self) -> None:
        """Stop the backend. Nothing can be asked after it."""
        self._no_more = True
        self._arrived.set()
        if self._backend is not None:
            await self._backend.aclose()

    def _opened(self) -> OwnHands:
        if self._hands is None:
            raise RuntimeError("the worker was not opened")
        return self._hands

    def _reporter(self) -> Reporter:
        if self._report is None:
            raise RuntimeError("the worker was not opened")
        return self._report


def ensure_model(plan: RunPlan, *, pull: bool, tell: Callable[[str], None]) -> None:
    """Make sure that the embedded model's file is on this machine and is the right one.

    Args:
        plan: names the model, and for a file what tells it from others.
        pull: fetch it when it is missing; the default model is fetched in any case.
        tell: told in a sentence when that takes a while.

    Raises:
        ModelFileError: it is missing and may not be fetched, or it is another one than the driver's.
    """
    from mellea_cli.models.catalogue import DEFAULT_MODEL
    from mellea_cli.models.gguf import is_path
    from mellea_cli.models.store import ModelStore

    store = ModelStore()
    path = store.find(plan.model)
    if path is None:
        if not (pull or plan.model == DEFAULT_MODEL):
            raise ModelFileError(
                f"the model {plan.model} is not on this machine",
                hint=f"add --pull, or there: mellea models pull {plan.model}",
            )
        tell(f"fetching {plan.model}, once")
        path = store.pull(plan.model)
    found = f"{path.name}:{path.stat().st_size}"
    if is_path(plan.model) and found != plan.identity:
        raise ModelFileError(
            f"{path} is another file ({found}) than the driver's ({plan.identity})", hint="copy the same file there"
        )
