"""A model server on loopback that answers by rules: one behaviour for each case, told apart by the path."""

from __future__ import annotations

import asyncio
import datetime
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from field.wire import JSON, Reply, Rule

_OLLAMA = "0.17.4"
_DEFAULT_WINDOW = 4096
_CHARACTERS_A_TOKEN = 4
_CHAT = ("/chat/completions", "/api/chat")


@dataclass(slots=True)
class Request:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    def field(self, name: str) -> Any:
        """A field of the body; a dot leads into an object."""
        value: Any = self.body
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def text(self) -> str:
        """Everything that is said to the model."""
        return "\n".join(str(message.get("content")) for message in self.body.get("messages", []))

    @property
    def question(self) -> str:
        """The last message."""
        return str((self.body.get("messages") or [{}])[-1].get("content"))

    @property
    def tokens(self) -> int:
        """About so many tokens has the prompt."""
        return len(self.text) // _CHARACTERS_A_TOKEN

    @property
    def limit(self) -> int:
        """The most tokens that the answer may have."""
        for name in ("max_tokens", "max_completion_tokens", "options.num_predict"):
            if isinstance(value := self.field(name), int) and value > 0:
                return value
        return 1 << 30

    @property
    def window(self) -> int:
        """The context's size in tokens."""
        return self.field("options.num_ctx") or _DEFAULT_WINDOW


@dataclass(slots=True)
class Behaviour:
    """What one case's server does, and what it has seen."""

    rules: Sequence[Rule]
    models: Sequence[str] = ("m",)
    requests: list[Request] = field(default_factory=list)
    used: dict[int, int] = field(default_factory=dict)
    began: float | None = None

    def reply(self, request: Request) -> Reply:
        """Count a request and choose its reply."""
        self.requests.append(request)
        if self.began is None:
            self.began = time.monotonic()
        for number, rule in enumerate(self.rules):
            spent = self.used.get(number, 0)
            if (rule.times is None or spent < rule.times) and holds(rule.when, request, time.monotonic() - self.began):
                self.used[number] = spent + 1
                return rule.reply
        return Reply(b'{"error":{"message":"no rule fits this request"}}', 400, JSON)


def holds(when: Mapping[str, Any], request: Request, age_s: float = 0.0) -> bool:
    """Whether all conditions hold for a request.

    Known are `has`, `lacks` (fields of the body), `is` (fields and their values), `in` (fields and their possible
    values), `text` (words in the last message), `prompt` (words anywhere in the prompt), `below` (the answer's limit is
    lower), `from` (it is this or higher), `over_window` (the prompt does not fit), `longer` (the prompt has more
    characters), `system` (it has a system message or none), `before_s` (seconds since the first request), `path`,
    `not_path` (how the path ends), `key` (the bearer key), `any` (one of several sets of conditions).
    """
    tests: dict[str, Callable[[Any], bool]] = {
        "has": lambda names: all(request.field(name) is not None for name in names),
        "lacks": lambda names: all(request.field(name) is None for name in names),
        "is": lambda fields: all(request.field(name) == value for name, value in fields.items()),
        "in": lambda fields: all(request.field(name) in values for name, values in fields.items()),
        "text": lambda words: all(word in request.question for word in words),
        "prompt": lambda words: all(word in request.text for word in words),
        "below": lambda limit: request.limit < limit,
        "from": lambda limit: request.limit >= limit,
        "over_window": lambda wanted: (request.tokens > request.window) is wanted,
        "longer": lambda count: len(request.text) > count,
        "system": lambda wanted: wanted is any(one.get("role") == "system" for one in request.body["messages"]),
        "before_s": lambda seconds: age_s < seconds,
        "path": request.path.endswith,
        "not_path": lambda end: not request.path.endswith(end),
        "key": lambda key: request.headers.get("authorization") == f"Bearer {key}",
        "any": lambda sets: any(holds(one, request, age_s) for one in sets),
    }
    return all(tests[name](value) for name, value in when.items())


class FieldServer:
    """Serves the behaviours of all cases from a thread of its own."""

    def __init__(self) -> None:
        self._behaviours: dict[str, Behaviour] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Close every connection and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, name: str, rules: Sequence[Rule], models: Sequence[str] = ("m",)) -> Behaviour:
        """Serve these rules under a path of this name."""
        behaviour = self._behaviours[name] = Behaviour(rules, models)
        return behaviour

    def url(self, name: str) -> str:
        """The address of a case's server."""
        return f"http://127.0.0.1:{self.port}/{name}"

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (received := await _read(reader)) is not None:
                verb, path, headers, body = received
                name = path.strip("/").split("/")[0]
                behaviour = self._behaviours.get(name)
                if behaviour is None:
                    reply = Reply(b"no such case", 404, "text/plain")
                    request = Request(path, headers, {})
                elif verb == "POST" and path.endswith("/api/show"):
                    request, reply = Request(path, headers, {}), _shown()
                elif verb == "POST":
                    request = Request(path, headers, json.loads(body or b"{}"))
                    reply = behaviour.reply(request)
                else:
                    request, reply = Request(path, headers, {}), _looked_up(path, behaviour.models)
                if not await _write(writer, reply, request):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _looked_up(path: str, models: Sequence[str]) -> Reply:
    if path.endswith("/api/tags"):
        value: Any = {"models": [{"name": f"{name}:latest" if ":" not in name else name} for name in models]}
    elif path.endswith("/api/version"):
        value = {"version": _OLLAMA}
    elif path.endswith("/models"):
        value = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
    else:
        return Reply(b"", 404, "text/plain")
    return Reply(json.dumps(value).encode(), 200, JSON)


def _shown() -> Reply:
    value = {
        "capabilities": ["completion"],
        "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
    }
    return Reply(json.dumps(value).encode(), 200, JSON)


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    """The next request, or nothing at the connection's end."""
    start = await reader.readline()
    if not start:
        return None
    verb, path, _ = start.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while line := (await reader.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).strip(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        return verb, path, headers, b"".join(parts)
    return verb, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _write(writer: asyncio.StreamWriter, reply: Reply, request: Request) -> bool:
    """Send a reply; returns whether the connection is kept."""
    if reply.end == "hang":
        await asyncio.sleep(3600)
    names = _names(request)
    body = reply.body
    for name, value in names.items():
        body = body.replace(name.encode(), value.encode())
    if reply.end == "raw":
        writer.write(body)
        await writer.drain()
        return False
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    head = [f"HTTP/1.1 {reply.status} {phrase}"]
    if reply.type:
        head.append(f"Content-Type: {reply.type}")
    for name, value in reply.headers:
        for known, meant in names.items():
            value = value.replace(known, meant)  # noqa: PLW2901
        head.append(f"{name}: {value}")
    chunked = reply.status == 200
    head.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    if chunked:
        # The pieces cut through events, lines and characters, as a network does.
        for at in range(0, len(body), 97):
            piece = body[at : at + 97]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if reply.end == "cut":
            await writer.drain()
            return False
        writer.write(b"0\r\n\r\n")
    else:
        writer.write(body)
    await writer.drain()
    return reply.end != "close"


def _names(request: Request) -> dict[str, str]:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    kept = request.tokens if request.tokens <= request.window else request.window // 2
    return {
        "@MODEL@": str(request.body.get("model", "")),
        "@PROMPT@": str(request.tokens),
        "@KEPT@": str(kept),
        "@IN_1_S@": soon.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "@IN_1_S_MS@": str(int(soon.timestamp() * 1000)),
    }
