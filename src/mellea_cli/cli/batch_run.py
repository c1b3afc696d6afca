"""What the batch commands share: the files, the plan, the summary and the event loop of a run."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from mellea_cli.cli.backend_setup import ModelChoice, confirmed, connections, model_identity
from mellea_cli.cli.flags import source_options, typed_command
from mellea_cli.cli.offload import refuse_to_forget_jobs
from mellea_cli.cli.summarise import RunOptions, run_pipeline
from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode, InputError, MelleaError, OutputError, ReaderGone, UsageError, name_some
from mellea_cli.io.batch_jobs import is_custom_id
from mellea_cli.io.byte_input import split_part
from mellea_cli.io.columns import ID_COLUMN, listed
from mellea_cli.io.corrections import CorrectionsFile, corrections_path
from mellea_cli.io.files import OutputLock, OutputTarget, output_error, resolve_output, same_file
from mellea_cli.io.formats import DATABASES, format_of_name, known_format, output_format
from mellea_cli.io.journal import Journal, MemoryAnswers, remove_journal
from mellea_cli.io.sink import OrderedSink, SinkOptions, open_dead_letters, open_sink
from mellea_cli.io.source import InputScan, Source, open_source
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Success
from mellea_cli.messages import Options
from mellea_cli.pipelines.confidence import confidence_columns, for_model
from mellea_cli.pipelines.pipeline import Column, Pipeline
from mellea_cli.report.figures import with_interval
from mellea_cli.report.intervals import share_interval
from mellea_cli.report.results import CHOICES, OWN_FIELDS, SAMPLE, corrected_rows
from mellea_cli.run.answer_cache import NearDuplicates, forecast
from mellea_cli.run.batch import RunIO, RunResult
from mellea_cli.run.batch_queue import BATCH_PRICE
from mellea_cli.run.control import RunControl, new_record
from mellea_cli.run.earlier_output import (
    EarlierOutput,
    EditedRows,
    OutputForm,
    Reviewed,
    file_digest,
    foreign_rows,
    read_earlier,
)
from mellea_cli.run.estimate import price_of_run
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.row_model import Audit, AuditFigures, LearnedFields, RowLearner, audit_share, require_scikit_learn
from mellea_cli.ui.console import plural, say, say_error
from mellea_cli.ui.run_display import DisplayOptions, RunDisplay
from mellea_cli.ui.summary import RunSummary, ThemeCounts

T = TypeVar("T")

# The embedded model answers one item alone before it takes several at once, so that the first answer appears as early
# as with one slot. This is the time for it, with loading the model and reading the instructions.
_FIRST_ALONE_S = 60.0


def with_display(options: RunOptions, pipeline: str, work: Callable[[RunDisplay], ExitCode]) -> ExitCode:
    """Run `work` with a display; a nightly run that fails reports that in its last line, too."""
    look = DisplayOptions(
        quiet=options.quiet or options.nightly,
        verbose=options.verbose,
        # Log lines would tear the panels.
        live=options.live and not options.nightly and options.log_level is None,
        json=options.json or options.nightly,
        json_errors=options.json,
        title=Path(options.output).name if options.output != "-" else "stdout",
        bell=options.bell,
        summary_file=options.summary_file,
        log_file=options.log_file,
    )
    with RunDisplay(sys.stderr, os.environ, look) as show:
        try:
            return work(show)
        except ReaderGone:
            raise
        except MelleaError as error:
            if not options.nightly:
                raise
            show.error(error)
            show.end(
                RunSummary(
                    model=options.model or "",
                    backend=options.backend,
                    pipeline=pipeline,
                    output="" if options.output == "-" else options.output,
                    stopped=error.message,
                    exit_code=int(error.exit_code),
                )
            )
            return error.exit_code


_BYTES_PER_TOKEN = 3
"""A low mean, so that the estimate is high: English has 4, scripts of three bytes a character have 3 or more."""
_WINDOWS = (4_096, 8_192, 16_384, 32_768)
UNKNOWN_TEXT = 16_384  # Bytes of the longest text of a stream that are expected
_REPROMPT_TOKENS = 768


def context_window(pipeline: Pipeline, longest: int | None, max_tokens: int | None, rows: int = 1) -> int:
    """Tokens of context for texts of up to `longest` bytes, `None` for unknown: one of few sizes, at most 32,768."""
    needed = 0
    for step in pipeline.steps:
        prompt = sum(len(message.content) for message in step.prompt.prefix) + len(step.prompt.template)
        read = (prompt + rows * (UNKNOWN_TEXT if longest is None else longest)) // _BYTES_PER_TOKEN
        needed = max(needed, read + rows * (max_tokens or step.max_tokens) + _REPROMPT_TOKENS)
    return next((window for window in _WINDOWS if window >= needed), _WINDOWS[-1])


def run_plan(options: RunOptions, chosen: ModelChoice, pipeline: Pipeline, longest: int | None = None) -> RunPlan:
    """Everything decided before the first request of a run of `pipeline`; `longest` as for `context_window`."""
    pipeline = for_model(pipeline, chosen.backend, chosen.model)
    # For an extension's executor or a pool, the address is not that of one provider.
    url = options.server_url if chosen.pool is None else "http://localhost"
    prices = price_of_run(options.caps().prices, chosen.backend, chosen.model, url, options.max_cost)
    # An Ollama loads the model again for another window: the whole run has one.
    rows = options.rows_per_call
    window = context_window(pipeline, longest, options.max_tokens, rows) if chosen.backend == "ollama" else None
    return RunPlan(
        pipeline=pipeline,
        backend=chosen.backend,
        model=chosen.model,
        identity=model_identity(chosen.backend, chosen.model),
        options=Options(
            temperature=options.temperature,
            seed=options.model_seed,
            thinking=options.thinking_for(chosen.backend),
            keeps_thinking=options.thinking == "default",
            max_tokens=options.max_tokens,
            context_window=window,
        ),
        concurrency=chosen.concurrency,
        start=chosen.start,
        dedupe=options.dedupe,
        # A quote is verbatim from its own row, so its text is not that of another row.
        normalise=options.dedupe and options.normalise and not any(one.type == "quote" for one in pipeline.columns),
        near=NearDuplicates() if options.near_duplicates else None,
        policy=RetryPolicy(max_retries=options.max_retries, retry_after_cap_s=options.max_wait),
        deadlines=Deadlines(options.first_token_timeout or options.timeout, options.stall_timeout, options.timeout),
        max_wait_s=options.max_wait,
        grace_s=options.grace,
        rpm=options.rpm,
        tpm=options.tpm,
        caps=options.caps(prices=prices),
        redacted=options.redact,
        first_alone_s=_FIRST_ALONE_S if chosen.backend == "local" else 0.0,
        rows_per_call=rows,
    )


def learned_fields(options: RunOptions, pipeline: Pipeline) -> LearnedFields:
    """What rows have that a row model answers."""
    require_scikit_learn()
    wanted = [name.strip() for name in (options.learn_fields or "").split(",")]
    return LearnedFields.of(pipeline, [name for name in wanted if name])


def row_learner(target: float, fields: LearnedFields, plan: RunPlan, opened: Input) -> RowLearner:
    """What answers rows without the full reading, at an agreement with it of at least `target`."""
    return RowLearner(plan, fields, Audit(target, fields.names, audit_share(opened.total)))


# The files of a run.


def run_inputs(options: RunOptions, pipeline: Pipeline) -> ExitCode:
    """Run a pipeline over the inputs: into one output, or into one each with `--output-dir`."""
    if options.output_dir is None:
        return with_display(options, pipeline.name, lambda show: run_pipeline(options, pipeline, show))
    if options.output != "-":
        raise UsageError("-o and --output-dir do not go together", hint="omit one of them")
    worst = ExitCode.OK
    for one in runs_by_file(with_files(options)):
        code = run_file(one, pipeline)
        if code not in (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.USAGE):
            return code
        worst = worst or code
    return worst


def run_file(options: RunOptions, pipeline: Pipeline) -> ExitCode:
    """Run a pipeline over one of several inputs; an input that cannot be read is told, and ends only its own run."""
    if not options.quiet and not options.nightly:
        say(sys.stderr, f"{options.input}: to {options.output}")
    try:
        return with_display(options, pipeline.name, lambda show: run_pipeline(options, pipeline, show))
    except InputError as error:
        say_error(sys.stderr, os.environ, error.message, error.hint)
        return error.exit_code


def runs_by_file(options: RunOptions) -> Iterator[RunOptions]:
    """The options of a run for each input, with its output in the folder of `--output-dir`."""
    check_several_outputs(options)
    folder = Path(options.output_dir or ".")
    taken: dict[Path, str] = {}
    for path in options.inputs or ():
        if path == "-":
            raise InputError("standard input has no name for an output", path=path, hint="name files, or use -o")
        output = folder / output_name(path, options.output_format)
        if os.path.realpath(folder) == os.path.realpath(Path(split_part(path)[0]).parent):
            raise UsageError(f"{folder}: is the folder of the inputs", hint="choose another --output-dir")
        if (other := taken.setdefault(output, path)) != path:
            raise UsageError(f"{other} and {path}: both would be written to {output}", hint="rename one of them")
    make_folder(folder)
    for output, path in taken.items():
        yield replace(options, inputs=[path], output=str(output), output_dir=None, pattern=None)


def check_several_outputs(options: RunOptions) -> None:
    """Refuse a file that each of several outputs would replace."""
    for flag, name in (("--errors-file", options.errors_file), ("--export-batch", options.export_batch)):
        if name:
            raise UsageError(
                f"{flag} {name}: is one file, and each input has an output of its own",
                hint="omit it, or write one output with -o",
            )


def make_folder(folder: Path) -> None:
    """Make a folder for outputs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(str(folder), error) from error


