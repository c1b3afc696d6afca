"""A pipeline: a named DAG of steps, each one question to the model about an item."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import ParseError, TemplateError
from mellea_cli.messages import GenerateRequest, Message, Options
from mellea_cli.requirements.requirement import Requirement

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from pydantic import TypeAdapter, ValidationError


# From an answer's text to a value, and to partial values while it streams.

_CODE_FENCE = re.compile(r"\A```[\w-]*\s*\n(.*?)\n?```\Z", re.DOTALL)
_REASONING = re.compile(r"\A<think>.*?</think>", re.DOTALL)


def answer_text(text: str) -> str:
    """The answer without what models like to wrap around it: reasoning, a code fence, white space."""
    bare = _REASONING.sub("", text.strip(), count=1).strip()
    fenced = _CODE_FENCE.match(bare)
    return fenced.group(1).strip() if fenced else bare


def from_answer(adapter: TypeAdapter[Any], text: str) -> Any:
    """Validate an answer that should be JSON.

    Raises:
        ParseError: it is not JSON, or not of the adapter's type; worded for the model, with the raw text kept.
    """
    from pydantic import ValidationError

    bare = answer_text(text)
    try:
        return adapter.validate_json(bare)
    except ValidationError as error:
        raise ParseError(_reason(error), text=text) from error
    except RecursionError as error:
        raise ParseError("the JSON is nested too deeply", text=text) from error


def _reason(error: ValidationError) -> str:
    """What is wrong, as the model should hear it: the first three places."""
    parts = []
    for detail in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"]
        if detail["type"] == "json_invalid":
            return f"it is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)


def partial_fields(text: str) -> dict[str, Any] | None:
    """The fields of a JSON object that is still being written.

    Args:
        text: the beginning of an answer.

    Returns:
        The fields so far, a string that has not ended included; `None` when this is not the beginning of an object.
    """
    from pydantic_core import from_json

    start = text.lstrip()
    if start.startswith("```"):
        start = start[start.find("\n") + 1 :] if "\n" in start else ""
    if not start.startswith("{"):
        return None
    try:
        value = from_json(start, allow_partial="trailing-strings")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def compact_json(value: Any) -> str:
    """JSON without white space between tokens: what examples are written in, for every blank costs a token."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# From a Python type to the JSON schema that a server constrains an answer with.

# Words for people: they cost tokens in prompts that embed the schema and mean nothing to a grammar.
_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})


