"""How instructions and objects are put into words."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from mellea_cli import Instruction, Message, ModelOutputThunk, Requirement, ValidationResult, check
from mellea_cli.errors import TemplateError
from mellea_cli.stdlib.components import ObjectTask, as_component, as_text


@dataclass
class Point:
    """A dataclass."""

    x: int


class Place(BaseModel):
    """A pydantic model."""

    name: str


def test_a_bare_instruction_is_its_description() -> None:
    """A description alone gets no other text, and braces have no meaning without variables."""
    assert Instruction("Say {{x}} & <b>.").text() == "Say {{x}} & <b>."
    assert Instruction("").text() == ""


def test_every_part_has_its_place() -> None:
    """Prefix, description, requirements, examples and grounding stand in this order; check-only ones do not."""
    said = Instruction(
        "Describe {{what}}.",
        prefix="About {{what}}:",
        requirements=["It names {{what}}.", check("secret", lambda _: ValidationResult(True))],
        icl_examples=["{{what}} is old."],
        grounding_context={"source": "A text with {{braces}}."},
        user_variables={"what": "a {{vase}}"},
    ).text()
    assert said == (
        "About a {{vase}}:\n\nDescribe a {{vase}}.\n\nThe answer must meet these requirements:\n* It names a {{vase}}."
        "\n\nExamples of good answers:\n* a {{vase}} is old.\n\nAnswer from these texts:\n"
        "* [source] = A text with {{braces}}."
    )


def test_a_requirement_keeps_its_function_when_it_is_rendered() -> None:
    """Rendering makes a copy with the same check; a requirement without words stays itself."""
    wordless = check(None, lambda _: ValidationResult(True))
    worded = Requirement("About {{x}}.", lambda _: ValidationResult(False))
    said = Instruction("d", requirements=[worded, wordless], user_variables={"x": "y"})
    assert said.requirements[0].description == "About y."
    assert said.requirements[0].validation_fn is worded.validation_fn
    assert said.requirements[1] is wordless


@pytest.mark.parametrize("part", ["description", "prefix", "requirements", "icl_examples"])
def test_a_missing_variable_is_named_where_the_call_is(part: str) -> None:
    """Each template that names what is not there is an error with the name in it."""
    parts = {"description": "d", part: "{{missing}}" if part in {"description", "prefix"} else ["{{missing}}"]}
    with pytest.raises(TemplateError, match="missing"):
        Instruction(**parts, user_variables={"given": 1})


def test_a_broken_template_is_an_error() -> None:
    """Syntax errors are reported as ours."""
    with pytest.raises(TemplateError):
        Instruction("{{", user_variables={})


def test_complete_thunks_are_used_as_their_text() -> None:
    """A complete thunk may be a variable or a grounding text; another one is pending."""
    complete, pending = ModelOutputThunk("done {{x}}"), ModelOutputThunk()
    said = Instruction("{{a}}", user_variables={"a": complete}, grounding_context={"b": complete})
    assert said.pending() == []
    assert said.text() == "done {{x}}\n\nAnswer from these texts:\n* [b] = done {{x}}"
    assert Instruction("{{a}}", user_variables={"a": pending}).pending() == [pending]
    assert ObjectTask("", pending, "?").pending() == [pending]


def test_objects_are_shown_as_a_model_can_read_them() -> None:
    """Text as it is, data as JSON, anything else by its `str`."""
    assert as_text("plain") == "plain"
    assert json.loads(as_text({"a": [1, Point(2), Place(name="x")]})) == {"a": [1, {"x": 2}, {"name": "x"}]}
    assert json.loads(as_text(Point(3))) == {"x": 3}
    assert json.loads(as_text(Place(name="Köln"))) == {"name": "Köln"}
    assert as_text(None) == "null"
    assert as_text(ModelOutputThunk("an answer")) == "an answer"
    assert as_text(1 + 2j) == "(1+2j)"
    assert "Köln" in ObjectTask("Answer.", {"city": "Köln"}, "Where?").text()
    assert ObjectTask("Change it.", "abc", "Upper case.").text() == "Change it.\n\nObject:\nabc\n\nUpper case."


def test_what_can_be_said() -> None:
    """`act` takes text, messages, thunks and components, and refuses what is none."""
    assert as_component("plain").content == "plain"
    assert as_component(ModelOutputThunk("x {{y}}")).text() == "x {{y}}"
    message = Message("user", "hi")
    assert as_component(message) is message
    with pytest.raises(TypeError, match="int"):
        as_component(7)
    with pytest.raises(TypeError, match="int"):
        Instruction(7)
