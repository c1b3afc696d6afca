"""Worker pool, prefetcher, and how a run is asked to stop."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mellea_cli.engine.concurrency import WorkerSlots
from mellea_cli.engine.workers import Prefetcher, Stop, run_workers
from mellea_cli.errors import ExitCode


def test_the_first_wish_counts_and_the_second_hurries() -> None:
    """Reason and exit code are the first one's; the second means at once."""
    stop = Stop()
    stop.ask("first", ExitCode.TERMINATED)
    assert (stop.asked.is_set(), stop.now.is_set()) == (True, False)
    stop.ask("second", ExitCode.INTERRUPTED)
    assert (stop.reason, stop.exit_code, stop.now.is_set()) == ("first", ExitCode.TERMINATED, True)


def test_a_limit_that_is_reached_while_stopping_does_not_hurry() -> None:
    """Only people hurry a run."""
    stop = Stop()
    stop.ask_once("deadline", ExitCode.STOPPED_EARLY)
    stop.ask_once("budget", ExitCode.STOPPED_EARLY)
    assert (stop.reason, stop.now.is_set()) == ("deadline", False)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
    ],
)
async def test_signals_ask(number: signal.Signals, code: ExitCode) -> None:
    """Each signal asks with its own exit code, and its handler is gone afterwards."""
    before, stop = signal.getsignal(number), Stop()
    with stop.on_signals():
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await stop.asked.wait()
    assert (stop.exit_code, signal.getsignal(number)) == (code, before)
    assert number.name in stop.reason


async def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal stops nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)
            assert not stop.asked.is_set()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
        assert await run_workers(feed, work, workers=5, stop=Stop(), grace_s=1)
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
        assert await run_workers(feed, work, workers=3, stop=stop, grace_s=30)
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
        assert not await run_workers(feed, work, workers=1, stop=stop, grace_s=3_600 if twice else 0.05)
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
            await run_workers(feed, work, workers=3, stop=Stop(), grace_s=1)
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
            await run_workers(feed, work, workers=3, stop=Stop(), grace_s=1)
    assert sorted(done) == [1, 2]


async def test_a_wish_from_before_takes_nothing() -> None:
    """A pool that starts when it is to stop ends at once."""
    stop = Stop()
    stop.ask("enough", ExitCode.INTERRUPTED)

    async def work(item: int) -> None:
        raise AssertionError("nothing may be taken")

    async with Prefetcher(iter([1]), ahead=1) as feed:
        assert await run_workers(feed, work, workers=2, stop=stop, grace_s=1)


async def test_workers_without_a_slot_take_nothing() -> None:
    """Ten workers, two slots: never more than two items at once, and the pool ends with the input."""
    out = most = 0

    async def work(_: int) -> None:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(0)
        out -= 1

    async with Prefetcher(iter(range(100)), ahead=64) as feed:
        assert await run_workers(feed, work, workers=10, stop=Stop(), grace_s=1, slots=WorkerSlots(2))
    assert most == 2


async def test_a_stop_reaches_workers_without_a_slot() -> None:
    """They end although they never got one."""
    stop = Stop()

    async def work(_: int) -> None:
        stop.ask("enough", ExitCode.INTERRUPTED)

    async with Prefetcher(itertools.count(), ahead=8) as feed:
        assert await run_workers(feed, work, workers=10, stop=stop, grace_s=1, slots=WorkerSlots(1))
