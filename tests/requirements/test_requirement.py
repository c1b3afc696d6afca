"""Requirements, verdicts, judges and re-prompts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mellea_cli.messages import Message
from mellea_cli.requirements import requirement
from mellea_cli.requirements.requirement import (
    Answered,
    Requirement,
    ValidationResult,
    check,
    default_output_to_bool,
    fewer_words,
    in_turns,
    not_cut,
    one_sentence,
    reasons,
    req,
    reqify,
    reqify_all,
    same_prompt,
    sentences,
    simple_validate,
)


async def test_simple_validate_takes_bool_or_bool_and_reason() -> None:
    """Both forms are read, sync and async alike."""

    async def slow(text: str) -> tuple[bool, str]:
        return text == "yes", "say yes"

    assert await req("x", simple_validate(lambda text: text == "a")).check(Answered("a"))
    no = await req("x", simple_validate(lambda text: False, reason="never")).check(Answered("a"))
    assert (bool(no), no.reason) == (False, "never")
    late = await req("x", simple_validate(slow)).check(Answered("no"))
    assert (bool(late), late.reason) == (False, "say yes")


@pytest.mark.parametrize("value", [None, 1, "yes", ["x"], (1, "reason"), (True, "a", "b")])
async def test_simple_validate_refuses_anything_else(value: object) -> None:
    """A verdict that is no bool is an error in the validator, and is reported as one."""
    result = await req("x", simple_validate(lambda _: value)).check(Answered("a"))  # type: ignore[arg-type,return-value]  # no verdict
    assert not result
    assert isinstance(result.error, ValueError)


async def test_a_validator_that_raises_fails_the_requirement() -> None:
    """Its exception is kept on the verdict and never counts as passed."""

    def broken(_: object) -> ValidationResult:
        raise KeyError("missing")

    result = await Requirement("x", broken).check(Answered("a"))
    assert not result
    assert isinstance(result.error, KeyError)


@pytest.mark.parametrize("value", [True, False, None, "yes"])
async def test_a_validator_must_return_a_verdict(value: object) -> None:
    """A bare bool from a validation function is told apart from a verdict, and the way out is named."""
    result = await Requirement("x", lambda _: value).check(Answered("a"))  # type: ignore[arg-type,return-value]  # no verdict
    assert not result
    assert "simple_validate" in (result.reason or "")


def test_a_result_with_an_error_is_false() -> None:
    """Whatever the verdict says, judging that failed proves nothing."""
    assert not ValidationResult(True, error=RuntimeError("judge away"))
    assert ValidationResult(True).as_bool()


def test_a_requirement_without_anything_to_check_is_refused() -> None:
    """At construction, not when it is too late."""
    with pytest.raises(ValueError, match="description"):
        Requirement()


def test_shorthands() -> None:
    """`req` shows its description, `check` keeps it out of the prompt, a string becomes a requirement."""
    assert req("short").check_only is False
    assert check("short").check_only is True
    assert reqify("short").description == "short"
    kept = req("same")
    assert reqify(kept) is kept


@pytest.mark.parametrize(
    ("answer", "held"),
    [("yes", True), ("Yes.", True), ("y", True), ("Y!", True), ("no", False), ("", False), ("eyes", False),
     ("I think yes, mostly", True), ("n", False)],
)  # fmt: skip
def test_a_judges_answer_is_read(answer: str, held: bool) -> None:
    """The word yes anywhere means yes; a word that contains it does not."""
    assert default_output_to_bool(answer) is held


def test_a_bare_verdict_takes_the_description_as_its_reason() -> None:
    """A model that only says no has not said why; the requirement says it."""
    polite = req("It is polite.")
    assert requirement.judge_verdict(polite, "No.").reason == "this does not hold: It is polite."
    assert requirement.judge_verdict(polite, "No, it shouts.").reason == "No, it shouts."
    assert requirement.judge_verdict(polite, "yes")


def test_the_judges_prompt_takes_braces_as_they_are() -> None:
    """Neither the requirement nor the text is a template."""
    (message,) = requirement.judge_question(req("has {text} {0}"), "{requirement} {{7*7}}")
    assert "has {text} {0}" in message.content
    assert "{requirement} {{7*7}}" in message.content


def test_reasons_come_from_what_does_not_hold_in_order() -> None:
    """Passed requirements are left out, duplicates stay."""
    one, two = req("one"), req("two")
    checked = [
        (one, ValidationResult(False)),
        (two, ValidationResult(True)),
        (one, ValidationResult(False, reason="r")),
    ]
    assert reasons(checked) == ("this does not hold: one", "r")


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


async def verdict(requirement: Requirement, summary: str | None) -> tuple[bool, str | None]:
    result = await requirement.check(Answered("", SimpleNamespace(summary=summary)))
    return bool(result), result.reason


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The customer waited.", 1),
        ("No full stop at the end", 1),
        ("It cost 3.50 euros. Too much.", 2),
        ("He paid 3.50 euros", 1),
        ("Dr. Smith was late.", 1),
        ("The app, e.g. The menu, is slow.", 1),
        ("Slow! Expensive! Why?", 3),
        ("Works with v. 2 and J. Smith agrees.", 1),
        ('She said "never again." They refunded her.', 2),
        ("Version 2.0 is fine.", 1),
        ("", 0),
    ],
)
def test_sentences_are_counted_as_people_count_them(text: str, count: int) -> None:
    """Abbreviations, decimals and quotation marks do not fool the splitter."""
    assert len(sentences(text)) == count, sentences(text)


async def test_one_sentence_says_how_many_there_are() -> None:
    """The reason names the number, so that the model knows what to change."""
    one = one_sentence("summary")
    assert await verdict(one, "All is well.") == (True, None)
    assert await verdict(one, None) == (True, None)
    held, reason = await verdict(one, "All is well. Or is it?")
    assert not held
    assert "2 sentences" in (reason or "")
    assert (await verdict(one, "All is\nwell."))[0] is False


async def test_word_limit_is_strict() -> None:
    """Fewer than 30 means that 30 are too many."""
    limit = fewer_words(30, "summary")
    assert (await verdict(limit, "word " * 29))[0]
    assert (await verdict(limit, None))[0]
    held, reason = await verdict(limit, "word " * 30)
    assert not held
    assert reason == "about the field 'summary': it has 30 words; use fewer than 30"


async def test_a_field_as_long_as_its_limit_was_cut() -> None:
    """A string that fills its schema's maxLength did not end by itself."""
    requirement = not_cut({"summary": 5})
    assert (await verdict(requirement, "1234"))[0]
    assert (await verdict(requirement, None))[0]
    assert not (await verdict(requirement, "12345"))[0]


