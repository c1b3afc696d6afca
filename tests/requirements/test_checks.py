"""Requirements that code can check."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mellea_cli.requirements.checks import fewer_words, not_cut, one_sentence, sentences
from mellea_cli.requirements.requirement import Answered, Requirement


async def verdict(requirement: Requirement, text: str) -> tuple[bool, str | None]:
    result = await requirement.check(Answered(text))
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
    assert await verdict(one_sentence(), "All is well.") == (True, None)
    held, reason = await verdict(one_sentence(), "All is well. Or is it?")
    assert not held
    assert "2 sentences" in (reason or "")
    assert (await verdict(one_sentence(), "All is\nwell."))[0] is False


async def test_word_limit_is_strict() -> None:
    """Fewer than 30 means that 30 are too many."""
    limit = fewer_words(30)
    assert (await verdict(limit, "word " * 29))[0]
    held, reason = await verdict(limit, "word " * 30)
    assert not held
    assert reason == "it has 30 words; use fewer than 30"


async def test_a_check_of_a_field_looks_at_the_parsed_answer() -> None:
    """The check is applied to the field's value and the reason names the field; null holds."""
    requirement = fewer_words(3, "summary")
    good = await requirement.check(Answered("", SimpleNamespace(summary="Two words")))
    bad = await requirement.check(Answered("", SimpleNamespace(summary="now three words")))
    absent = await requirement.check(Answered("", SimpleNamespace(summary=None)))
    assert (bool(good), bool(bad), bool(absent)) == (True, False, True)
    assert "'summary'" in (bad.reason or "")


async def test_a_field_as_long_as_its_limit_was_cut() -> None:
    """A string that fills its schema's maxLength did not end by itself."""
    requirement = not_cut({"summary": 5})
    assert await requirement.check(Answered("", SimpleNamespace(summary="1234")))
    assert not await requirement.check(Answered("", SimpleNamespace(summary="12345")))
