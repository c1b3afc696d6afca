"""Pipeline files: the models of a user's own fields, steps and examples, and the loader that checks them.

A pipeline file is data. Templates and conditions may name values, compare them and use a few filters; everything else
of Jinja is refused, so a file from somebody else can run no code.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from mellea_cli.errors import InputError, name_some, nearest
from mellea_cli.pipelines.default_prompts import SUMMARY_WORDS, USUAL_LABELS, Urgency, Wording
from mellea_cli.requirements.requirement import sentences

if TYPE_CHECKING:
    from jinja2 import nodes

FieldType = Literal["text", "category", "categories", "bool", "int", "number", "date", "quote", "list"]
Extends = Literal["single", "steps"]
Limit = Annotated[StrictInt | Annotated[float, Field(strict=True)] | Annotated[date, Field(strict=True)], Field()]

BUILT_IN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "single": {"analysis": ("positive_aspect", "main_complaint", "urgency", "sentiment", "summary")},
    "steps": {
        "summary": ("summary",),
        "issues": ("positive_aspect", "main_complaint", "urgency"),
        "sentiment": ("sentiment",),
    },
}
"""The fields of each built-in pipeline by step: a file that extends it may need its steps and use its answers."""

_MOST_BYTES = 1_000_000
_MOST_FIELDS = 100
_NAME_LENGTH = 60
TAKEN: Mapping[str, str] = {
    "text": "the row's text in a prompt",
    "row": "the row's other columns in a prompt",
    "error": "the column with the reason why a row failed",
    "issues": "a built-in column",
    "themes": "a column of mellea themes",
    "theme_quotes": "a column of mellea themes",
}
"""Names that no field can have, and what they mean: in a template, or as a column."""
_WORDS_OF_JINJA = frozenset({
    "and", "or", "not", "in", "is", "if", "else", "for", "loop", "self", "true", "false", "none", "True", "False",
    "None",
})  # fmt: skip
OPTIONS: Mapping[str, tuple[FieldType, ...]] = {
    "choices": ("category", "categories"),
    "max_words": ("text", "quote", "list"),
    "one_sentence": ("text",),
    "pattern": ("text", "quote", "list"),
    "minimum": ("int", "number", "date", "list", "categories"),
    "maximum": ("int", "number", "date", "list", "categories"),
}
"""The options of a field that only some types have, with these types."""
_COUNTED = ("list", "categories")


def _named(value: Any) -> Any:
    """A list of names as names without descriptions; refuses a name that is used twice."""
    if not isinstance(value, list):
        return value
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"must be names in quotation marks, not {name!r}")  # noqa: TRY004 - pydantic's contract
    folded = Counter(name.casefold() for name in value)
    if twice := next((name for name in value if folded[name.casefold()] > 1), None):
        raise ValueError(f"has {twice!r} twice")
    return dict.fromkeys(value, "")


Names = Annotated[dict[StrictStr, StrictStr], BeforeValidator(_named)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSpec(_Table):
    """One field: a question about each row, and the column with its answer."""

    description: StrictStr = Field(default="", description="What the field holds, in a few words; the model reads it.")
    type: FieldType = Field(default="text", description="The type of the answer.")
    choices: Names = Field(
        default={},
        description="The allowed answers of a `category` or `categories`, each with its description; or a list.",
    )
    nullable: StrictBool = Field(
        default=False, description="Whether the answer may be null, where the text does not say."
    )
    max_words: StrictInt | None = Field(default=None, ge=1, description="Most words, of each entry in a `list`.")
    one_sentence: StrictBool = Field(default=False, description="Whether the text must be exactly one sentence.")
    pattern: StrictStr | None = Field(
        default=None, description="Regular expression for the whole answer, or for each entry of a `list`."
    )
    minimum: Limit | None = Field(default=None, description="Least value, or least number of entries.")
    maximum: Limit | None = Field(default=None, description="Greatest value, or greatest number of entries.")

    def problem(self, value: Any, text: str) -> str | None:
        """What is wrong with an answer about `text`, to be read after the field's name; `None` if nothing is."""
        if value is None:
            return None if self.nullable else "is missing"
        return self._wrong_type(value) or self._out_of_range(value) or self._wrong_text(value, text)

    def _wrong_type(self, value: Any) -> str | None:  # noqa: PLR0911 - one for each type
        number = isinstance(value, int | float) and not isinstance(value, bool)
        texts = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
        match self.type:
            case "text" | "quote":
                return None if isinstance(value, str) and value.strip() else "must be text"
            case "category":
                return self._unknown_choice([value])
            case "categories":
                return self._unknown_choice(value) if texts else "must be a list of choices"
            case "list":
                return None if texts else "must be a list of texts"
            case "bool":
                return None if isinstance(value, bool) else "must be true or false"
            case "int":
                return None if number and math.isfinite(value) and value == int(value) else "must be a whole number"
            case "number":
                return None if number and math.isfinite(value) else "must be a number"
            case "date":
                return None if as_date(value) is not None else "must be a date such as 2026-01-31"

    def _unknown_choice(self, values: list[Any]) -> str | None:
        known = {choice.casefold() for choice in self.choices}
        for value in values:
            if not isinstance(value, str) or value.strip().casefold() not in known:
                names = name_some(self.choices, 12)
                return f"{value!r} is not one of {printable(names)}"
        if len({value.strip().casefold() for value in values}) < len(values):
            return "has a choice twice"
        return None

    def _out_of_range(self, value: Any) -> str | None:
        measured: Any = as_date(value) if self.type == "date" else len(value) if self.type in _COUNTED else value
        for limit, word, beyond in ((self.minimum, "least", -1), (self.maximum, "most", 1)):
            if limit is not None and (measured > limit if beyond > 0 else measured < limit):
                entries = f"{limit:g} entr{'y' if limit == 1 else 'ies'}" if self.type in _COUNTED else ""
                return f"must have at {word} {entries}" if entries else f"must be at {word} {limit}"
        return None

    def _wrong_text(self, value: Any, text: str) -> str | None:
        if self.type not in ("text", "quote", "list"):
            return None
        for one in value if isinstance(value, list) else [value]:
            if self.max_words is not None and (words := len(one.split())) > self.max_words:
                return f"has {words} words; use at most {self.max_words}"
            if self.one_sentence and (found := len(sentences(one))) != 1:
                return f"has {found} sentences; write exactly one"
            if self.pattern is not None and (mismatch := _mismatch(self.pattern, one)):
                return mismatch
            if self.type == "quote" and " ".join(one.split()) not in " ".join(text.split()):
                return "is not in the text, letter by letter"
        return None


