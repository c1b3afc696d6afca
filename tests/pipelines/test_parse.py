"""From an answer's text to a value."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mellea_cli.errors import ParseError
from mellea_cli.pipelines.pipeline import OutputType, partial_fields, strict


class Thing(BaseModel):
    name: str
    size: Literal["small", "big"] | None


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"x","size":null}',
        ' \n{"name": "x", "size": null}\n',
        '```json\n{"name":"x","size":null}\n```',
        '```\n{"name":"x","size":null}```',
        '<think>hm {"name"}</think>\n{"name":"x","size":null}',
    ],
)
def test_what_models_wrap_around_json_is_taken_off(text: str) -> None:
    """Code fences, reasoning and white space do not make an answer bad."""
    assert OutputType(Thing).parse(text) == Thing(name="x", size=None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "not valid JSON"),
        ('{"name":"x"', "not valid JSON"),
        ('{"name":"x"}', "size"),
        ('{"name":1,"size":null}', "name"),
        ('{"name":"x","size":"huge"}', "size"),
        ("[]", "object"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_answer_says_what_is_wrong_and_keeps_its_text(text: str, reason: str) -> None:
    """The reason is for the model that is asked again."""
    with pytest.raises(ParseError, match=reason) as raised:
        OutputType(Thing).parse(text)
    assert raised.value.text == text


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.none() | st.integers(), max_size=5), st.data())
def test_partial_fields_never_invent(fields: dict[str, object], data: st.DataObject) -> None:
    """Every beginning of an object gives a part of its fields, and each text is a beginning of the real one."""
    text = json.dumps(fields, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text)))
    partial = partial_fields(text[:cut]) or {}
    for key, value in partial.items():
        if isinstance(value, str):
            assert str(fields[key]).startswith(value)
    if cut == len(text):
        assert partial == fields


def test_what_is_no_object_has_no_fields() -> None:
    """Plain text streams as text."""
    assert partial_fields("The customer") is None
    assert partial_fields("") is None
    assert partial_fields('```json\n{"a": "b') == {"a": "b"}


def test_a_strict_schema_is_closed_and_wordless() -> None:
    """Every property is required, no other allowed, annotations are gone, and a field may be called title."""

    class Inner(BaseModel):
        title: str = "x"

    class Outer(BaseModel):
        """Words for people."""

        inner: Inner
        many: list[Inner] = []

    schema = strict(OutputType(Outer).adapter.json_schema())
    assert schema["required"] == ["inner", "many"]
    assert schema["additionalProperties"] is False
    assert "description" not in schema
    assert "default" not in schema["properties"]["many"]
    inner = schema["$defs"]["Inner"]
    assert inner == {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
