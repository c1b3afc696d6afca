"""`mellea pipeline`: write, check, show and try a pipeline file."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.app import SectionedCommand, command_group
from mellea_cli.cli.flags import (
    FORMATS,
    INPUT,
    MODEL,
    OUTPUT,
    RUN,
    SAFETY,
    AllowHttpFlag,
    BackendFlag,
    JsonFlag,
    KeyFileFlag,
    LocalOnlyFlag,
    ModelFlag,
    PullFlag,
    ThinkingLevel,
    option,
    options_command,
    typed_flags,
    write_json,
)
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import ExitCode, OutputError, UsageError, nearest

if TYPE_CHECKING:
    from mellea_cli.cli.backend_setup import ModelChoice
    from mellea_cli.cli.batch_run import Input
    from mellea_cli.events import Event
    from mellea_cli.io.journal import Journal
    from mellea_cli.items import Item, Outcome, Row
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.pipeline_spec import PipelineSpec, Problem
    from mellea_cli.run.batch import RunResult
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.pipeline_view import ShownStep, TriedRow
    from mellea_cli.ui.run_display import RunDisplay

pipeline_app = command_group(
    "Write, check, show and try a pipeline file: your own fields.", epilog="docs/pipelines.md has every key."
)

_STARTER = "starter"
_File = Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline file.", show_default=False)]

TEMPLATES: Mapping[str, str] = {
    "nps-reasons": "reasons for a score from 0 to 10",
    "app-reviews": "kind of a review in an app store, and the device",
    "support-tickets": "which team answers, whether money is asked back, what is wanted",
    "employee-survey": "topic and mood of answers to an employee survey",
    "product-reviews": "polarity per aspect: quality, price, delivery, service",
    "bug-reports": "kind and impact of a fault, version and steps",
}
"""The templates that ship, with what they ask."""


def template_path(name: str) -> Path:
    """The file of a template."""
    if name not in TEMPLATES and name != _STARTER:
        near = next((one for one in TEMPLATES if name and one.startswith(name)), "") or nearest(name, TEMPLATES)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(TEMPLATES)}"
        raise UsageError(f"there is no template {name!r}", hint=hint)
    import mellea_cli.pipelines

    return Path(mellea_cli.pipelines.__file__).with_name("templates") / f"{name}.toml"


@pipeline_app.command("new", cls=SectionedCommand)
def new_pipeline(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help=f"A template: {', '.join(TEMPLATES)} (default: a starter with comments).",
            autocompletion=lambda incomplete: [one for one in TEMPLATES if one.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The file to write; - for stdout.")
    ] = "-",
    as_json: JsonFlag = False,
) -> None:
    """Write a pipeline file to start from."""
    from mellea_cli.io.files import AtomicFile
    from mellea_cli.ui.console import say

    text = template_path(name or _STARTER).read_text(encoding="utf-8")
    if output == "-":
        if as_json:
            write_json({"template": name or _STARTER, "file": None, "text": text})
        else:
            typer.echo(text, nl=False)
        return
    path = Path(output)
    if path.is_dir():
        raise OutputError(f"{path}: is a directory", hint="name a file inside it")
    try:
        with AtomicFile(path, output) as file:
            file.write(text.encode())
            file.commit(overwrite=False)
    except FileExistsError as error:
        raise UsageError(f"{path}: exists already", hint="choose another name for -o") from error
    if as_json:
        write_json({"template": name or _STARTER, "file": output})
        return
    shown = shlex.quote(output)
    say(sys.stderr, f"{output} is written; edit it, then: mellea pipeline try {shown} INPUT")


@pipeline_app.command("check", cls=SectionedCommand)
def check_pipelines(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Say what is wrong in pipeline files.

    One line for each problem, with file and line; the exit code is 2 if there is any.
    """
    from mellea_cli.pipelines.pipeline_spec import check_pipeline, line_of
    from mellea_cli.ui.console import clean

    code = ExitCode.OK
    for path in files:
        spec, problems = check_pipeline(path)
        if problems:
            code = ExitCode.USAGE
        if as_json:
            write_json(_check_record(path, spec, problems))
            continue
        for problem in problems:
            place = f"{path}:{problem.line}" if problem.line else f"{path}"
            typer.echo(clean(f"{place}: {problem.message}{f'; {problem.hint}' if problem.hint else ''}"))
        if spec is not None and not problems:
            typer.echo(clean(f"{path}: {_described(spec)}"))
            for note in _notes(spec):
                typer.echo(clean(f"{path}:{line_of(path, ('labels',))}: note: {note}"))
    raise typer.Exit(code)