# CPU seconds for a regular expression: one of a stranger's file may backtrack for years. Others need microseconds.
_MATCH_S, _PROBE_S = 0.5, 0.2
_PROBE_LENGTH = 200


def _mismatch(pattern: str, text: str) -> str | None:
    """Why a text does not match; `None` when it does."""
    import regex

    try:
        if regex.fullmatch(pattern, text, timeout=_MATCH_S) is not None:
            return None
    except TimeoutError:
        return f"{text!r} cannot be compared with the pattern {pattern} in time: it backtracks too much"
    return f"{text!r} does not match the pattern {pattern}"


def _pattern_problem(pattern: str) -> tuple[str, str] | None:
    """What is wrong with a pattern, and what to do about it; `None` for a good one."""
    import regex

    try:
        # Python's own syntax, which is the documented one; the other engine has more.
        re.compile(pattern)
        text = _backtracks(pattern)
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        return f"pattern is no regular expression: {error}", "use '…' around a pattern with backslashes"
    if text is None:
        return None
    hint = "avoid a repetition inside a repetition, such as (a+)+"
    return f"pattern backtracks without end on texts such as {text + '…'!r}", hint


def _backtracks(pattern: str) -> str | None:
    """The beginning of a text that a pattern backtracks on for too long, as far as its own characters show it."""
    import regex

    letters = list(dict.fromkeys(char for char in pattern if char.isalnum()))[:8]
    for part in dict.fromkeys((*letters, "a", "0", " ", "".join(letters))):
        text = (part * _PROBE_LENGTH)[:_PROBE_LENGTH]
        try:
            # The sign at the end matches hardly any pattern, so that all ways of matching the rest are tried.
            regex.fullmatch(pattern, f"{text}\0", timeout=_PROBE_S)
        except TimeoutError:
            return text[:10]
    return None


def printable(text: str) -> str:
    """The text with a question mark for each character that is not printable."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


def as_date(value: Any) -> date | None:
    """The date that a value names: a date of TOML, or ISO text; `None` for anything else."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else None
        except ValueError:
            return None
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


class ExampleSpec(_Table):
    """A worked example, shown to the model as an earlier turn."""

    text: StrictStr = Field(description="The text of a row.")
    row: dict[str, Any] = Field(default={}, description="Other columns of that row, where a prompt uses `row`.")
    answer: dict[str, Any] = Field(
        description="The right answer of each field. A nullable field that is left out is null."
    )


class StepSpec(_Table):
    """Fields that are asked together, in a call of their own."""

    name: StrictStr = Field(description="The step's name, for `needs` and messages.")
    fields: list[StrictStr] = Field(min_length=1, description="The fields that it asks.")
    needs: list[StrictStr] = Field(
        default=[], description="Steps that are answered before; their answers can be used in `prompt` and `when`."
    )
    when: StrictStr = Field(
        default="", description="Condition over earlier answers; where it does not hold, the step's fields are null."
    )
    prompt: StrictStr = Field(
        default="", description="Template of the message about one row; empty for the row's text."
    )

    @cached_property
    def row_columns(self) -> tuple[str, ...]:
        """The input columns that `prompt` and `when` name, as in `row.channel`."""
        found = [*_Source(self.prompt).columns, *_Source(self.when, expression=True).columns]
        return tuple(dict.fromkeys(found))

    @cached_property
    def used_names(self) -> tuple[str, ...]:
        """The names in `prompt` and `when`: fields of earlier steps, `text` and `row`."""
        return tuple(dict.fromkeys((*_Source(self.prompt).names, *_Source(self.when, expression=True).names)))


