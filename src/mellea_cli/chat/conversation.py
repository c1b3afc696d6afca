"""What has been said in a chat, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from mellea_cli.messages import Usage


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
