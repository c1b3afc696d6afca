"""What a session's methods take, sync and async alike, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

from mellea_cli.messages import Message
from mellea_cli.pipelines.schema import OutputType
from mellea_cli.pipelines.template import render
from mellea_cli.requirements.base import Requirement, reqify
from mellea_cli.session.options import ModelOptions
from mellea_cli.session.strategies import RejectionSamplingStrategy, SamplingStrategy
from mellea_cli.session.thunk import ModelOutputThunk

if TYPE_CHECKING:
    from pydantic import BaseModel

DEFAULT_STRATEGY: SamplingStrategy = RejectionSamplingStrategy(loop_budget=2)

Requirements = Sequence[Requirement | str]


class ActArguments(TypedDict, total=False):
    """What `act` takes by name."""

    requirements: Requirements | None
    strategy: SamplingStrategy | None
    format: type[BaseModel] | None
    model_options: ModelOptions | None


class InstructArguments(ActArguments, total=False):
    """What `instruct` takes by name."""

    icl_examples: Sequence[str] | None
    grounding_context: Mapping[str, str | ModelOutputThunk] | None
    user_variables: Mapping[str, Any] | None
    prefix: str | None


def requirements_of(
    said: Any, given: Requirements | None, strategy: SamplingStrategy | None
) -> tuple[Requirement, ...]:
    """What must hold for the answer to something said. Raises `ValueError` when nothing would check it."""
    if strategy is None and given:
        raise ValueError("requirements are checked by a strategy: give one, such as RejectionSamplingStrategy()")
    return (*getattr(said, "requirements", ()), *(reqify(one) for one in given or ()))


def chat_message(content: str, role: str, variables: Mapping[str, Any] | None) -> Message:
    """What is said in a chat. Raises `TemplateError` when a variable is missing, `TypeError` when it is no text."""
    if not isinstance(content, str):
        raise TypeError(f"a chat's content is a str, not {type(content).__name__}")
    return Message(role, content if variables is None else render(content, variables))


def reply(thunk: ModelOutputThunk) -> Message:
    """The model's turn in a chat."""
    return Message("assistant", thunk.value or "")


def as_requirements(reqs: Requirement | str | Requirements) -> list[Requirement]:
    """One requirement or several, as a list."""
    return [reqify(one) for one in ([reqs] if isinstance(reqs, Requirement | str) else reqs)]


@lru_cache(maxsize=128)
def output_type(type_: Any) -> OutputType:
    """The type of an answer; its schema and its validator are made once."""
    return OutputType(type_)
