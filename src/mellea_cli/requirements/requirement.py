"""Requirements: what must hold for an answer, checked by code or judged by a model, and how to ask again."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Protocol, Self, overload

from mellea_cli.messages import Message, Options


class Output(Protocol):
    """An answer as a validator sees it."""

    @property
    def value(self) -> str | None:
        """The answer's text."""


class Subject(Protocol):
    """The argument of a validation function: something that knows the last answer, such as a session's context."""

    def last_output(self) -> Output | None:
        """The last answer, or `None` when there is none yet."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The simplest subject: one answer, with the value that it was parsed into."""

    text: str
    parsed: Any = None
    messages: tuple[Message, ...] = ()
    source: str = ""  # the text that the answer is about, if any

    @property
    def value(self) -> str:
        return self.text

    def last_output(self) -> Answered:
        return self


class ValidationResult:
    """The verdict on one requirement.

    Args:
        result: whether the requirement holds.
        reason: why, in a sentence that can be shown to the model.
        score: how well it holds, where a validator can say.
        thunk: the judge's answer, when a model judged.
        context: the context that was judged, if any.
        error: an exception while judging; the verdict then counts as failed.
    """

    __slots__ = ("context", "error", "held", "reason", "score", "thunk")

    def __init__(
        self,
        result: bool,
        *,
        reason: str | None = None,
        score: float | None = None,
        thunk: Any = None,
        context: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self.held = bool(result) and error is None
        self.reason = reason
        self.score = score
        self.thunk = thunk
        self.context = context
        self.error = error

    def as_bool(self) -> bool:
        """Whether the requirement holds; always false when judging itself failed."""
        return self.held

    __bool__ = as_bool

    def __repr__(self) -> str:
        return f"ValidationResult({self.held}, reason={self.reason!r})"


Verdict = ValidationResult | Awaitable[ValidationResult]
ValidationFn = Callable[[Any], Verdict]
SimpleVerdict = bool | tuple[bool, str]


def default_output_to_bool(text: str) -> bool:
    """Read a judge's answer: true when it is `y` or contains the word "yes", in any case."""
    lowered = text.strip().lower()
    return lowered.rstrip(".!") == "y" or re.search(r"\byes\b", lowered) is not None


class Judge(Protocol):
    """What `Requirement.validate` is given as its backend: a model that judges."""

    async def judge(self, requirement: Requirement, context: Any) -> ValidationResult:
        """Ask the model whether the requirement holds for the last answer."""


JUDGE: ContextVar[Judge | None] = ContextVar("judge", default=None)
"""The model that judges for the validators of the running task."""

_VALIDATED_BY: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("validated_by", default=None)


def validated_by() -> asyncio.AbstractEventLoop | None:
    """The event loop that waits for the validator in this thread; `None` outside of one."""
    return _VALIDATED_BY.get()


@dataclass(eq=False, repr=False, slots=True)
class Requirement:
    """Something that must hold for an answer.

    Without a `validation_fn` the model judges: one extra call that asks whether the requirement holds. A subclass may
    override `validate` instead, sync or async.

    Args:
        description: the requirement in words, shown to the model in the prompt unless `check_only`.
        validation_fn: takes the context (a `Subject`) and returns a `ValidationResult`. It may be async; any other runs
            in a thread, so that a slow one holds up nothing.
        output_to_bool: reads a judge's answer.
        check_only: keep the description out of the prompt.

    Raises:
        ValueError: neither a description nor a validation function was given.
        TypeError: an argument has the wrong type, or the subclass's `validate` takes other arguments.
    """

    in_thread: ClassVar[bool] = True

    description: str | None = None
    validation_fn: ValidationFn | None = None
    _: KW_ONLY
    output_to_bool: Callable[[str], bool] = default_output_to_bool
    check_only: bool = False
    _given: ValidationFn | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.description, str | None):
            raise TypeError(f"a requirement's description is a str, not {type(self.description).__name__}")
        if self.validation_fn is not None and not callable(self.validation_fn):
            raise TypeError(f"a validation_fn is a function, not {type(self.validation_fn).__name__}")
        self._given = self.validation_fn
        self._use_own_validate()
        if not self.description and self.validation_fn is None:
            raise ValueError("a Requirement needs a description for a model to judge, or a validation_fn")

    def described(self, description: str) -> Self:
        """The same requirement in other words."""
        other = copy.copy(self)
        other.description = description
        other._use_own_validate()  # noqa: SLF001 - another of this very class
        return other

    def _use_own_validate(self) -> None:
        if (form := _own_validate(type(self))) is not None:
            self.validation_fn = lambda subject: form(self, subject)

    async def validate(
        self,
        backend: Judge | None,
        context: Any,
        *,
        format: Any = None,  # noqa: A002, ARG002 - the reference library's signature, which overrides repeat
        model_options: Any = None,  # noqa: ARG002 - as above
    ) -> ValidationResult:
        """Whether the requirement holds for the context's last answer; the validation function or the model says."""
        plain = Requirement(self.description, self._given, output_to_bool=self.output_to_bool)
        if self._given is not None:
            return await plain.check(context)
        if backend is None:
            raise ValueError(f"requirement {self.description!r} has no validation_fn, and no model to judge it")
        return await backend.judge(plain, context)

    async def check(self, subject: Subject) -> ValidationResult:
        """Run the validation function on `subject`; an exception in it becomes a failed verdict with `error` set."""
        if self.validation_fn is None:
            raise ValueError(f"requirement {self.description!r} has no validation_fn: a model must judge it")
        try:
            verdict: Any
            if not self.in_thread or inspect.iscoroutinefunction(self.validation_fn):
                verdict = self.validation_fn(subject)
            else:
                verdict = await _in_thread(self.validation_fn, subject)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        except Exception as error:  # noqa: BLE001 - a user's validator may raise anything; it is reported, not lost
            return ValidationResult(False, reason=f"the validator raised {type(error).__name__}: {error}", error=error)
        if isinstance(verdict, ValidationResult):
            return verdict
        why = f"a validation_fn returns a ValidationResult, not {verdict!r}; simple_validate makes one of a bool"
        return ValidationResult(False, reason=why, error=TypeError(why))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description!r})"


