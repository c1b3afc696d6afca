"""A JSON array of objects, or objects one after the other, read piece by piece and never held whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from mellea_cli.errors import InputError
from mellea_cli.io.byte_input import CHUNK_BYTES, MAX_ROW_BYTES, LineCounter, Lines, too_long

# JSON rows: one object a line, and what to say of a line that is none.

RawRow = tuple[int, dict[str, Any], str | None]
"""A row before anybody asked what its columns mean: physical line, columns, the JSON text as it stood or `None`."""

MAX_DEPTH = 400
"""Objects and arrays inside each other; more is refused, so that every row that is read can also be written."""

_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "an array"}


class BadJson(ValueError):
    """Text that is not one JSON object; its message says why."""


class JsonObjects:
    """Parses one JSON object at a time, with the decoder made once."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self.raw_decode = self._decoder.raw_decode

    def parse(self, text: str) -> dict[str, Any]:
        """Parse an object that fills `text`.

        Raises:
            BadJson: it is no JSON, not an object, or too deeply nested.
        """
        try:
            value = self._decoder.decode(text)
        except (ValueError, RecursionError) as error:
            if text.startswith("\ufeff"):  # files glued together keep their byte order marks
                return self.parse(text.lstrip("\ufeff"))
            raise BadJson(reason(error, text)) from error
        return checked_object(value, len(text))


def checked_object(value: Any, length: int) -> dict[str, Any]:
    """Return a parsed value when it is an object of bounded depth.

    Args:
        value: what was parsed.
        length: characters of its text; a short text cannot be nested deeply.

    Raises:
        BadJson: it is something else.
    """
    if not isinstance(value, dict):
        raise BadJson(f"expected an object, found {_KINDS.get(type(value), 'null')}")
    if length > 2 * MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise BadJson(f"nested more than {MAX_DEPTH} levels deep")
    return value


def read_jsonl(lines: Lines) -> Iterator[RawRow | InputError]:
    """Read one object a line; empty lines do not count. A bad line is yielded as the error that it is."""
    parse = JsonObjects().parse
    for number, raw in lines:
        try:
            text = lines.decode(number, raw).strip()
            if text:
                yield number, parse(text), text.lstrip("\ufeff")
        except InputError as error:
            yield error
        except BadJson as error:
            yield InputError(f"not a JSON object: {error}", path=lines.path, line=number, hint=_advice(text))


def reason(error: Exception, text: str) -> str:
    """Say in a few words why a text is no JSON."""
    if isinstance(error, RecursionError):
        return f"nested more than {MAX_DEPTH} levels deep"
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return "it ends in the middle (cut off?)"
        if error.msg.startswith("Invalid control character"):
            return f"a raw control character at column {error.pos + 1}; JSON wants it escaped"
        return f"{error.msg} at column {error.pos + 1}"
    return "a number with too many digits" if "digits" in str(error) else str(error)


def _advice(text: str) -> str:
    if text in ("{", "["):
        return "rows that span lines need --format json"
    if not text.startswith(("{", "[", '"')):
        return "if this is not JSONL, say --format csv, tsv or json"
    return "each line must be one whole JSON object"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (write null)")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


_SPACE = " \t\r\n\ufeff"
_LONGEST_CUT_TOKEN = 12
"""A literal or an escape that is cut off at the end of what has arrived starts at most this far before it."""

_LONGEST_CUT_NUMBER = 3
"""What may follow a number that is whole so far and be part of it: `e+` and a digit that is still to come."""


class JsonStream:
    """Reads objects out of an array, or out of a sequence of objects.

    Broken syntax ends the reading: inside an array there is no safe place to go on from. An element that is not an
    object harms only itself.

    Args:
        chunks: the text in pieces as they arrive.
        path: how messages call the input.
    """

    def __init__(self, chunks: Iterator[str], path: str) -> None:
        self._chunks = chunks
        self._path = path
        self._json = JsonObjects()
        self._text = ""
        self._at = 0
        self._place = LineCounter()
        self._ended = False

    def rows(self) -> Iterator[RawRow | InputError]:
        """Yield the objects in order.

        Raises:
            InputError: the text is no JSON from some point on; rows before it have been yielded.
        """
        first = self._peek()
        if not first:
            return
        if first == "[":
            self._step(1)
            yield from self._elements()
        elif first == "{":
            while self._peek():
                yield self._element()
        else:
            raise self._error("expected a JSON array or JSON objects", "say --format if this is not JSON")

    def _elements(self) -> Iterator[RawRow | InputError]:
        if self._peek() != "]":
            yield self._element()
            while (mark := self._peek()) == ",":
                self._step(1)
                self._peek()
                yield self._element()
            if not mark:
                raise self._error("the array does not end (cut off?)", "fetch or write the file again")
            if mark != "]":
                raise self._error(f"expected ',' or ']' after an element, found {mark!r}", "")
        self._step(1)
        if self._peek():
            raise self._error("there is more after the end of the array", "one array, or one object a line")

    def _element(self) -> RawRow | InputError:
        line = self._place.line
        value, raw = self._decode()
        try:
            fields = checked_object(value, len(raw))
        except BadJson as error:
            return InputError(f"not a JSON object: {error}", path=self._path, line=line)
        return line, fields, _one_line(raw)

    def _decode(self) -> tuple[Any, str]:
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or not self._may_be_cut(error):
                    raise self._broken(error) from error
            else:
                if self._ended or not self._may_go_on(value, end):
                    raw = self._text[self._at : end]
                    self._step(end - self._at)
                    return value, raw
            have = len(self._text) - self._at
            if have > MAX_ROW_BYTES:
                raise too_long(self._path, self._place.line)
            # A long element is not parsed again for each small piece of it that arrives.
            self._more(1 if have < CHUNK_BYTES else have // 4)

    def _may_be_cut(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_CUT_TOKEN

    def _may_go_on(self, value: Any, end: int) -> bool:
        """Whether this is a number of which more may come: `1` may be the beginning of `1e+5`."""
        return isinstance(value, int | float) and len(self._text) - end < _LONGEST_CUT_NUMBER

    def _broken(self, error: Exception) -> InputError:
        if not isinstance(error, json.JSONDecodeError):
            return self._error(f"broken JSON: {reason(error, self._text)}", "")
        if self._ended and self._may_be_cut(error):
            return self._error("the JSON ends in the middle of a value (cut off?)", "fetch or write the file again")
        self._step(max(error.pos - self._at, 0))
        told = f"broken JSON: {error.msg} at column {self._place.column}"
        return self._error(told, "check the file with a JSON tool such as jq")

    def _peek(self) -> str:
        """Skip white space and return the next character, `""` at the end of the input."""
        while True:
            at = self._at
            text = self._text
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._step(at - self._at)
            if at < len(text):
                return text[at]
            if self._ended:
                return ""
            self._more()

    def _step(self, count: int) -> None:
        self._place.pass_over(self._text, self._at, self._at + count)
        self._at += count

    def _more(self, at_least: int = 1) -> None:
        pieces = [self._text[self._at :]]
        got = 0
        while got < at_least and not self._ended:
            piece = next(self._chunks, None)
            if piece is None:
                self._ended = True
            else:
                pieces.append(piece)
                got += len(piece)
        self._text, self._at = "".join(pieces), 0

    def _error(self, message: str, hint: str) -> InputError:
        return InputError(message, path=self._path, line=self._place.line, hint=hint)


def _one_line(raw: str) -> str:
    """Make the line breaks between tokens spaces; inside JSON strings there are none."""
    if "\n" in raw or "\r" in raw:
        return raw.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    return raw
