"""The model as judge of a requirement: a short prompt of its own, and how to read the verdict."""

from __future__ import annotations

import dataclasses

from mellea_cli.messages import Message, Options
from mellea_cli.requirements.base import Requirement, ValidationResult

# A verdict is one word; the room beyond it is for models that say "Yes, because".
JUDGE_OPTIONS = Options(temperature=0.0, max_tokens=16)


def options_like(asked: Options) -> Options:
    """How a judge generates: as briefly and as surely as it can, on the model as `asked` sets it up.

    Temperature, length limit and stop words are the judge's own. The context window, whether to reason, the seed and
    the server's own options stay: another window would make an Ollama load the model anew for each judgement.
    """
    own = JUDGE_OPTIONS
    return dataclasses.replace(asked, temperature=own.temperature, top_p=None, max_tokens=own.max_tokens, stop=())


_QUESTION = """\
Below are a requirement and a text. Does the text meet the requirement? Answer with one word, yes or no.

Requirement:
{requirement}

Text:
{text}

Answer (yes or no):"""


def question(requirement: Requirement, text: str) -> tuple[Message, ...]:
    """The messages that ask a model whether `requirement` holds for `text`."""
    # `format` reads marks in the pattern only: braces in the requirement or the text stay as they are.
    content = _QUESTION.format(requirement=requirement.description or "", text=text)
    return (Message("user", content),)


def verdict(requirement: Requirement, answer: str) -> ValidationResult:
    """Read a judge's answer.

    Returns:
        The verdict; its reason is what the judge said, or the requirement's description when it said only yes or no.
    """
    bare = answer.strip().rstrip(".!").lower() in {"yes", "no", "y", "n", ""}
    reason = f"this does not hold: {requirement.description}" if bare else answer.strip()
    try:
        held = requirement.output_to_bool(answer)
    except Exception as error:  # noqa: BLE001 - a user's reader may raise anything; it is reported, not lost
        return ValidationResult(False, reason=reason, error=error)
    return ValidationResult(held, reason=None if held and bare else reason)