_READ_ONLY_BOOKS = (".ods", ".xls", ".xlsm", ".xlsb")


def output_name(path: str, output_format: str | None) -> str:
    """The name of an input's output in a folder: the input's, with the suffix of a format that can be written."""
    file, part = split_part(path)
    name, form = Path(file).name, format_of_name(file)
    for suffix in (".gz", ".zst", ".zip"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    stem, suffix = (Path(name).stem, Path(name).suffix) if form else (name, "")
    if output_format:
        suffix = f".{output_format}"
    elif suffix.lower() in _READ_ONLY_BOOKS:
        suffix = ".xlsx"
    elif form is None or form in DATABASES:
        suffix = ".jsonl"
    return f"{stem}{f'-{part}' if part else ''}{suffix}".replace("/", "-")


_SIDE_FILES = (".journal", ".journal-wal", ".journal-shm", ".partial", ".lock", ".new", ".part", ".tmp", ".crdownload")


def folder_files(folder: Path, pattern: str | None, but: Sequence[Path] = ()) -> list[Path]:
    """The files of a folder that may be inputs, by name: those that fit the pattern, else every table."""
    others = {os.path.realpath(path) for path in but}
    return sorted(
        path
        for path in folder.glob(pattern or "*")
        if path.is_file()
        and not path.name.startswith((".", "~$"))
        and not path.name.endswith(_SIDE_FILES)
        and (pattern or format_of_name(path.name) or path.suffix.lower() == ".zip")
        and os.path.realpath(path) not in others
    )


def with_files(options: RunOptions) -> RunOptions:
    """The options with the files of each folder among the inputs in its place."""
    folders = [path for path in options.inputs or () if path not in ("", "-") and Path(path).is_dir()]
    if options.pattern and not folders:
        raise UsageError("--pattern is for folders", hint="name a folder, or omit it")
    if not folders:
        return options
    own = [Path(name) for name in (options.output, options.errors_file) if name and name != "-"]
    found: list[str] = []
    for path in options.inputs or ():
        if path not in folders:
            found.append(path)
            continue
        files = folder_files(Path(path), options.pattern, own)
        if not files:
            wanted = f"file that fits {options.pattern}" if options.pattern else "table"
            names = [one.name for one in sorted(Path(path).iterdir())]
            has = f"it has {name_some(names)}" if names else "it is empty"
            raise InputError(f"is a folder without a {wanted}", path=path, hint=has)
        found.extend(map(str, files))
    return replace(options, inputs=list(dict.fromkeys(found)), pattern=None)


def check_options(options: RunOptions) -> None:
    """Refuse options that cannot work, before anything is opened or downloaded."""
    options.caps()
    if not options.input:
        raise UsageError("no input was named, and stdin has no data", hint="name a file, or - for stdin")
    if options.input == "-" and sys.__stdin__ is None:
        raise InputError("standard input is closed", hint="name a file")
    if options.output == "-" and sys.__stdout__ is None:
        raise OutputError("standard output is closed", hint="name a file with -o")
    if options.no_lock and options.uses_batch_files:
        raise UsageError("batch files need a journal with locks", hint="choose a folder with locks with -o")
    if resolve_output(options.output).kind == "stdout":
        for name in options.inputs or ():
            if name != "-" and same_file("/dev/stdout", name):
                raise UsageError(f"{name}: is the input and standard output at once", hint="name another file with -o")
    roles: dict[str, str] = {}
    for role, path in _files(options):
        real = os.path.realpath(path)
        if (other := roles.setdefault(real, role)) != role:
            raise UsageError(f"{path}: is {other} and {role} at once", hint="choose another file for one of them")
    if options.summary_file:
        _check_writable(Path(options.summary_file))
    if not options.overwrite:
        _check_one_line_files(options)


def _files(options: RunOptions) -> Iterator[tuple[str, Path]]:
    """Every file of the run with its role in messages."""
    inputs = [name for name in options.inputs or () if name != "-"]
    yield from (("the input" if len(inputs) == 1 else "an input", Path(split_part(name)[0])) for name in inputs)
    for role, name in (("the output", options.output), ("the errors file", options.errors_file)):
        target = resolve_output(name) if name else None
        # Stdout and devices may serve twice.
        if target is not None and target.kind == "file":
            for path in (target.path, target.partial, target.fresh, target.journal, target.lock):
                yield role, path
    for role, name in (
        ("the export file", options.export_batch),
        ("the import file", options.import_batch),
        ("the summary file", options.summary_file),
        ("the log file", options.log_file),
    ):
        if name:
            yield role, Path(name)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a directory", hint="name a file inside it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}", hint=f"create it: mkdir -p {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot be written", hint="choose another file for --summary-file")


def _check_one_line_files(options: RunOptions) -> None:
    """Refuse to replace a file that holds neither a summary nor requests of an earlier run."""
    for flag, name, key in (
        ("--summary-file", options.summary_file, "exit_code"),
        ("--export-batch", options.export_batch, "custom_id"),
    ):
        if name is None:
            continue
        path = Path(name)
        try:
            with path.open("rb") as file:
                start = file.readline() if path.is_file() else b""
            found = json.loads(start) if start.strip() else {key: None}
            ours = key in found and (found[key] is None or key != "custom_id" or is_custom_id(str(found[key])))
        except OSError:
            continue  # it does not exist, or whatever writes it reports the problem
        except (ValueError, TypeError):
            ours = False
        if not ours:
            raise UsageError(
                f"{path}: exists, and was not written by {flag}",
                hint=f"choose another {flag}, or replace it with --overwrite",
            )


@dataclass(frozen=True, slots=True)
class Input:
    """An opened source, and what one pass over it found; no pass for a stream."""

    source: Source
    scan: InputScan | None

    @property
    def total(self) -> int | None:
        """Number of items, if known."""
        return self.scan.count if self.scan else None

    @property
    def longest(self) -> int | None:
        """Bytes of the longest text, if known."""
        return self.scan.longest if self.scan else None

    @property
    def bad_rows(self) -> int:
        """Number of unreadable rows that were skipped."""
        return max(self.source.skipped, self.scan.skipped if self.scan else 0)


@contextmanager
def open_input(options: RunOptions, show: RunDisplay, *, corrected: bool = True) -> Iterator[Input]:
    """Open the source and, unless it is a stream, scan it once; an output of a run is read with its corrections."""
    how = source_options(
        options, format=options.format, cells=options.range, corrected=corrected_rows if corrected else None
    )
    with open_source(options.inputs or (), how, report=show.trouble, note=show.note) as source:
        scan = source.survey()
        if scan and scan.skipped:
            show.say(f"{plural(scan.skipped, 'bad row')} skipped")
        if scan and options.where:
            show.say(selected_rows(options, scan))
        yield Input(source, scan)


def selected_rows(options: RunOptions, scan: InputScan) -> str:
    """How many rows meet the condition, as far as they were read."""
    if options.limit is not None or options.sample is not None:
        return f"--where, then {'--sample' if options.sample is not None else '-n'}: {plural(scan.count, 'row')}"
    return f"--where selects {scan.count:,} of {scan.count + scan.unselected:,} rows"


@contextmanager
def open_output(
    options: RunOptions,
    opened: Input,
    added: AddedColumns,
    show: RunDisplay,
    command: str,
    reviewed: Sequence[Column] | None = None,
) -> Iterator[RunIO]:
    """Open the sink, its lock and its journal; what a run that is refused has created is removed again.

    `reviewed` are the pipeline's columns, where the corrections of people go into the rows.
    """
    target = resolve_output(options.output)
    if options.unordered and target.kind == "file":
        raise UsageError("--unordered is for stdout: a file is always in input order", hint="omit it")
    columns = opened.scan.columns if opened.scan else ()
    sink_options = SinkOptions(
        format=options.output_format,
        columns=columns,
        raw_csv=options.raw_csv,
        dialect=lambda: opened.source.dialect,
        types=lambda: opened.source.types,
        rows=opened.total,
    )
    failed_options = SinkOptions(dialect=sink_options.dialect, types=sink_options.types)
    with ExitStack() as stack:
        journal: Journal | None = None
        if target.kind == "file":
            form = OutputForm(
                command,
                known_format(options.output_format or output_format(target.name)),
                added,
                options.id_field or ID_COLUMN,
            )
            journal, earlier = _open_journal(stack, target, options, form)
        if options.errors_file and not options.overwrite:
            _check_errors_file(options.errors_file, opened, journal)
        for path in (target.partial, resolve_output(options.errors_file).partial):
            stack.callback(_remove_if_empty, path)
        stdout = show.rows(sys.stdout) if target.kind == "stdout" else None
        sink = open_sink(target, added, sink_options, note=show.say, stdout=stdout)
        dead_letters = (
            open_dead_letters(options.errors_file, failed_options, note=show.say) if options.errors_file else None
        )
        ordered = OrderedSink(sink, dead_letters, ordered=not options.unordered)
        stack.callback(ordered.close)
        run_io = RunIO(
            source=opened.source,
            rows=ordered,
            to_row=added.row,
            answers=MemoryAnswers(),
            total=opened.total,
            can_sweep=opened.scan is not None,
            retry_failed=options.retry_failed,
        )
        if journal is None:
            yield run_io
            return
        judged = None
        if reviewed is not None:
            file = CorrectionsFile(corrections_path(target.path))
            judged = Reviewed(file, reviewed, form.id_column, adopt=options.adopt_edits, say=show.say)
            # A row without any correction must not take a longer way.
            judged = judged if judged.has_work else None
        edited = EditedRows(ordered, form, journal, target, opened.source.name, judged)
        edited.keep(earlier, opened.source.reread() if opened.source.repeatable else None, overwrite=options.overwrite)
        for note in edited.notes():
            show.say(note)
        if options.fresh:
            journal.start_over()
        yield replace(
            run_io,
            rows=edited,
            to_row=edited.to_row,
            answers=journal,
            replaces=earlier is not None,
            carried=edited.by_hand,
            edited=edited.edited,
            counted=edited.counted if judged or (reviewed and earlier and earlier.edits) else None,
            check=edited.check,
        )
        if options.errors_file:
            _note_errors_file(options.errors_file, journal)


def _open_journal(
    stack: ExitStack, target: OutputTarget, options: RunOptions, form: OutputForm
) -> tuple[Journal, EarlierOutput | None]:
    """The journal of an output file, under its lock, and the output that is there."""
    if not options.no_lock:
        stack.enter_context(OutputLock(target.lock, target.name))
    refuse_to_forget_jobs(target.journal, options)
    existed, journal, earlier = target.journal.exists(), None, None
    if existed:
        try:
            journal = Journal.open(target.journal, locks=not options.no_lock)
        except OutputError:
            if not options.fresh:
                raise
    stack.callback(lambda: _close_journal(journal, remove=not existed))
    try:
        earlier = read_earlier(target, form, journal)
    except UsageError:
        if not options.overwrite:
            raise
    if journal is None:
        journal = Journal.open(target.journal, fresh=options.fresh, locks=not options.no_lock)
    return journal, earlier


def _close_journal(journal: Journal | None, *, remove: bool) -> None:
    if journal is None:
        return
    with suppress(OutputError):
        remove = remove and journal.is_empty()
    journal.close()
    if remove:
        remove_journal(journal.path)


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


_ERRORS_FILE = "errors_file"


def _check_errors_file(path: str, opened: Input, journal: Journal | None) -> None:
    """Refuse to replace a file of failed rows unless an earlier run wrote it: it may have been corrected since."""
    target = resolve_output(path)
    if target.kind != "file" or not target.path.exists() or not target.path.stat().st_size:
        return
    if journal is not None and journal.facts().get(_ERRORS_FILE) == f"{target.path} {file_digest(target.path)}":
        return
    try:
        form = output_format(target.name)
        if opened.source.repeatable and not foreign_rows(path, form, opened.source.reread()):
            return
    except InputError:
        pass
    raise UsageError(
        f"{path}: exists, and is not the errors file of this run",
        hint="choose another --errors-file, or replace it with --overwrite",
    )


def _note_errors_file(path: str, journal: Journal) -> None:
    target = resolve_output(path)
    if target.kind == "file" and target.path.exists():
        journal.note_facts({_ERRORS_FILE: f"{target.path} {file_digest(target.path)}"})


def confirm_changes(
    options: RunOptions, plan: RunPlan, opened: Input, run_io: RunIO, show: RunDisplay, *, rows: int | None = None
) -> None:
    """Ask before a run that would ask again what is answered, because its settings are not those of earlier runs.

    `rows` is the number of rows that would be asked again, where the plan's keys do not tell.
    """
    journal, settings = run_io.answers, {**_EARLIER, **plan.settings}
    if not isinstance(journal, Journal):
        return
    remembered: list[dict[str, Any]] = json.loads(journal.facts().get(_SETTINGS, "[]"))
    remembered = [{**one, "settings": {**_EARLIER, **one["settings"]}} for one in remembered]
    if any(all(one["settings"].get(name) == value for name, value in settings.items()) for one in remembered):
        return
    # Settings that are missing in the other run have changed none of its answers.
    others = [one for one in remembered if {**settings, **one["settings"]} != {**one["settings"], **settings}]
    again = calls = 0
    if any(isinstance(outcome, Success) for outcome in journal.outcomes()):
        again = rows or 0
        if rows is None and opened.source.repeatable:
            found = forecast(
                opened.source.reread(),
                plan,
                journal,
                carried=run_io.carried,
                earlier=[bytes.fromhex(one["fingerprint"]) for one in others],
                retry_failed=options.retry_failed,
            )
            # A journal of version 0.1 does not say with which settings it was written.
            again = found.again if remembered or plan.pipeline.units else found.new * (not found.known)
            calls = found.calls
        calls = calls or plan.calls(again)
    if again:
        what = _differences(others[-1]["settings"], settings) if others else "other settings"
        are = "is" if again == 1 else "are"
        question = f"{options.output}: {what}: {plural(again, 'row')} {are} asked again, {plural(calls, 'call')}"
        if options.yes or options.nightly:
            show.say(question)
        elif not confirmed(f"{question}. Go on?"):
            raise UsageError(question, hint="agree with --yes, or choose another output with -o to keep both")
    one = {"fingerprint": plan.fingerprint.hex(), "settings": settings}
    journal.note_facts({_SETTINGS: json.dumps([*remembered, one][-_MOST_SETTINGS:])})


def say_left_out(columns: Sequence[Column], run_io: RunIO, output: str, show: RunDisplay) -> None:
    """Say which columns of own fields the earlier output has and this one will not have."""
    here = {column.name for column in columns}
    earlier = json.loads(run_io.answers.facts().get(OWN_FIELDS, "[]"))
    if gone := [name for name, *_ in earlier if name not in here]:
        many = len(gone) > 1
        what = f"column{'s' * many} {listed(gone)} of the earlier run {'are' if many else 'is'} left out"
        show.say(f"{output}: {what}; {'their' if many else 'its'} answers stay in the journal")


def note_own_fields(columns: Sequence[Column], run_io: RunIO) -> None:
    """Note in the journal which columns are own fields, with their types, and which values columns may have."""
    if choices := {column.name: column.choices for column in columns if column.choices}:
        run_io.answers.note_facts({CHOICES: json.dumps(choices)})
    own = [[column.name, column.type, column.joint] for column in columns if column.type]
    if own or OWN_FIELDS in run_io.answers.facts():
        run_io.answers.note_facts({OWN_FIELDS: json.dumps(own)})


def note_sample(options: RunOptions, opened: Input, run_io: RunIO, *, carried: str = "") -> None:
    """Note in the journal of how many items the rows are a random sample, so that reports know how sure they are.

    `carried` is the note of the output that this run reads as its input.
    """
    scan = opened.scan
    noted = carried if options.sample is None and options.limit is None else ""
    # The first rows of a sample are those that came first in the input, and no sample.
    if scan is not None and options.sample is not None and options.limit is None and scan.count < scan.all_items:
        noted = json.dumps({"size": scan.count, "population": scan.all_items})
    if noted or SAMPLE in run_io.answers.facts():
        run_io.answers.note_facts({SAMPLE: noted})


_SETTINGS = "settings"
_EARLIER = {"confidence": False}  # Settings that earlier runs do not name
_MOST_SETTINGS = 20


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two runs' settings, such as `model other instead of m`."""
    changed = [name for name in now if before.get(name, now[name]) != now[name] and name != "prompts"]
    words = {True: "now with", False: "now without"}
    parts = [
        f"{words[one]} --{name}"
        if isinstance(one := now[name], bool)
        else f"{name} {one} instead of {before.get(name)}"
        for name in changed
    ]
    return ", ".join(parts) or "other prompts"


# What the user sees before and after a run.


@contextmanager
def controlled(
    options: RunOptions, plan: RunPlan, command: str, show: RunDisplay, chosen: ModelChoice
) -> Iterator[tuple[RunControl, Stop]]:
    """Let other terminals see and control the run."""
    most = chosen.concurrency if chosen.pool is not None else connections(chosen)
    record = new_record(
        command,
        options.output,
        options.input,
        pipeline=plan.pipeline.name,
        backend=plan.backend,
        model=plan.model,
        concurrency=plan.start or plan.concurrency,
        rpm=plan.rpm,
        next_command=same_command(options),
    )
    stop = Stop(show.say)
    with RunControl(record, stop, prices=plan.caps.prices, most=most) as control:
        yield control, stop


def finish(
    options: RunOptions,
    plan: RunPlan,
    opened: Input,
    result: RunResult,
    show: RunDisplay,
    themed: ThemeCounts | None = None,
    audit: AuditFigures | None = None,
) -> None:
    """Show how the run ended."""
    tally, prices = result.tally, plan.caps.prices
    for column in confidence_columns(tally.values):
        same, read = tally.values[column]["1.0"], tally.values[column].total()
        share = with_interval(same / read, share_interval(same, read))
        show.say(f"{column}: both readings say the same in {share}, {same:,} of {plural(read, 'row')}")
    if result.error is not None and not (tally.done or tally.failed or options.nightly):
        raise result.error
    # The summary is the last line where a program reads it.
    told = options.nightly or options.json
    if result.error is not None and told:
        show.error(result.error)
    show.end(
        RunSummary(
            model=plan.model,
            backend=plan.backend,
            pipeline=plan.pipeline.name,
            total=opened.total,
            done=tally.done,
            failed=tally.failed,
            asked=tally.asked,
            reused=tally.reused,
            same=tally.same,
            alike=tally.alike,
            learned=tally.learned,
            audit=audit,
            offloaded=tally.offloaded,
            failures=dict(tally.failures),
            skipped=opened.bad_rows,
            calls=tally.calls,
            retries=result.retries,
            repairs=result.repairs,
            usage=tally.usage,
            cost=None if prices is None else prices.of(tally.usage) - prices.of(tally.queue_usage) * (1 - BATCH_PRICE),
            currency=prices.currency if prices is not None else "",
            elapsed_s=result.elapsed_s,
            items_per_s=result.items_per_s,
            concurrency=result.concurrency if plan.start else None,
            output="" if options.output == "-" or not result.finished else options.output,
            unwritten=_unwritten(options, result),
            values={column: dict(counts) for column, counts in tally.values.items()},
            stopped=result.stopped,
            next_command=next_command(options, result),
            exit_code=int(result.exit_code),
            endpoints=result.endpoints,
            blank=tally.blank,
            edited_cells=tally.edited_cells,
            edited_rows=tally.edited_rows,
            edited_ids=tuple(tally.edited_ids),
            commonest_failure=tally.commonest_failure()[0],
            theme_counts=themed,
        )
    )
    if result.error is not None and not told:
        show.ended_by(result.error)


def _unwritten(options: RunOptions, result: RunResult) -> str:
    """What happened to an output file that the run did not replace."""
    if result.finished or options.output == "-":
        return ""
    state = "was not changed" if Path(options.output).exists() else "was not written"
    partial = f"{options.output}.partial"
    rows = result.tally.done or result.tally.failed
    where = f"; the rows of this run are in {partial}" if rows and Path(partial).exists() else ""
    return f"{options.output} {state}{where}"


def next_command(options: RunOptions, result: RunResult) -> str:
    """The command that continues an incomplete run."""
    return same_command(options) if result.tally.failed or result.stopped else ""


def same_command(options: RunOptions) -> str:
    """The command of this process, if it continues the run: there is a journal, and the input is a file."""
    if options.output == "-" or options.input == "-":
        return ""
    # With --fresh again it would ask for everything once more.
    return typed_command(without="--fresh")


# The event loop.

_GC_THRESHOLD = 20_000


def run_on_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop if it is installed, as it takes less CPU per request, else on asyncio's loop.

    `MELLEA_LOOP=asyncio` forces asyncio's.
    """
    # By default the garbage collector takes a tenth of a busy run's time, as it looks at everything again and again.
    # Imported modules stay until the end, and a run makes few cycles; they are still found, only later.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if os.environ.get("MELLEA_LOOP") != "asyncio" and find_spec("uvloop") is not None:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
