"""Own fields: the pipeline of a user's own questions, made from a pipeline file, from flags or from a pydantic model.

The fields of a step are asked in one call. Each is an answer unit: it is remembered by itself. A pipeline is narrowed
to the fields whose answers are missing, so a field that is added, removed or reworded leaves the others alone.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema
from typing_extensions import TypedDict

from mellea_cli.errors import UsageError, name_some, nearest
from mellea_cli.pipelines.default_prompts import (
    ANALYSIS_TOKENS,
    DEFINE_ISSUES,
    DEFINE_SUMMARY,
    FROM_TEXT,
    GOOD_ISSUES,
    GOOD_SUMMARY,
    PIPELINES,
    Analysis,
    Wording,
    built_in,
    built_in_columns,
    fold_nothing,
    shortened,
    worked,
)
from mellea_cli.pipelines.pipeline import (
    BUILT_IN_UNIT,
    AnswerUnit,
    Column,
    Example,
    OutputType,
    Pipeline,
    Prompt,
    Step,
    compact_json,
    condition,
)
from mellea_cli.pipelines.pipeline_spec import (
    BUILT_IN,
    FieldSpec,
    FieldType,
    PipelineSpec,
    StepSpec,
    as_date,
    load_pipeline,
)
from mellea_cli.pipelines.theme_prompts import QUOTE_LENGTH, anchored, closest
from mellea_cli.requirements.requirement import Answered, Requirement, Verdict, answer_check, sentences

JOINT = " | "  # Separates the choices of a `categories` field in a cell of a table
OWN_STEP = "fields"

# What is in the text comes before what is judged.
_ORDER: Sequence[FieldType] = ("quote", "text", "list", "date", "number", "int", "bool", "category", "categories")
_TEXT_LENGTH, _SENTENCE_LENGTH, _ENTRY_LENGTH = 600, 320, 160
_CHARACTERS_PER_WORD = 12
_MOST_ENTRIES = 10
_MOST_TOKENS = 4_000
_NULLABLE: frozenset[FieldType] = frozenset(("text", "quote", "date", "int", "number"))


def pipeline_of(source: Any) -> Pipeline:
    """The pipeline that a name, a file, a `PipelineSpec`, a pydantic model or a `Pipeline` stands for.

    Args:
        source: the name of a built-in pipeline, the path of a pipeline file, `MODULE:NAME`, or one of these objects.

    Raises:
        InputError: the file cannot be read or used.
        UsageError: there is no such pipeline, or it is no pipeline.
    """
    if isinstance(source, Pipeline):
        return source
    if isinstance(source, PipelineSpec):
        return own_pipeline(source)
    if isinstance(source, type) and issubclass(source, BaseModel):
        return model_pipeline(source)
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"{source!r} is no pipeline", hint="give a pipeline file, a pydantic model or a Pipeline")
    name = os.fspath(source)
    if name in (*PIPELINES, "fast"):
        return _built_in(name)
    if (module := re.fullmatch(r"((?:\w+\.)*\w+):(\w+)", name)) and not Path(name).exists():
        return replace(pipeline_of(_imported(module[1], module[2])), source=name)
    if not Path(name).exists() and not name.endswith(".toml"):
        near = nearest(name, (*PIPELINES, "fast"))
        hint = (
            f"did you mean {near!r}?" if near else f"name a pipeline file, {', '.join(PIPELINES)}, fast, or MODULE:NAME"
        )
        raise UsageError(f"there is no pipeline {name!r}", hint=hint)
    return own_pipeline(load_pipeline(name), Path(name).stem)


def _built_in(name: str) -> Pipeline:
    if name in PIPELINES:
        return PIPELINES[name]
    from mellea_cli.pipelines.fast import FAST

    return FAST


def _imported(module: str, name: str) -> Any:
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"there is no module {module!r}", hint="run the command in its folder") from error
    finally:
        if added:
            sys.path.remove(folder)
    is_model = isinstance(found, type) and issubclass(found, BaseModel)
    if not is_model and not isinstance(found, Pipeline | PipelineSpec):
        what = "has no" if found is None else "has, but not as a pipeline,"
        raise UsageError(f"the module {module} {what} {name}", hint="name a pydantic model or a Pipeline in it")
    return found


def own_pipeline(spec: PipelineSpec, name: str = "") -> Pipeline:
    """The pipeline of a `PipelineSpec` without problems."""
    if not spec.fields and not spec.steps and spec.extends:
        # No own field: the built-in pipeline with its own key.
        examples = tuple((one.text, one.answer) for one in spec.examples)
        wording = Wording(spec.context, spec.language, tuple(spec.labels.items()), examples)
        return replace(built_in(spec.extends, wording), source=spec)
    fields = {field: _spec_field(field, definition) for field, definition in spec.fields.items()}
    return _Builder(name or spec.extends or "own", spec, fields, spec).whole


def model_pipeline(model: type[BaseModel]) -> Pipeline:
    """The pipeline whose fields are those of a pydantic model; the model's docstring is the context."""
    if not model.model_fields:
        raise UsageError(f"the model {model.__name__} has no fields, so nothing is asked", hint="add a field to it")
    fields = {name: _model_field(name, info) for name, info in model.model_fields.items()}
    context = " ".join((model.__doc__ or "").split())
    spec = PipelineSpec.model_validate({"context": context})
    return _Builder(model.__name__, spec, fields, f"{model.__module__}:{model.__name__}").whole


