"""The way from a run to its model server, or to the several of a pool."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_cli.backends.base import Backend
from mellea_cli.engine.climb import Climb
from mellea_cli.engine.lane import Endpoint
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.outage import Outage
from mellea_cli.engine.pace import Pace
from mellea_cli.engine.poolsender import PoolLimits, PoolSender
from mellea_cli.engine.sender import Sender
from mellea_cli.events import Observer
from mellea_cli.run.plan import RunPlan

Servers = Backend | Sequence[Endpoint]
"""What a run asks: one server, or the endpoints of a pool."""


def open_way(plan: RunPlan, servers: Servers, observer: Observer) -> Sender | PoolSender:
    """The way to the plan's model, with the plan's limits and patience."""
    pace = Pace(plan.rpm, plan.tpm) if plan.rpm or plan.tpm else None
    if isinstance(servers, Sequence):
        return PoolSender(
            servers,
            policy=plan.policy,
            deadlines=plan.deadlines,
            limits=PoolLimits(plan.concurrency, pace, plan.max_wait_s),
            observer=observer,
        )
    limiter = Limiter(
        plan.concurrency,
        climb=Climb(plan.start, plan.concurrency) if plan.start else None,
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
