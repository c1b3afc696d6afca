"""A JSON array of objects, or objects one after the other, read piece by piece and never held whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mellea_cli.errors import InputError
from mellea_cli.io.bytesin import CHUNK_BYTES
from mellea_cli.io.encoding import LineCounter
from mellea_cli.io.jsonl import BadJson, JsonObjects, RawRow, checked_object, reason
from mellea_cli.io.lines import MAX_ROW_BYTES, too_long

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
