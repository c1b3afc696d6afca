"""The one attempt loop: generate, parse, validate, and ask again with the reason.

Batch, chat and the session API all go through here. The transport's faults are mended below, in the sender, on a
budget of their own; here an answer that came whole is judged, and a bad one costs an answer from this loop's budget.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mellea_cli.engine.client import Way
from mellea_cli.engine.generate import UNOBSERVED, CallObserver
from mellea_cli.engine.retry import RetryBudget
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    ContentFiltered,
    CutAnswer,
    EmptyAnswer,
    RequirementFailed,
    RunawayAnswer,
)
from mellea_cli.messages import Completion, GenerateRequest, Options, Usage
from mellea_cli.requirements.requirement import (
    JUDGE_OPTIONS,
    Answered,
    Repair,
    Requirement,
    Subject,
    ValidationResult,
    in_turns,
    judge_question,
    judge_verdict,
    options_like,
    reasons,
)

T = TypeVar("T")

Checked = tuple[Requirement, ValidationResult]
SubjectOf = Callable[[GenerateRequest, Completion, Any], Subject]


def _plain_subject(request: GenerateRequest, completion: Completion, value: Any) -> Subject:
    return Answered(completion.text, value, request.messages)


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One question to a model, and what its answer must be.

    Args:
        request: what is sent first.
        parse: turns the answer's text into the value; raises `ParseError` when it cannot.
        requirements: what must hold beyond that, checked in this order, each as often as it stands here.
        budget: answers that are judged at most, at least 1.
        repair: how to ask again after an answer that breaks a requirement.
        subject: what validators are given; the answer alone by default.
        mend: how to ask again after one that is none: empty, cut off, stopped or not parsing; `None` means as `repair`.
        last_resort: puts the value of the last answer right in code, when asking again has not helped; it must hold
            like any other, and `None` from it means that there is no way.
    """

    request: GenerateRequest
    parse: Callable[[str], T]
    requirements: tuple[Requirement, ...] = ()
    budget: int = 3
    repair: Repair = in_turns
    subject: SubjectOf = _plain_subject
    mend: Repair | None = None
    last_resort: Callable[[T], T | None] | None = None


@dataclass(frozen=True, slots=True)
class Try(Generic[T]):
    """One answer and how it was judged."""

    request: GenerateRequest
    text: str
    completion: Completion | None
    """`None` when the answer was stopped while it streamed."""
    value: T | None
    """What it was parsed into; meaningful only when `error` is `None` or a `RequirementFailed`."""
    checked: tuple[Checked, ...]
    """The verdict on each requirement, in their order; empty when it did not come to that."""
    error: AnswerError | None
    """Why the answer will not do; `None` for a good one."""


