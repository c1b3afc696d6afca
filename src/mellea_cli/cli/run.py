"""`mellea run`, and the pipeline of it and of `mellea summarise`: what is named, with the fields that flags add."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mellea_cli.cli.summarise import RunOptions, batch_command, complete_pipeline
from mellea_cli.errors import ExitCode, InputError, UsageError, name_some, nearest

if TYPE_CHECKING:
    from mellea_cli.cli.batch_run import Input
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.pipeline_spec import FieldSpec, PipelineSpec


@batch_command(
    "run",
    pipeline=typer.Argument(
        metavar="PIPELINE",
        help="Pipeline file, single, steps, or MODULE:NAME in Python.",
        autocompletion=complete_pipeline,
    ),
)
def run(options: RunOptions) -> ExitCode:
    """Your own fields for each row of INPUT.

    A pipeline file defines fields, see docs/pipelines.md; mellea pipeline new writes a first one. The types of a field
    are text, category, categories, bool, int, number, date, quote and list. MODULE:NAME is a pydantic model or a
    Pipeline in a Python module. The same command again asks only for what is missing: a field that was added or
    reworded asks that field alone.
    """
    from mellea_cli.cli.batch_run import run_inputs

    return run_inputs(options, chosen_pipeline(options))


def chosen_pipeline(options: RunOptions) -> Pipeline:
    """The pipeline that the flags ask for."""
    from mellea_cli.pipelines.default_prompts import PIPELINES

    extended = bool(options.field or options.category or options.labels or options.language)
    confident = options.confidence or options.second_reading
    if not (extended or confident or options.examples_from) and options.pipeline in PIPELINES:
        return PIPELINES[options.pipeline]
    from mellea_cli.pipelines.own_fields import own_pipeline, pipeline_of

    pipeline = pipeline_of(options.pipeline)
    changed = extended or options.examples_from
    if changed and pipeline.reads_logprobs:
        raise UsageError(
            f"-p {options.pipeline} has fields of its own only",
            hint="omit --field, --category, --labels, --language and --examples-from, or use -p single",
        )
    if changed:
        spec = _spec(pipeline, options)
        if extended:
            spec = _with_flags(spec, options)
        if options.examples_from:
            spec = _with_examples(spec, options.examples_from)
        pipeline = own_pipeline(spec, pipeline.name)
    return _confident(pipeline, options.pipeline, options.second_reading) if confident else pipeline


def _confident(pipeline: Pipeline, name: str, read_twice: float) -> Pipeline:
    from mellea_cli.pipelines.confidence import with_confidence

    if read_twice and pipeline.reads_logprobs:
        raise UsageError(f"-p {name} has a confidence without --second-reading", hint="use --confidence")
    if (found := with_confidence(pipeline, read_twice)) is None:
        raise UsageError(
            f"-p {name} has no field with choices, so it has no confidence",
            hint="add one with --category, or omit --confidence",
        )
    return found


def _spec(pipeline: Pipeline, options: RunOptions) -> PipelineSpec:
    from mellea_cli.pipelines.default_prompts import PIPELINES
    from mellea_cli.pipelines.pipeline_spec import PipelineSpec

    if pipeline.name in PIPELINES and pipeline.source is None:
        return PipelineSpec.model_validate({"extends": pipeline.name})
    if isinstance(pipeline.source, PipelineSpec):
        return pipeline.source
    raise UsageError(
        f"{options.pipeline} is made in Python, and flags cannot add fields to it",
        hint="add them there, or omit --field, --category, --labels, --language and --examples-from",
    )


def _with_flags(spec: PipelineSpec, options: RunOptions) -> PipelineSpec:
    from mellea_cli.pipelines.own_fields import flag_category, flag_field
    from mellea_cli.pipelines.pipeline_spec import StepSpec

    added: dict[str, FieldSpec] = {}
    flags: dict[str, tuple[str, str]] = {}
    for flag, texts, read in (("--field", options.field, flag_field), ("--category", options.category, flag_category)):
        for text in texts or ():
            name, field = read(text)
            if name in added or name in spec.fields:
                raise UsageError(f"{flag} {text!r}: there is a field {name!r} already", hint="choose another name")
            added[name] = field
            flags[name] = flag, text
    changed: dict[str, Any] = {"fields": {**spec.fields, **added}}
    if spec.steps and added:
        changed["steps"] = [*spec.steps, StepSpec.model_validate({"name": "flags", "fields": list(added)})]
    if options.language:
        changed["language"] = options.language
    if options.labels:
        changed["labels"] = _labels(options.labels, spec)
    # Worked examples of a file say nothing about the fields that flags add, so they are not shown to these.
    extended: PipelineSpec = spec.model_copy(update=changed)
    problems = [one for one in extended.problems() if one.path[:1] != ("examples",)]
    if problems:
        first = problems[0]
        start, name = (*map(str, first.path), "", "")[:2]
        if start == "fields" and name in flags:
            flag, text = flags[name]
            raise UsageError(f"{flag} {text!r}: {first.message}", hint=_flag_hint(first.hint, flag, text, name))
        where = {"labels": "--labels", "language": "--language"}.get(start)
        raise UsageError(f"{where}: {first.message}" if where else first.message, hint=first.hint)
    if options.labels and extended.undefined_labels and not options.quiet:
        from mellea_cli.ui.console import say

        shown = ",".join(f"{name}=if …" for name in extended.undefined_labels[:2])
        say(sys.stderr, f"--labels: {undefined_note(extended.undefined_labels)}; write --labels '{shown},…'")
    return extended


def _flag_hint(hint: str, flag: str, text: str, name: str) -> str:
    """The hint of a pipeline file's field, for a field on the command line."""
    if found := re.fullmatch(r"write \[fields\.(\w+)\]", hint):
        return f"write {flag} {text.replace(name, found[1], 1)!r}"
    if hint.startswith("add choices"):
        return f"write {flag} '{name}=billing,delivery,other'"
    return hint.removesuffix(", or remove extends")


