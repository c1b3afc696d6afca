"""Kills a run with --offload again and again at random moments and counts what the queue was handed.

`PYTHONPATH=tests python tests/reliability/offload_kills.py --kills 40` prints the figures; the suite runs a short
version. Files are small, so that a run submits many batches and a kill often falls between two steps of one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from audit import audit, command, end, leaks, run, start, write_input

from loopback import BatchPlan, ModelServer
from mellea_cli.io.batch_jobs import read_jobs

FLAGS = ("--offload", "--batch-poll", "0.1", "--batch-requests", "10", "-q", "--json")


@dataclass
class Figures:
    """What came of it."""

    kills: int = 0
    killed_while_sending: int = 0
    """Kills after which nobody here knew whether a file or a batch had been taken on."""
    finished_before_the_kill: int = 0
    items: int = 0
    batches: int = 0
    batches_by_killed_runs: int = 0
    handed_in_twice: int = 0
    """Requests that stood in more than one batch."""
    answered_twice: int = 0
    lost: int = 0
    identical: bool = False
    leaked: int = 0
    leftovers: int = 0

    @property
    def good(self) -> bool:
        """Whether every promise was kept. The first question, which goes live, is in doubt at each kill."""
        kept = not (self.handed_in_twice or self.lost or self.leaked or self.leftovers)
        return self.identical and kept and self.answered_twice <= self.kills


def harness(kills: int, items: int, seed: int, folder: Path) -> Figures:
    """Kill `kills` times, finish, and hold the output against a live run's."""
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    figures = Figures(items=items)
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(source, items)
    released = False

    def slow(route: str, _number: int) -> None:
        # A moment in which a kill finds the request done but not yet answered.
        if route in {"upload", "create", "content"}:
            time.sleep(0.03)

    plan = BatchPlan(looks=4, held=lambda: not released and draw.random() < 0.7, route=slow)
    with ModelServer(record=False, batches=plan) as server:
        arguments = command(source, output, server.openai_url, *FLAGS)
        for kill in range(kills):
            process = start(arguments, folder)
            if kill % 4 == 0:
                time.sleep(draw.uniform(0.3, 1.5))
            else:
                arrived = server.state.queue_calls + draw.randint(1, 8)
                with suppress(TimeoutError):
                    server.wait(lambda state, arrived=arrived: state.queue_calls >= arrived, 10)
                time.sleep(draw.uniform(0, 0.05))
            figures.finished_before_the_kill += process.poll() is not None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end(process)
            figures.kills += 1
            states = {job.state for job in read_jobs(folder / "out.jsonl.journal")}
            figures.killed_while_sending += bool(states & {"uploading", "submitting"})
        released = True
        figures.batches_by_killed_runs = server.state.batches
        last = run(arguments, folder, 300)
        state = server.state
        found = audit(output, items)
        figures.batches = state.batches
        figures.handed_in_twice = sum(count > 1 for count in state.batch_rows.values())
        figures.answered_twice = sum(count - 1 for count in state.attempts.values())
        figures.lost = items - len(found.answered) + len(found.problems)
        figures.leaked = len(leaks(folder, last.out, last.err))
        figures.leftovers = len(list(folder.glob("*.batch-*")))
    figures.identical = output.read_bytes() == live(source, folder / "live.jsonl")
    return figures


def live(source: Path, output: Path) -> bytes:
    """The output of a live run."""
    with ModelServer(record=False) as server:
        ended = run(command(source, output, server.openai_url, "-q"), source.parent, 300)
    assert ended.code == 0, ended.err
    return output.read_bytes()


def main() -> int:
    """Print the figures as JSON; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = harness(args.kills, args.items, args.seed, Path(folder))
    sys.stdout.write(json.dumps({**asdict(figures), "good": figures.good}) + "\n")
    return 0 if figures.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
