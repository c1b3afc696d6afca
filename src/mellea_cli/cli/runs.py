"""`mellea status`, `runs`, `pause`, `resume`, `stop` and `tune`: this machine's runs, seen from outside."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.flags import JsonFlag, concurrency_limit, write_json
from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.run.control import RunRecord

_Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output file of the run, or its process id.")]
_Json = Annotated[bool, typer.Option("--json", help="One line of JSON for each run.")]

# A run that was killed is listed by `mellea status` for a day; `mellea runs` has it for longer.
_RECENT_S = 86_400.0


def status(as_json: _Json = False) -> None:
    """Show the current runs on this machine, and those that were killed in the last day."""
    from mellea_cli.run.control import read_runs
    from mellea_cli.ui.console import say

    runs, later = [], set()
    for run in read_runs():  # the latest first
        # A killed run that was started again is no news, however the later run has ended.
        recent = time.time() - run.updated < _RECENT_S
        if run.goes_on or (run.state == "lost" and recent and run.output not in later):
            runs.append(run)
        if run.output != "-":
            later.add(run.output)
    if as_json:
        _print_json(runs)
    elif runs:
        _print_table(runs)
        for run in runs:
            if run.state == "lost" and run.next_command:
                say(sys.stderr, f"{_short(run.output)}: its answers are safe; to continue: {run.next_command}")
    else:
        say(sys.stderr, "nothing is running; mellea runs shows the runs that have ended")


def runs(
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Most runs to show.", show_default=True)] = 20,
    as_json: _Json = False,
) -> None:
    """Show the latest runs on this machine, those that have ended included."""
    from mellea_cli.run.control import read_runs
    from mellea_cli.ui.console import say

    found = read_runs()[:number]
    if as_json:
        _print_json(found)
    elif found:
        _print_table(found, history=True)
    else:
        say(sys.stderr, "no run has been seen on this machine yet")


def pause(
    output: _Output,
    reason: Annotated[str | None, typer.Option(help="What its display says.", show_default="mellea pause")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Pause a run: requests in flight are finished, and no new one is sent until mellea resume."""
    _ask(output, {"do": "pause", "reason": reason}, as_json=as_json)


def resume(output: _Output, as_json: JsonFlag = False) -> None:
    """Continue a paused run."""
    _ask(output, {"do": "resume"}, as_json=as_json)


def stop(output: _Output, as_json: JsonFlag = False) -> None:
    """Stop a run as Ctrl-C does: rows in flight are finished, and the same command continues. Twice: at once."""
    _ask(output, {"do": "stop"}, as_json=as_json)


def tune(
    output: _Output,
    concurrency: Annotated[
        str | None, typer.Option("-c", "--concurrency", metavar="N", help="Requests in flight at most.")
    ] = None,
    rpm: Annotated[float | None, typer.Option(min=0.0, help="Requests per minute at most; 0: no limit.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change the limits of a running run."""
    if concurrency is None and rpm is None:
        raise UsageError("nothing was named to change", hint=f"mellea tune {output} -c 8, or --rpm 60")
    number = concurrency_limit(concurrency) if concurrency is not None else None
    if concurrency is not None and number is None:
        raise UsageError("-c auto is for the start of a run", hint="name a number, such as -c 8")
    _ask(output, {"do": "tune", "concurrency": number, "rpm": rpm}, as_json=as_json)


def _ask(output: str, request: dict[str, Any], *, as_json: bool) -> None:
    from mellea_cli.run.control import ask_run, find_run
    from mellea_cli.ui.console import say

    run = find_run(output)
    answer = ask_run(run, request)
    if as_json:
        write_json({"output": run.output, "answer": answer})
    else:
        say(sys.stderr, f"{_short(run.output)}: {answer}")


def _print_json(runs: Sequence[RunRecord]) -> None:
    private = {"socket", "locked"}
    for run in runs:
        record = {name: value for name, value in asdict(run).items() if name not in private}
        sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _print_table(runs: Sequence[RunRecord], *, history: bool = False) -> None:
    from mellea_cli.run.control import clock
    from mellea_cli.ui.console import money, print_table, rate

    rows: list[list[Any]] = []
    for run in runs:
        of = f"/{run.total:,}" if run.total is not None else ""
        done = f"{run.rows:,}{of}" + (f", {run.failed:,} failed" if run.failed else "")
        speed = f"{rate(run.items_per_s)} items/s" if run.items_per_s else "-"
        cost = money(run.cost, run.currency) if run.cost is not None else "-"
        row: list[Any] = [_short(run.output), "", done, speed]
        if history:
            row += [clock(run.started), cost, run.model]
        else:
            row += [clock(run.finish_at) if run.finish_at else "-", cost, str(run.pid)]
        rows.append(row)
    headers: tuple[str, ...] = (
        "output",
        "state",
        "done",
        "rate",
        *(("started", "cost", "model") if history else ("finish", "cost", "pid")),
    )
    # The other columns keep their width: a long message is cut, and --json has it whole.
    others = sum(max(len(name), *(len(str(row[at])) for row in rows)) + 2 for at, name in enumerate(headers) if at != 1)
    most = max(_NARROWEST_STATE, get_terminal_size((_PLAIN_WIDTH, 0)).columns - others)
    for row, run in zip(rows, runs, strict=True):
        row[1] = _state(run, most)
    print_table(rows, headers=headers, stream=sys.stdout, environ=os.environ)


_NARROWEST_STATE = 40
_PLAIN_WIDTH = 120  # Where there is no terminal
_ROLES = {"running": "done", "paused": "warn", "finished": "good", "lost": "bad", "failed": "bad", "stopped": "warn"}


def _state(run: RunRecord, most: int) -> tuple[str, str]:
    """The state for people in `most` characters: what a killed or a silent run says of itself would not be true."""
    from mellea_cli.run.control import SILENT_S, clock

    doubled = run.reason.startswith(run.state)
    text = run.reason if doubled else f"{run.state}: {run.reason}" if run.reason else run.state
    code = ""
    if run.state == "lost":
        text = f"ended without notice, last seen {clock(run.updated)}"
    elif run.socket and time.time() - run.updated > SILENT_S:
        # A run with a socket writes its record once a second; one that prepares, or waits for a batch queue, does not.
        text = f"silent since {clock(run.updated)}: its process stands still"
    elif run.exit_code:
        code = f" (exit code {run.exit_code})"
    room = max(1, most - len(code))
    text = " ".join(text.split())
    return _ROLES.get(run.state, "plain"), (text if len(text) <= room else f"{text[: room - 1]}\u2026") + code


def _short(output: str) -> str:
    """A path as short as it can be from here."""
    if output == "-":
        return "stdout"
    here, home = Path.cwd(), Path.home()
    path = Path(output)
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else output
