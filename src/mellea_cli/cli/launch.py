"""Wires one batch command: source, sink, journal, backend and display around its runs.

`mellea summarise` is wired here whole; `mellea themes` takes the same parts and puts its own runs between them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from mellea_cli.cli.choose import Chosen, Wanted, choose, ensure_local_model, model_identity
from mellea_cli.cli.closing import close, nothing_done
from mellea_cli.cli.ends import nothing_to_ask, open_input, open_output, preview
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.loops import run
from mellea_cli.cli.offload import QueuedRun, export, run_queued
from mellea_cli.cli.onray import check_engine, choose_for_nodes, run_on_ray
from mellea_cli.cli.paths import check_paths
from mellea_cli.cli.queuing import check_queue
from mellea_cli.cli.serving import as_the_server_says, ready_servers, the_one
from mellea_cli.errors import ExitCode, MelleaError, ReaderGone, UsageError
from mellea_cli.io.columns import AddedColumns

if TYPE_CHECKING:
    from mellea_cli.pipelines.base import Pipeline
    from mellea_cli.run.ends import Ends
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.tally import RunResult
    from mellea_cli.ui.show import Show


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


def shown(flags: Flags, work: Callable[[Show], ExitCode]) -> ExitCode:
    """Do `work` with somebody to talk to.

    Returns:
        What the process should end with; of a nightly run also when it failed, for it has said so itself.
    """
    from mellea_cli.ui.show import Show

    _set_reach(flags)
    with Show(sys.stderr, os.environ, flags.look()) as show:
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
    from mellea_cli.backends.keys import KEY_FILE
    from mellea_cli.backends.reach import ALLOW_HTTP, LOCAL_ONLY

    for wished, variable in ((flags.local_only, LOCAL_ONLY), (flags.allow_http, ALLOW_HTTP)):
        if wished:
            os.environ[variable] = "1"
    if flags.key_file:
        os.environ[KEY_FILE] = flags.key_file


def _summarise(flags: Flags, show: Show) -> ExitCode:
    from mellea_cli.pipelines.feedback import PIPELINES

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
    from mellea_cli.cli.caps import caps

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


def fetch_model(flags: Flags, chosen: Chosen, show: Show) -> None:
    """Fetch the embedded model's file if it is not there. Raises `MelleaError` as `ensure_local_model` does."""
    if chosen.backend == "local":
        ensure_local_model(chosen, pull=flags.pull, say=show.say)


def chosen_model(flags: Flags, show: Show) -> Chosen:
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
    from mellea_cli.cli.caps import caps
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
    flags: Flags, chosen: Chosen, plan: RunPlan, ends: Ends, show: Show, idle: Callable[[], bool]
) -> RunResult:
    from mellea_cli.engine.stop import Stop
    from mellea_cli.run.batch import run_batch

    stop = Stop(show.say)
    async with ready_servers(flags, chosen, plan.prefixes, show, idle) as servers:
        plan = await as_the_server_says(plan, servers)
        with stop.on_signals():
            if flags.queued:
                return await run_queued(QueuedRun(flags, plan, ends, the_one(servers), show, stop))
            return await run_batch(plan, servers, ends, observer=show.begin(), stop=stop)
