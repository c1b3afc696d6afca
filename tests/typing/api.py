"""Checked by mypy, never run: what the public API's types promise to its users."""

from __future__ import annotations

from typing import Any, Literal, assert_type

from pydantic import BaseModel

from mellea_cli import (
    ChatContext,
    Instruction,
    MelleaSession,
    Message,
    ModelOption,
    ModelOutputThunk,
    MultiTurnStrategy,
    Requirement,
    SamplingResult,
    SimpleContext,
    ValidationResult,
    check,
    generative,
    req,
    simple_validate,
    start_session,
    wait_for_all_mots,
)


class Mood(BaseModel):
    """An answer's type."""

    mood: str


@generative
def classify(summary: str, *, strict: bool = False) -> Literal["good", "bad"]:
    """Classify the summary."""
    raise NotImplementedError


@generative
async def count(text: str) -> int:
    """Count the words."""
    raise NotImplementedError


def sync() -> None:
    """Everything that does not need a loop."""
    with start_session("ollama", "x", ChatContext(window_size=3), model_options={ModelOption.SEED: 1}) as m:
        assert_type(m, MelleaSession)
        assert_type(m.instruct("x", requirements=["short", req("y")], format=Mood), ModelOutputThunk)
        assert_type(m.instruct("x", strategy=MultiTurnStrategy(), return_sampling_results=True), SamplingResult)
        assert_type(m.act(Instruction("x")), ModelOutputThunk)
        assert_type(
            m.act(Message("user", "x"), strategy=MultiTurnStrategy(), return_sampling_results=True), SamplingResult
        )
        assert_type(m.chat("x"), Message)
        assert_type(m.query({"a": 1}, "x").value, str | None)
        assert_type(m.validate("short"), list[ValidationResult])
        assert_type(m.last_prompt(), list[dict[str, str]] | None)
        assert_type(classify(m, "x", strict=True, requirements=["y"]), Literal["good", "bad"])
        assert_type(classify(m, "x", strict=True), Literal["good", "bad"])
        assert_type(classify(m=m, summary="x"), Literal["good", "bad"])
        assert_type(classify(m, summary="x", strategy=None), Literal["good", "bad"])
        assert_type(m.instruct("x", requirements="short", strategy=None), ModelOutputThunk)
        m.ctx = SimpleContext()


async def asynchronous(m: MelleaSession) -> None:
    """Everything that does."""
    thunk = await m.ainstruct("x", user_variables={"a": 1}, strategy=None, await_result=True)
    assert_type(thunk, ModelOutputThunk)
    assert_type(await thunk, ModelOutputThunk)
    assert_type(await thunk.avalue(), str)
    assert_type(await thunk.astream(), str)
    assert_type([piece async for piece in thunk], list[str])
    assert_type(await m.ainstruct("x", return_sampling_results=True), SamplingResult)
    assert_type(await m.avalidate([check("x", simple_validate(_long))]), list[ValidationResult])
    assert_type(await count(m, "x"), int)
    await wait_for_all_mots([thunk, await m.aquery("x", "y")], return_exceptions=True)


def _long(text: str) -> tuple[bool, str]:
    return len(text) > 3, "too short"


def mine(context: Any) -> ValidationResult:
    """A validator of a user's own."""
    return ValidationResult(bool(context.last_output()), reason="none", score=0.5)


OWN: Requirement = req("x", mine)
