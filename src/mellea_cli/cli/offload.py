"""Batch files around a run of `mellea summarise`: `--offload`, `--export-batch` and `--import-batch`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.backends.base import Backend
from mellea_cli.cli.backend_setup import names_provider, network_policy, secrets
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode, InputError, MelleaError, OutputError, UsageError
from mellea_cli.events import nobody
from mellea_cli.io.batch_jobs import BatchJobStore, Job, read_jobs
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import Journal
from mellea_cli.io.source import Source
from mellea_cli.run.batch import RunIO, RunResult, run_batch
from mellea_cli.run.batch_queue import (
    BATCH_PRICE,
    BatchFileWriter,
    BatchJobClient,
    BatchPlanner,
    BatchProgress,
    ExportFile,
    OffloadRun,
    ReplayBackend,
    clear_leftovers,
    import_replies,
)
from mellea_cli.run.control import RunControl
from mellea_cli.run.executor import open_client
from mellea_cli.run.plan import Caps, RunPlan
from mellea_cli.ui.console import count, plural
from mellea_cli.ui.run_display import RunDisplay

if TYPE_CHECKING:
    from mellea_cli.backends.openai_batch import Batch


def check_flags(options: RunOptions, source: Source) -> None:
    """Refuse what cannot be done with batch files."""
    name = next(name for name in ("offload", "export_batch", "import_batch") if getattr(options, name))
    flag = "--" + name.replace("_", "-")
    if options.offload and (options.export_batch or options.import_batch):
        raise UsageError(
            "--offload does automatically what --export-batch and --import-batch do by hand", hint="choose one"
        )
    if options.backend not in {"auto", "openai"}:
        raise UsageError(f"{flag} needs OpenAI's batch format, which --backend {options.backend} does not have")
    if options.has_pool:
        raise UsageError(f"{flag} is for one provider, not for a pool", hint="name one --base-url")
    if options.offload and not names_provider(options):
        raise UsageError(
            "--offload needs a provider", hint="name it: --backend openai for OpenAI itself, or --base-url"
        )
    if resolve_output(options.output).kind != "file":
        raise UsageError(f"{flag} keeps its state next to the output file", hint="name a file with -o")
    if not source.repeatable:
        raise UsageError(f"{flag} reads the input more than once", hint="name a file instead of a pipe")


def refuse_to_forget_jobs(journal: Path, options: RunOptions) -> None:
    """Refuse a run that would lose submitted batches, or ask for their rows a second time."""
    try:
        # A cancelled batch may be given up.
        jobs = [job for job in read_jobs(journal) if _is_submitted(job) and job.status != "cancelling"]
    except OutputError:
        return  # whatever opens the journal reports the problem, unless --fresh replaces it
    if jobs and (options.fresh or not options.offload):
        raise UsageError(
            f"{options.output}: {_batches_are(jobs)} submitted for it, and its rows would be paid for twice",
            hint=f"continue with --offload (without --fresh), or give up: mellea jobs cancel {options.output}",
        )
    if options.fresh and not jobs:
        clear_leftovers(journal, set())


def _is_submitted(job: Job) -> bool:
    # A job whose submission was interrupted may have reached the server.
    return job.state in {"submitting", "submitted"}


def _batches_are(jobs: Sequence[Job]) -> str:
    return f"{len(jobs)} batches are" if len(jobs) > 1 else "1 batch is"


def export(options: RunOptions, plan: RunPlan, run_io: RunIO, source: Source, say: Callable[[str], None]) -> ExitCode:
    """Write every request that can be asked now to a file; nothing is sent."""
    from mellea_cli.backends.openai import chat_body

    file = ExportFile(Path(options.export_batch or ""), lambda request: chat_body(request, is_openai=False))
    with closing(_job_store(run_io)) as store:
        planner = _planner(plan, run_io, source, store, again=True)
        if options.import_batch:
            _import(options, plan, store, say)
        try:
            asyncio.run(planner.scan(file))
        finally:
            file.discard()
    if not file.requests:
        say("there is nothing to ask: no file was written; the same command without --export-batch completes the run")
        return ExitCode.OK
    say(f"wrote {plural(file.requests, 'request')} to {options.export_batch}")
    say(f"next: vllm run-batch -i {options.export_batch} -o REPLIES --model {plan.model}")
    say("then: the same command with --import-batch REPLIES instead of --export-batch")
    return ExitCode.OK


@dataclass(frozen=True)
class QueuedRun:
    """What a run with batch files works with."""

    options: RunOptions
    plan: RunPlan
    run_io: RunIO
    backend: Backend
    show: RunDisplay
    stop: Stop
    control: RunControl | None = None


async def run_queued(run: QueuedRun) -> RunResult:
    """Take the answers of batch files, then ask live for the rest.

    Returns:
        How the run ended, with the answers of batches.
    """
    if not isinstance(run.run_io.source, Source):
        raise UsageError("batches need an input that can be read more than once", hint="name a file")
    loop = asyncio.get_running_loop()
    started = loop.time()

    def stop_at_deadline() -> None:
        run.stop.ask_once("the run's deadline has passed (--deadline)", ExitCode.STOPPED_EARLY)

    with closing(_job_store(run.run_io)) as store:
        deadline = run.plan.caps.deadline_s
        timer = loop.call_later(deadline, stop_at_deadline) if deadline is not None else None
        error: MelleaError | None = None
        planner = _planner(run.plan, run.run_io, run.run_io.source, store)
        try:
            if run.options.import_batch:
                await _take_import(run, store, planner)
            else:
                await _offload(run, store, planner)
        except MelleaError as failed:
            # Finished rows are still written: the run goes on as one that stops.
            error = failed
            run.stop.ask_once(failed.message, failed.exit_code)
        finally:
            if timer is not None:
                timer.cancel()
        result = await _ask_live(run, store, planner.progress, loop.time() - started)
        if not result.stopped:
            store.clear(run.plan.fingerprint.hex())
    return dataclasses.replace(result, elapsed_s=loop.time() - started, error=error or result.error)


async def _take_import(run: QueuedRun, store: BatchJobStore, planner: BatchPlanner) -> None:
    answers = _import(run.options, run.plan, store, run.show.say)
    planned = await planner.scan(None)
    if answers and not planned.settled and not planned.replays and planned.waiting:
        raise UsageError(
            f"{run.options.import_batch}: none of its answers belongs to this input with these settings",
            hint="use the same input, model, pipeline and sampling as with --export-batch",
        )
    missing = planned.live + planned.waiting
    if missing and not names_provider(run.options):
        raise UsageError(
            f"{missing:,} questions have no answer, and no server is named that could answer them",
            hint="name one with --base-url, or export them again with --export-batch",
        )


def _import(options: RunOptions, plan: RunPlan, store: BatchJobStore, say: Callable[[str], None]) -> int:
    answers, errors, foreign = import_replies(Path(options.import_batch or ""), plan.fingerprint.hex(), store)
    failed = f", {plural(errors, 'request')} without one" if errors else ""
    skipped = f", {plural(foreign, 'line')} not about requests of mellea" if foreign else ""
    if not (answers or errors):
        raise InputError(
            f"no line answers a request of mellea ({foreign:,} lines read)",
            path=options.import_batch or "",
            hint="name the output file of a batch that was exported with --export-batch",
        )
    say(f"{options.import_batch}: {plural(answers, 'answer')}{failed}{skipped}")
    return answers


async def _offload(run: QueuedRun, store: BatchJobStore, planner: BatchPlanner) -> None:
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.backends.openai_batch import BatchClient

    options, plan, backend, say = run.options, run.plan, run.backend, run.show.say
    if not isinstance(backend, OpenAIBackend):
        raise UsageError(f"the backend {plan.backend} has no batch queue")
    fingerprint = plan.fingerprint.hex()
    client = BatchClient(options.server_url, network=network_policy(options), secrets=secrets(options))
    try:
        _check_jobs(store, fingerprint, client.base_url, say)
        clear_leftovers(store.path, {job.file for job in store.jobs(fingerprint)})
        writer = BatchFileWriter(
            plan,
            client.base_url,
            store,
            backend.batch_body,
            open_client(plan, backend, nobody),
            max_requests=options.batch_requests,
            max_bytes=options.batch_bytes,
        )
        await OffloadRun(
            plan,
            planner,
            BatchJobClient(plan, client, store, window=options.batch_window, tell=say),
            writer,
            run.stop,
            wait=options.wait,
            poll_s=options.batch_poll,
            tell=say,
            watch=BatchLines(say).update,
        ).run()
    finally:
        await client.aclose()


def _check_jobs(store: BatchJobStore, fingerprint: str, base_url: str, say: Callable[[str], None]) -> None:
    submitted = [job for job in read_jobs(store.path) if _is_submitted(job)]
    if elsewhere := [job for job in submitted if job.plan == fingerprint and job.base_url != base_url]:
        raise UsageError(
            f"the batches of this output were submitted to {elsewhere[0].base_url}, not to {base_url}",
            hint=f"continue there: --base-url {elsewhere[0].base_url}",
        )
    if others := [job for job in submitted if job.plan != fingerprint]:
        say(f"{_batches_are(others)} submitted for this output with other settings and ignored: see mellea jobs list")


async def _ask_live(run: QueuedRun, store: BatchJobStore, progress: BatchProgress, took_s: float) -> RunResult:
    """Ask live what no batch has answered; every other answer is in the journal."""
    plan = dataclasses.replace(run.plan, caps=_remaining_caps(run, progress, took_s))
    if progress.live and not run.stop.asked.is_set():
        run.show.say(f"asking live: {plural(progress.live, 'text')}")
    # A file of requests that the server refused, or was never sent, is no batch.
    jobs = [job for job in store.jobs(run.plan.fingerprint.hex()) if _is_submitted(job)]
    if run.stop.asked.is_set() and jobs:
        run.show.say(f"{_batches_are(jobs)} still on the server; the same command takes the answers")
    backend = ReplayBackend(run.backend, store, progress.replays)
    result = await run_batch(
        plan, backend, run.run_io, observer=run.show.begin(plan.caps.prices), stop=run.stop, control=run.control
    )
    tally = result.tally
    tally.offloaded = progress.settled
    tally.reused = max(0, tally.reused - progress.settled)
    tally.calls += progress.calls
    tally.usage += progress.usage
    tally.queue_usage = progress.usage
    return result


def _remaining_caps(run: QueuedRun, progress: BatchProgress, took_s: float) -> Caps:
    """The user's limits less what the batches used."""
    caps = run.plan.caps
    tokens, cost = caps.tokens, caps.cost
    if tokens is not None:
        tokens -= progress.usage.total_tokens
    if cost is not None and caps.prices is not None:
        cost -= caps.prices.of(progress.usage) * BATCH_PRICE
    if progress.live and any(remaining is not None and remaining <= 0 for remaining in (tokens, cost)):
        run.stop.ask_once("the batches have used what the run may use", ExitCode.STOPPED_EARLY)
    remaining_s = None if caps.deadline_s is None else max(0.0, caps.deadline_s - took_s)
    return dataclasses.replace(caps, deadline_s=remaining_s, tokens=tokens, cost=cost)


