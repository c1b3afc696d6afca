"""The attempt loop: generate, parse, validate, and re-prompt with the reason.

Batch, chat and the session API all use it. Faults of the transport are handled below, in the model client, on a budget
of their own. Here an answer that came whole is judged, and a bad one costs one attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.generate import UNOBSERVED, CallObserver
from mellea_cli.engine.retry import RetryBudget
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    BadOutput,
    ContentFiltered,
    CutAnswer,
    EmptyAnswer,
    ParseError,
    RequirementFailed,
    RunawayAnswer,
    first_error,
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


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One question to a model, and what its answer must be.

    Args:
        request: what is sent first.
        parse: turns the answer's text into the value; raises `ParseError`.
        requirements: what must hold beyond that, checked in this order.
        budget: attempts, at least 1.
        repair: how to re-prompt after an answer that breaks a requirement.
        subject: makes what validators get; the answer alone by default.
        repair_unparsed: how to re-prompt after an answer that is empty, cut off, stopped or does not parse; `None`
            uses `repair`.
        fallback: repairs the last value in code once re-prompting has not helped. Its result must hold like any other;
            `None` from it means that it cannot.
    """

    request: GenerateRequest
    parse: Callable[[str], T]
    requirements: tuple[Requirement, ...] = ()
    budget: int = 3
    repair: Repair = in_turns
    subject: SubjectOf | None = None
    repair_unparsed: Repair | None = None
    fallback: Callable[[T], T | None] | None = None


@dataclass(frozen=True, slots=True)
class Try(Generic[T]):
    """One answer and its judgement."""

    request: GenerateRequest
    text: str
    completion: Completion | None  # `None` when the answer was stopped while it streamed
    value: T | None  # The parsed answer; meaningful only when `error` is `None` or a `RequirementFailed`
    checked: tuple[Checked, ...]
    """The result for each requirement, in their order; empty when the answer did not get that far."""
    error: AnswerError | None  # Why the answer is bad; `None` for a good one


