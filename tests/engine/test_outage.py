"""A server that goes away and comes back, or does not."""

from __future__ import annotations

import asyncio

import pytest

from mellea_cli.engine.circuit_breaker import Outage, ServerAway
from mellea_cli.errors import (
    BackendUnavailable,
    ContextTooLong,
    ExitCode,
    RateLimited,
    Scope,
    ServerFault,
    StreamBroken,
)
from mellea_cli.events import Event, Paused

GONE = BackendUnavailable("connection refused")


def away(outage: Outage, times: int = 4) -> Outage:
    """Let it fail so often."""
    for _ in range(times):
        outage.failed(GONE)
    return outage


async def test_a_few_failures_in_a_row_are_an_outage() -> None:
    """Three failures are the requests' own; from the fourth on the server is away and no request is to blame."""
    outage = Outage()
    assert [outage.failed(GONE) for _ in range(6)] == [False, False, False, True, True, True]
    assert outage.away


async def test_an_answer_in_between_starts_the_count_again() -> None:
    """Failures that are not in a row are no outage."""
    outage = away(Outage(), 3)
    outage.answered()
    assert not away(outage, 3).away


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (BackendUnavailable("no connection"), True),
        (ServerFault("bad gateway", status=502), True),
        (RateLimited("come back later", status=503, retry_after_s=1), True),
        (ServerFault("gateway timeout", status=504), True),
        (ServerFault("internal error", status=500), False),
        (RateLimited("too many", status=429), False),
        (StreamBroken("cut"), False),
        (ContextTooLong("too long", status=400), False),
    ],
)
async def test_what_looks_like_an_outage(error: BackendUnavailable, counts: bool) -> None:
    """No connection and 502, 503, 504 do; a server that says something of its own is there."""
    outage = Outage()
    for _ in range(8):
        outage.failed(error)
    assert outage.away is counts


async def test_a_refusal_of_the_only_request_counts() -> None:
    """A server that refuses one question after the other, each alone, is away; one that refuses one for ever is not."""
    outage, refusal = Outage(), RateLimited("no", status=429)
    assert not any(outage.failed(refusal, alone=1) for _ in range(50))
    assert [outage.failed(refusal, alone=question) for question in (2, 3, 4)] == [False, False, True]


async def test_a_server_that_says_something_is_back() -> None:
    """An error of the server's own ends the outage: it answers."""
    outage = away(Outage())
    assert not outage.failed(ServerFault("internal error", status=500))
    assert not outage.away


async def test_one_asks_and_the_others_wait() -> None:
    """While it is away one request at a time goes out; all go once one is answered; everybody hears of it."""
    heard: list[Event] = []
    outage = away(Outage(first_s=0.01, observer=heard.append))
    out, most, asked = 0, 0, 0

    async def one() -> None:
        nonlocal out, most, asked
        async with outage.turn():
            out += 1
            asked += 1
            most = max(most, out)
            await asyncio.sleep(0)
            out -= 1
            if asked == 3:
                outage.answered()

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one())
    assert asked == 10
    assert most > 1  # after it was back
    pauses = [event for event in heard if isinstance(event, Paused)]
    assert len(pauses) == 3
    assert "connection refused; waiting for it to come back" in pauses[0].reason
    assert pauses[0].delay_s < pauses[1].delay_s < pauses[2].delay_s


async def test_it_is_given_up_after_the_longest_wait() -> None:
    """When the time is over every request fails with an error that ends the run and says how to go on."""
    outage = away(Outage(first_s=0.01, max_wait_s=0.05))

    async def ask() -> None:
        while True:
            async with outage.turn():
                outage.failed(GONE)

    with pytest.raises(ServerAway, match="connection refused") as caught:
        await ask()
    assert caught.value.scope is Scope.RUN
    assert caught.value.exit_code is ExitCode.STOPPED_EARLY
    assert "--max-wait" in caught.value.hint
    with pytest.raises(ServerAway):
        await ask()


async def test_the_probe_waits_as_long_as_the_server_asks() -> None:
    """A Retry-After beyond the next interval is waited for in full."""
    heard: list[Event] = []
    outage = Outage(first_s=0.01, observer=heard.append)
    for _ in range(4):
        outage.failed(RateLimited("later", status=503, retry_after_s=0.2))
    async with outage.turn():
        outage.answered()
    assert [event.delay_s for event in heard if isinstance(event, Paused)] == [0.2]


async def test_a_server_that_asks_for_longer_than_anybody_waits_ends_the_run() -> None:
    """One Retry-After of a day fails its item, several in a row are the account's limit for the day."""
    outage = Outage(max_wait_s=60)
    day = RateLimited("limit reached", status=429, retry_after_s=86_400)
    assert [outage.failed(day) for _ in range(3)] == [False] * 3
    with pytest.raises(ServerAway, match="86400 s"):
        outage.failed(day)


async def test_one_question_that_fails_among_others_is_no_outage() -> None:
    """As long as other questions are open and do not fail, no number of failures of one means that all is gone."""
    outage = Outage()
    with outage.question(), outage.question():
        assert not any(outage.failed(GONE, question=1) for _ in range(20))
        assert outage.failed(GONE, question=2)


async def test_the_only_question_there_is_can_notice_an_outage() -> None:
    """With one question open its failures in a row are all there is to see."""
    outage = Outage()
    with outage.question():
        assert [outage.failed(GONE, question=1) for _ in range(4)] == [False, False, False, True]
