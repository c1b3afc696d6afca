"""JSON on the wire: encoding of requests, and decoding of answers from bytes to JSON values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from json.encoder import encode_basestring
from typing import Any, Generic, TypeVar

from pydantic_core import from_json

from mellea_cli.errors import StreamBroken, UsageError
from mellea_cli.messages import Message, Token

# Maximum bytes of one line, one event or one whole body. No token needs as much, and memory stays bounded.
MAX_LINE = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


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


_LONGEST_DONE = 16
_WHOLE_JSON = ((b"{", b"}"), (b"[", b"]"))


class SseDecoder:
    """Server-sent events: the `data` of each event is a payload; ids and comments are ignored.

    Servers leave the standard in these ways: events without a blank line between them, a line of bare JSON, an event
    named `error`, and a line `error: …` (llama.cpp). The last two become payloads of the form `{"error": …}`. An event
    with another name and data that are no JSON, such as a ping, is ignored.
    """

    __slots__ = ("_data", "_data_bytes", "_lines", "_name")

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""

    def feed(self, data: bytes) -> list[str]:
        payloads: list[str] = []
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                start = 6 if line[5:6] == b" " else 5
                if self._data and _begins_event(self._data[-1], line[start:]):
                    self._end_event(payloads)
                self._data.append(line[start:])
                self._data_bytes += len(line)
                if self._data_bytes > MAX_LINE:
                    raise StreamBroken(f"an event of the answer is longer than {MAX_LINE} bytes")
            elif not line:
                if len(self._data) == 1 and len(self._data[0]) > _LONGEST_DONE and not self._name:
                    # Nearly every event: what `_end_event` does, without the call for each token.
                    payloads.append(self._data.pop().decode("utf-8", "replace"))
                    self._data_bytes = 0
                elif self._data:
                    self._end_event(payloads)
                self._name = b""
            elif line.startswith(b"{"):
                payloads.append(line.decode("utf-8", "replace"))
            elif line.startswith(b"error:"):
                payloads.append(_as_error(line[6:]))
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
        return payloads

    def _end_event(self, payloads: list[str]) -> None:
        data = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        if len(data) < _LONGEST_DONE and data.strip() == b"[DONE]":
            payloads.append("[DONE]")
        elif self._name == b"error" and data:
            payloads.append(_as_error(data))
        elif data and (not self._name or data.lstrip()[:1] in (b"{", b"[")):
            payloads.append(data.decode("utf-8", "replace"))

    def flush(self) -> list[str]:
        # Unlike a browser this keeps an event without its blank line: some servers omit the last one, and half an event
        # is recognized as half a JSON object.
        return self.feed(b"\n\n")


def _begins_event(held: bytes, line: bytes) -> bool:
    """Whether a line of data begins an event although no blank line ended the one before, which is whole."""
    whole = any(held.startswith(start) and held.rstrip().endswith(end) for start, end in _WHOLE_JSON)
    return whole and line.lstrip().startswith((b"{", b"["))


def _as_error(data: bytes) -> str:
    text = data.decode("utf-8", "replace").strip()
    value = decode(text)
    return json.dumps({"error": text if isinstance(value, ValueError) else value or text})


class JsonDecoder:
    """JSON values, one a line, or one document on several lines, as of a server that does not stream."""

    __slots__ = ("_document", "_lines", "_size", "_started")

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._document: list[bytes] | None = None
        self._size = 0
        self._started = False

    def feed(self, data: bytes) -> list[str]:
        lines = [line for line in self._lines.feed(data) if line.strip()]
        if lines and not self._started:
            # A first line that is no value by itself is that of a document.
            self._started = True
            if isinstance(decode(lines[0].decode("utf-8", "replace")), ValueError) and lines[0].strip() != b"[DONE]":
                self._document = []
        if self._document is None:
            return [line.decode("utf-8", "replace") for line in lines]
        self._document += lines
        self._size += len(data)
        if self._size > MAX_LINE:
            raise StreamBroken(f"the answer is longer than {MAX_LINE} bytes")
        return []

    def flush(self) -> list[str]:
        payloads = self.feed(b"\n")
        return payloads if self._document is None else [b"\n".join(self._document).decode("utf-8", "replace")]


_FIELD = re.compile(rb"(?:data|event|id|retry|error)?:")
_SHOWN_TEXT = 4_096


class AnyDecoder:
    """Decoder of whatever a response turns out to be: the bytes decide, not the content type, which is often wrong."""

    __slots__ = ("_head", "_text_size", "feed", "flush")

    def __init__(self) -> None:
        self._head = b""
        self._text_size = 0
        # Replaced by the methods of the decoder that fits: the hot path must not pass through this class.
        self.feed: Callable[[bytes], list[str]] = self._choose
        self.flush: Callable[[], list[str]] = list

    @property
    def text(self) -> str:
        """The beginning of a response that holds neither events nor JSON, such as a web page; else empty."""
        return self._head.decode("utf-8", "replace").strip()

    def _choose(self, data: bytes) -> list[str]:
        self._head += data
        if _BOM.startswith(self._head[:3]) and len(self._head) < len(_BOM):
            return []
        start = self._head.removeprefix(_BOM).lstrip()
        if not start:
            self._head = b""
            return []
        decoder: SseDecoder | JsonDecoder
        if start[:1] in (b"{", b"["):
            decoder = JsonDecoder()
        elif _FIELD.match(start):
            decoder = SseDecoder()
        elif len(start) < len(b"retry:"):
            return []
        else:
            self.feed = self._keep_text
            return self._keep_text(b"")
        self.feed, self.flush, self._head = decoder.feed, decoder.flush, b""
        return self.feed(start)

    def _keep_text(self, data: bytes) -> list[str]:
        self._head = (self._head + data)[:_SHOWN_TEXT]
        self._text_size += len(data)
        if self._text_size > MAX_LINE:
            raise StreamBroken(f"the answer is longer than {MAX_LINE} bytes")
        return []


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


_BETWEEN_VALUES = re.compile(r"(?:\[DONE\]|data:|[\s,\[\]])*")
_decode_next = json.JSONDecoder().raw_decode


def glued_objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a text that holds nothing else but `data:`, `[DONE]`, commas and brackets."""
    found: list[dict[str, Any]] = []
    at = _BETWEEN_VALUES.match(text).end()  # type: ignore[union-attr]  # it also matches nothing
    while at < len(text):
        try:
            value, at = _decode_next(text, at)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        found.append(value)
        at = _BETWEEN_VALUES.match(text, at).end()  # type: ignore[union-attr]  # it also matches nothing
    return found


