"""The way from a question to a model, through the transport's faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from streams import Streams, asking, raising, saying

from mellea_cli.backends.http_errors import RateLimitStatus
from mellea_cli.engine.circuit_breaker import Outage, ServerAway
from mellea_cli.engine.client import Sender
from mellea_cli.engine.concurrency import ConcurrencyLimiter
from mellea_cli.engine.generate import CallObserver, Deadlines
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.retry import RetryBudget, RetryPolicy
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    NotAuthorized,
    RateLimited,
    RunawayAnswer,
    ServerFault,
    StreamBroken,
)
from mellea_cli.events import Event, Paused
from mellea_cli.messages import Chunk, GenerateRequest, Usage

QUICK = RetryPolicy(base_s=0.001, cap_s=0.002)
ANSWER = saying("fine")


def sender(backend: Streams, concurrency: int = 4, **more: object) -> Sender:
    """A sender that waits next to nothing between two attempts."""
    settings: dict[str, object] = {"policy": QUICK, "outage": Outage(after=10_000), **more}
    return Sender(backend, ConcurrencyLimiter(concurrency), **settings)  # type: ignore[arg-type]  # settings of many types


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


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("refused"),
        RateLimited("slow down", status=429),
        ServerFault("crashed", status=500),
        StreamBroken("cut"),
    ],
)
async def test_a_fault_of_the_transport_heals(error: BackendError) -> None:
    """The request is sent again as it was, and the answer says how often."""
    backend, watch = Streams(raising(error, "half "), ANSWER), Heard()
    sending = sender(backend)
    completion = await sending.send(asking(), watch)
    assert (completion.text, completion.attempts, sending.retries) == ("fine", 2, 1)
    assert backend.requests[0] == backend.requests[1]
    assert (watch.failures, watch.retries) == ([error.kind], [2])


@pytest.mark.parametrize("error", [NotAuthorized("wrong key", status=401), ContextTooLong("too long", status=400)])
async def test_what_asking_again_cannot_mend_is_asked_once(error: BackendError) -> None:
    """A wrong key or a prompt that does not fit costs one request."""
    backend = Streams(raising(error))
    with pytest.raises(type(error)):
        await sender(backend).send(asking())
    assert len(backend.requests) == 1


async def test_the_budget_of_retries_is_kept() -> None:
    """After the fifth retry the fault is let through, with the number of attempts."""
    backend = Streams(raising(ServerFault("crashed", status=500)))
    with pytest.raises(ServerFault) as caught:
        await sender(backend).send(asking())
    assert (len(backend.requests), caught.value.attempts) == (6, 6)


async def test_no_retries() -> None:
    """With `max_retries=0` the first fault is let through."""
    backend = Streams(raising(RateLimited("slow down", status=429)))
    with pytest.raises(RateLimited):
        await sender(backend, policy=RetryPolicy(max_retries=0)).send(asking())
    assert len(backend.requests) == 1


async def test_a_budget_that_is_shared_is_shared() -> None:
    """What one request of a question has used up the next one does not have."""
    fault = ServerFault("crashed", status=500)
    backend = Streams(*[raising(fault)] * 3, ANSWER, raising(fault))
    sending, spent = sender(backend), RetryBudget()
    assert (await sending.send(asking(), spent=spent)).attempts == 4
    with pytest.raises(ServerFault) as caught:
        await sending.send(asking(), spent=spent)
    assert (caught.value.attempts, spent.sent, spent.faults) == (3, 7, 6)


async def test_a_watch_that_has_shown_pieces_refuses_a_second_sending() -> None:
    """Nobody who has seen half an answer gets another beginning."""
    backend = Streams(raising(StreamBroken("cut"), "half"), ANSWER)
    with pytest.raises(StreamBroken):
        await sender(backend).send(asking(), Heard(may_resend=False))
    assert len(backend.requests) == 1


async def test_no_wait_ends_after_the_elapsed_bound() -> None:
    """A Retry-After that leads beyond the time a caller has fails at once."""
    backend = Streams(raising(RateLimited("slow down", status=429, retry_after_s=5)))
    with pytest.raises(RateLimited):
        await sender(backend, policy=RetryPolicy(max_elapsed_s=1)).send(asking())
    assert len(backend.requests) == 1


async def test_retry_after_holds_everyone_back() -> None:
    """What the server asks of one request all requests keep, and the screen hears of it once."""
    heard: list[Event] = []
    backend = Streams(raising(RateLimited("slow down", status=429, retry_after_s=0.2)), ANSWER)
    sending = sender(backend, observer=heard.append)
    starts: list[float] = []
    clock = asyncio.get_running_loop().time

    async def timed(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        starts.append(clock())
        async for chunk in ANSWER(request):
            yield chunk

    backend._streams = (backend._streams[0], timed)
    began = clock()
    async with asyncio.TaskGroup() as group:
        group.create_task(sending.send(asking()))
        await asyncio.sleep(0.05)
        for _ in range(3):
            group.create_task(sending.send(asking()))
    assert len(starts) == 4
    assert min(starts) - began >= 0.2
    assert len([event for event in heard if isinstance(event, Paused)]) == 1


async def test_an_outage_costs_no_request_its_budget() -> None:
    """While the server is away requests are not charged: with one retry allowed all get through."""
    tries = 0

    async def back_after_forty(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal tries
        tries += 1
        if tries <= 25:
            raise BackendUnavailable("connection refused")
        async for chunk in ANSWER(request):
            yield chunk

    outage = Outage(first_s=0.001, longest_s=0.002)
    sending = sender(Streams(back_after_forty), policy=RetryPolicy(max_retries=1, base_s=0.001), outage=outage)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sending.send(asking())) for _ in range(8)]
    assert [task.result().text for task in tasks] == ["fine"] * 8


async def test_after_an_outage_a_request_has_its_whole_budget_left() -> None:
    """Five failures of the server's absence, then a fault of the request's own: its one retry is still there."""
    gone = raising(BackendUnavailable("connection refused"))
    backend = Streams(*[gone] * 5, raising(ServerFault("crashed", status=500)), ANSWER)
    policy = RetryPolicy(max_retries=1, base_s=0.001)
    completion = await sender(backend, policy=policy, outage=Outage(after=1, first_s=0.001)).send(asking())
    assert (completion.text, completion.attempts) == ("fine", 7)


async def test_a_server_that_stays_away_ends_in_one_error() -> None:
    """After the longest wait the error is of the kind that ends a run."""
    backend = Streams(raising(BackendUnavailable("connection refused")))
    sending = sender(backend, outage=Outage(first_s=0.01, max_wait_s=0.05))
    with pytest.raises(ServerAway):
        await sending.send(asking())


async def test_a_runaway_answer_is_the_models_business() -> None:
    """It is let through for the attempt loop to judge, and counts as a sign of life."""
    outage = Outage(after=1)
    outage.failed(BackendUnavailable("connection refused"))
    backend = Streams(saying(*["the same "] * 200))
    with pytest.raises(RunawayAnswer):
        await sender(backend, outage=outage).send(asking())
    assert not outage.away


async def test_steps_back_until_the_server_takes_what_it_gets() -> None:
    """Behind a server with three places 120 requests through a limiter of twelve all get their answer."""
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
    sending = sender(backend, concurrency=12)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sending.send(asking())) for _ in range(120)]
    assert all(task.result().text == "fine" for task in tasks)
    assert len(backend.requests) < 150
    assert sending.limiter.allowed in (3, 4)


async def test_a_server_that_refuses_everything_is_waited_for() -> None:
    """When it refuses many questions, each alone, that is an outage: it is waited out, not charged."""
    tries = 0

    async def later(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal tries
        tries += 1
        if tries <= 60:
            raise RateLimited("no", status=429)
        async for chunk in ANSWER(request):
            yield chunk

    sending = sender(Streams(later), outage=Outage(first_s=0.001, longest_s=0.001))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sending.send(asking())) for _ in range(6)]
    assert all(task.result().text == "fine" for task in tasks)


async def test_one_question_that_is_refused_for_ever_fails_within_its_budget() -> None:
    """The trouble may be its own: after nine retries it is a dead letter, though it was alone each time."""
    backend = Streams(raising(RateLimited("no", status=429)))
    with pytest.raises(RateLimited) as caught:
        await sender(backend, concurrency=1, outage=Outage(first_s=0.001)).send(asking())
    assert (len(backend.requests), caught.value.attempts) == (10, 10)


async def test_what_the_headers_say_is_heeded() -> None:
    """When nothing is left the next request waits for the reset, and the screen hears why."""

    class Metering(Streams):
        rate_limit_status = RateLimitStatus(((0, 0.2), (100, 60)))

    heard: list[Event] = []
    sending = sender(Metering(ANSWER), observer=heard.append)
    clock = asyncio.get_running_loop().time
    await sending.send(asking())
    before = clock()
    await sending.send(asking())
    assert clock() - before >= 0.19
    assert [event.delay_s for event in heard if isinstance(event, Paused)] == [0.2]


async def test_the_pace_of_tokens_learns_from_usage() -> None:
    """Requests that cost a quarter of a minute's tokens each are sent that far apart."""
    limiter = ConcurrencyLimiter(4, pace=RateLimiter(tpm=60_000))
    sending = Sender(Streams(saying("a", usage=Usage(100, 200))), limiter, policy=QUICK)
    clock = asyncio.get_running_loop().time
    before = clock()
    for _ in range(3):
        await sending.send(asking())
    assert clock() - before >= 0.4