def test_simple_validate_of_a_plain_function_returns_a_result() -> None:
    """Called by hand it gives a verdict, not a coroutine; only an async function needs an await."""
    verdict = simple_validate(lambda text: (len(text) < 3, "too long"))(Answered("abcd"))
    assert isinstance(verdict, ValidationResult)
    assert (bool(verdict), verdict.reason) == (False, "too long")


async def test_a_slow_validator_leaves_the_loop_free() -> None:
    """A sync validator runs in a thread: one that waits for the event loop gets what it waits for."""
    loop, reached = asyncio.get_running_loop(), threading.Event()

    def wait_for_the_loop(_: object) -> ValidationResult:
        loop.call_soon_threadsafe(reached.set)
        return ValidationResult(reached.wait(30))

    assert await Requirement("x", wait_for_the_loop).check(Answered("a"))


async def test_a_stop_iteration_in_a_validator_is_an_error_like_any_other() -> None:
    """It cannot be raised into a future, where its waiter would wait for ever."""
    result = await req("x", simple_validate(lambda text: next(iter(())))).check(Answered("a"))
    assert "StopIteration" in (result.reason or "")


class Backed(Requirement):
    async def validate(
        self,
        backend: Any,
        context: Any,
        *,
        format: Any = None,  # noqa: A002 - the reference's name
        model_options: Any = None,
    ) -> ValidationResult:
        return ValidationResult(context.last_output().value == "a", reason=self.description)


class Plain(Requirement):
    def validate(self, backend: Any, ctx: Any) -> ValidationResult:  # type: ignore[override]  # an older form
        return ValidationResult(ctx.last_output().value == "a")


class Short(Requirement):
    def validate(self, ctx: Any) -> ValidationResult:  # type: ignore[override]  # without the backend
        return ValidationResult(ctx.last_output().value == "a")


@pytest.mark.parametrize("kind", [Backed, Plain, Short])
async def test_an_overridden_validate_is_called(kind: type[Requirement]) -> None:
    """Sync or async, with or without the backend; other words for the same requirement keep it."""
    requirement = kind("x").described("y")
    assert await requirement.check(Answered("a"))
    assert not await requirement.check(Answered("b"))


async def test_the_validate_of_the_base_class_checks_or_asks_the_judge() -> None:
    """An override may call it: the validation function decides, else the model does, if there is one."""

    class Judging(Requirement):
        async def validate(self, backend: Any, context: Any, **options: Any) -> ValidationResult:
            return await super().validate(backend, context)

    class Yes:
        async def judge(self, requirement: Requirement, context: Any) -> ValidationResult:
            return ValidationResult(requirement.description == "x")

    assert await Judging("x", simple_validate(lambda text: text == "a")).check(Answered("a"))
    assert isinstance((await Judging("x").check(Answered("a"))).error, ValueError)
    token = requirement.JUDGE.set(Yes())
    assert await Judging("x").check(Answered("a"))
    requirement.JUDGE.reset(token)


def test_a_validate_that_cannot_be_called_is_refused() -> None:
    """At construction, with the class's name."""

    class Odd(Requirement):
        def validate(self, one: Any, two: Any, three: Any, four: Any) -> ValidationResult:  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Odd\.validate"):
        Odd("x")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Requirement(5), "str, not int"),
        (lambda: Requirement("x", 5), "function, not int"),
        (lambda: simple_validate("x"), "not str"),
        (lambda: reqify(5), "not int"),
        (lambda: reqify_all(len), "simple_validate"),
        (lambda: reqify_all({"x": 1}), "not dict"),
        (lambda: reqify_all(["x", None]), "not NoneType"),
    ],
)
def test_wrong_types_get_one_clear_line(make: Callable[[], object], says: str) -> None:
    """The error names what was expected and what came."""
    with pytest.raises(TypeError, match=says) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_one_sentence_is_one_requirement() -> None:
    """A str is not a list of letters."""
    assert [one.description for one in reqify_all("short")] == ["short"]
    assert [one.description for one in reqify_all(Requirement("short"))] == ["short"]
    assert reqify_all(None) == []
