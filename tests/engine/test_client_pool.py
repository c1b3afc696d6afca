"""Model client over several real servers: balanced, failing over, probed, back again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.engine import client as endpoint_client
from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ClientLimits, ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import CallObserver, Deadlines
from mellea_cli.engine.load_balancer import NoEndpointLeft, ServerAway
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.retry import RetryBudget, RetryPolicy
from mellea_cli.errors import ContextTooLong, NotAuthorized, ServerFault, StreamBroken
from mellea_cli.events import Event, Note, Paused
from mellea_cli.messages import Completion, GenerateRequest, Message

Serve = Callable[..., ModelServer]
QUICK = RetryPolicy(base_s=0.001, cap_s=0.01)
TOO_LONG = faults.status(400, message="too long", code="context_length_exceeded")


def request(number: int = 0) -> GenerateRequest:
    return GenerateRequest("test-model", (Message("user", f"Hello MARK-{number}"),))


def endpoint(server: ModelServer, name: str = "", *, places: int = 4, key: str = "", **more: Any) -> EndpointConfig:
    """An endpoint that speaks OpenAI's protocol."""
    backend = OpenAIBackend(base_url=server.openai_url, api_key=key)
    return EndpointConfig(name or str(server.port), backend, "test-model", places, **more)


class Pool:
    """A pool, and what it told."""

    def __init__(self, endpoints: Sequence[EndpointConfig], **more: Any) -> None:
        self.events: list[Event] = []
        more.setdefault("policy", QUICK)
        more.setdefault("breaker", lambda: CircuitBreaker(first_s=0.01, longest_s=0.05))
        self.client = ModelClient(endpoints, observer=self.events.append, **more)

    async def send(self, requests: int) -> list[Completion]:
        """Send so many requests, all at once."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.client.send(request(number))) for number in range(requests)]
        return [task.result() for task in tasks]

    @property
    def notes(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Note)]

    def figures(self, name: str) -> Any:
        return next(one for one in self.client.figures() if one.name == name)


@asynccontextmanager
async def pooled(*endpoints: EndpointConfig, **more: Any) -> AsyncIterator[Pool]:
    """A pool that is tended, closed at the end."""
    pool = Pool(endpoints, **more)
    async with asyncio.TaskGroup() as group:
        tending = group.create_task(pool.client.maintain())
        try:
            yield pool
        finally:
            tending.cancel()
            await asyncio.wait([tending])
            for one in endpoints:
                await one.backend.aclose()


async def test_requests_go_to_all_and_each_limit_holds(serve: Serve) -> None:
    """Every request is answered once; no endpoint has more in flight than it may, and the figures are the servers'."""
    one, other = serve(latency_s=0.01), serve(latency_s=0.01)
    async with pooled(endpoint(one, "one", places=2), endpoint(other, "other", places=6)) as pool:
        answers = await pool.send(60)
    assert [f"MARK-{number}" in answer.text for number, answer in enumerate(answers)] == [True] * 60
    assert (one.state.max_in_flight, other.state.max_in_flight) == (2, 6)
    assert pool.client.peak == 8
    for server, name in ((one, "one"), (other, "other")):
        figures = pool.figures(name)
        assert (figures.requests, figures.answered, figures.failures) == (server.state.requests,) * 2 + (0,)
        assert figures.usage.completion_tokens == server.state.pieces
        assert figures.median_s is not None
    assert sum(one.share for one in pool.client.figures()) == pytest.approx(1)


async def test_both_protocols_and_a_name_of_its_own(serve: Serve) -> None:
    """Each endpoint is asked in its own words: its model's name, its way to leave reasoning out."""
    one, other = serve(), serve(models=("another-name",))
    ollama = EndpointConfig("ollama", OllamaBackend(base_url=one.url), "test-model", 4, thinking=False)
    openai = EndpointConfig("openai", OpenAIBackend(base_url=other.openai_url, api_key=""), "another-name", 4)
    async with pooled(ollama, openai) as pool:
        await pool.send(20)
    assert {body["model"] for body in one.state.bodies} == {"test-model"}
    assert {body["think"] for body in one.state.bodies} == {False}
    assert {body["model"] for body in other.state.bodies} == {"another-name"}
    assert all("reasoning_effort" not in body for body in other.state.bodies)
    assert one.state.requests + other.state.requests == 20


