# ruff: noqa: S603, S311 - it starts the program; the draws are no secrets
"""Estimates: how often the true time of a run lies within the interval of `--estimate`, and how far its cost is off.

    python benchmarks/estimates.py                     # a server with 1 s of latency, and the embedded model
    python benchmarks/estimates.py --only server --latency 0.2

The server on loopback answers after 1 s on average, evenly spread over 50 % around it. A run is estimated by a sample
first, whose answers are kept, and then goes on to its end; its summary says how long it took and what it cost. The
prices are made up: 0.15 and 0.60 for a million tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quality import labelled
from rows import Row, tell

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from loopback import Fault, ModelServer

RUNS = 10
SERVER_ROWS, SERVER_AT_ONCE = 80, 4
EMBEDDED_ROWS, EMBEDDED_MODEL = 30, "qwen2.5-coder-1.5b"
_PRICE = "0.15,0.60"
_WORDS = ("parcel", "late", "support", "slow", "but", "great", "crash", "export", "money", "refund", "twice", "again")


def texts(count: int, draw: random.Random) -> list[str]:
    """Made-up feedback of 5 to 80 words."""
    return [f"{number} " + " ".join(draw.choices(_WORDS, k=draw.randint(5, 80))) for number in range(count)]


def summarise(folder: Path, name: str, *flags: str) -> dict[str, Any]:
    """Run the program over an input of this name; the line of JSON at its end."""
    command = [sys.executable, "-m", "mellea_cli", "summarise", f"{name}.jsonl", "-o", f"{name}-out.jsonl", "--json"]
    done = subprocess.run(
        [*command, "--price", _PRICE, "--no-live", *flags], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    return found


def estimated_and_true(folder: Path, name: str, rows: Sequence[str], *flags: str) -> tuple[bool, float, float, str]:
    """Whether the time was within its interval, the errors of time and cost as shares, and the figures."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")
    expected = summarise(folder, name, "--estimate", *flags)
    true = summarise(folder, name, *flags)
    time, cost, took = expected["seconds"], expected["cost"], true["elapsed_s"]
    within = time["low"] <= took <= time["high"]
    figures = f"{time['low']:.1f} to {time['high']:.1f} s, took {took:.1f} s"
    return within, took / time["likely"] - 1, true["cost"] / cost["likely"] - 1, figures


def measure(part: str, runs: int, rows: int, folder: Path, *flags: str, labels: bool = False) -> None:
    """Estimate and do `runs` runs; print and keep what was found."""
    found = []
    for number in range(runs):
        draw = random.Random(number)
        pieces = [text for _, text in labelled()] if labels else []
        chosen = [f"{text} ({number})" for text in draw.choices(pieces, k=rows)] if labels else texts(rows, draw)
        found.append(estimated_and_true(folder, f"{part}-{number}", chosen, *flags))
        sys.stdout.write(f"  {part} {number}: {'within' if found[-1][0] else 'OUTSIDE'}: {found[-1][3]}\n")
        sys.stdout.flush()
    inside = sum(within for within, *_ in found)
    errors = [abs(cost) for _, _, cost, _ in found]
    tell(Row("estimates", f"{part}: true time within the interval, of {runs}", inside, "runs", 0.9 * runs, True))
    off = statistics.median(abs(time) for _, time, _, _ in found)
    tell(Row("estimates", f"{part}: median error of the likely time", 100 * off, "%"))
    tell(Row("estimates", f"{part}: largest error of the cost", 100 * max(errors), "%", 5.0))


def main() -> None:
    """Measure both, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["server", "embedded"])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    os.environ["MELLEA_LOOP"] = "asyncio"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        if options.only != "embedded":
            draw = random.Random(7)
            mean = options.latency

            def delayed(_: object) -> Fault:
                return Fault(latency_s=draw.uniform(0.5 * mean, 1.5 * mean))

            with ModelServer(fault=delayed) as server:
                flags = ("-b", "openai", "-m", "test-model", "--base-url", server.openai_url, "-c", str(SERVER_AT_ONCE))
                measure("server", options.runs, options.rows or SERVER_ROWS, folder, *flags)
        if options.only != "server":
            rows = options.rows or EMBEDDED_ROWS
            measure("embedded", options.runs, rows, folder, "-b", "local", "-m", options.model, labels=True)


if __name__ == "__main__":
    main()