class PipelineSpec(_Table):
    """A pipeline file: what is asked about each row."""

    extends: Extends | None = Field(default=None, description="A built-in pipeline whose fields come along.")
    context: StrictStr = Field(default="", description="What the rows are, such as `Reviews of a bicycle shop`.")
    language: StrictStr = Field(
        default="en",
        description="Language of generated text, such as `de` or `German`; `same` is the row's own language.",
    )
    labels: Names = Field(
        default={}, description="Labels of the built-in sentiment, each with its definition; or a list."
    )
    fields: dict[str, FieldSpec] = Field(default={}, description="The fields by name; a name is also its column.")
    examples: list[ExampleSpec] = Field(
        default=[], description="Worked examples, in the order in which they are shown."
    )
    steps: list[StepSpec] = Field(default=[], description="Steps; without them all fields are asked in one call.")

    @property
    def built_in_fields(self) -> tuple[str, ...]:
        """The fields of the pipeline that this one extends."""
        steps = BUILT_IN[self.extends] if self.extends else {}
        return tuple(name for names in steps.values() for name in names)

    def problems(self) -> list[Problem]:
        """Everything that is wrong beyond the types of single values, in the order of the keys."""
        of_fields = [*_check_whole(self), *_check_fields(self)]
        # An example cannot be judged by fields that are wrong themselves.
        return [*of_fields, *_check_steps(self), *(() if of_fields else _check_examples(self))]

    @property
    def undefined_labels(self) -> tuple[str, ...]:
        """The labels whose meaning the model has to guess."""
        return Wording(labels=tuple(self.labels.items())).undefined


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a pipeline.

    Args:
        path: the keys and indexes that lead to it.
        message: what is wrong.
        hint: what to write instead.
        line: its line in the file; 0 outside a file.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """The path as in TOML, with list entries counted from 1."""
        parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in self.path]
        return "".join(parts).removeprefix(".")


# What fits together.


def _check_whole(spec: PipelineSpec) -> Iterator[Problem]:
    if not spec.fields and not spec.extends:
        yield Problem((), "there is no field, so nothing is asked", "add a table such as [fields.product]")
    if len(spec.fields) > _MOST_FIELDS:
        yield Problem(("fields",), f"there are {len(spec.fields)} fields; at most {_MOST_FIELDS} fit in one pipeline")
    if spec.labels and not spec.extends:
        message = "labels are those of the built-in sentiment, which this pipeline does not have"
        yield Problem(("labels",), message, 'add extends = "single", or write a field of the type category')
    elif len(spec.labels) == 1:
        yield Problem(("labels",), "one label is no choice", "write at least two")
    yield from _check_names(spec.labels, ("labels",))
    for key in ("context", "language"):
        yield from _check_printable(getattr(spec, key), (key,))
    if not re.fullmatch(r"[^\W\d_][\w ()-]{0,39}", spec.language):
        message = f"{spec.language!r} is no language"
        yield Problem(("language",), message, "write a code or a name such as de, German or same")


def _check_fields(spec: PipelineSpec) -> Iterator[Problem]:
    folded: dict[str, str] = {}
    for name, field in spec.fields.items():
        path = ("fields", name)
        yield from _check_field_name(name, spec)
        if (other := folded.setdefault(name.casefold(), name)) != name:
            yield Problem(path, f"the fields {other!r} and {name!r} differ only by case", "rename one of them")
        yield from _check_options(field, path)
        yield from _check_names(field.choices, (*path, "choices"))
        yield from _check_printable(field.description, (*path, "description"))


def _check_field_name(name: str, spec: PipelineSpec) -> Iterator[Problem]:
    path = ("fields", name)
    if not name.isidentifier() or name in _WORDS_OF_JINJA or name.startswith("_") or len(name) > _NAME_LENGTH:
        usable = re.sub(r"\W+", "_", name).strip("_").lower()[:_NAME_LENGTH]
        usable = usable if usable.isidentifier() and usable not in _WORDS_OF_JINJA else f"field_{usable}".rstrip("_")
        message = f"{name!r} is no name for a field: use letters, digits and _, and begin with a letter"
        yield Problem(path, message, f"write [fields.{usable}]")
    elif name in spec.built_in_fields:
        message = f"the field {name!r} is a column of the built-in pipeline {spec.extends!r}"
        yield Problem(path, message, "choose another name, or remove extends")
    elif (taken := name.casefold()) in TAKEN:
        yield Problem(path, f"a field cannot be named {name!r}, which is {TAKEN[taken]}", "choose another name")


