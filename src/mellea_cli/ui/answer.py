"""What can be told of an answer while it is still streaming."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LABELS = {"positive_aspect": "praise", "main_complaint": "complaint"}
"""Shorter names for columns that would not fit beside their values."""
_MOST_FIELDS = 24


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structured answer."""

    label: str
    value: str
    """Empty for a value that is null or has not begun."""


def fields(text: str) -> list[Field] | None:
    """The fields of a JSON object, finished or not, in the order in which they stream.

    Nested objects are flattened one level. Meant to be called once a frame, never once a token.

    Returns:
        `None` when the text is not the beginning of a JSON object.
    """
    from pydantic_core import from_json

    start = text.find("{")
    if start < 0 or text[:start].strip(" \t\r\n`json"):  # a fence is all that may stand before it
        return None
    try:
        value = from_json(text[start:], allow_partial="trailing-strings")
    except ValueError:
        value = _without_rest(text[start:])
    return list(_flat(value))[:_MOST_FIELDS] if isinstance(value, dict) else None


def _without_rest(text: str) -> Any:
    """Parse what stands before the last brace: a fence or a remark may follow the object."""
    from pydantic_core import from_json

    try:
        return from_json(text[: text.rindex("}") + 1], allow_partial="trailing-strings")
    except ValueError:
        return None


def _flat(value: dict[str, Any]) -> Iterator[Field]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            for name, leaf in inner.items():
                yield Field(_label(name), _shown(leaf))
        else:
            yield Field(_label(key), _shown(inner))


def _label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " "))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    return str(value)
