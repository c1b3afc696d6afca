"""Kills a run again and again at random moments and counts what became of its answers.

`PYTHONPATH=tests python tests/reliability/kill_harness.py --kills 200 --items 2000` prints the figures; the suite runs
a short version. The model server fails at a few requests as well, and counts for itself what was asked and answered,
and when: each answer that was paid for twice is traced to the kill that lost it, which must have found it uncommitted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from audit import audit, command, end, leaks, run, start, until, write_input

from loopback import ModelServer, faults, find_mark

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
    on_its_way_at_the_kill: int = 0
    """Of those: the server was not through with the answer yet."""
    not_yet_committed: int = 0
    """Of those: the answer had been sent, and was not in the journal that the kill left."""
    unexplained: int = 0
    """Of those: any other. There must be none."""
    most_at_one_kill: int = 0
    oldest_uncommitted_s: float = 0.0
    """The longest time between such an answer's end and the kill that lost it."""
    lost: int = 0
    identical: bool = False
    leaked: int = 0

    @property
    def good(self) -> bool:
        """Whether every promise was kept: an answer is paid twice only where a kill came before its commit."""
        # What may be lost: the eight in flight, and the two on their way to the disk that the run allows itself.
        kept = self.identical and not self.lost and not self.leaked and not self.unexplained
        return kept and self.most_at_one_kill <= 8 + 2


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


@dataclass(frozen=True)
class Kill:
    """A kill and what the journal held after it."""

    at: float
    until: float
    """When the next run was about to start: what the server was asked before that, the killed run had asked."""
    committed: frozenset[str]
    """The marks of the answers in the journal."""


def trace(figures: Figures, answered: list[tuple[str, float, float]], kills: list[Kill]) -> None:
    """Find the kill behind each answer that was paid for more than once."""
    times: dict[str, list[tuple[float, float]]] = {}
    for mark, asked, sent in answered:
        times.setdefault(mark, []).append((asked, sent))
    lost_at: Counter[float] = Counter()
    for mark, each in times.items():
        for (asked, sent), (again, _) in pairwise(sorted(each)):
            figures.paid_twice += 1
            # The kill that ended the run which asked: it must have come before the second time, and without a commit.
            kill = next((kill for kill in kills if kill.until >= asked), None)
            if kill is None or again <= kill.until or mark in kill.committed:
                figures.unexplained += 1
                continue
            lost_at[kill.at] += 1
            if sent > kill.at:
                figures.on_its_way_at_the_kill += 1
            else:
                figures.not_yet_committed += 1
                figures.oldest_uncommitted_s = max(figures.oldest_uncommitted_s, round(kill.at - sent, 3))
    figures.most_at_one_kill = max(lost_at.values(), default=0)


def working(server: ModelServer, asked: int, process: subprocess.Popen[str]) -> bool:
    """Whether the process has sent a request beyond the `asked` of its forerunners, or has ended."""
    return server.state.requests > asked or process.poll() is not None


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
        moments: list[Kill] = []
        for kill in range(1, kills + 1):
            asked = server.state.requests
            process = start(arguments, folder)
            at_start = kill % 4 == 0
            if at_start:
                time.sleep(draw.uniform(0, 0.9))
            else:
                # However long the start takes on a busy machine: these moments lie among the answers.
                until(partial(working, server, asked, process), "its first request")
                time.sleep(draw.uniform(0, 1.0))
            figures.finished_before_the_kill += process.poll() is not None
            now = time.monotonic()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end(process)
            figures.kills += 1
            figures.killed_at_start += at_start
            known = check(folder, known, kill)
            moments.append(Kill(now, time.monotonic(), frozenset(find_mark(text) for text in known.values())))
        last = run(arguments, folder, 600)
        found = audit(output, items)
        figures.answers_sent = server.state.completed
        trace(figures, server.state.answered, moments)
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
    # The server's complaints about clients that went away are the point of this, and too many to print.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        figures = harness(args.kills, args.items, args.seed, args.latency, Path(folder))
    sys.stdout.write(json.dumps({**asdict(figures), "good": figures.good}) + "\n")
    return 0 if figures.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