def _job_store(run_io: RunIO) -> BatchJobStore:
    if not isinstance(run_io.answers, Journal):
        raise UsageError("batches need a journal next to the output file", hint="name a file with -o")
    return BatchJobStore(run_io.answers.path)


def _planner(
    plan: RunPlan, run_io: RunIO, source: Source, store: BatchJobStore, *, again: bool = False
) -> BatchPlanner:
    return BatchPlanner(plan, source.reread, run_io.answers, store, retry_failed=run_io.retry_failed, again=again)


_BATCH_STATES = {
    "validating": "being checked",
    "in_progress": "in progress",
    "finalizing": "being finished",
    "completed": "done",
    "expired": "expired",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "failed": "refused",
}


class BatchLines:
    """Prints how batches progress, but only what is new: another state, or another tenth done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._printed: dict[str, tuple[str, int]] = {}

    def update(self, batch: Batch, requests: int) -> None:
        tenths = 10 * (batch.completed + batch.failed) // max(1, requests)
        if self._printed.get(batch.id) != (batch.status, tenths):
            self._printed[batch.id] = (batch.status, tenths)
            self._say(f"{batch.id}: {batch_state(batch, requests)}")


def batch_state(batch: Batch, requests: int) -> str:
    """The state of a batch in a few words."""
    done = f"{count(batch.completed)} of {count(requests)} answered" if batch.completed or batch.failed else ""
    failed = f"{count(batch.failed)} failed" if batch.failed else ""
    return ", ".join(filter(None, (_BATCH_STATES.get(batch.status, batch.status), done, failed)))
