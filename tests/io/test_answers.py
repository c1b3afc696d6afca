"""Outcomes as text, and the answers of a run that has no file to keep them in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.io.journal import MemoryAnswers, outcome_to_text, text_to_outcome
from mellea_cli.items import Failure, Success
from mellea_cli.messages import Usage

TEXT = st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
USAGE = st.builds(Usage, st.integers(0), st.integers(0))
SECONDS = st.floats(0, 1e6)
OUTCOMES = st.builds(Success, st.dictionaries(TEXT, VALUES, max_size=4), USAGE, SECONDS, st.integers(1)) | st.builds(
    Failure, TEXT, TEXT, TEXT, st.integers(1), st.none() | st.integers(), USAGE, SECONDS
)


@settings(deadline=None)
@given(OUTCOMES)
def test_outcome_comes_back_equal(outcome: Success | Failure) -> None:
    """Every field survives, surrogate halves and control characters too, in one line of ASCII."""
    text = outcome_to_text(outcome)
    assert text_to_outcome(text) == outcome
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", '{"values": {}}', '{"values": {}, "usage": 1}', '{"kind": "x"'])
def test_text_that_is_no_outcome_is_refused(text: str) -> None:
    """Damage is an error, never a wrong outcome."""
    with pytest.raises(ValueError, match=r"."):
        text_to_outcome(text)


def test_memory_keeps_the_answers_used_last() -> None:
    """The bound holds, a lookup counts as use, a later answer replaces an earlier one."""
    answers = MemoryAnswers(bound=3)
    answers.commit([(bytes([n]), Success({"n": n})) for n in range(3)])
    assert answers.lookup(b"\0") == Success({"n": 0})
    answers.commit([(b"\3", Success({"n": 3})), (b"\2", Failure("parse", "x"))])
    assert answers.lookup(b"\1") is None
    assert [answers.lookup(bytes([n])) for n in (0, 2, 3)] == [
        Success({"n": 0}), Failure("parse", "x"), Success({"n": 3}),
    ]  # fmt: skip
    mark = answers.mark()
    answers.commit([(b"\2", Failure("parse", "x"))])
    assert [answers.stored_after(mark, bytes([n])) for n in (0, 1, 2, 3)] == [False, False, True, False]
    answers.note_facts({"plan": "a", "version": "1"})
    answers.note_facts({"plan": "b"})
    assert answers.facts() == {"plan": "b", "version": "1"}
    answers.close()
    assert answers.lookup(b"\0") is None
