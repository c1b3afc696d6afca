"""A relay between the program under test and a real server: it passes every byte on, and counts.

It adds and removes nothing. When one side closes its connection, so does the other.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Message:
    """One HTTP request or response."""

    first_line: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_question(self) -> bool:
        """Whether this is a request for an answer of the model."""
        return self.first_line.startswith("POST ") and b'"messages"' in self.body

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.first_line.split()[1])


@dataclass
class Reader:
    """Cuts one direction of a connection into messages."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes, and yield the messages that are complete."""
        self._buffer += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        head, blank, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not blank:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        chunked = "chunked" in headers.get("transfer-encoding", "")
        taken = _chunks(rest) if chunked else _sized(rest, int(headers.get("content-length", "0")))
        if taken is None:
            return None
        body, length = taken
        del self._buffer[: len(head) + len(blank) + length]
        return Message(first, headers, body)


def _sized(data: bytes, length: int) -> tuple[bytes, int] | None:
    return (data[:length], length) if len(data) >= length else None


def _chunks(data: bytes) -> tuple[bytes, int] | None:
    """Return the body and how many bytes its chunks take; `None` when the last one is not there yet."""
    body, place = b"", 0
    while (end := data.find(b"\r\n", place)) >= 0:
        size = int(data[place:end].split(b";")[0], 16)
        start = end + 2
        if len(data) < start + size + 2:
            return None
        body += data[start : start + size]
        place = start + size + 2
        if size == 0:
            return body, place
    return None


class Relay:
    """Listens on loopback and passes everything on to one server.

    Args:
        target: the server's address; the relay's own address has the same path.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        here = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=here))
        self.requests: list[Message] = []
        self.responses: list[Message] = []
        self.answered = 0
        """Questions that the server has answered in full, with status 200."""
        self.most_at_once = 0
        """The most questions that were in flight together."""
        self._in_flight: dict[int, int] = {}
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def questions(self) -> list[Message]:
        """The requests that asked the model."""
        with self._changed:
            return [one for one in self.requests if one.is_question]

    def wait(self, state: Callable[[Relay], bool]) -> None:
        """Wait until the relay is in this state."""
        with self._changed:
            assert self._changed.wait_for(lambda: state(self), TIMEOUT_S), "it never came to that"

    def close(self) -> None:
        """Close every connection."""
        for one in (self._listener, *self._sockets):
            # A thread that waits in `accept` or `recv` is woken by this, not by `close`.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            key = id(client)
            pairs = ((client, server, self._asked), (server, client, self._replied))
            for source, sink, seen in pairs:
                threading.Thread(target=self._pass_on, args=(source, sink, seen, key), daemon=True).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, seen: Callable[[int, Message], None], key: int
    ) -> None:
        reader = Reader()
        # Either side may hang up at any moment: that is passed on, and is no error here.
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                messages = list(reader.feed(data))
                with self._changed:
                    for message in messages:
                        seen(key, message)
                sink.sendall(data)
                with self._changed:
                    self._changed.notify_all()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._in_flight.pop(key, None)
            self._changed.notify_all()

    def _asked(self, key: int, message: Message) -> None:
        self.requests.append(message)
        if message.is_question:
            self._in_flight[key] = 1
            self.most_at_once = max(self.most_at_once, len(self._in_flight))

    def _replied(self, key: int, message: Message) -> None:
        self.responses.append(message)
        if self._in_flight.pop(key, None) and message.status == 200:
            self.answered += 1
