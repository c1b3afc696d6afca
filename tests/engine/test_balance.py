"""Which endpoint gets the next request, and who waits."""

from __future__ import annotations

import asyncio
import math

import pytest

from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.engine.circuit_breaker import CircuitBreaker, ServerAway
from mellea_cli.engine.concurrency import ConcurrencyLimiter
from mellea_cli.engine.endpoint import Endpoint, Lane
from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.load_balancer import LoadBalancer, NoEndpointLeft
from mellea_cli.errors import NotAuthorized
from mellea_cli.events import Event, Paused


def lane(name: str, places: int = 4, *, weight: float = 1.0, mean_s: float | None = None) -> Lane:
    """A lane with so many places, whose answers took that long just now."""
    endpoint = Endpoint(name, ScriptedBackend(), "m", places, weight)
    made = Lane(endpoint, ConcurrencyLimiter(places), CircuitBreaker(), Deadlines())
    made._mean_s, made._measured = mean_s, asyncio.get_running_loop().time()
    return made


async def placed(balance: LoadBalancer, requests: int) -> list[str]:
    """Where so many requests go, in order."""
    return [(await balance.place({})).endpoint.name for _ in range(requests)]


async def until_waiting(balance: LoadBalancer, number: int) -> None:
    while len(balance._waiting) != number:  # noqa: ASYNC110 - it counts who waits, which no event tells
        await asyncio.sleep(0)


async def test_requests_are_spread_over_free_places() -> None:
    """Two endpoints alike get as many each."""
    found = await placed(LoadBalancer([lane("a"), lane("b")]), 8)
    assert sorted(found) == ["a"] * 4 + ["b"] * 4
    assert set(found[:2]) == {"a", "b"}


async def test_a_larger_endpoint_gets_more() -> None:
    """Places and weight both count: twice as much of either is twice as many requests."""
    assert (await placed(LoadBalancer([lane("a", 4), lane("b", 8)]), 6)).count("b") == 4
    assert (await placed(LoadBalancer([lane("a", 8), lane("b", 8, weight=2)]), 6)).count("b") == 4


async def test_a_fast_endpoint_gets_more_while_there_is_a_choice() -> None:
    """One that answers in a tenth of the time gets nearly all of a few requests."""
    balance = LoadBalancer([lane("slow", 8, mean_s=1.0), lane("fast", 8, mean_s=0.1)])
    assert await placed(balance, 8) == ["fast"] * 8


async def test_one_that_is_not_measured_is_tried() -> None:
    """A new endpoint counts as fast as the fastest, and so does one whose figures are old."""
    old = lane("old", 8, mean_s=1.0)
    old._measured -= 3_600
    found = await placed(LoadBalancer([old, lane("new", 8), lane("fast", 8, mean_s=0.1)]), 6)
    assert sorted(found) == ["fast"] * 2 + ["new"] * 2 + ["old"] * 2


async def test_who_waits_gets_the_next_place_in_turn_and_a_second_try_goes_first() -> None:
    """Nothing is queued at an endpoint; a request that was sent before has waited longer."""
    one = lane("a", 1)
    balance = LoadBalancer([one])
    await balance.place({})
    order: list[str] = []

    async def wait(name: str, *, again: bool = False) -> None:
        await balance.place({}, again=again)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for number, (name, again) in enumerate((("first", False), ("second", False), ("again", True)), 1):
            group.create_task(wait(name, again=again))
            await until_waiting(balance, number)
        for left in (2, 1, 0):
            balance.leave(one)
            await until_waiting(balance, left)
    assert order == ["again", "first", "second"]


async def test_the_limit_for_all_holds() -> None:
    """However many places there are, no more requests than that are under way."""
    balance = LoadBalancer([lane("a"), lane("b")], most=3)
    await placed(balance, 3)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balance.place({}))
        await until_waiting(balance, 1)
        balance.leave(balance.lanes[0])
        assert (await task).endpoint.name in {"a", "b"}
    assert balance.peak == 3


