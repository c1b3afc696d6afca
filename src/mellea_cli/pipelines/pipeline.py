"""Pipelines: named DAGs of steps, each one question to the model about an item."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import ParseError, TemplateError
from mellea_cli.messages import GenerateRequest, Message, Options
from mellea_cli.requirements.requirement import Requirement

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from pydantic import TypeAdapter, ValidationError

# Words for people: they cost tokens in prompts that embed the schema and mean nothing to a grammar.
_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})


@dataclass(frozen=True)
class Pipeline:
    """A named DAG of steps and how their answers become columns.

    Args:
        name: the value of `--pipeline`.
        steps: the steps, each after those it needs.
        columns: the columns it adds, in order.
        assemble: takes the answers by step name, with the item's text under `text` and what the steps have read of
            their choices under `PROBABILITIES`, and returns the columns' values by column name.
        empty: the columns' values for an item without text; nulls by default.
        units: what is answered and remembered by itself; empty when that is the pipeline as a whole. `assemble` then
            also takes the answers of only some steps.
        narrow: takes names of units and returns the pipeline that asks only those.
        source: what the pipeline is made from, for processes that make it again.
        version: what changes answers besides the prompts; empty for nothing.

    Raises:
        ValueError: a step's name is used twice, or a step needs one that does not come before it.
    """

    name: str
    steps: tuple[Step, ...]
    columns: tuple[Column, ...]
    assemble: Callable[[Mapping[str, Any]], dict[str, Any]]
    empty: Mapping[str, Any] | None = None
    units: tuple[AnswerUnit, ...] = ()
    narrow: Callable[[frozenset[str]], Pipeline] | None = None
    source: Any = None
    version: str = ""
    shorter: Mapping[str, ShorterAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        before: set[str] = set()
        for step in self.steps:
            if step.name in before:
                raise ValueError(f"pipeline {self.name!r} has two steps named {step.name!r}")
            if missing := set(step.needs) - before:
                raise ValueError(f"step {step.name!r} needs {sorted(missing)}, which do not come before it")
            before.add(step.name)

    @property
    def step_names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The input's columns that prompts show besides the text."""
        return tuple(dict.fromkeys(name for unit in self.units for name in unit.inputs))

    @property
    def prefixes(self) -> tuple[tuple[Message, ...], ...]:
        """The beginnings that the prompts of each step share, without those of the small model."""
        return tuple(step.prompt.prefix for step in self.steps if not step.small)

    @property
    def small_prefixes(self) -> tuple[tuple[Message, ...], ...]:
        """The same for the steps that the backend's small model may answer."""
        return tuple(step.prompt.prefix for step in self.steps if step.small)

    @property
    def reads_logprobs(self) -> bool:
        """Whether a step reads log-probabilities, which not every server gives."""
        return any(step.labels or step.reads_choices for step in self.steps)

    def writing_less(self) -> Pipeline:
        """The pipeline for a model that writes slowly: it does not write what code knows. Answers keep their keys."""
        return replace(self, steps=tuple(replace(step, shorter=self.shorter.get(step.name)) for step in self.steps))

    def of_one_model(self) -> Pipeline:
        """The pipeline for a backend without a small model: nothing is asked a second time."""
        steps = tuple(replace(step, small=False) for step in self.steps if not step.second_look)
        return replace(self, steps=steps) if any(step.small for step in self.steps) else self

    def narrowed(self, known: Collection[str]) -> Pipeline:
        """The pipeline that asks only for columns that are not known."""
        missing = frozenset(unit.name for unit in self.units if not all(column in known for column in unit.columns))
        return self if self.narrow is None or len(missing) == len(self.units) else self.narrow(missing)

    def calls(self, text: str) -> tuple[int, int]:
        """Fewest and most requests about a text when nothing has to be asked again: a step may have a condition."""
        asked = [step for step in self.steps if not isinstance(step.when, Drawn) or step.when({"text": text})]
        sure = [step.when is None or isinstance(step.when, Drawn) for step in asked]
        calls = [len(step.parts(text)) if step.parts else 1 for step in asked]
        return sum(number for number, is_sure in zip(calls, sure, strict=True) if is_sure), sum(calls)

    def blank(self) -> dict[str, Any]:
        """The columns of an item without text."""
        return dict.fromkeys(column.name for column in self.columns) if self.empty is None else dict(self.empty)

    def definition(self) -> dict[str, Any]:
        """Everything that changes the pipeline's answers, as plain data: part of a plan's fingerprint."""
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
                    **({"labels": list(step.labels), "small": step.small} if step.labels else {}),
                }
                for step in self.steps
            ],
            **({"version": self.version} if self.version else {}),
        }