async def test_a_key_goes_to_its_own_endpoint_alone(serve: Serve) -> None:
    """Neither another endpoint nor the environment's key gets into a request."""
    one, other, bare = serve(api_key="sk-one"), serve(api_key="sk-other"), serve()
    async with pooled(endpoint(one, key="sk-one"), endpoint(other, key="sk-other"), endpoint(bare)) as pool:
        await pool.send(24)
    assert {header.get("authorization") for header in one.state.headers} == {"Bearer sk-one"}
    assert {header.get("authorization") for header in other.state.headers} == {"Bearer sk-other"}
    assert {header.get("authorization") for header in bare.state.headers} == {None}
    assert one.state.requests + other.state.requests + bare.state.requests == 24


@pytest.mark.parametrize("fault", [faults.status(500), faults.status(503), faults.cut(), faults.error_object()])
async def test_what_one_fails_at_another_answers(fault: Fault, serve: Serve) -> None:
    """An endpoint that fails at everything is no longer used after a few requests; only the figures show it."""
    bad, good = serve(fault=faults.always(fault)), serve()
    async with pooled(endpoint(bad, "bad"), endpoint(good, "good")) as pool:
        answers = await pool.send(40)
        assert len(answers) == 40
        assert good.state.completed == 40
        await bad.until(lambda state: any("Say OK" in prompt for prompt in state.attempts))
    figures = pool.figures("bad")
    assert (figures.answered, figures.state) == (0, "open")
    assert figures.requests == figures.failures <= 8
    # The last probe may have been cut off before it was sent.
    assert figures.probes - 1 <= bad.state.requests - figures.requests <= figures.probes
    assert pool.client.retries == figures.failures
    assert len([note for note in pool.notes if note.startswith("bad is not used for now")]) == 1


async def test_an_endpoint_that_heals_is_back(serve: Serve) -> None:
    """A question of our own finds that out, one request of the run tries it, then it takes its share again."""
    ill = [True]

    def plan(_: Call) -> Fault | None:
        return faults.status(500) if ill[0] else None

    one, other = serve(fault=plan), serve(latency_s=0.005)
    async with pooled(endpoint(one, "one"), endpoint(other, "other")) as pool:
        await pool.send(20)
        assert pool.figures("one").state == "open"
        ill[0] = False
        while pool.figures("one").state:
            await pool.send(8)
        before = pool.figures("one").answered
        await pool.send(20)
        assert pool.figures("one").answered > before
    assert "one is back" in pool.notes
    assert pool.figures("one").requests + pool.figures("one").probes == one.state.requests


async def test_an_endpoint_that_is_not_there_costs_no_request_of_the_run(serve: Serve) -> None:
    """It is known to be away before the first request: then only the probes look for it."""
    gone, good = serve(), serve()
    gone.stop()
    away = endpoint(gone, "gone", error=ServerFault("it is not there"))
    async with pooled(away, endpoint(good, "good")) as pool:
        await pool.send(20)
        assert pool.figures("gone").requests == 0
        gone.start()
        await gone.until(lambda state: state.requests > 0)
        while not pool.figures("gone").answered:
            await pool.send(4)
    assert gone.state.completed > 0


async def test_a_rest_is_that_of_one_endpoint(serve: Serve) -> None:
    """Retry-After keeps the requests from the endpoint that asks for it; the others go on, and nothing pauses."""
    busy = serve(fault=faults.always(faults.status(429, headers={"Retry-After": "3600"})))
    good = serve(latency_s=0.005)
    limits = ClientLimits(max_wait_s=7_200)
    async with pooled(endpoint(busy, "busy", places=3), endpoint(good, "good"), limits=limits) as pool:
        assert len(await pool.send(40)) == 40
    assert busy.state.requests <= 3
    assert good.state.completed == 40
    assert not any(isinstance(event, Paused) for event in pool.events)
    assert any(note.startswith("busy rests for 3600 s") for note in pool.notes)


async def test_too_many_at_once_lowers_that_endpoints_limit(serve: Serve) -> None:
    """One that takes two at a time gets about two, whatever it was allowed; all are answered."""
    small, large = serve(max_parallel=2, latency_s=0.01, retry_after=""), serve(latency_s=0.01)
    async with pooled(endpoint(small, "small", places=16), endpoint(large, "large", places=16)) as pool:
        assert len(await pool.send(100)) == 100
    assert small.state.completed + large.state.completed == 100
    assert pool.client.endpoints[0].limiter.allowed < 16
    assert pool.client.endpoints[1].limiter.allowed == 16


