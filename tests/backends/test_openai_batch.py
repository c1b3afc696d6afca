"""Batch files, and the client of a provider's batch queue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from loopback import BatchPlan, ModelServer
from mellea_cli.backends.openai_batch import Batch, BatchClient, read_reply, request_line
from mellea_cli.errors import EndpointMissing, NotAuthorized, ServerFault, StreamBroken
from mellea_cli.messages import Usage

KEY = "sk-never-to-be-seen"
BODY = {"model": "test-model", "messages": [{"role": "user", "content": "MARK-1"}]}


@pytest.fixture
def queue(serve: Callable[..., ModelServer]) -> ModelServer:
    """A server that demands the key."""
    return serve(api_key=KEY, batches=BatchPlan(looks=2))


@pytest.fixture
async def client(queue: ModelServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchClient]:
    """A client with the key from the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = BatchClient(queue.openai_url)
    yield made
    await made.aclose()


async def collected(client: BatchClient, file_id: str) -> list[bytes]:
    """All lines of a file."""
    async with aclosing(client.lines(file_id)) as batches:
        return [line async for lines in batches for line in lines]


async def test_a_file_goes_up_and_answers_come_down(client: BatchClient, queue: ModelServer, tmp_path: Path) -> None:
    """Larger than a piece and letter by letter; found by its name; its answers by their ids; and removed."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(request_line(f"id-{n}", BODY) for n in range(4_000)))
    file_id = await client.upload(path, "mellea-x.jsonl")
    assert queue.state.uploaded == [path.read_bytes()]
    assert path.stat().st_size > 512 * 1024
    assert await client.find_file("mellea-x.jsonl") == file_id
    assert await client.find_file("another") == ""
    batch = await client.create(file_id, "x")
    assert (batch.tag, batch.input_file_id, batch.total, batch.over) == ("x", file_id, 4_000, False)
    while not (batch := await client.get(batch.id)).over:
        pass
    lines = await collected(client, batch.output_file_id)
    replies = [read_reply(line, "b") for line in lines]
    assert {reply.custom_id for reply in replies if reply} == {f"id-{n}" for n in range(4_000)}
    await client.delete_file(batch.output_file_id)
    with pytest.raises(EndpointMissing):
        await collected(client, batch.output_file_id)


async def test_lists_are_read_page_by_page(client: BatchClient, tmp_path: Path) -> None:
    """Every batch of the account, the newest first, each once."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(request_line("a", BODY))
    file_id = await client.upload(path, "a.jsonl")
    made = [(await client.create(file_id, str(number))).id for number in range(205)]
    assert [batch.id async for batch in client.batches()] == made[::-1]


async def test_a_batch_can_be_cancelled(client: BatchClient, tmp_path: Path) -> None:
    """It takes the server a moment."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(request_line(name, BODY) for name in "ab"))
    batch = await client.create(await client.upload(path, "a.jsonl"), "t")
    assert (await client.cancel(batch.id)).status == "cancelling"
    over = await client.get(batch.id)
    assert over.status == "cancelled"
    assert len(await collected(client, over.output_file_id)) == 1


async def test_a_server_without_a_queue_is_named(serve: Callable[..., ModelServer]) -> None:
    """The hint says what to do instead."""
    client = BatchClient(serve().url + "/nowhere")
    with pytest.raises(EndpointMissing) as caught:
        await client.get("batch_1")
    assert "--export-batch" in caught.value.hint
    await client.aclose()


async def test_a_wrong_key_is_not_repeated(queue: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key appears in no message."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    client = BatchClient(queue.openai_url)
    with pytest.raises(NotAuthorized) as caught:
        await client.get("batch_1")
    assert "sk-wrong" not in str(caught.value) + caught.value.hint
    await client.aclose()


async def test_half_a_line_is_no_line(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """A file that breaks off is not taken for a short one."""
    server = serve(batches=BatchPlan(truncate=lambda _: 100))
    client = BatchClient(server.openai_url)
    path = tmp_path / "in.jsonl"
    path.write_bytes(request_line("a", BODY) * 3)
    file_id = await client.upload(path, "a.jsonl")
    with pytest.raises(StreamBroken):
        await collected(client, file_id)
    await client.aclose()


@pytest.mark.parametrize("value", [None, [], {}, {"object": "list"}, "text"])
def test_what_is_no_batch_is_a_fault(value: object) -> None:
    """Another answer than the API's."""
    with pytest.raises(ServerFault):
        Batch.read(value)


