"""JSON on the wire: requests written with their unchanging parts kept, answers read as fast as can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar

from pydantic_core import from_json

from mellea_cli.errors import UsageError

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
