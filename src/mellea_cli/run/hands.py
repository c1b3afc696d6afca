"""Who answers a run's items: this process, or workers elsewhere. `mellea_cli.run.batch` sees no difference."""

from __future__ import annotations

from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.engine.climb import Climb
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.outage import Outage
from mellea_cli.engine.pace import Pace
from mellea_cli.engine.pool import Rooms
from mellea_cli.engine.sender import Sender
from mellea_cli.engine.worker import Worker
from mellea_cli.events import Observer
from mellea_cli.items import Item, Outcome
from mellea_cli.pipelines.redact import redact
from mellea_cli.run.plan import RunPlan


class Hands(Protocol):
    """What a run needs of whoever answers its items."""

    @property
    def places(self) -> int:
        """Items that can be taken on at once, at most."""

    @property
    def rooms(self) -> Rooms | None:
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

    async def work(self, item: Item) -> Outcome | None:
        """Answer every step for `item`.

        Returns:
            What came of it, a `Failure` included; `None` when it was given back because the run was asked to stop.

        Raises:
            MelleaError: no item can be answered.
        """


class OwnHands:
    """Answers items in this process.

    Args:
        plan: what is asked, and within which limits.
        backend: the model server.
        observer: hears what happens to each item.
    """

    def __init__(self, plan: RunPlan, backend: Backend, observer: Observer) -> None:
        self._sender = Sender(
            backend,
            Limiter(
                plan.concurrency,
                climb=Climb(plan.start, plan.concurrency) if plan.start else None,
                pace=Pace(plan.rpm, plan.tpm) if plan.rpm or plan.tpm else None,
            ),
            policy=plan.policy,
            deadlines=plan.deadlines,
            outage=Outage(max_wait_s=plan.max_wait_s, observer=observer),
            observer=observer,
        )
        self._worker = Worker(
            plan.pipeline,
            plan.model,
            plan.options,
            self._sender,
            observer=observer,
            budget=plan.budget,
            mask=redact if plan.redacted else str,
        )
        self.places = plan.concurrency
        self.rooms: Rooms | None = self._sender.limiter if plan.start else None

    @property
    def concurrency(self) -> int:
        """Requests in flight that were allowed, or found to be the best."""
        climb = self._sender.limiter.climb
        return self.places if climb is None else climb.best

    @property
    def retries(self) -> int:
        """Requests that were sent again because of the transport, so far."""
        return self._sender.retries

    @property
    def peak_in_flight(self) -> int:
        """The most requests in flight at once, so far."""
        return self._sender.limiter.peak

    async def work(self, item: Item) -> Outcome | None:
        """Answer every step for `item`; see `Hands.work`."""
        return await self._worker.work(item)