def test_a_batch_says_why_it_failed() -> None:
    """The first of its errors, in one line."""
    told = {"id": "b", "status": "failed", "errors": {"data": [{"code": "c", "message": "a\nb"}, {"code": "d"}]}}
    batch = Batch.read(json.loads(json.dumps(told)))
    assert (batch.over, batch.error_code, batch.error) == (True, "c", "a b")


ANSWER_BODY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def line(**changes: Any) -> bytes:
    """A reply with these fields changed."""
    whole = {"id": "r", "custom_id": "c", "response": {"status_code": 200, "body": ANSWER_BODY}, "error": None}
    return json.dumps({**whole, **changes}).encode()


def test_a_request_is_one_line() -> None:
    """With the four fields of the format, and no line break inside."""
    written = request_line("c", {"model": "m", "messages": [{"role": "user", "content": "a\nb é"}]})
    assert written.count(b"\n") == 1
    assert json.loads(written) == {
        "custom_id": "c",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": "a\nb é"}]},
    }


def test_answers_of_other_providers_are_read() -> None:
    """The answer itself as the response (Fireworks), and a message (Anthropic) or the error in its place."""
    answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    message = {"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": {"input_tokens": 7}}
    for said in ({"response": answer}, {"result": {"type": "succeeded", "message": message}}):
        reply = read_reply(json.dumps({"custom_id": "a", **said}).encode(), "b")
        assert reply is not None
        assert reply.completion is not None
        assert reply.completion.text == "hi"
    failed = {"custom_id": "a", "result": {"type": "errored", "error": {"message": "overloaded"}}}
    reply = read_reply(json.dumps(failed).encode(), "b")
    assert reply is not None
    assert reply.completion is None
    assert "overloaded" in reply.error


def test_states_of_other_queues() -> None:
    """Names in capitals, a wrapper, and errors as a list: each is read as OpenAI's own."""
    assert Batch.read({"job": {"id": "b", "status": "COMPLETED", "output_file_id": "o"}}).output_file_id == "o"
    assert (
        Batch.read({"id": "b", "status": "TIMEOUT_EXCEEDED", "created_at": "2026-01-01T00:00:00Z"}).status == "expired"
    )
    failed = Batch.read({"id": "b", "status": "failed", "errors": [{"code": "c", "message": "m"}]})
    assert (failed.over, failed.error_code, failed.error) == (True, "c", "m")


def test_an_answer_is_read_whole() -> None:
    """Text, finish reason and usage, as if it had been streamed."""
    reply = read_reply(line(), "batch 1")
    assert reply is not None
    assert reply.completion is not None
    assert (reply.completion.text, reply.completion.finish_reason) == ("ok", "stop")
    assert reply.completion.usage == Usage(3, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"response": None, "error": {"code": "batch_expired", "message": "Too late."}}, "batch_expired Too late."),
        ({"response": {"status_code": 429, "body": {"error": {"message": "slow down"}}}}, "429 slow down"),
        ({"response": {"status_code": 400, "body": None}, "error": "Request must not be sent in stream mode"}, "400"),
        ({"response": {"status_code": 200, "body": {"choices": []}}}, "without a finish reason"),
        ({"response": {"status_code": 200, "body": {"choices": [3]}}}, "without a finish reason"),
        ({"response": {"status_code": 200, "body": "text"}}, "200 text"),
        ({"response": None}, "no answer and no reason"),
        ({"error": 3, "response": 4}, "no answer and no reason"),
    ],
)
def test_what_is_no_answer_says_why(changes: dict[str, Any], says: str) -> None:
    """Whatever its shape, it is a request that has to be asked again."""
    reply = read_reply(line(**changes), "batch 1")
    assert reply is not None
    assert reply.completion is None
    assert says in reply.error


@pytest.mark.parametrize("text", [b"", b"garbage", b"[]", b'{"custom_id": 3}', b"\xff\xfe", b"3", b"[" * 100_000])
def test_what_is_no_reply_is_none(text: bytes) -> None:
    """A line that does not say what it replies to."""
    assert read_reply(text, "batch 1") is None