def _own_validate(kind: type[Requirement]) -> Callable[[Requirement, Any], Any] | None:
    """How to call the `validate` of a subclass; `None` when it has none of its own."""
    if kind.validate is Requirement.validate:
        return None
    parameters = inspect.signature(kind.validate)
    options = {"format": None, "model_options": None}
    for args, keywords in (((None,) * 3, options), ((None,) * 3, {}), ((None,) * 2, {})):
        try:
            parameters.bind(*args, **keywords)
        except TypeError:
            continue
        if len(args) == 3:
            return lambda self, subject: self.validate(JUDGE.get(), subject, **keywords)
        return lambda self, subject: self.validate(subject)  # type: ignore[call-arg]  # the user's own
    raise TypeError(f"{kind.__name__}.validate takes (self, backend, context), not {parameters}")


async def _in_thread(function: Callable[[Any], Any], subject: Any) -> Any:
    def outcome() -> tuple[Any, Exception | None]:
        # The error is returned: a StopIteration cannot be raised into a future, and its waiter would wait for ever.
        try:
            return function(subject), None
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            return None, error

    token = _VALIDATED_BY.set(asyncio.get_running_loop())
    try:
        verdict, error = await asyncio.to_thread(outcome)
    finally:
        _VALIDATED_BY.reset(token)
    if error is not None:
        raise error
    return verdict


def req(description: str | None = None, validation_fn: ValidationFn | None = None, **options: Any) -> Requirement:
    """Shorthand for `Requirement`."""
    return Requirement(description, validation_fn, **options)


def check(description: str | None = None, validation_fn: ValidationFn | None = None, **options: Any) -> Requirement:
    """A requirement that is checked but not shown to the model in the prompt."""
    return Requirement(description, validation_fn, check_only=True, **options)


def reqify(requirement: str | Requirement) -> Requirement:
    """Turn a plain description into a requirement.

    Raises:
        TypeError: it is neither.
    """
    given: Any = requirement
    if isinstance(given, Requirement):
        return given
    if isinstance(given, str):
        return Requirement(given)
    wrap = "; a function is wrapped: check(None, simple_validate(function))" if callable(given) else ""
    raise TypeError(f"a requirement is a str or a Requirement, not {type(given).__name__}{wrap}")


