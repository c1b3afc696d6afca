"""Whether standard input is meant to be read."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mellea_cli.cli.backend_setup import (
    Chosen,
    Wanted,
    as_the_server_says,
    choose,
    ensure_local_model,
    model_identity,
    ready_servers,
    the_one,
)
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.offload import QueuedRun, check_queue, export, run_queued
from mellea_cli.cli.ray_run import check_engine, choose_for_nodes, run_on_ray
from mellea_cli.errors import ExitCode, MelleaError, OutputError, ReaderGone, UsageError
from mellea_cli.io.writers import AddedColumns

if TYPE_CHECKING:
    from mellea_cli.io.files import OutputTarget
    from mellea_cli.io.journal import Answers
    from mellea_cli.io.source import InputScan, Source
    from mellea_cli.pipelines.pipeline import Pipeline, Step
    from mellea_cli.run.answer_cache import Forecast
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay
    from mellea_cli.ui.summary import RunSummary, Themed


# The files of one run, and that none of them is in the way of another.


def check_paths(flags: Flags) -> None:
    """Refuse a run that would write over its own input, or write two things into one file.

    Raises:
        UsageError: two of the files are one.
        OutputError: the summary could not be written in the end.
    """
    seen: dict[str, str] = {}
    for role, paths in _files(flags):
        for path in paths:
            real = os.path.realpath(path)
            if (other := seen.setdefault(real, role)) != role:
                raise UsageError(f"{path}: is {other} and {role} at once", hint="choose another file for one of them")
    if flags.summary_file:
        _check_writable(Path(flags.summary_file))


def _files(flags: Flags) -> Iterator[tuple[str, list[Path]]]:
    """Each role that a file plays in the run, with the files that go with it."""
    if flags.input != "-":
        yield "the input", [Path(flags.input)]
    for role, name in (("the output", flags.output), ("the errors file", flags.errors_file)):
        if name:
            yield role, _with_companions(name)
    for role, name in (("the export file", flags.export_batch), ("the import file", flags.import_batch)):
        if name:
            yield role, [Path(name)]
    for role, name in (("the summary file", flags.summary_file), ("the log file", flags.log_file)):
        if name:
            yield role, [Path(name)]


def _with_companions(output: str) -> list[Path]:
    """An output file and what grows beside it; nothing for stdout and devices, which may serve twice."""
    from mellea_cli.io.files import resolve_output

    target = resolve_output(output)
    if target.kind != "file":
        return []
    return [target.path, target.partial, target.fresh, target.journal, target.lock]


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a directory", hint="name a file inside it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}", hint=f"make it first: mkdir -p {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot be written", hint="choose another file for --summary-file")


# The two ends of a run: the input, and the output with its journal.


@dataclass(frozen=True, slots=True)
class Input:
    """An opened input and what is known about it."""

    source: Source
    survey: InputScan | None

    @property
    def total(self) -> int | None:
        """Items in it, when that is known."""
        return self.survey.count if self.survey else None

    @property
    def bad_rows(self) -> int:
        """Rows that could not be read and were left out."""
        return max(self.source.skipped, self.survey.skipped if self.survey else 0)


@contextmanager
def open_input(flags: Flags, show: RunDisplay) -> Iterator[Input]:
    """Open the input and, where that can be done, look through it once.

    Raises:
        InputError: it cannot be read, or a row is bad.
        UsageError: a flag does not fit it.
    """
    from mellea_cli.io.source import SourceOptions, open_source

    options = SourceOptions(
        format=flags.format,
        text_field=flags.text_field,
        id_field=flags.id_field,
        encoding=flags.encoding,
        delimiter=flags.delimiter,
        limit=flags.limit,
        sample=flags.sample,
        seed=flags.seed,
        on_bad_row=flags.on_bad_row,
    )
    with open_source(flags.input, options, report=show.trouble, note=show.say) as source:
        survey = source.survey()
        if survey and survey.skipped:
            show.say(f"{survey.skipped} bad rows are left out")
        yield Input(source, survey)


def preview(
    flags: Flags,
    plan: RunPlan,
    opened: Input,
    facts: Sequence[tuple[str, str]] = (),
    first: tuple[Step, str] | None = None,
) -> None:
    """Print what would run; nothing is sent.

    Args:
        flags: where the output goes.
        plan: the run.
        opened: the input.
        facts: what else is worth knowing.
        first: the step and the text that are asked first, where that is not the first item.
    """
    from mellea_cli.ui.status import Preview, print_preview

    outlook = _outlook(flags, plan, opened)
    if first is None:
        item = next(iter(opened.source), None)
        first = (plan.pipeline.steps[0], item.text) if item else None
    calls = f"{len(plan.pipeline.steps)} an item"
    if outlook is not None:
        calls += f", {plan.calls(outlook.asks(retry_failed=flags.retry_failed)):,} in all"
    told = [
        ("input", opened.source.name),
        ("items", "unknown: the input is a stream" if outlook is None else _counted(opened.total or 0, outlook)),
        ("pipeline", f"{plan.pipeline.name}: {', '.join(plan.pipeline.step_names)}"),
        ("calls", calls),
        ("backend", plan.backend),
        ("model", plan.model),
        ("in flight", f"{plan.concurrency} at most" + (f", from {plan.start} on" if plan.start else "")),
        ("output", "stdout" if flags.output == "-" else flags.output),
        *facts,
    ]
    messages = first[0].prompt.messages({"text": first[1]}) if first else ()
    name = first[0].name if first else ""
    print_preview(Preview(told, name, messages), sys.stdout, os.environ)


def _outlook(flags: Flags, plan: RunPlan, opened: Input) -> Forecast | None:
    """What the input holds beside the journal of the output, if there is one; `None` for a stream."""
    from mellea_cli.io.files import resolve_output
    from mellea_cli.io.journal import MemoryAnswers, peek_answers
    from mellea_cli.run.answer_cache import forecast

    if opened.survey is None:
        return None
    with closing(MemoryAnswers() if flags.fresh else peek_answers(resolve_output(flags.output))) as answers:
        return forecast(opened.source.reread(), plan, answers)


def _counted(total: int, outlook: Forecast) -> str:
    """Words for the items of an input: how many, and those that are not new."""
    others = (
        (outlook.known, "answered already"),
        (outlook.failed, "failed earlier"),
        (outlook.identical, "with a text that stands further up"),
        (outlook.blank, "without text"),
    )
    told = [f"{count:,} {what}" for count, what in others if count]
    return f"{total:,}" + (f": {outlook.new:,} new, {', '.join(told)}" if told else "")


@contextmanager
def open_output(flags: Flags, opened: Input, added: AddedColumns, show: RunDisplay) -> Iterator[RunIO]:
    """Open the output, its lock and its journal.

    Args:
        flags: where it is and how it is written.
        opened: the input.
        added: the columns that the run adds.
        show: told what a person should know.

    Raises:
        OutputError: it cannot be written, or another run writes it.
        UsageError: its form cannot be told, or a flag does not fit it.
    """
    from mellea_cli.io.files import resolve_output
    from mellea_cli.io.sink import OrderedSink, SinkOptions, open_dead_letters, open_sink
    from mellea_cli.run.batch import RunIO

    target = resolve_output(flags.output)
    if flags.unordered and target.kind == "file":
        raise UsageError("--unordered is for stdout: a file is put in input order at the end", hint="leave it out")
    columns = opened.survey.columns if opened.survey else ()
    options = SinkOptions(format=flags.output_format, columns=columns, raw_csv=flags.raw_csv)
    with ExitStack() as stack:
        answers = _open_answers(stack, target, flags)
        stdout = show.rows(sys.stdout) if target.kind == "stdout" else None
        sink = open_sink(target, added, options, note=show.say, stdout=stdout)
        letters = open_dead_letters(flags.errors_file, note=show.say) if flags.errors_file else None
        outlet = OrderedSink(sink, letters, ordered=not flags.unordered)
        stack.callback(outlet.close)
        yield RunIO(
            source=opened.source,
            rows=outlet,
            to_row=added.row,
            answers=answers,
            total=opened.total,
            can_sweep=opened.survey is not None,
            retry_failed=flags.retry_failed,
            replaces=target.kind == "file" and target.path.exists(),
        )


def _open_answers(stack: ExitStack, target: OutputTarget, flags: Flags) -> Answers:
    """The journal beside a file, under its lock; memory for what has no place beside it."""
    from mellea_cli.cli.offload import refuse_to_forget_jobs
    from mellea_cli.io.files import OutputLock
    from mellea_cli.io.journal import open_answers

    if target.kind == "file":
        stack.enter_context(OutputLock(target.lock, target.name))
        refuse_to_forget_jobs(target.journal, flags)
    return stack.enter_context(closing(open_answers(target, fresh=flags.fresh)))


def nothing_to_ask(flags: Flags, plan: RunPlan, opened: Input, ends: RunIO) -> bool:
    """Whether every answer is there already, so that no model is needed."""
    from mellea_cli.run.answer_cache import forecast

    if opened.survey is None:
        return False
    return not forecast(opened.source.reread(), plan, ends.answers).asks(retry_failed=flags.retry_failed)


# Says how a run of a batch command ended.


def close(
    flags: Flags, plan: RunPlan, opened: Input, result: RunResult, show: RunDisplay, themed: Themed | None = None
) -> None:
    """Say how the run ended.

    Raises:
        MelleaError: what ended it before anything came of it.
    """
    from mellea_cli.ui.summary import RunSummary

    tally = result.tally
    if result.error is not None and not (tally.done or tally.failed or flags.nightly):
        # Nothing came of it: the error says all there is to say.
        raise result.error
    if result.error is not None and flags.nightly:
        show.error(result.error.message, result.error.hint)
    show.end(
        RunSummary(
            model=plan.model,
            backend=plan.backend,
            pipeline=plan.pipeline.name,
            total=opened.total,
            done=tally.done,
            failed=tally.failed,
            reused=tally.reused,
            same=tally.same,
            offloaded=tally.offloaded,
            failures=dict(tally.failures),
            skipped=opened.bad_rows,
            calls=tally.calls,
            retries=result.retries,
            usage=tally.usage,
            elapsed_s=result.elapsed_s,
            found=result.concurrency if plan.start else None,
            output="" if flags.output == "-" or not result.finished else flags.output,
            unwritten=_unwritten(flags, result),
            values={column: dict(counts) for column, counts in tally.values.items()},
            stopped=result.stopped,
            next_command=_next_command(flags, result),
            exit_code=int(result.exit_code),
            endpoints=result.endpoints,
            blank=tally.blank,
            themed=themed,
        )
    )
    if result.error is not None and not flags.nightly:
        show.ended_by(result.error)


def _unwritten(flags: Flags, result: RunResult) -> str:
    """What became of an output that the run did not put into its place."""
    if result.finished or flags.output == "-":
        return ""
    state = "was left as it was" if Path(flags.output).exists() else "was not written"
    partial = f"{flags.output}.partial"
    rows = result.tally.done or result.tally.failed
    where = f"; the rows of this run are in {partial}" if rows and Path(partial).exists() else ""
    return f"{flags.output} {state}{where}"


def nothing_done(flags: Flags, error: MelleaError) -> RunSummary:
    """The last line of a nightly run that could not do anything, or could not write any more."""
    from mellea_cli.ui.summary import RunSummary

    return RunSummary(
        model=flags.model or "",
        backend=flags.backend,
        pipeline=flags.pipeline,
        output="" if flags.output == "-" else flags.output,
        stopped=error.message,
        exit_code=int(error.exit_code),
    )


def _next_command(flags: Flags, result: RunResult) -> str:
    """What continues a run that is not complete: the same command, where there is a journal and the input is a file."""
    complete = not (result.tally.failed or result.stopped)
    if complete or flags.output == "-" or flags.input == "-":
        return ""
    # Typed again, --fresh would ask for everything once more.
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    return shlex.join(["mellea", *arguments]) if arguments else ""


# The event loop that a batch run lives on.

T = TypeVar("T")

_MADE_UNTIL_COLLECTED = 20_000


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end: on uvloop where it is installed, for it takes less processor time a call.

    `MELLEA_LOOP=asyncio` keeps Python's own loop all the same.
    """
    _collect_less()
    with asyncio.Runner(loop_factory=_fastest()) as runner:
        return runner.run(main)


