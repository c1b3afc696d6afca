"""The lines of the batch file format: requests as OpenAI's Batch API and `vllm run-batch` read them, and replies.

One JSON object a line. A request has `custom_id`, `method`, `url` and `body`; a reply has the same `custom_id`, and
either a `response` with `status_code` and `body`, or an `error`. Replies come in any order, spread over an output and
an error file. (OpenAI's API reference, "The request input object" and "The request output object"; vLLM writes both
into one file, with `body: null` where a request failed.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.json_text import decoded, encoded
from mellea_cli.backends.openai import whole_answer
from mellea_cli.backends.wire_errors import ErrorObject, one_line
from mellea_cli.errors import BackendError
from mellea_cli.messages import Completion

CHAT_URL = "/v1/chat/completions"
"""The endpoint that every request names: it is part of the format, wherever the server has its API."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request: a completion, or the reason why there is none."""

    custom_id: str
    completion: Completion | None
    error: str = ""


def request_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """Write one request, with the line's end."""
    return encoded({"custom_id": custom_id, "method": "POST", "url": CHAT_URL, "body": body}) + b"\n"


def read_reply(line: bytes, source: str) -> Reply | None:
    """Read one line of an output or error file.

    Args:
        line: the line.
        source: where it comes from, for messages.

    Returns:
        What it says, or `None` when it is no reply at all: not JSON, no object, without a `custom_id`.
    """
    value = decoded(line.decode("utf-8", "replace"))
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return None
    custom_id, response = value["custom_id"], value.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code") if isinstance(response, dict) else None
    if isinstance(body, dict) and status in (200, None) and not value.get("error"):
        try:
            return Reply(custom_id, whole_answer(source, body))
        except (BackendError, AttributeError, TypeError) as error:
            # The second and third: an object of another shape than any server's answer.
            said = error.message if isinstance(error, BackendError) else "the answer has an unknown shape"
            return Reply(custom_id, None, one_line(said))
    return Reply(custom_id, None, _trouble(value.get("error") or body, status))


def _trouble(error: object, status: object) -> str:
    said = ErrorObject.read(error if isinstance(error, dict | str) else {})
    words = " ".join(part for part in (str(status or ""), *said.codes[:1], said.message.strip("{}")) if part)
    return one_line(words) or "no answer and no reason"
