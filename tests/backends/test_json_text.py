"""JSON on the wire."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends.wire_format import CachedJson, IdentityCache, cached_message, decode, decode_all, encode
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
    assert json.loads(encode(body)) == body


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """Inside the messages too."""
    for body in ({"x": value}, {"messages": [{"role": "user", "content": value}]}):
        with pytest.raises(UsageError, match="JSON"):
            encode(body)


@given(values)
def test_what_python_reads_is_read_alike(value: Any) -> None:
    """Whichever parser does the work."""
    assert decode(json.dumps(value)) == value


@pytest.mark.parametrize("text", ['"\\ud83d"', "1e999", "NaN", "123456789012345678901234567890", '{"a":1,"a":2}'])
def test_oddities_are_read_as_python_reads_them(text: str) -> None:
    """Halves of a character, endless numbers, huge ones, keys that come twice."""
    expected = json.loads(text)
    assert decode(text) == expected or expected != expected  # noqa: PLR0124 - NaN


@pytest.mark.parametrize("text", ["", "{", "nul", "[1,]", "[" * 100_000])
def test_what_is_not_json_is_an_error_to_hand_on(text: str) -> None:
    """It is returned, as the text must not stand in a traceback."""
    assert isinstance(decode(text), ValueError)


@given(st.lists(values, max_size=6))
def test_many_are_read_as_one_by_one(each: list[Any]) -> None:
    """Together, each stays itself."""
    assert decode_all([json.dumps(value) for value in each]) == each


def test_a_broken_one_among_many_is_the_only_one_broken() -> None:
    """Also where two halves, or two values in one text, would make sense once they are put together."""
    for given_texts in (['{"a":1}', "{", '{"b":2}'], ['{"a":1', '"b":2}'], ["1", "2,3"], ['{"a":"\\ud83d"}', "{}"]):
        read = decode_all(given_texts)
        alone = [decode(text) for text in given_texts]
        assert [str(one) for one in read] == [str(one) for one in alone]


def test_a_fixed_part_is_written_as_any_other() -> None:
    """It is only written once, and made once of each mapping."""
    schema = {"type": "object", "properties": {"a": {"enum": ["é", None]}}}
    made = IdentityCache(CachedJson)
    part = made(schema)
    assert made(schema) is part
    assert made(dict(schema)) is not part
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "format": part, "n": 1}
    assert json.loads(encode(body)) == {**body, "format": schema}
    for number in range(200):
        assert made({"n": number}) == {"n": number}


def test_shared_messages_are_encoded_as_any_other() -> None:
    """Cached or not, and whatever their text, messages and names come out as they were put in."""
    plain = {"role": "user", "content": 'é"\\\n'}
    body = {'na"me': 1, "messages": [cached_message("system", "x"), plain]}
    assert cached_message("system", "x") is cached_message("system", "x")
    assert json.loads(encode(body)) == {'na"me': 1, "messages": [{"role": "system", "content": "x"}, plain]}