def _check_options(field: FieldSpec, path: tuple[str, ...]) -> Iterator[Problem]:
    for option, types in OPTIONS.items():
        if option in field.model_fields_set and field.type not in types and getattr(field, option) not in (None, False):
            listed = " or ".join((", ".join(types[:-1]), types[-1])).removeprefix(" or ")
            message = f"{option} is for the type {listed}, not for {field.type}"
            yield Problem((*path, option), message, f"remove {option}, or change type")
            return
    if field.type in OPTIONS["choices"]:
        least = 2 if field.type == "category" else 1
        if len(field.choices) < least:
            message = f"the type {field.type} needs choices" if not field.choices else "one choice is no choice"
            at = (*path, "choices") if field.choices else (*path, "type")
            yield Problem(at, message, 'add choices = ["billing", "delivery", "other"]')
    if field.pattern is not None and (found := _pattern_problem(field.pattern)):
        yield Problem((*path, "pattern"), *found)
    yield from _check_range(field, path)


def _check_range(field: FieldSpec, path: tuple[str, ...]) -> Iterator[Problem]:
    for key in ("minimum", "maximum"):
        value = getattr(field, key)
        if value is None:
            continue
        at = (*path, key)
        if (field.type == "date") != isinstance(value, date):
            form = "a date such as 2026-01-31, without quotation marks" if field.type == "date" else "a number"
            yield Problem(at, f"{key} of a {field.type} must be {form}")
            return
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(at, f"{key} must be a finite number", f"remove {key} for no limit")
            return
        if field.type in _COUNTED and (value < 0 or value != int(value)):
            yield Problem(at, f"{key} of a {field.type} is a number of entries, from 0 on")
            return
    low, high = field.minimum, field.maximum
    if low is not None and high is not None and low > high:  # type: ignore[operator]  # both dates or both numbers
        yield Problem((*path, "minimum"), f"minimum {low} is above maximum {high}", "exchange them")
    if field.type == "categories" and low is not None and low > len(field.choices):  # type: ignore[operator]  # a number
        message = f"minimum {low} is more than the {len(field.choices)} choices"
        yield Problem((*path, "minimum"), message, "lower it, or add choices")


def _check_names(names: Mapping[str, str], path: tuple[str, ...]) -> Iterator[Problem]:
    folded: dict[str, str] = {}
    for name, description in names.items():
        at = (*path, name)
        if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > _NAME_LENGTH:
            message = f"{name!r} cannot be a label: it must be 1 to {_NAME_LENGTH} printable characters"
            yield Problem(at, message, "remove white space around it" if name.strip() else "")
        elif (other := folded.setdefault(name.casefold(), name)) != name:
            yield Problem(at, f"{other!r} and {name!r} differ only by case", "remove one of them")
        yield from _check_printable(description, at)


def _check_printable(text: str, path: tuple[str | int, ...]) -> Iterator[Problem]:
    # A control character would reach the terminal of whoever shows the file.
    bad = next((sign for sign in text if not sign.isprintable() and sign not in "\n\r\t" and not sign.isspace()), "")
    if bad and not re.match(r"[\u200c\u200d\u00ad]", bad):
        yield Problem(path, f"it has a control character ({ascii(bad)[1:-1]})", "remove it")


def _check_steps(spec: PipelineSpec) -> Iterator[Problem]:
    if not spec.steps:
        return
    by_name: dict[str, tuple[str, ...]] = dict(BUILT_IN[spec.extends]) if spec.extends else {}
    asked: dict[str, str] = {}
    for index, step in enumerate(spec.steps):
        path = ("steps", index)
        if not re.fullmatch(r"[^\W\d_][\w-]{0,59}", step.name):
            message = f"{step.name!r} is no name for a step: use letters, digits, _ and -, and begin with a letter"
            yield Problem((*path, "name"), message)
        elif step.name in by_name:
            known = "a built-in step has that name" if step.name in BUILT_IN.get(spec.extends or "", {}) else ""
            yield Problem((*path, "name"), known or f"two steps are named {step.name!r}", "choose another name")
        for at, name in enumerate(step.fields):
            if name not in spec.fields:
                yield _unknown((*path, "fields", at), "field", name, spec.fields)
            elif name in asked:
                where = "twice in this step" if asked[name] == step.name else f"in the step {asked[name]!r} too"
                yield Problem((*path, "fields", at), f"the field {name!r} is {where}", "name it once")
            asked[name] = step.name
        by_name.setdefault(step.name, tuple(step.fields))
    for name in spec.fields.keys() - asked.keys():
        yield Problem(("fields", name), f"no step asks the field {name!r}", "add it to the fields of a step")
    for index, step in enumerate(spec.steps):
        path = ("steps", index)
        for at, name in enumerate(step.needs):
            if name not in by_name:
                yield _unknown((*path, "needs", at), "step", name, by_name)
        seen = [field for name in step.needs for field in by_name.get(name, ())]
        for key in ("prompt", "when"):
            yield from _check_source(step, key, (*path, key), spec, seen)
    yield from _check_cycles(spec)


