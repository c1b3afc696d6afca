"""Model client with one server: retries, rests, outages, and whose fault a refusal is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from streams import Streams, asking, raising, saying

from mellea_cli.backends.rate_limits import RateLimitStatus
from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker
from mellea_cli.engine.client import ClientLimits, ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import CallObserver, Deadlines
from mellea_cli.engine.load_balancer import EndpointRefuses, ServerAway
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.retry import RetryBudget, RetryPolicy
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    EndpointMissing,
    ExitCode,
    ModelMissing,
    NotAuthorized,
    QuotaSpent,
    RateLimited,
    RequestRefused,
    RunawayAnswer,
    Scope,
    ServerFault,
    StreamBroken,
)
from mellea_cli.events import Event, Paused
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Options, Usage

QUICK = RetryPolicy(base_s=0.001, cap_s=0.002)
ANSWER = saying("fine")
GONE = BackendUnavailable("connection refused")
Failing = Callable[[GenerateRequest], AsyncGenerator[Chunk, None]]


def client(backend: Any, concurrency: int = 4, *, start: int | None = None, **more: Any) -> ModelClient:
    """A client that waits next to nothing between two attempts and two probes."""
    more.setdefault("policy", QUICK)
    more.setdefault("breaker", lambda: CircuitBreaker(first_s=0.001, longest_s=0.002))
    return ModelClient([EndpointConfig("s", backend, "m", concurrency, start=start)], **more)


@asynccontextmanager
async def maintained(backend: Any, concurrency: int = 4, **more: Any) -> AsyncIterator[ModelClient]:
    """A client whose open breakers are probed."""
    made = client(backend, concurrency, **more)
    async with asyncio.TaskGroup() as group:
        maintenance = group.create_task(made.maintain())
        try:
            yield made
        finally:
            maintenance.cancel()


async def send_all(made: ModelClient, requests: int, text: str = "hello") -> list[Completion]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.send(asking(f"{text} {number}"))) for number in range(requests)]
    return [task.result() for task in tasks]


class Heard(CallObserver):
    """Notes what it is told."""

    __slots__ = ("failures", "may_resend", "pieces", "retries")

    def __init__(self, *, may_resend: bool = True) -> None:
        self.failures: list[str] = []
        self.pieces: list[str] = []
        self.retries: list[int] = []
        self.may_resend = may_resend

    def text(self, piece: str) -> None:
        self.pieces.append(piece)

    def failed(self, kind: str, message: str) -> None:
        self.failures.append(kind)

    def resend(self) -> bool:
        return self.may_resend

    def retry(self, delay_s: float, attempt: int) -> None:
        self.retries.append(attempt)


class Server(Streams):
    """Answers everything but what `fault` says; `probes` counts the questions of the program's own."""

    def __init__(self, fault: Callable[[str, int], BackendError | None]) -> None:
        super().__init__(ANSWER)
        self.fault = fault
        self.probes = 0

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        text = request.messages[-1].content
        self.requests.append(request)
        self.probes += text == "Say OK."
        await asyncio.sleep(0)
        if (error := self.fault(text, len(self.requests))) is not None:
            raise error
        async for chunk in ANSWER(request):
            yield chunk


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("refused"),
        RateLimited("slow down", status=429),
        ServerFault("crashed", status=500),
        StreamBroken("cut"),
    ],
)
async def test_a_transport_fault_heals(error: BackendError) -> None:
    """The request is sent again as it was, and the completion says how often."""
    backend, heard = Streams(raising(error, "half "), ANSWER), Heard()
    made = client(backend)
    completion = await made.send(asking(), heard)
    assert (completion.text, completion.attempts, made.retries) == ("fine", 2, 1)
    assert backend.requests[0] == backend.requests[1]
    assert (heard.failures, heard.retries) == ([error.kind], [2])


