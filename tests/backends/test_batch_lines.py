"""The lines of batch files: what servers and programs write, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mellea_cli.backends.openai_batch import read_reply, request_line
from mellea_cli.messages import Usage

BODY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def line(**changes: Any) -> bytes:
    """A reply with these fields changed."""
    whole = {"id": "r", "custom_id": "c", "response": {"status_code": 200, "body": BODY}, "error": None}
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