def _unknown(path: tuple[str | int, ...], what: str, name: str, known: Iterable[str]) -> Problem:
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"there are {name_some(known)}" if list(known) else ""
    return Problem(path, f"there is no {what} {name!r}", hint)


def _check_source(
    step: StepSpec, key: str, path: tuple[str | int, ...], spec: PipelineSpec, seen: list[str]
) -> Iterator[Problem]:
    source = getattr(step, key)
    if not source.strip():
        if source:
            yield Problem(path, f"{key} is blank", f"remove {key}")
        return
    yield from _check_printable(source, path)
    read = _Source(source, expression=key == "when")
    if read.problem:
        yield Problem(path, f"{key} {read.problem}", read.hint)
        return
    for name in read.names:
        if name in spec.fields or name in spec.built_in_fields:
            if name not in seen:
                asking = {one.name: one.fields for one in spec.steps} | dict(BUILT_IN.get(spec.extends or "", {}))
                owner = next((one for one, fields in asking.items() if name in fields), None)
                if owner is None:
                    return  # It is named as a field that no step asks
                at_once = owner == step.name
                message = f"{key} uses {name!r}, which " + (
                    "this step itself asks" if at_once else f"the step {owner!r} asks"
                )
                yield Problem(path, message, "ask it in an earlier step" if at_once else f'add needs = ["{owner}"]')
                return
        elif name not in ("text", "row"):
            problem = _unknown(path, "field", name, ["text", "row", *spec.fields, *spec.built_in_fields])
            yield Problem(path, f"{key} uses {name!r}, but {problem.message}", problem.hint)
            return


def _check_cycles(spec: PipelineSpec) -> Iterator[Problem]:
    for index, step in enumerate(spec.steps):
        if step.name in step.needs:
            yield Problem(("steps", index, "needs"), f"the step {step.name!r} needs itself", "remove it from needs")
    needs = {step.name: {name for name in step.needs if name != step.name} for step in spec.steps}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        *circle, _ = reversed(error.args[1])
        index = next(at for at, step in enumerate(spec.steps) if step.name in circle)
        first = circle.index(spec.steps[index].name)
        names = [*circle[first:], *circle[:first], circle[first]]
        message = f"the steps need each other in a circle: {' → '.join(names)}"
        yield Problem(("steps", index, "needs"), message, "remove one of the needs")


def _check_examples(spec: PipelineSpec) -> Iterator[Problem]:
    optional = {name for step in spec.steps if step.when for name in step.fields}
    without: dict[str, list[int]] = {}
    for index, example in enumerate(spec.examples):
        path = ("examples", index)
        if not example.text.strip():
            yield Problem((*path, "text"), "the example has no text", "write the text of a row")
        for name in example.answer:
            if name not in spec.fields and name not in spec.built_in_fields:
                yield _unknown((*path, "answer", name), "field", name, [*spec.fields, *spec.built_in_fields])
        given = {name: field for name, field in _built_in_specs(spec).items() if name in example.answer}
        for name, field in {**given, **spec.fields}.items():
            if name not in example.answer:
                if not field.nullable and name not in optional:
                    without.setdefault(name, []).append(index)
            elif problem := field.problem(example.answer[name], example.text):
                message = f"the example breaks its own field: {name} {problem}"
                yield Problem((*path, "answer", name), message)
    # Whoever adds a field to a file with examples is told once, not for each of them.
    for name, examples in without.items():
        have = "the example has" if len(examples) == 1 else f"{len(examples)} examples have"
        hint = f"add {name} to each answer, write nullable = true in [fields.{name}], or remove these examples"
        yield Problem(("examples", examples[0], "answer"), f"{have} no answer for the field {name}", hint)


def _built_in_specs(spec: PipelineSpec) -> dict[str, FieldSpec]:
    """The built-in fields, for the answers that an example gives to them."""
    issue = FieldSpec(nullable=True)
    labels = spec.labels or dict.fromkeys(USUAL_LABELS, "")
    specs = {
        "positive_aspect": issue,
        "main_complaint": issue,
        "urgency": FieldSpec(type="category", choices=dict.fromkeys(get_args(Urgency), "")),
        "sentiment": FieldSpec(type="category", choices=labels),
        "summary": FieldSpec(one_sentence=True, max_words=SUMMARY_WORDS - 1),
    }
    return {name: specs[name] for name in spec.built_in_fields}


# Templates and conditions.

_IN_CONDITIONS = frozenset(
    ("Name", "Const", "Compare", "Operand", "And", "Or", "Not", "Neg", "List", "Tuple", "Test", "Getattr", "Getitem")
)
_IN_PROMPTS = _IN_CONDITIONS | {"Template", "Output", "TemplateData", "If", "CondExpr", "Concat", "Filter"}
FILTERS = ("fence", "join", "length", "lower", "upper", "trim", "title", "capitalize", "first", "last", "default")
_REFUSED = {
    "call anything": "Call CallBlock FilterBlock",
    "have a loop": "For",
    "calculate": "Add Sub Mul Div FloorDiv Mod Pow Pos",
    "read another file": "Include Import FromImport Extends",
    "set a name": "Assign AssignBlock With",
}
_TESTS = ("none", "true", "false", "defined")


