"""All attempts at one answer, and how each was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mellea_cli.engine.attempt import Answer, Checked, Try
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
