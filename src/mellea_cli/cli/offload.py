"""Wires `--offload`, `--export-batch` and `--import-batch` around a run."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli.flags import Flags
from mellea_cli.errors import ExitCode, MelleaError, OutputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.engine.workers import Stop
    from mellea_cli.io.batch_jobs import BatchJobStore, Job
    from mellea_cli.io.source import Source
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.batch_planner import BatchPlanner, BatchProgress
    from mellea_cli.run.plan import Caps, RunPlan
    from mellea_cli.ui.run_display import RunDisplay


# What may go by batch files: the flags, the two ends, and the batches that are under way already.

# Stands for the server of an import that names none: nothing is sent there, as what is left is refused first.
_NOWHERE = "http://localhost:9/v1"


def is_under_way(job: Job) -> bool:
    """Whether the server has, or may have, this job."""
    return job.state in {"submitting", "submitted"}


def check_queue(flags: Flags, source: Source) -> None:
    """Refuse what cannot go by batch files.

    Raises:
        UsageError: a flag, the input or the output does not fit.
    """
    from mellea_cli.io.files import resolve_output

    name = next(name for name in ("offload", "export_batch", "import_batch") if getattr(flags, name))
    asked = "--" + name.replace("_", "-")
    if flags.offload and (flags.export_batch or flags.import_batch):
        raise UsageError(
            "--offload does by itself what --export-batch and --import-batch do by hand", hint="choose one"
        )
    if flags.backend not in {"auto", "openai"}:
        raise UsageError(f"{asked} speaks OpenAI's batch format, not that of --backend {flags.backend}")
    if flags.pool or len(flags.base_urls) > 1:
        raise UsageError(f"{asked} goes to one provider, not to a pool", hint="name one --base-url")
    if flags.offload and not names_server(flags):
        raise UsageError(
            "--offload: whose queue?", hint="name the provider: --backend openai for OpenAI, or --base-url"
        )
    if resolve_output(flags.output).kind != "file":
        raise UsageError(f"{asked} keeps its state beside the output", hint="name a file with -o")
    if not source.repeatable:
        raise UsageError(f"{asked} reads the input more than once", hint="name a file instead of a pipe")


def names_server(flags: Flags) -> bool:
    """Whether the user said where to: nothing leaves this machine for a server that was not chosen."""
    return bool(flags.backend == "openai" or flags.base_url or os.environ.get("OPENAI_BASE_URL"))


def server_of(flags: Flags) -> str | None:
    """The address that the backend is opened with."""
    return _NOWHERE if flags.import_batch and not names_server(flags) else flags.base_url


def refuse_to_forget_jobs(journal: Path, flags: Flags) -> None:
    """Refuse a run that would lose batches under way, or ask for their rows a second time.

    Raises:
        UsageError: there are such batches and the run is not one that goes on with them.
    """
    from mellea_cli.io.batch_jobs import read_jobs

    try:
        # What somebody has cancelled may be given up.
        known = read_jobs(journal)
        jobs = [job for job in known if is_under_way(job) and job.status != "cancelling"]
    except OutputError:
        return  # whoever opens the journal says what is wrong with it, unless it is to be thrown away
    if jobs and (flags.fresh or not flags.offload):
        number = f"{len(jobs)} batches are" if len(jobs) > 1 else "1 batch is"
        raise UsageError(
            f"{flags.output}: {number} under way for it, whose rows would be paid for twice",
            hint=f"go on with --offload (without --fresh), or give them up: mellea jobs cancel {flags.output}",
        )
    if flags.fresh and not jobs:
        from mellea_cli.run.batch_queue import clear_leftovers

        clear_leftovers(journal, set())


@dataclass(frozen=True)
class QueuedRun:
    """What a run works with whose answers come by batch files."""

    flags: Flags
    plan: RunPlan
    ends: RunIO
    backend: Backend
    show: RunDisplay
    stop: Stop


def export(flags: Flags, plan: RunPlan, ends: RunIO, source: Source, say: Callable[[str], None]) -> ExitCode:
    """Write every request that can be asked now into a file; nothing is sent.

    Raises:
        MelleaError: input, output or one of the files cannot be used.
    """
    from mellea_cli.backends.openai import chat_body
    from mellea_cli.run.batch_queue import ExportFile

    file = ExportFile(Path(flags.export_batch or ""), lambda request: chat_body(request, is_openai=False))
    with closing(_store(ends)) as store:
        planner = _planner(plan, ends, source, store, again=True)
        if flags.import_batch:
            _import(flags, plan, store, say)
        try:
            asyncio.run(planner.scan(file))
        finally:
            file.discard()
    if not file.requests:
        say("there is nothing left to ask: no file was written; the same command without --export-batch ends the run")
        return ExitCode.OK
    say(f"wrote {file.requests:,} requests to {flags.export_batch}")
    say(f"next: vllm run-batch -i {flags.export_batch} -o REPLIES --model {plan.model}")
    say("then: the same command with --import-batch REPLIES in place of --export-batch")
    return ExitCode.OK


async def run_queued(run: QueuedRun) -> RunResult:
    """Bring in what batches answer, then finish live what they did not.

    Returns:
        How it ended, the answers by batches counted in.

    Raises:
        OutputError: nothing more can be written.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    with closing(_store(run.ends)) as store:
        deadline = run.plan.caps.deadline_s
        timer = loop.call_later(deadline, _time_is_up, run.stop) if deadline is not None else None
        error: MelleaError | None = None
        planner = _planner(run.plan, run.ends, _source(run.ends), store)
        try:
            await _by_batches(run, store, planner)
        except MelleaError as failed:
            # What is done is still written: the run goes on as one that stops.
            error = failed
            run.stop.ask_once(failed.message, failed.exit_code)
        finally:
            if timer is not None:
                timer.cancel()
        result = await _live(run, store, planner.progress, loop.time() - began)
        if not result.stopped:
            store.clear(run.plan.fingerprint.hex())
    return dataclasses.replace(result, elapsed_s=loop.time() - began, error=error or result.error)


