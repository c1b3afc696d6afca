"""`mellea summarise`: flags in, one batch run out. The flags are in `mellea_cli.cli.flags`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import typer

from mellea_cli.cli.flags import RunOptions, batch_command
from mellea_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.backend_setup import ModelChoice
    from mellea_cli.cli.batch_run import Input
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.executor import ExecutorFactory
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay


@batch_command("summarise")
def summarise(options: RunOptions) -> ExitCode:
    """Summary, sentiment and issues for each piece of feedback in INPUT.

    The same command again asks only for items that are missing, edited or failed.
    """
    return _run_pipeline(options)


@batch_command(
    "run", pipeline=typer.Argument(metavar="PIPELINE", help="Pipeline file, single, steps, or MODULE:NAME in Python.")
)
def run(options: RunOptions) -> ExitCode:
    """The fields of PIPELINE for each row of INPUT.

    A pipeline file defines fields, see docs/pipelines.md; mellea pipeline new writes a first one. The types of a field
    are text, category, categories, bool, int, number, date, quote and list. MODULE:NAME is a pydantic model or a
    Pipeline in a Python module. The same command again asks only for what is missing: an added field asks that field.
    """
    return _run_pipeline(options)


def _run_pipeline(options: RunOptions) -> ExitCode:
    from mellea_cli.cli.batch_run import with_display
    from mellea_cli.cli.run_pipeline import chosen_pipeline

    pipeline = chosen_pipeline(options)
    return with_display(options, pipeline.name, partial(_summarise, options, pipeline))


def _summarise(options: RunOptions, pipeline: Pipeline, show: RunDisplay) -> ExitCode:
    import asyncio
    from contextlib import ExitStack

    from mellea_cli.cli import batch_run, offload
    from mellea_cli.cli.backend_setup import choose_for_run, ensure_model
    from mellea_cli.cli.run_pipeline import check_columns
    from mellea_cli.io.writers import Added, AddedColumns

    elsewhere = _executor_factory(options, show)
    batch_run.check_options(options)
    with ExitStack() as stack:
        opened = stack.enter_context(batch_run.open_input(options, show))
        plan_for = partial(batch_run.run_plan, options, pipeline=pipeline, longest=opened.longest)
        check_columns(pipeline, opened, options)
        if options.uses_batch_files:
            offload.check_flags(options, opened.source)
        if options.dry_run:
            batch_run.preview(options, plan_for(choose_for_run(options)), opened)
            return ExitCode.OK
        # Source and sink are opened before a model is looked for or downloaded: what cannot work is said at once.
        added = AddedColumns(tuple(Added(column.name, column.parts, column.joint) for column in pipeline.columns))
        run_io = stack.enter_context(batch_run.open_output(options, opened, added, show, "summarise"))
        chosen = choose_for_run(options)
        for line in (chosen.reason, chosen.warning):
            show.say(line)
        plan = plan_for(chosen)
        batch_run.confirm_changes(options, plan, opened, run_io, show)
        if options.export_batch:
            return offload.export(options, plan, run_io, opened.source, show.say)
        if elsewhere is not None:
            with elsewhere.connect(plan) as plan:
                result = asyncio.run(_run_elsewhere(elsewhere, options, plan, run_io, show))
        else:
            ensure_model(chosen, options, show.say)
            result = batch_run.run_on_loop(_run(options, chosen, plan, opened, run_io, show))
        batch_run.finish(options, plan, opened, result, show)
    return result.exit_code


def _executor_factory(options: RunOptions, show: RunDisplay) -> ExecutorFactory | None:
    """What opens the executor of `--engine`; `None` for this process.

    Raises:
        UsageError: flags do not go together, or do not fit the executor.
    """
    if options.engine != "ray":
        for value, name in ((options.ray_address, "--ray-address"), (options.ray_workers, "--ray-workers")):
            if value is not None:
                raise UsageError(f"{name} is for --engine ray", hint="add --engine ray, or omit it")
    if options.engine == "here":
        return None
    if options.uses_batch_files or options.has_pool:
        raise UsageError(
            f"--engine {options.engine} needs one server, not a pool or a batch queue", hint="omit one of them"
        )
    from mellea_cli.run.executor import EXECUTORS

    flags = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    factory = EXECUTORS.require(options.engine)(flags, show.say)
    factory.check()
    return factory


async def _run_elsewhere(
    factory: ExecutorFactory, options: RunOptions, plan: RunPlan, run_io: RunIO, show: RunDisplay
) -> RunResult:
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.cli.backend_setup import network_policy, secrets
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.batch import run_with

    settings = BackendSettings(
        model=plan.model,
        base_url=options.server_url,
        verbose=options.verbose > 1,
        network=network_policy(options),
        secrets=secrets(options),
    )
    stop = Stop(show.say)
    observer = show.begin()
    with stop.on_signals():
        async with factory.open(plan, settings, observer, stop) as executor:
            return await run_with(plan, executor, run_io, observer=observer, stop=stop)


async def _run(
    options: RunOptions, chosen: ModelChoice, plan: RunPlan, opened: Input, run_io: RunIO, show: RunDisplay
) -> RunResult:
    from mellea_cli.cli.backend_setup import open_servers, start_at_server_slots
    from mellea_cli.cli.offload import QueuedRun, run_queued
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.answer_cache import forecast
    from mellea_cli.run.batch import run_batch

    def nothing_to_ask() -> bool:
        if opened.scan is None:
            return False
        found = forecast(opened.source.reread(), plan, run_io.answers, carried=run_io.carried)
        return not found.asks(retry_failed=options.retry_failed)

    stop = Stop(show.say)
    async with open_servers(options, chosen, plan.prefixes, show, nothing_to_ask) as servers:
        plan = await start_at_server_slots(plan, servers)
        with stop.on_signals():
            if options.uses_batch_files:
                if isinstance(servers, Sequence):
                    raise UsageError("a batch queue belongs to one provider, not to a pool", hint="name one --base-url")
                return await run_queued(QueuedRun(options, plan, run_io, servers, show, stop))
            return await run_batch(plan, servers, run_io, observer=show.begin(), stop=stop)
