"""What has been said in a chat, as plain values."""

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
    usage: Usage = Usage()
    """As the server counted it; zeros when it did not say."""
    first_token_s: float = 0.0
    total_s: float = 0.0
    finish: str = "stop"
    """`"stop"`, `"length"`, or `"cut"` for an answer that the user stopped."""

    @property
    def cut(self) -> bool:
        """Whether the user stopped the answer."""
        return self.finish == "cut"

    @property
    def tokens_per_s(self) -> float:
        """How fast the answer came; 0 when that is not known."""
        spent = self.total_s - self.first_token_s
        return self.usage.completion_tokens / spent if spent > 0 else 0.0


@dataclass(slots=True)
class Conversation:
    """The turns of a chat and its system prompt.

    Attributes:
        turns: oldest first.
        system: the system prompt; empty for none.
        pending: a question that has no answer: one was on its way when the program was killed, or it failed.
        attached: paths of files and data that the chat was given, as (kind, path).
    """

    turns: list[Turn] = field(default_factory=list)
    system: str = ""
    pending: str = ""
    attached: list[tuple[str, str]] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """Tokens over all turns, as the server counted them."""
        return sum((turn.usage for turn in self.turns), Usage())

    @property
    def first_line(self) -> str:
        """The first line of the first question."""
        asked = self.turns[0].question if self.turns else self.pending
        return asked.strip().partition("\n")[0]


# How much of a conversation the model's window has room for.

_FEWEST, _MOST = 1.5, 6.0
# What a chat template puts around a message.
_AROUND = 8


class Meter:
    """Guesses how many tokens a text has, and learns from what the server counts.

    A guess is needed only for what the server has not counted yet: the next question, a file.
    """

    def __init__(self) -> None:
        self._ratio: float = CHARACTERS_PER_TOKEN

    def tokens(self, text: str) -> int:
        """Tokens that `text` will probably have."""
        return round(_weight(text) / self._ratio) + 1 if text else 0

    def learn(self, texts: Sequence[str], tokens: int) -> None:
        """The server counted `tokens` for these messages."""
        counted = tokens - _AROUND * len(texts)
        weight = sum(map(_weight, texts))
        # A few words say little about the language; a cached prompt is counted as less than it is by some servers.
        if counted >= 50 and weight / counted <= _MOST:
            self._ratio = max(_FEWEST, weight / counted)

    def turn(self, turn: Turn) -> int:
        """Tokens of a turn."""
        return self.tokens(turn.question) + (turn.usage.completion_tokens or self.tokens(turn.answer)) + 2 * _AROUND


def _weight(text: str) -> int:
    """Letters, of which those outside of ASCII count three times: they seldom share a token."""
    return len(text) if text.isascii() else sum(1 if letter < "\x80" else 3 for letter in text)


def answer_room(window: int, max_tokens: int | None) -> int:
    """Tokens to keep free for the answer."""
    return min(max_tokens, window // 2) if max_tokens else min(1024, window // 4)


def left_out(turns: Sequence[Turn], room: int, meter: Meter) -> int:
    """How many of the oldest turns must leave so that the others fit into `room` tokens."""
    for number, turn in enumerate(reversed(turns)):
        room -= meter.turn(turn)
        if room < 0:
            return len(turns) - number
    return 0