class _Source:
    """A template or condition, parsed and never run: the names in it, and what it must not have."""

    def __init__(self, source: str, *, expression: bool = False) -> None:
        self.names: list[str] = []
        self.columns: list[str] = []
        self.problem = ""
        self.hint = ""
        self._allowed = _IN_CONDITIONS if expression else _IN_PROMPTS
        self._form = (
            'write a comparison such as FIELD == "ANSWER"'
            if expression
            else "write {{ text }}, {{ FIELD }}, {{ row.COLUMN }}"
        )
        if source.strip():
            self._parse(source, expression)

    def _parse(self, source: str, expression: bool) -> None:
        from jinja2 import Environment, TemplateSyntaxError
        from jinja2.parser import Parser

        environment = Environment()  # noqa: S701 - it parses only
        try:
            if expression:
                parser = Parser(environment, source, state="variable")
                tree: nodes.Node = parser.parse_expression()
                if not parser.stream.eos:
                    token = parser.stream.current
                    raise TemplateSyntaxError(f"unexpected {token.value!r}", token.lineno)  # noqa: TRY301 - as the parser does
            else:
                tree = environment.parse(source)
            self._visit(tree)
        except TemplateSyntaxError as error:
            where = f" in its line {error.lineno}" if source.count("\n") else ""
            message = (error.message or "").rstrip(".")
            self._refuse(f"cannot be read{where}: {message}", "compare with ==" if "'='" in message else self._form)
        except RecursionError:
            self._refuse("is nested too deeply", "write it shorter")

    def _refuse(self, problem: str, hint: str = "") -> None:
        if not self.problem:
            self.problem, self.hint = problem, hint

    def _visit(self, node: nodes.Node) -> None:
        kind = type(node).__name__
        match kind:
            case _ if kind not in self._allowed:
                what = next(
                    (what for what, kinds in _REFUSED.items() if kind in kinds.split()), f"have a {kind.lower()}"
                )
                self._refuse(f"cannot {what}", self._form)
                return
            case "Getattr" | "Getitem":
                self._visit_column(node)
                return
            case "Name":
                self.names += [] if node.name in self.names else [node.name]  # type: ignore[attr-defined]  # so has a Name
            case "Filter":
                self._visit_filter(node)
            case "Test" if node.name not in _TESTS:  # type: ignore[attr-defined]  # a Test has one
                self._refuse(f"has the unknown test {node.name!r}", f"there are {', '.join(_TESTS)}")  # type: ignore[attr-defined]
        for child in node.iter_child_nodes():
            self._visit(child)

    def _visit_column(self, node: Any) -> None:
        """`row.channel` and `row["channel"]` are the only access to a part of something."""
        name = node.attr if hasattr(node, "attr") else getattr(node.arg, "value", None)
        if getattr(node.node, "name", "") != "row" or not isinstance(name, str):
            self._refuse("has a part of something other than row", 'write row.channel or row["channel"]')
            return
        if hasattr(node, "attr") and hasattr(dict, name):  # Jinja would take the method
            self._refuse(f"has row.{name}, which is no column there", f'write row["{name}"]')
        self.names += [] if "row" in self.names else ["row"]
        self.columns.append(name)

    def _visit_filter(self, node: Any) -> None:
        if node.name not in FILTERS:
            near = nearest(node.name, FILTERS)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(FILTERS)}"
            self._refuse(f"has the unknown filter {node.name!r}", hint)
        if any(type(one).__name__ != "Const" for one in node.args) or node.kwargs or node.dyn_args or node.dyn_kwargs:
            self._refuse(f"gives the filter {node.name!r} something other than a constant")
        # One filter after another could otherwise make a text of any length.
        inner = node.node
        while type(inner).__name__ == "Filter":
            if inner.name == node.name:
                self._refuse(f"has the filter {node.name!r} twice in a row")
            inner = inner.node


# The file.


def load_pipeline(path: Path | str) -> PipelineSpec:
    """Read a pipeline file.

    Raises:
        InputError: it cannot be read or used; the message names its first line that is wrong.
    """
    spec, problems = check_pipeline(path)
    if spec is None or problems:
        first = problems[0]
        raise InputError(first.message, path=str(path), line=first.line or None, hint=first.hint)
    return spec


def check_pipeline(path: Path | str) -> tuple[PipelineSpec | None, list[Problem]]:
    """Read a pipeline file and return it with everything that is wrong in it, in the order of its lines.

    The pipeline is `None` where it cannot be read at all.
    """
    data, problem = _read(Path(path))
    if problem is not None:
        return None, [problem]
    return check_source(data.decode("utf-8-sig"))