@dataclass(slots=True)
class Answer(Generic[T]):
    """Every attempt at a question, in order; the last one is good or the budget is spent."""

    tries: list[Try[T]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    calls: int = 0  # Requests that were sent, judges and retries included

    @property
    def last(self) -> Try[T]:
        """The last attempt."""
        return self.tries[-1]

    @property
    def ok(self) -> bool:
        """Whether the last attempt is good."""
        return self.last.error is None

    def count(self, completion: Completion) -> None:
        """Add the cost of a completion."""
        self.usage += completion.usage
        self.calls += completion.attempts


async def ask(
    question: Question[T], client: ModelClient, observer: CallObserver = UNOBSERVED, into: Answer[T] | None = None
) -> Answer[T]:
    """Ask until an answer is good or the budget is spent.

    Args:
        question: what to ask.
        client: the model client.
        observer: follows the call.
        into: an empty answer to fill, for a caller that needs the cost also when this raises.

    Returns:
        All attempts. An answer that never was good is not an exception here: look at `ok`.

    Raises:
        BackendError: the transport failed for good.
    """
    answer: Answer[T] = Answer() if into is None else into
    request = question.request
    # All attempts share one budget for transport faults: budgets never multiply.
    budget = RetryBudget()
    while True:
        try:
            tried = await _attempt(question, request, client, observer, answer, budget)
        except BackendError as error:
            error.attempts = max(error.attempts, budget.sent)
            raise
        answer.tries.append(tried)
        if tried.error is None:
            return answer
        observer.failed(tried.error.kind, tried.error.message)
        if len(answer.tries) >= question.budget:
            tried.error.attempts = len(answer.tries)
            if (repaired := await _fall_back(question, tried, client, answer)) is not None:
                answer.tries.append(repaired)
            return answer
        why = reasons(tried.checked) or (tried.error.message,)
        repair = question.repair if tried.checked else question.repair_unparsed or question.repair
        messages = repair(question.request.messages, tried.text, why)
        request = dataclasses.replace(question.request, messages=messages)
        observer.reprompt(len(answer.tries) + 1)


async def _attempt(
    question: Question[T],
    request: GenerateRequest,
    client: ModelClient,
    observer: CallObserver,
    answer: Answer[T],
    budget: RetryBudget,
) -> Try[T]:
    sent_before = budget.sent
    try:
        completion = await client.send(request, observer, budget)
    except BadOutput as error:
        answer.calls += error.attempts
        if not error.partial:
            return Try(request, "", None, None, (), ParseError(f"the model server refused it: {error.message}"))
        completion = Completion(error.partial, "stop", attempts=0)
    except RunawayAnswer as error:
        answer.calls += budget.sent - sent_before
        if not _is_whole(error.text, request, question.parse):
            return Try(request, error.text, None, None, (), error)
        completion = Completion(error.text, "stop", attempts=0)
    except BackendError as error:
        answer.calls += error.attempts
        raise
    answer.count(completion)
    value: T | None = None
    checked: tuple[Checked, ...] = ()
    problem: AnswerError | None = None
    try:
        if not completion.text.strip() and completion.thinking and request.output_schema is not None:
            completion = _answer_in_reasoning(completion, question.parse)
        if completion.finish_reason == "length" and _is_whole(completion.text, request, question.parse):
            completion = dataclasses.replace(completion, finish_reason="stop")
        check_complete(completion)
        value = question.parse(completion.text)
        if question.requirements:
            checked = await _check(question, request, completion, value, client, answer)
            if failed := reasons(checked):
                problem = RequirementFailed("; ".join(failed), text=completion.text)
    except AnswerError as error:
        problem = error
    return Try(request, completion.text, completion, value, checked, problem)


def _is_whole(text: str, request: GenerateRequest, parse: Callable[[str], Any]) -> bool:
    """Whether a stopped answer is whole nevertheless: some servers go on with blanks behind it, up to the limit."""
    if request.output_schema is None or not text.rstrip("` \t\r\n").endswith(("}", "]")):
        return False
    with suppress(AnswerError):
        parse(text)
        return True
    return False


def _answer_in_reasoning(completion: Completion, parse: Callable[[str], Any]) -> Completion:
    """The completion with its reasoning as the text, if that holds an answer: some servers mix up the two fields."""
    try:
        parse(completion.thinking)
    except AnswerError:
        return completion
    return dataclasses.replace(completion, text=completion.thinking, thinking="")


async def _fall_back(question: Question[T], tried: Try[T], client: ModelClient, answer: Answer[T]) -> Try[T] | None:
    """The last answer repaired in code, if that is possible and the result holds."""
    if question.fallback is None or tried.value is None or tried.completion is None:
        return None
    if not isinstance(tried.error, RequirementFailed) or (value := question.fallback(tried.value)) is None:
        return None
    checked = await _check(question, tried.request, tried.completion, value, client, answer)
    if reasons(checked):
        return None
    return dataclasses.replace(tried, value=value, checked=checked, error=None)


async def _check(
    question: Question[T],
    request: GenerateRequest,
    completion: Completion,
    value: T,
    client: ModelClient,
    answer: Answer[T],
) -> tuple[Checked, ...]:
    if question.subject is not None:
        subject = question.subject(request, completion, value)
    else:
        subject = Answered(completion.text, value, request.messages)
    try:
        return await validate(subject, question.requirements, client, request.model, answer.count, request.options)
    except BackendError as error:
        answer.calls += error.attempts
        raise


def check_complete(completion: Completion) -> None:
    """Refuse a completion that is not a whole answer.

    Raises:
        ContentFiltered: the server's filter stopped it, so asking again cannot help.
        CutAnswer: the length limit cut it off.
        EmptyAnswer: it is empty.
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
    client: ModelClient,
    model: str,
    count: Callable[[Completion], None],
    options: Options = JUDGE_OPTIONS,
) -> tuple[Checked, ...]:
    """Check every requirement; those that the model judges are asked concurrently.

    Args:
        subject: what validators get.
        requirements: what to check.
        client: the client of the judging model.
        model: the judge's name.
        count: receives each judge's completion.
        options: how the judged answer was generated.

    Returns:
        A result for each requirement, in the order given, duplicates kept.
    """
    results: list[ValidationResult | None] = [None] * len(requirements)

    async def judge(place: int) -> None:
        output = subject.last_output()
        text = (output.value if output is not None else None) or ""
        question = judge_question(requirements[place], text)
        completion = await client.send(GenerateRequest(model, question, options_like(options)))
        count(completion)
        results[place] = judge_verdict(requirements[place], completion.text)

    judged: list[int] = []
    for place, requirement in enumerate(requirements):
        if requirement.validation_fn is None:
            judged.append(place)
        else:
            results[place] = await requirement.check(subject)
    if len(judged) == 1:
        await judge(judged[0])
    elif judged:
        try:
            async with asyncio.TaskGroup() as group:
                for place in judged:
                    group.create_task(judge(place))
        except BaseExceptionGroup as failures:
            # One judge's fault cancels the others; callers expect the fault itself.
            raise first_error(failures) from failures
    return tuple((one, result) for one, result in zip(requirements, results, strict=True) if result is not None)
