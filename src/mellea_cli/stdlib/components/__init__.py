"""Components: what can be sent to a model as one message, and its text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mellea_cli.messages import Message
from mellea_cli.pipelines.pipeline import render
from mellea_cli.requirements.requirement import Requirement, reqify_all
from mellea_cli.session.thunk import ModelOutputThunk

Requirements = str | Requirement | Sequence[Requirement | str]
"""What must hold for an answer, one or several; a str is judged by the model."""


class Component(Protocol):
    """Something that can be sent to a model as one user message."""

    def text(self) -> str:
        """The message's content."""


class CBlock:
    """A piece of text for the model, with notes about it that only the program sees.

    Args:
        value: the text.
        meta: the notes.
    """

    __slots__ = ("meta", "value")

    def __init__(self, value: str | None, meta: Mapping[str, Any] | None = None) -> None:
        if not isinstance(value, str | None):
            raise TypeError(f"a CBlock's value is a str, not {type(value).__name__}")
        self.value = value
        self.meta = dict(meta or {})

    def text(self) -> str:
        """The text, empty if there is none."""
        return self.value or ""

    __str__ = text

    def __repr__(self) -> str:
        return f"CBlock({self.value!r})"


class Instruction:
    """A task for the model.

    With `user_variables` the description, the prefix, the requirements and the examples are Jinja2 templates; without
    them braces have no meaning. Variables and the grounding context are data: they are inserted as they are and never
    rendered. The arguments are copied and never changed.

    Args:
        description: the task in words.
        requirements: what must hold for the answer, shown to the model unless they are for checking only.
        icl_examples: examples of good answers, shown to the model.
        grounding_context: texts to answer from, by key. Thunks are allowed: they are awaited first.
        user_variables: values of the templates. Thunks are allowed here too.
        prefix: text before everything else.

    Raises:
        TemplateError: a template names a variable that is not there, or does not parse.
        TypeError: `description` is not a str.
    """

    __slots__ = ("_text", "_variables", "description", "examples", "grounding", "prefix", "requirements")

    def __init__(
        self,
        description: str | CBlock,
        *,
        requirements: Requirements | None = None,
        icl_examples: Sequence[str | CBlock] | None = None,
        grounding_context: Mapping[str, str | CBlock | ModelOutputThunk] | None = None,
        user_variables: Mapping[str, Any] | None = None,
        prefix: str | CBlock | None = None,
    ) -> None:
        if not isinstance(description, str | CBlock):
            raise TypeError(f"an instruction is a str, not {type(description).__name__}")
        self.description = str(description)
        self.prefix = _typed("prefix", prefix, str | CBlock, "a str") or ""
        examples = [icl_examples] if isinstance(icl_examples, str | CBlock) else icl_examples
        self.examples = tuple(map(str, _typed("icl_examples", examples, Iterable, "a list of str") or ()))
        texts = "a dict from keys to texts"
        self.grounding = dict(_typed("grounding_context", grounding_context, Mapping, texts) or {})
        variables = _typed("user_variables", user_variables, Mapping, "a dict from names to values")
        self._variables = None if variables is None else dict(variables)
        self.requirements = tuple(map(self._requirement, reqify_all(requirements)))
        # Rendered now, so that a template's error is raised by the call itself; again when all thunks have their texts.
        text = self._render()
        self._text = None if self.pending() else text

    def pending(self) -> list[ModelOutputThunk]:
        """The thunks in the grounding context and the variables that are not complete yet."""
        return pending_thunks(*self.grounding.values(), *(self._variables or {}).values())

    def text(self) -> str:
        """The instruction as one user message."""
        if self._text is not None:
            return self._text
        text = self._render()
        if not self.pending():
            self._text = text
        return text

    def __repr__(self) -> str:
        return f"Instruction({self.description!r})"

    def _requirement(self, requirement: Requirement) -> Requirement:
        if self._variables is None or not requirement.description:
            return requirement
        return requirement.described(self._rendered(requirement.description))

    def _rendered(self, template: str | CBlock) -> str:
        template = str(template)
        if self._variables is None or not template:
            return template
        return render(template, {name: known_text(value) for name, value in self._variables.items()})

    def _render(self) -> str:
        wanted = [one.description for one in self.requirements if one.description and not one.check_only]
        grounding = [f"[{key}] = {known_text(value)}" for key, value in self.grounding.items()]
        blocks = (
            self._rendered(self.prefix),
            self._rendered(self.description),
            _listed("The answer must meet these requirements:", wanted),
            _listed("Examples of good answers:", [self._rendered(example) for example in self.examples]),
            _listed("Answer from these texts:", grounding),
        )
        return "\n\n".join(block for block in blocks if block)


def pending_thunks(*values: Any) -> list[ModelOutputThunk]:
    """The values that are thunks and not complete yet."""
    return [one for one in values if isinstance(one, ModelOutputThunk) and one.text is None]


def known_text(value: Any) -> Any:
    """A thunk's text, empty while it is not complete, or that of a block; any other value as it is."""
    if isinstance(value, CBlock):
        return value.text()
    return (value.text or "") if isinstance(value, ModelOutputThunk) else value


def _typed(name: str, value: Any, kind: Any, wanted: str) -> Any:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {wanted}, not {type(value).__name__}")
    return value


def _listed(lead: str, lines: Iterable[str]) -> str:
    body = "\n".join(f"* {line}" for line in lines)
    return f"{lead}\n{body}" if body else ""


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectTask:
    """A question about an object, or a change to make to it."""

    lead: str
    obj: Any
    task: str

    def pending(self) -> list[ModelOutputThunk]:
        return pending_thunks(self.obj)

    def text(self) -> str:
        return f"{self.lead}\n\nObject:\n{as_text(self.obj)}\n\n{self.task}"


def as_text(obj: Any) -> str:
    """The text of an object for a model: a str as it is, data as JSON, a thunk's answer, anything else by `str`."""
    obj = known_text(obj)
    if isinstance(obj, str):
        return obj
    is_record = hasattr(obj, "model_dump") or (dataclasses.is_dataclass(obj) and not isinstance(obj, type))
    if is_record or isinstance(obj, dict | list | tuple | int | float | None):
        return json.dumps(obj, ensure_ascii=False, indent=2, default=_plain)
    return str(obj)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def as_component(action: Any) -> Component | Message:
    """The component for an argument of `act`.

    Raises:
        TypeError: it cannot be sent to a model.
    """
    if isinstance(action, str):
        return Message("user", action)
    if isinstance(action, ModelOutputThunk):
        return Instruction("{{ answer }}", user_variables={"answer": action})
    if isinstance(getattr(action, "content", None), str) or callable(getattr(action, "text", None)):
        component: Component | Message = action
        return component
    raise TypeError(f"act takes an Instruction, a Message, a str or a thunk, not {type(action).__name__}")
