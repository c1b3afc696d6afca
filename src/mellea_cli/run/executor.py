"""Executor: what answers the items of a run, in this process or on a cluster. `run.batch` sees no difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from mellea_cli.backends.base import Backend, BackendSettings
from mellea_cli.engine.client import ClientLimits, ModelClient
from mellea_cli.engine.concurrency import WorkerSlots
from mellea_cli.engine.endpoint import EndpointConfig, EndpointFigures
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.workers import Stop
from mellea_cli.events import Observer
from mellea_cli.extensions import ExtensionPoint
from mellea_cli.items import Item, Outcome
from mellea_cli.messages import Usage
from mellea_cli.pipelines.redact import redact
from mellea_cli.run.plan import RunPlan

Servers = Backend | Sequence[EndpointConfig]  # What a run asks: one server, or the endpoints of a pool


def open_client(plan: RunPlan, servers: Servers, observer: Observer) -> ModelClient:
    """The model client for a plan, with the plan's limits."""
    if isinstance(servers, Sequence):
        endpoints = servers
    else:
        endpoints = [
            EndpointConfig(
                servers.name, servers, plan.model, plan.concurrency, start=plan.start, first_alone_s=plan.first_alone_s
            )
        ]
    rate_limiter = RateLimiter(plan.rpm, plan.tpm) if plan.rpm or plan.tpm else None
    return ModelClient(
        endpoints,
        policy=plan.policy,
        deadlines=plan.deadlines,
        limits=ClientLimits(plan.concurrency, rate_limiter, plan.max_wait_s),
        observer=observer,
    )


class Executor(Protocol):
    """What a run needs of whatever answers its items. The members with a body are optional."""

    @property
    def places(self) -> int:
        """Highest number of items at a time."""

    @property
    def slots(self) -> WorkerSlots | None:
        """Which of the places may take items from moment to moment; `None` for all."""
        return None

    @property
    def concurrency(self) -> int:
        """Requests in flight that are allowed, or were found to be the best."""

    @property
    def retries(self) -> int:
        """Requests that were sent again because of the transport, so far."""

    @property
    def repairs(self) -> int:
        """Answers whose form had to be repaired, so far."""
        return 0

    @property
    def peak_in_flight(self) -> int:
        """Most requests in flight at once, so far; never less than there were."""

    @property
    def waits(self) -> bool:
        """Whether no request is in flight: items wait for a server that is away, or for their turn."""
        return False

    @property
    def endpoints(self) -> tuple[EndpointFigures, ...]:
        """Figures of each endpoint of a pool; empty where there is only one server."""
        return ()

    @property
    def client(self) -> ModelClient | None:
        """The client whose requests can be paused and limited in mid-run; `None` where that is impossible."""
        return None

    @property
    def unassigned(self) -> tuple[Usage, int]:
        """Tokens and requests, so far, that belong to no outcome: items cut short, and probes."""
        return Usage(), 0

    def forecast(self, remaining: Callable[[], int | None]) -> None:
        """Set where to learn how many requests are still to come; it gives `None` while that is unknown."""
        _ = remaining

    async def maintain(self) -> None:
        """Do what must be done while items are answered; it is cancelled at the end."""
        return

    async def work(self, item: Item) -> Outcome | None:
        """Answer every step for `item`.

        Returns:
            The outcome, which may be a `Failure`; `None` when the item was given back because the run is stopping.

        Raises:
            MelleaError: no item can be answered.
        """


class ExecutorFactory:
    """Opens the executor of a run. The entry points of the group `mellea.executors` are classes of this kind.

    `check`, `connect` and `open` are called once each, in this order.

    Args:
        flags: every flag of the command by the name of its field, such as `concurrency`.
        say: prints a line for the user.
    """

    def __init__(self, flags: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.flags = flags
        self.say = say

    def check(self) -> None:
        """Check the flags before anything is opened.

        Raises:
            UsageError: they do not fit this executor.
        """

    @contextmanager
    def connect(self, plan: RunPlan) -> Iterator[RunPlan]:
        """Connect to what answers, before the display starts; leaving disconnects.

        Args:
            plan: the run, with the concurrency of one machine.

        Yields:
            The plan with the concurrency of all machines together.

        Raises:
            MelleaError: nothing can be reached.
        """
        yield plan

    def open(
        self, plan: RunPlan, settings: BackendSettings, observer: Observer, stop: Stop
    ) -> AbstractAsyncContextManager[Executor]:
        """Open the executor; leaving closes it.

        Args:
            plan: the run, as `connect` gave it.
            settings: the server's address, its key and the network policy, for `open_backend`.
            observer: receives what happens to each item.
            stop: the run's request to stop.
        """
        raise NotImplementedError


EXECUTORS: ExtensionPoint[Callable[[Mapping[str, Any], Callable[[str], None]], ExecutorFactory]] = ExtensionPoint(
    "mellea.executors", {"ray": "mellea_cli.cluster.ray_cluster:RayExecutorFactory"}, ("here",)
)
"""Executors by name. `here` is not one of them: it is this process, with `LocalExecutor`."""


class LocalExecutor(Executor):
    """Answers items in this process.

    Args:
        plan: what is asked, and within which limits.
        servers: the model server, or the endpoints of a pool.
        observer: receives what happens to each item.
    """

    def __init__(self, plan: RunPlan, servers: Servers, observer: Observer) -> None:
        self._client = open_client(plan, servers, observer)
        self._cut_usage = Usage()
        self._cut_calls = 0
        runner: Callable[..., PipelineRunner] = PipelineRunner
        if plan.rows_per_call > 1:
            from mellea_cli.engine.row_groups import GroupRunner

            runner = partial(GroupRunner, rows=plan.rows_per_call)
        self._runner = runner(
            plan.pipeline,
            plan.model,
            plan.options,
            self._client,
            observer=observer,
            budget=plan.budget,
            mask=redact if plan.redacted else str,
            unfinished=self._cut_short,
        )
        self._concurrency = plan.concurrency
        self._rows = plan.rows_per_call

    def _cut_short(self, usage: Usage, calls: int) -> None:
        self._cut_usage += usage
        self._cut_calls += calls

    @property
    def client(self) -> ModelClient:
        return self._client

    @property
    def places(self) -> int:
        return self._concurrency * self._rows

    @property
    def slots(self) -> WorkerSlots | None:
        # Rows of a group wait for each other: the client alone limits the requests.
        return self._client.slots if self._rows == 1 else None

    @property
    def endpoints(self) -> tuple[EndpointFigures, ...]:
        figures = self._client.figures()
        return figures if len(figures) > 1 else ()

    @property
    def unassigned(self) -> tuple[Usage, int]:
        probes = sum(endpoint.probes for endpoint in self._client.endpoints)
        return self._cut_usage + self._client.probe_usage, self._cut_calls + probes - self._runner.shared

    @property
    def waits(self) -> bool:
        return not any(endpoint.in_flight for endpoint in self._client.endpoints)

    async def work(self, item: Item) -> Outcome | None:
        return await self._runner.run(item)

    def forecast(self, remaining: Callable[[], int | None]) -> None:
        self._client.balancer.remaining = remaining

    async def maintain(self) -> None:
        await self._client.maintain()

    @property
    def concurrency(self) -> int:
        return int(min(self._client.concurrency, self._client.balancer.limit))

    @property
    def retries(self) -> int:
        return self._client.retries

    @property
    def repairs(self) -> int:
        return self._runner.repairs

    @property
    def peak_in_flight(self) -> int:
        return self._client.peak
