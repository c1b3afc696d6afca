"""Load balancer: which endpoint gets the next request, and which request waits."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.endpoint import Endpoint, EndpointConfig
from mellea_cli.engine.load_balancer import LoadBalancer, NoEndpointLeft, ServerAway
from mellea_cli.errors import NotAuthorized, ServerFault
from mellea_cli.events import Event, Paused


def made(name: str, limit: int = 4, *, weight: float = 1.0, mean_s: float | None = None) -> Endpoint:
    """An endpoint with this limit, whose mean latency was measured just now."""
    endpoint = Endpoint(EndpointConfig(name, ScriptedBackend(), "m", limit, weight=weight), CircuitBreaker())
    endpoint.mean_s, endpoint._measured_at = mean_s, asyncio.get_running_loop().time()
    return endpoint


async def assigned(balancer: LoadBalancer, requests: int) -> list[str]:
    """The endpoints of this many requests, in order."""
    return [(await balancer.acquire({})).config.name for _ in range(requests)]


async def until_waiting(balancer: LoadBalancer, number: int) -> None:
    while len(balancer._waiting) != number:  # noqa: ASYNC110 - it counts waiting requests, which no event tells
        await asyncio.sleep(0)


async def test_requests_are_spread_over_free_places() -> None:
    """Two endpoints alike get as many each."""
    found = await assigned(LoadBalancer([made("a"), made("b")]), 8)
    assert sorted(found) == ["a"] * 4 + ["b"] * 4
    assert set(found[:2]) == {"a", "b"}


async def test_a_larger_endpoint_gets_more() -> None:
    """Places and weight both count: twice as much of either is twice as many requests."""
    assert (await assigned(LoadBalancer([made("a", 4), made("b", 8)]), 6)).count("b") == 4
    assert (await assigned(LoadBalancer([made("a", 8), made("b", 8, weight=2)]), 6)).count("b") == 4


async def test_a_fast_endpoint_gets_more_while_there_is_a_choice() -> None:
    """One that answers in a tenth of the time gets nearly all of a few requests."""
    balancer = LoadBalancer([made("slow", 8, mean_s=1.0), made("fast", 8, mean_s=0.1)])
    assert await assigned(balancer, 8) == ["fast"] * 8


async def test_one_that_is_not_measured_is_tried() -> None:
    """A new endpoint counts as fast as the fastest, and so does one whose figures are old."""
    old = made("old", 8, mean_s=1.0)
    old._measured_at -= 3_600
    found = await assigned(LoadBalancer([old, made("new", 8), made("fast", 8, mean_s=0.1)]), 6)
    assert sorted(found) == ["fast"] * 2 + ["new"] * 2 + ["old"] * 2


async def test_waiting_requests_are_served_in_order_and_retries_first() -> None:
    """Nothing is queued at an endpoint; a request that was sent before has waited longer."""
    one = made("a", 1)
    balancer = LoadBalancer([one])
    await balancer.acquire({})
    order: list[str] = []

    async def wait(name: str, *, first: bool = False) -> None:
        await balancer.acquire({}, first=first)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for number, (name, first) in enumerate((("first", False), ("second", False), ("again", True)), 1):
            group.create_task(wait(name, first=first))
            await until_waiting(balancer, number)
        for left in (2, 1, 0):
            balancer.release(one, answered=True)
            await until_waiting(balancer, left)
    assert order == ["again", "first", "second"]


async def test_the_limit_for_all_holds() -> None:
    """However many places there are, no more requests than that are under way."""
    balancer = LoadBalancer([made("a"), made("b")], limit=3)
    await assigned(balancer, 3)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balancer.acquire({}))
        await until_waiting(balancer, 1)
        balancer.release(balancer.endpoints[0], answered=True)
        assert (await task).config.name in {"a", "b"}
    assert balancer.peak == 3


async def test_whoever_gives_up_waiting_takes_no_place_along() -> None:
    """Not even when the place came at the same moment."""
    one = made("a", 1)
    balancer = LoadBalancer([one])
    await balancer.acquire({})
    task = asyncio.get_running_loop().create_task(balancer.acquire({}))
    await until_waiting(balancer, 1)
    balancer.release(one, answered=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.in_flight == 0


async def test_a_thousand_waiting_requests_cost_one_no_more() -> None:
    """When a request ends, those that wait and avoid nothing are not looked at one by one: a session may have many."""

    class Watched(dict[Endpoint, float]):
        looks = 0

        def values(self) -> Any:
            self.looks += 1
            return super().values()

    one = made("a", 1)
    balancer = LoadBalancer([one])
    await balancer.acquire({})
    avoided = [Watched() for _ in range(1_000)] + [Watched({made("b"): 0.0})]
    tasks = [asyncio.get_running_loop().create_task(balancer.acquire(avoid)) for avoid in avoided]
    await until_waiting(balancer, len(tasks))
    balancer.release(one, answered=True)
    await tasks[0]
    assert sum(avoid.looks for avoid in avoided[:-1]) == 0
    assert avoided[-1].looks == 2
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert not balancer._avoiding


async def test_near_the_end_a_slow_endpoint_is_spared() -> None:
    """Whoever would wait for it longer than the fast ones need for all the rest goes to a fast one instead."""
    slow, fast = made("slow", 4, mean_s=10.0), made("fast", 2, mean_s=0.1)
    balancer = LoadBalancer([slow, fast])
    await assigned(balancer, 2)
    assert fast.in_flight == 2
    balancer.remaining = lambda: 1_000
    assert (await balancer.acquire({})) is slow
    balancer.remaining = lambda: 5
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balancer.acquire({}))
        await until_waiting(balancer, 1)
        balancer.release(fast, answered=True)
        assert (await task) is fast


async def test_near_the_end_a_slow_endpoint_is_not_spared_when_it_is_the_only_one() -> None:
    """What is unavailable, or asks to rest, does not count as a faster one."""
    slow, fast = made("slow", 4, mean_s=10.0), made("fast", 2, mean_s=0.1)
    balancer = LoadBalancer([slow, fast])
    balancer.remaining = lambda: 0
    fast.rest(100, asyncio.get_running_loop().time(), "busy")
    assert (await balancer.acquire({})) is slow
    fast.rests_until = -math.inf
    fast.breaker.open(0.0)
    assert (await balancer.acquire({})) is slow


async def test_a_rest_of_all_is_a_pause_and_ends_by_itself() -> None:
    """The first one whose time has come gets the request; the pause was said."""
    events: list[Event] = []
    balancer = LoadBalancer([made("a"), made("b")], observer=events.append)
    now = asyncio.get_running_loop().time()
    balancer.endpoints[0].rest(60, now, "a is busy")
    balancer.endpoints[1].rest(0.05, now, "b is busy")
    assert (await balancer.acquire({})).config.name == "b"
    assert [event.reason for event in events if isinstance(event, Paused)] == ["a is busy; b is busy"]


async def test_when_all_are_aside_for_too_long_every_request_fails() -> None:
    """The error names each endpoint's trouble, and what to do."""
    balancer = LoadBalancer([made("a"), made("b")], max_wait_s=0.05)
    for one in balancer.endpoints:
        one.error = ServerFault("is it there?")
        one.breaker.open(0.0)
    with pytest.raises(ServerAway, match=r"a: is it there\?; b: is it there\?") as raised:
        await balancer.acquire({})
    assert "--max-wait" in raised.value.hint