@dataclass(frozen=True)
class Column:
    """A column that a pipeline adds to each row; `parts` are the keys of a nested one, in order.

    Args:
        name: its name.
        parts: for a nested column the names inside it.
        type: for an own field its type, such as `category`; empty for a built-in column.
        joint: for a column of lists the text between their parts in a table; empty writes the list as JSON.
        choices: the values that it may have; empty for any.
    """

    name: str
    parts: tuple[str, ...] = ()
    type: str = ""
    joint: str = ""
    choices: tuple[str, ...] = ()

    @property
    def is_categorical(self) -> bool:
        return self.type in ("bool", "category", "categories")


BUILT_IN_UNIT = "built-in fields"  # The unit of the pipeline that own fields extend; no field can have this name


@dataclass(frozen=True)
class AnswerUnit:
    """What is answered and remembered by itself: one own field, or the built-in pipeline that own fields extend.

    Args:
        name: its name, unique in the pipeline.
        columns: the columns that it answers.
        definition: everything that changes its answers, as plain data: part of its key.
        inputs: the input's columns that its prompts show besides the text.
        is_builtin: whether it is a built-in pipeline.
    """

    name: str
    columns: tuple[str, ...]
    definition: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    is_builtin: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """The condition of a step that is asked about a share of the texts, at random but the same ones in each run."""

    share: float

    def __call__(self, variables: Mapping[str, Any]) -> bool:
        text: str = variables["text"]
        digest = hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), digest_size=4, person=b"second-reading"
        ).digest()
        return int.from_bytes(digest) < self.share * 2**32


@dataclass(frozen=True)
class Step:
    """One question about an item.

    Args:
        name: its name in events, errors and other steps' `needs`.
        prompt: the messages. The template sees `text` (the feedback) and the answers of the steps in `needs`.
        output: the answer's type.
        max_tokens: the longest answer in tokens; one that reaches it has failed.
        needs: names of the steps whose answers the template uses; steps that do not need each other run in parallel.
        requirements: what must hold for the answer beyond its type.
        fallback: repairs an answer in code when re-prompts have not helped. It takes the answer and the item's text;
            its result must meet the requirements too.
        when: takes the variables and says whether the step is asked; one that is not has `None` as its answer.
        exports: the variables that an answer gives to later steps; by default itself under the step's name.
        salvage: takes an answer that is refused, the item's text, and whether each requirement holds; returns the good
            columns.
        labels: the words of which the answer is one. The step's value is then what `readings` makes of the
            log-probabilities of the first token, a reading for each part.
        parts: cuts the text into the parts that are asked about one by one; `None` asks about the whole text.
        small: whether the backend's small model may answer.
        second_look: whether it is only there to check another answer.
        reads_choices: whether the log-probabilities of its answer are read, too: how likely each choice of a field was.
        shorter: what the model need not write for some texts; `None` where it writes all fields.
    """

    name: str
    prompt: Prompt
    output: OutputType
    max_tokens: int
    needs: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    fallback: Callable[[Any, str], Any] | None = None
    when: Callable[[Mapping[str, Any]], bool] | None = None
    exports: Callable[[Any], Mapping[str, Any]] | None = None
    salvage: Callable[[Any, str, Sequence[bool]], Mapping[str, Any]] | None = None
    labels: tuple[str, ...] = ()
    parts: Callable[[str], Sequence[str]] | None = None
    small: bool = False
    second_look: bool = False
    reads_choices: bool = False
    shorter: ShorterAnswer | None = None

    def output_for(self, variables: Mapping[str, Any]) -> OutputType:
        """The type of the answer about one item."""
        if self.shorter is None or (known := self.shorter.known(variables["text"])) is None:
            return self.output
        return _Completed(self.output.type_, self.shorter, known)

    def request(self, model: str, options: Options, variables: Mapping[str, Any]) -> GenerateRequest:
        """The first request for one item; `options` have this step's `max_tokens` already set."""
        wanted = TOP_LOGPROBS if self.reads_choices else 0
        schema = self.output_for(variables).schema
        return GenerateRequest(model, self.prompt.messages(variables), options, schema, wanted)

    def label_requests(self, model: str, options: Options, text: str) -> list[tuple[str, GenerateRequest]]:
        """The parts of a text, each with the request whose first token is read."""
        options = replace(options, max_tokens=self.max_tokens, most_reasoning=0)
        return [
            (part, GenerateRequest(model, messages, options, top_logprobs=TOP_LOGPROBS, small=self.small))
            for part in (self.parts(text) if self.parts else (text,))
            if (messages := self.prompt.messages({"text": part}))
        ]


