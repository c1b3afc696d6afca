"""Who answers a run's items: this process, or workers elsewhere. `mellea_cli.run.batch` sees no difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.engine.circuit_breaker import Outage
from mellea_cli.engine.client import PoolLimits, PoolSender, Sender
from mellea_cli.engine.concurrency import AdaptiveConcurrency, ConcurrencyLimiter
from mellea_cli.engine.endpoint import Endpoint, EndpointFigures
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.workers import WorkerSlots
from mellea_cli.events import Observer
from mellea_cli.items import Item, Outcome
from mellea_cli.messages import Usage
from mellea_cli.pipelines.redact import redact
from mellea_cli.run.plan import RunPlan

# The way from a run to its model server, or to the several of a pool.

Servers = Backend | Sequence[Endpoint]
"""What a run asks: one server, or the endpoints of a pool."""


def open_way(plan: RunPlan, servers: Servers, observer: Observer) -> Sender | PoolSender:
    """The way to the plan's model, with the plan's limits and patience."""
    pace = RateLimiter(plan.rpm, plan.tpm) if plan.rpm or plan.tpm else None
    if isinstance(servers, Sequence):
        return PoolSender(
            servers,
            policy=plan.policy,
            deadlines=plan.deadlines,
            limits=PoolLimits(plan.concurrency, pace, plan.max_wait_s),
            observer=observer,
        )
    limiter = ConcurrencyLimiter(
        plan.concurrency,
        climb=AdaptiveConcurrency(plan.start, plan.concurrency) if plan.start else None,
        pace=pace,
        first_alone_s=plan.first_alone_s,
    )
    return Sender(
        servers,
        limiter,
        policy=plan.policy,
        deadlines=plan.deadlines,
        outage=Outage(max_wait_s=plan.max_wait_s, observer=observer),
        observer=observer,
    )


class Executor(Protocol):
    """What a run needs of whoever answers its items; the last four are of no concern to all of them."""

    @property
    def places(self) -> int:
        """Items that can be taken on at once, at most."""

    @property
    def rooms(self) -> WorkerSlots | None:
        """How many of the places may have work, from moment to moment; `None` for all."""

    @property
    def concurrency(self) -> int:
        """Requests in flight that were allowed, or found to be the best."""

    @property
    def retries(self) -> int:
        """Requests that were sent again because of the transport, so far."""

    @property
    def peak_in_flight(self) -> int:
        """The most requests in flight at once, so far; never less than there were."""

    @property
    def endpoints(self) -> tuple[EndpointFigures, ...]:
        """What each endpoint of a pool did so far; empty where there is only one server, or none of ours."""
        return ()

    @property
    def beside(self) -> tuple[Usage, int]:
        """Tokens and requests, so far, that went into no outcome."""
        return Usage(), 0

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Tell where to learn how many requests are still to come; it gives `None` while nobody knows."""
        _ = left

    async def tend(self) -> None:
        """Do what is to be done beside the items; runs while they are answered, and is then cancelled."""
        return

    async def work(self, item: Item) -> Outcome | None:
        """Answer every step for `item`.

        Returns:
            What came of it, a `Failure` included; `None` when it was given back because the run was asked to stop.

        Raises:
            MelleaError: no item can be answered.
        """


class LocalExecutor:
    """Answers items in this process.

    Args:
        plan: what is asked, and within which limits.
        servers: the model server, or the endpoints of a pool.
        observer: hears what happens to each item.
    """

    def __init__(self, plan: RunPlan, servers: Servers, observer: Observer) -> None:
        self._way = open_way(plan, servers, observer)
        self._cut_usage = Usage()
        self._cut_calls = 0
        self._worker = PipelineRunner(
            plan.pipeline,
            plan.model,
            plan.options,
            self._way,
            observer=observer,
            budget=plan.budget,
            mask=redact if plan.redacted else str,
            unfinished=self._cut_short,
        )
        self.places = plan.concurrency

    def _cut_short(self, usage: Usage, calls: int) -> None:
        self._cut_usage += usage
        self._cut_calls += calls

    @property
    def rooms(self) -> WorkerSlots | None:
        """How many of the places may have work, from moment to moment; `None` for all."""
        return self._way.rooms

    @property
    def endpoints(self) -> tuple[EndpointFigures, ...]:
        """What each endpoint of a pool did so far."""
        return self._way.figures()

    @property
    def beside(self) -> tuple[Usage, int]:
        """Tokens and requests of items that were cut short, and tokens of questions of our own."""
        return self._cut_usage + self._way.own_usage, self._cut_calls

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Tell where to learn how many requests are still to come."""
        self._way.look_ahead(left)

    async def tend(self) -> None:
        """Look after servers that are away."""
        await self._way.tend()

    @property
    def concurrency(self) -> int:
        """Requests in flight that were allowed, or found to be the best."""
        climb = self._way.climb
        return self.places if climb is None else climb.best

    @property
    def retries(self) -> int:
        """Requests that were sent again because of the transport, so far."""
        return self._way.retries

    @property
    def peak_in_flight(self) -> int:
        """The most requests in flight at once, so far."""
        return self._way.peak

    async def work(self, item: Item) -> Outcome | None:
        """Answer every step for `item`; see `Executor.work`."""
        return await self._worker.work(item)