async def test_rests_that_are_longer_than_anybody_waits_end_it_at_once() -> None:
    """There is nothing to wait for."""
    balancer = LoadBalancer([made("a")], max_wait_s=5)
    balancer.endpoints[0].rest(3_600, asyncio.get_running_loop().time(), "busy")
    with pytest.raises(ServerAway):
        await balancer.acquire({})


async def test_when_none_is_left_the_reasons_are_told() -> None:
    """With the first hint that there is."""
    balancer = LoadBalancer([made("a"), made("b")])
    for one in balancer.endpoints:
        one.error = NotAuthorized("wrong key", hint=f"set {one.config.name}")
        one.breaker.disable()
    with pytest.raises(NoEndpointLeft, match="a: wrong key; b: wrong key") as raised:
        await balancer.acquire({})
    assert raised.value.hint == "set a"


async def test_who_would_go_to_none_that_is_left_still_goes_there() -> None:
    """A request that is kept from one endpoint must not wait for ever when the other one is lost."""
    one, other = made("one"), made("other", 1)
    balancer = LoadBalancer([one, other])
    await balancer.acquire({one: math.inf})
    async with asyncio.TaskGroup() as group:
        task = group.create_task(balancer.acquire({one: math.inf}))
        await until_waiting(balancer, 1)
        other.breaker.disable()
        balancer.disabled()
        assert (await task) is one
