"""Structured output on real servers, by the command and by the Python API."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel
from realservers import TEXTS, RealServer, Run, write_feedback
from relay import Relay

import mellea_cli

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]


class Mood(BaseModel):
    """A form that a small model cannot get wrong where the server keeps the schema."""

    mood: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


@mellea_cli.generative
def mood_of(text: str) -> Literal["good", "bad"]:
    """Say whether the mood of the text is good or bad."""


def test_the_schema_goes_out_with_each_question(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """Every question carries a JSON schema in the place where the server's protocol has it."""
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:2])
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", *seen.flags(), env=seen.environ())
    assert done.returncode in {0, 3}, done.stderr
    assert len(relay.questions) >= 2
    for question in relay.questions:
        if seen.backend == "ollama":
            schema = question.json["format"]
        else:
            assert question.json["response_format"]["type"] == "json_schema"
            schema = question.json["response_format"]["json_schema"]["schema"]
        assert {"summary", "sentiment", "urgency"} <= set(schema["properties"])


async def test_a_model_class_comes_back_as_its_instance(server: RealServer) -> None:
    """`format=` gives an instance of the class, and the counts of both kinds of tokens."""
    async with mellea_cli.start_session(
        server.backend, server.model, base_url=server.url, api_key=server.key or None
    ) as m:
        options = {mellea_cli.ModelOption.TEMPERATURE: 0, mellea_cli.ModelOption.MAX_NEW_TOKENS: 200}
        thunk = await m.ainstruct("I love this shop! Which mood is that?", format=Mood, model_options=options)
        await thunk.avalue()
    assert isinstance(thunk.parsed_repr, Mood)
    assert thunk.usage is not None
    assert thunk.usage.prompt_tokens
    assert thunk.usage.completion_tokens


def test_a_generative_function_returns_a_value_of_its_type(server: RealServer) -> None:
    """A function whose body is the model returns one of the values that its type allows."""
    with mellea_cli.start_session(server.backend, server.model, base_url=server.url, api_key=server.key or None) as m:
        assert mood_of(m, text="I love this shop!") in {"good", "bad"}


async def test_pieces_arrive_one_by_one(server: RealServer) -> None:
    """A streamed answer comes in several pieces that add up to its value."""
    async with mellea_cli.start_session(
        server.backend, server.model, base_url=server.url, api_key=server.key or None
    ) as m:
        options = {mellea_cli.ModelOption.STREAM: True, mellea_cli.ModelOption.MAX_NEW_TOKENS: 40}
        thunk = await m.ainstruct("Tell a story about a ship.", model_options=options, strategy=None)
        pieces = []
        while not thunk.is_computed():
            pieces.append(await thunk.astream())
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == thunk.value


async def test_answers_side_by_side(server: RealServer) -> None:
    """Eight calls that were fired together all resolve."""
    async with mellea_cli.start_session(
        server.backend, server.model, base_url=server.url, api_key=server.key or None
    ) as m:
        options = {mellea_cli.ModelOption.MAX_NEW_TOKENS: 12}
        thunks = [
            await m.ainstruct(f"Name a fruit, number {number}.", model_options=options, strategy=None)
            for number in range(8)
        ]
        await mellea_cli.wait_for_all_mots(thunks)
    assert all(thunk.value for thunk in thunks)
