"""The promises of `mellea_cli.backends.base.Backend`, held against every backend.

To add a backend, add an opener to `OPENERS`; what it cannot do (fail on demand, say) is marked there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from loopback import Fault, ModelServer, faults
from mellea_cli.backends.base import Backend
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.errors import BackendError, StreamBroken, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options

SCHEMA: dict[str, Any] = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 200},
        "sentiment": {"enum": ["positive", "negative", "mixed"]},
        "complaint": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["summary", "sentiment", "complaint"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Subject:
    """A backend under test, the model to ask, and the server behind it where there is one that can fail on demand."""

    backend: Backend
    model: str
    server: ModelServer | None = None

    def request(self, text: str = "The login is broken. MARK-7", **changes: Any) -> GenerateRequest:
        return GenerateRequest(model=self.model, messages=(Message("user", text),), **changes)


Serve = Callable[..., ModelServer]
Opener = Callable[[Serve, dict[str, Any]], Awaitable[Subject]]


async def ollama(serve: Serve, settings: dict[str, Any]) -> Subject:
    server = serve(**settings)
    return Subject(OllamaBackend(base_url=server.url), "granite4.1:3b", server)


async def openai(serve: Serve, settings: dict[str, Any]) -> Subject:
    server = serve(**settings)
    return Subject(OpenAIBackend(base_url=server.openai_url), "test-model", server)


async def scripted(serve: Serve, settings: dict[str, Any]) -> Subject:
    if "fault" in settings:
        pytest.skip("it has no server that could fail")
    return Subject(ScriptedBackend(), "scripted")


OPENERS: dict[str, Opener] = {"ollama": ollama, "openai": openai, "scripted": scripted}


@pytest.fixture(params=list(OPENERS))
def subject(request: pytest.FixtureRequest, serve: Serve) -> Callable[..., Any]:
    """Open each backend in turn, against a server with these settings, and close it afterwards."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Subject]:
        subject = await OPENERS[request.param](serve, settings)
        try:
            yield subject
        finally:
            await subject.backend.aclose()

    return opened


async def collect(backend: Backend, request: GenerateRequest, into: list[Chunk] | None = None) -> list[Chunk]:
    """Read a stream to its end; `into` keeps what came before an error."""
    seen: list[Chunk] = [] if into is None else into
    async with aclosing(backend.stream(request)) as chunks:
        async for chunk in chunks:
            seen.append(chunk)  # noqa: PERF401 - a comprehension would lose what came before an error
    return seen


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_an_answer_streams_and_ends(subject: Callable[..., Any]) -> None:
    """An answer comes piece by piece, one chunk with the finish reason, and one with the usage at or after it."""
    async with subject(token_delay_s=0.02) as it:
        chunks = await collect(it.backend, it.request())
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == 1
    assert usages[0].prompt_tokens > 0
    assert usages[0].completion_tokens > 0
    finished = [at for at, chunk in enumerate(chunks) if chunk.finish_reason]
    assert finished <= [at for at, chunk in enumerate(chunks) if chunk.usage]


async def test_a_schema_is_followed(subject: Callable[..., Any]) -> None:
    """With a schema the answer is an instance of it."""
    async with subject() as it:
        value = json.loads(text_of(await collect(it.backend, it.request(output_schema=SCHEMA))))
    assert set(value) == set(SCHEMA["properties"])
    assert isinstance(value["summary"], str)
    assert value["sentiment"] in ("positive", "negative", "mixed")


async def test_each_answer_belongs_to_its_request(subject: Callable[..., Any]) -> None:
    """Many requests at once get their own answers."""
    async with subject() as it:
        texts = [f"Row MARK-{number} is late." for number in range(150)]
        answers = await asyncio.gather(*(collect(it.backend, it.request(text)) for text in texts))
    assert all(f"MARK-{number} " in text_of(chunks) for number, chunks in enumerate(answers))


async def test_the_model_is_listed_and_prepared(subject: Callable[..., Any]) -> None:
    """`models` lists what `prepare` accepts and `stream` takes."""
    async with subject() as it:
        assert it.model in await it.backend.models()
        await it.backend.prepare(it.model)


async def test_the_name_is_the_registrys(subject: Callable[..., Any]) -> None:
    """A backend knows the name under which it is listed."""
    async with subject() as it:
        assert it.backend.name in OPENERS
        assert it.backend.slots is None or it.backend.slots > 0