def reqify_all(requirements: str | Requirement | Iterable[str | Requirement] | None) -> list[Requirement]:
    """The requirements of an argument: one, several, or none.

    Raises:
        TypeError: it is something else.
    """
    given: Any = [] if requirements is None else requirements
    several = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
    return [reqify(one) for one in (given if several else [given])]


@overload
def simple_validate(
    fn: Callable[[str], SimpleVerdict], *, reason: str | None = None
) -> Callable[[Any], ValidationResult]: ...


@overload
def simple_validate(
    fn: Callable[[str], Awaitable[SimpleVerdict]], *, reason: str | None = None
) -> Callable[[Any], Awaitable[ValidationResult]]: ...


def simple_validate(
    fn: Callable[[str], SimpleVerdict] | Callable[[str], Awaitable[SimpleVerdict]], *, reason: str | None = None
) -> ValidationFn:
    """Turn a function of the answer's text into a validation function.

    Args:
        fn: takes the text and returns a bool, or a bool and a reason; may be async.
        reason: the reason to give when `fn` returns a bare false.

    Returns:
        A function that `Requirement` takes, async if `fn` is. It raises `ValueError` when `fn` returns anything else.
    """
    if not callable(fn):
        raise TypeError(f"simple_validate takes a function of the answer's text, not {type(fn).__name__}")

    def result_of(verdict: Any) -> ValidationResult:
        match verdict:
            case bool():
                return ValidationResult(verdict, reason=None if verdict else reason)
            case (bool() as held, str() as why):
                return ValidationResult(held, reason=why)
            case _:
                raise ValueError(f"a simple_validate function returns a bool or (bool, str), not {verdict!r}")

    async def awaited(verdict: Awaitable[Any]) -> ValidationResult:
        return result_of(await verdict)

    def validate(subject: Subject) -> Any:
        output = subject.last_output()
        if output is None or output.value is None:
            return ValidationResult(False, reason="there is no answer to check")
        verdict: Any = fn(output.value)
        return awaited(verdict) if inspect.isawaitable(verdict) else result_of(verdict)

    async def validate_async(subject: Subject) -> ValidationResult:
        verdict = validate(subject)
        return await verdict if inspect.isawaitable(verdict) else verdict  # type: ignore[no-any-return]  # validate gives Any

    return validate_async if inspect.iscoroutinefunction(fn) else validate


# A verdict for every check that holds: one is made for each requirement of each answer.
_HOLDS = ValidationResult(True)


@dataclass(eq=False, repr=False, slots=True)
class _AnswerCheck(Requirement):
    # A thread for each would cost more than the check itself.
    in_thread: ClassVar[bool] = False


def answer_check(
    description: str, problem: Callable[[Answered], str | None], *, check_only: bool = False
) -> Requirement:
    """A requirement on a step's answer; `problem` says to the model what to do instead, `None` if nothing is wrong."""

    def validate(answer: Answered) -> ValidationResult:
        reason = problem(answer)
        return _HOLDS if reason is None else ValidationResult(False, reason=reason)

    return _AnswerCheck(description, validate, check_only=check_only)


def one_sentence(field: str) -> Requirement:
    """A text field of the answer is null, or exactly one sentence on one line."""

    def problem(answer: Answered) -> str | None:
        text = getattr(answer.parsed, field)
        if text is None:
            return None
        if "\n" in text.strip():
            return f"about the field {field!r}: it spans several lines; write it as one sentence on one line"
        found = len(sentences(text))
        return (
            None if found == 1 else f"about the field {field!r}: it has {found} sentences; write exactly one sentence"
        )

    return answer_check(f"{field}: It is exactly one sentence.", problem)


def fewer_words(limit: int, field: str) -> Requirement:
    """A text field of the answer is null, or has fewer than `limit` words, counted at white space."""

    def problem(answer: Answered) -> str | None:
        found = len((getattr(answer.parsed, field) or "").split())
        return None if found < limit else f"about the field {field!r}: it has {found} words; use fewer than {limit}"

    return answer_check(f"{field}: It has fewer than {limit} words.", problem)


