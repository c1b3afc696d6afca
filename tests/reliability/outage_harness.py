"""Takes the server away in the middle of a run and counts what that cost.

`PYTHONPATH=tests python tests/reliability/outage_harness.py --seconds 30` prints the figures for each kind, and those
of a provider that lets four requests in at once; the suite runs a short version.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from audit import audit, command, end, leaks, run, start, write_input

from loopback import Call, Fault, ModelServer, faults

FLAGS = ("-c", "8", "--json", "-q", "--first-token-timeout", "0.5")
KINDS: dict[str, Fault | None] = {
    "refused": None,
    "503": faults.status(503),
    "503 with Retry-After": faults.status(503, headers={"Retry-After": "1"}),
    "hang": faults.stall(0),
}


@dataclass
class Figures:
    """What an outage cost."""

    kind: str
    outage_s: float
    items: int
    exit_code: int
    failed: int
    problems: int
    requests: int
    max_in_flight: int
    longest_silence_after_s: float
    """Seconds from the server's return to the first request that it got then."""
    leaked: int

    @property
    def good(self) -> bool:
        """Whether no row was lost and at most 12 % more requests were sent."""
        clean = self.exit_code == self.failed == self.problems == self.leaked == 0
        return clean and self.requests <= 1.12 * self.items and self.max_in_flight <= 8


class Gate:
    """A fault plan that can be switched on for a while."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.on = False

    def __call__(self, call: Call) -> Fault | None:
        return self.fault if self.on else None


def harness(kind: str, seconds: float, items: int, folder: Path) -> Figures:
    """Run `items`, take the server away after a third of them, bring it back after `seconds`."""
    gate = Gate(KINDS[kind])
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(source, items)
    with ModelServer(record=False, latency_s=0.05, fault=gate) as server:
        process = start(command(source, output, server.openai_url, *FLAGS), folder)
        server.wait(lambda state: state.completed >= items // 3, 60)
        gate.on = True
        if gate.fault is None:
            server.stop()
        time.sleep(seconds)
        gate.on = False
        if gate.fault is None:
            server.start()
        back = time.monotonic()
        ended = end(process, 120)
        found = audit(output, items)
        silence = min((at - back for at in server.state.started if at > back), default=0.0)
        return Figures(
            kind=kind,
            outage_s=seconds,
            items=items,
            exit_code=ended.code,
            failed=len(found.failed),
            problems=len(found.problems),
            requests=server.state.requests,
            max_in_flight=server.state.max_in_flight,
            longest_silence_after_s=round(silence, 1),
            leaked=len(leaks(folder, ended.out, ended.err)),
        )


def four_places(retry_after: str, folder: Path) -> dict[str, object]:
    """Hold sixteen wanted requests against a provider that lets in four; the ideal is all four busy all the time."""
    items, latency_s = 400, 0.2
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(source, items)
    with ModelServer(record=False, latency_s=latency_s, max_parallel=4, retry_after=retry_after) as server:
        ended = run(command(source, output, server.openai_url, "-c", "16", "-q", "--json"), folder, 300)
        found = audit(output, items)
        took = ended.summary["elapsed_s"]
        return {
            "kind": "four places, 429 beyond",
            "retry_after": retry_after,
            "items": items,
            "exit_code": ended.code,
            "failed": len(found.failed),
            "requests": server.state.requests,
            "times_ideal": round(took / (items * latency_s / 4), 2),
        }


def main() -> int:
    """Print a line of JSON for each kind; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--items", type=int, default=400)
    args = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    good = True
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            figures = harness(kind, args.seconds, args.items, Path(folder))
        good = good and figures.good
        sys.stdout.write(json.dumps({**asdict(figures), "good": figures.good}) + "\n")
        sys.stdout.flush()
    for retry_after in ("", "1"):
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(four_places(retry_after, Path(folder))) + "\n")
            sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