# One field.


@dataclass(frozen=True)
class OwnField:
    """How one field is asked, checked and written.

    Args:
        name: its name, which is also its column.
        line: its definition in the prompt.
        annotation: the type of its answer, for pydantic.
        tokens: the longest answer in tokens.
        spec: its definition; `None` for a field of a pydantic model.
        limit: characters at which a server that keeps the schema cuts a text.
    """

    name: str
    line: str
    annotation: Any
    tokens: int
    spec: FieldSpec | None = None
    limit: int = 0

    @property
    def order(self) -> int:
        return _ORDER.index(self.spec.type) if self.spec is not None else 0

    @property
    def column(self) -> Column:
        if self.spec is None:
            return Column(self.name, type="model")
        choices = self.spec.choices if self.spec.type == "categories" else {}
        plain = bool(choices) and not any("|" in choice or choice[:1] in '["' for choice in choices)
        return Column(self.name, type=self.spec.type, joint=JOINT if plain else "", choices=tuple(self.spec.choices))

    def value(self, answer: Any, text: str) -> Any:
        """The column's value of an answer about `text`."""
        spec = self.spec
        if answer is None or spec is None:
            return answer
        if spec.type == "quote":
            return anchored(answer, text) or answer
        if spec.type == "categories":
            return [choice for choice in spec.choices if choice in answer]
        return answer

    def problem(self, answer: Any, text: str) -> str | None:
        """What is wrong with an answer, to be read after the field's name; `None` if nothing is."""
        spec = self.spec
        if answer is None or spec is None:
            return None
        for one in answer if isinstance(answer, list) else [answer]:
            if self.limit and len(one) >= self.limit:
                return "was cut off; say it in fewer words"
        if spec.type == "quote" and (found := anchored(answer, text)) is None:
            return f"{compact_json(answer)} does not stand in the feedback; copy its author's words letter by letter"
        return spec.problem(found if spec.type == "quote" else answer, text)

    def repaired(self, answer: Any, text: str) -> Any:
        """A better answer for one with a problem: null where it may be, the first sentence, the closest passage."""
        spec = self.spec
        if spec is None or self.problem(answer, text) is None:
            return answer
        if spec.one_sentence and (found := sentences(answer)) and self.problem(found[0], text) is None:
            return found[0]
        if spec.nullable:
            return None
        return _first_words(closest(answer, text), spec.max_words) if spec.type == "quote" else answer

    @property
    def can_fail(self) -> bool:
        """Whether an answer of the right type may have a problem."""
        spec = self.spec
        return spec is not None and spec.type not in ("bool", "category")


