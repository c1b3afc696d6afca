"""How to ask again after an answer that will not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mellea_cli.messages import Message

Repair = Callable[[tuple[Message, ...], str, Sequence[str]], tuple[Message, ...]]
"""Takes the first request's messages, the bad answer's text and the reasons; gives the next request's messages."""

# A longer answer teaches nothing that its beginning does not, and would crowd out the window.
_SHOWN_ANSWER = 2_000


def same_prompt(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:  # noqa: ARG001 - one of several repairs with one signature
    """Ask the same again: a new sample may do better."""
    return messages


def in_turns(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:
    """Go on with the conversation: the bad answer, then what is wrong with it.

    The first request's messages stay as they were, so that a server's prompt cache holds for all of them. An empty
    answer is not shown.
    """
    complaint = "That answer will not do: " + "; ".join(why) + ". Answer again, in the form that was asked for."
    shown = answer.strip()[:_SHOWN_ANSWER]
    turns = (Message("assistant", shown), Message("user", complaint)) if shown else (Message("user", complaint),)
    return (*messages, *turns)
