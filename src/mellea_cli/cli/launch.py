"""Wires one `mellea summarise`: source, sink, journal, backend and display around a batch run."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mellea_cli.cli.choose import Chosen, Wanted, choose, ensure_local_model, model_identity, prepare
from mellea_cli.cli.flags import Flags
from mellea_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from mellea_cli.io.answers import Answers
    from mellea_cli.io.source import Source, Survey
    from mellea_cli.io.target import OutputTarget
    from mellea_cli.run.batch import Ends
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.tally import RunResult
    from mellea_cli.ui.show import Show


def summarise(flags: Flags) -> ExitCode:
    """Run `mellea summarise`.

    Returns:
        What the process should end with.

    Raises:
        MelleaError: nothing was sent, or nothing more can be written.
    """
    from mellea_cli.ui.show import Show

    with ExitStack() as stack:
        show = stack.enter_context(Show(sys.stderr, os.environ, flags.look()))
        opened = stack.enter_context(_open_input(flags, show))
        chosen = asyncio.run(choose(_wanted(flags)))
        plan = _plan(flags, chosen)
        if flags.dry_run:
            _preview(flags, plan, opened)
            return ExitCode.OK
        for line in (chosen.reason, chosen.warning):
            show.say(line)
        if chosen.backend == "local":
            ensure_local_model(chosen, pull=flags.pull, say=show.say)
        ends = stack.enter_context(_open_output(flags, opened, plan, show))
        result = asyncio.run(_run(flags, chosen, plan, ends, show))
        _close(flags, plan, opened, result, show)
    return result.exit_code


@dataclass(frozen=True, slots=True)
class _Input:
    """An opened input and what is known about it."""

    source: Source
    survey: Survey | None

    @property
    def total(self) -> int | None:
        """Items in it, when that is known."""
        return self.survey.count if self.survey else None

    @property
    def bad_rows(self) -> int:
        """Rows that could not be read and were left out."""
        return max(self.source.skipped, self.survey.skipped if self.survey else 0)


@contextmanager
def _open_input(flags: Flags, show: Show) -> Iterator[_Input]:
    from mellea_cli.io.options import SourceOptions
    from mellea_cli.io.source import open_source

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
    with open_source(flags.input, options, report=show.trouble) as source:
        survey = source.survey()
        if survey and survey.skipped:
            show.say(f"{survey.skipped} bad rows are left out")
        yield _Input(source, survey)


def _preview(flags: Flags, plan: RunPlan, opened: _Input) -> None:
    """Print what would run; nothing is sent."""
    from mellea_cli.ui.preview import Preview, print_preview

    first = next(iter(opened.source), None)
    step = plan.pipeline.steps[0]
    items = opened.total
    facts = [
        ("input", opened.source.name),
        ("items", "unknown: the input is a stream" if items is None else f"{items:,}"),
        ("pipeline", f"{plan.pipeline.name}: {', '.join(plan.pipeline.step_names)}"),
        ("calls", f"{len(plan.pipeline.steps)} an item" + ("" if items is None else f", {plan.calls(items):,} in all")),
        ("backend", plan.backend),
        ("model", plan.model),
        ("in flight", f"{plan.concurrency} at most"),
        ("output", "stdout" if flags.output == "-" else flags.output),
    ]
    messages = step.prompt.messages({"text": first.text}) if first else ()
    print_preview(Preview(facts, step.name, messages), sys.stdout, os.environ)


@contextmanager
def _open_output(flags: Flags, opened: _Input, plan: RunPlan, show: Show) -> Iterator[Ends]:
    from mellea_cli.io.columns import AddedColumns
    from mellea_cli.io.sink import SinkOptions, errors_sink, open_sink
    from mellea_cli.io.target import resolve_output, same_file
    from mellea_cli.run.batch import Ends
    from mellea_cli.run.outlet import Outlet

    target = resolve_output(flags.output)
    for path in (flags.output, flags.errors_file):
        if path and flags.input != "-" and path != "-" and same_file(flags.input, path):
            raise UsageError(f"{path}: is the input too; writing it would destroy it", hint="choose another file")
    if flags.unordered and target.kind == "file":
        raise UsageError("--unordered is for stdout: a file is put in input order at the end", hint="leave it out")
    added = AddedColumns.of(*((column.name, column.parts) for column in plan.pipeline.columns))
    columns = opened.survey.columns if opened.survey else ()
    options = SinkOptions(format=flags.output_format, columns=columns, raw_csv=flags.raw_csv)
    with ExitStack() as stack:
        answers = _open_answers(stack, target, flags)
        sink = open_sink(target, added, options, note=show.say)
        letters = errors_sink(flags.errors_file, SinkOptions(raw_csv=flags.raw_csv)) if flags.errors_file else None
        outlet = Outlet(sink, letters, ordered=not flags.unordered)
        stack.callback(outlet.close)
        yield Ends(
            source=opened.source,
            rows=outlet,
            to_row=added.row,
            answers=answers,
            total=opened.total,
            can_sweep=opened.survey is not None,
            retry_failed=flags.retry_failed,
        )


def _open_answers(stack: ExitStack, target: OutputTarget, flags: Flags) -> Answers:
    """The journal beside a file, under its lock; memory for what has no place beside it."""
    from mellea_cli.io.journal import open_answers
    from mellea_cli.io.lock import OutputLock

    if target.kind == "file":
        stack.enter_context(OutputLock(target.lock, target.name))
    return stack.enter_context(closing(open_answers(target, fresh=flags.fresh)))


def _wanted(flags: Flags) -> Wanted:
    return Wanted(
        backend=flags.backend,
        model=flags.model,
        base_url=flags.base_url,
        concurrency=flags.concurrency,
        pull=flags.pull,
        verbose=flags.verbose > 1,
    )


def _plan(flags: Flags, chosen: Chosen) -> RunPlan:
    from mellea_cli.engine.generate import Deadlines
    from mellea_cli.engine.retry import RetryPolicy
    from mellea_cli.messages import Options
    from mellea_cli.pipelines.feedback import PIPELINES
    from mellea_cli.run.plan import RunPlan

    # Reasoning costs a batch far more tokens than it gains; only Ollama can be told so without being asked first.
    thinking = False if chosen.backend == "ollama" else None
    return RunPlan(
        pipeline=PIPELINES[flags.pipeline],
        backend=chosen.backend,
        model=chosen.model,
        identity=model_identity(chosen.backend, chosen.model),
        options=Options(temperature=flags.temperature, seed=flags.model_seed, thinking=thinking),
        concurrency=chosen.concurrency,
        policy=RetryPolicy(max_retries=flags.max_retries),
        deadlines=Deadlines(first_token_s=flags.timeout, total_s=flags.timeout),
        max_wait_s=flags.max_wait,
        grace_s=flags.grace,
    )


async def _run(flags: Flags, chosen: Chosen, plan: RunPlan, ends: Ends, show: Show) -> RunResult:
    from mellea_cli.backends.registry import BackendSettings, open_backend
    from mellea_cli.engine.stop import Stop
    from mellea_cli.run.batch import run_batch

    settings = BackendSettings(
        model=chosen.model, base_url=flags.base_url, concurrency=chosen.concurrency, verbose=flags.verbose > 1
    )
    backend = open_backend(chosen.backend, settings)
    stop = Stop()
    try:
        # Until the run begins there is nothing to save: Ctrl-C ends the program as usual.
        await prepare(backend, chosen.model, pull=flags.pull)
        with stop.on_signals():
            return await run_batch(plan, backend, ends, observer=show.begin(), stop=stop)
    finally:
        await backend.aclose()


def _close(flags: Flags, plan: RunPlan, opened: _Input, result: RunResult, show: Show) -> None:
    """Say how the run ended."""
    from mellea_cli.ui.summary import RunSummary

    tally = result.tally
    show.end(
        RunSummary(
            model=plan.model,
            backend=plan.backend,
            pipeline=plan.pipeline.name,
            total=opened.total,
            done=tally.done,
            failed=tally.failed,
            reused=tally.reused,
            failures=dict(tally.failures),
            skipped=opened.bad_rows,
            calls=tally.calls,
            retries=result.retries,
            usage=tally.usage,
            elapsed_s=result.elapsed_s,
            output="" if flags.output == "-" else flags.output,
            values={column: dict(counts) for column, counts in tally.values.items()},
            stopped=result.stopped,
            next_command=_next_command(flags, result),
            exit_code=int(result.exit_code),
        )
    )
    if result.error is not None:
        show.error(result.error.message, result.error.hint)


def _next_command(flags: Flags, result: RunResult) -> str:
    """What continues a run that is not complete: the same command, where there is a journal and the input is a file."""
    complete = not (result.tally.failed or result.stopped)
    if complete or flags.output == "-" or flags.input == "-":
        return ""
    return shlex.join(["mellea", *sys.argv[1:]]) if sys.argv[1:] else ""