def _time_is_up(stop: Stop) -> None:
    stop.ask_once("the run's deadline has passed (--deadline)", ExitCode.STOPPED_EARLY)


async def _by_batches(run: QueuedRun, store: BatchJobStore, planner: BatchPlanner) -> None:
    flags, say = run.flags, run.show.say
    if not flags.import_batch:
        await _offload(run, store, planner)
        return
    answers = _import(flags, run.plan, store, say)
    found = await planner.scan(None)
    if answers and not found.settled and not found.replays and found.waiting:
        raise UsageError(
            f"{flags.import_batch}: none of its answers belongs to this input under these settings",
            hint="use the same input, model, pipeline and sampling as with --export-batch",
        )
    left = found.live + found.waiting
    if left and not names_server(flags):
        raise UsageError(
            f"{left:,} questions are left, and no server is named that could be asked",
            hint="name one with --base-url, or hand them out again with --export-batch",
        )


def _import(flags: Flags, plan: RunPlan, store: BatchJobStore, say: Callable[[str], None]) -> int:
    from mellea_cli.run.batch_queue import import_replies

    answers, errors, strange = import_replies(Path(flags.import_batch or ""), plan.fingerprint.hex(), store)
    failed = f", {errors:,} requests without one" if errors else ""
    odd = f", {strange:,} lines that are no replies to requests of ours" if strange else ""
    say(f"{flags.import_batch}: {answers:,} answers{failed}{odd}")
    return answers


async def _offload(run: QueuedRun, store: BatchJobStore, planner: BatchPlanner) -> None:
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.backends.openai_batch import BatchClient
    from mellea_cli.events import nobody
    from mellea_cli.run.batch_queue import BatchFileWriter, BatchJobClient, OffloadRun, clear_leftovers
    from mellea_cli.run.executor import open_client
    from mellea_cli.ui.status import QueueLines

    flags, plan, say = run.flags, run.plan, run.show.say
    if not isinstance(run.backend, OpenAIBackend):
        raise UsageError(f"the backend {run.backend.name} has no batch queue")
    fingerprint = plan.fingerprint.hex()
    client = BatchClient(flags.base_url)
    _check_jobs(store, fingerprint, client.base_url, say)
    clear_leftovers(store.path, {job.file for job in store.jobs(fingerprint)})
    writer = BatchFileWriter(
        plan,
        client.base_url,
        store,
        run.backend.batch_body,
        open_client(plan, run.backend, nobody),
        max_requests=flags.batch_requests,
        max_bytes=flags.batch_bytes,
    )
    offload = OffloadRun(
        plan,
        planner,
        BatchJobClient(plan, client, store, window=flags.batch_window, tell=say),
        writer,
        run.stop,
        wait=flags.wait,
        poll_s=flags.batch_poll,
        tell=say,
        watch=QueueLines(say).tell,
    )
    try:
        await offload.run()
    finally:
        await client.aclose()