def not_cut(limits: Mapping[str, int]) -> Requirement:
    """No text field of the answer is as long as its limit in characters: there the server cut it."""

    def problem(answer: Answered) -> str | None:
        for name, limit in limits.items():
            value = getattr(answer.parsed, name)
            if value is not None and len(value) >= limit:
                return f"the field {name!r} was cut off; say it in fewer words"
        return None

    return answer_check("No field is cut off.", problem, check_only=True)


_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*\s+(?=[^\s\W\d_a-z])")
# Ends with a full stop and is no sentence: "e.g. X", "Dr. Y", "No. 5", a single letter as in "J. Smith".
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|nr|st|mr|mrs|ms|dr|prof|inc|ltd|co|u\.s|a\.m|p\.m)"
    r"|\b[^\W\d_])\.$",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Split text at the ends of its sentences; abbreviations and decimal points do not end one."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        candidate = text[start : match.end()].strip()
        if not _ABBREVIATION.search(candidate):
            parts.append(candidate)
            start = match.end()
    rest = text[start:].strip()
    return [*parts, rest] if rest else parts


def reasons(checked: Sequence[tuple[Requirement, ValidationResult]]) -> tuple[str, ...]:
    """One sentence for each requirement that does not hold."""
    return tuple(
        verdict.reason or f"this does not hold: {requirement.description}"
        for requirement, verdict in checked
        if not verdict.held
    )


Repair = Callable[[tuple[Message, ...], str, Sequence[str]], tuple[Message, ...]]
"""Makes a re-prompt: takes the first request's messages, the bad answer's text and the reasons, and returns the next
request's messages."""

# The rest of a longer answer teaches the model nothing, and would fill the context window.
_SHOWN_ANSWER = 2_000


def same_prompt(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:  # noqa: ARG001 - one of several repairs with one signature
    """Ask the same question again: a new sample may be better."""
    return messages


def in_turns(messages: tuple[Message, ...], answer: str, why: Sequence[str]) -> tuple[Message, ...]:
    """Continue the conversation: the bad answer, unless it is empty, then what is wrong with it."""
    # The first request's messages stay as they are, so that a server's prompt cache holds for all of them.
    complaint = "That answer will not do: " + "; ".join(why) + ". Answer again, in the form that was asked for."
    shown = answer.strip()[:_SHOWN_ANSWER]
    turns = (Message("assistant", shown), Message("user", complaint)) if shown else (Message("user", complaint),)
    return (*messages, *turns)


# A verdict is one word; the further tokens are for models that say "Yes, because".
JUDGE_OPTIONS = Options(temperature=0.0, max_tokens=16)
_JUDGE_PROMPT = """\
Below are a requirement and a text. Does the text meet the requirement? Answer with one word, yes or no.

Requirement:
{requirement}

Text:
{text}

Answer (yes or no):"""


def options_like(asked: Options) -> Options:
    """The options of a judge on a model that is set up by `asked`."""
    # The context window, whether to reason, the seed and the server's own options stay: with another window an Ollama
    # would load the model again for each judgement.
    own = JUDGE_OPTIONS
    return dataclasses.replace(asked, temperature=own.temperature, top_p=None, max_tokens=own.max_tokens, stop=())


def judge_question(requirement: Requirement, text: str) -> tuple[Message, ...]:
    """The messages that ask a model whether `requirement` holds for `text`."""
    return (Message("user", _JUDGE_PROMPT.format(requirement=requirement.description or "", text=text)),)


def judge_verdict(requirement: Requirement, answer: str) -> ValidationResult:
    """Read a judge's answer. The reason is that answer, or the requirement's description when it is only yes or no."""
    bare = answer.strip().rstrip(".!").lower() in {"yes", "no", "y", "n", ""}
    reason = f"this does not hold: {requirement.description}" if bare else answer.strip()
    try:
        held = requirement.output_to_bool(answer)
    except Exception as error:  # noqa: BLE001 - a user's reader may raise anything; it is reported, not lost
        return ValidationResult(False, reason=reason, error=error)
    return ValidationResult(held, reason=None if held and bare else reason)
