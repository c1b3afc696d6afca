# ruff: noqa: S310, S603, T201 - it starts its own server and its own runs, and prints what it found
"""What a Ray cluster of workers brings, and what it costs the driver.

    python benchmarks/cluster.py                  # needs the ray extra
    python benchmarks/cluster.py --items 4000     # more items for the driver's cost

Prints three ratios and one cost. `throughput` is items a second of 1, 2 and 4 worker processes with 8 requests in
flight each, over those of one process without Ray with 8 in flight: the server takes 200 ms for each answer, so a
perfect cluster gives 1, 2 and 4. Only the time from the first request to the last answer counts, as the server saw it:
starting Ray is not in it. `driver` is the processor time that the driver's process needs for one item (journal, rows,
display off), without Ray's start: what is left of a second divided by it is the largest rate one driver can take in.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rows import Row, tell

LATENCY_S, EACH = 0.2, 8
ANSWER = {
    "positive_aspect": "friendly staff",
    "main_complaint": "the order came late",
    "urgency": "medium",
    "sentiment": "mixed",
    "summary": "The customer liked the staff but the order came late.",
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"


class Server:
    """A bare model server: every request gets one answer after a while. The tests' own would be the slower side."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._first = self._last = 0.0
        chunk = {"choices": [{"index": 0, "delta": {"content": json.dumps(ANSWER)}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": 60}}
        body = b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in (chunk, usage)) + b"data: [DONE]\n\n"
        self._answer = HEAD % len(body) + body

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client closes it."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /span"):
                    span, self._first = f"{self._last - self._first}".encode(), 0.0
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(span), span))
                    continue
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                self._first = self._first or time.monotonic()
                await asyncio.sleep(self._latency_s)
                writer.write(self._answer)
                self._last = time.monotonic()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve(self) -> None:
        """Print the address and serve until killed."""
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


@contextmanager
def model_server(latency_s: float) -> Iterator[str]:
    """The server in a process of its own; yields its address."""
    command = [sys.executable, __file__, "--serve", str(latency_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no stdout")
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def run(url: str, folder: Path, items: int, *flags: str) -> tuple[float, float]:
    """One run; returns items a second as the server saw them, and the run's own processor seconds.

    The processes that Ray starts are not waited for by the run's own process, so their time is not in it.
    """
    source = folder / f"{items}.jsonl"
    rows = (json.dumps({"id": number, "text": f"The order was late, number {number}."}) for number in range(items))
    source.write_text("".join(f"{row}\n" for row in rows))
    program = (
        "import sys, resource, atexit; sys.argv[0] = 'mellea';"
        "atexit.register(lambda: print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])));"
        "from mellea_cli.cli.entry import main; main()"
    )
    command = [sys.executable, "-c", program, "summarise", str(source), "-o", str(folder / "out.jsonl"), "--fresh"]
    command += ["-q", "--base-url", f"{url}/v1", "-m", "bench", *flags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    with urllib.request.urlopen(f"{url}/span") as answer:
        return items / float(answer.read()), float(done.stdout)


def throughput(folder: Path) -> None:
    """Print what 1, 2 and 4 workers bring over one process."""
    with model_server(LATENCY_S) as url:
        alone, _ = run(url, folder, 40 * EACH, "-c", str(EACH))
        for workers in (1, 2, 4):
            on_ray = ("--engine", "ray", "--ray-workers", str(workers), "-c", str(EACH * workers))
            rate, _ = run(url, folder, 40 * EACH * workers, *on_ray)
            note = f"{rate:.1f} / {alone:.1f} items/s"
            tell(Row("cluster", f"items a second, {workers} workers on Ray / one process", rate / alone, note=note))


def driver(folder: Path, items: int) -> None:
    """Print the driver's processor time for one item: the difference between a long run and a short one."""
    flags = ("--engine", "ray", "--ray-workers", "2", "-c", "128")
    few = items // 10
    with model_server(0.0) as url:
        costs = [run(url, folder, count, *flags)[1] for count in (few, items)]
        alone = [run(url, folder, count, "-c", "128")[1] for count in (few, items)]
    with_ray, without = ((more - less) / (items - few) * 1e3 for less, more in (costs, alone))
    note = f"{without:.2f} ms without; so one driver takes in {0.8e3 / with_ray:,.0f} items/s at 80 % of a core"
    tell(Row("cluster", "the driver's processor time an item", with_ray, "ms", note=note))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--items", type=int, default=3_000, help="items of the run that the driver's cost is taken from"
    )
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args, _ = parser.parse_known_args()
    if args.serve is not None:
        asyncio.run(Server(args.serve).serve())
    elif importlib.util.find_spec("ray") is None:
        print("skipped: Ray is not installed (pip install 'mellea-cli[ray]')")
    else:
        with tempfile.TemporaryDirectory() as folder:
            throughput(Path(folder))
            driver(Path(folder), args.items)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