def undefined_note(names: Sequence[str]) -> str:
    """What is to be known about labels without a definition."""
    verb, it = ("has", "it means") if len(names) == 1 else ("have", "they mean")
    return f"{name_some(names, 12)} {verb} no definition, so the model guesses what {it}"


def _with_examples(spec: PipelineSpec, name: str) -> PipelineSpec:
    """The pipeline with the most telling rows of a corrections file as further worked examples."""
    from dataclasses import replace

    from mellea_cli.io.corrections import Corrections, read_lines, reviewed_rows, teaching_rows
    from mellea_cli.pipelines.pipeline_spec import ExampleSpec

    names = [*spec.fields, *spec.built_in_fields]
    judged = reviewed_rows(Corrections(read_lines(Path(name), must_exist=True)), names)
    if not judged:
        message = f"in no row are all fields judged: {name_some(names, 12)}"
        raise InputError(message, path=name, hint="judge some rows: mellea review OUT")
    rows = [replace(row, values=values) for row in judged if (values := _coherent(row.values)) is not None]
    # A person may type what the model must not answer.
    rows = [
        row for row in rows if not any(field.problem(row.values[one], row.text) for one, field in spec.fields.items())
    ]
    labelled = [one for one, field in spec.fields.items() if field.type in ("category", "bool")]
    chosen = teaching_rows(rows, "sentiment" if spec.extends else next(iter(labelled), ""))
    if not chosen:
        message = "the model was right in every row, so there is nothing to show to it"
        if rows != judged and not rows:
            message = "no row is complete: a positive row needs praise, a negative one a complaint, a mixed one both"
        raise InputError(message, path=name, hint="review more rows, or omit --examples-from")
    added = [ExampleSpec(text=row.text, answer=dict(row.values)) for row in chosen]
    extended: PipelineSpec = spec.model_copy(update={"examples": [*spec.examples, *added]})
    return extended


def _coherent(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The built-in fields of a row so that they do not contradict each other; `None` where one is missing.

    A person who changes the sentiment often leaves complaint and praise as they were, and the sentiment follows from
    these.
    """
    changed = dict(values)
    if "sentiment" not in values or "summary" not in values:
        return changed
    label, needs = values["sentiment"], ("positive_aspect", "main_complaint")
    wanted = {"positive": needs[:1], "negative": needs[1:], "mixed": needs}.get(str(label), ())
    if not label or not values["summary"] or not all(values.get(name) for name in wanted):
        return None
    changed |= {name: None for name in needs if name not in wanted}
    changed["urgency"] = "low" if label == "positive" else values.get("urgency") or "medium"
    return changed


def _labels(text: str, spec: PipelineSpec) -> dict[str, str]:
    defined = [[part.strip() for part in one.partition("=")] for one in text.split(",") if one.strip()]
    names = [name for name, _, _ in defined]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--labels: has {twice!r} twice", hint="remove one of them")
    return {name: definition or spec.labels.get(name, "") for name, _, definition in defined}


def check_columns(pipeline: Pipeline, opened: Input, options: RunOptions) -> None:
    """Refuse own fields with the names of input columns, and prompts that show columns that the input does not have."""
    if opened.scan is None or not pipeline.units:
        return
    from mellea_cli.pipelines.confidence import confidence_columns

    columns = {name.casefold(): name for name in opened.scan.columns}
    own = [column.name for column in pipeline.columns if column.type]
    for name in own:
        if (taken := columns.get(name.casefold())) is not None:
            message = f"the field {name!r} has the name of the input's column {taken!r}"
            hint = "choose another name for the field"
            if name in confidence_columns(own):
                hint = "rename the column of the input, or omit --confidence"
            raise _at(options, ("fields", name), message, hint)
    for name in pipeline.inputs:
        if name not in opened.scan.columns:
            near = nearest(name, opened.scan.columns)
            hint = f"did you mean row.{near}?" if near else f"the input has {name_some(opened.scan.columns)}"
            raise _at(options, ("steps",), f"a prompt shows row.{name}, and the input has no such column", hint)


def _at(options: RunOptions, keys: tuple[str, ...], message: str, hint: str) -> InputError | UsageError:
    """The error at a line of the pipeline file, where the pipeline is one."""
    from mellea_cli.pipelines.pipeline_spec import line_of

    path = Path(options.pipeline)
    if path.suffix != ".toml" or (line := line_of(path, keys)) is None:
        return UsageError(message, hint=hint)
    return InputError(message, path=options.pipeline, line=line, hint=hint)