def _first_words(passage: str, most: int | None) -> str:
    """The beginning of a passage with at most so many words, in its own characters."""
    ends = [word.end() for word in re.finditer(r"\S+", passage)]
    return passage if most is None or len(ends) <= most else passage[: ends[most - 1]]


def _spec_field(name: str, spec: FieldSpec) -> OwnField:
    annotation, tokens, limit = _typed(spec)
    if spec.nullable:
        # The alternative with a text comes first: some servers write the first one that fits.
        nothing = _fold_nothing_but(spec.choices) if spec.choices else _fold_unknown
        annotation = Annotated[annotation | None, BeforeValidator(nothing)]
    return OwnField(name, f"- {name}: {_definition(name, spec)}", annotation, tokens, spec, limit)


_UNKNOWN = re.compile(r"unknown|unspecified|unclear|not (?:stated|given|said|known|available)", re.IGNORECASE)


def _fold_unknown(value: Any) -> Any:
    """`None` for a text that says that there is no answer."""
    value = fold_nothing(value)
    return None if isinstance(value, str) and _UNKNOWN.fullmatch(value.rstrip(".")) else value


def _fold_nothing_but(choices: Iterable[str]) -> Callable[[Any], Any]:
    """As `_fold_unknown`, for a field with choices: one of them, such as "no" or "unknown", is an answer."""
    names = {choice.casefold() for choice in choices}
    return lambda value: value if isinstance(value, str) and value.strip().casefold() in names else _fold_unknown(value)


def _definition(name: str, spec: FieldSpec) -> str:
    description = " ".join(spec.description.split()).rstrip(".") or name.replace("_", " ")
    parts = [description, *_rules(spec)]
    if spec.nullable:
        parts.append("null if the feedback does not say")
    sentence = "; ".join(part for part in parts if part)
    choices = _choices(spec)
    return f"{sentence}. {choices}." if choices else f"{sentence}."


def _rules(spec: FieldSpec) -> list[str]:
    low, high = spec.minimum, spec.maximum
    span = f"from {low} to {high}" if low is not None and high is not None else ""
    span = span or (f"at least {low}" if low is not None else f"at most {high}" if high is not None else "")
    rules = {
        "text": "one sentence" if spec.one_sentence else "",
        "quote": "copied from the feedback letter by letter",
        "list": f"a list of short texts{f', {span} of them' if span else ''}, [] if there are none",
        "date": f"a date as YYYY-MM-DD {span}".rstrip(),
        "number": f"a number {span}".rstrip(),
        "int": f"a whole number {span}".rstrip(),
        "bool": "true or false",
        "category": "",
        "categories": f"a list of all that apply{f', {span}' if span else ''}{'' if low else ', [] if none does'}",
    }
    words = f"at most {spec.max_words} words" if spec.max_words is not None else ""
    return [rules[spec.type], words, f"it matches {spec.pattern}" if spec.pattern is not None else ""]


def _choices(spec: FieldSpec) -> str:
    parts = []
    for choice, description in spec.choices.items():
        text = " ".join(description.split()).rstrip(".")
        if not text and choice.casefold() in ("other", "others"):
            text = "anything else"
        parts.append(f'"{choice}" for {text}' if text else f'"{choice}"')
    start = "All of: " if spec.type == "categories" else "One of: "
    return start + ("; " if any(" for " in part for part in parts) else ", ").join(parts) if parts else ""


