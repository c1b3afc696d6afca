"""The model server that all other tests lean on: its counts are right, and it runs as a process too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import Call, ModelServer, default_reply, faults, find_mark, pieces
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.errors import BackendError, RateLimited
from mellea_cli.messages import GenerateRequest, Message

TESTS = Path(__file__).parent


async def ask(backend: OpenAIBackend, *texts: str) -> str:
    messages = tuple(Message("user", text) for text in texts)
    return "".join([chunk.text async for chunk in backend.stream(GenerateRequest("test-model", messages))])


async def test_the_answer_carries_its_mark(server: ModelServer) -> None:
    """Each answer carries the mark of its prompt, in prose and under a schema."""
    backend = OpenAIBackend(base_url=server.openai_url)
    assert "MARK-12" in await ask(backend, "about MARK-12")
    await backend.aclose()
    schema = {"properties": {"summary": {"type": "string"}, "n": {"type": "integer"}, "s": {"enum": ["a", "b"]}}}
    value = json.loads(default_reply("MARK-1 and MARK-2", schema))
    assert "MARK-2" in value["summary"]
    assert (value["n"], value["s"] in "ab") == (1, True)
    assert find_mark("none") == ""


def test_pieces_are_the_whole() -> None:
    """The pieces of a text are the text, whatever it holds."""
    for text in ("", " ", "a  b\n\n\tc😀漢字漢字漢字 ", "word " * 9):
        assert "".join(pieces(text)) == text


async def test_attempts_are_counted_by_prompt(serve: Callable[..., ModelServer]) -> None:
    """A repair, which adds messages without a mark, is a further attempt of its prompt."""
    calls: list[Call] = []

    def plan(call: Call) -> None:
        calls.append(call)

    server = serve(fault=plan)
    backend = OpenAIBackend(base_url=server.openai_url)
    await ask(backend, "first MARK-1")
    await ask(backend, "second MARK-2")
    await ask(backend, "first MARK-1", "that was not right")
    await backend.aclose()
    assert [(call.prompt, call.attempt, call.index) for call in calls] == [
        ("first MARK-1", 1, 0),
        ("second MARK-2", 1, 1),
        ("first MARK-1", 2, 2),
    ]
    assert server.state.attempts == {"first MARK-1": 2, "second MARK-2": 1}
    assert (server.state.requests, server.state.completed, server.state.in_flight) == (3, 3, 0)
    assert len(server.state.started) == len(server.state.bodies) == 3


async def test_too_many_at_once_are_refused(serve: Callable[..., ModelServer]) -> None:
    """Beyond `max_parallel` a request gets a 429 with the set Retry-After, and one less works again."""
    server = serve(max_parallel=1, retry_after="3", fault=faults.first(1, faults.stall(1)))
    backend = OpenAIBackend(base_url=server.openai_url)
    stream = backend.stream(GenerateRequest("test-model", (Message("user", "MARK-1"),)))
    await anext(stream)
    with pytest.raises(RateLimited) as caught:
        await ask(backend, "MARK-2")
    assert caught.value.retry_after_s == 3
    await stream.aclose()
    await server.until(lambda state: state.in_flight == 0)
    assert "MARK-1" in await ask(backend, "MARK-1")
    await backend.aclose()
    assert (server.state.refused, server.state.disconnects, server.state.max_in_flight) == (1, 1, 2)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (faults.empty(), ""),
        (faults.not_json(), "Sure! Here is what I think about it."),
        (faults.length("cut"), "cut"),
        (faults.huge(300_000), "A" * 300_000),
    ],
)
async def test_odd_answers(serve: Callable[..., ModelServer], fault: Any, text: str) -> None:
    """Answers that are odd but whole arrive as they are."""
    backend = OpenAIBackend(base_url=serve(fault=faults.always(fault)).openai_url)
    assert await ask(backend, "hello") == text
    await backend.aclose()


@pytest.mark.parametrize("fault", [faults.white_space(), faults.repetition(), faults.drip(0.001)])
async def test_endless_answers_end_with_their_client(serve: Callable[..., ModelServer], fault: Any) -> None:
    """An endless answer goes on until the client leaves, and the server sees that."""
    server = serve(fault=faults.always(fault))
    backend = OpenAIBackend(base_url=server.openai_url)
    stream = backend.stream(GenerateRequest("test-model", (Message("user", "hello"),)))
    for _ in range(50):
        await anext(stream)
    await stream.aclose()
    await server.until(lambda state: state.disconnects == 1)
    await backend.aclose()


def test_a_state_that_never_comes_says_what_is(server: ModelServer) -> None:
    """Waiting in vain fails with the counts."""
    with pytest.raises(TimeoutError, match="'requests': 0"):
        server.wait(lambda state: state.requests == 1, timeout=0.01)


def test_it_runs_as_a_process() -> None:
    """As a process it prints its address, tells its counts over HTTP, and ends at SIGTERM."""
    command = [sys.executable, "-m", "loopback", "--words", "3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)}
    ) as it:
        try:
            assert it.stdout is not None
            url = it.stdout.readline().strip()
            body = {"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}
            answer = fetch(f"{url}/v1/chat/completions", body)
            assert answer["choices"][0]["message"]["content"] == "word0 word1 word2"
            assert fetch(f"{url}/counts")["requests"] == 1
            fetch(f"{url}/counts/clear", {})
            assert fetch(f"{url}/counts")["requests"] == 0
        finally:
            it.send_signal(signal.SIGTERM)
    assert it.returncode == 0


def fetch(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data)) as response:  # noqa: S310 - our own http address
        return json.load(response)


async def test_an_outage_keeps_the_port_and_the_counts(server: ModelServer) -> None:
    """`stop` and `start` are an outage: the same port, the same counts."""
    backend = OpenAIBackend(base_url=server.openai_url)
    await ask(backend, "one")
    port = server.port
    server.stop()
    with pytest.raises(BackendError):
        await ask(backend, "two")
    server.start()
    await ask(backend, "three")
    await backend.aclose()
    assert (server.port, server.state.requests) == (port, 2)