def _check_record(path: Path, spec: "PipelineSpec | None", problems: "Sequence[Problem]") -> dict[str, Any]:
    said = [{"line": one.line, "key": one.place, "message": one.message, "hint": one.hint} for one in problems]
    fields = {name: one.type for name, one in spec.fields.items()} if spec else {}
    notes = _notes(spec) if spec else []
    return {"file": str(path), "ok": not problems, "problems": said, "notes": notes, "fields": fields}


def _notes(spec: "PipelineSpec") -> list[str]:
    """What is no problem, but makes answers worse."""
    from mellea_cli.cli.run import undefined_note

    if not spec.extends or not (names := spec.undefined_labels):
        return []
    return [f'{undefined_note(names)}; write labels = {{ {json.dumps(names[0])} = "if …", … }}']


def _described(spec: "PipelineSpec") -> str:
    from mellea_cli.ui.console import plural

    fields = [f"{name} ({one.type})" for name, one in spec.fields.items()]
    parts = [f"extends {spec.extends}"] if spec.extends else []
    parts += [f"{plural(len(fields), 'field')}: {', '.join(fields)}"] if fields else []
    parts += [plural(len(spec.steps), "step")] if spec.steps else []
    parts += [plural(len(spec.examples), "example")] if spec.examples else []
    return "; ".join(parts)


@pipeline_app.command("show", cls=SectionedCommand)
def show_pipeline(file: _File, as_json: JsonFlag = False) -> None:
    """Show what is sent for a row.

    The prompt, the worked examples and the schema of each step, and the columns that are added.
    """
    from mellea_cli.pipelines.own_fields import own_pipeline
    from mellea_cli.pipelines.pipeline_spec import load_pipeline
    from mellea_cli.ui.pipeline_view import print_lines, step_lines

    spec = load_pipeline(file)
    pipeline = own_pipeline(spec, file.stem)
    steps = _shown_steps(spec, pipeline)
    columns = {column.name: list(column.parts) for column in pipeline.columns}
    if as_json:
        told = [
            {
                "name": step.name,
                "messages": [{"role": one.role, "content": one.content} for one in step.shared],
                "row": step.row,
                "schema": step.schema,
                "notes": list(step.notes),
            }
            for step in steps
        ]
        write_json({"columns": columns, "steps": told})
        return
    named = [f"{name} ({', '.join(parts)})" if parts else name for name, parts in columns.items()]
    print_lines(
        lambda width, palette: [
            (("label", "columns "), ("plain", palette.safe(", ".join(named)))),
            (),
            *step_lines(steps, width, palette),
        ],
        sys.stdout,
        os.environ,
    )


class _Placeholders(dict[str, str]):
    """Stands for the values of a row that is not there."""

    def __missing__(self, name: str) -> str:
        return f"({name})"


def _shown_steps(spec: "PipelineSpec", pipeline: "Pipeline") -> "list[ShownStep]":
    from mellea_cli.errors import TemplateError
    from mellea_cli.pipelines.pipeline import render
    from mellea_cli.ui.pipeline_view import ShownStep

    names = [*spec.fields, *spec.built_in_fields, *pipeline.step_names]
    variables = {**{name: f"({name})" for name in names}, "text": "(the row's text)", "row": _Placeholders()}
    conditions = {step.name: step.when for step in spec.steps if step.when}
    shown = []
    for step in pipeline.steps:
        try:
            row = render(step.prompt.template, variables)
        except TemplateError:  # a condition in the template that a placeholder does not fit
            row = step.prompt.template
        notes = [f"needs {', '.join(step.needs)}"] if step.needs else []
        notes += [f"when {conditions[step.name]}"] if step.name in conditions else []
        shown.append(ShownStep(step.name, step.prompt.prefix, row, step.output.schema, notes))
    return shown


