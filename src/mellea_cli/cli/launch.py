"""Wires one `mellea summarise`: source, sink, journal, backend and display around a batch run."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli.choose import Chosen, Wanted, choose, ensure_local_model, model_identity, prepare
from mellea_cli.cli.ends import Input, nothing_to_ask, open_input, open_output, preview
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.offload import QueuedRun, export, run_queued
from mellea_cli.cli.onray import check_engine, choose_for_nodes, run_on_ray
from mellea_cli.cli.paths import check_paths
from mellea_cli.cli.queuing import check_queue, server_of
from mellea_cli.errors import BackendError, ExitCode, MelleaError, ReaderGone, UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.cli.pools import Pool
    from mellea_cli.run.ends import Ends
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.tally import RunResult
    from mellea_cli.ui.show import Show
    from mellea_cli.ui.summary import RunSummary


def summarise(flags: Flags) -> ExitCode:
    """Run `mellea summarise`.

    Returns:
        What the process should end with.

    Raises:
        MelleaError: nothing was sent, or nothing more can be written.
    """
    from mellea_cli.ui.show import Show

    _set_reach(flags)
    with Show(sys.stderr, os.environ, flags.look()) as show:
        try:
            return _summarise(flags, show)
        except ReaderGone:
            raise
        except MelleaError as error:
            if not flags.nightly:
                raise
            # Whoever watches a nightly run reads its last line, whatever happened.
            show.error(error.message, error.hint)
            show.end(_nothing_done(flags, error))
            return error.exit_code


def _set_reach(flags: Flags) -> None:
    """Put how far traffic may go, and where the key is, into the environment, where all that connects looks."""
    from mellea_cli.backends.keys import KEY_FILE
    from mellea_cli.backends.reach import ALLOW_HTTP, LOCAL_ONLY

    for wanted, variable in ((flags.local_only, LOCAL_ONLY), (flags.allow_http, ALLOW_HTTP)):
        if wanted:
            os.environ[variable] = "1"
    if flags.key_file:
        os.environ[KEY_FILE] = flags.key_file


def _summarise(flags: Flags, show: Show) -> ExitCode:
    from mellea_cli.cli.caps import caps

    check_engine(flags)
    caps(flags)  # what cannot be read is said before anything is opened or fetched
    if not flags.input:
        raise UsageError("no input was named, and nothing is piped in", hint="name a file, or - for stdin")
    check_paths(flags)
    with ExitStack() as stack:
        opened = stack.enter_context(open_input(flags, show))
        if flags.queued:
            check_queue(flags, opened.source)
        if flags.dry_run:
            preview(flags, _plan(flags, _chosen(flags)), opened)
            return ExitCode.OK
        # Both ends are opened before a model is looked for or fetched: what cannot work is said at once.
        ends = stack.enter_context(open_output(flags, opened, show))
        chosen = _chosen(flags)
        for line in (chosen.reason, chosen.warning):
            show.say(line)
        if flags.export_batch:
            return export(flags, _plan(flags, chosen), ends, opened.source, show.say)
        if flags.engine == "ray":
            plan, result = run_on_ray(flags, chosen, partial(_plan, flags), ends, show)
        else:
            plan, result = _run_here(flags, chosen, opened, ends, show)
        _close(flags, plan, opened, result, show)
    return result.exit_code


def _run_here(flags: Flags, chosen: Chosen, opened: Input, ends: Ends, show: Show) -> tuple[RunPlan, RunResult]:
    if chosen.backend == "local":
        ensure_local_model(chosen, pull=flags.pull, say=show.say)
    plan = _plan(flags, chosen)
    idle = partial(nothing_to_ask, flags, plan, opened, ends)
    return plan, asyncio.run(_run(flags, chosen, plan, ends, show, idle))


def _chosen(flags: Flags) -> Chosen:
    from mellea_cli.cli.pools import wanted_pool

    pool = wanted_pool(flags)
    if pool is None:
        wanted = _wanted(flags)
        return asyncio.run(choose_for_nodes(wanted) if flags.engine == "ray" else choose(wanted))
    return Chosen(pool.backend, pool.model, pool.concurrency, pool.reason, pool.warning, pool=pool)


def _wanted(flags: Flags) -> Wanted:
    return Wanted(
        backend="openai" if flags.queued else flags.backend,
        model=flags.model,
        base_url=flags.base_url,
        concurrency=flags.concurrency,
        max_concurrency=flags.max_concurrency,
        pull=flags.pull,
        verbose=flags.verbose > 1,
    )


def _plan(flags: Flags, chosen: Chosen) -> RunPlan:
    from mellea_cli.cli.caps import caps
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
    )


async def _run(
    flags: Flags, chosen: Chosen, plan: RunPlan, ends: Ends, show: Show, idle: Callable[[], bool]
) -> RunResult:
    from mellea_cli.backends.local import LocalBackend
    from mellea_cli.backends.registry import BackendSettings
    from mellea_cli.cli.keyed import open_keyed
    from mellea_cli.engine.stop import Stop
    from mellea_cli.run.batch import run_batch

    if chosen.pool is not None:
        return await _run_pool(chosen.pool, flags, plan, ends, show)
    settings = BackendSettings(
        model=chosen.model,
        base_url=server_of(flags),
        concurrency=chosen.concurrency,
        together=True,
        verbose=flags.verbose > 1,
    )
    backend = await open_keyed(chosen.backend, settings, ask=not flags.nightly)
    stop = Stop(show.say)
    try:
        # Until the run begins there is nothing to save: Ctrl-C ends the program as usual.
        if isinstance(backend, LocalBackend):
            # It starts with the first question: a run that finds every answer in the journal needs no model at all.
            backend.expect(plan.prefixes, show.say)
        else:
            try:
                await prepare(backend, chosen.model, pull=flags.pull)
            except BackendError:
                # The server is away or lacks the model: that is no matter where every answer is there already.
                if not await asyncio.to_thread(idle):
                    raise
        plan = await _as_the_server_says(plan, backend)
        with stop.on_signals():
            if flags.queued:
                return await run_queued(QueuedRun(flags, plan, ends, backend, show, stop))
            return await run_batch(plan, backend, ends, observer=show.begin(), stop=stop)
    finally:
        await backend.aclose()


async def _as_the_server_says(plan: RunPlan, backend: Backend) -> RunPlan:
    """Begin the search for the best number of requests with what the server works on at once, where it says so."""
    from mellea_cli.backends.openai import OpenAIBackend

    if plan.start is None or not isinstance(backend, OpenAIBackend):
        return plan
    places = await backend.places()
    return dataclasses.replace(plan, start=min(places, plan.concurrency)) if places else plan


async def _run_pool(pool: Pool, flags: Flags, plan: RunPlan, ends: Ends, show: Show) -> RunResult:
    from mellea_cli.cli.pools import opened
    from mellea_cli.engine.stop import Stop
    from mellea_cli.run.batch import run_batch

    stop = Stop(show.say)
    async with opened(pool, pull=flags.pull, say=show.say) as endpoints:
        with stop.on_signals():
            return await run_batch(plan, endpoints, ends, observer=show.begin(), stop=stop)


def _close(flags: Flags, plan: RunPlan, opened: Input, result: RunResult, show: Show) -> None:
    """Say how the run ended."""
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


def _nothing_done(flags: Flags, error: MelleaError) -> RunSummary:
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