@dataclass(slots=True)
class Answer(Generic[T]):
    """What came of a question: every try in order, the last one good or the budget spent."""

    tries: list[Try[T]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    """Requests that were sent, judges and transport retries included."""

    @property
    def last(self) -> Try[T]:
        """The last try."""
        return self.tries[-1]

    @property
    def ok(self) -> bool:
        """Whether the last try is good."""
        return self.last.error is None

    def count(self, completion: Completion) -> None:
        """Add a completion's cost."""
        self.usage += completion.usage
        self.calls += completion.attempts


async def ask(
    question: Question[T], sender: Way, watch: CallObserver = UNOBSERVED, into: Answer[T] | None = None
) -> Answer[T]:
    """Ask until an answer is good or the budget is spent.

    Args:
        question: what to ask.
        sender: the way to the model.
        watch: told what happens.
        into: an empty answer to fill, for a caller who wants to know what was spent also when this raises.

    Returns:
        All tries. Look at `ok`: an answer that never was good is not an exception here.

    Raises:
        BackendError: the transport failed for good. It is never taken for a bad answer.
    """
    answer: Answer[T] = Answer() if into is None else into
    request = question.request
    spent = RetryBudget()
    while True:
        try:
            tried = await _try(question, request, sender, watch, answer, spent)
        except BackendError as error:
            error.attempts = max(error.attempts, spent.sent)
            raise
        answer.tries.append(tried)
        if tried.error is None:
            return answer
        watch.failed(tried.error.kind, tried.error.message)
        if len(answer.tries) >= question.budget:
            tried.error.attempts = len(answer.tries)
            if (rescued := await _rescued(question, tried, sender, answer)) is not None:
                answer.tries.append(rescued)
            return answer
        why = reasons(tried.checked) or (tried.error.message,)
        again = question.repair if tried.checked else question.mend or question.repair
        messages = again(question.request.messages, tried.text, why)
        request = dataclasses.replace(question.request, messages=messages)
        watch.reprompt(len(answer.tries) + 1)


async def _rescued(question: Question[T], tried: Try[T], sender: Way, answer: Answer[T]) -> Try[T] | None:
    """The last answer put right in code, if that can be done and it then holds."""
    if question.last_resort is None or tried.value is None or not isinstance(tried.error, RequirementFailed):
        return None
    value = question.last_resort(tried.value)
    if value is None or tried.completion is None:
        return None
    subject = question.subject(tried.request, tried.completion, value)
    judges = options_like(tried.request.options)
    checked = await validate(subject, question.requirements, sender, tried.request.model, answer.count, judges)
    if reasons(checked):
        return None
    return dataclasses.replace(tried, value=value, checked=checked, error=None)


async def _try(
    question: Question[T],
    request: GenerateRequest,
    sender: Way,
    watch: CallObserver,
    answer: Answer[T],
    spent: RetryBudget,
) -> Try[T]:
    before = spent.sent
    try:
        # All tries draw on one budget for the transport's faults: budgets never multiply.
        with _failures_counted(answer):
            completion = await sender.send(request, watch, spent)
    except RunawayAnswer as error:
        answer.calls += spent.sent - before
        return Try(request, error.text, None, None, (), error)
    answer.count(completion)
    value: T | None = None
    checked: tuple[Checked, ...] = ()
    problem: AnswerError | None = None
    try:
        whole(completion)
        value = question.parse(completion.text)
        subject = question.subject(request, completion, value)
        judges = options_like(request.options)
        with _failures_counted(answer):
            checked = await validate(subject, question.requirements, sender, request.model, answer.count, judges)
        if failed := reasons(checked):
            problem = RequirementFailed("; ".join(failed), text=completion.text)
    except AnswerError as error:
        problem = error
    return Try(request, completion.text, completion, value, checked, problem)


@contextmanager
def _failures_counted(answer: Answer[Any]) -> Iterator[None]:
    """Count requests that ended in a transport's error: no completion stands for them."""
    try:
        yield
    except BackendError as error:
        answer.calls += error.attempts
        raise


def whole(completion: Completion) -> None:
    """Refuse a completion that is not a whole answer.

    Raises:
        ContentFiltered: the server's filter stopped it; asking again cannot help.
        CutAnswer: the length limit cut it off.
        EmptyAnswer: there is nothing in it.
    """
    text = completion.text
    if completion.finish_reason == "content_filter":
        raise ContentFiltered("the server's content filter stopped the answer", partial=text)
    if completion.finish_reason == "length":
        raise CutAnswer("it was cut off by the length limit; answer more briefly", text=text)
    if not text.strip():
        only_thought = "; there was only reasoning" if completion.thinking else ""
        raise EmptyAnswer(f"the answer was empty{only_thought}", text=text)


async def validate(
    subject: Subject,
    requirements: Sequence[Requirement],
    sender: Way,
    model: str,
    count: Callable[[Completion], None],
    options: Options = JUDGE_OPTIONS,
) -> tuple[Checked, ...]:
    """Check every requirement, in order; the model's own judgements are asked for side by side.

    Args:
        subject: what the validators are given.
        requirements: what to check.
        sender: the way to the judging model.
        model: the judge's name.
        count: told of each judge's completion.
        options: how the judge generates.

    Returns:
        A verdict for each requirement, in the order given, duplicates kept.
    """
    verdicts: list[ValidationResult | None] = [None] * len(requirements)

    async def judged(place: int, requirement: Requirement) -> None:
        output = subject.last_output()
        text = output.value if output is not None else None
        request = GenerateRequest(model, judge_question(requirement, text or ""), options)
        completion = await sender.send(request)
        count(completion)
        verdicts[place] = judge_verdict(requirement, completion.text)

    by_model = [(place, one) for place, one in enumerate(requirements) if one.judged_by_model]
    for place, requirement in enumerate(requirements):
        if not requirement.judged_by_model:
            verdicts[place] = await requirement.check(subject)
    if len(by_model) == 1:
        await judged(*by_model[0])
    elif by_model:
        await _side_by_side(judged, by_model)
    return tuple((one, verdict) for one, verdict in zip(requirements, verdicts, strict=True) if verdict is not None)


async def _side_by_side(judged: Callable[[int, Requirement], Any], by_model: Sequence[tuple[int, Requirement]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for place, requirement in by_model:
                group.create_task(judged(place, requirement))
    except BaseExceptionGroup as failures:
        # One judge's trouble cancels the others; callers expect the trouble itself, not a group of one.
        raise failures.exceptions[0] from failures
