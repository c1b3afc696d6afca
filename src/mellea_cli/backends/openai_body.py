"""A request in the words of OpenAI's chat completions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mellea_cli.backends.json_text import FixedPart, OncePer
from mellea_cli.errors import UsageError
from mellea_cli.messages import GenerateRequest, Options

_OURS = frozenset({"model", "messages", "stream"})


def chat_body(request: GenerateRequest, *, is_openai: bool) -> dict[str, Any]:
    """Return the body of a request for an answer in one piece.

    Args:
        request: what is asked.
        is_openai: whether OpenAI's own server is asked, which knows fewer parameters than the compatible ones.

    Raises:
        UsageError: an option has no place on this wire.
    """
    options = request.options
    if options.context_window is not None:
        raise UsageError(
            "an OpenAI-compatible server sets its context window itself, a request cannot choose it",
            hint="set it where the server is started, or use --backend ollama",
        )
    if wrong := _OURS & options.native.keys():
        raise UsageError(f"the option {min(wrong)!r} cannot be set here: it is part of every request")
    chosen = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "stop": list(options.stop) or None,
    }
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **{name: value for name, value in chosen.items() if value is not None},
        **_thinking(options, is_openai=is_openai),
    }
    if request.output_schema is not None:
        body["response_format"] = _FORMATS(request.output_schema)
    body.update(options.native)
    return body


def _response_format(schema: Mapping[str, Any]) -> FixedPart:
    return FixedPart(
        type="json_schema", json_schema={"name": _schema_name(schema), "schema": dict(schema), "strict": True}
    )


_FORMATS = OncePer(_response_format)


def _thinking(options: Options, *, is_openai: bool) -> dict[str, Any]:
    """Say whether to reason first in the words that servers know: an effort, and the chat template's own switch."""
    thinking = options.thinking
    if thinking is None:
        return {}
    if isinstance(thinking, str):
        return {"reasoning_effort": thinking}
    if is_openai:
        return {"reasoning_effort": "medium"} if thinking else {}
    effort = "medium" if thinking else "none"
    return {"reasoning_effort": effort, "chat_template_kwargs": {"enable_thinking": thinking}}


def _schema_name(schema: Mapping[str, Any]) -> str:
    """Return the schema's title as the wire allows it: letters, digits, `_` and `-`, at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or ""))[:64] or "answer"