def _collect_less() -> None:
    """Keep the garbage collector from looking at everything again and again: that is a tenth of a busy run's time.

    What has been imported stays until the end, and a run leaves few cycles behind; they are still found, only later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MADE_UNTIL_COLLECTED, 20, 20)


def _fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if os.environ.get("MELLEA_LOOP") == "asyncio" or find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


# Wires one batch command: source, sink, journal, backend and display around its runs.
#
# `mellea summarise` is wired here whole; `mellea themes` takes the same parts and puts its own runs between them.


# The embedded model takes several items at once when it has answered one: so the first answer comes as soon as with one
# slot. It has to load and to read its instructions in that time.
_FIRST_ALONE_S = 60.0


def summarise(flags: Flags) -> ExitCode:
    """Run `mellea summarise`.

    Returns:
        What the process should end with.

    Raises:
        MelleaError: nothing was sent, or nothing more can be written.
    """
    return shown(flags, lambda show: _summarise(flags, show))


def shown(flags: Flags, work: Callable[[RunDisplay], ExitCode]) -> ExitCode:
    """Do `work` with somebody to talk to.

    Returns:
        What the process should end with; of a nightly run also when it failed, for it has said so itself.
    """
    from mellea_cli.ui.run_display import RunDisplay

    _set_reach(flags)
    with RunDisplay(sys.stderr, os.environ, flags.look()) as show:
        try:
            return work(show)
        except ReaderGone:
            raise
        except MelleaError as error:
            if not flags.nightly:
                raise
            # Whoever watches a nightly run reads its last line, whatever happened.
            show.error(error.message, error.hint)
            show.end(nothing_done(flags, error))
            return error.exit_code


def _set_reach(flags: Flags) -> None:
    """Put how far traffic may go, and where the key is, into the environment, where all that connects looks."""
    from mellea_cli.backends.security import ALLOW_HTTP, KEY_FILE, LOCAL_ONLY

    for wished, variable in ((flags.local_only, LOCAL_ONLY), (flags.allow_http, ALLOW_HTTP)):
        if wished:
            os.environ[variable] = "1"
    if flags.key_file:
        os.environ[KEY_FILE] = flags.key_file


def _summarise(flags: Flags, show: RunDisplay) -> ExitCode:
    from mellea_cli.pipelines.default_prompts import PIPELINES

    pipeline = PIPELINES[flags.pipeline]
    check_engine(flags)
    check(flags)
    with ExitStack() as stack:
        opened = stack.enter_context(open_input(flags, show))
        if flags.queued:
            check_queue(flags, opened.source)
        if flags.dry_run:
            preview(flags, run_plan(flags, choose_model(flags), pipeline), opened)
            return ExitCode.OK
        # Both ends are opened before a model is looked for or fetched: what cannot work is said at once.
        added = AddedColumns.of(*((column.name, column.parts) for column in pipeline.columns))
        ends = stack.enter_context(open_output(flags, opened, added, show))
        chosen = choose_model(flags)
        for line in (chosen.reason, chosen.warning):
            show.say(line)
        if flags.export_batch:
            return export(flags, run_plan(flags, chosen, pipeline), ends, opened.source, show.say)
        if flags.engine == "ray":
            plan, result = run_on_ray(flags, chosen, partial(run_plan, flags, pipeline=pipeline), ends, show)
        else:
            fetch_model(flags, chosen, show)
            plan = run_plan(flags, chosen, pipeline)
            idle = partial(nothing_to_ask, flags, plan, opened, ends)
            result = run(_run(flags, chosen, plan, ends, show, idle))
        close(flags, plan, opened, result, show)
    return result.exit_code


def check(flags: Flags) -> None:
    """Say what cannot work before anything is opened or fetched.

    Raises:
        UsageError: a limit cannot be read, no input was named, or two files are one.
        OutputError: the summary could not be written in the end.
    """
    from mellea_cli.cli.flags import caps

    caps(flags)
    if not flags.input:
        raise UsageError("no input was named, and nothing is piped in", hint="name a file, or - for stdin")
    check_paths(flags)


def wanted(flags: Flags) -> Wanted:
    """What the flags say about backend and model."""
    return Wanted(
        backend="openai" if flags.queued else flags.backend,
        model=flags.model,
        base_url=flags.base_url,
        concurrency=flags.concurrency,
        max_concurrency=flags.max_concurrency,
        pull=flags.pull,
        verbose=flags.verbose > 1,
    )


def choose_model(flags: Flags) -> Chosen:
    """Decide on backend and model, or on the servers of a pool.

    Raises:
        MelleaError: as `choose` does, or the pool cannot be used.
    """
    from mellea_cli.cli.pools import wanted_pool

    pool = wanted_pool(flags)
    if pool is None:
        wish = wanted(flags)
        return asyncio.run(choose_for_nodes(wish) if flags.engine == "ray" else choose(wish))
    return Chosen(pool.backend, pool.model, pool.concurrency, pool.reason, pool.warning, pool=pool)


def fetch_model(flags: Flags, chosen: Chosen, show: RunDisplay) -> None:
    """Fetch the embedded model's file if it is not there. Raises `MelleaError` as `ensure_local_model` does."""
    if chosen.backend == "local":
        ensure_local_model(chosen, pull=flags.pull, say=show.say)