def _typed(spec: FieldSpec) -> tuple[Any, int, int]:  # noqa: PLR0911 - one for each type
    """The type of a field's answers, its longest answer in tokens, and the length at which a text is cut."""
    low: Any = spec.minimum
    high: Any = spec.maximum
    match spec.type:
        case "text" | "quote" | "list":
            limit = {"quote": QUOTE_LENGTH, "list": _ENTRY_LENGTH}.get(spec.type, _TEXT_LENGTH)
            if spec.one_sentence:
                limit = _SENTENCE_LENGTH
            if spec.max_words is not None and spec.type != "quote":
                limit = max(40, min(20 * _TEXT_LENGTH, spec.max_words * _CHARACTERS_PER_WORD))
            strings = StringConstraints(min_length=1, max_length=limit, strip_whitespace=True)
            text: Any = Annotated[str, strings, AfterValidator(_without_guard)]
            if spec.type == "quote":
                return text, limit // 2, 0  # one that is cut is still a quote
            if spec.type == "text":
                return text, limit // 2, limit
            most = int(high) if isinstance(high, int | float) else _MOST_ENTRIES
            entries = Annotated[list[text], Field(min_length=int(low or 0), max_length=most)]
            return entries, min(most, _MOST_ENTRIES) * limit // 4, limit
        case "category" | "categories":
            choice: Any = Annotated[
                Literal[tuple(spec.choices)],
                BeforeValidator(_choice_in({name.casefold(): name for name in spec.choices})),
            ]
            longest = max(map(len, spec.choices))
            if spec.type == "category":
                return choice, longest, 0
            most = int(high) if isinstance(high, int | float) else len(spec.choices)
            distinct = AfterValidator(lambda some: list(dict.fromkeys(some)))
            several = Annotated[list[choice], distinct, Field(min_length=int(low or 0), max_length=most)]
            return several, 8 + sum(map(len, spec.choices)), 0
        case "date":
            schema = {"type": "string", "format": "date"}
            return Annotated[str, AfterValidator(_iso_date), WithJsonSchema(schema)], 16, 0
        case "int":
            return Annotated[int, Field(ge=low, le=high)], 24, 0
        case "number":
            return Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)], 24, 0
        case "bool":
            return bool, 8, 0


def _choice_in(names: Mapping[str, str]) -> Callable[[Any], Any]:
    """Read a choice in whatever case it is written."""
    return lambda value: names.get(value.strip().casefold(), value) if isinstance(value, str) else value


def _without_guard(text: str) -> str:
    """The text without an apostrophe that a reader of a table would take for the one before a formula."""
    return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@\t\r") else text


def _iso_date(text: str) -> str:
    if as_date(text.strip()) is None:
        raise ValueError(f"{text!r} is not a date such as 2026-01-31")
    return text.strip()


def _model_field(name: str, info: Any) -> OwnField:
    annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    description = " ".join((info.description or name.replace("_", " ")).split()).rstrip(".")
    schema = OutputType(annotation).schema
    choices = schema.get("enum") or schema.get("items", {}).get("enum")
    listed = f"; one of {', '.join(json.dumps(choice) for choice in choices)}" if choices else ""
    null = (
        "; null if the feedback does not say"
        if any(one.get("type") == "null" for one in schema.get("anyOf", ()))
        else ""
    )
    return OwnField(name, f"- {name}: {description}{listed}{null}.", annotation, 400)


# The pipeline.


@dataclass(frozen=True)
class _Call:
    """Fields that are asked together, and how."""

    name: str
    fields: tuple[str, ...]
    with_built_in: bool = False
    needs: tuple[str, ...] = ()
    when: str = ""
    template: str = FROM_TEXT
    uses: tuple[str, ...] = ()  # Fields of other steps in its prompt and its condition
    inputs: tuple[str, ...] = ()  # The input's columns in them


_SHOWN_TEXT = re.compile(r"\{\{(-?)\s*text\b([^{}]*?)(-?)\}\}")


def _call(step: StepSpec, known: Iterable[str]) -> _Call:
    # The text is data, so it stands between marks, also where a prompt does not ask for that.
    template = _SHOWN_TEXT.sub(_fenced, step.prompt) if step.prompt.strip() else FROM_TEXT
    names = step.used_names
    uses = tuple(name for name in known if name in names)
    return _Call(step.name, tuple(step.fields), False, tuple(step.needs), step.when, template, uses, step.row_columns)


