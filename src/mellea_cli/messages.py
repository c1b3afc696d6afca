"""Requests to models and their answers: the types that every backend and every caller shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is to generate; `None` leaves a choice to the server."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """At most this many tokens are generated."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    context_window: int | None = None
    """Tokens of prompt and answer together; only for servers that let a request choose it (Ollama)."""
    thinking: bool | str | None = None
    """Whether a reasoning model may reason first: `False`, `True`, or a level such as `"low"`."""
    native: Mapping[str, Any] = field(default_factory=dict)
    """Options under the server's own names, passed on as they are."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One call to a model."""

    model: str
    messages: tuple[Message, ...]
    options: Options = Options()
    output_schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer must follow; the server constrains its output where it can."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer as it came off the wire."""

    text: str = ""
    thinking: str = ""
    """Reasoning text that is not part of the answer."""
    finish_reason: str | None = None
    """Set once, on the chunk that ends the answer."""
    usage: Usage | None = None
    """Set at most once, on or after the chunk that ends the answer."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Usage = Usage()
    first_token_s: float = 0.0
    """Seconds from sending the request to the first piece of text."""
    total_s: float = 0.0
    """Seconds from sending the request to the end of the stream."""
    thinking: str = ""
    attempts: int = 1
    """How often the request was sent until it went through."""


CHARACTERS_PER_TOKEN = 4
"""Mean of English text, for estimates before a server has counted."""


def estimate_tokens(characters: int) -> int:
    """Return the estimated number of tokens of a text with this many characters, rounded up."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)
