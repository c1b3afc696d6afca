"""Quotes are the text's own letters, whatever the model makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.pipelines.theme_prompts import QUOTE_LENGTH, anchored, closest

TEXT = (
    "We waited\n  two hours \u2013 and nobody said \u201cSorry\u201d. "
    "The crew was kind; I can\u2019t complain about them."
)


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("The crew was kind", "The crew was kind"),
        ("waited two hours", "waited\n  two hours"),
        ("WE WAITED", "We waited"),
        ('nobody said "sorry"', "nobody said \u201cSorry"),
        ("I can't complain", "I can\u2019t complain"),
        ("two hours - and", "two hours \u2013 and"),
        ('"The crew was kind."', "The crew was kind"),
        ("the crew was kind!", "The crew was kind"),
    ],
)
def test_a_quote_is_found_in_spite_of_small_differences(quote: str, passage: str) -> None:
    """White space, case, the shape of marks and marks at the ends may differ; the text's letters come back."""
    assert anchored(quote, TEXT) == passage
    assert passage in TEXT


@pytest.mark.parametrize("quote", ["The crew was rude", "two days", "", " ", "...", "x"])
def test_what_does_not_stand_there_is_not_found(quote: str) -> None:
    """No passage is made up."""
    assert anchored(quote, TEXT) is None


def test_letters_that_change_their_length_in_lower_case_do_no_harm() -> None:
    """A Turkish capital I with a dot is two characters in lower case: places stay right."""
    text = "\u0130stanbul \u0130\u0130\u0130 was LATE today"
    assert anchored("was late", text) == "was LATE"


def test_the_closest_sentence_shares_the_most_words() -> None:
    """It is taken from the text as it stands, and of equals the first one."""
    assert closest("the crew were all kind people", TEXT) == "The crew was kind"
    assert closest("zzz", "First one. Second one.") in "First one. Second one."


def test_a_long_passage_is_cut_at_a_word() -> None:
    """A text without any sentence end gives a beginning of it, not all of it."""
    text = "late " * 40_000
    for quote in (closest("late", text), anchored("late " * 100, text)):
        assert quote is not None
        assert len(quote) <= QUOTE_LENGTH
        assert quote.endswith("late")
        assert quote in text


@given(st.text(max_size=200), st.text(max_size=400))
def test_whatever_comes_back_stands_in_the_text(quote: str, text: str) -> None:
    """For any quote and any text at all."""
    found = anchored(quote, text)
    assert found is None or found in text
    assert closest(quote, text) in text
