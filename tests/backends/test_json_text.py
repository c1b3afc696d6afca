"""JSON on the wire."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends.base import joined
from mellea_cli.backends.json_text import decoded, encoded
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


def test_texts_that_arrive_together_are_one_chunk() -> None:
    """But for those that carry more than text, which stay as they are and where they are."""
    end, usage = Chunk("d", "", "stop"), Chunk(usage=Usage(1, 2))
    thought = Chunk("", "hm")
    given_chunks = [Chunk("a"), None, Chunk("b"), thought, Chunk("c"), end, usage, Chunk("e")]
    assert list(joined(given_chunks)) == [Chunk("ab"), thought, Chunk("c"), end, usage, Chunk("e")]
