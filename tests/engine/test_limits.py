"""The gate that every model call passes."""

from __future__ import annotations

import asyncio

import pytest

from mellea_cli.engine.concurrency import AdaptiveConcurrency, ConcurrencyLimiter
from mellea_cli.engine.rate_limiter import RateLimiter


async def reached(limiter: ConcurrencyLimiter, count: int) -> None:
    """Give others turns until so many are in flight."""
    for _ in range(1_000):
        if limiter.in_flight == count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{limiter.in_flight} in flight, not {count}")


class Crowd:
    """Tasks that hold places until they are let go."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.go = asyncio.Event()
        self.most = 0

    async def one(self) -> None:
        async with self.limiter.slot():
            self.most = max(self.most, self.limiter.in_flight)
            await self.go.wait()


async def test_never_more_than_the_bound_are_in_flight() -> None:
    """Of fifty tasks seven hold a place at once, and all get one in the end."""
    limiter = ConcurrencyLimiter(7)
    crowd = Crowd(limiter)
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(crowd.one())
        await reached(limiter, 7)
        crowd.go.set()
    assert (crowd.most, limiter.peak, limiter.in_flight) == (7, 7, 0)


async def test_places_are_given_in_the_order_of_asking() -> None:
    """Who waits longest goes next."""
    limiter, order = ConcurrencyLimiter(1), []

    async def one(number: int) -> None:
        async with limiter.slot():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(one(number))
    assert order == list(range(10))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_place_is_not_lost_with_a_task_that_is_cancelled(turns: int) -> None:
    """Whoever is cancelled while it waits, or in the very moment of its turn, leaves the place to the next one."""
    limiter = ConcurrencyLimiter(1)
    crowd = Crowd(limiter)
    holder = asyncio.ensure_future(crowd.one())
    await reached(limiter, 1)
    waiter = asyncio.ensure_future(crowd.one())
    await asyncio.sleep(0)
    crowd.go.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    async with asyncio.timeout(5), limiter.slot():
        assert limiter.in_flight == 1


async def test_a_pause_holds_everyone_back_and_a_shorter_one_does_not_end_it() -> None:
    """Nobody starts before the end of the longest pause that was asked for."""
    limiter = ConcurrencyLimiter(4)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert limiter.pause(0.2)
    assert not limiter.pause(0.05)
    starts: list[float] = []

    async def one() -> None:
        async with limiter.slot():
            starts.append(loop.time())

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())
    assert min(starts) >= began + 0.2


async def test_the_pace_spaces_the_starts() -> None:
    """With 1,200 requests a minute two starts lie 50 ms apart, less the slack that a timer gets."""
    limiter, starts = ConcurrencyLimiter(8, pace=RateLimiter(rpm=1_200)), []

    async def one() -> None:
        async with limiter.slot() as started:
            starts.append(started)

    async with asyncio.TaskGroup() as group:
        for _ in range(9):
            group.create_task(one())
    assert max(starts) - min(starts) >= 8 * 0.05 - 0.15


async def test_refusals_bring_the_bound_down_to_what_the_server_takes() -> None:
    """Sixteen are sent, twelve are refused: four remain allowed, whatever the order of the refusals."""
    limiter = ConcurrencyLimiter(16)
    accepted = asyncio.Event()
    gone = 0

    async def one(number: int) -> None:
        nonlocal gone
        async with limiter.slot() as started:
            for _ in range(32):  # until all have been sent
                await asyncio.sleep(0)
            if number >= 4:
                limiter.refused(started, by_time=False)
                gone += 1
            else:
                await accepted.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(one(number))
        await reached(limiter, 4)
        accepted.set()
    assert limiter.allowed == 4


async def test_refusals_by_time_cut_once_for_all_that_were_sent_together() -> None:
    """A whole round of refusals that name a time takes a fifth of the places, not all."""
    limiter = ConcurrencyLimiter(10)
    for _ in range(10):
        async with limiter.slot():
            limiter.refused(0.0, by_time=True)
    assert limiter.allowed == 8


async def test_the_last_place_is_never_taken_away() -> None:
    """However often the server refuses, one request may be tried; that one was alone."""
    limiter = ConcurrencyLimiter(3)
    for _ in range(50):
        async with limiter.slot() as started:
            alone = limiter.refused(started, by_time=False)
    assert limiter.allowed == 1
    assert alone


async def test_the_bound_comes_back_and_tries_beyond_a_refusal_ever_more_rarely() -> None:
    """A server that takes four: each further probe for a fifth place comes after more answers than the last."""
    limiter, gaps, answers = ConcurrencyLimiter(16), [], 0
    async with limiter.slot() as started:
        limiter.refused(started, by_time=False)
    while len(gaps) < 5:
        limiter.answered()
        answers += 1
        if limiter.allowed > 4:
            gaps.append(answers)
            answers = 0
            async with limiter.slot() as started:
                limiter.refused(started, by_time=True)
    assert gaps[2] < gaps[3] < gaps[4]


async def test_a_limit_that_is_lifted_is_found() -> None:
    """With answers only, the whole concurrency comes back."""
    limiter = ConcurrencyLimiter(16)
    async with limiter.slot() as started:
        limiter.refused(started, by_time=True)
    for _ in range(5_000):
        limiter.answered()
    assert limiter.allowed == 16


def test_no_concurrency_is_no_limiter() -> None:
    """A limiter that lets nothing through is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        ConcurrencyLimiter(0)