def check_source(source: str) -> tuple[PipelineSpec | None, list[Problem]]:
    """As `check_pipeline`, for the text of a file."""
    source = source.replace("\r\n", "\n")
    try:
        content = tomllib.loads(source)
    except RecursionError:
        return None, [Problem((), "it is nested too deeply", "write it flatter", 1)]
    except ValueError as error:
        return None, [_toml_problem(error, source)]
    if not content:
        hint = "write a first one with: mellea pipeline new -o FILE"
        return None, [Problem((), "it has no keys, so nothing is asked", hint, 1)]
    lines = _Lines(source)
    try:
        spec = PipelineSpec.model_validate(content)
    except ValidationError as error:
        return None, lines.sorted(_model_problem(detail) for detail in error.errors())
    return spec, lines.sorted(spec.problems())


def line_of(path: Path, keys: tuple[str | int, ...]) -> int | None:
    """The line of a pipeline file that has these keys; `None` when it has none of them."""
    data, problem = _read(path)
    if problem is not None:
        return None
    lines = _Lines(data.decode("utf-8-sig").replace("\r\n", "\n"))
    return lines.of(keys) if keys in lines else None


def _read(path: Path) -> tuple[bytes, Problem | None]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except IsADirectoryError:
        return b"", Problem((), "it is a folder, not a pipeline file", "name the .toml file in it")
    except FileNotFoundError:
        return b"", Problem((), "there is no such file", f"write a first one with: mellea pipeline new -o {path}")
    except (OSError, ValueError) as error:
        return b"", Problem((), f"it cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > _MOST_BYTES:
        return b"", Problem((), "it is larger than 1 MB, so it is no pipeline file", "name a .toml file")
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return b"", Problem((), "it is not in UTF-8", "save it as UTF-8", line)
    return data, None


_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
# What tomllib says, and what that means for somebody who does not know the library.
_TOML_WORDS = (
    ("Cannot overwrite a value", "a key is written twice", "remove one of them"),
    ("Cannot declare", "a table is written twice", "keep its keys together under one heading"),
    ("Cannot mutate immutable", "an inline table is extended", "write all its keys between { and }"),
    (
        "Expected '=' after a key",
        "a key without = and a value",
        'write KEY = "value"; a KEY beyond A-Z a-z 0-9 _ - in quotation marks',
    ),
    ("Invalid value", "a value that is no TOML", 'put text into quotation marks: KEY = "value"'),
    ("Invalid statement", "neither KEY = value nor a [heading]", ""),
    ("Expected ']'", "a heading without its ]", ""),
    ("Exceeds the limit", "a number with too many digits", ""),
    ("Invalid initial character", "a key that is no TOML", 'put a name with such signs into quotation marks: "NAME"'),
    ("Unterminated string", "a text without its closing quotation marks", ""),
    ("Illegal character", "a text without its closing quotation marks on the same line", 'use """…""" for more lines'),
    ("Unescaped '\\' in a string", "a backslash in a text", "use '…' around a text with backslashes"),
    ("Unclosed array", "a list without its ]", ""),
    ("Unclosed inline table", "a table without its } on the same line", ""),
)


def _toml_problem(error: ValueError, source: str) -> Problem:
    text = str(error)
    found = _AT_LINE.search(text)
    said = _AT_LINE.sub("", text)
    line = int(found[1]) if found and found[1] else len(source.rstrip().split("\n"))
    for start, meaning, hint in _TOML_WORDS:
        if said.startswith(start) and not (start == "Illegal character" and "'\\n'" not in said):
            return Problem((), f"it is not TOML: {meaning}", hint, line)
    return Problem((), f"it is not TOML: {said}", "", line)


_OTHER_NAMES: Mapping[str, FieldType] = {
    "string": "text",
    "str": "text",
    "enum": "category",
    "label": "category",
    "labels": "categories",
    "integer": "int",
    "float": "number",
    "array": "list",
}
_NAMES_OF_TYPES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
    date: "a date",
    datetime: "a date",
}
_WANTED = {
    "string_type": "text in quotation marks",
    "bool_type": "true or false, without quotation marks",
    "int_type": "a whole number",
    "list_type": "a list such as [...]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "greater_than_equal": "a number from 1 on",
    "too_short": "a list with at least one entry",
}


