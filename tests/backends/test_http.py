"""The wire client's own promises: its lifetime, its connections, its proxies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from loopback import ModelServer, faults
from mellea_cli.backends import http as http_module
from mellea_cli.backends.http import DONE, Event, WireClient
from mellea_cli.errors import BackendUnavailable, EndpointMissing, ServerFault, StreamBroken, UsageError

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = {"model": "test-model", "messages": [{"role": "user", "content": "hello"}], "stream": True}


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[str]:
    """Run a server that answers each connection by hand, and give its address."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read_request(reader: asyncio.StreamReader) -> str:
    """Read one request and return its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().splitlines() if line.startswith("content-length"))
    await reader.readexactly(int(length.partition(":")[2]))
    return head


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def collect(wire: WireClient, path: str = "/v1/chat/completions") -> list[Event]:
    async with aclosing(wire.stream(path, BODY)) as batches:
        return [event async for events in batches for event in events]


async def test_nothing_happens_before_the_first_request() -> None:
    """A client may be made, and closed, where no server is and no loop would be needed."""
    wire = WireClient("http://127.0.0.1:1")
    await wire.aclose()
    await wire.aclose()


async def test_a_closed_client_says_so(server: ModelServer) -> None:
    """Asking after `aclose` is a usage error that names the server."""
    wire = WireClient(server.url)
    assert await wire.get_json("/api/version") == {"version": "0.99.0"}
    await wire.aclose()
    for asked in (wire.get_json("/api/version"), wire.post_json("/api/pull", {}), collect(wire)):
        with pytest.raises(UsageError, match=f"{server.url} has been closed"):
            await asked


async def test_a_document_that_is_no_json(server: ModelServer) -> None:
    """A page where JSON was due means that the address is wrong; a missing one too."""
    async with peer(page) as url:
        wire = WireClient(url)
        with pytest.raises(EndpointMissing, match="other than JSON"):
            await wire.post_json("/api/tags", {})
        await wire.aclose()
    wire = WireClient(server.url)
    with pytest.raises(EndpointMissing, match="404"):
        await wire.get_json("/nowhere")
    await wire.aclose()


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    await writer.drain()


async def test_the_end_is_read_behind_the_closing_mark() -> None:
    """A response that ends a moment after `[DONE]` is read to its end, so that its connection is used again."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(HEAD + chunk(b'data: {"a": 1}\n\ndata: [DONE]\n\n'))
            await writer.drain()
            for _ in range(20):
                # Turns of the loop, in which a client that does not wait would have cut the connection.
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async with peer(answer) as url:
        wire = WireClient(url)
        for _ in range(3):
            assert await collect(wire) == [{"a": 1}, DONE]
        await wire.aclose()
    assert connections == 1