def _fenced(shown: re.Match[str]) -> str:
    return shown[0] if "fence" in shown[2] else f"{{{{{shown[1]} text {shown[2].strip()} | fence {shown[3]}}}}}"


class _Builder:
    """Makes a pipeline and its narrower forms."""

    def __init__(self, name: str, spec: PipelineSpec, fields: Mapping[str, OwnField], source: Any) -> None:
        self._name = name
        self._spec = spec
        self._fields = fields
        self._source = source
        self._wording = Wording(spec.context, spec.language, tuple(spec.labels.items()))
        self._base = built_in(spec.extends, self._wording) if spec.extends else None
        self._narrow: dict[frozenset[str], Pipeline] = {}
        self._calls = self._ordered_calls()
        self._definitions: dict[str, Mapping[str, Any]] = {}

    def _ordered_calls(self) -> list[_Call]:
        """The calls with own fields, each after those that it needs."""
        spec = self._spec
        if not spec.steps:
            together = spec.extends == "single"
            return [_Call("analysis" if together else OWN_STEP, tuple(self._fields), with_built_in=together)]
        waiting = [_call(step, (*self._fields, *spec.built_in_fields)) for step in spec.steps]
        placed = list(BUILT_IN[spec.extends]) if spec.extends else []
        calls: list[_Call] = []
        while waiting:
            ready = next(call for call in waiting if all(need in placed for need in call.needs))
            waiting.remove(ready)
            placed.append(ready.name)
            calls.append(ready)
        return calls

    @cached_property
    def whole(self) -> Pipeline:
        return self._pipeline(frozenset((*self._fields, *([BUILT_IN_UNIT] if self._base else []))))

    def narrow(self, names: frozenset[str]) -> Pipeline:
        """The pipeline that asks only these units."""
        if names not in self._narrow:
            self._narrow[names] = self._pipeline(names)
        return self._narrow[names]

    def _pipeline(self, names: frozenset[str]) -> Pipeline:
        asked = [(call, [self._fields[name] for name in call.fields if name in names]) for call in self._calls]
        with_base = self._base is not None and BUILT_IN_UNIT in names
        together = [bool(with_base and call.with_built_in) for call, _ in asked]
        steps: list[Step] = []
        if self._base is not None and with_base and not any(together):
            steps += [_exporting(step, self._wording.meanings) for step in self._base.steps]
        for (call, fields), both in zip(asked, together, strict=True):
            if fields or both:
                present = {step.name for step in steps}
                needs = tuple(name for name in call.needs if name in present)
                steps.append(self._step(call, fields, needs, with_built_in=both))
        columns = self._base.columns if self._base is not None else ()
        return Pipeline(
            name=self._name,
            steps=tuple(steps),
            columns=(*columns, *(field.column for field in self._fields.values())),
            assemble=lambda answers: self._columns(answers, asked, with_base=with_base, together=any(together)),
            units=self.units,
            narrow=self.narrow,
            source=self._source,
        )

    def _columns(
        self,
        answers: Mapping[str, Any],
        asked: Sequence[tuple[_Call, Sequence[OwnField]]],
        *,
        with_base: bool,
        together: bool,
    ) -> dict[str, Any]:
        """The columns of the steps that are answered."""
        text: str = answers["text"]
        columns: dict[str, Any] = {}
        base = self._base
        if base is not None and with_base and not together and all(step.name in answers for step in base.steps):
            columns |= base.assemble(answers)
        for call, fields in asked:
            if call.name not in answers or not (fields or together):
                continue
            answer = answers[call.name]
            if together and call.with_built_in:
                columns |= _built_in_values(answer, self._wording.meanings)
            if fields and answer is None:
                columns |= dict.fromkeys(field.name for field in fields)
            elif fields:
                columns |= {field.name: field.value(answer[field.name], text) for field in fields}
        return columns

    def _step(self, call: _Call, fields: list[OwnField], needs: tuple[str, ...], *, with_built_in: bool) -> Step:
        fields = sorted(fields, key=lambda field: field.order)
        if with_built_in and not fields and self._base is not None:
            return self._base.steps[0]
        lines = [DEFINE_ISSUES, self._wording.sentiment, DEFINE_SUMMARY] if with_built_in else []
        requirements, owners = _requirements(fields, with_built_in=with_built_in)
        return Step(
            name=call.name,
            prompt=Prompt(
                self._wording.system(*lines, *(field.line for field in fields)),
                call.template,
                self._examples(call, fields, with_built_in=with_built_in),
            ),
            output=OutputType(self._answer_type(fields, with_built_in=with_built_in)),
            max_tokens=self._tokens(call),
            needs=needs,
            requirements=requirements,
            fallback=lambda answer, text: _repaired(answer, text, fields, with_built_in=with_built_in),
            when=condition(call.when) if call.when.strip() else None,
            exports=lambda answer: answer or dict.fromkeys(field.name for field in fields),
            salvage=lambda answer, text, held: self._salvaged(
                answer,
                text,
                [unit for unit, holds in zip(owners, held, strict=True) if not holds],
                fields,
                with_built_in=with_built_in,
            ),
        )

    def _salvaged(
        self,
        answer: Mapping[str, Any],
        text: str,
        bad: Collection[str],
        fields: Sequence[OwnField],
        with_built_in: bool,
    ) -> dict[str, Any]:
        """The columns of a refused answer but for those of the bad units."""
        both = with_built_in and BUILT_IN_UNIT not in bad
        columns = _built_in_values(answer, self._wording.meanings) if both else {}
        return columns | {one.name: one.value(answer[one.name], text) for one in fields if one.name not in bad}

    def _tokens(self, call: _Call) -> int:
        # The same for every narrower form: it is only a limit.
        names = 8 * (len(call.fields) + 1)
        own = sum(self._fields[name].tokens for name in call.fields)
        return min(_MOST_TOKENS, names + own + (ANALYSIS_TOKENS if call.with_built_in else 0))

    def _answer_type(self, fields: Sequence[OwnField], *, with_built_in: bool) -> Any:
        types: dict[str, Any] = {}
        if with_built_in and self._base is not None:
            model = self._base.steps[0].output.type_
            for name, info in model.model_fields.items():
                types[name] = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        types |= {field.name: field.annotation for field in fields}
        # A model would not take every name: some are those of its methods.
        return TypedDict("Answer", types)  # type: ignore[operator]  # the fields are known when it runs

    def _examples(self, call: _Call, fields: Sequence[OwnField], *, with_built_in: bool) -> tuple[Example, ...]:
        examples = []
        if with_built_in:
            shown = worked(self._wording, Analysis.model_fields)
            examples += [Example((("text", text),), compact_json(answer)) for text, answer in shown]
        # A field that no example answers, such as one from a flag, is not shown: a null would be copied.
        answered = {name for example in self._spec.examples for name in example.answer}
        for example in self._spec.examples:
            given = {**dict.fromkeys((*self._fields, *self._spec.built_in_fields)), **example.answer}
            given = {name: _plain(value, self._fields.get(name)) for name, value in given.items()}
            row = {**dict.fromkeys(call.inputs), **example.row}
            variables = {"text": example.text, "row": row, **{name: given[name] for name in call.uses}}
            names = [field.name for field in fields if field.name in answered]
            if with_built_in:
                names = [*(name for name in Analysis.model_fields if name in example.answer), *names]
            if not names or (call.when.strip() and not condition(call.when)(variables)):
                continue
            shown_names = ("text", *(["row"] if call.inputs else []), *call.uses)
            turn = tuple((name, variables[name]) for name in shown_names)
            examples.append(Example(turn, compact_json({name: given[name] for name in names})))
        return tuple(examples)

    # What is remembered by itself.

    @cached_property
    def units(self) -> tuple[AnswerUnit, ...]:
        base = self._base
        units = []
        if base is not None:
            names = tuple(column.name for column in base.columns)
            units.append(AnswerUnit(BUILT_IN_UNIT, names, base.definition(), is_builtin=True))
        inputs: dict[str, tuple[str, ...]] = {}
        own = {}
        for call in self._calls:
            used = [name for field in call.uses for name in inputs.get(field, ())]
            for name in call.fields:
                inputs[name] = tuple(dict.fromkeys((*call.inputs, *used)))
                own[name] = AnswerUnit(name, (name,), self._definition(call, name), inputs[name])
        return (*units, *(own[name] for name in self._fields))

    def _definition(self, call: _Call, name: str) -> Mapping[str, Any]:
        """Everything that changes a field's answers: how it is asked alone, and the fields that are shown to it."""
        if name not in self._definitions:
            field = self._fields[name]
            step = self._step(call, [field], (), with_built_in=False)
            used = {one: self._definition_of(one) for one in call.uses}
            self._definitions[name] = {
                "field": name,
                "system": step.prompt.system,
                "template": step.prompt.template,
                "examples": [[list(example.variables), example.answer] for example in step.prompt.examples],
                "schema": step.output.schema,
                "rules": field.spec.model_dump(mode="json", exclude_defaults=True) if field.spec is not None else None,
                "when": call.when,
                "uses": used,
            }
        return self._definitions[name]

    def _definition_of(self, name: str) -> Mapping[str, Any]:
        if name in self._fields:
            return self._definition(next(call for call in self._calls if name in call.fields), name)
        return self._base.definition() if self._base is not None else {}


