"""One task group, N workers, each pulls its own next item."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mellea_cli.engine.feed import Feed
from mellea_cli.engine.stop import Stop

T = TypeVar("T")


async def run_pool(
    feed: Feed[T], work: Callable[[T], Awaitable[None]], *, workers: int, stop: Stop, grace_s: float
) -> bool:
    """Call `work` on every item of `feed`, `workers` at a time, until the feed ends or `stop` is asked for.

    Args:
        feed: where the items come from.
        work: takes one item to its end. An exception from it ends the pool.
        workers: items that are worked on at once.
        stop: when asked, no new item is taken; what is left in the feed stays there.
        grace_s: how long the items in flight may go on after that, in seconds.

    Returns:
        Whether every item that was taken has been finished.

    Raises:
        Exception: the first that `work` raised, bare; the other workers are cancelled first. Or what the feed raised:
            then the items in flight have been finished before.
    """
    broken: list[Exception] = []
    try:
        async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
            tasks = [group.create_task(_worker(feed, work, stop, broken)) for _ in range(workers)]
            guard = group.create_task(_guard(feed, stop, deadline, grace_s))
            await asyncio.wait(tasks, return_when=asyncio.ALL_COMPLETED)
            guard.cancel()
    except TimeoutError:
        if not stop.asked.is_set():
            raise
        return False
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    if broken:
        raise broken[0]
    return True


async def _worker(feed: Feed[T], work: Callable[[T], Awaitable[None]], stop: Stop, broken: list[Exception]) -> None:
    while not stop.asked.is_set():
        try:
            item = await feed.next()
        except Exception as error:  # noqa: BLE001 - raised again once the items in flight are done: they are paid for
            broken.append(error)
            return
        if item is None:
            return
        await work(item)


async def _guard(feed: Feed[T], stop: Stop, deadline: asyncio.Timeout, grace_s: float) -> None:
    await stop.asked.wait()
    feed.interrupt()
    loop = asyncio.get_running_loop()
    deadline.reschedule(loop.time() + grace_s)
    await stop.now.wait()
    deadline.reschedule(loop.time())


def _first(failures: BaseExceptionGroup) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
