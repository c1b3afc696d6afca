"""A conversation as plain values, and how much of it fits the model's context window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mellea_cli.messages import CHARACTERS_PER_TOKEN, Usage


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer."""

    question: str
    answer: str
    model: str = ""
    usage: Usage = Usage()  # Tokens as the server counted them; zeros when it reported none
    first_token_s: float = 0.0
    total_s: float = 0.0
    finish: str = "stop"  # `"stop"`, `"length"`, `"runaway"`, or `"cut"` for an answer that the user stopped

    @property
    def tokens_per_s(self) -> float:
        """Generation speed; 0 when unknown."""
        streamed_s = self.total_s - self.first_token_s
        return self.usage.completion_tokens / streamed_s if streamed_s > 0 else 0.0


@dataclass(slots=True)
class Conversation:
    """The turns of a chat, oldest first, and what is sent with them."""

    turns: list[Turn] = field(default_factory=list)
    system: str = ""  # The user's system prompt; empty for none
    pending: str = ""  # A question without an answer: the program was killed while it was answered, or it failed
    attached: list[tuple[str, str]] = field(default_factory=list)  # (`file` or `data`, absolute path)

    @property
    def usage(self) -> Usage:
        """Tokens over all turns, as the server counted them."""
        return sum((turn.usage for turn in self.turns), Usage())

    @property
    def first_line(self) -> str:
        """The first line of the first question."""
        question = self.turns[0].question if self.turns else self.pending
        return question.strip().partition("\n")[0]


_MIN_CHARS_PER_TOKEN, _MAX_CHARS_PER_TOKEN = 1.5, 6.0
# What a chat template adds around each message.
_TOKENS_PER_MESSAGE = 8


class TokenEstimator:
    """Estimates how many tokens a text has, and learns from what the server counts.

    Only needed for what the server has not counted yet: the next question, an attached file.
    """

    def __init__(self) -> None:
        self._chars_per_token: float = CHARACTERS_PER_TOKEN

    def tokens(self, text: str) -> int:
        return round(_weight(text) / self._chars_per_token) + 1 if text else 0

    def turn(self, turn: Turn) -> int:
        """Tokens of a turn, its answer as the server counted it."""
        answer = turn.usage.completion_tokens or self.tokens(turn.answer)
        return self.tokens(turn.question) + answer + 2 * _TOKENS_PER_MESSAGE

    def learn(self, texts: Sequence[str], prompt_tokens: int) -> None:
        """Adjust the ratio: the server counted `prompt_tokens` for messages with these texts."""
        counted = prompt_tokens - _TOKENS_PER_MESSAGE * len(texts)
        weight = sum(map(_weight, texts))
        # A few words say little about a language, and some servers do not count the cached part of a prompt.
        if counted >= 50 and weight / counted <= _MAX_CHARS_PER_TOKEN:
            self._chars_per_token = max(_MIN_CHARS_PER_TOKEN, weight / counted)


def _weight(text: str) -> int:
    # Characters outside of ASCII count three times: they seldom share a token.
    return len(text) if text.isascii() else sum(1 if character < "\x80" else 3 for character in text)


def answer_room(window: int, max_tokens: int | None) -> int:
    """Tokens of the window to keep free for the answer."""
    return min(max_tokens, window // 2) if max_tokens else min(1024, window // 4)


def turns_to_hide(turns: Sequence[Turn], room: int, estimator: TokenEstimator) -> int:
    """Number of the oldest turns to hide so that the others fit into `room` tokens."""
    for number, turn in enumerate(reversed(turns)):
        room -= estimator.turn(turn)
        if room < 0:
            return len(turns) - number
    return 0
