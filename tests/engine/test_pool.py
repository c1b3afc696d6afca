"""N workers, and how they stop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from mellea_cli.engine.workers import Prefetcher, Stop, run_pool
from mellea_cli.errors import ExitCode


async def test_so_many_work_at_once_and_no_more() -> None:
    """Five workers, fifty items: five at once, all done."""
    out = most = 0
    done: list[int] = []

    async def work(item: int) -> None:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(0.001)
        out -= 1
        done.append(item)

    async with Prefetcher(iter(range(1, 51)), ahead=64) as feed:
        assert await run_pool(feed, work, workers=5, stop=Stop(), grace_s=1)
    assert (most, sorted(done)) == (5, list(range(1, 51)))


async def test_stopping_lets_those_in_flight_finish() -> None:
    """After the wish to stop nothing new is taken; what is in flight ends; the rest stays in the feed."""
    stop, started, go = Stop(), [], asyncio.Event()
    done: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        if len(started) == 3:
            stop.ask("enough", ExitCode.INTERRUPTED)
            asyncio.get_running_loop().call_later(0.01, go.set)
        await go.wait()
        done.append(item)

    async with Prefetcher(itertools.count(1), ahead=10) as feed:
        assert await run_pool(feed, work, workers=3, stop=stop, grace_s=30)
        feed.resume()
        assert await feed.next() == 4
    assert sorted(done) == [1, 2, 3]


@pytest.mark.parametrize("twice", [False, True])
async def test_grace_ends_with_time_or_with_a_second_wish(twice: bool) -> None:
    """An item that never ends is given up when the grace is over, or at once when somebody asks again."""
    stop, given_up = Stop(), []

    async def work(item: int) -> None:
        stop.ask("enough", ExitCode.INTERRUPTED)
        if twice:
            asyncio.get_running_loop().call_soon(stop.ask, "now", ExitCode.INTERRUPTED)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(item)
            raise

    async with asyncio.timeout(20), Prefetcher(iter([1]), ahead=1) as feed:
        assert not await run_pool(feed, work, workers=1, stop=stop, grace_s=3_600 if twice else 0.05)
    assert given_up == [1]


async def test_an_exception_from_a_worker_comes_bare_and_cancels_the_others() -> None:
    """A bug ends the pool with itself, not with a group of one."""
    cancelled = []

    async def work(item: int) -> None:
        if item == 3:
            raise KeyError("bug")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    async with Prefetcher(iter([1, 2, 3]), ahead=3) as feed:
        with pytest.raises(KeyError, match="bug"):
            await run_pool(feed, work, workers=3, stop=Stop(), grace_s=1)
    assert sorted(cancelled) == [1, 2]


async def test_a_broken_input_is_raised_after_those_in_flight_are_done() -> None:
    """Answers that are on their way when the input breaks off are paid for: they are finished first."""
    done: list[int] = []

    def breaking() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("line 3")

    async def work(item: int) -> None:
        await asyncio.sleep(0.02)
        done.append(item)

    async with Prefetcher(breaking(), ahead=5) as feed:
        with pytest.raises(ValueError, match="line 3"):
            await run_pool(feed, work, workers=3, stop=Stop(), grace_s=1)
    assert sorted(done) == [1, 2]


async def test_a_wish_from_before_takes_nothing() -> None:
    """A pool that starts when it is to stop ends at once."""
    stop = Stop()
    stop.ask("enough", ExitCode.INTERRUPTED)

    async def work(item: int) -> None:
        raise AssertionError("nothing may be taken")

    async with Prefetcher(iter([1]), ahead=1) as feed:
        assert await run_pool(feed, work, workers=2, stop=stop, grace_s=1)


class Doors:
    """Lets the first two workers in, all of them once there is nothing more to take."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def room(self, number: int) -> None:
        if number >= 2:
            await self.open.wait()

    def release(self) -> None:
        self.open.set()


async def test_workers_without_room_take_nothing_and_hold_nothing_up() -> None:
    """Ten workers, room for two: never more than two items at once, and the pool ends with the input."""
    out = most = 0

    async def work(_: int) -> None:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(0)
        out -= 1

    async with Prefetcher(iter(range(100)), ahead=64) as feed:
        assert await run_pool(feed, work, workers=10, stop=Stop(), grace_s=1, rooms=Doors())
    assert most == 2


async def test_a_wish_to_stop_reaches_workers_without_room() -> None:
    """They end although room never came."""
    stop = Stop()

    async def work(_: int) -> None:
        stop.ask("enough", ExitCode.INTERRUPTED)

    async with Prefetcher(itertools.count(), ahead=8) as feed:
        assert await run_pool(feed, work, workers=10, stop=stop, grace_s=1, rooms=Doors())
