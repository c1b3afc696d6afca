"""One task group, N workers, each pulls its own next item."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mellea_cli.engine.feed import Feed
from mellea_cli.engine.stop import Stop

T = TypeVar("T")


class Rooms(Protocol):
    """Says how many workers may have work."""

    async def room(self, number: int) -> None:
        """Wait until the worker of that number, counted from 0, may take an item."""

    def release(self) -> None:
        """Let every worker that waits go: there is nothing more to take."""


class _AllAtOnce:
    """Lets every worker have work."""

    async def room(self, number: int) -> None:
        """Wait for nothing."""

    def release(self) -> None:
        """Nobody waits."""


async def run_pool(
    feed: Feed[T],
    work: Callable[[T], Awaitable[None]],
    *,
    workers: int,
    stop: Stop,
    grace_s: float,
    rooms: Rooms | None = None,
) -> bool:
    """Call `work` on every item of `feed`, `workers` at a time, until the feed ends or `stop` is asked for.

    Args:
        feed: where the items come from.
        work: takes one item to its end. An exception from it ends the pool.
        workers: items that are worked on at once, at most.
        rooms: how many of them, from moment to moment; `None` for all.
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
            crew = _Crew(feed, work, stop, rooms or _AllAtOnce(), broken)
            tasks = [group.create_task(crew.worker(number)) for number in range(workers)]
            guard = group.create_task(_guard(crew, deadline, grace_s))
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


@dataclass(frozen=True, slots=True)
class _Crew(Generic[T]):
    """What the workers of one pool share."""

    feed: Feed[T]
    work: Callable[[T], Awaitable[None]]
    stop: Stop
    rooms: Rooms
    broken: list[Exception]

    async def worker(self, number: int) -> None:
        """Take one item after the other while there are any, and room for this worker."""
        try:
            while not self.stop.asked.is_set():
                await self.rooms.room(number)
                try:
                    item = await self.feed.next()
                except Exception as error:  # noqa: BLE001 - raised once the items in flight are done: they are paid for
                    self.broken.append(error)
                    return
                if item is None:
                    return
                await self.work(item)
        finally:
            # One that ends means that there is nothing more to take.
            self.rooms.release()


async def _guard(crew: _Crew[T], deadline: asyncio.Timeout, grace_s: float) -> None:
    stop = crew.stop
    await stop.asked.wait()
    crew.feed.interrupt()
    crew.rooms.release()
    loop = asyncio.get_running_loop()
    deadline.reschedule(loop.time() + grace_s)
    await stop.now.wait()
    deadline.reschedule(loop.time())


def _first(failures: BaseExceptionGroup) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
