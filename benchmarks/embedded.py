# ruff: noqa: S603 - it starts the program
"""The embedded model: what the program adds to it, what its slots bring, and how soon the first item is done.

    python benchmarks/embedded.py        # half an hour on two cores

A bare client sends the requests of `mellea summarise` to the same embedded server at the same time, each of them as
many at once as the other, so that both have the machine as it is then: its speed changes by a third from one run to the
next. The first item is timed from the start of the program, with nothing kept from an earlier run and again on the run
after it; the model's file has been read before, so the disk plays no part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from quality import labelled
from rows import Row, tell

from mellea_cli.backends.http import WireClient
from mellea_cli.backends.llama_server import ServerConfig
from mellea_cli.backends.local import EmbeddedServer, PromptCache
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.messages import Options
from mellea_cli.models.store import ModelStore
from mellea_cli.pipelines.confidence import for_model
from mellea_cli.pipelines.default_prompts import SINGLE

MODEL = "qwen2.5-coder-1.5b"
SLOTS = (1, 2, 4)
CHOSEN = 4
ITEMS, ROUNDS, MORE_ROUNDS = 12, 3, 5
CONTEXT = 2048


def write_items(path: Path, count: int) -> list[str]:
    """Write the first so many labelled pieces of feedback as an input, and return them."""
    texts = [text for _, text in labelled()[:count]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return texts


def summarise(folder: Path, *flags: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run the program over the items; what it says of itself."""
    command = [
        sys.executable,
        "-m",
        "mellea_cli",
        "summarise",
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--fresh",
        "--json",
        "-q",
    ]
    ran = subprocess.run(
        [*command, "-m", MODEL, *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if ran.returncode not in {0, 3}:
        raise RuntimeError(f"mellea summarise ended with {ran.returncode}: {ran.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(ran.stderr.splitlines()[-1])
    return said


@asynccontextmanager
async def embedded_server(slots: int, states: Path) -> AsyncIterator[EmbeddedServer]:
    """The server as the program starts it, the beginning of the prompts in each slot."""
    path = ModelStore().find(MODEL)
    if path is None:
        raise SystemExit(f"get the model first: mellea models pull {MODEL}")
    server = await EmbeddedServer.start(ServerConfig(str(path), MODEL, slots, CONTEXT, prompt_cache=str(states)))
    client = OpenAIBackend(base_url=server.url + "/v1", api_key=server.api_key, keep_alive=False)
    wire = WireClient(server.url, api_key=server.api_key, headers={"Connection": "close"})
    try:
        prefixes = [step.prompt.prefix for step in SINGLE.steps]
        await PromptCache(wire, client, states, "bench", slots).warm(MODEL, prefixes, lambda _: None)
        yield server
    finally:
        await wire.aclose()
        await client.aclose()
        await server.stop()


def bodies(texts: Sequence[str], server: EmbeddedServer) -> list[dict[str, Any]]:
    """The requests that the program sends for these items."""
    backend = OpenAIBackend(base_url=server.url + "/v1", api_key=server.api_key)
    (step,) = for_model(SINGLE, "local", MODEL).steps
    options = Options(temperature=0.0, max_tokens=step.max_tokens)
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return [backend.batch_body(step.request(MODEL, options, {"text": text})) | stream for text in texts]


async def bare(server: EmbeddedServer, requests: Sequence[dict[str, Any]], in_flight: int) -> float:
    """Seconds that a loop with nothing in it but the calls takes."""
    import aiohttp

    url, headers = f"{server.url}/v1/chat/completions", {"Authorization": f"Bearer {server.api_key}"}
    left = iter(requests)
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def worker() -> None:
            for body in left:
                async with session.post(url, json=body, headers={"Connection": "close"}) as response:
                    async for line in response.content:
                        if line.startswith(b"data: {"):
                            json.loads(line[6:])

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return time.perf_counter() - began


async def same_server(folder: Path) -> None:
    """The program and the bare client side by side on one server."""
    texts = write_items(folder / "in.jsonl", ITEMS)
    ours_s, bare_s, calls = [], [], []
    each = CHOSEN // 2
    async with embedded_server(CHOSEN, folder) as server:
        requests = bodies(texts, server)
        flags = ("-b", "openai", "--base-url", server.url + "/v1", "-c", str(each))
        for _ in range(ROUNDS):
            environ = {"OPENAI_API_KEY": server.api_key}
            said, taken_s = await asyncio.gather(
                asyncio.to_thread(summarise, folder, *flags, env=environ), bare(server, requests, each)
            )
            ours_s.append(said["elapsed_s"])
            bare_s.append(taken_s)
            calls.append(said["calls"])
    ours, theirs = statistics.median(ours_s), statistics.median(bare_s)
    ratio = statistics.median(one / other for one, other in zip(bare_s, ours_s, strict=True))
    what = f"items a second, mellea summarise / a bare client, together on one server with {CHOSEN} slots"
    note = f"{ITEMS / ours:.3f} / {ITEMS / theirs:.3f} items/s; {max(calls)} calls for {ITEMS} items"
    tell(Row("embedded", what, ratio, bar=0.95, at_least=True, note=note))


def by_slots(folder: Path) -> None:
    """Items a second with so many slots, and with the number that the program chooses."""
    write_items(folder / "in.jsonl", ITEMS)
    measured: dict[int, list[float]] = {slots: [] for slots in SLOTS}
    whole = []
    for number in range(MORE_ROUNDS):
        for turn in range(number, number + len(SLOTS) + 1):  # each has its turn after each of the others
            setting = (*SLOTS, None)[turn % (len(SLOTS) + 1)]
            said = summarise(folder, "-b", "local", *(("-c", str(setting)) if setting else ()))
            rate = ITEMS / said["elapsed_s"]
            if setting:
                measured[setting].append(rate)
            else:
                whole.append((rate, int(said["concurrency"])))
    rates = {slots: statistics.median(values) for slots, values in measured.items()}
    landed = statistics.median_low(setting for _, setting in whole)
    searching = statistics.median(rate for rate, _ in whole)
    here = rates.get(landed, searching)
    fixed = ", ".join(f"{slots}: {rate:.3f}" for slots, rate in rates.items())
    note = f"it chooses {landed}: {searching:.3f}; fixed {fixed} items/s"
    what = "items a second at the chosen setting (-c auto) / with one slot"
    tell(Row("embedded", what, searching / rates[1], bar=1.2, at_least=True, note=note))
    best = max(rates.values())
    what = "the setting that -c auto finds / the best fixed one"
    tell(Row("embedded", what, here / best, bar=0.9, at_least=True, note=note))
    tell(Row("embedded", "the run with -c auto / the best fixed setting", searching / best))


def first_item_s(folder: Path, slots: int) -> float:
    """Seconds from the start of the program to the first finished row; the rest of the run is not waited for."""
    command = [sys.executable, "-m", "mellea_cli", "summarise", "in.jsonl", "--unordered", "--fresh", "-q"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "-b", "local", "-m", MODEL, "-c", str(slots)],
        cwd=folder,
        stdout=subprocess.PIPE,
        env={**os.environ, "MELLEA_CACHE_DIR": str(folder / "cache")},
    )
    if process.stdout is None or not process.stdout.readline():
        raise RuntimeError("no row came")
    taken = time.perf_counter() - began
    process.terminate()
    process.communicate()
    return taken


def until_the_first(folder: Path) -> None:
    """The first finished item with one slot and with four, on a first run and on the one after it."""
    write_items(folder / "in.jsonl", 8)
    found: dict[tuple[int, str], list[float]] = {}
    models = ModelStore().root
    (folder / "cache").mkdir()
    (folder / "cache" / "models").symlink_to(models)
    for _ in range(ROUNDS):
        for slots in (1, CHOSEN):
            for kept in (folder / "cache").glob("prompts/*"):
                kept.unlink()
            for run in ("first", "second"):
                found.setdefault((slots, run), []).append(first_item_s(folder, slots))
    median = {case: statistics.median(values) for case, values in found.items()}
    for run in ("first", "second"):
        ours, one = median[CHOSEN, run], median[1, run]
        what = f"first finished item, {run} run: {CHOSEN} slots / one slot"
        tell(Row("embedded", what, ours / one, bar=1.3, note=f"{ours:.1f} / {one:.1f} s"))
    first, second = median[CHOSEN, "first"], median[CHOSEN, "second"]
    what = f"first finished item with {CHOSEN} slots: second run / first run"
    tell(Row("embedded", what, second / first, bar=0.5, note=f"{second:.1f} / {first:.1f} s"))


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["bare", "slots", "first"], help="one of the three")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.only in {None, "first"}:
            until_the_first(folder)
        if args.only in {None, "bare"}:
            asyncio.run(same_server(folder))
        if args.only in {None, "slots"}:
            by_slots(folder)


if __name__ == "__main__":
    main()