@pytest.mark.parametrize("trouble", ["key", "model", "address"])
async def test_what_does_not_pass_leaves_an_endpoint_out(trouble: str, serve: Serve) -> None:
    """A wrong key, a missing model, a wrong address: said once, with what to do, and never asked again."""
    wrong = serve(api_key="right") if trouble == "key" else serve(models=("other",)) if trouble == "model" else serve()
    url = f"{wrong.url}/nowhere" if trouble == "address" else wrong.openai_url
    bad = EndpointConfig("bad", OpenAIBackend(base_url=url, api_key="sk-wrong-5f1c"), "test-model", 4)
    good = serve()
    async with pooled(bad, endpoint(good, "good")) as pool:
        assert len(await pool.send(30)) == 30
    figures = pool.figures("bad")
    assert (figures.state, figures.answered, figures.probes) == ("disabled", 0, 0)
    assert figures.failures <= 4
    notes = [note for note in pool.notes if note.startswith("bad is disabled for the rest of the run")]
    assert len(notes) == 1
    assert "; " in notes[0]
    assert "5f1c" not in notes[0]


async def test_when_no_endpoint_is_left_the_run_is_told(serve: Serve) -> None:
    """Both keys are wrong: the error names both, has a hint, and is not for one item."""
    one, other = serve(api_key="right"), serve(api_key="right")
    async with pooled(endpoint(one, "one"), endpoint(other, "other")) as pool:
        with pytest.raises(NoEndpointLeft) as raised:
            await pool.client.send(request())
        with pytest.raises(NoEndpointLeft):
            await pool.client.send(request())
    assert "one: " in raised.value.message
    assert "other: " in raised.value.message
    assert raised.value.hint
    assert isinstance(pool.client.endpoints[0].error, NotAuthorized)


async def test_the_run_waits_only_while_all_are_away(serve: Serve) -> None:
    """With both gone everything pauses; the first that is back answers everything, and no request has paid for it."""
    one, other = serve(), serve()
    async with pooled(endpoint(one, "one"), endpoint(other, "other")) as pool:
        await pool.send(4)
        one.stop()
        other.stop()
        spent = RetryBudget()
        async with asyncio.TaskGroup() as group:
            several = group.create_task(pool.send(12))
            task = group.create_task(pool.client.send(request(99), budget=spent))
            while not any(isinstance(event, Paused) for event in pool.events):  # noqa: ASYNC110 - events are a list
                await asyncio.sleep(0.001)
            other.start()
            assert len(await several) == 12
            assert "MARK-99" in (await task).text
    paused = [event.reason for event in pool.events if isinstance(event, Paused)]
    assert "one: cannot reach" in paused[0]
    assert spent.faults <= QUICK.max_retries
    assert other.state.completed >= 13


async def test_the_wait_with_all_away_ends(serve: Serve) -> None:
    """After `max_wait_s` the request fails for the run, naming each endpoint."""
    one, other = serve(), serve()
    one.stop()
    other.stop()
    async with pooled(endpoint(one, "one"), endpoint(other, "other"), limits=ClientLimits(max_wait_s=0.3)) as pool:
        with pytest.raises(ServerAway, match=r"one: cannot reach .*; other: cannot reach"):
            await pool.client.send(request())


async def test_the_budget_of_retries_is_one_for_all_endpoints(serve: Serve) -> None:
    """A question that every endpoint fails at is sent as often as to one server, not as often to each."""
    failing = faults.status(500)
    one, other = (serve(fault=lambda call: failing if "MARK" in call.prompt else None) for _ in range(2))
    async with pooled(endpoint(one), endpoint(other), breaker=lambda: CircuitBreaker(threshold=1_000)) as pool:
        with pytest.raises(ServerFault) as raised:
            await pool.client.send(request())
    assert raised.value.attempts == 6
    asked = [count for one in (one, other) for prompt, count in one.state.attempts.items() if "MARK" in prompt]
    assert sum(asked) == 6
    assert min(one.state.requests, other.state.requests) > 0


async def test_a_prompt_that_is_too_long_for_one_may_fit_another(serve: Serve) -> None:
    """Each endpoint is asked once; only when all have refused is it the question's own failure."""
    small, large = serve(fault=faults.always(TOO_LONG)), serve(latency_s=0.01)
    async with pooled(endpoint(small, "small"), endpoint(large, "large")) as pool:
        assert len(await pool.send(10)) == 10
        assert pool.figures("small").state == ""
    refusing = [serve(fault=faults.always(TOO_LONG)) for _ in range(3)]
    async with pooled(*(endpoint(one) for one in refusing)) as pool:
        with pytest.raises(ContextTooLong):
            await pool.client.send(request())
    assert [one.state.requests for one in refusing] == [1, 1, 1]


