"""Sampling strategies: how often to ask for an answer, how to ask again, and the result with all attempts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mellea_cli.engine.attempts import Answer, Checked, Try
from mellea_cli.errors import RequirementFailed
from mellea_cli.messages import Completion, Message
from mellea_cli.requirements.requirement import Repair, Requirement, in_turns, reqify_all, same_prompt
from mellea_cli.session.thunk import ModelOutputThunk

_LOG = logging.getLogger(__name__)


class SamplingStrategy:
    """Asks until an answer meets its requirements or the budget is used up.

    An unusable answer (empty, cut off by the length limit, not of the type asked for) costs one of the budget too, and
    the model is asked again with the reason, whatever the strategy. Transport errors cost nothing of it.

    Args:
        loop_budget: maximum number of answers.
        requirements: what must hold, instead of the call's requirements; `None` keeps those of the call.

    Raises:
        ValueError: `loop_budget` is below 1.
    """

    def __init__(
        self, *, loop_budget: int = 1, requirements: str | Requirement | Sequence[Requirement | str] | None = None
    ) -> None:
        if not isinstance(loop_budget, int):
            raise TypeError(f"loop_budget is an int, not {type(loop_budget).__name__}")
        if loop_budget < 1:
            raise ValueError(f"loop_budget must be at least 1, not {loop_budget}")
        self.loop_budget = loop_budget
        self.requirements = None if requirements is None else reqify_all(requirements)

    def __init_subclass__(cls) -> None:
        """Refuse a `repair` with the arguments of the reference library's, which would fail at the first repair."""
        super().__init_subclass__()
        if len(inspect.signature(cls.repair).parameters) > 1 or isinstance(vars(cls).get("repair"), staticmethod):
            raise TypeError(
                f"{cls.__name__}.repair takes no arguments here: it returns a function of (messages, answer, reasons)"
                " that returns the next messages"
            )

    def __repr__(self) -> str:
        own = "" if self.requirements is None else f", requirements={self.requirements!r}"
        return f"{type(self).__name__}(loop_budget={self.loop_budget}{own})"

    def repair(self) -> Repair:
        """How to ask again after an answer that does not meet a requirement; called once for each call."""
        return same_prompt

    def repair_unparsed(self) -> Repair | None:
        """How to ask again after an unusable answer: with the answer and the reason; `None` means as `repair`."""
        return in_turns

    def select_from_failure(self, tries: Sequence[Try[Any]]) -> int:  # noqa: ARG002 - subclasses look at them
        """The index in `tries` to fall back to when none meets the requirements: the first."""
        return 0


BaseSamplingStrategy = SamplingStrategy  # The reference library's name


class RejectionSamplingStrategy(SamplingStrategy):
    """Sends the same prompt again: another sample may meet the requirements. The default, with a budget of 2."""


DEFAULT_STRATEGY: SamplingStrategy = RejectionSamplingStrategy(loop_budget=2)


class RepairTemplateStrategy(SamplingStrategy):
    """Sends the prompt again with the reasons for the last failure at its end."""

    _LEAD: ClassVar[str] = "An earlier answer was not accepted. Correct this:"

    def repair(self) -> Repair:
        """Append the reasons to the last user message."""

        def with_reasons(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:  # noqa: ARG001 - Repair's signature
            *before, last = messages
            listed = "\n".join(f"* {reason}" for reason in why)
            return (*before, Message(last.role, f"{last.content}\n\n{self._LEAD}\n{listed}"))

        return with_reasons

    def repair_unparsed(self) -> None:
        """Use `repair` for unusable answers too."""


class MultiTurnStrategy(SamplingStrategy):
    """Continues the conversation: each rejected answer and the reasons become turns of it.

    When no answer meets the requirements, the last one counts.
    """

    def repair(self) -> Repair:
        """Append the answer and the reasons to all earlier turns."""
        turns: list[Message] = []

        def with_turns(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:
            turns.extend(in_turns((), answer, why))
            return (*messages, *turns)

        return with_turns

    def repair_unparsed(self) -> None:
        """Use `repair` for unusable answers too."""

    def select_from_failure(self, tries: Sequence[Try[Any]]) -> int:
        """The last one: the model has seen every reason by then."""
        return len(tries) - 1


@dataclass(frozen=True)
class SamplingResult:
    """All attempts of a sampling strategy.

    Args:
        success: whether an answer met all requirements.
        result_index: the attempt that counts: the accepted one, or the one that the strategy fell back to.
        sample_generations: the answer of each attempt.
        sample_validations: the verdicts on each attempt, in the order of the requirements; empty for an answer that
            was empty, was cut off or did not parse.
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


def best_answer(
    answer: Answer[Any], strategy: SamplingStrategy, model: str
) -> tuple[ModelOutputThunk, Exception | None]:
    """The attempt that counts, as a thunk with all attempts in `sampling`, and why none can be used."""
    index, error = len(answer.tries) - 1, answer.last.error
    # An answer that breaks a requirement can be returned; one that is empty, cut off or does not parse cannot.
    usable = [place for place, tried in enumerate(answer.tries) if isinstance(tried.error, RequirementFailed)]
    if error is not None and usable:
        index = usable[strategy.select_from_failure([answer.tries[place] for place in usable])]
        error = None
        failed = answer.tries[index].error
        _LOG.warning("no answer met the requirements in %d attempts: %s", len(answer.tries), failed)
    thunks = [_thunk(tried, model) for tried in answer.tries]
    best = _thunk(answer.tries[index], model)
    best.sampling = SamplingResult(answer.ok, index, thunks, [list(tried.checked) for tried in answer.tries])
    best.usage, best.attempts = answer.usage, sum(thunk.attempts for thunk in thunks)
    return best, error


def _thunk(tried: Try[Any], model: str) -> ModelOutputThunk:
    completion = tried.completion or Completion(tried.text, "error")
    return ModelOutputThunk.of(completion, model=model, messages=tried.request.messages, parsed=tried.value)