async def test_a_deadline_is_a_fault_like_others() -> None:
    """A call that gets no token in time is sent again."""

    async def silent(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        await asyncio.Event().wait()
        yield Chunk()

    completion = await sender(Streams(silent, ANSWER), deadlines=Deadlines(0.05)).send(asking())
    assert completion.attempts == 2


class Poisoned(Streams):
    """Fails at one text, as told, and answers everything else."""

    def __init__(self, failing: Callable[[GenerateRequest], AsyncGenerator[Chunk, None]]) -> None:
        super().__init__(ANSWER)
        self.failing = failing

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        if request.messages[0].content != "poison":
            return super().stream(request)
        self.requests.append(request)
        return self.failing(request)


async def _silence(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    await asyncio.Event().wait()
    yield Chunk()


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    "failing",
    [
        raising(ServerFault("unavailable", status=503)),
        raising(RateLimited("come back", status=503, retry_after_s=0.001)),
        raising(BackendUnavailable("connection reset")),
        _silence,
    ],
)
async def test_a_question_that_a_server_cannot_take_ends_within_its_budget(
    failing: Callable[[GenerateRequest], AsyncGenerator[Chunk, None]], concurrency: int
) -> None:
    """Nobody else is there to compare with: a question of our own shows that the server is, and so who is to blame."""
    backend, outage = Poisoned(failing), Outage(first_s=0.001, longest_s=0.002, max_wait_s=5)
    sending = sender(backend, concurrency, outage=outage, deadlines=Deadlines(0.02))
    with pytest.raises(BackendError) as caught:
        await sending.send(asking("poison"))
    assert not isinstance(caught.value, ServerAway)
    assert len(backend.requests) == caught.value.attempts <= 12
    assert (await sending.send(asking("another"))).text == "fine"


async def test_one_question_alone_waits_through_an_outage() -> None:
    """It fails with the question of our own as well: then it is the server, however long that takes."""
    tries = 0

    async def later(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        nonlocal tries
        tries += 1
        if tries <= 60:
            raise BackendUnavailable("connection refused")
        async for chunk in ANSWER(request):
            yield chunk

    sending = sender(Streams(later), concurrency=1, outage=Outage(first_s=0.001, longest_s=0.002))
    assert (await sending.send(asking())).text == "fine"
