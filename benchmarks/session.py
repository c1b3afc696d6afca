# ruff: noqa: S310, S603 - it starts its own server and its own interpreter, and prints what it found
"""What a session costs: against a bare loop over the same client, and against the reference library.

    python benchmarks/session.py                  # needs the dev extra
    python benchmarks/session.py --peer PYTHON    # an interpreter that has the bench extra: Mellea 0.8.0

Prints three kinds of figures. `first` is the wall time of the import and of the first call. `fan-out` is the wall
time of 2,000 thunks fired at once (limiter 16, a server that takes 10 ms to answer) over the time that a bare loop of
16 workers needs for the same requests over the same client; the server counts the requests that it ever had at once.
`cpu` is the processor time of one `ainstruct` call against that of the same request over the bare client, and against
the peer's call, on one server in one run. The calls come one after the other there, so each of them wakes the
session's thread and the caller's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from rows import Row, tell

from mellea_cli import start_session, wait_for_all_mots
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.messages import GenerateRequest, Message

ROOT = Path(__file__).parents[1]
MODEL = "granite4.1:3b"

FAN_OUT, LIMIT, LATENCY_S, ROUNDS = 2_000, 16, 0.010, 5
CALLS, WARM_UP = 300, 20

# Both sides run this: only the import differs.
ONE_CALL_AFTER_ANOTHER = """
import asyncio, logging, sys, time
import {package} as mellea
url, calls, warm_up = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def main():
    m = mellea.start_session("ollama", "{model}", base_url=url)
    async def one(number):
        thunk = await m.ainstruct("Summarise: {{{{text}}}}", user_variables={{"text": f"MARK-{{number}}"}})
        await thunk.avalue()
    for number in range(warm_up):
        await one(number)
    before = time.process_time()
    for number in range(calls):
        await one(number)
    print("CPU", (time.process_time() - before) / calls)
logging.disable(logging.CRITICAL)
asyncio.run(main())
"""

# The same requests over the bare client.
ONE_REQUEST_AFTER_ANOTHER = """
import asyncio, sys, time
from contextlib import aclosing
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.messages import GenerateRequest, Message
url, calls, warm_up = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def main():
    backend = OllamaBackend(base_url=url)
    await backend.prepare("{model}")
    async def one(number):
        request = GenerateRequest("{model}", (Message("user", f"Summarise: MARK-{{number}}"),))
        async with aclosing(backend.stream(request)) as chunks:
            "".join([chunk.text async for chunk in chunks])
    for number in range(warm_up):
        await one(number)
    before = time.process_time()
    for number in range(calls):
        await one(number)
    print("CPU", (time.process_time() - before) / calls)
    await backend.aclose()
asyncio.run(main())
"""


FIRST_CALL = """
import sys, time
began = time.perf_counter()
import mellea_cli
imported = time.perf_counter()
mellea_cli.start_session("ollama", "{model}", base_url=sys.argv[1]).instruct("Say hello")
print(imported - began, time.perf_counter() - imported)
"""


@contextmanager
def model_server(latency_s: float = 0.0) -> Iterator[str]:
    """The tests' loopback server in a process of its own; yields its address."""
    command = [sys.executable, "-m", "loopback", "--latency", str(latency_s)]
    process = subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no stdout")
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def counts(url: str) -> dict[str, int]:
    """The server's own counts since they were last asked for."""
    with urllib.request.urlopen(f"{url}/counts") as answer:
        found: dict[str, int] = json.load(answer)
    urllib.request.urlopen(f"{url}/counts/clear", data=b"").close()
    return found


async def bare(url: str) -> float:
    """Seconds for all requests in a bare loop: workers that read one stream after the other."""
    backend = OllamaBackend(base_url=url)
    numbers = iter(range(FAN_OUT))

    async def worker() -> None:
        for number in numbers:
            request = GenerateRequest(MODEL, (Message("user", f"Summarise: MARK-{number}"),))
            async with aclosing(backend.stream(request)) as chunks:
                "".join([chunk.text async for chunk in chunks])

    await backend.prepare(MODEL)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(LIMIT):
            workers.create_task(worker())
    took = time.perf_counter() - began
    await backend.aclose()
    return took