@pytest.mark.parametrize(
    "error",
    [
        NotAuthorized("wrong key", status=401),
        QuotaSpent("nothing left", status=429),
        ContextTooLong("too long", status=400),
    ],
)
async def test_what_asking_again_cannot_help_is_asked_once(error: BackendError) -> None:
    """A wrong key or a prompt that does not fit costs one request."""
    backend = Streams(raising(error))
    with pytest.raises(type(error)):
        await client(backend).send(asking())
    assert len(backend.requests) == 1


async def test_the_retry_budget_is_kept() -> None:
    """After the fifth retry the fault is raised, with the number of attempts."""
    backend = Streams(raising(ServerFault("crashed", status=500)))
    with pytest.raises(ServerFault) as caught:
        await client(backend, breaker=lambda: CircuitBreaker(threshold=None)).send(asking())
    assert (len(backend.requests), caught.value.attempts) == (6, 6)


async def test_no_retries() -> None:
    """With `max_retries=0` the first fault is raised."""
    backend = Streams(raising(RateLimited("slow down", status=429)))
    with pytest.raises(RateLimited):
        await client(backend, policy=RetryPolicy(max_retries=0)).send(asking())
    assert len(backend.requests) == 1


async def test_a_shared_budget_is_shared() -> None:
    """What one request of a question has used up the next one does not have."""
    fault = ServerFault("crashed", status=500)
    backend = Streams(*[raising(fault)] * 3, ANSWER, raising(fault))
    made, budget = client(backend, breaker=lambda: CircuitBreaker(threshold=None)), RetryBudget()
    assert (await made.send(asking(), budget=budget)).attempts == 4
    with pytest.raises(ServerFault) as caught:
        await made.send(asking(), budget=budget)
    assert (caught.value.attempts, budget.sent, budget.faults) == (3, 7, 6)


async def test_an_observer_that_has_shown_pieces_refuses_a_resend() -> None:
    """A user who has seen half an answer does not get another beginning."""
    backend = Streams(raising(StreamBroken("cut"), "half"), ANSWER)
    with pytest.raises(StreamBroken):
        await client(backend).send(asking(), Heard(may_resend=False))
    assert len(backend.requests) == 1


async def test_no_retry_starts_after_the_elapsed_bound() -> None:
    """A Retry-After that leads beyond the caller's time fails at once."""
    backend = Streams(raising(RateLimited("slow down", status=429, retry_after_s=5)))
    with pytest.raises(RateLimited):
        await client(backend, policy=RetryPolicy(max_elapsed_s=1)).send(asking())
    assert len(backend.requests) == 1


