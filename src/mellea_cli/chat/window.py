"""How much of a conversation the model's window has room for."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_cli.chat.conversation import Turn

_LETTERS_PER_TOKEN = 3.6
_FEWEST, _MOST = 1.5, 6.0
# What a chat template puts around a message.
_AROUND = 8


class Meter:
    """Guesses how many tokens a text has, and learns from what the server counts.

    A guess is needed only for what the server has not counted yet: the next question, a file.
    """

    def __init__(self) -> None:
        self._ratio = _LETTERS_PER_TOKEN

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
