# ruff: noqa: S101, S310, S603, T201 - it starts its own programs, checks that they worked, and prints what it found
"""How near a pool of unequal and mortal servers comes to the ideal.

    python benchmarks/pool.py             # needs the dev extra; half a minute or so

Three servers with eight places each: two that take 0.4 s for an answer, one that takes ten times as long. One of the fast
ones is killed when half of the items are answered. The ideal is what the places that were there can do: a place gives an
answer each time its latency has passed, with nothing between two requests, no start and no end. Printed is the run's own
time as a ratio to that; `all well` is the same without a death. Nothing may be lost.
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

ROOT = Path(__file__).parents[1]
ITEMS, PLACES = 600, 8
FAST_S, SLOW_S = 0.4, 4.0


class Server:
    """A model server as a process of its own."""

    def __init__(self, latency_s: float) -> None:
        command = [sys.executable, "-m", "loopback", "--latency", str(latency_s)]
        self.process = subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.rate = PLACES / latency_s

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


def measured(folder: Path, *, dies: bool) -> tuple[dict[str, Any], float]:
    """Run over three servers; return the closing summary and the ideal time in seconds."""
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
    whole, rest = sum(server.rate for server in servers), sum(server.rate for server in servers[1:])
    ideal = ITEMS / 2 / whole + ITEMS / 2 / rest if dies else ITEMS / whole
    return json.loads(done.stderr.splitlines()[-1]), ideal


def main() -> int:
    """Measure both and print them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ({"id": n, "text": f"The order was late. MARK-i{n:05d}x"} for n in range(ITEMS))
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for label, dies in (("all well", False), ("one dies at half", True)):
            summary, ideal = measured(folder, dies=dies)
            shares = ", ".join(f"{one['answered']}" for one in summary["endpoints"])
            failed = sum(one["failures"] for one in summary["endpoints"])
            print(
                f"{label:<17} {summary['elapsed_s'] / ideal:5.2f} times the ideal  ({summary['elapsed_s']:.1f} s to "
                f"{ideal:.1f} s; answers by endpoint {shares}; {failed} requests sent again)",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