async def test_retry_after_holds_every_request_back() -> None:
    """All requests keep what the server asks of one, and the screen learns of it once."""
    heard: list[Event] = []
    starts: list[float] = []
    clock = asyncio.get_running_loop().time

    async def timed(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        starts.append(clock())
        async for chunk in ANSWER(request):
            yield chunk

    backend = Streams(raising(RateLimited("slow down", status=429, retry_after_s=0.2)), timed)
    made = client(backend, observer=heard.append)
    began = clock()
    async with asyncio.TaskGroup() as group:
        group.create_task(made.send(asking()))
        while not made.endpoints[0].failures:  # noqa: ASYNC110 - it counts failures, which no event tells
            await asyncio.sleep(0)
        for _ in range(3):
            group.create_task(made.send(asking()))
    assert len(starts) == 4
    assert min(starts) - began >= 0.2
    assert [event.reason for event in heard if isinstance(event, Paused)] == ["slow down"]


async def test_an_outage_costs_no_request_its_budget() -> None:
    """While the breaker is open requests are not charged: with one retry allowed all succeed."""
    server = Server(lambda _text, number: GONE if number <= 25 else None)
    async with maintained(server, 4, policy=RetryPolicy(max_retries=1, base_s=0.001)) as made:
        answers = await send_all(made, 8)
    assert [answer.text for answer in answers] == ["fine"] * 8


async def test_a_failure_in_flight_when_the_breaker_opens_is_not_charged() -> None:
    """Of eight questions that fail for ever at once, four open the breaker: each other one is sent once more."""
    server = Server(lambda text, _number: StreamBroken("cut") if text.startswith("poison") else None)

    async def attempts(number: int) -> int:
        with pytest.raises(StreamBroken) as caught:
            await made.send(asking(f"poison {number}"))
        return caught.value.attempts

    async with maintained(server, 8, limits=ClientLimits(max_wait_s=5)) as made:
        await made.send(asking("first"))
        found = Counter(await asyncio.gather(*map(attempts, range(8))))
    assert set(found) == {6, 7}
    assert found[7] >= 4
    assert 1 + sum(number * rows for number, rows in found.items()) == len(server.requests) - server.probes


async def test_one_request_alone_waits_through_an_outage() -> None:
    """The probe fails as well: so it is the server, however long that takes."""
    server = Server(lambda _text, number: GONE if number <= 60 else None)
    async with maintained(server, 1) as made:
        assert (await made.send(asking())).text == "fine"
    assert server.probes >= 50


async def test_pauses_of_an_outage_are_told() -> None:
    """The event has the reason and the time to the next probe."""
    heard: list[Event] = []
    server = Server(lambda _text, number: GONE if number <= 10 else None)
    async with maintained(server, 1, observer=heard.append) as made:
        await made.send(asking())
    pauses = [event for event in heard if isinstance(event, Paused)]
    assert pauses
    waiting = "waiting up to 300 s for it to come back (--max-wait); Ctrl-C stops"
    assert pauses[0].reason == f"connection refused; {waiting}"


async def test_a_server_that_stays_away_ends_in_one_error() -> None:
    """After the longest wait the error is of the kind that ends a run, and says how to continue."""
    server = Server(lambda _text, _number: GONE)
    async with maintained(server, limits=ClientLimits(max_wait_s=0.05)) as made:
        with pytest.raises(ServerAway, match="connection refused") as caught:
            await made.send(asking())
    assert caught.value.scope is Scope.RUN
    assert caught.value.exit_code is ExitCode.STOPPED_EARLY
    assert "--max-wait" in caught.value.hint


async def test_a_runaway_answer_is_judged_elsewhere() -> None:
    """It is raised for the attempt loop, and counts as a sign of life."""
    backend = Streams(raising(GONE), saying(*["the same "] * 200))
    made = client(backend)
    with pytest.raises(RunawayAnswer):
        await made.send(asking())
    assert made.endpoints[0].breaker.failures == 0


async def test_the_limit_follows_what_the_server_takes() -> None:
    """Behind a server with three places 120 requests with a limit of twelve all get their answer."""
    working = 0

    async def three_places(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal working
        if working >= 3:
            raise RateLimited("too many", status=429)
        working += 1
        try:
            await asyncio.sleep(0.01)
            async for chunk in ANSWER(request):
                yield chunk
        finally:
            working -= 1

    backend = Streams(three_places)
    made = client(backend, concurrency=12)
    assert all(answer.text == "fine" for answer in await send_all(made, 120))
    assert len(backend.requests) < 150
    assert made.endpoints[0].limiter.allowed in (3, 4)


async def test_a_server_that_refuses_everything_for_a_while_is_waited_for() -> None:
    """When it rate-limits many requests, each alone, and the probe too, that is an outage."""
    server = Server(lambda _text, number: RateLimited("no", status=429) if number <= 60 else None)
    async with maintained(server) as made:
        assert all(answer.text == "fine" for answer in await send_all(made, 6))


async def test_one_question_that_is_rate_limited_for_ever_fails_within_its_budget() -> None:
    """After nine retries it fails, though it was alone each time: the probe shows that the server is there."""
    server = Server(lambda text, _number: None if text == "Say OK." else RateLimited("no", status=429))
    async with maintained(server, 1) as made:
        with pytest.raises(RateLimited):
            await made.send(asking())
    assert len(server.requests) - server.probes <= 20


async def test_answers_that_ask_for_a_day_in_a_row_end_the_run() -> None:
    """One Retry-After of a day fails its question, several in a row are the account's limit for the day."""
    server = Server(lambda _text, _number: RateLimited("limit reached", status=429, retry_after_s=86_400))
    made = client(server, 1, limits=ClientLimits(max_wait_s=60))
    for _ in range(3):
        with pytest.raises(RateLimited):
            await made.send(asking())
    with pytest.raises(RateLimited):
        await made.send(asking())
    with pytest.raises(ServerAway, match="86400 s"):
        await made.send(asking())
    assert len(server.requests) == 4


async def test_rate_limit_headers_are_respected() -> None:
    """When nothing is left the next request waits for the reset, and the screen learns why."""

    class Reporting(Streams):
        rate_limit_status = RateLimitStatus(((0, 0.2), (100, 60)))

    heard: list[Event] = []
    made = client(Reporting(ANSWER), observer=heard.append)
    clock = asyncio.get_running_loop().time
    await made.send(asking())
    before = clock()
    await made.send(asking())
    assert clock() - before >= 0.19
    assert [event.reason for event in heard if isinstance(event, Paused)] == [
        "the model server's headers say that its limit is reached"
    ]


async def test_the_rate_limiter_learns_from_usage() -> None:
    """Requests that take three hundred of sixty thousand tokens per minute are sent 0.3 s apart."""
    limits = ClientLimits(rate_limiter=RateLimiter(tpm=60_000))
    made = client(Streams(saying("a", usage=Usage(100, 200))), limits=limits)
    clock = asyncio.get_running_loop().time
    before = clock()
    for _ in range(3):
        await made.send(asking())
    assert clock() - before >= 0.4


async def test_a_missed_deadline_is_a_fault_like_others() -> None:
    """A call that gets no token in time is sent again."""

    async def silent(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        await asyncio.Event().wait()
        yield Chunk()

    made = client(Streams(silent, ANSWER)).with_deadlines(Deadlines(0.05))
    assert (await made.send(asking())).attempts == 2


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    "error",
    [
        ServerFault("unavailable", status=503),
        ServerFault("internal error", status=500),
        RateLimited("come back", status=503, retry_after_s=0.001),
        BackendUnavailable("connection reset"),
        StreamBroken("cut"),
    ],
)
async def test_a_question_that_a_server_cannot_take_ends_within_its_budget(
    error: BackendError, concurrency: int
) -> None:
    """No other request shows that the server is there: the probe does, so the question is charged."""
    server = Server(lambda text, _number: error if text == "poison" else None)
    async with maintained(server, concurrency, limits=ClientLimits(max_wait_s=5)) as made:
        with pytest.raises(type(error)) as caught:
            await made.send(asking("poison"))
        assert not isinstance(caught.value, ServerAway)
        assert len(server.requests) - server.probes == caught.value.attempts <= 12
        assert (await made.send(asking("another"))).text == "fine"


@pytest.mark.parametrize(
    "error",
    [
        NotAuthorized("flagged", status=403),
        NotAuthorized("not now", status=401),
        EndpointMissing("a web page", status=200),
        ModelMissing("no such model", status=404),
        RequestRefused("bad request", status=400),
    ],
)
async def test_a_refusal_of_one_row_is_the_rows(error: BackendError) -> None:
    """After the server has answered, a row that it refuses three times fails alone, when it answers a probe."""
    server = Server(lambda text, _number: error if text == "poison" else None)
    async with maintained(server) as made:
        await made.send(asking("first"))
        with pytest.raises(RequestRefused) as caught:
            await made.send(asking("poison"))
        assert (caught.value.status, caught.value.attempts, caught.value.scope) == (error.status, 3, Scope.ITEM)
        assert (await made.send(asking("another"))).text == "fine"
    assert server.probes == (error.status != 400)


@pytest.mark.parametrize("error", [NotAuthorized("not now", status=401), EndpointMissing("a web page", status=502)])
async def test_a_misconfiguration_that_passes_is_waited_for(error: BackendError) -> None:
    """After the server has answered, a fault that hits every row and the probe is an outage: no row pays for it."""
    server = Server(lambda _text, number: error if number > 1 and server.probes < 5 else None)
    async with maintained(server) as made:
        await made.send(asking())
        assert all(answer.text == "fine" for answer in await send_all(made, 12))


async def test_a_misconfiguration_that_stays_ends_the_run() -> None:
    """When the probes are refused as well, the error itself is raised, with its own hint."""
    server = Server(lambda _text, number: NotAuthorized("key revoked", status=401, hint="h") if number > 1 else None)
    async with maintained(server) as made:
        await made.send(asking())
        with pytest.raises(NotAuthorized, match="key revoked") as caught:
            await asyncio.gather(*(made.send(asking(str(number))) for number in range(12)))
    assert (caught.value.scope, caught.value.hint) == (Scope.RUN, "h")


async def test_a_server_that_refuses_everything_from_the_start_ends_the_run() -> None:
    """A 400 to the first rows and to the probe is the configuration: few requests, one error."""
    server = Server(lambda _text, _number: RequestRefused("what model is that?", status=400))
    made = client(server, 4)
    with pytest.raises(EndpointRefuses, match="what model is that") as caught:
        async with asyncio.timeout(10):
            await asyncio.gather(*(made.send(asking(str(number))) for number in range(40)))
    assert caught.value.scope is Scope.RUN
    assert server.probes == 1
    assert len(server.requests) <= 4 * 4
    assert made.endpoints[0].breaker.state is BreakerState.DISABLED


async def test_a_first_row_that_is_refused_is_told_from_a_misconfiguration() -> None:
    """The probe succeeds, so only the row fails."""
    server = Server(lambda text, _number: RequestRefused("bad", status=400) if text == "poison" else None)
    made = client(server)
    with pytest.raises(RequestRefused):
        await made.send(asking("poison"))
    assert (await made.send(asking())).text == "fine"
    assert server.probes == 1


async def test_the_first_request_may_be_alone_until_it_is_answered() -> None:
    """Then as many as are allowed go at once, also when it failed."""
    gate, working, most = asyncio.Event(), 0, 0

    async def counted(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await gate.wait()
        working -= 1
        async for chunk in ANSWER(request):
            yield chunk

    config = EndpointConfig("s", Streams(counted), "m", 4, first_alone_s=1e6)
    made = ModelClient([config], policy=QUICK)
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(made.send(asking()))
        while not working:  # noqa: ASYNC110 - it counts running requests, which no event tells
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (working, made.endpoints[0].limit) == (1, 1)
        gate.set()
    assert made.endpoints[0].limit == 4


async def test_the_first_request_is_alone_for_a_bounded_time() -> None:
    """A long first answer does not hold up all the others."""
    hanging = asyncio.Event()

    async def first(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        await hanging.wait()
        async for chunk in ANSWER(request):
            yield chunk

    made = ModelClient([EndpointConfig("s", Streams(first, ANSWER), "m", 3, first_alone_s=0.01)], policy=QUICK)
    async with asyncio.TaskGroup() as group:
        group.create_task(made.send(asking()))
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(made.send(asking()), 30)).text == "fine"
        hanging.set()


async def test_an_adaptive_limit_grows_with_the_text_that_arrives() -> None:
    """Worker slots follow the endpoint's limit."""

    async def slow(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        await asyncio.sleep(0.01)
        async for chunk in saying("x" * 100)(request):
            yield chunk

    made = client(Streams(slow), 64, start=2)
    assert made.slots is not None
    await send_all(made, 400)
    assert made.endpoints[0].limiter.allowed > 2
    assert made.concurrency > 2


def reasoning(
    needs: int, *, obeys: bool = False, shown: bool = True, finish: str = "length"
) -> Callable[[GenerateRequest], AsyncGenerator[Chunk, None]]:
    """A model that spends `needs` tokens on reasoning before it answers."""

    async def stream(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        limit = request.options.max_tokens or 0
        if limit >= needs or (obeys and request.options.thinking is False):
            yield Chunk("fine")
            yield Chunk(finish_reason="stop", usage=Usage(1, 1))
            return
        if shown:
            yield Chunk(thinking="hm, well")
        yield Chunk(finish_reason=finish, usage=Usage(1, limit))

    return stream


def limited(**options: Any) -> GenerateRequest:
    return dataclasses.replace(asking("hello"), options=Options(max_tokens=100, most_reasoning=16_384, **options))


@pytest.mark.parametrize(
    ("backend", "limits"),
    [
        (reasoning(600), [100, 1_124]),
        (reasoning(600, shown=False), [100, 1_124]),
        (reasoning(600, shown=False, finish="stop"), [100, 1_124]),
        (reasoning(9_000), [100, 1_124, 4_196, 16_484]),
        (reasoning(90_000, obeys=True), [100, 1_124, 4_196]),
    ],
)
async def test_the_limit_is_raised_for_reasoning(backend: Failing, limits: list[int]) -> None:
    """Step by step, for all later requests too; the calls and their tokens are counted."""
    streams = Streams(backend)
    made = client(streams)
    first = await made.send(limited())
    assert (first.text, first.attempts, first.usage.completion_tokens) == ("fine", len(limits), sum(limits[:-1]) + 1)
    second = await made.send(limited())
    assert (second.text, second.attempts) == ("fine", 1)
    assert [request.options.max_tokens for request in streams.requests] == [*limits, limits[-1]]
    assert made.retries == 0


async def test_reasoning_is_turned_off_only_where_nobody_asked_for_it() -> None:
    """From the second step on, and neither for a level nor where the server's own way was asked for."""
    for options, sent in (
        ({}, [None, None, False]),
        ({"thinking": "low"}, ["low"] * 3),
        ({"keeps_thinking": True}, [None] * 3),
    ):
        streams = Streams(reasoning(9_000))
        await client(streams).send(limited(**options))
        assert [request.options.thinking for request in streams.requests][:3] == sent


async def test_a_context_window_grows_with_the_limit() -> None:
    """What is reasoned needs room in the window as well."""
    streams = Streams(reasoning(600))
    await client(streams).send(limited(context_window=4_096))
    assert [request.options.context_window for request in streams.requests] == [4_096, 5_120]


async def test_a_limit_of_the_users_own_is_kept() -> None:
    """Without room for reasoning the answer comes as it is."""
    streams = Streams(reasoning(600))
    asked = dataclasses.replace(asking("hello"), options=Options(max_tokens=100))
    completion = await client(streams).send(asked)
    assert (completion.finish_reason, completion.attempts) == ("length", 1)


async def test_a_model_that_reasons_without_end_is_given_up() -> None:
    """After the last step each request is sent once."""
    streams = Streams(reasoning(1_000_000))
    made = client(streams)
    assert [(await made.send(limited())).attempts for _ in range(2)] == [4, 1]


async def test_a_long_answer_is_not_taken_for_reasoning() -> None:
    """An answer that runs into its limit by itself is judged elsewhere."""
    streams = Streams(saying("so it goes on and on", finish="length", usage=Usage(1, 100)))
    assert (await client(streams).send(limited())).attempts == 1


async def test_requests_side_by_side_raise_the_limit_once() -> None:
    """Each of several first requests is sent again with the same new limit."""
    streams = Streams(reasoning(600))
    made = client(streams)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(made.send(limited()))
    assert sorted({request.options.max_tokens for request in streams.requests}) == [100, 1_124]