def chosen_model(flags: Flags, show: RunDisplay) -> Chosen:
    """Decide on backend and model, say why, and fetch an embedded model that is not there.

    Raises:
        MelleaError: as `choose` and `ensure_local_model` do.
    """
    chosen = choose_model(flags)
    for line in (chosen.reason, chosen.warning):
        show.say(line)
    fetch_model(flags, chosen, show)
    return chosen


def run_plan(flags: Flags, chosen: Chosen, pipeline: Pipeline) -> RunPlan:
    """What a run of `pipeline` will do."""
    from mellea_cli.cli.flags import caps
    from mellea_cli.engine.generate import Deadlines
    from mellea_cli.engine.retry import RetryPolicy
    from mellea_cli.messages import Options
    from mellea_cli.run.plan import RunPlan

    # Reasoning costs a batch far more tokens than it gains; only Ollama can be told so without being asked first.
    thinking = False if chosen.backend == "ollama" else None
    return RunPlan(
        pipeline=pipeline,
        backend=chosen.backend,
        model=chosen.model,
        identity=model_identity(chosen.backend, chosen.model),
        options=Options(temperature=flags.temperature, seed=flags.model_seed, thinking=thinking),
        concurrency=chosen.concurrency,
        start=chosen.start,
        dedupe=flags.dedupe,
        policy=RetryPolicy(max_retries=flags.max_retries, retry_after_cap_s=flags.max_wait),
        deadlines=Deadlines(flags.first_token_timeout or flags.timeout, flags.stall_timeout, flags.timeout),
        max_wait_s=flags.max_wait,
        grace_s=flags.grace,
        rpm=flags.rpm,
        tpm=flags.tpm,
        caps=caps(flags),
        redacted=flags.redact,
        first_alone_s=_FIRST_ALONE_S if chosen.backend == "local" else 0.0,
    )


async def _run(
    flags: Flags, chosen: Chosen, plan: RunPlan, ends: RunIO, show: RunDisplay, idle: Callable[[], bool]
) -> RunResult:
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.batch import run_batch

    stop = Stop(show.say)
    async with ready_servers(flags, chosen, plan.prefixes, show, idle) as servers:
        plan = await as_the_server_says(plan, servers)
        with stop.on_signals():
            if flags.queued:
                return await run_queued(QueuedRun(flags, plan, ends, the_one(servers), show, stop))
            return await run_batch(plan, servers, ends, observer=show.begin(), stop=stop)


def stdin_has_data() -> bool:
    """Whether stdin is a pipe, a socket or a file.

    A terminal is not: somebody would wait for a program that waits for them. Neither is a closed stdin or /dev/null,
    which is what cron and many supervisors give; there a file has to be named.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def stdin_is_terminal() -> bool:
    """Whether somebody sits at the other end of stdin."""
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False
