"""Any bytes at all as a server's answer, or as a model's text: chunks or a backend's error, however they are split."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from loopback import default_reply, pieces
from loopback.protocols import OllamaProtocol, OpenAIProtocol
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.errors import BackendError, ParseError
from mellea_cli.messages import GenerateRequest, Message
from mellea_cli.pipelines.default_prompts import PIPELINES
from mellea_cli.ui.console import clean

_REQUEST = GenerateRequest("m", (Message("user", "hello"),))
_STATUS = (200, 200, 200, 200, 400, 429, 500, 503)
_KINDS = ("text/event-stream", "application/x-ndjson", "application/json", "")
_ADDRESS = "http://127.0.0.1:9"
_HEAD = 3


class Bytes(httpx.AsyncByteStream):
    """A body in pieces of `size` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), self._size):
            yield self._data[at : at + self._size]


class Canned:
    """Transport that gives every request the same answer."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes, size: int) -> None:
        self._answer = lambda: httpx.Response(status, headers=headers, stream=Bytes(data, size))

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        """Answer."""
        return self._answer()

    async def aclose(self) -> None:
        """Do nothing."""


async def ask(make: Callable[[], Any], canned: Canned) -> tuple[Any, ...]:
    """Send one request and return its result: text, reasoning, finish reason, usage, error."""
    backend = make()
    backend._wire._transport = canned
    text, thinking, finish, usage, failed = "", "", [], None, ""
    try:
        async with aclosing(backend.stream(_REQUEST)) as chunks:
            async for chunk in chunks:
                for piece in (chunk.text, chunk.thinking):
                    piece.encode()
                text += chunk.text
                thinking += chunk.thinking
                finish += [chunk.finish_reason] if chunk.finish_reason else []
                usage = chunk.usage or usage
    except BackendError as error:
        failed = f"{type(error).__name__}: {error.message}"
        if "\n" in error.message:
            raise AssertionError(f"more than one line: {error.message!r}") from error
    if not failed and len(finish) != 1:
        raise AssertionError(f"finish reasons: {finish}")
    if not all(isinstance(one, str) for one in finish):
        raise AssertionError(f"finish reasons: {finish}")
    if usage is not None and not (type(usage.total_tokens) is int and usage.total_tokens >= 0):
        raise AssertionError(f"usage: {usage}")
    return text, thinking, finish, usage, failed


class Fuzz:
    """The target, with the event loop that it needs."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()

    def __call__(self, data: bytes) -> None:
        """One answer: its first bytes choose protocol, status and pieces."""
        head, body = data[:_HEAD].ljust(_HEAD, b"\0"), data[_HEAD:]
        if head[0] & 0x80:
            answer_text(body.decode("utf-8", "replace"))
            return
        status, kind = _STATUS[head[0] >> 3 & 7], _KINDS[head[0] >> 1 & 3]
        headers = {"content-type": kind}
        if status != 200 and head[1] & 1:
            said, _, body = body.partition(b"\n")
            headers |= {"retry-after": said.decode("ascii", "replace").replace("\ufffd", "?")}
        make: Callable[[], Any] = (
            (lambda: OllamaBackend(base_url=_ADDRESS))
            if head[0] & 1
            else lambda: OpenAIBackend(base_url=_ADDRESS, api_key="")
        )
        whole = self._runner.run(ask(make, Canned(status, headers, body, 1 << 20)))
        split = self._runner.run(ask(make, Canned(status, headers, body, 1 + head[2] % 32)))
        if whole != split and not whole[-1]:
            raise AssertionError(f"in pieces it says otherwise: {whole} {split}")
        if bool(whole[-1]) != bool(split[-1]):
            raise AssertionError(f"in pieces it fails otherwise: {whole} {split}")


def answer_text(text: str) -> None:
    """A model's text: parsed as an answer, and what a terminal gets of it."""
    for pipeline in PIPELINES.values():
        for one in pipeline.steps:
            try:
                one.output.parse(text)
            except ParseError as error:
                error.message.encode("utf-8", "surrogatepass")
    shown = clean(text)
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in shown):
        raise AssertionError(f"control characters: {shown!r}")


def seeds() -> list[bytes]:
    """Answers as the test server writes them, whole and broken, errors, and texts of models."""
    schema = next(iter(PIPELINES.values())).steps[0].output.schema
    text = default_reply("MARK-1", schema)
    found = [b"\x80\0\0" + text.encode(), b"\x80\0\0```json\n" + text.encode() + b"\n```", b"\x80\0\0<think>a</think>{"]
    for bit, kind, protocol in ((0, 0, OpenAIProtocol()), (1, 1, OllamaProtocol())):
        stream = b"".join(protocol.piece(part) for part in pieces(text))
        stream += protocol.piece("so", thinking=True)
        end = protocol.end("stop", (3, 4), {"stream_options": {"include_usage": True}})
        head = bytes((bit | kind << 1, 0, 7))
        found += [head + stream + end, head + stream[:-9], head + stream + protocol.error({"message": "no", "code": 5})]
        whole = json.dumps(protocol.whole(text, "stop", (3, 4), {})).encode()
        found += [bytes((bit | 2 << 1, 0, 5)) + whole, head.replace(b"\7", b"\0") + whole]
        error = b'{"error":{"message":"wait","type":"overloaded_error","code":"x","param":null}}'
        found += [bytes((bit | 4 | number << 3, 1, 5)) + b"1.5\n" + error for number in range(4, 8)]
    for value in (b"5", b'"x"', b"[1]", b'{"a":1}', b"true", b"1e999", b'"\\ud800"'):
        for openai in (
            b'{"choices":%s}',
            b'{"choices":[%s]}',
            b'{"choices":[{"delta":%s}]}',
            b'{"choices":[{"delta":{"content":%s,"reasoning":%s,"refusal":%s},"finish_reason":%s}],"usage":%s}',
            b'{"choices":[],"usage":{"prompt_tokens":%s}}',
            b'{"error":%s}',
        ):
            found.append(b"\0\0\7data: " + openai.replace(b"%s", value) + b"\n\n")
        for ollama in (
            b'{"message":%s}',
            b'{"message":{"content":%s,"thinking":%s},"done":true,"done_reason":%s,"eval_count":%s}',
            b'{"error":%s}',
        ):
            found.append(b"\3\0\7" + ollama.replace(b"%s", value) + b"\n")
    odd = (
        b'data: {"choices":[{"delta":{"content":[{"text":"a"}],"refusal":"no"},"finish_reason":"stop"}],"usage":{}}\n\n'
    )
    return [*found, b"\0\0\3" + odd]