def _plain(value: Any, field: OwnField | None) -> Any:
    """A value of an example as the model would write it."""
    if isinstance(value, date):
        return value.isoformat()
    if field is None or field.spec is None or not field.spec.choices:
        return value
    read = _choice_in({name.casefold(): name for name in field.spec.choices})
    return [read(one) for one in value] if isinstance(value, list) else read(value)


def _exporting(step: Step, meanings: Mapping[str, str]) -> Step:
    """A step of a built-in pipeline whose answer gives later steps its fields by their names."""

    def exports(answer: Any) -> Mapping[str, Any]:
        if not isinstance(answer, Analysis):
            return dict(answer)
        columns = built_in_columns(answer, answer.sentiment, answer.summary, meanings)
        return {**columns.pop("issues"), **columns}

    prompt = step.prompt
    if step.needs == ("summary",):
        # The same messages: here the summary is a text, and not an answer with a summary.
        texts = [dict(one.variables)["summary"]["summary"] for one in prompt.examples]
        answers = [one.answer for one in prompt.examples]
        examples = [Example((("summary", text),), answer) for text, answer in zip(texts, answers, strict=True)]
        prompt = Prompt(prompt.system, "{{ summary | fence }}", tuple(examples))
    return replace(step, prompt=prompt, exports=exports)


