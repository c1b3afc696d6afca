"""What is said to a model: instructions, questions about objects, and how they are put into words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mellea_cli.pipelines.pipeline import render
from mellea_cli.requirements.requirement import Requirement, reqify
from mellea_cli.session.thunk import ModelOutputThunk


class Component(Protocol):
    """Something that can be said to a model as one user message."""

    def text(self) -> str:
        """The message."""


class Instruction:
    """A task for the model.

    With `user_variables` the description, the prefix, the requirements and the examples are Jinja2 templates; without
    them braces mean nothing. Variables and the grounding context are data: they are put in as they are and never
    rendered. Nothing that is handed in is changed or kept.

    Args:
        description: the task in words.
        requirements: what must hold for the answer, shown to the model unless they are for checking only.
        icl_examples: examples of good answers, shown to the model.
        grounding_context: texts to answer from, by a key. Thunks may stand here: they are awaited first.
        user_variables: values of the templates. Thunks may stand here too.
        prefix: text to put before everything else.

    Raises:
        TemplateError: a template names a variable that is not there, or does not parse.
        TypeError: `description` is not a str.
    """

    __slots__ = ("_text", "_variables", "description", "examples", "grounding", "prefix", "requirements")

    def __init__(
        self,
        description: str,
        *,
        requirements: Sequence[Requirement | str] | None = None,
        icl_examples: Sequence[str] | None = None,
        grounding_context: Mapping[str, str | ModelOutputThunk] | None = None,
        user_variables: Mapping[str, Any] | None = None,
        prefix: str | None = None,
    ) -> None:
        if not isinstance(description, str):
            raise TypeError(f"an instruction is a str, not {type(description).__name__}")
        self.description = description
        self.prefix = prefix or ""
        self.examples = tuple(str(example) for example in icl_examples or ())
        self.grounding = dict(grounding_context or {})
        self._variables = None if user_variables is None else dict(user_variables)
        self.requirements = tuple(self._requirement(one) for one in requirements or ())
        # Rendered now, so that a template's fault is raised where the call is; again once thunks have their texts.
        self._text: str | None = self._render()
        if self.pending():
            self._text = None

    def pending(self) -> list[ModelOutputThunk]:
        """The thunks among the grounding context and the variables whose answers do not stand yet."""
        given = (*self.grounding.values(), *(self._variables or {}).values())
        return _pending(*given)

    def text(self) -> str:
        """The whole instruction as one user message."""
        if self._text is None:
            text = self._render()
            if self.pending():
                return text
            self._text = text
        return self._text

    def __repr__(self) -> str:
        return f"Instruction({self.description!r})"

    def _requirement(self, given: Requirement | str) -> Requirement:
        requirement = reqify(given)
        if self._variables is None or not requirement.description:
            return requirement
        return Requirement(
            self._said(requirement.description),
            requirement.validation_fn,
            output_to_bool=requirement.output_to_bool,
            check_only=requirement.check_only,
        )

    def _said(self, template: str) -> str:
        if self._variables is None or not template:
            return template
        return render(template, {name: _known(value) for name, value in self._variables.items()})

    def _render(self) -> str:
        wanted = [one.description for one in self.requirements if one.description and not one.check_only]
        grounding = [f"[{key}] = {_known(value)}" for key, value in self.grounding.items()]
        blocks = (
            self._said(self.prefix),
            self._said(self.description),
            _listed("The answer must meet these requirements:", wanted),
            _listed("Examples of good answers:", [self._said(example) for example in self.examples]),
            _listed("Answer from these texts:", grounding),
        )
        return "\n\n".join(block for block in blocks if block)


def _pending(*values: Any) -> list[ModelOutputThunk]:
    return [one for one in values if isinstance(one, ModelOutputThunk) and one.text is None]


def _known(value: Any) -> Any:
    return (value.text or "") if isinstance(value, ModelOutputThunk) else value


def _listed(lead: str, lines: Iterable[str]) -> str:
    body = "\n".join(f"* {line}" for line in lines)
    return f"{lead}\n{body}" if body else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A question about an object."""

    obj: Any
    query: str

    def pending(self) -> list[ModelOutputThunk]:
        """The object, when it is a thunk whose answer does not stand yet."""
        return _pending(self.obj)

    def text(self) -> str:
        """The object as text, then the question."""
        return f"Answer the question about this object.\n\nObject:\n{as_text(self.obj)}\n\nQuestion: {self.query}"


@dataclasses.dataclass(frozen=True, slots=True)
class Transform:
    """A change to make to an object."""

    obj: Any
    transformation: str

    def pending(self) -> list[ModelOutputThunk]:
        """The object, when it is a thunk whose answer does not stand yet."""
        return _pending(self.obj)

    def text(self) -> str:
        """The object as text, then the change."""
        lead = "Transform this object as described. Answer with the transformed object only."
        return f"{lead}\n\nObject:\n{as_text(self.obj)}\n\nTransformation: {self.transformation}"


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """Plain text."""

    words: str

    def text(self) -> str:
        """The text."""
        return self.words


def as_text(obj: Any) -> str:
    """An object as a model can read it: a str as it is, data as JSON, a thunk as its answer, anything else by `str`."""
    obj = _known(obj)
    if isinstance(obj, str):
        return obj
    if hasattr(obj, "model_dump_json"):
        dumped: str = obj.model_dump_json(indent=2)
        return dumped
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        obj = dataclasses.asdict(obj)
    if isinstance(obj, dict | list | tuple | int | float) or obj is None:
        return json.dumps(obj, ensure_ascii=False, indent=2, default=_plain)
    return str(obj)


def _plain(value: Any) -> Any:
    """What JSON has no form for: a model's fields, a dataclass's, else its `str`."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def component(action: Any) -> Component:
    """Make a component of what `act` is given.

    Raises:
        TypeError: it is nothing that can be said to a model.
    """
    if isinstance(action, str):
        return Said(action)
    if isinstance(action, ModelOutputThunk):
        return Instruction("{{ answer }}", user_variables={"answer": action})
    if isinstance(getattr(action, "content", None), str) or callable(getattr(action, "text", None)):
        said: Component = action
        return said
    raise TypeError(f"act takes an Instruction, a Message, a str or a thunk, not {type(action).__name__}")