async def test_whoever_gives_up_waiting_takes_no_place_along() -> None:
    """Not even when the place came at the same moment."""
    one = lane("a", 1)
    balance = LoadBalancer([one])
    await balance.place({})
    task = asyncio.get_running_loop().create_task(balance.place({}))
    await until_waiting(balance, 1)
    balance.leave(one)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.load == 0


async def test_near_the_end_a_slow_endpoint_is_spared() -> None:
    """Whoever would wait for it longer than the fast ones need for all the rest goes to a fast one instead."""
    slow, fast = lane("slow", 4, mean_s=10.0), lane("fast", 2, mean_s=0.1)
    balance = LoadBalancer([slow, fast])
    await placed(balance, 2)
    assert fast.load == 2
    balance.left = lambda: 1_000
    assert (await balance.place({})) is slow
    balance.left = lambda: 5
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balance.place({}))
        await until_waiting(balance, 1)
        balance.leave(fast)
        assert (await task) is fast


async def test_near_the_end_a_slow_endpoint_is_not_spared_when_it_is_the_only_one() -> None:
    """What is set aside, or asks to rest, does not count as a faster one."""
    slow, fast = lane("slow", 4, mean_s=10.0), lane("fast", 2, mean_s=0.1)
    balance = LoadBalancer([slow, fast])
    balance.left = lambda: 0
    fast.rest(100, asyncio.get_running_loop().time())
    assert (await balance.place({})) is slow
    fast.rests_until = -math.inf
    fast.breaker.set_aside(0.0)
    assert (await balance.place({})) is slow


async def test_a_rest_of_all_is_a_pause_and_ends_by_itself() -> None:
    """The first one whose time has come gets the request; the pause was said."""
    events: list[Event] = []
    balance = LoadBalancer([lane("a"), lane("b")], observer=events.append)
    now = asyncio.get_running_loop().time()
    balance.lanes[0].rest(60, now)
    balance.lanes[1].rest(0.05, now)
    assert (await balance.place({})).endpoint.name == "b"
    assert [event.reason for event in events if isinstance(event, Paused)] == ["every endpoint asks to be left alone"]


async def test_when_all_are_aside_for_too_long_every_request_fails() -> None:
    """The error names each endpoint's trouble, and what to do."""
    balance = LoadBalancer([lane("a"), lane("b")], max_wait_s=0.05)
    for one in balance.lanes:
        one.error = NotAuthorized("is it there?")
        one.breaker.set_aside(0.0)
    with pytest.raises(ServerAway, match=r"a: is it there\?; b: is it there\?") as raised:
        await balance.place({})
    assert "--max-wait" in raised.value.hint


async def test_rests_that_are_longer_than_anybody_waits_end_it_at_once() -> None:
    """There is nothing to wait for."""
    balance = LoadBalancer([lane("a")], max_wait_s=5)
    balance.lanes[0].rest(3_600, asyncio.get_running_loop().time())
    with pytest.raises(ServerAway):
        await balance.place({})


async def test_when_none_is_left_the_reasons_are_told() -> None:
    """With the first hint that there is."""
    balance = LoadBalancer([lane("a"), lane("b")])
    for one in balance.lanes:
        one.error = NotAuthorized("wrong key", hint=f"set {one.endpoint.name}")
        one.breaker.leave_out()
    with pytest.raises(NoEndpointLeft, match="a: wrong key; b: wrong key") as raised:
        await balance.place({})
    assert raised.value.hint == "set a"


async def test_who_would_go_to_none_that_is_left_goes_there_all_the_same() -> None:
    """A request that is kept from one endpoint must not wait for ever when the other one is lost."""
    one, other = lane("one"), lane("other", 1)
    balance = LoadBalancer([one, other])
    await balance.place({one: math.inf})
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balance.place({one: math.inf}))
        await until_waiting(balance, 1)
        other.breaker.leave_out()
        balance.lost()
        assert (await task) is one
