"""JSON on the wire: requests written with their unchanging parts kept, answers read as fast as can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Generic, Protocol, TypeVar

from pydantic_core import from_json

from mellea_cli.errors import StreamBroken, UsageError

# From raw bytes to whole payloads: server-sent events and newline-delimited JSON, wherever the chunks are split.

MAX_LINE = 8 * 1024 * 1024
"""Bytes that one line, one event or one unstreamed body may have: no token needs as much, and memory stays bounded."""

_MOST_TOKENS = 1 << 40

_BOM = b"\xef\xbb\xbf"


class Decoder(Protocol):
    """Turns the bytes of one response into its payloads."""

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes and return the payloads they complete. Raises `StreamBroken` for one without end."""

    def flush(self) -> list[str]:
        """Return what is left when the stream has ended."""


class LineDecoder:
    """Splits bytes into lines that end in LF, CRLF or a lone CR.

    A byte order mark at the start is dropped. A line ends with its terminator's first byte, so nothing waits for an LF
    that may never come after a CR.
    """

    __slots__ = ("_after_cr", "_held", "_held_bytes", "_started")

    def __init__(self) -> None:
        # A long line is kept in parts and joined once, as adding to it would copy it for each chunk.
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes."""
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == b"\n":
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1:] == b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        tail = lines.pop()
        if lines:
            if self._held:
                lines[0] = b"".join((*self._held, lines[0]))
                self._held.clear()
                self._held_bytes = 0
            if not self._started:
                self._started = True
                lines[0] = lines[0].removeprefix(_BOM)
        if tail:
            self._held.append(tail)
            self._held_bytes += len(tail)
            if self._held_bytes > MAX_LINE:
                raise StreamBroken(f"a line of the answer is longer than {MAX_LINE} bytes")
        return lines

    def flush(self) -> list[bytes]:
        """Return the last line when it has no terminator."""
        rest = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if not self._started:
            rest = rest.removeprefix(_BOM)
        return [rest] if rest else []


class JsonLines:
    """Newline-delimited JSON: each line that is not blank is a payload."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = LineDecoder()

    def feed(self, data: bytes) -> list[str]:
        """Return the payloads that `data` completes."""
        return [line.decode("utf-8", "replace") for line in self._lines.feed(data) if line.strip()]

    def flush(self) -> list[str]:
        """Return the last line when it has no terminator."""
        return [line.decode("utf-8", "replace") for line in self._lines.flush() if line.strip()]


class EventData:
    """Server-sent events: the `data` of each event is a payload; names, ids and comments are passed over.

    Unlike a browser it also returns an event that the end of the stream has cut off before its blank line: some servers
    leave that line out, and half an event shows itself as half a JSON object.
    """

    __slots__ = ("_data", "_data_bytes", "_lines")

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the payloads that `data` completes."""
        return self._take(self._lines.feed(data))

    def flush(self) -> list[str]:
        """Return the last event when no blank line has ended it."""
        return self._take([*self._lines.flush(), b""])

    def _take(self, lines: list[bytes]) -> list[str]:
        payloads = []
        for line in lines:
            if line.startswith(b"data:"):
                start = 6 if line[5:6] == b" " else 5
                self._data.append(line[start:])
                self._data_bytes += len(line)
                if self._data_bytes > MAX_LINE:
                    raise StreamBroken(f"an event of the answer is longer than {MAX_LINE} bytes")
            elif not line and self._data:
                payload = b"\n".join(self._data).decode("utf-8", "replace")
                self._data.clear()
                self._data_bytes = 0
                if payload:
                    payloads.append(payload)
        return payloads


class WholeBody:
    """One JSON document: what a server sends that does not stream."""

    __slots__ = ("_bytes", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> list[str]:
        """Keep `data`; a document is whole at its end only."""
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > MAX_LINE:
            raise StreamBroken(f"the answer is longer than {MAX_LINE} bytes")
        return []

    def flush(self) -> list[str]:
        """Return the document."""
        text = b"".join(self._parts).removeprefix(_BOM).decode("utf-8", "replace").strip()
        return [text] if text else []


def valid_unicode(text: str) -> str:
    """Join surrogate pairs that a server escaped one by one, and replace lone ones, which no file can take."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def an_object(value: object) -> dict[str, Any]:
    """Return `value` where it is a JSON object, else an empty one: what has another shape says nothing."""
    return value if isinstance(value, dict) else {}


def a_text(value: object) -> str:
    """Return `value` as valid Unicode where it is a string, else nothing."""
    return valid_unicode(value) if isinstance(value, str) else ""


def a_count(value: object) -> int:
    """Return `value` where it can be a number of tokens, else 0."""
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else 0


T = TypeVar("T")

# The system text and the worked examples of a run's steps, and a few texts that come and go.
_KEPT_MESSAGES = 64
_KEPT_PARTS = 64


class FixedPart(dict[str, Any]):
    """A part of many requests that nobody changes, such as a schema: it is written as JSON once."""

    @cached_property
    def text(self) -> str:
        """How it is written."""
        return _written(self)


class OncePer(Generic[T]):
    """Makes something of a mapping once for each of them, told apart by what they are and not by what they hold.

    Args:
        make: makes it; the mapping must not change afterwards.
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Mapping[str, Any], T]] = {}

    def __call__(self, value: Mapping[str, Any]) -> T:
        """What was made of `value`."""
        known = self._made.get(id(value))
        if known is not None:  # it is this very mapping: as long as it is kept here no other one has its number
            return known[1]
        if len(self._made) >= _KEPT_PARTS:
            self._made.clear()
        made = self._make(value)
        self._made[id(value)] = value, made
        return made


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a request's body as compact UTF-8.

    Messages that stand in every request are written once and kept.

    Raises:
        UsageError: it holds a value that JSON has no form for.
    """
    messages = body.get("messages")
    try:
        if not isinstance(messages, list):
            text = _written(body)
        else:
            listed = ",".join([_message(message) for message in messages])
            rest = [f",{_written(name)}:{_part(value)}" for name, value in body.items() if name != "messages"]
            text = f'{{"messages":[{listed}]{"".join(rest)}}}'
    except (TypeError, ValueError) as exc:
        raise UsageError(f"the request holds a value that cannot be written as JSON: {exc}") from exc
    return text.encode("utf-8", "replace")


def _part(value: Any) -> str:
    return value.text if isinstance(value, FixedPart) else _written(value)


def _message(message: Any) -> str:
    if isinstance(message, dict) and message.keys() == {"role", "content"}:
        role, content = message["role"], message["content"]
        if isinstance(role, str) and isinstance(content, str):
            return _kept(role, content)
    return _written(message)


@lru_cache(maxsize=_KEPT_MESSAGES)
def _kept(role: str, content: str) -> str:
    return _written({"role": role, "content": content})


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decoded(text: str) -> Any:
    """Return the decoded JSON, or a `ValueError`: without the text, which Python's own error carries with it."""
    try:
        return from_json(text)
    except ValueError:
        pass
    # It refuses a little that Python takes, such as half of a surrogate pair.
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        return ValueError(str(exc))


def all_decoded(texts: Sequence[str]) -> Sequence[Any]:
    """What `decoded` returns for each of `texts`; many short ones are read in one go, which costs half as much."""
    if len(texts) > 1:
        try:
            values = from_json(f"[{','.join(texts)}]")
        except ValueError:
            pass
        else:
            # A text that is no single value shows in the number; what would make up for it, no server sends by chance.
            if len(values) == len(texts):
                return list(values)
    return [decoded(text) for text in texts]