def _built_in_values(answer: Mapping[str, Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    return built_in_columns(SimpleNamespace(**answer), answer["sentiment"], answer["summary"], meanings)


def _requirements(fields: Sequence[OwnField], *, with_built_in: bool) -> tuple[tuple[Requirement, ...], list[str]]:
    """The requirements on an answer, and the unit that each belongs to."""
    found: list[tuple[str, Requirement]] = []
    if with_built_in:
        found += [(BUILT_IN_UNIT, _of_mapping(one)) for one in (*GOOD_SUMMARY, *GOOD_ISSUES)]
    found += [(field.name, _good(field)) for field in fields if field.can_fail]
    return tuple(one for _, one in found), [name for name, _ in found]


def _of_mapping(requirement: Requirement) -> Requirement:
    """A requirement on a model's attributes, for an answer that is a mapping."""

    def validate(answer: Answered) -> Verdict:
        of_attributes = replace(answer, parsed=SimpleNamespace(**answer.parsed))
        return requirement.validation_fn(of_attributes)  # type: ignore[misc]  # those of the built-in fields have one

    return replace(requirement, validation_fn=validate)


def _good(field: OwnField) -> Requirement:
    def problem(answer: Answered) -> str | None:
        found = field.problem(answer.parsed[field.name], answer.source)
        return None if found is None else f"about the field {field.name!r}: it {found}"

    return answer_check(f"{field.name}: it follows its definition.", problem)


def _repaired(answer: Any, text: str, fields: Sequence[OwnField], *, with_built_in: bool) -> Any:
    """The answer with what could not be asked better; `None` if nothing changes."""
    better = {**answer, **{field.name: field.repaired(answer[field.name], text) for field in fields}}
    if with_built_in:
        better |= shortened(answer)
    return better if better != answer else None


# Fields on the command line.

_FLAG = re.compile(
    r"\s*(?P<name>[^:(=]+?)\s*(?:\(\s*(?P<type>[^)]*?)\s*\))?\s*(?::\s*(?P<description>.*?)\s*)?", re.DOTALL
)


def flag_field(text: str) -> tuple[str, FieldSpec]:
    """Read `NAME: DESCRIPTION` or `NAME(TYPE): DESCRIPTION`; `TYPE!` and `TYPE?` say whether null is no answer or one.

    Raises:
        UsageError: it is neither.
    """
    found = _FLAG.fullmatch(text)
    if found is None:
        raise UsageError(f"--field {text!r}: is no field", hint="write it as --field 'product: the product'")
    kind = found["type"] or "text"
    bare: Any = kind.rstrip("!?")
    if bare not in _ORDER:
        near = nearest(bare, _ORDER)
        hint = f"did you mean {near!r}?" if near else f"there are {name_some(_ORDER, len(_ORDER))}"
        raise UsageError(f"--field {text!r}: there is no type {bare!r}", hint=hint)
    if bare in ("category", "categories"):
        hint = f"write it as --category '{found['name']}=first,second,other'"
        raise UsageError(f"--field {text!r}: a {bare} needs choices", hint=hint)
    nullable = kind.endswith("?") or (not kind.endswith("!") and bare in _NULLABLE)
    definition = {"type": bare, "description": found["description"] or "", "nullable": nullable}
    return found["name"], FieldSpec.model_validate(definition)


def flag_category(text: str) -> tuple[str, FieldSpec]:
    """Read `NAME=CHOICE,CHOICE` or `NAME: DESCRIPTION=CHOICE,CHOICE`; `NAME[]` takes several of them.

    Raises:
        UsageError: it is neither.
    """
    start, equals, rest = text.partition("=")
    name, _, description = (part.strip() for part in start.partition(":"))
    choices = [choice.strip() for choice in rest.split(",") if choice.strip()]
    if not equals or not name or not choices:
        hint = "write it as --category 'team=billing,delivery,other'"
        raise UsageError(f"--category {text!r}: is no field with choices", hint=hint)
    folded = [choice.casefold() for choice in choices]
    twice = next((choice for choice in choices if folded.count(choice.casefold()) > 1), None)
    if twice:
        raise UsageError(f"--category {text!r}: has the choice {twice!r} twice", hint="remove one of them")
    kind: Any = "categories" if name.endswith("[]") else "category"
    definition = {"type": kind, "description": description, "choices": choices}
    return name.removesuffix("[]"), FieldSpec.model_validate(definition)


def read_cell(column: Column, cell: Any) -> Any:  # noqa: PLR0911 - one for each type
    """The value that a cell of a table holds for an own field, as the run had it."""
    if not isinstance(cell, str):
        return cell
    if cell == "":
        return None
    if cell[:1] == "'" and cell[1:2] in tuple("=+-@\t\r"):
        cell = cell[1:]
    match column.type:
        case "bool":
            return {"true": True, "false": False}.get(cell.strip().lower(), cell)
        case "int" | "number":
            try:
                return int(cell) if column.type == "int" else float(cell)
            except ValueError:
                return cell
        case "list" | "categories" | "model":
            if cell[:1] in "[{" or column.type == "model":
                try:
                    return json.loads(cell)
                except ValueError:
                    pass
            return cell.split(column.joint) if column.joint else cell
        case _:
            return cell
