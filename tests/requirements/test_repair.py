"""How to ask again."""

from __future__ import annotations

from mellea_cli.messages import Message
from mellea_cli.requirements.requirement import in_turns, same_prompt

FIRST = (Message("system", "s"), Message("user", "u"))


def test_the_same_prompt_is_the_same_prompt() -> None:
    """Nothing is added."""
    assert same_prompt(FIRST, "bad", ["why"]) == FIRST


def test_a_repair_goes_on_with_the_conversation() -> None:
    """The first messages stay as they were, so that a prompt cache still holds them."""
    repaired = in_turns(FIRST, "bad answer", ["too long", "not JSON"])
    assert repaired[:2] == FIRST
    assert repaired[2] == Message("assistant", "bad answer")
    assert "too long; not JSON" in repaired[3].content


def test_an_empty_answer_is_not_shown() -> None:
    """There is nothing to show, and some servers refuse an empty turn."""
    assert [message.role for message in in_turns(FIRST, "  ", ["it was empty"])] == ["system", "user", "user"]


def test_a_runaway_answer_is_shown_in_part() -> None:
    """It would crowd out the window."""
    repaired = in_turns(FIRST, "la " * 100_000, ["it repeats itself"])
    assert len(repaired[2].content) <= 2_000