@dataclass(frozen=True, slots=True)
class TryFlags:
    """The flags of `mellea pipeline try`."""

    file: _File
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="A table: JSONL, CSV, XLSX, Parquet, …", show_default=False)
    ]
    rows: Annotated[int, option(INPUT, "How many rows.", "-n", "--rows", min=1, max=200, env=False)] = 5
    sample: Annotated[bool, option(INPUT, "Rows chosen at random instead of the first ones.", env=False)] = False
    seed: Annotated[int, option(INPUT, "Seed of --sample.", env=False)] = 0
    format: Annotated[str | None, option(INPUT, "Input format, if its suffix does not tell.", "-f", **FORMATS)] = None
    text_field: Annotated[list[str] | None, option(INPUT, "Column with the text. Repeatable.", metavar="NAME")] = None
    id_field: Annotated[str | None, option(INPUT, "Column with the id (default: id).")] = None
    fresh: Annotated[bool, option(RUN, "Ask everything again.", env=False)] = False
    model: ModelFlag = None
    backend: BackendFlag = "auto"
    base_url: Annotated[str | None, option(MODEL, "Server address; its key: OPENAI_API_KEY.", metavar="URL")] = None
    key_file: KeyFileFlag = None
    temperature: Annotated[float, option(MODEL, "0: always the most likely answer.", "-t", min=0.0, max=2.0)] = 0.0
    thinking: Annotated[ThinkingLevel | None, option(MODEL, "How much a reasoning model reasons first.")] = None
    pull: PullFlag = False
    redact: Annotated[bool, option(SAFETY, "Mask e-mail, phone, card and IBAN numbers in what is sent.")] = False
    forget: Annotated[
        bool, option(SAFETY, "Delete the answers of this file's tries at the end, not after 7 days.", env=False)
    ] = False
    local_only: LocalOnlyFlag = False
    allow_http: AllowHttpFlag = False
    json: Annotated[bool, option(OUTPUT, "One line of JSON for each row on stdout.", env=False)] = False

    @property
    def run_options(self) -> RunOptions:
        """The flags of the run over these rows."""
        shared = {one.name for one in dataclasses.fields(RunOptions)}
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name in shared}
        values |= {"inputs": [self.input], "base_url": [self.base_url] if self.base_url else None}
        values |= {"limit": None, "sample": self.rows} if self.sample else {"limit": self.rows, "sample": None}
        return RunOptions(**{**values, "pipeline": str(self.file), "quiet": self.json, "json": False})


@pipeline_app.command("try", cls=SectionedCommand)
@options_command(TryFlags, "try")
def try_pipeline(flags: TryFlags) -> ExitCode:
    """Ask about a few rows and show the answers.

    Text, prompt, answers and repairs stand side by side. Answers are kept for 7 days: after an edit, only
    what has changed is asked.
    """
    from mellea_cli.cli.batch_run import with_display
    from mellea_cli.pipelines.own_fields import own_pipeline
    from mellea_cli.pipelines.pipeline_spec import load_pipeline

    spec = load_pipeline(flags.file)
    pipeline = own_pipeline(spec, flags.file.stem)
    return with_display(flags.run_options, pipeline.name, lambda show: _Try(flags, spec, pipeline, show).run())


