# ruff: noqa: S603 - it starts its own server, its own program and the contenders
"""The whole program against bare loops and other clients, at the same calls on the same server.

    python benchmarks/wire.py                  # needs the dev extra
    python benchmarks/wire.py --peer PYTHON    # an interpreter with the bench extra: Mellea 0.8.0 and the OpenAI client

`mellea summarise` is measured as a whole process, from the start of Python to the renamed output, journal and all; the
others by their calls alone, once everything is imported and warm. The model server has a core of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Row, tell

HERE = Path(__file__).parent
TEXT = "The onboarding was confusing and took far too long, number {}. Support was helpful once I got through to them."
ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    """One way in which the calls are made."""

    in_flight: int
    latency_s: float
    long: bool
    items: int
    peer_calls: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.in_flight} in flight, {self.latency_s * 1000:.0f} ms, {'long' if self.long else 'short'} answers"


SETTINGS = (
    Setting(1, 0.0, False, 600, 200),
    Setting(32, 0.0, False, 1600, 300),
    Setting(32, 0.0, True, 1600, 300),
    Setting(256, 0.0, False, 1600, 300),
    Setting(32, 0.2, False, 600, 300),
    Setting(256, 0.2, False, 1600, 600),
)


def on_core(core: int) -> list[str]:
    """What keeps a program on one core, where the machine has several and the tool for it."""
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1:
        return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[core])]
    return []


@contextmanager
def model_server(*arguments: str) -> Iterator[str]:
    """The benchmark's model server on a core of its own; yields its address."""
    command = [*on_core(1), sys.executable, str(HERE / "model_server.py"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no stdout")
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def write_items(path: Path, count: int) -> None:
    """Write the input."""
    lines = (json.dumps({"id": number, "text": TEXT.format(number)}) for number in range(count))
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def write_bodies(path: Path) -> None:
    """Write the requests that `mellea summarise -p steps` sends for some items, as the others are to send them."""
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.messages import Options
    from mellea_cli.pipelines.default_prompts import PIPELINES

    backend = OpenAIBackend(base_url="http://127.0.0.1:9/v1", api_key="none")
    bodies = []
    for number in range(50):
        values: dict[str, Any] = {"text": TEXT.format(number), "summary": {"summary": TEXT.format(number)}}
        for step in PIPELINES["steps"].steps:
            request = step.request("bench", Options(temperature=0.0, max_tokens=step.max_tokens), values)
            bodies.append(backend.batch_body(request) | {"stream": True, "stream_options": {"include_usage": True}})
    path.write_text("".join(f"{json.dumps(body)}\n" for body in bodies), encoding="utf-8")


def summarise(folder: Path, url: str, items: int, *flags: str) -> dict[str, float]:
    """Run `mellea summarise` as a process: processor time and wall time of all of it, and what it says of itself."""
    write_items(folder / "in.jsonl", items)
    command = [
        *on_core(0), sys.executable, "-m", "mellea_cli", "summarise", "in.jsonl", "-o", "out.jsonl", "--fresh",
        "--backend", "openai", "-m", "bench", "--base-url", url, "--json", "-q", *flags,
    ]  # fmt: skip
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Python's own loop, as the contenders have it, also where uvloop is installed.
    environ = {**os.environ, "MELLEA_LOOP": "asyncio"}
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode != 0:
        raise RuntimeError(f"mellea summarise ended with {ran.returncode}: {ran.stderr[-2000:]}")
    said = json.loads(ran.stderr.splitlines()[-1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**said, "cpu_s": cpu_s, "wall_s": wall_s}


def contender(python: str, name: str, bodies: Path, url: str, setting: Setting) -> dict[str, float]:
    """Run one of the others."""
    calls = setting.peer_calls if name in {"openai", "mellea-0.8.0", "httpx"} else 3 * setting.items
    arguments = [name, str(bodies), url, str(calls), str(setting.in_flight)]
    command = [*on_core(0), python, str(HERE / "contenders.py"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in ran.stdout.splitlines() if line.startswith("FOUND")), "")
    if not line:
        raise RuntimeError(f"{name}: {ran.stderr[-2000:]}")
    found: dict[str, float] = json.loads(line.removeprefix("FOUND "))
    return found


def compare(setting: Setting, peer: str | None, folder: Path) -> None:
    """Measure everyone in turn, and print the medians of the ratios that each turn has given.

    How fast the machine is changes from one minute to the next, so what is compared ran side by side.
    """
    bodies = folder / "bodies.jsonl"
    write_bodies(bodies)
    others = {"aiohttp": sys.executable, "httpx-aiohttp": sys.executable, "httpx": sys.executable}
    if peer is not None:
        others |= {"openai": peer, "mellea-0.8.0": peer}
    per_call: dict[str, list[float]] = {name: [] for name in ("mellea", *others)}
    with model_server("--latency", str(setting.latency_s), *(["--long"] if setting.long else [])) as url:
        for _ in range(ROUNDS):
            ours = summarise(folder, url, setting.items, "-p", "steps", "-c", str(setting.in_flight))
            per_call["mellea"].append(ours["cpu_s"] / ours["calls"])
            for name, python in others.items():
                found = contender(python, name, bodies, url, setting)
                per_call[name].append(found["cpu_s"] / found["calls"])
    median_ms = {name: 1e3 * statistics.median(values) for name, values in per_call.items()}
    ratios = {
        name: statistics.median(own / other for own, other in zip(per_call["mellea"], values, strict=True))
        for name, values in per_call.items()
    }
    held = setting.latency_s == 0 and setting.in_flight in {32, 256}
    bars = {"httpx-aiohttp": 1.5, "mellea-0.8.0": 0.125} if held else {}
    for name in others:
        tell(
            Row(
                "wire",
                f"{setting.name}: CPU a call, mellea summarise / {name}",
                ratios[name],
                bar=bars.get(name),
                note=f"{median_ms['mellea']:.2f} / {median_ms[name]:.2f} ms",
            )
        )


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter in which `import mellea` works")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for setting in SETTINGS:
            compare(setting, args.peer, Path(name))


if __name__ == "__main__":
    main()
