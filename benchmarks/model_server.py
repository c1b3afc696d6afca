"""A model server that costs next to nothing: the OpenAI protocol, answers written beforehand, a token a chunk.

    python benchmarks/model_server.py --latency 0.2 --long

Prints its address and serves until it is killed. Each token is written by itself, as model servers do. `GET /counts`
tells the requests so far and the most at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from typing import Any, cast

_SHORT = {
    "positive_aspect": "friendly staff",
    "main_complaint": "a long wait for a table",
    "urgency": "medium",
    "sentiment": "mixed",
    "summary": "The customer liked the staff but had to wait long for a table.",
}
_LONG = {
    **_SHORT,
    "positive_aspect": "the friendly and patient staff who explained every step of the way, twice where it was needed, "
    "and who found a room with a view although the house was full on that day",
    "main_complaint": "a wait of more than forty minutes for a table that had been booked two weeks before, without a "
    "word of excuse, while others who came later were seated at once",
    "summary": "The customer liked the friendly and patient staff and the room with a view but disliked the wait of "
    "forty minutes for a table that had been booked.",
}
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# Finish reason, usage, the closing mark and the last chunk follow each other at once.
_CLOSING = 4
_TOKEN = re.compile(r"\s?\w{1,6}|[^\w\s]|\s")


def _fields(body: bytes) -> list[str]:
    """The fields that the request's schema asks for, in the order of the schema."""
    _, _, schema = body.partition(b'"response_format"')
    found = re.search(rb'"properties":\s*\{', schema)
    part = schema[found.end() :] if found else b""
    places = {name: part.find(f'"{name}"'.encode()) for name in _SHORT}
    return sorted((name for name, place in places.items() if place >= 0), key=places.__getitem__) or ["summary"]


def _events(text: str) -> list[bytes]:
    """The chunks of one streamed answer, as they go over the wire."""
    head: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    tokens = _TOKEN.findall(text)
    deltas = [{"role": "assistant", "content": ""}, *({"content": token} for token in tokens)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    usage: dict[str, Any] = {"prompt_tokens": 700, "completion_tokens": len(tokens), "total_tokens": 700 + len(tokens)}
    events = [{**head, "choices": [choice]} for choice in choices] + [{**head, "choices": [], "usage": usage}]
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]
    return [b"%x\r\n%s\r\n" % (len(line), line) for line in lines] + [b"0\r\n\r\n"]


class Behaviour:
    """What all connections share: the answers, the latency, and what has been counted."""

    def __init__(
        self, latency_s: float, *, long: bool, best: int | None, most: int | None, token_delay_s: float
    ) -> None:
        self.latency_s = latency_s
        self.token_delay_s = token_delay_s
        self.best = best
        self.most = most
        self.values = _LONG if long else _SHORT
        self.answers: dict[tuple[str, ...], list[bytes]] = {}
        self.requests = self.in_flight = self.peak = self.refused = 0

    def answer(self, body: bytes) -> list[bytes]:
        """The chunks that answer a request."""
        fields = tuple(_fields(body))
        if fields not in self.answers:
            self.answers[fields] = _events(json.dumps({name: self.values[name] for name in fields}))
        return self.answers[fields]

    def delay_s(self) -> float:
        """How long a request takes just now: beyond the best number they get in each other's way."""
        if self.best is None or self.in_flight <= self.best:
            return self.latency_s
        return self.latency_s * float((self.in_flight / self.best) ** 1.6)


class Connection(asyncio.Protocol):
    """One client's connection, requests one after the other."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._shared = behaviour
        self._data = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._write = cast("asyncio.Transport", transport).write

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Count a request out that nobody waits for."""
        if self._busy:
            self._busy = False
            self._shared.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        """Take what arrives; answer once a request is whole."""
        self._data += data
        head, mark, rest = self._data.partition(b"\r\n\r\n")
        if not mark:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        need = int(length[1]) if length else 0
        if len(rest) < need:
            return
        self._data = rest[need:]
        if head.startswith(b"GET"):
            self._tell(head)
        else:
            self._take(rest[:need])

    def _tell(self, head: bytes) -> None:
        shared = self._shared
        counts = {"requests": shared.requests, "peak": shared.peak, "refused": shared.refused}
        known = b" /counts" in head
        self._whole(b"200 OK" if known else b"404 Not Found", json.dumps(counts if known else {}).encode())

    def _whole(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._write(head % (status, len(body)) + body)

    def _take(self, body: bytes) -> None:
        shared = self._shared
        shared.requests += 1
        if shared.most is not None and shared.in_flight >= shared.most:
            shared.refused += 1
            error = {"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}
            self._whole(b"429 Too Many Requests", json.dumps(error).encode())
            return
        self._busy = True
        shared.in_flight += 1
        shared.peak = max(shared.peak, shared.in_flight)
        events = shared.answer(body)
        if delay_s := shared.delay_s():
            asyncio.get_running_loop().call_later(delay_s, self._send, events)
        else:
            self._send(events)

    def _send(self, events: list[bytes]) -> None:
        if not self._busy:
            return
        if self._shared.token_delay_s:
            self._write(_HEAD)
            self._drip(events, 0)
            return
        self._leave()
        self._write(_HEAD)
        for event in events:
            self._write(event)

    def _leave(self) -> None:
        self._busy = False
        self._shared.in_flight -= 1

    def _drip(self, events: list[bytes], at: int) -> None:
        if not self._busy:
            return
        if at >= len(events) - _CLOSING:
            self._leave()
            self._write(b"".join(events[at:]))
            return
        self._write(events[at])
        asyncio.get_running_loop().call_later(self._shared.token_delay_s, self._drip, events, at + 1)


async def serve(behaviour: Behaviour) -> None:
    """Serve for ever; print the address first."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(behaviour), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--long", action="store_true", help="long answers")
    parser.add_argument("--best", type=int, help="beyond so many at once all of them are slower")
    parser.add_argument("--most", type=int, help="beyond so many at once a request is refused with 429")
    parser.add_argument("--token-delay", type=float, default=0.0, help="seconds between two tokens")
    args = parser.parse_args()
    behaviour = Behaviour(args.latency, long=args.long, best=args.best, most=args.most, token_delay_s=args.token_delay)
    asyncio.run(serve(behaviour))


if __name__ == "__main__":
    main()