async def test_a_response_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps the response open behind `[DONE]` costs its connection, not the answer."""
    monkeypatch.setattr(http_module, "_DRAIN_S", 0.01)
    cut = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + chunk(b'data: {"a": 1}\n\ndata: [DONE]\n\n'))
        await reader.read()
        cut.set()

    async with peer(answer) as url:
        wire = WireClient(url)
        assert await collect(wire) == [{"a": 1}, DONE]
        await asyncio.wait_for(cut.wait(), 10)
        await wire.aclose()


async def test_events_before_a_failure_come_first(server: ModelServer) -> None:
    """What arrived together with a failure is given out before the failure is raised."""
    body = b'{"a": 1}\n{"a": 2}\n{"a": \n'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + chunk(body) + b"0\r\n\r\n")
        await writer.drain()

    seen: list[Event] = []
    async with peer(answer) as url:
        wire = WireClient(url)
        with pytest.raises(StreamBroken, match="not JSON"):
            await keep(wire, seen)
        await wire.aclose()
    assert seen == [{"a": 1}, {"a": 2}]


async def keep(wire: WireClient, seen: list[Event]) -> None:
    async with aclosing(wire.stream("/", BODY)) as batches:
        async for events in batches:
            seen.extend(events)


async def test_a_compressed_stream_is_understood() -> None:
    """A server that compresses although nobody asked for it is still read."""
    import gzip

    data = gzip.compress(b'data: {"a": 1}\n\ndata: [DONE]\n\n')

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        writer.write(head + chunk(data[:9]) + chunk(data[9:]) + b"0\r\n\r\n")
        await writer.drain()

    async with peer(answer) as url:
        wire = WireClient(url)
        assert await collect(wire) == [{"a": 1}, DONE]
        await wire.aclose()


async def test_a_pool_of_its_own_size(serve: Callable[..., ModelServer]) -> None:
    """`max_connections` is the number of connections, and nobody waits in vain behind it."""
    server = serve(token_delay_s=0.001)
    wire = WireClient(server.url, max_connections=3)
    await asyncio.gather(*(collect(wire) for _ in range(12)))
    await wire.aclose()
    assert server.state.max_in_flight == 3
    assert len(server.state.connections) == 3


async def test_a_proxy_is_used_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to another host goes through the environment's proxy, one to loopback past it."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_request(reader))
        writer.write(HEAD + chunk(b"data: {}\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async with peer(answer) as url:
        monkeypatch.setenv("ALL_PROXY", url)
        monkeypatch.setenv("MELLEA_ALLOW_HTTP", "1")
        for base in ("http://api.example", url):
            wire = WireClient(base)
            await collect(wire)
            await wire.aclose()
    assert [head.splitlines()[0] for head in heads] == [
        "POST http://api.example/v1/chat/completions HTTP/1.1",
        "POST /v1/chat/completions HTTP/1.1",
    ]


async def test_tls_with_a_server_that_has_none(server: ModelServer) -> None:
    """An https address of a plain server says what is wrong, and is not retried in plain text."""
    wire = WireClient(server.url.replace("http:", "https:"))
    with pytest.raises(BackendUnavailable, match="does the server speak https"):
        await collect(wire)
    await wire.aclose()
    assert server.state.requests == 0


async def test_a_server_that_goes_and_comes_back(server: ModelServer) -> None:
    """A client outlives an outage of its server: the next request opens a new connection."""
    wire = WireClient(server.url)
    await collect(wire)
    server.stop()
    with pytest.raises(BackendUnavailable):
        await collect(wire)
    server.start()
    assert await collect(wire)
    await wire.aclose()


async def test_faults_are_drawn_the_same_at_any_order(serve: Callable[..., ModelServer]) -> None:
    """The model server draws faults from the prompt and its attempt, so a run repeats at any concurrency."""
    plan = faults.drawn(7, 0.5, faults.status(500))
    outcomes = []
    for concurrent in (1, 8):
        server = serve(fault=plan)
        wire = WireClient(server.url)
        gate = asyncio.Semaphore(concurrent)
        outcomes.append(await asyncio.gather(*(outcome(wire, gate, f"MARK-{n}") for n in range(40))))
        await wire.aclose()
    assert outcomes[0] == outcomes[1]
    assert 5 < sum(outcomes[0]) < 35


async def outcome(wire: WireClient, gate: asyncio.Semaphore, text: str) -> bool:
    """Ask once; tell whether an answer came."""
    body = {**BODY, "messages": [{"role": "user", "content": text}]}
    async with gate:
        try:
            async with aclosing(wire.stream("/v1/chat/completions", body)) as batches:
                return bool([events async for events in batches])
        except ServerFault:
            return False


async def closing_server(served: list[int], *, announces: bool, answers: int) -> asyncio.Server:
    """A server that closes its connection behind each answer, which it says or not; after `answers` it only closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
                await reader.readexactly(size)
                served.append(len(served))
                if len(served) > answers:
                    break
                body = b'data: {"a":1}\n\n'
                kept = b"Connection: close" if announces else b"Keep-Alive: timeout=5"
                writer.write(b"HTTP/1.1 200 OK\r\n" + kept + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
                # Like llama.cpp's server: the next request finds a connection that was promised and is gone.
                await reader.read(1)
                break
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_a_kept_connection_that_was_closed_is_no_fault() -> None:
    """The request goes out again at once on a new one, as often as there are closed ones."""
    served: list[int] = []
    server = await closing_server(served, announces=False, answers=3)
    async with server:
        wire = WireClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(3):
            assert await collect(wire, "/chat") == [{"a": 1}]
        assert len(served) == 3
        with pytest.raises(BackendUnavailable, match="closed the connection without an answer"):
            await collect(wire, "/chat")
        # The fourth request was tried on the kept connection and once on a new one.
        assert len(served) == 4
        await wire.aclose()
