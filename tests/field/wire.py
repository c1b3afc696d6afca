"""Replies of model servers as data: the bytes that a server sends, and when it sends them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SSE = "text/event-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
HTML = "text/html; charset=utf-8"

VALUES: dict[str, Any] = {
    "positive_aspect": None,
    "main_complaint": "late delivery",
    "urgency": "medium",
    "sentiment": "negative",
    "summary": "The customer says that the delivery came late.",
}
"""A right answer to every step of both pipelines."""
ANSWER = json.dumps(VALUES)
OTHER_VALUES: dict[str, Any] = {
    "positive_aspect": "quick refund",
    "main_complaint": None,
    "urgency": "low",
    "sentiment": "positive",
    "summary": "The customer is glad about the quick refund.",
}
"""Another answer that is right in form."""
OTHER = json.dumps(OTHER_VALUES)
THOUGHT = "Let me see. The author writes about a delivery that came late, so this is a complaint about the delivery."

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of a server.

    In the body `@MODEL@` stands for the model that the request names, `@PROMPT@` for the tokens of its prompt, `@KEPT@`
    for what is left of them in a context of 4,096 tokens or of the size that the request asks for, `@IN_1_S@` for the
    time in a second (RFC 3339), and `@IN_1_S_MS@` for the same in milliseconds since 1970; headers know the last two.
    """

    body: bytes = b""
    status: int = 200
    type: str = SSE
    headers: Headers = ()
    end: str = "whole"
    """`whole`; `cut`: the connection breaks before the body's end; `close`: it ends behind each response, although
    HTTP/1.1 promises to keep it; `hang`: no response at all; `raw`: the body is the whole response with its
    head, behind which the connection ends."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A reply, and the requests that get it.

    Args:
        reply: what is sent.
        when: conditions that must all hold, see `field.server.holds`; none holds for every request.
        times: so many requests get it, then the rule no longer counts.
    """

    reply: Reply
    when: Mapping[str, Any] = field(default_factory=dict)
    times: int | None = None


def pieces(text: str, size: int = 12) -> list[str]:
    """The text in pieces, as a model writes it."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def dumped(value: object) -> str:
    """JSON as servers write it, non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False)


# OpenAI's protocol


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a streamed answer."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def texts(text: str) -> list[dict[str, Any]]:
    """The chunks that carry a text."""
    return [delta(content=piece) for piece in pieces(text)]


def thoughts(text: str, name: str = "reasoning_content") -> list[dict[str, Any]]:
    """The chunks that carry reasoning in a field of its own."""
    return [delta(content=None, **{name: piece}) for piece in pieces(text)]


def usage(completion: int, reasoning: int | None = None) -> dict[str, Any]:
    """The chunk with the token counts."""
    counts: dict[str, Any] = {"prompt_tokens": 700, "completion_tokens": completion, "total_tokens": 700 + completion}
    if reasoning is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts}


def events(chunks: Iterable[object], *, done: bool = True) -> bytes:
    """Chunks as server-sent events; a string stands as it is."""
    lines = "".join(chunk if isinstance(chunk, str) else f"data: {dumped(chunk)}\n\n" for chunk in chunks)
    return (lines + ("data: [DONE]\n\n" if done else "")).encode()


def stream(*chunks: object, done: bool = True, **more: Any) -> Reply:
    """A streamed reply of these chunks."""
    return Reply(events(chunks, done=done), **more)


def says(text: str, finish: str = "stop", **more: Any) -> Reply:
    """A streamed answer in the usual form."""
    return stream(delta(role="assistant", content=""), *texts(text), delta(finish), **more)


def whole(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """An answer in one piece."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    counts = {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760}
    return {"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": counts}


GOOD = says(ANSWER)


# Ollama's protocol


def line(text: str = "", *, done: bool = False, message: Mapping[str, Any] | None = None, **more: Any) -> str:
    """One line of a streamed answer."""
    value = {
        "model": "m",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text, **(message or {})},
        "done": done,
        **more,
    }
    return dumped(value) + "\n"


def last(reason: str = "stop", prompt: object = 700, count: int = 60) -> str:
    """The last line of an answer."""
    return line(done=True, done_reason=reason, prompt_eval_count=prompt, eval_count=count)


def lines(*parts: str, **more: Any) -> Reply:
    """A streamed reply of these lines."""
    return Reply("".join(parts).encode(), **({"type": NDJSON} | more))


def tells(text: str, reason: str = "stop") -> Reply:
    """A streamed answer in the usual form."""
    return lines(*(line(piece) for piece in pieces(text)), last(reason))


GOOD_OLLAMA = tells(ANSWER)


# Errors


def refuses(status: int, body: object, *headers: tuple[str, str], type: str = JSON) -> Reply:  # noqa: A002
    """A refusal: JSON, or a text as it is."""
    return Reply((body if isinstance(body, str) else dumped(body)).encode(), status, type, headers)


def problem(message: str, **more: Any) -> dict[str, Any]:
    """An error object in OpenAI's form."""
    return {"error": {"message": message, **more}}


def web_page(title: str, text: str = "") -> str:
    """A web page as proxies and firewalls send it."""
    return (
        f'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>{title}</title></head>\n'
        f"<body><center><h1>{title}</h1></center><p>{text}</p></body>\n</html>\n"
    )


def first(count: int, reply: Reply, then: Reply = GOOD) -> tuple[Rule, ...]:
    """So many requests get one reply, all later ones another."""
    return (Rule(reply, times=count), Rule(then))


def always(reply: Reply) -> tuple[Rule, ...]:
    """Every request gets this reply."""
    return (Rule(reply),)


def unless(then: Reply, *rules: tuple[Mapping[str, Any], Reply]) -> tuple[Rule, ...]:
    """Requests for which a condition holds get its reply, the others `then`."""
    return (*(Rule(reply, when) for when, reply in rules), Rule(then))


def joined(parts: Sequence[str]) -> str:
    """Parts as one text."""
    return "".join(parts)
