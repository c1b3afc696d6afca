"""The two wire protocols: how pieces, ends and errors are written, and what a request's body means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

Body = Mapping[str, Any]


class ChatProtocol(Protocol):
    """How one wire protocol writes an answer."""

    name: str
    content_type: str

    def schema(self, body: Body) -> Mapping[str, Any] | None:
        """Return the JSON schema that the request demands."""

    def piece(self, text: str, *, thinking: bool = False) -> bytes:
        """Write one piece of text."""

    def likely(self, text: str, logprobs: Mapping[str, float]) -> bytes:
        """Write one piece of text with the log-probabilities of the most likely tokens."""

    def end(self, finish: str, usage: tuple[int, int], body: Body) -> bytes:
        """Write what follows the last piece."""

    def error(self, error: Any) -> bytes:
        """Write an error object inside the stream."""

    def whole(self, text: str, finish: str, usage: tuple[int, int], body: Body) -> dict[str, Any]:
        """Return the answer to a request that did not ask for a stream."""

    def refusal(self, body: Body, refuse: frozenset[str]) -> str:
        """Return the body of the 400 for a parameter that the server refuses, or nothing."""


def _likely(text: str, logprobs: Mapping[str, float]) -> list[dict[str, Any]]:
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return [{"token": text, "logprob": logprobs.get(text, 0.0), "top_logprobs": top}]


class OpenAIProtocol:
    """`POST /v1/chat/completions`, server-sent events."""

    name = "openai"
    content_type = "text/event-stream"

    def schema(self, body: Body) -> Mapping[str, Any] | None:
        wanted = body.get("response_format") or {}
        return wanted.get("json_schema", {}).get("schema") if wanted.get("type") == "json_schema" else None

    def piece(self, text: str, *, thinking: bool = False) -> bytes:
        field = "reasoning_content" if thinking else "content"
        return (
            (
                '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
                f'[{{"index":0,"delta":{{"{field}":{json.dumps(text)}}},"finish_reason":null}}]}}'
            )
            .join(("data: ", "\n\n"))
            .encode()
        )

    def likely(self, text: str, logprobs: Mapping[str, float]) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": _likely(text, logprobs)}}
        return self._event({"choices": [{**choice, "finish_reason": None}]})

    def end(self, finish: str, usage: tuple[int, int], body: Body) -> bytes:
        events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({"choices": [], "usage": self._usage(usage)})
        return b"".join(self._event(event) for event in events) + b"data: [DONE]\n\n"

    def error(self, error: Any) -> bytes:
        return self._event({"error": error if isinstance(error, dict) else {"message": error}})

    def whole(self, text: str, finish: str, usage: tuple[int, int], body: Body) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model"),
            "choices": [choice],
            "usage": self._usage(usage),
        }

    def refusal(self, body: Body, refuse: frozenset[str]) -> str:
        kind = (body.get("response_format") or {}).get("type")
        if kind in refuse:
            return self._refuse("response_format", f"Invalid parameter: 'response_format' of type '{kind}'.")
        if "max_tokens" in refuse and "max_tokens" in body:
            return self._refuse("max_tokens", "Unsupported parameter: use 'max_completion_tokens' instead.")
        return ""

    def _refuse(self, param: str, message: str) -> str:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": "unsupported_parameter"}
        return json.dumps({"error": error})

    def _usage(self, usage: tuple[int, int]) -> dict[str, int]:
        return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}

    def _event(self, value: Any) -> bytes:
        return b"data: " + json.dumps(value).encode() + b"\n\n"


class OllamaProtocol:
    """`POST /api/chat`, one JSON object a line."""

    name = "ollama"
    content_type = "application/x-ndjson"

    def schema(self, body: Body) -> Mapping[str, Any] | None:
        return body["format"] if isinstance(body.get("format"), dict) else None

    def piece(self, text: str, *, thinking: bool = False) -> bytes:
        quoted = json.dumps(text)
        content = f'"content":"","thinking":{quoted}' if thinking else f'"content":{quoted}'
        return (
            '{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant",'
            f'{content}}},"done":false}}\n'
        ).encode()

    def likely(self, text: str, logprobs: Mapping[str, float]) -> bytes:
        message = {"role": "assistant", "content": text}
        return json.dumps({"message": message, "logprobs": _likely(text, logprobs), "done": False}).encode() + b"\n"

    def end(self, finish: str, usage: tuple[int, int], body: Body) -> bytes:
        return json.dumps(self.whole("", finish, usage, body)).encode() + b"\n"

    def error(self, error: Any) -> bytes:
        return json.dumps({"error": error}).encode() + b"\n"

    def whole(self, text: str, finish: str, usage: tuple[int, int], body: Body) -> dict[str, Any]:
        return {
            "model": body.get("model"),
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": finish,
            "prompt_eval_count": usage[0],
            "eval_count": usage[1],
        }

    def refusal(self, body: Body, refuse: frozenset[str]) -> str:
        if "think" in refuse and "think" in body:
            return json.dumps({"error": f'"{body.get("model")}" does not support thinking'})
        return ""