@dataclass
class _Try:
    flags: TryFlags
    spec: "PipelineSpec"
    pipeline: "Pipeline"
    show: "RunDisplay"
    repairs: dict[int, list[str]] = field(default_factory=dict)
    reused: set[int] = field(default_factory=set)
    outcomes: "dict[int, tuple[Item, Outcome]]" = field(default_factory=dict)

    def run(self) -> ExitCode:
        from mellea_cli.cli import batch_run
        from mellea_cli.cli.backend_setup import choose_for_run, ensure_model
        from mellea_cli.cli.run import check_columns

        options = self.flags.run_options
        if options.input == "-":
            raise UsageError(
                "rows to try are read again and again, and a pipe can be read only once", hint="name a file"
            )
        with ExitStack() as stack:
            opened = stack.enter_context(batch_run.open_input(options, self.show))
            check_columns(self.pipeline, opened, options)
            journal = stack.enter_context(_open_answers(self.flags))
            chosen = choose_for_run(options)
            for line in (chosen.reason, chosen.warning):
                self.show.say(line)
            plan = batch_run.run_plan(options, chosen, self.pipeline, opened.longest)
            ensure_model(chosen, options, self.show.say)
            result = batch_run.run_on_loop(self._ask(options, chosen, plan, opened, journal))
        if result.error is not None and not self.outcomes:
            raise result.error
        self._print(result)
        return result.exit_code

    async def _ask(
        self, options: RunOptions, chosen: "ModelChoice", plan: "RunPlan", opened: "Input", journal: "Journal"
    ) -> "RunResult":
        from mellea_cli.cli.backend_setup import open_servers, start_at_server_slots
        from mellea_cli.cli.dry_run import NoRows
        from mellea_cli.engine.workers import Stop
        from mellea_cli.events import Fanout
        from mellea_cli.run.answer_cache import forecast
        from mellea_cli.run.batch import RunIO, run_batch

        stop = Stop(self.show.say)
        run_io = RunIO(opened.source, NoRows(), self._take, journal, opened.total, can_sweep=True)

        def nothing_to_ask() -> bool:
            return not forecast(opened.source.reread(), plan, journal).asks(retry_failed=True)

        async with open_servers(options, chosen, plan.prefixes, self.show, nothing_to_ask) as servers:
            plan = await start_at_server_slots(plan, servers)
            observer = Fanout(self._watch, self.show.begin())
            with stop.on_signals():
                result = await run_batch(plan, servers, run_io, observer=observer, stop=stop)
        self.show.stop()
        return result

    def _watch(self, event: "Event") -> None:
        from mellea_cli.events import AttemptFailed, ItemFinished

        match event:
            case AttemptFailed():
                self.repairs.setdefault(event.position, []).append(event.message)
            case ItemFinished(reused=True):
                self.reused.add(event.position)

    def _take(self, item: "Item", outcome: "Outcome") -> "Row":
        from mellea_cli.items import Row

        self.outcomes[item.position] = (item, outcome)
        return Row(item, {})

    def _print(self, result: "RunResult") -> None:
        from mellea_cli.ui.console import duration, plural
        from mellea_cli.ui.pipeline_view import print_lines, system_lines, try_lines

        rows = [self._row(position) for position in sorted(self.outcomes)]
        if self.flags.json:
            for row in rows:
                typer.echo(json.dumps(dataclasses.asdict(row), ensure_ascii=False, default=str))
            return
        steps = _shown_steps(self.spec, self.pipeline)
        print_lines(
            lambda width, palette: [*system_lines(steps, width, palette), *try_lines(rows, width, palette)],
            sys.stdout,
            os.environ,
        )
        asked = [row for row in rows if row.asked]
        repaired = sum(bool(row.repairs) for row in rows)
        parts = [f"{plural(len(asked), 'row')} asked with {plural(result.tally.calls, 'call')}"] if asked else []
        parts += [f"{plural(len(rows) - len(asked), 'row')} remembered"] if len(asked) < len(rows) else []
        parts += [f"{repaired} repaired"] if repaired else []
        parts += [f"{result.tally.failed} failed"] if result.tally.failed else []
        self.show.say(f"{', '.join(parts)}; {duration(result.elapsed_s)}")
        file = str(self.flags.file)
        # Two lines: one would be longer than a usual terminal is wide.
        self.show.say(f"edit {shlex.quote(file)} and try again: only what has changed is asked")
        # A run over all rows has the same flags but those that choose the rows of a try.
        names = {one.name for one in dataclasses.fields(RunOptions)} - {"fresh", "json", "sample", "seed"}
        how = typed_flags(self.flags, names)
        self.show.say(f"all rows: {shlex.join(['mellea', 'run', file, self.flags.input, *how])} -o OUT")

    def _row(self, position: int) -> "TriedRow":
        from mellea_cli.engine.pipeline_runner import variables
        from mellea_cli.items import Success
        from mellea_cli.pipelines.pipeline import fence, render
        from mellea_cli.pipelines.redact import redact
        from mellea_cli.ui.pipeline_view import TriedRow

        item, outcome = self.outcomes[position]
        mask = redact if self.flags.redact else str
        answered = outcome.values if isinstance(outcome, Success) else outcome.answered or {}
        known = variables(self.pipeline, replace(item, known=answered), mask)
        prompts: dict[str, str] = {}
        for step in self.pipeline.steps:
            if answered and (step.when is None or step.when(known)):
                prompt = render(step.prompt.template, known)
                prompts |= {step.name: prompt} if prompt != fence(mask(item.text)) or self.flags.json else {}
        asked = tuple(getattr(outcome, "asked", ())) or tuple(column.name for column in self.pipeline.columns)
        return TriedRow(
            id=str(item.id),
            text=mask(item.text),
            prompts=prompts,
            answers=dict(answered),
            asked=() if position in self.reused or not item.text.strip() else asked,
            repairs=self.repairs.get(position, []),
            error="" if isinstance(outcome, Success) else outcome.message,
        )


@contextmanager
def _open_answers(flags: TryFlags) -> "Iterator[Journal]":
    """The journal of a pipeline file's tries, in the user's state folder."""
    import hashlib
    import shutil
    from contextlib import closing

    from mellea_cli.io.files import OutputLock
    from mellea_cli.models.store import default_root
    from mellea_cli.run.control import state_folder

    folder = state_folder().with_name("tries")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Answers hold words of the feedback, so they stay for a few days only.
    shutil.rmtree(default_root().with_name("tries"), ignore_errors=True)  # where earlier versions kept them for good
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()
    name = hashlib.blake2b(os.path.realpath(flags.file).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    path = folder / f"{name}.journal"
    with OutputLock(path.with_suffix(".lock"), f"the answers of {flags.file}"):
        try:
            with closing(_open(path, flags)) as journal:
                os.utime(path)
                yield journal
        finally:
            for left in folder.glob(f"{name}.journal*") if flags.forget else ():
                left.unlink(missing_ok=True)


_KEPT_S = 7 * 24 * 3600
_MOST_BYTES = 20_000_000


def _open(path: Path, flags: TryFlags) -> "Journal":
    from mellea_cli.io.journal import Journal

    too_large = path.exists() and path.stat().st_size > _MOST_BYTES
    try:
        return Journal.open(path, fresh=flags.fresh or too_large)
    except OutputError:
        # It only spares questions: a damaged one is no reason to stop.
        return Journal.open(path, fresh=True)
