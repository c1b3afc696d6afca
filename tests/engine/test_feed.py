"""Items from a plain iterator, read in a thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest

from mellea_cli.engine.workers import Prefetcher


async def drain(feed: Prefetcher[int]) -> list[int]:
    """Everything that is left."""
    found = []
    while (item := await feed.next()) is not None:
        found.append(item)
    return found


async def test_every_item_once_and_in_order() -> None:
    """One consumer sees the iterator's order, then `None` for ever."""
    async with Prefetcher(iter(range(1, 1_000)), ahead=7) as feed:
        assert await drain(feed) == list(range(1, 1_000))
        assert await feed.next() is None


async def test_many_consumers_share_without_loss() -> None:
    """Twenty consumers together get each item exactly once."""
    async with Prefetcher(iter(range(1, 5_000)), ahead=3) as feed, asyncio.TaskGroup() as group:
        tasks = [group.create_task(drain(feed)) for _ in range(20)]
    assert sorted(itertools.chain.from_iterable(task.result() for task in tasks)) == list(range(1, 5_000))


async def test_no_more_is_read_ahead_than_asked_for() -> None:
    """An endless iterator is read as far as `ahead`, and as far again as items are taken."""
    read = 0
    reached = threading.Event()

    def endless() -> Iterator[int]:
        nonlocal read
        for read in itertools.count(1):
            if read >= 11:
                reached.set()
            yield read

    async with Prefetcher(endless(), ahead=10) as feed:
        # The thread holds one more in its hand.
        assert await asyncio.to_thread(reached.wait, 10)
        assert await feed.next() == 1
        for _ in range(100):
            await asyncio.sleep(0)
        assert read <= 12


async def test_an_error_is_carried_over_after_the_items_before_it() -> None:
    """What the iterator raises comes to whoever asks next, each time."""

    def breaking() -> Iterator[int]:
        yield 1
        raise ValueError("line 2")

    async with Prefetcher(breaking(), ahead=5) as feed:
        assert await feed.next() == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="line 2"):
                await feed.next()


async def test_interrupting_keeps_what_is_left() -> None:
    """Whoever waits is told that there is none; after `resume` the rest comes, nothing lost."""
    gate = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        gate.wait(10)
        yield from range(2, 6)

    async with Prefetcher(slow(), ahead=5) as feed:
        assert await feed.next() == 1
        waiting = asyncio.ensure_future(feed.next())
        await asyncio.sleep(0)
        feed.interrupt()
        assert await waiting is None
        gate.set()
        assert await feed.next() is None
        feed.resume()
        assert await drain(feed) == [2, 3, 4, 5]


async def test_leaving_stops_an_iterator_that_waits() -> None:
    """The source is told to stop, and the thread ends with it."""
    gate = threading.Event()

    def waiting() -> Iterator[int]:
        gate.wait(10)
        yield from ()

    feed = Prefetcher(waiting(), ahead=1, stop=gate.set)
    async with feed:
        pass
    assert gate.is_set()
    assert not feed._thread.is_alive()


async def test_leaving_stops_an_endless_iterator() -> None:
    """A thread that waits for room is let go."""
    feed = Prefetcher(itertools.count(1), ahead=2)
    async with feed:
        assert await feed.next() == 1
    assert not feed._thread.is_alive()
