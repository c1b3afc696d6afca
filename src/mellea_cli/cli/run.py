"""`mellea run`, and the pipeline of it and of `mellea summarise`: what is named, with the fields that flags add."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mellea_cli.cli.summarise import RunOptions, batch_command, run_pipeline
from mellea_cli.errors import ExitCode, InputError, UsageError, name_some, nearest

if TYPE_CHECKING:
    from mellea_cli.cli.batch_run import Input
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.pipeline_spec import FieldSpec, PipelineSpec


@batch_command(
    "run", pipeline=typer.Argument(metavar="PIPELINE", help="Pipeline file, single, steps, or MODULE:NAME in Python.")
)
def run(options: RunOptions) -> ExitCode:
    """Your own fields for each row of INPUT.

    A pipeline file defines fields, see docs/pipelines.md; mellea pipeline new writes a first one. The types of a field
    are text, category, categories, bool, int, number, date, quote and list. MODULE:NAME is a pydantic model or a
    Pipeline in a Python module. The same command again asks only for what is missing: a field that was added or
    reworded asks that field alone.
    """
    from mellea_cli.cli.batch_run import with_display

    pipeline = chosen_pipeline(options)
    return with_display(options, pipeline.name, partial(run_pipeline, options, pipeline))


def chosen_pipeline(options: RunOptions) -> Pipeline:
    """The pipeline that the flags ask for.

    Raises:
        InputError: the pipeline file cannot be read or used.
        UsageError: there is no such pipeline, or a flag does not fit it.
    """
    from mellea_cli.pipelines.default_prompts import PIPELINES
    from mellea_cli.pipelines.pipeline import Column

    extended = bool(options.field or options.category or options.labels or options.language)
    if not extended and not options.confidence and options.pipeline in PIPELINES:
        return PIPELINES[options.pipeline]
    from mellea_cli.pipelines.own_fields import own_pipeline, pipeline_of

    pipeline = pipeline_of(options.pipeline)
    if options.confidence:
        if not pipeline.reads_logprobs:
            raise UsageError(f"-p {options.pipeline} has no confidence", hint="use -p fast, or omit --confidence")
        pipeline = replace(pipeline, columns=(*pipeline.columns, Column("confidence", type="number")))
    if not extended:
        return pipeline
    if pipeline.reads_logprobs:
        raise UsageError(
            f"-p {options.pipeline} has fields of its own only",
            hint="omit --field, --category, --labels and --language, or use -p single",
        )
    spec = _spec(pipeline, options)
    return own_pipeline(_with_flags(spec, options), pipeline.name)


def _spec(pipeline: Pipeline, options: RunOptions) -> PipelineSpec:
    from mellea_cli.pipelines.default_prompts import PIPELINES
    from mellea_cli.pipelines.pipeline_spec import PipelineSpec

    if pipeline.name in PIPELINES and pipeline.source is None:
        return PipelineSpec.model_validate({"extends": pipeline.name})
    if isinstance(pipeline.source, PipelineSpec):
        return pipeline.source
    raise UsageError(
        f"{options.pipeline} is made in Python, and flags cannot add fields to it",
        hint="add them there, or omit --field, --category, --labels and --language",
    )


def _with_flags(spec: PipelineSpec, options: RunOptions) -> PipelineSpec:
    from mellea_cli.pipelines.own_fields import flag_category, flag_field
    from mellea_cli.pipelines.pipeline_spec import StepSpec

    added: dict[str, FieldSpec] = {}
    flags: dict[str, str] = {}
    for flag, texts, read in (
        ("--field", options.field, flag_field),
        ("--category", options.category, flag_category),
    ):
        for text in texts or ():
            name, field = read(text)
            if name in added or name in spec.fields:
                raise UsageError(f"{flag} {text!r}: there is a field {name!r} already", hint="choose another name")
            added[name] = field
            flags[name] = f"{flag} {text!r}"
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
        where = (
            flags.get(name, "") if start == "fields" else {"labels": "--labels", "language": "--language"}.get(start)
        )
        raise UsageError(f"{where}: {first.message}" if where else first.message, hint=first.hint)
    return extended


def _labels(text: str, spec: PipelineSpec) -> dict[str, str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--labels: has {twice!r} twice", hint="remove one of them")
    return {name: spec.labels.get(name, "") for name in names}


def check_columns(pipeline: Pipeline, opened: Input, options: RunOptions) -> None:
    """Refuse own fields with the names of input columns, and prompts that show columns that the input does not have.

    Raises:
        InputError: the pipeline file names such a column.
        UsageError: a flag or a Python object does.
    """
    if opened.scan is None or not pipeline.units:
        return
    columns = {name.casefold(): name for name in opened.scan.columns}
    for name in (column.name for column in pipeline.columns if column.type):
        if (taken := columns.get(name.casefold())) is not None:
            message = f"the field {name!r} has the name of the input's column {taken!r}"
            raise _at(options, ("fields", name), message, "choose another name for the field")
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