TOP_LOGPROBS = 20  # The most that OpenAI's protocol gives
PROBABILITIES = "probabilities of choices"  # Stands among the answers of a row's steps; no step has a name with blanks


@dataclass(frozen=True, slots=True)
class LabelReading:
    """The log-probabilities of a step's labels for a part of the text, in the order of the labels."""

    text: str
    logprobs: tuple[float, ...]


def read_labels(part: str, labels: Sequence[str], logprobs: Mapping[str, float]) -> LabelReading:
    """Read the labels off the log-probabilities of an answer's first token.

    A token stands for a label that begins with it. Labels that are not among the most likely tokens are as likely as
    the last of these.

    Raises:
        ParseError: no label is among them.
    """
    known = dict.fromkeys(labels, -math.inf)
    for token, value in logprobs.items():
        word = token.strip().lower()
        for label in labels:
            if len(word) >= _LABEL_START and label.startswith(word):
                known[label] = max(known[label], value)
    if max(known.values()) == -math.inf:
        likely = max(logprobs, key=lambda token: logprobs[token])
        raise ParseError(f"the answer starts with {likely!r} and with none of {', '.join(labels)}", text=likely)
    floor = min(logprobs.values())
    return LabelReading(part, tuple(max(value, floor) for value in known.values()))


_LABEL_START = 3


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example, shown to the model as an earlier turn of the conversation."""

    variables: tuple[tuple[str, Any], ...]
    answer: str


@dataclass(frozen=True)
class Prompt:
    """The messages of one step.

    Everything but the last user message is the same for every item, byte for byte, so that a server evaluates it once
    and caches it.

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
        """All messages for one item; raises as `render` does."""
        return (*self.prefix, Message("user", render(self.template, variables)))


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render a prompt template in a sandbox.

    Values are inserted unchanged: they are data, neither rendered again nor escaped.

    Raises:
        TemplateError: the source does not parse, or names a variable that is not in `variables`.
    """
    from jinja2 import TemplateError as JinjaError
    from jinja2 import UndefinedError

    try:
        return _compiled(source).render(variables)
    except UndefinedError as error:
        known = ", ".join(sorted(variables)) or "none"
        raise TemplateError(
            f"the template names an unknown variable: {error.message}", hint=f"variables given: {known}"
        ) from error
    except JinjaError as error:
        raise TemplateError(f"the template cannot be rendered: {error}") from error


@lru_cache(maxsize=256)
def condition(source: str) -> Callable[[Mapping[str, Any]], bool]:
    """Compile a condition over a prompt's variables, in a sandbox. A comparison with null does not hold."""
    compiled = _environment().compile_expression(source, undefined_to_none=True)

    def holds(variables: Mapping[str, Any]) -> bool:
        try:
            return bool(compiled(**variables))
        except TypeError:
            return False

    return holds


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    template = _environment().from_string(source)
    # Each rendering copies the globals, and copying the environment's chain of mappings is slow.
    template.globals = dict(template.globals)
    return template


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Autoescape is for HTML; a prompt is read by a model.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["fence"] = fence
    return environment


