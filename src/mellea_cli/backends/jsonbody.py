"""JSON as it stands in a request's body and in an answer's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mellea_cli.errors import UsageError


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a request's body as compact UTF-8. Raises `UsageError` for a value that JSON has no form for."""
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise UsageError(f"the request holds a value that cannot be written as JSON: {exc}") from exc
    return text.encode("utf-8", "replace")


def decoded(text: str) -> Any:
    """Return the decoded JSON, or a `ValueError`: without the text, which Python's own error carries with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        return ValueError(str(exc))
