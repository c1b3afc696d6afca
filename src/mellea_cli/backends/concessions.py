"""What a request gives up when an OpenAI-compatible server refuses a parameter by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mellea_cli.errors import BackendError

# What can be given up when a server refuses it, and the words by which a refusal names it.
_NAMED_BY: Mapping[str, re.Pattern[str]] = {
    "response_format": re.compile(r"response_format|json[_ ]schema|json_object|grammar|structured", re.IGNORECASE),
    "stream_options": re.compile(r"\bstream_options\b"),
    "reasoning_effort": re.compile(r"\breasoning_effort\b"),
    "chat_template_kwargs": re.compile(r"\bchat_template_kwargs\b"),
    "max_tokens": re.compile(r"\bmax_tokens\b"),
    "temperature": re.compile(r"\btemperature\b"),
    "top_p": re.compile(r"\btop_p\b"),
    "seed": re.compile(r"\bseed\b"),
}
# The user chose these, so a refusal must say that the server has no such thing, not that the value is a bad one.
CHOSEN = frozenset({"max_tokens", "temperature", "top_p", "seed"})
_NO_SUCH_THING = re.compile(r"support|unknown|unrecogni[sz]ed|not permitted|unexpected|extra", re.IGNORECASE)
_REFUSALS = frozenset({400, 404, 422, 501})
_JSON_OBJECT: Mapping[str, Any] = {"type": "json_object"}


def refused(error: BackendError, body: Mapping[str, Any]) -> str:
    """Return what a server's refusal of `body` says to give up, or nothing when it is about something else."""
    if error.status not in _REFUSALS:
        return ""
    for name, words in _NAMED_BY.items():
        if name not in body or not words.search(error.message):
            continue
        if name == "response_format":
            return _weaker(body[name])
        if name not in CHOSEN or _NO_SUCH_THING.search(error.message):
            return name
    return ""


def _weaker(response_format: object) -> str:
    """Return which of our own two forms was refused; one that the user wrote is the user's."""
    if isinstance(response_format, dict) and "json_schema" in response_format:
        return "json_schema"
    return "json_object" if response_format is _JSON_OBJECT else ""


def without(body: Mapping[str, Any], given_up: frozenset[str]) -> dict[str, Any]:
    """Return the body in the form that a server takes which refuses some parameters."""
    kept = {name: value for name, value in body.items() if name not in given_up}
    if "max_tokens" in given_up and "max_tokens" in body:
        kept["max_completion_tokens"] = body["max_tokens"]
    wanted = body.get("response_format")
    if "json_schema" in given_up and isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        kept["messages"] = _with_schema(body["messages"], wanted["json_schema"]["schema"])
        kept["response_format"] = _JSON_OBJECT
        if "json_object" in given_up:
            del kept["response_format"]
    return kept


def _with_schema(messages: list[dict[str, Any]], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put the schema into the last message, as the server does not hold the model to it."""
    rule = f"Answer with nothing but one JSON object that follows this JSON schema:\n{json.dumps(schema)}"
    if not messages:
        return [{"role": "user", "content": rule}]
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}\n\n{rule}"}]
