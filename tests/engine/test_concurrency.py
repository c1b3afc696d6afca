"""Concurrency limiter and worker slots."""

from __future__ import annotations

import asyncio

import pytest

from mellea_cli.engine.concurrency import AdaptiveConcurrency, ConcurrencyLimiter, WorkerSlots


def test_refusals_bring_the_limit_down_to_what_the_server_takes() -> None:
    """Sixteen are sent, twelve are refused: four remain allowed, whatever the order of the refusals."""
    limiter = ConcurrencyLimiter(16)
    for in_flight in range(16, 4, -1):
        limiter.refused(1.0, 0.0, in_flight, by_time=False)
    assert limiter.allowed == 4


def test_refusals_by_time_cut_once_for_all_that_were_sent_together() -> None:
    """A whole round of refusals that name a time takes a fifth of the limit, not all of it."""
    limiter = ConcurrencyLimiter(10)
    for in_flight in range(10, 0, -1):
        limiter.refused(1.0, 0.0, in_flight, by_time=True)
    assert limiter.allowed == 8


def test_one_request_is_always_allowed() -> None:
    """However often the server refuses, one request may be tried; the limiter says that it was alone."""
    limiter = ConcurrencyLimiter(3)
    for now in range(50):
        alone = limiter.refused(now + 0.5, float(now), 1, by_time=False)
    assert limiter.allowed == 1
    assert alone


def test_the_limit_comes_back_and_exceeds_a_refusal_more_and_more_rarely() -> None:
    """A server that takes four: each further try of a fifth request comes after more answers than the last."""
    limiter, gaps, answers, now = ConcurrencyLimiter(16), [], 0, 0.0
    limiter.refused(0.5, 0.0, 5, by_time=False)
    while len(gaps) < 5:
        now += 1
        limiter.answered(now, now, 4, 0)
        answers += 1
        if limiter.allowed > 4:
            gaps.append(answers)
            answers = 0
            limiter.refused(now + 0.5, now, 5, by_time=True)
    assert gaps[2] < gaps[3] < gaps[4]


def test_a_limit_that_is_lifted_is_found() -> None:
    """With answers only, the whole concurrency comes back."""
    limiter = ConcurrencyLimiter(16)
    limiter.refused(1.0, 0.0, 16, by_time=True)
    for _ in range(5_000):
        limiter.answered(2.0, 1.0, 16, 0)
    assert limiter.allowed == 16


def test_a_limit_below_one_is_a_mistake() -> None:
    """It would let nothing through."""
    with pytest.raises(ValueError, match="at least 1"):
        ConcurrencyLimiter(0)


def test_an_adaptive_search_sets_the_limit() -> None:
    """What the search allows may be in flight."""
    limiter = ConcurrencyLimiter(64, adaptive=AdaptiveConcurrency(2, 64))
    assert limiter.allowed == 2
    changed = [limiter.answered(float(now + 1), float(now), 2, 50 * now) for now in range(100)]
    assert limiter.allowed != 2
    assert any(changed)


def test_a_refusal_ends_the_way_up() -> None:
    """The search learns of it and goes on below."""
    adaptive = AdaptiveConcurrency(16, 64)
    limiter = ConcurrencyLimiter(64, adaptive=adaptive)
    limiter.refused(1.0, 0.0, 16, by_time=True)
    assert limiter.allowed == adaptive.level == 12
    limiter.strained(2.0, 1.5, 12)
    assert adaptive.level <= 12


def test_the_first_request_may_be_alone() -> None:
    """The limit is one until it is opened up."""
    limiter = ConcurrencyLimiter(4, first_alone=True)
    assert limiter.allowed == 1
    limiter.open_up()
    assert limiter.allowed == 4


async def test_workers_wait_for_a_slot() -> None:
    """Those beyond the limit take nothing until it rises, or until there is nothing more to take."""
    slots, entered = WorkerSlots(1), []

    async def worker(number: int) -> None:
        await slots.wait(number)
        entered.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(worker(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0]
        slots.set_limit(2)
        await asyncio.sleep(0)
        assert entered == [0, 1]
        slots.release()
    assert sorted(entered) == [0, 1, 2, 3]
