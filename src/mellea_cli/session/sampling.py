"""All attempts at one answer, and how each was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mellea_cli.engine.attempts import Answer, Checked, Try
from mellea_cli.messages import Message
from mellea_cli.requirements.requirement import Repair, Requirement, in_turns, reqify, same_prompt
from mellea_cli.session.thunk import ModelOutputThunk


@dataclass(frozen=True)
class SamplingResult:
    """What a sampling strategy came to.

    Args:
        success: whether an answer met everything that was asked.
        result_index: the attempt that counts: the good one, or the one the strategy fell back to.
        sample_generations: the answer of each attempt.
        sample_validations: the verdicts on each attempt, in the order of the requirements; empty for an answer that
            was none (empty, cut off, not parsing).
    """

    success: bool
    result_index: int
    sample_generations: list[ModelOutputThunk]
    sample_validations: list[list[Checked]]

    @property
    def result(self) -> ModelOutputThunk:
        """The answer that counts."""
        return self.sample_generations[self.result_index]

    @property
    def result_validations(self) -> list[Checked]:
        """The verdicts on the answer that counts."""
        return self.sample_validations[self.result_index]

    @property
    def value(self) -> str | None:
        """The text of the answer that counts."""
        return self.result.value

    def __str__(self) -> str:
        return self.value or ""


def sampling_result(answer: Answer[Any], index: int, model: str) -> SamplingResult:
    """The attempts of `answer` as thunks, with attempt `index` as the result."""
    return SamplingResult(
        success=answer.ok,
        result_index=index,
        sample_generations=[_thunk(tried, model) for tried in answer.tries],
        sample_validations=[list(tried.checked) for tried in answer.tries],
    )


def _thunk(tried: Try[Any], model: str) -> ModelOutputThunk:
    thunk = ModelOutputThunk(tried.text, parsed_repr=tried.value)
    thunk.model, thunk.messages = model, tried.request.messages
    if (completion := tried.completion) is not None:
        thunk.finish_reason, thunk.thinking, thunk.usage = (
            completion.finish_reason,
            completion.thinking,
            completion.usage,
        )
        thunk.first_token_s, thunk.total_s = completion.first_token_s, completion.total_s
        thunk.attempts = completion.attempts
    return thunk


# How often a session asks for an answer, and how it asks again after one that will not do.


class SamplingStrategy:
    """Asks until an answer meets its requirements or the budget is spent.

    An answer that is none (empty, cut off by the length limit, not of the type asked for) costs one of the budget too,
    and is asked again with the reason shown, whatever the strategy. The transport's faults cost nothing of it.

    Args:
        loop_budget: answers that are judged at most.
        requirements: what must hold, instead of what the call names; `None` leaves it to the call.

    Raises:
        ValueError: `loop_budget` is below 1.
    """

    def __init__(self, *, loop_budget: int = 1, requirements: Sequence[Requirement | str] | None = None) -> None:
        if loop_budget < 1:
            raise ValueError(f"loop_budget must be at least 1, not {loop_budget}")
        self.loop_budget = loop_budget
        self.requirements = None if requirements is None else [reqify(one) for one in requirements]

    def repair(self) -> Repair:
        """How to ask again after a requirement was not met; called once for each question."""
        return same_prompt

    def mend(self) -> Repair | None:
        """How to ask again after an answer that is none: the answer and the reason; `None` means as `repair` does."""
        return in_turns

    def select_from_failure(self, tries: Sequence[Try[Any]]) -> int:  # noqa: ARG002 - subclasses look at them
        """Which of `tries` to fall back to when none meets the requirements: the first."""
        return 0


class RejectionSamplingStrategy(SamplingStrategy):
    """Asks the same again: another sample may meet the requirements. The default, with a budget of 2."""


class RepairTemplateStrategy(SamplingStrategy):
    """Asks again with the reasons for the last failure at the end of the prompt."""

    _LEAD: ClassVar[str] = "An earlier answer was not accepted. Mend this:"

    def repair(self) -> Repair:
        """Put the reasons at the end of the last user message."""

        def with_reasons(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:  # noqa: ARG001 - one of several repairs with one signature
            *before, last = messages
            listed = "\n".join(f"* {reason}" for reason in why)
            return (*before, Message(last.role, f"{last.content}\n\n{self._LEAD}\n{listed}"))

        return with_reasons

    def mend(self) -> None:
        """Show what is wrong with an answer that is none in the same way."""


class MultiTurnStrategy(SamplingStrategy):
    """Goes on with the conversation: each bad answer and what is wrong with it become turns of their own.

    When no answer meets the requirements, the last one counts.
    """

    def repair(self) -> Repair:
        """Add the answer and the reasons to all turns before them."""
        turns: list[Message] = []

        def one_turn_more(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:
            turns.extend(in_turns((), answer, why))
            return (*messages, *turns)

        return one_turn_more

    def mend(self) -> None:
        """Go on with the conversation after an answer that is none too."""

    def select_from_failure(self, tries: Sequence[Try[Any]]) -> int:
        """The last one: it has seen every reason."""
        return len(tries) - 1