async def fanned_out(url: str) -> float:
    """Seconds for as many thunks of one session, all fired before the first is awaited."""
    async with start_session("ollama", MODEL, base_url=url, concurrency=LIMIT) as m:
        # The bare loop's clock starts when its connections are ready to be made, so this one's does too.
        await m.ainstruct("Warm up.", await_result=True)
        began = time.perf_counter()
        thunks = [
            await m.ainstruct("Summarise: {{text}}", user_variables={"text": f"MARK-{number}"})
            for number in range(FAN_OUT)
        ]
        await wait_for_all_mots(thunks)
        took = time.perf_counter() - began
    if any(f"MARK-{number} " not in (thunk.value or "") for number, thunk in enumerate(thunks)):
        raise RuntimeError("an answer is not the answer to its own request")
    return took


def fan_out() -> None:
    """Print the wall times and their ratio."""
    ratios, notes, most = [], [], 0
    with model_server(LATENCY_S) as url:
        for _ in range(ROUNDS):
            gc.collect()
            loop_s = asyncio.run(bare(url))
            counts(url)
            session_s = asyncio.run(fanned_out(url))
            seen = counts(url)
            ratios.append(session_s / loop_s)
            notes.append(f"{session_s:.2f} / {loop_s:.2f} s")
            most = max(most, seen["max_in_flight"])
    what = f"{FAN_OUT:,} thunks of one session, {most} in flight / a bare loop over the same backend"
    tell(Row("session", what, statistics.median(ratios), bar=1.3, note=", ".join(notes)))


def cpu_per_call(python: str, program: str, url: str) -> float:
    """Seconds of processor time for one call, measured in a process of its own."""
    ran = subprocess.run(
        [python, "-c", program, url, str(CALLS), str(WARM_UP)], capture_output=True, text=True, check=True
    )
    return float(next(line for line in ran.stdout.splitlines() if line.startswith("CPU")).split()[1])


def cpu(peer: str | None) -> None:
    """Print the processor time of a call against the bare client's, and the peer's when there is one."""
    ours, bare_client, theirs = [], [], []
    our_calls = ONE_CALL_AFTER_ANOTHER.format(package="mellea_cli", model=MODEL)
    with model_server() as url:
        for _ in range(3):
            bare_client.append(cpu_per_call(sys.executable, ONE_REQUEST_AFTER_ANOTHER.format(model=MODEL), url))
            ours.append(cpu_per_call(sys.executable, our_calls, url))
            if peer is not None:
                theirs.append(cpu_per_call(peer, ONE_CALL_AFTER_ANOTHER.format(package="mellea", model=MODEL), url))
    our_ms, bare_ms = statistics.median(ours) * 1e3, statistics.median(bare_client) * 1e3
    note = f"{our_ms:.2f} / {bare_ms:.2f} ms"
    tell(
        Row("session", "processor time of an instruction / of the bare client's", our_ms / bare_ms, bar=1.3, note=note)
    )
    if theirs:
        their_ms = statistics.median(theirs) * 1e3
        note = f"{our_ms:.2f} / {their_ms:.2f} ms"
        tell(
            Row(
                "session", "processor time of an instruction / of Mellea 0.8.0's", our_ms / their_ms, bar=0.2, note=note
            )
        )


def first_call() -> None:
    """Print how long a program waits for the import and for its first answer, in seconds."""
    with model_server() as url:
        command = [sys.executable, "-c", FIRST_CALL.format(model=MODEL), url]
        found = [
            [
                float(figure)
                for figure in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            ]
            for _ in range(ROUNDS)
        ]
    imports, calls = (statistics.median(column) for column in zip(*found, strict=True))
    tell(Row("session", "import mellea_cli", imports, "s", bar=0.04))
    tell(Row("session", "start_session and the first call, on a server that answers at once", calls, "s", bar=0.6))


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter in which `import mellea` works")
    parser.add_argument("--only", choices=["fan-out", "cpu", "first"], help="one of them")
    args = parser.parse_args()
    if args.only in {None, "first"}:
        first_call()
    if args.only in {None, "fan-out"}:
        fan_out()
    if args.only in {None, "cpu"}:
        cpu(args.peer)


if __name__ == "__main__":
    main()
