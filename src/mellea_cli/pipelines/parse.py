"""From an answer's text to a value, and to partial values while it streams."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import ParseError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_CODE_FENCE = re.compile(r"\A```[\w-]*\s*\n(.*?)\n?```\Z", re.DOTALL)
_REASONING = re.compile(r"\A<think>.*?</think>", re.DOTALL)


def answer_text(text: str) -> str:
    """The answer without what models like to wrap around it: reasoning, a code fence, white space."""
    bare = _REASONING.sub("", text.strip(), count=1).strip()
    fenced = _CODE_FENCE.match(bare)
    return fenced.group(1).strip() if fenced else bare


def from_answer(adapter: TypeAdapter[Any], text: str) -> Any:
    """Validate an answer that should be JSON.

    Raises:
        ParseError: it is not JSON, or not of the adapter's type; worded for the model, with the raw text kept.
    """
    from pydantic import ValidationError

    bare = answer_text(text)
    try:
        return adapter.validate_json(bare)
    except ValidationError as error:
        raise ParseError(_reason(error), text=text) from error
    except RecursionError as error:
        raise ParseError("the JSON is nested too deeply", text=text) from error


def _reason(error: ValidationError) -> str:
    """What is wrong, as the model should hear it: the first three places."""
    parts = []
    for detail in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"]
        if detail["type"] == "json_invalid":
            return f"it is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)


def partial_fields(text: str) -> dict[str, Any] | None:
    """The fields of a JSON object that is still being written.

    Args:
        text: the beginning of an answer.

    Returns:
        The fields so far, a string that has not ended included; `None` when this is not the beginning of an object.
    """
    from pydantic_core import from_json

    start = text.lstrip()
    if start.startswith("```"):
        start = start[start.find("\n") + 1 :] if "\n" in start else ""
    if not start.startswith("{"):
        return None
    try:
        value = from_json(start, allow_partial="trailing-strings")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def compact_json(value: Any) -> str:
    """JSON without white space between tokens: what examples are written in, for every blank costs a token."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
