"""The model servers of one command: opened, looked at, and closed again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mellea_cli.cli.choose import Chosen, prepare
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.queuing import server_of
from mellea_cli.errors import BackendError, UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.messages import Message
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.way import Servers
    from mellea_cli.ui.show import Show


def _never() -> bool:
    return False


@asynccontextmanager
async def ready_servers(
    flags: Flags,
    chosen: Chosen,
    prefixes: Sequence[tuple[Message, ...]],
    show: Show,
    idle: Callable[[], bool] = _never,
) -> AsyncIterator[Servers]:
    """Open the model server, or those of a pool; they are closed again at the end.

    Until a run begins there is nothing to save: Ctrl-C ends the program as usual.

    Args:
        flags: how verbose it is, and where it stands.
        chosen: which one.
        prefixes: the beginnings that the prompts share.
        show: told when reading those takes a moment, and of endpoints that cannot be used.
        idle: whether there is nothing to ask, so that a server which cannot be used is no matter.

    Raises:
        BackendError: the server cannot be used, or does not have the model.
    """
    if chosen.pool is not None:
        from mellea_cli.cli.pools import opened

        async with opened(chosen.pool, pull=flags.pull, say=show.say) as endpoints:
            yield endpoints
        return
    from mellea_cli.backends.local import LocalBackend
    from mellea_cli.backends.registry import BackendSettings
    from mellea_cli.cli.keyed import open_keyed

    settings = BackendSettings(
        model=chosen.model,
        base_url=server_of(flags),
        concurrency=chosen.concurrency,
        together=True,
        verbose=flags.verbose > 1,
    )
    backend = await open_keyed(chosen.backend, settings, ask=not flags.nightly)
    try:
        if isinstance(backend, LocalBackend):
            # It starts with the first question: a run that finds every answer in the journal needs no model at all.
            backend.expect(prefixes, show.say)
        else:
            try:
                await prepare(backend, chosen.model, pull=flags.pull)
            except BackendError:
                # The server is away or lacks the model: that is no matter where every answer is there already.
                if not await asyncio.to_thread(idle):
                    raise
        yield backend
    finally:
        await backend.aclose()


async def as_the_server_says(plan: RunPlan, servers: Servers) -> RunPlan:
    """Begin the search for the best number of requests with what the server works on at once, where it says so."""
    from mellea_cli.backends.openai import OpenAIBackend

    if plan.start is None or not isinstance(servers, OpenAIBackend):
        return plan
    places = await servers.places()
    return dataclasses.replace(plan, start=min(places, plan.concurrency)) if places else plan


def the_one(servers: Servers) -> Backend:
    """The server where there is only one: what a batch queue belongs to. Raises `UsageError` for a pool."""
    if isinstance(servers, Sequence):
        raise UsageError("a batch queue belongs to one provider, not to a pool", hint="name one --base-url")
    return servers
