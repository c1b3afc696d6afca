"""The default answer: a valid instance of the schema that carries the prompt's mark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_MARK = re.compile(r"MARK-\w+")
_PIECE = re.compile(r"\s?\S{1,5}|\s", re.DOTALL)


def find_mark(text: str) -> str:
    """Return the last `MARK-…` token of `text`, or nothing."""
    marks = _MARK.findall(text)
    return marks[-1] if marks else ""


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the last user message that carries a mark, else the last user message: a repair keeps its prompt."""
    asked = [str(message.get("content") or "") for message in body["messages"] if message.get("role") == "user"]
    marked = [text for text in asked if find_mark(text)]
    return (marked or asked or [""])[-1]


def pieces(text: str) -> list[str]:
    """Cut `text` into pieces the size of tokens; joined they give `text` again."""
    return _PIECE.findall(text)


def tokens(text: str) -> list[str]:
    """Cut a JSON text where a model's tokens separate: a colon stands with the quotes around it."""
    return re.findall(r'":"?|\w+|\W', text)


def default_reply(prompt: str, schema: Mapping[str, Any] | None) -> str:
    """Answer `prompt` with one sentence, or with a valid instance of `schema`; either carries the prompt's mark."""
    sentence = f"The customer writes {find_mark(prompt) or 'something'} and waits."
    if schema is None:
        return sentence
    return json.dumps(_instance(schema, schema, sentence), ensure_ascii=False)


def _instance(schema: Mapping[str, Any], root: Mapping[str, Any], sentence: str) -> Any:
    """Build a value that is valid under `schema`; `root` resolves its references."""
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][len(sentence) % len(schema["enum"])]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: _instance(value, root, sentence) for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema.get("items", {}), root, sentence)] * max(1, schema.get("minItems", 1))
    if schema.get("format") == "date":
        return "2026-03-08"
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True, "null": None}
    return plain[kind] if kind in plain else sentence[: schema.get("maxLength", len(sentence))]


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and take the first of several choices."""
    while True:
        choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if "$ref" in schema:
            target: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target[part]
            schema = target
        elif choices:
            schema = choices[0]
        else:
            return schema