async def test_a_silent_endpoint_holds_nothing_up_for_long(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has answered and then falls silent, its requests go elsewhere long before the user's deadline."""
    monkeypatch.setattr(endpoint_client, "_LEAST_TIMEOUT_S", 0.1)

    def stalls(call: Call) -> Fault | None:
        return faults.stall() if call.index >= 4 else None

    silent, good = serve(fault=stalls), serve()
    deadlines = Deadlines(first_token_s=None, between_tokens_s=None, total_s=None)
    async with pooled(endpoint(silent, "silent"), endpoint(good, "good"), deadlines=deadlines) as pool:
        await pool.send(8)
        assert pool.figures("silent").answered
        assert len(await pool.send(30)) == 30
        assert pool.figures("silent").failures > 0


async def test_an_idle_endpoint_takes_over_what_a_far_slower_one_is_at(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a run does not wait for the slowest: what it has been at for long goes to one that has room."""
    monkeypatch.setattr(endpoint_client, "_LEAST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(endpoint_client, "_LOOK_S", 0.02)
    slow, fast = serve(latency_s=3_600), serve()
    async with pooled(endpoint(slow, "slow", places=2), endpoint(fast, "fast")) as pool:
        answers = await pool.send(20)
    assert len(answers) == 20
    assert fast.state.completed == 20
    assert (pool.figures("slow").requests, pool.figures("slow").failures) == (2, 2)


async def test_what_takes_long_everywhere_stays_where_it_is(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of endpoints that are alike none relieves another: the question is long by itself."""
    monkeypatch.setattr(endpoint_client, "_LEAST_TIMEOUT_S", 0.05)
    monkeypatch.setattr(endpoint_client, "_USUAL_LATENCIES", 1.0)
    monkeypatch.setattr(endpoint_client, "_LOOK_S", 0.01)
    dripping = faults.drip(0.05)
    servers = [serve(fault=lambda call: dripping if "MARK-99" in call.prompt else None) for _ in range(2)]
    deadlines = Deadlines(first_token_s=None, between_tokens_s=None, total_s=1.0)
    async with pooled(*(endpoint(one) for one in servers), deadlines=deadlines, policy=RetryPolicy(0)) as pool:
        await pool.send(8)
        # The two may differ by chance while the machine is busy.
        for one in pool.client.endpoints:
            one.mean_s = 0.01
        with pytest.raises(StreamBroken):
            await pool.client.send(request(99))
    asked = sum(number for one in servers for prompt, number in one.state.attempts.items() if "MARK-99" in prompt)
    assert asked == 1


async def test_a_request_is_taken_over_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the endpoints' speeds change, one question does not wander for ever."""
    monkeypatch.setattr(endpoint_client, "_LEAST_TIMEOUT_S", 0.02)
    monkeypatch.setattr(endpoint_client, "_USUAL_LATENCIES", 1.0)
    monkeypatch.setattr(endpoint_client, "_LOOK_S", 0.01)
    servers = [serve(fault=faults.always(faults.drip(0.05))) for _ in range(3)]
    deadlines = Deadlines(first_token_s=None, between_tokens_s=None, total_s=1.0)
    async with pooled(*(endpoint(one) for one in servers), deadlines=deadlines, policy=RetryPolicy(0)) as pool:
        for place, one in enumerate(pool.client.endpoints):
            one.mean_s, one._measured_at = 0.01 * 5**place, asyncio.get_running_loop().time()
            one.rest(0.2 * (2 - place), one._measured_at, "busy")
        with pytest.raises(StreamBroken):
            await pool.client.send(request())
    assert sum(server.state.requests for server in servers) == 2
    assert [figures.failures for figures in pool.client.figures()].count(0) == 1


async def test_pieces_that_somebody_has_seen_are_not_sent_again(serve: Serve) -> None:
    """A follower that shows the stream decides whether there may be another attempt."""

    class Seen(CallObserver):
        def resend(self) -> bool:
            return False

    bad, good = serve(fault=faults.always(faults.cut())), serve()
    async with pooled(endpoint(bad), endpoint(good, weight=0.01)) as pool:
        with pytest.raises(Exception, match="broke"):
            await pool.client.send(request(), Seen())
    assert good.state.requests == 0


async def test_one_rate_limit_holds_for_all(serve: Serve) -> None:
    """Requests by the minute are those of the run, not of each endpoint."""
    limiter = RateLimiter(rpm=60_000)
    async with pooled(endpoint(serve()), endpoint(serve()), limits=ClientLimits(rate_limiter=limiter)) as pool:
        now = asyncio.get_running_loop().time()
        await pool.send(10)
    # Ten starts of a millisecond each, less the slack.
    assert limiter.wait_s(now) > 0.009 - 0.1
