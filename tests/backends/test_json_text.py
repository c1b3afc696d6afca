"""JSON on the wire."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends.base import chunks_of
from mellea_cli.backends.wire_format import FixedPart, OncePer, all_decoded, decoded, encoded
from mellea_cli.errors import UsageError
from mellea_cli.messages import Chunk, Usage

texts = st.text(st.characters(codec="utf-8"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}, optional={"name": texts}), max_size=5)


@given(st.dictionaries(texts, values, max_size=5), st.none() | messages)
def test_a_body_comes_back_as_it_was(body: dict[str, Any], said: list[Any] | None) -> None:
    """With and without messages, whatever else stands in them."""
    if said is not None:
        body["messages"] = said
    assert json.loads(encoded(body)) == body


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """Inside the messages too."""
    for body in ({"x": value}, {"messages": [{"role": "user", "content": value}]}):
        with pytest.raises(UsageError, match="JSON"):
            encoded(body)


@given(values)
def test_what_python_reads_is_read_alike(value: Any) -> None:
    """Whichever parser does the work."""
    assert decoded(json.dumps(value)) == value


@pytest.mark.parametrize("text", ['"\\ud83d"', "1e999", "NaN", "123456789012345678901234567890", '{"a":1,"a":2}'])
def test_oddities_are_read_as_python_reads_them(text: str) -> None:
    """Halves of a character, endless numbers, huge ones, keys that come twice."""
    expected = json.loads(text)
    assert decoded(text) == expected or expected != expected  # noqa: PLR0124 - NaN


@pytest.mark.parametrize("text", ["", "{", "nul", "[1,]", "[" * 100_000])
def test_what_is_not_json_is_an_error_to_hand_on(text: str) -> None:
    """It is returned, as the text must not stand in a traceback."""
    assert isinstance(decoded(text), ValueError)


@given(st.lists(values, max_size=6))
def test_many_are_read_as_one_by_one(each: list[Any]) -> None:
    """Together, each stays itself."""
    assert all_decoded([json.dumps(value) for value in each]) == each


def test_a_broken_one_among_many_is_the_only_one_broken() -> None:
    """Also where two halves, or two values in one text, would make sense once they are put together."""
    for given_texts in (['{"a":1}', "{", '{"b":2}'], ['{"a":1', '"b":2}'], ["1", "2,3"], ['{"a":"\\ud83d"}', "{}"]):
        read = all_decoded(given_texts)
        alone = [decoded(text) for text in given_texts]
        assert [str(one) for one in read] == [str(one) for one in alone]


class Words:
    """An answer whose events are a chunk each, or a chunk of text in so many words."""

    def plain(self, event: dict[str, Any]) -> str | None:
        return event.get("text")

    def read(self, event: dict[str, Any]) -> Chunk | None:
        return Chunk(event["text"]) if "text" in event else event.get("chunk")


def test_texts_that_arrive_together_are_one_chunk() -> None:
    """But for those that carry more than text, which stay as they are and where they are."""
    end, usage, thought = Chunk("d", "", "stop"), Chunk(usage=Usage(1, 2)), Chunk("", "hm")
    said: list[Any] = ["a", "b", thought, "c", end, usage, "e"]
    events = [{"text": one} if isinstance(one, str) else {"chunk": one} for one in said]
    together = [Chunk("ab"), thought, Chunk("c"), end, usage, Chunk("e")]
    assert list(chunks_of(Words(), events, together=True)) == together
    one_by_one = [Chunk(one) if isinstance(one, str) else one for one in said]
    assert list(chunks_of(Words(), events, together=False)) == one_by_one


def test_a_fixed_part_is_written_as_any_other() -> None:
    """It is only written once, and made once of each mapping."""
    schema = {"type": "object", "properties": {"a": {"enum": ["é", None]}}}
    made = OncePer(FixedPart)
    part = made(schema)
    assert made(schema) is part
    assert made(dict(schema)) is not part
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "format": part, "n": 1}
    assert json.loads(encoded(body)) == {**body, "format": schema}
    for number in range(200):
        assert made({"n": number}) == {"n": number}
