# ruff: noqa: S101, S310, S603 - it starts its own programs, checks that they worked, and prints what it found
"""How near a pool of unequal and mortal servers comes to the ideal.

    python benchmarks/pool.py             # needs the dev extra; a minute and a half

Three servers with eight places each: two that take 0.8 s for an answer, one that takes ten times as long. One of the
fast ones is killed when half of the items are answered. The ideal is what the places that were there can do: a place
gives an answer each time an answer's time has passed, with nothing between two requests, no start and no end. Printed
is the run's own time as a ratio to that, twice: with the time that each endpoint's answers took in this run (the
median), which is what the machine was able to, and with the time that the servers wait. `all well` is the same without
a death. Nothing may be lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from rows import Row, tell

ROOT = Path(__file__).parents[1]
ITEMS, PLACES = 600, 8
FAST_S, SLOW_S = 0.8, 8.0


class Server:
    """A model server as a process of its own."""

    def __init__(self, latency_s: float) -> None:
        command = [sys.executable, "-m", "loopback", "--latency", str(latency_s)]
        self.process = subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def completed(self) -> int:
        """Answers that it has given."""
        with urlopen(f"{self.url}/counts") as response:
            counts: dict[str, int] = json.load(response)
        return counts["completed"]

    def kill(self) -> None:
        """Kill -9, as a crash or a power cut would."""
        self.process.kill()
        self.process.wait()


def kill_at_half(servers: list[Server], over: threading.Event) -> None:
    """Kill the first server when half of the items are answered."""
    while not over.is_set():
        if sum(server.completed() for server in servers) >= ITEMS / 2:
            servers[0].kill()
            return
        time.sleep(0.05)


def ideal_s(latencies_s: list[float], *, dies: bool) -> float:
    """The least time for all items at these latencies; the first server is there for half of them when it dies."""
    rates = [PLACES / latency for latency in latencies_s]
    half = ITEMS / 2
    return half / sum(rates) + half / sum(rates[1:] if dies else rates)


def run(folder: Path, *, dies: bool) -> dict[str, Any]:
    """Run over three servers, hold the output against the input, and return the closing summary."""
    servers = [Server(FAST_S), Server(FAST_S), Server(SLOW_S)]
    output = folder / f"{dies}.jsonl"
    config = folder / "config.toml"
    urls = ", ".join(f'"{server.url}"' for server in servers[:2])
    config.write_text(
        f'[pool.bench]\nmodel = "test-model"\nconcurrency = {PLACES}\nurls = [{urls}]\n'
        f'[[pool.bench.endpoints]]\nurl = "{servers[2].url}/v1"\n'
    )
    command = [sys.executable, "-m", "mellea_cli", "summarise", str(folder / "in.jsonl"), "-o", str(output)]
    over = threading.Event()
    killer = threading.Thread(target=kill_at_half, args=(servers, over))
    if dies:
        killer.start()
    try:
        done = subprocess.run(
            [*command, "--pool", "bench", "--json"],
            env={**os.environ, "MELLEA_CONFIG": str(config)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        over.set()
        if dies:
            killer.join()
        for server in servers:
            server.kill()
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(ITEMS))
    assert all(f"MARK-i{row['id']:05d}x" in row["summary"] for row in rows)
    summary: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return summary


def main() -> int:
    """Measure both and print them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ({"id": n, "text": f"The order was late. MARK-i{n:05d}x"} for n in range(ITEMS))
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for label, dies in (("all well", False), ("one dies at half", True)):
            summary = run(folder, dies=dies)
            took, endpoints = summary["elapsed_s"], summary["endpoints"]
            able = ideal_s([one["median_s"] for one in endpoints], dies=dies)
            nominal = ideal_s([FAST_S, FAST_S, SLOW_S], dies=dies)
            shares = ", ".join(str(one["answered"]) for one in endpoints)
            again = sum(one["failures"] for one in endpoints)
            note = f"{took:.1f} / {able:.1f} s; answers {shares}; {again} sent again"
            tell(Row("pool", f"{label}: time / the ideal by what was measured of the servers", took / able, note=note))
            tell(Row("pool", f"{label}: time / the ideal by the servers' own times", took / nominal))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
