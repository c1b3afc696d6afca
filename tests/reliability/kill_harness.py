"""Kills a run again and again at random moments and counts what became of its answers.

`PYTHONPATH=tests python tests/reliability/kill_harness.py --kills 200 --items 2000` prints the figures; the suite runs
a short version. The model server fails at a few requests as well, and counts for itself what was asked and answered.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from audit import audit, command, end, leaks, run, start, write_input

from loopback import ModelServer, faults

FLAGS = ("-c", "8", "-q", "--json")
FAULTS = (faults.status(500), faults.cut(), faults.no_finish(), faults.status(408), faults.half_json())


@dataclass
class Figures:
    """What came of it."""

    kills: int = 0
    items: int = 0
    killed_at_start: int = 0
    finished_before_the_kill: int = 0
    answers_sent: int = 0
    """Whole answers that the server gave."""
    paid_twice: int = 0
    lost: int = 0
    identical: bool = False
    leaked: int = 0

    @property
    def good(self) -> bool:
        """Whether every promise was kept: an answer is paid twice only where a kill came before its commit."""
        return self.identical and not self.lost and not self.leaked and self.paid_twice <= 8 * self.kills


class Broken(AssertionError):
    """A promise was broken after a kill."""


def stored(journal: Path) -> dict[bytes, str]:
    """Every answer in the journal, read as another program would."""
    if not journal.exists() or journal.stat().st_size == 0:
        return {}
    with closing(sqlite3.connect(journal)) as db:
        try:
            return dict(db.execute("SELECT key, outcome FROM answers").fetchall())
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return {}
            raise


def check(folder: Path, before: dict[bytes, str], kill: int) -> dict[bytes, str]:
    """Look at what a killed run has left: whole lines parse, and nothing that stood before is gone."""
    now = stored(folder / "out.jsonl.journal")
    gone = [key for key in before if key not in now]
    if gone:
        raise Broken(f"after kill {kill}: {len(gone)} answers of {len(before)} are gone")
    for name in ("out.jsonl", "out.jsonl.partial"):
        path = folder / name
        if not path.exists():
            continue
        whole, mark, _ = path.read_bytes().rpartition(b"\n")
        for line in (whole + mark).splitlines():
            json.loads(line)
    return now


def harness(kills: int, items: int, seed: int, latency_s: float, folder: Path) -> Figures:
    """Kill `kills` times, finish, and hold the output against an unbroken run's."""
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    figures = Figures(items=items)
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(source, items)
    settings = {"record": False, "latency_s": latency_s, "fault": faults.drawn(seed, 0.05, *FAULTS)}
    with ModelServer(**settings) as server:
        arguments = command(source, output, server.openai_url, *FLAGS)
        known: dict[bytes, str] = {}
        for kill in range(1, kills + 1):
            process = start(arguments, folder)
            at_start = kill % 4 == 0
            time.sleep(draw.uniform(0, 0.9) if at_start else draw.uniform(0.9, 2.2))
            figures.finished_before_the_kill += process.poll() is not None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end(process)
            figures.kills += 1
            figures.killed_at_start += at_start
            known = check(folder, known, kill)
        last = run(arguments, folder, 600)
        found = audit(output, items)
        figures.answers_sent = server.state.completed
        figures.paid_twice = server.state.completed - items
        figures.lost = items - len(found.answered) + len(found.problems)
        figures.leaked = len(leaks(folder, last.out, last.err))
    figures.identical = output.read_bytes() == unbroken(source, folder / "unbroken.jsonl")
    return figures


def unbroken(source: Path, output: Path) -> bytes:
    """The output of a run that nothing disturbs."""
    with ModelServer(record=False) as server:
        ended = run(command(source, output, server.openai_url, *FLAGS), source.parent, 600)
    if ended.code != 0:
        raise Broken(f"the unbroken run ended with {ended.code}: {ended.err}")
    return output.read_bytes()


def main() -> int:
    """Print the figures as JSON; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.4, help="seconds before an answer begins")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = harness(args.kills, args.items, args.seed, args.latency, Path(folder))
    sys.stdout.write(json.dumps({**asdict(figures), "good": figures.good}) + "\n")
    return 0 if figures.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
