"""The backend without a model: valid, repeatable, and as told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from mellea_cli.backends.scripted import SchemaFaker, ScriptedBackend, first_sentence, plausible_reply
from mellea_cli.errors import ServerFault, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message


def request(text: str = "The app is great. It crashed twice!", schema: Any = None) -> GenerateRequest:
    return GenerateRequest("any", (Message("system", "s"), Message("user", text)), output_schema=schema)


async def collect(backend: ScriptedBackend, asked: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(asked)]


class Leaf(BaseModel):
    kind: Literal["leaf"]
    size: int = Field(ge=3, le=5)
    weight: float = Field(gt=0, lt=1)


class Tree(BaseModel):
    name: str = Field(min_length=2, max_length=12)
    sentiment: Literal["positive", "negative", "mixed"]
    urgency: Literal["low", "medium", "high"]
    main_complaint: str | None
    positive_aspect: str | None
    leaf: Leaf
    tags: list[str] = Field(min_length=2, max_length=3)
    child: Tree | None
    children: list[Tree]
    either: int | bool
    free: dict[str, int]
    good: bool


@given(st.text(max_size=200))
def test_every_instance_is_valid(text: str) -> None:
    """Whatever the text, the instance of a rich schema, one that holds itself included, passes its own validation."""
    value = SchemaFaker(text).value(Tree.model_json_schema())
    Tree.model_validate(value)


@pytest.mark.parametrize(
    "kind", [str, int, float, bool, list[int], dict[str, str], str | None, Literal[3, 4], list[Literal["a"]], None]
)
def test_instances_of_plain_types(kind: Any) -> None:
    """Each plain type gets a value of it."""
    adapter = TypeAdapter(kind)
    adapter.validate_python(SchemaFaker("Fine.").value(adapter.json_schema()), strict=True)


def test_a_choice_of_types_in_a_list() -> None:
    """`type` may be a list, and an empty schema takes anything."""
    assert SchemaFaker("All is fine.").value({"type": ["string", "null"]}) == "All is fine."
    assert SchemaFaker("All is fine.").value({}) == "All is fine."


@pytest.mark.parametrize(
    ("text", "sentiment", "urgency", "complaint", "praise"),
    [
        ("I love it.", "positive", "low", False, True),
        ("It is slow.", "negative", "medium", True, False),
        ("I love it but I lost my data.", "mixed", "high", True, True),
    ],
)
def test_judgements_follow_the_words(text: str, sentiment: str, urgency: str, complaint: bool, praise: bool) -> None:
    """Moods and urgencies fit the text, and what is not in it is null."""
    value = SchemaFaker(text).value(Tree.model_json_schema())
    assert (value["sentiment"], value["urgency"]) == (sentiment, urgency)
    assert (value["main_complaint"] is not None, value["positive_aspect"] is not None) == (complaint, praise)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("Version 2.0 is out! Good.", "Version 2.0 is out!"),
        ("  no mark,\n", "no mark."),
        ("", "Nothing is said."),
        ("很好。 谢谢。", "很好。"),
        ("w " * 100, "w " * 24 + "w."),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    """A summary is the first sentence, in one line, of fewer than 30 words."""
    assert first_sentence(text) == sentence


async def test_the_feedback_is_found_between_its_marks() -> None:
    """Text between marks stands for the message; without any it is the last user message."""
    schema = {"type": "object", "properties": {"summary": {"type": "string"}}}
    marked = "Look at it.\n<feedback>\nIt hums. Loudly.\n</feedback>"
    assert json.loads(plausible_reply(request(marked, schema))) == {"summary": "It hums."}
    assert plausible_reply(request("It hums. Loudly.")) == "It hums."
    assert plausible_reply(GenerateRequest("any", ())) == "Nothing is said."


async def test_the_same_request_gets_the_same_answer() -> None:
    """Nothing but the request decides, whichever instance answers."""
    first, second = ScriptedBackend(), ScriptedBackend()
    schema = Tree.model_json_schema()
    assert await collect(first, request(schema=schema)) == await collect(second, request(schema=schema))


@pytest.mark.parametrize(
    ("reply", "texts"),
    [("abcdefg", ["abc", "def", "g"]), (["ab", "", "c"], ["ab", "", "c"]), ("", [])],
)
async def test_a_reply_of_ones_own(reply: str | Sequence[str], texts: list[str]) -> None:
    """A reply may be a text or the pieces it streams in, and sees the request."""
    seen: list[GenerateRequest] = []
    backend = ScriptedBackend(lambda asked: seen.append(asked) or reply, chunk_characters=3, chunk_delay_s=0.001)
    chunks = await collect(backend, request())
    assert [chunk.text for chunk in chunks[:-1]] == texts
    assert chunks[-1].finish_reason == "stop"
    assert seen == [request()]


async def test_a_reply_may_be_an_error() -> None:
    """An exception as the reply is raised as it is."""
    error = ServerFault("down")
    with pytest.raises(ServerFault) as caught:
        await collect(ScriptedBackend(lambda _: error), request())
    assert caught.value is error


def test_chunks_have_letters() -> None:
    """A chunk of no characters would never end."""
    with pytest.raises(UsageError):
        ScriptedBackend(chunk_characters=0)