def _check_jobs(store: BatchJobStore, fingerprint: str, base_url: str, say: Callable[[str], None]) -> None:
    from mellea_cli.io.batch_jobs import read_jobs

    under_way = [job for job in read_jobs(store.path) if is_under_way(job)]
    if elsewhere := [job for job in under_way if job.plan == fingerprint and job.base_url != base_url]:
        raise UsageError(
            f"the batches of this output were submitted at {elsewhere[0].base_url}, not at {base_url}",
            hint=f"go on there: --base-url {elsewhere[0].base_url}",
        )
    if others := [job for job in under_way if job.plan != fingerprint]:
        say(f"{_many(others)} of other settings under way for this output and not looked at: see mellea jobs list")


def _many(jobs: list[Job]) -> str:
    return f"{len(jobs)} batches are" if len(jobs) > 1 else "1 batch is"


async def _live(run: QueuedRun, store: BatchJobStore, progress: BatchProgress, took_s: float) -> RunResult:
    """Ask live what no batch has answered; every other answer is in the journal."""
    from mellea_cli.run.batch import run_batch
    from mellea_cli.run.batch_planner import ReplayBackend

    plan = dataclasses.replace(run.plan, caps=_caps_left(run, progress, took_s))
    if progress.live and not run.stop.asked.is_set():
        run.show.say(f"{progress.live:,} texts are finished live")
    if run.stop.asked.is_set() and (jobs := store.jobs(run.plan.fingerprint.hex())):
        run.show.say(f"{_many(jobs)} left with the server; the same command brings in what comes of it")
    backend = ReplayBackend(run.backend, store, progress.replays)
    result = await run_batch(plan, backend, run.ends, observer=run.show.begin(), stop=run.stop)
    tally = result.tally
    tally.offloaded = progress.settled
    tally.reused = max(0, tally.reused - progress.settled)
    tally.calls += progress.calls
    tally.usage += progress.usage
    return result


def _caps_left(run: QueuedRun, progress: BatchProgress, took_s: float) -> Caps:
    """What the batches have left of the user's limits."""
    from mellea_cli.run.batch_planner import BATCH_PRICE

    caps = run.plan.caps
    tokens, cost = caps.tokens, caps.cost
    if tokens is not None:
        tokens -= progress.usage.total_tokens
    if cost is not None and caps.prices is not None:
        cost -= caps.prices.of(progress.usage) * BATCH_PRICE
    if progress.live and any(left is not None and left <= 0 for left in (tokens, cost)):
        run.stop.ask_once("the batches have used what the run may use", ExitCode.STOPPED_EARLY)
    left_s = None if caps.deadline_s is None else max(0.0, caps.deadline_s - took_s)
    return dataclasses.replace(caps, deadline_s=left_s, tokens=tokens, cost=cost)


def _store(ends: RunIO) -> BatchJobStore:
    from mellea_cli.io.batch_jobs import BatchJobStore
    from mellea_cli.io.journal import Journal

    if not isinstance(ends.answers, Journal):
        raise UsageError("batches need a journal beside the output", hint="name a file with -o")
    return BatchJobStore(ends.answers.path)


def _source(ends: RunIO) -> Source:
    from mellea_cli.io.source import Source

    if not isinstance(ends.source, Source):
        raise UsageError("batches need an input that can be read more than once", hint="name a file")
    return ends.source


def _planner(plan: RunPlan, ends: RunIO, source: Source, store: BatchJobStore, *, again: bool = False) -> BatchPlanner:
    from mellea_cli.run.batch_planner import BatchPlanner

    return BatchPlanner(plan, source.reread, ends.answers, store, retry_failed=ends.retry_failed, again=again)
