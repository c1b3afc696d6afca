"""JSON on the wire: encoding of requests, and decoding of answers from bytes to JSON values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from json.encoder import encode_basestring
from typing import Any, Generic, Protocol, TypeVar

from pydantic_core import from_json

from mellea_cli.errors import StreamBroken, UsageError

MAX_LINE = 8 * 1024 * 1024
"""Maximum bytes of one line, one event or one whole body. No token needs as much, and memory stays bounded."""

_BOM = b"\xef\xbb\xbf"


class Decoder(Protocol):
    """Splits the bytes of one response into payloads: texts of one JSON value each."""

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes and return the payloads that they complete; raises `StreamBroken` for an endless one."""

    def flush(self) -> list[str]:
        """Return what the end of the stream completes."""


class LineSplitter:
    """Splits bytes into lines that end in LF, CRLF or a lone CR; a byte order mark at the start is dropped."""

    # A line ends with the first byte of its terminator: nothing waits for an LF that may never follow a CR.

    __slots__ = ("_after_cr", "_held", "_held_bytes", "_started")

    def __init__(self) -> None:
        # A long line is kept in parts and joined once: appending would copy it for each chunk.
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
        return [line for line in self.feed(b"\n") if line]


class NdjsonDecoder:
    """Newline-delimited JSON: each line that is not blank is a payload."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> list[str]:
        return [line.decode("utf-8", "replace") for line in self._lines.feed(data) if line.strip()]

    def flush(self) -> list[str]:
        return self.feed(b"\n")


class SseDecoder:
    """Server-sent events: the `data` of each event is a payload; names, ids and comments are ignored."""

    __slots__ = ("_data", "_data_bytes", "_lines")

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[str]:
        payloads = []
        for line in self._lines.feed(data):
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

    def flush(self) -> list[str]:
        # Unlike a browser this keeps an event without its blank line: some servers omit the last one, and half an event
        # is recognized as half a JSON object.
        return self.feed(b"\n\n")


class DocumentDecoder:
    """One JSON document, the answer of a server that does not stream."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[str]:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_LINE:
            raise StreamBroken(f"the answer is longer than {MAX_LINE} bytes")
        return []

    def flush(self) -> list[str]:
        text = b"".join(self._parts).removeprefix(_BOM).decode("utf-8", "replace").strip()
        return [text] if text else []


def make_decoder(expected: type[SseDecoder | NdjsonDecoder], content_type: str) -> Decoder:
    """Return a decoder for a response, given the format of the backend's protocol."""
    # A server that cannot stream answers an SSE request with one document, which may be pretty-printed.
    if expected is SseDecoder and content_type.startswith("application/json"):
        return DocumentDecoder()
    return expected()


def decode(text: str) -> Any:
    """Return the JSON value of `text`, or a `ValueError` as a value."""
    try:
        return from_json(text)
    except ValueError:
        pass
    # pydantic-core refuses a few texts that Python accepts, such as half of a surrogate pair.
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        # Python's own error holds the text, and no message may repeat what a server sent in full.
        return ValueError(str(exc))


def decode_all(texts: Sequence[str]) -> Sequence[Any]:
    """Return what `decode` returns for each text; many short ones are parsed together, at half the cost."""
    if len(texts) > 1:
        try:
            values = from_json(f"[{','.join(texts)}]")
        except ValueError:
            pass
        else:
            # A text that is not exactly one value changes the number of values.
            if len(values) == len(texts):
                return list(values)
    return [decode(text) for text in texts]


def valid_unicode(text: str) -> str:
    """Join surrogate pairs that were escaped one by one, and replace lone surrogates: no file can hold them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_object(value: object) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """Return `value` as valid Unicode if it is a string, else an empty one."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else valid_unicode(value)


_MAX_TOKENS = 1 << 40


def as_token_count(value: object) -> int:
    """Return `value` if it can be a number of tokens, else 0."""
    return value if type(value) is int and 0 <= value < _MAX_TOKENS else 0


T = TypeVar("T")

# The system text and the worked examples of a run's steps, and a few texts that occur once.
_CACHED_MESSAGES = 64
_CACHED_OBJECTS = 64

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class CachedJson(dict[str, Any]):
    """A JSON object that occurs in many requests, such as a schema, and is encoded once. It must not change."""

    @cached_property
    def text(self) -> str:
        return _to_json(self)


@lru_cache(maxsize=_CACHED_MESSAGES)
def cached_message(role: str, content: str) -> CachedJson:
    """Return a chat message; the messages that all requests of a run share are encoded once."""
    return CachedJson(role=role, content=content)


class IdentityCache(Generic[T]):
    """Function of a mapping, computed once for each mapping object. The mapping must not change afterwards."""

    def __init__(self, compute: Callable[[Mapping[str, Any]], T]) -> None:
        self._compute = compute
        self._results: dict[int, tuple[Mapping[str, Any], T]] = {}

    def __call__(self, value: Mapping[str, Any]) -> T:
        # The entry keeps its mapping alive, so no other object can have the same id.
        known = self._results.get(id(value))
        if known is not None:
            return known[1]
        if len(self._results) >= _CACHED_OBJECTS:
            self._results.clear()
        result = self._compute(value)
        self._results[id(value)] = value, result
        return result


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode a request's body as compact UTF-8; raises `UsageError` for a value that JSON cannot express."""
    fields = []
    try:
        for name, value in body.items():
            if type(value) is CachedJson:
                text = value.text
            elif name == "messages" and isinstance(value, list):
                text = f"[{','.join([item.text if type(item) is CachedJson else _to_json(item) for item in value])}]"
            else:
                text = _to_json(value)
            fields.append(f"{encode_basestring(name)}:{text}")
    except (TypeError, ValueError) as exc:
        raise UsageError(f"the request holds a value that cannot be written as JSON: {exc}") from exc
    return f"{{{','.join(fields)}}}".encode("utf-8", "replace")
