"""What may go by batch files: the flags, the two ends, and the batches that are under way already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli.flags import Flags
from mellea_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.io.jobs import Job
    from mellea_cli.io.source import Source

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
    from mellea_cli.io.target import resolve_output

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
    from mellea_cli.io.jobs import look_up_jobs

    try:
        # What somebody has cancelled may be given up.
        known = look_up_jobs(journal)
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
        from mellea_cli.run.handin import clear_leftovers

        clear_leftovers(journal, set())
