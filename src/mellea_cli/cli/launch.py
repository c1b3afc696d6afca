"""Wires one batch command: source, sink, journal, backend and display around its runs.

`mellea summarise` is wired here whole; `mellea themes` takes the same parts and puts its own runs between them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from mellea_cli.cli.choose import Chosen, Wanted, choose, ensure_local_model, model_identity, prepare
from mellea_cli.cli.closing import close, nothing_done
from mellea_cli.cli.ends import open_input, open_output, preview
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.paths import check_paths
from mellea_cli.errors import ExitCode, MelleaError, ReaderGone, UsageError
from mellea_cli.io.columns import AddedColumns

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.messages import Message
    from mellea_cli.pipelines.base import Pipeline
    from mellea_cli.run.ends import Ends
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
    """Put how far traffic may go into the environment, where all that connects looks, child processes too."""
    from mellea_cli.backends.reach import ALLOW_HTTP, LOCAL_ONLY

    for wanted, variable in ((flags.local_only, LOCAL_ONLY), (flags.allow_http, ALLOW_HTTP)):
        if wanted:
            os.environ[variable] = "1"


def _summarise(flags: Flags, show: Show) -> ExitCode:
    from mellea_cli.pipelines.feedback import PIPELINES

    pipeline = PIPELINES[flags.pipeline]
    check(flags)
    with ExitStack() as stack:
        opened = stack.enter_context(open_input(flags, show))
        if flags.dry_run:
            preview(flags, run_plan(flags, asyncio.run(choose(wanted(flags))), pipeline), opened)
            return ExitCode.OK
        # Both ends are opened before a model is looked for or fetched: what cannot work is said at once.
        added = AddedColumns.of(*((column.name, column.parts) for column in pipeline.columns))
        ends = stack.enter_context(open_output(flags, opened, added, show))
        chosen = chosen_model(flags, show)
        plan = run_plan(flags, chosen, pipeline)
        result = asyncio.run(_run(flags, chosen, plan, ends, show))
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
        backend=flags.backend,
        model=flags.model,
        base_url=flags.base_url,
        concurrency=flags.concurrency,
        max_concurrency=flags.max_concurrency,
        pull=flags.pull,
        verbose=flags.verbose > 1,
    )


def chosen_model(flags: Flags, show: Show) -> Chosen:
    """Decide on backend and model, say why, and fetch an embedded model that is not there.

    Raises:
        MelleaError: as `choose` and `ensure_local_model` do.
    """
    chosen = asyncio.run(choose(wanted(flags)))
    for line in (chosen.reason, chosen.warning):
        show.say(line)
    if chosen.backend == "local":
        ensure_local_model(chosen, pull=flags.pull, say=show.say)
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
    )


async def _run(flags: Flags, chosen: Chosen, plan: RunPlan, ends: Ends, show: Show) -> RunResult:
    from mellea_cli.engine.stop import Stop
    from mellea_cli.run.batch import run_batch

    stop = Stop(show.say)
    async with ready_backend(flags, chosen, plan.prefixes, show) as backend:
        plan = await as_the_server_says(plan, backend)
        with stop.on_signals():
            return await run_batch(plan, backend, ends, observer=show.begin(), stop=stop)


@asynccontextmanager
async def ready_backend(
    flags: Flags, chosen: Chosen, prefixes: Sequence[tuple[Message, ...]], show: Show
) -> AsyncIterator[Backend]:
    """Open the model server; it is closed again at the end.

    Until a run begins there is nothing to save: Ctrl-C ends the program as usual.

    Args:
        flags: how verbose it is, and where it stands.
        chosen: which one.
        prefixes: the beginnings that the prompts share.
        show: told when reading those takes a moment.

    Raises:
        BackendError: the server cannot be used, or does not have the model.
    """
    from mellea_cli.backends.local import LocalBackend
    from mellea_cli.backends.registry import BackendSettings, open_backend

    settings = BackendSettings(
        model=chosen.model, base_url=flags.base_url, concurrency=chosen.concurrency, verbose=flags.verbose > 1
    )
    backend = open_backend(chosen.backend, settings)
    try:
        if isinstance(backend, LocalBackend):
            # It starts with the first question: a run that finds every answer in the journal needs no model at all.
            backend.expect(prefixes, show.say)
        else:
            await prepare(backend, chosen.model, pull=flags.pull)
        yield backend
    finally:
        await backend.aclose()


async def as_the_server_says(plan: RunPlan, backend: Backend) -> RunPlan:
    """Begin the search for the best number of requests with what the server works on at once, where it says so."""
    from mellea_cli.backends.openai import OpenAIBackend

    if plan.start is None or not isinstance(backend, OpenAIBackend):
        return plan
    places = await backend.places()
    return dataclasses.replace(plan, start=min(places, plan.concurrency)) if places else plan
