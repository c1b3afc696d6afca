"""A worker on a cluster's node: the engine with a backend of its own. It does not depend on Ray."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mellea_cli.cluster.worker_messages import ItemResult, Reporter, WorkerSetup, pack, unpack
from mellea_cli.errors import BackendUnavailable, MelleaError, ModelFileError, ModelMissing, UsageError
from mellea_cli.events import Note
from mellea_cli.items import Item
from mellea_cli.run.executor import LocalExecutor

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.security import NetworkPolicy
    from mellea_cli.run.plan import RunPlan


class RemoteWorker:
    """Answers the items that it is sent. Arguments and results are packed by `mellea_cli.cluster.worker_messages.pack`.

    `open` comes first, then one `run`, and while it runs any number of `add_items` and `next_report`; `close` comes
    last. All calls are made in one event loop.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._item_added = asyncio.Event()
        self._closing = False
        self._backend: Backend | None = None
        # Set by `open`:
        self._executor: LocalExecutor
        self._reporter: Reporter

    async def open(self, version: str, packed: bytes) -> bytes:
        """Open the backend with a `WorkerSetup`, and make sure that the model can answer.

        Returns the name of this machine, or the `MelleaError` because of which nothing can be answered here.
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
        setup: WorkerSetup = unpack(packed)
        plan = setup.plan()
        self._reporter = Reporter(setup.intervals)
        if plan.backend == "local":
            network = setup.settings.network
            await asyncio.to_thread(ensure_model, plan, network=network, pull=setup.pull, tell=self._tell)
        self._backend = open_backend(plan.backend, setup.settings)
        await self._prepare(self._backend, plan, pull=setup.pull)
        self._executor = LocalExecutor(plan, self._backend, self._reporter)

    async def _prepare(self, backend: Backend, plan: RunPlan, *, pull: bool) -> None:
        from mellea_cli.backends.local import LocalBackend

        if isinstance(backend, LocalBackend):
            backend.share_prefixes(plan.prefixes, self._tell)
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
            # A server that cannot be reached now is waited for, as in the middle of a run.

    def _tell(self, sentence: str) -> None:
        self._reporter(Note(f"{socket.gethostname()}: {sentence}"))

    async def run(self) -> None:
        """Answer items until `close`, as many at once as the setup allows."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._executor.places):
                group.create_task(self._work())

    async def _work(self) -> None:
        while (item := await self._next_item()) is not None:
            result: ItemResult
            try:
                result = await self._executor.work(item)
            except MelleaError as error:
                result = error
            self._reporter.finish(item.position, result)

    async def _next_item(self) -> Item | None:
        while not self._items:
            if self._closing:
                return None
            self._item_added.clear()
            await self._item_added.wait()
        return self._items.popleft()

    async def add_items(self, packed: bytes) -> None:
        """Add a list of items."""
        items: Sequence[Item] = unpack(packed)
        self._items.extend(items)
        self._item_added.set()

    async def next_report(self) -> bytes:
        """The next `Report`, once there is something to report."""
        report = await self._reporter.next()
        report.retries, report.peak_in_flight = self._executor.retries, self._executor.peak_in_flight
        return pack(report)

    async def return_unstarted(self) -> None:
        """Return the items that have not been started; the others are finished."""
        while self._items:
            self._reporter.finish(self._items.popleft().position, None)

    async def close(self) -> None:
        """Stop the backend. No call is allowed after this one."""
        self._closing = True
        self._item_added.set()
        if self._backend is not None:
            await self._backend.aclose()


class WorkerLost(Exception):
    """A worker cannot be reached any more: its process or its node is gone."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent  # Whether no other worker can be started in its place


Method = Literal["open", "run", "add_items", "next_report", "return_unstarted", "close"]


class WorkerHandle(Protocol):
    """The driver's handle of one worker."""

    async def started(self) -> None:
        """Wait until the worker's process runs. Raises `WorkerLost` when it cannot."""

    async def call(self, method: Method, *arguments: Any) -> Any:
        """Call a method of the `RemoteWorker`, at most once. Raises `WorkerLost` when the worker is gone."""

    def kill(self) -> None:
        """End the worker's process, without waiting."""


StartWorker = Callable[[int], WorkerHandle]
"""Starts the worker of a number, counted from 0; its process may run only later."""


def ensure_model(plan: RunPlan, *, network: NetworkPolicy | None, pull: bool, tell: Callable[[str], None]) -> None:
    """Make sure that the embedded model's file is on this machine and is the driver's.

    A missing model is downloaded with `pull`, the default model in any case.

    Raises:
        ModelFileError: the file is missing and may not be downloaded, or is not the driver's.
    """
    from mellea_cli.models.catalogue import DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore, is_path

    store = ModelStore(network=network)
    path = store.find(plan.model)
    if path is None:
        if not (pull or plan.model == DEFAULT_MODEL):
            raise ModelFileError(
                f"the model {plan.model} is not on this machine",
                hint=f"add --pull, or there: mellea models pull {plan.model}",
            )
        tell(f"downloading {plan.model}, once")
        path = store.pull(plan.model)
    found = f"{path.name}:{path.stat().st_size}"
    if is_path(plan.model) and found != plan.identity:
        raise ModelFileError(
            f"{path} is another file ({found}) than the driver's ({plan.identity})", hint="copy the same file there"
        )
