"""`mellea jobs`: batches that `summarise --offload` has submitted to a provider."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mellea_cli.cli.app import command_group
from mellea_cli.cli.flags import MODEL, JsonFlag, write_json

if TYPE_CHECKING:
    from mellea_cli.backends.openai_batch import Batch, BatchClient
    from mellea_cli.io.batch_jobs import Job

jobs_app = command_group("List and cancel batches that --offload has submitted.")

_Output = Annotated[str, typer.Argument(help="Output file of the run, as given with -o.")]
_BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="MELLEA_BASE_URL",
        show_envvar=False,
        metavar="URL",
        help="Server address; its key: OPENAI_API_KEY.",
        rich_help_panel=MODEL,
    ),
]
_ANSWER_S = 30.0


@jobs_app.command("list")
def list_jobs(
    outputs: Annotated[
        list[str] | None,
        typer.Argument(help="Output files of runs (default: those in this folder).", show_default=False),
    ] = None,
    base_url: _BaseUrl = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="Include finished batches.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the batches of runs and their progress."""
    from mellea_cli.cli.offload import batch_state
    from mellea_cli.ui.console import print_table, say

    journals = [_journal(output) for output in outputs] if outputs else sorted(Path().glob("*.journal"))
    places = [(path, job) for path in journals for job in _jobs(path, named=bool(outputs))]
    places = [place for place in places if all_jobs or place[1].state != "over"]
    if not places and not as_json:
        say(sys.stderr, "no batch is under way" + ("" if outputs else " for an output in this folder"))
        return
    seen, problems = asyncio.run(_check([job for _, job in places], base_url)) if places else ({}, [])
    rows = []
    for path, job in places:
        batch = seen.get(job.tag)
        state = batch_state(batch, job.requests) if batch is not None else job.status or "not submitted yet"
        when = datetime.fromtimestamp(job.created, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        rows.append((path.name.removesuffix(".journal"), job.batch_id or "-", when, f"{job.requests:,}", state))
    headers = ("output", "batch", "submitted", "requests", "state")
    if as_json:
        facts = [{**dict(zip(headers, row, strict=True)), "requests": job.requests, "batch": job.batch_id or None}
                 for row, (_, job) in zip(rows, places, strict=True)]  # fmt: skip
        write_json({"jobs": facts, "problems": problems})
        return
    print_table(rows, headers=headers, stream=sys.stdout, environ=os.environ)
    for line in problems:
        say(sys.stderr, line)


@jobs_app.command("cancel")
def cancel_jobs(
    output: _Output,
    batches: Annotated[
        list[str] | None, typer.Argument(help="Batches (default: all of this output).", show_default=False)
    ] = None,
    base_url: _BaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Cancel batches; the next run with --offload collects the answers that they already have."""
    from mellea_cli.errors import UsageError
    from mellea_cli.ui.console import say

    jobs = _jobs(_journal(output), named=True)
    under_way = [job for job in jobs if job.state == "submitted"]
    known = {job.batch_id for job in under_way}
    if strange := sorted(set(batches or ()) - known):
        raise UsageError(f"{output}: has no batch {strange[0]} under way", hint=f"see: mellea jobs list {output}")
    chosen = [job for job in under_way if not batches or job.batch_id in batches]
    if any(job.state == "submitting" for job in jobs):
        say(
            sys.stderr,
            "a batch was being submitted: the same summarise command with --offload finds out whether it was",
        )
    if not chosen:
        say(sys.stderr, f"{output}: no batch is under way")
        if as_json:
            write_json({"output": output, "cancelled": []})
        return
    asyncio.run(_cancel(chosen, base_url))
    _note_cancelled(output, chosen)
    if as_json:
        write_json({"output": output, "cancelled": [job.batch_id for job in chosen]})
        return
    say(sys.stderr, f"cancelled {', '.join(job.batch_id for job in chosen)}; it may take the server some minutes")
    say(sys.stderr, "the same summarise command with --offload takes the answers and submits the rest")


def _note_cancelled(output: str, jobs: list[Job]) -> None:
    """Note in the journal that these batches may be given up."""
    from mellea_cli.errors import OutputBusy
    from mellea_cli.io.batch_jobs import BatchJobStore
    from mellea_cli.io.files import OutputLock, resolve_output

    target = resolve_output(output)
    try:
        with OutputLock(target.lock, target.name), closing(BatchJobStore(target.journal)) as store:
            for job in jobs:
                store.change(job.tag, state="submitted", status="cancelling")
    except OutputBusy:
        return  # the run that writes the output sees the cancellation itself


def _journal(output: str) -> Path:
    from mellea_cli.io.files import resolve_output

    return resolve_output(output).journal


def _jobs(journal: Path, *, named: bool) -> list[Job]:
    from mellea_cli.errors import OutputError
    from mellea_cli.io.batch_jobs import read_jobs

    try:
        return read_jobs(journal)
    except OutputError:
        if named:
            raise
        return []  # a file of another program with the same suffix


async def _check(jobs: list[Job], base_url: str | None) -> tuple[dict[str, Batch], list[str]]:
    """The batches by job tag, and one line for each reason why a batch could not be checked."""
    from mellea_cli.backends.openai_batch import BatchClient
    from mellea_cli.errors import MelleaError

    seen: dict[str, Batch] = {}
    reasons: dict[str, None] = {}
    client = BatchClient(base_url)
    try:
        for job in (one for one in jobs if one.state == "submitted"):
            if job.base_url != client.base_url:
                reasons[f"{_elsewhere(job)}: add --base-url {job.base_url}"] = None
                continue
            try:
                async with asyncio.timeout(_ANSWER_S):
                    seen[job.tag] = await client.get(job.batch_id)
            except (MelleaError, TimeoutError) as error:
                reasons[f"not checked: {error or 'no answer in time'}"] = None
    finally:
        await client.aclose()
    return seen, list(reasons)


def _elsewhere(job: Job) -> str:
    # The key goes only where the user says: the journal may come from another person.
    return f"{job.batch_id} was submitted to {job.base_url}"


async def _cancel(jobs: list[Job], base_url: str | None) -> None:
    from mellea_cli.backends.openai_batch import BatchClient
    from mellea_cli.errors import UsageError

    client = BatchClient(base_url)
    try:
        for job in jobs:
            if job.base_url != client.base_url:
                raise UsageError(_elsewhere(job), hint=f"add --base-url {job.base_url}")
            await _cancel_one(client, job)
    finally:
        await client.aclose()


async def _cancel_one(client: BatchClient, job: Job) -> None:
    from mellea_cli.errors import BackendUnavailable

    try:
        async with asyncio.timeout(_ANSWER_S):
            batch = await client.get(job.batch_id)
            # A server refuses to cancel what is over, and what is over needs no cancelling.
            if not batch.over and batch.status != "cancelling":
                await client.cancel(job.batch_id)
    except TimeoutError as error:
        raise BackendUnavailable(f"{client.base_url} did not answer within {_ANSWER_S:.0f} s") from error
