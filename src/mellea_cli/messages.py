"""Requests to models and their answers: the types that every backend and every caller shares."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str  # `system`, `user` or `assistant`
    content: str

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True, slots=True)
class Options:
    """Sampling options; `None` means the server's default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None  # The most tokens of an answer
    seed: int | None = None
    stop: tuple[str, ...] = ()
    context_window: int | None = None
    """Tokens of prompt and answer together; only for servers where a request can choose it (Ollama)."""
    thinking: bool | str | None = None
    """Whether a reasoning model may reason first: `False`, `True`, or a level such as `"low"`."""
    native: Mapping[str, Any] = field(default_factory=dict)  # Options under the server's own names, passed on unchanged
    keeps_thinking: bool = False
    """Whether reasoning stays as the server has it when it uses up `max_tokens`; only where `thinking` is `None`."""
    most_reasoning: int = 0  # Tokens that may be added to `max_tokens` for a model that reasons first


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One call to a model."""

    model: str
    messages: tuple[Message, ...]
    options: Options = Options()
    output_schema: Mapping[str, Any] | None = None
    """A JSON schema for the answer; servers that can constrain their output by it."""
    top_logprobs: int = 0
    """The most likely tokens whose log-probabilities are wanted for each token of the answer; 0 for none."""
    small: bool = False  # Whether the backend's small model may answer, where it runs two


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0  # Reasoning included
    reasoning_tokens: int = field(default=0, compare=False)  # Part of `completion_tokens`, where the server says it
    cached_tokens: int = field(default=0, compare=False)
    """Part of `prompt_tokens` that the server had in its cache, where it says so: providers ask less for them."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer."""

    text: str
    likely: Mapping[str, float]  # Log-probabilities of the most likely tokens in its place and of itself


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer."""

    text: str = ""
    thinking: str = ""  # Reasoning text that is not part of the answer
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter` or `error`: set once, on the chunk that ends the answer."""
    usage: Usage | None = None  # Set at most once, on or after the chunk that ends the answer
    tokens: tuple[Token, ...] = ()  # The tokens of this piece, where the request wants log-probabilities


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Usage = Usage()
    first_token_s: float = 0.0  # Seconds from sending the request to the first piece of text
    total_s: float = 0.0  # Seconds from sending the request to the end of the stream
    thinking: str = ""
    attempts: int = 1  # How often the request was sent until it succeeded
    tokens: tuple[Token, ...] = ()  # The tokens with their log-probabilities; none when not asked for, or not to be had


CHARACTERS_PER_TOKEN = 4  # Mean of English text, for estimates before a server has counted


# Characters for each token by script, for the vocabularies of current models: a token holds a word or a part of one of
# Latin letters, but only about one sign of Chinese. Each entry ends before the next one's first code point.
_CHARACTERS_BY_SCRIPT: tuple[tuple[int, float], ...] = (
    (0x0000, CHARACTERS_PER_TOKEN),
    (0x0080, 2.0),  # Latin letters with marks
    (0x0370, 2.5),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    (0x0900, 1.5),  # The scripts of India and South-East Asia
    (0x2000, 1.0),  # Punctuation, signs
    (0x2E80, 1.1),  # Chinese, Japanese, Korean
    (0x10000, 0.5),  # Emoji and rare scripts take several tokens
)
_SCRIPT_STARTS = [start for start, _ in _CHARACTERS_BY_SCRIPT]


def estimate_tokens_of(text: str) -> int:
    """Return the estimated number of tokens of a text by the scripts of its characters, rounded up."""
    if text.isascii():
        return estimate_tokens(len(text))
    places = Counter(bisect_right(_SCRIPT_STARTS, ord(character)) - 1 for character in text)
    return math.ceil(sum(number / _CHARACTERS_BY_SCRIPT[place][1] for place, number in places.items()))


def estimate_tokens(characters: int) -> int:
    """Return the estimated number of tokens of a text with this many characters, rounded up."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)