async def test_a_search_sets_the_bound() -> None:
    """What the search allows may be in flight, and what it has found is at hand for the next."""
    limiter = ConcurrencyLimiter(
        64, climb=AdaptiveConcurrency(2, 64), clock=iter(float(second) for second in range(1_000_000)).__next__
    )
    assert limiter.allowed == 2
    for _ in range(100):
        async with limiter.slot() as first, limiter.slot():
            limiter.letters += 50
            limiter.answered(first)
    assert limiter.allowed != 2


async def test_a_refusal_ends_the_way_up() -> None:
    """The search hears of it, and goes on below."""
    climb = AdaptiveConcurrency(16, 64)
    limiter = ConcurrencyLimiter(64, climb=climb, clock=lambda: 1.0)
    async with limiter.slot() as started:
        limiter.refused(started, by_time=True)
    assert limiter.allowed == climb.level == 12
    async with limiter.slot() as started:
        limiter.strained(started)
    assert climb.level <= 12


async def test_workers_wait_for_room() -> None:
    """Those beyond the bound take nothing until it rises, or until there is nothing more to take."""
    limiter = ConcurrencyLimiter(4, climb=AdaptiveConcurrency(1, 4), clock=lambda: 0.0)
    entered: list[int] = []

    async def worker(number: int) -> None:
        await limiter.room(number)
        entered.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(worker(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0]
        limiter.release()
    assert sorted(entered) == [0, 1, 2, 3]


async def test_the_first_request_may_be_alone_until_it_is_answered() -> None:
    """Then as many as are allowed go at once, also when it failed."""
    limiter = ConcurrencyLimiter(4, first_alone_s=1e6)
    gates = [asyncio.Event() for _ in range(6)]

    async def ask(number: int) -> None:
        async with limiter.slot():
            await gates[number].wait()
            if number == 0:
                raise ValueError

    asking = [asyncio.create_task(ask(number)) for number in range(6)]
    await reached(limiter, 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (limiter.in_flight, limiter.allowed) == (1, 1)
    gates[0].set()
    await reached(limiter, 4)
    assert limiter.allowed == 4
    for gate in gates:
        gate.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert limiter.peak == 4


async def test_the_first_request_is_alone_for_so_long_at_most() -> None:
    """A long first answer must not hold up all the others."""
    limiter = ConcurrencyLimiter(3, first_alone_s=0.01)
    hanging, through = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with limiter.slot():
            await hanging.wait()

    async def second() -> None:
        async with limiter.slot():
            through.set()

    one = asyncio.create_task(first())
    await reached(limiter, 1)
    await asyncio.wait_for(second(), 30)
    assert through.is_set()
    hanging.set()
    await one