def _model_problem(detail: Any) -> Problem:
    """One error of pydantic in the words of a pipeline file."""
    path, kind, given = tuple(detail["loc"]), detail["type"], detail["input"]
    key = str(path[-1])
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1])
        near = nearest(key, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        if len(path) == 1 and isinstance(given, dict) and not near:
            hint = f"a field is written as [fields.{key}]"
        return Problem(path, f"there is no key {key!r}", hint)
    if kind == "missing":
        return Problem(path, f"{key} is missing", f"add {key} = …")
    if kind == "literal_error":
        known = list(get_args(Extends) if key == "extends" else get_args(FieldType))
        near = _OTHER_NAMES.get(str(given).casefold()) or nearest(str(given), known)
        message = f"{given!r} is no {'built-in pipeline' if key == 'extends' else 'type'}"
        return Problem(path, message, f"did you mean {near!r}?" if near else f"there are {', '.join(known)}")
    if kind == "value_error":
        return Problem(path, f"{key} {detail['ctx']['error']}")
    if path[-1] in ("int", "float", "date"):  # the alternatives of a limit
        path = path[:-1]
        key, wanted = str(path[-1]), "a number or a date, without quotation marks"
    else:
        wanted = _WANTED.get(kind, detail["msg"])
    if isinstance(path[-1], int):
        key = f"an entry of {path[-2]}"
    given_type = next((name for type_, name in _NAMES_OF_TYPES.items() if type(given) is type_), "that")
    given_text = f", not {given_type}" if given_type.split()[-1] not in wanted else ""
    hint = f"write it as [fields.{key}]" if path[:1] == ("fields",) and len(path) == 2 else ""
    hint = hint or (f"write [[{path[0]}]]" if path in (("examples",), ("steps",)) else "")
    return Problem(path, f"{key} must be {wanted}{given_text}", hint)


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys of the table at a path."""
    models: dict[Any, type[_Table]] = {"fields": FieldSpec, "examples": ExampleSpec, "steps": StepSpec}
    return list((models[path[0]] if path else PipelineSpec).model_fields)


_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)|(?P<sign>[\[\]{}=,.])
    |(?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<bare>[^\s\[\]{}=,."'\#]+)""",
    re.VERBOSE | re.DOTALL,
)


class _Lines:
    """The line of each key and list entry of a TOML text that `tomllib` has read, which keeps no lines itself."""

    def __init__(self, source: str) -> None:
        self._found: dict[tuple[str | int, ...], int] = {}
        self._tokens: list[tuple[str, str, int]] = []
        line = 1
        for token in _TOKEN.finditer(source):
            if token.lastgroup != "skip":
                self._tokens.append((token.lastgroup or "", token[0], line))
            line += token[0].count("\n")
        self._at = 0
        self._read_document()

    def __contains__(self, path: tuple[str | int, ...]) -> bool:
        return path in self._found

    def of(self, path: tuple[str | int, ...]) -> int:
        """The line of the nearest key that leads to a path; the first one when there is none."""
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, 1)

    def sorted(self, problems: Iterable[Problem]) -> list[Problem]:
        """Problems with their lines, in the order of these; an unknown key first, as it explains a missing one."""
        placed = [Problem(one.path, printable(one.message), printable(one.hint), self.of(one.path)) for one in problems]
        return sorted(placed, key=lambda one: (not one.message.startswith("there is no key"), one.line))

    @property
    def _sign(self) -> str:
        if self._at >= len(self._tokens):
            return "\n"
        kind, text, _ = self._tokens[self._at]
        return text if kind in ("sign", "newline") else ""

    def _read_document(self) -> None:
        table: tuple[str | int, ...] = ()
        counts: dict[tuple[str | int, ...], int] = {}
        while self._at < len(self._tokens):
            if self._sign == "\n":
                self._at += 1
            elif self._sign == "[":
                self._at += 1
                is_list = self._sign == "["
                self._at += is_list
                line, key = self._tokens[self._at][2], self._read_key()
                table = ()
                for number, part in enumerate(key, 1):
                    table = (*table, part)
                    self._found.setdefault(table, line)
                    if is_list and number == len(key):
                        counts[table] = counts.get(table, 0) + 1
                    if table in counts:
                        table = (*table, counts[table] - 1)
                        self._found.setdefault(table, line)
                self._at += 1 + is_list
            else:
                self._read_pair(table)

    def _read_key(self) -> list[str]:
        parts: list[str] = []
        while self._sign not in ("=", "]", "\n"):
            kind, text, _ = self._tokens[self._at]
            if kind == "bare":
                parts.append(text)
            elif kind == "text":
                parts.append(tomllib.loads(f"key = {text}")["key"])
            self._at += 1
        return parts

    def _read_pair(self, table: tuple[str | int, ...]) -> None:
        line, path = self._tokens[self._at][2], table
        for part in self._read_key():
            path = (*path, part)
            self._found.setdefault(path, line)
        self._at += 1
        self._read_value(path)

    def _read_value(self, path: tuple[str | int, ...]) -> None:
        opening = self._sign
        if opening not in ("[", "{"):
            while self._sign not in (",", "]", "}", "\n"):
                self._at += 1
            return
        self._at += 1
        number = 0
        while self._sign not in ("]", "}"):
            if self._sign in (",", "\n"):
                self._at += 1
            elif opening == "{":
                self._read_pair(path)
            else:
                self._found.setdefault((*path, number), self._tokens[self._at][2])
                self._read_value((*path, number))
                number += 1
        self._at += 1