def fence(text: str, label: str = "feedback") -> str:
    """Put `text` between tags that it does not contain itself, so that it cannot close them. The text is unchanged."""
    mark = label
    while f"<{mark}>" in text or f"</{mark}>" in text:
        mark += "-"
    return f"<{mark}>\n{text}\n</{mark}>"


@dataclass(frozen=True)
class OutputType:
    """The type of a step's answer: any type that pydantic can describe.

    Args:
        type_: the type, such as a pydantic model, a `Literal` or `list[str]`.
    """

    type_: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        from pydantic import TypeAdapter

        return TypeAdapter(self.type_)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The type's JSON schema, in the strict form that servers constrain their output with."""
        return strict(self.adapter.json_schema())

    def parse(self, text: str, repaired: Callable[[], None] | None = None) -> Any:
        """Parse an answer; reasoning, prose, a code fence and white space around it are dropped.

        Args:
            text: what the model wrote.
            repaired: called when the answer was not right as it stood.

        Raises:
            ParseError: the answer is not JSON, not of this type, or one of several. The message is worded for the model
                and names the field; the text is kept.
        """
        from pydantic import ValidationError

        from mellea_cli.pipelines.parse import AmbiguousAnswer, parse_json

        try:
            value, was_repaired = parse_json(text, self.adapter.validate_json)
        except ValidationError as error:
            raise ParseError(_reason(error), text=text) from error
        except AmbiguousAnswer as error:
            raise ParseError(str(error), text=text) from error
        except RecursionError as error:
            raise ParseError("the JSON is nested too deeply", text=text) from error
        if was_repaired and repaired is not None:
            repaired()
        return value


@dataclass(frozen=True)
class ShorterAnswer:
    """An answer whose last fields follow from the text for some texts, so that the model need not write them.

    Args:
        output: the type of what the model writes.
        known: takes the text and returns the other fields; `None` where the model writes them, too.
    """

    output: OutputType
    known: Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True)
class _Completed(OutputType):
    """An answer that is parsed without the fields that are known, and completed with them."""

    shorter: ShorterAnswer
    known: Mapping[str, Any]

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.shorter.output.schema

    def parse(self, text: str, repaired: Callable[[], None] | None = None) -> Any:
        return self.type_(**{**dict(self.shorter.output.parse(text, repaired)), **self.known})


def _reason(error: ValidationError) -> str:
    parts = []
    for detail in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"]
        if detail["type"] == "json_invalid":
            return f"it is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with every property required, no others allowed, and the words for people left out.

    Properties keep their order, which is the order in which the model writes them.
    """
    closed = dict(schema)
    if isinstance(closed.get("properties"), dict):
        closed["required"] = list(closed["properties"])
        closed["additionalProperties"] = False
    return {key: _strict_value(key, value) for key, value in closed.items() if key not in _ANNOTATIONS}


def _strict_value(key: str, value: Any) -> Any:
    # Below these keys the names are a user's own fields, where "title" is a field and not an annotation.
    if key in ("properties", "$defs") and isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    if isinstance(value, dict):
        return strict(value)
    if isinstance(value, list):
        return [strict(inner) if isinstance(inner, dict) else inner for inner in value]
    return value


def compact_json(value: Any) -> str:
    """JSON without white space between tokens; worked examples use it because every blank costs a token."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