async def test_a_request_is_left_as_it_was(subject: Callable[..., Any]) -> None:
    """The caller's mappings are not changed, and a second call sends the same again."""
    native: dict[str, Any] = {"top_k": 5}
    schema = json.loads(json.dumps(SCHEMA))
    async with subject() as it:
        request = it.request(options=Options(native=native, stop=("END",)), output_schema=schema)
        assert text_of(await collect(it.backend, request)) == text_of(await collect(it.backend, request))
    assert native == {"top_k": 5}
    assert schema == SCHEMA


async def test_an_empty_prompt_is_sent(subject: Callable[..., Any]) -> None:
    """An empty prompt is a prompt: the wire's message still has its content."""
    async with subject() as it:
        assert text_of(await collect(it.backend, it.request("")))
        if it.server is not None:
            assert it.server.state.bodies[0]["messages"] == [{"role": "user", "content": ""}]


async def test_closing_twice_is_allowed(subject: Callable[..., Any]) -> None:
    """`aclose` may be called again, before any use as well; asking afterwards is a clear error."""
    async with subject() as it:
        await it.backend.aclose()
        await it.backend.aclose()
        with pytest.raises(UsageError, match="closed"):
            await collect(it.backend, it.request())


async def test_leaving_the_stream_cuts_the_connection(subject: Callable[..., Any]) -> None:
    """Closing the generator closes the connection, and the server sees it."""
    async with subject(fault=faults.always(faults.stall(after=2))) as it:
        async with aclosing(it.backend.stream(it.request())) as chunks:
            async for _ in chunks:
                break
        await it.server.until(lambda state: state.disconnects == 1 and state.in_flight == 0)


@pytest.mark.parametrize("after", [0, 2])
async def test_cancelling_cuts_the_connection(subject: Callable[..., Any], after: int) -> None:
    """Cancelling the task that waits closes the connection too, before the first chunk and after it."""
    async with subject(fault=faults.always(faults.stall(after=after))) as it:
        task = asyncio.ensure_future(collect(it.backend, it.request()))
        await it.server.until(lambda state: state.in_flight == 1 and state.pieces == after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.server.until(lambda state: state.disconnects == 1 and state.in_flight == 0)


@pytest.mark.parametrize("fault", [faults.cut(3), faults.no_finish(3), faults.half_json(3)], ids=["cut", "end", "half"])
async def test_a_broken_stream_keeps_what_had_come(subject: Callable[..., Any], fault: Fault) -> None:
    """A stream that ends without a finish reason raises `StreamBroken` with the text so far, after yielding it."""
    async with subject(fault=faults.always(fault)) as it:
        seen: list[Chunk] = []
        with pytest.raises(StreamBroken) as caught:
            await collect(it.backend, it.request(), into=seen)
        assert caught.value.partial == text_of(seen) == "The customer"
        assert caught.value.retryable
        assert it.server.state.requests == 1


async def test_every_error_is_ours(subject: Callable[..., Any]) -> None:
    """Nothing but a `BackendError` leaves a backend, and the next request may go well again."""
    statuses = [400, 401, 403, 404, 409, 429, 500, 503, 529]

    def plan(call: Any) -> Fault | None:
        return faults.status(statuses[call.index]) if call.index < len(statuses) else None

    async with subject(fault=plan) as it:
        for status in statuses:
            with pytest.raises(BackendError) as caught:
                await collect(it.backend, it.request())
            assert caught.value.status == status
        assert text_of(await collect(it.backend, it.request()))
        assert it.server.state.requests == len(statuses) + 1


async def test_connections_are_kept(subject: Callable[..., Any]) -> None:
    """Requests one after another share a connection: an answer is read to the end of its response."""
    async with subject(fault=faults.always(faults.says("fine"))) as it:
        for _ in range(20):
            await collect(it.backend, it.request())
        assert len(it.server.state.connections) == 1


async def test_no_hidden_limit_on_connections(subject: Callable[..., Any]) -> None:
    """As many requests as are sent are in flight, beyond the libraries' usual hundred."""
    async with subject(fault=faults.always(faults.stall())) as it:
        tasks = [asyncio.ensure_future(collect(it.backend, it.request(f"MARK-{n}"))) for n in range(130)]
        await it.server.until(lambda state: state.in_flight == 130)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
