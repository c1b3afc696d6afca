"""Says how a run of a batch command ended."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli.ends import Input
from mellea_cli.cli.flags import Flags
from mellea_cli.errors import MelleaError

if TYPE_CHECKING:
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.tally import RunResult
    from mellea_cli.ui.show import Show
    from mellea_cli.ui.summary import RunSummary
    from mellea_cli.ui.themetable import Themed


def close(
    flags: Flags, plan: RunPlan, opened: Input, result: RunResult, show: Show, themed: Themed | None = None
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