def unwrapped(event: dict[str, Any]) -> dict[str, Any]:
    """Return the answer inside an envelope such as `{"code": 0, "data": {...}}`; anything else as it is."""
    for key in ("data", "result", "response", "body"):
        inner = event.get(key)
        if isinstance(inner, str) and inner.startswith("{"):
            inner = decode(inner)
        if isinstance(inner, dict) and inner.get("choices"):
            return inner
    return event


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


def read_tokens(tokens: object) -> tuple[Token, ...]:
    """Tokens with the log-probabilities of the most likely ones in their places, as OpenAI and Ollama write them."""
    found = []
    for entry in map(as_object, tokens if isinstance(tokens, list) else ()):
        listed = entry.get("top_logprobs")
        likely = {
            token: float(value)
            for one in (*map(as_object, listed if isinstance(listed, list) else ()), entry)
            if isinstance(value := one.get("logprob"), int | float) and (token := as_text(one.get("token")))
        }
        if isinstance(listed, list) and listed and likely:
            found.append(Token(as_text(entry.get("token")), likely))
    return tuple(found)


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


# Tokens are at most this many bytes long on average, in any language. The smallest window in use keeps half of its
# 2,048 tokens when it cuts, and older servers do not count what is in their cache: a small count says nothing.
_MOST_BYTES_PER_TOKEN = 6
_LEAST_KEPT = 1_000
_RUN_OF_SIGNS = re.compile(r"(\W)\1+")


def prompt_was_cut(messages: Sequence[Message], prompt_tokens: int) -> bool:
    """Whether a prompt has far more text than the server has read."""
    if prompt_tokens < _LEAST_KEPT:
        return False
    text = "".join(message.content for message in messages)
    most = prompt_tokens * _MOST_BYTES_PER_TOKEN
    # Runs of blanks and lines of signs are few tokens.
    return len(text.encode("utf-8", "replace")) > most and len(_RUN_OF_SIGNS.sub(r"\1", text).encode()) > most
