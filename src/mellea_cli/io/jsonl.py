"""JSON rows: one object a line, and what to say of a line that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from mellea_cli.errors import InputError
from mellea_cli.io.lines import Lines

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