@dataclass(frozen=True)
class OutputType:
    """The type of a step's answer: any type that pydantic can describe.

    Args:
        type_: the type, such as a pydantic model, a `Literal` or `list[str]`.
    """

    type_: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Pydantic's validator for the type."""
        from pydantic import TypeAdapter

        return TypeAdapter(self.type_)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The type's JSON schema, in the strict form that servers ask for."""
        return strict(self.adapter.json_schema())

    def parse(self, text: str) -> Any:
        """Read an answer.

        Raises:
            ParseError: the answer is not JSON, or not of this type; the reason names the field.
        """
        return from_answer(self.adapter, text)


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with every property required, no others allowed, and the words for people left out.

    Servers that constrain their output ask for this form. Properties keep their order, which is the order in which
    the model writes them.
    """
    return {key: _strict_value(key, value) for key, value in _closed(schema).items() if key not in _ANNOTATIONS}


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    closed = dict(schema)
    if isinstance(closed.get("properties"), dict):
        closed["required"] = list(closed["properties"])
        closed["additionalProperties"] = False
    return closed


def _strict_value(key: str, value: Any) -> Any:
    # Below these keys the names are a user's own fields, where "title" is a field and not an annotation.
    if key in {"properties", "$defs"} and isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    if isinstance(value, dict):
        return strict(value)
    if isinstance(value, list):
        return [strict(inner) if isinstance(inner, dict) else inner for inner in value]
    return value


# From an item to messages: our own templates, rendered in a sandbox; what users wrote is data and never template.


@dataclass(frozen=True, slots=True)
class Example:
    """One worked example, shown to the model as an earlier turn of the conversation."""

    variables: tuple[tuple[str, Any], ...]
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What one step says to the model.

    Everything but the last user message is the same for every item, byte for byte, so that a server evaluates it once
    and keeps it.

    Args:
        system: the system text; empty for none.
        template: Jinja source of the user message.
        examples: worked examples, in the order in which they are shown.
    """

    system: str
    template: str
    examples: tuple[Example, ...] = ()

    @cached_property
    def prefix(self) -> tuple[Message, ...]:
        """The messages that are the same for every item."""
        messages = [Message("system", self.system)] if self.system else []
        for example in self.examples:
            messages.append(Message("user", render(self.template, dict(example.variables))))
            messages.append(Message("assistant", example.answer))
        return tuple(messages)

    def messages(self, variables: Mapping[str, Any]) -> tuple[Message, ...]:
        """All messages for one item.

        Raises:
            TemplateError: the template names a variable that is not there.
        """
        return (*self.prefix, Message("user", render(self.template, variables)))


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render one template of ours.

    Values are put in as they are: they are not rendered again and not escaped.

    Raises:
        TemplateError: the source does not parse, or it names a variable that is not in `variables`.
    """
    from jinja2 import TemplateError as JinjaError
    from jinja2 import UndefinedError

    try:
        return _compiled(source).render(variables)
    except UndefinedError as error:
        known = ", ".join(sorted(variables)) or "none"
        raise TemplateError(
            f"the template names a variable that is not there: {error.message}", hint=f"variables given: {known}"
        ) from error
    except JinjaError as error:
        raise TemplateError(f"the template cannot be rendered: {error}") from error


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    template = _environment().from_string(source)
    # Each rendering copies them, and a chain of mappings takes long to copy.
    template.globals = dict(template.globals)
    return template


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Autoescape is for HTML; what is rendered here is read by a model.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["fence"] = fence
    return environment


def fence(text: str, label: str = "feedback") -> str:
    """Put `text` between marks that it does not contain itself, so that it cannot pretend to end.

    The text stays as it is, letter by letter; the mark gives way.
    """
    mark = label
    while f"<{mark}>" in text or f"</{mark}>" in text:
        mark += "-"
    return f"<{mark}>\n{text}\n</{mark}>"


@dataclass(frozen=True)
class Step:
    """One question about an item.

    Args:
        name: how events, errors and other steps call it.
        prompt: what is said. Its template sees `text` (the feedback) and the answers of the steps in `needs`.
        output: the answer's type.
        max_tokens: the longest answer in tokens; one that reaches it has failed.
        needs: names of the steps whose answers the template uses; steps that do not need each other run side by side.
        requirements: what must hold for the answer beyond its type.
        last_resort: takes an answer and the item's text, and puts the answer right in code once asking again has not
            helped; what it gives must hold as well.
    """

    name: str
    prompt: Prompt
    output: OutputType
    max_tokens: int
    needs: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    last_resort: Callable[[Any, str], Any] | None = None

    def request(self, model: str, options: Options, variables: Mapping[str, Any]) -> GenerateRequest:
        """The step's first request for one item; `options` come with this step's `max_tokens` already set."""
        return GenerateRequest(model, self.prompt.messages(variables), options, self.output.schema)


@dataclass(frozen=True)
class Column:
    """A column that a pipeline adds to each row; `parts` are the keys of a nested one, in order."""

    name: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A named DAG of steps and how their answers become columns.

    Args:
        name: what `--pipeline` takes.
        about: one line for the help.
        steps: the steps, each after those it needs.
        columns: the columns it adds, in order.
        assemble: takes the answers by step name, with the item's text under `text`, and gives the columns' values by
            column name.
        empty: the columns' values for an item that has no text; nulls by default.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    columns: tuple[Column, ...]
    assemble: Callable[[Mapping[str, Any]], dict[str, Any]]
    empty: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a pipeline whose steps need what does not come before them.

        Raises:
            ValueError: a step's name is used twice, or a step needs one that does not come before it.
        """
        before: set[str] = set()
        for step in self.steps:
            if step.name in before:
                raise ValueError(f"pipeline {self.name!r} has two steps named {step.name!r}")
            if missing := set(step.needs) - before:
                raise ValueError(f"step {step.name!r} needs {sorted(missing)}, which do not come before it")
            before.add(step.name)

    @property
    def step_names(self) -> tuple[str, ...]:
        """The steps' names in order."""
        return tuple(step.name for step in self.steps)

    def blank(self) -> dict[str, Any]:
        """The columns of an item that has no text: nothing to ask, so nothing is known."""
        return dict.fromkeys(column.name for column in self.columns) if self.empty is None else dict(self.empty)

    def definition(self) -> dict[str, Any]:
        """Everything about the pipeline that changes its answers, as plain data: what a plan's fingerprint covers."""
        return {
            "pipeline": self.name,
            "steps": [
                {
                    "name": step.name,
                    "system": step.prompt.system,
                    "template": step.prompt.template,
                    "examples": [[list(example.variables), example.answer] for example in step.prompt.examples],
                    "schema": step.output.schema,
                    "max_tokens": step.max_tokens,
                    "needs": list(step.needs),
                    "requirements": [requirement.description for requirement in step.requirements],
                }
                for step in self.steps
            ],
        }
