"""Runs the real program as a process and audits what it wrote: each item once, each answer with its item's mark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-never-to-be-seen-5f1c"
"""The key of every run: a test looks for it in everything that was written."""


def mark(number: int) -> str:
    """The mark of item `number`, which the model server copies into its answer."""
    return f"MARK-i{number:06d}x"


def write_input(path: Path, items: int, *, start: int = 0) -> None:
    """Write feedback as JSONL, each text with its own mark."""
    rows = ({"id": n, "text": f"The order was late and nobody answered. {mark(n)}"} for n in range(start, items))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass
class Audit:
    """What an output comes to, held against its input."""

    answered: list[int] = field(default_factory=list)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> set[str]:
        """The kinds of the failures."""
        return {error["kind"] for error in self.failed.values()}


def audit(output: Path, items: int) -> Audit:
    """Read an output: whole lines, ids in order and each once, every answer with the mark of its own item."""
    found = Audit()
    lines = output.read_text().splitlines() if output.exists() else []
    ids = []
    for line in lines:
        row = json.loads(line)
        number = row["id"]
        ids.append(number)
        if row.get("error") is not None:
            found.failed[number] = row["error"]
            continue
        if mark(number) not in str(row.get("summary")):
            found.problems.append(f"the answer of {number} is not its own: {row.get('summary')!r}")
        found.answered.append(number)
    if ids != sorted(set(ids)):
        found.problems.append("ids are out of order or doubled")
    missing = set(range(items)) - set(ids)
    if missing:
        found.problems.append(f"{len(missing)} items are missing, the first is {min(missing)}")
    return found


def command(source: Path, output: Path | str, url: str, *flags: str) -> list[str]:
    """The command line of a run: against an OpenAI-compatible server, or an Ollama when the address has no path."""
    program = [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output)]
    return [
        *program,
        "--backend",
        "openai" if url.endswith("/v1") else "ollama",
        "--base-url",
        url,
        "-m",
        "test-model",
        *flags,
    ]


def environment(home: Path) -> dict[str, str]:
    """An environment of its own, with the key in it; every file that is not asked for lands under `home`.

    No bytecode is written: under a limit on file sizes Python would leave torn files for others to load.
    """
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "OPENAI_API_KEY": KEY, "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The closing line of JSON on stderr."""
        line = next(line for line in reversed(self.err.splitlines()) if line.startswith("{"))
        loaded: dict[str, Any] = json.loads(line)
        return loaded


def listen() -> None:
    """Take Ctrl-C as usual: what a shell starts in the background would ignore it, and its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(arguments: list[str], home: Path, **more: Any) -> subprocess.Popen[str]:
    """Start the program in a process group of its own."""
    more.setdefault("preexec_fn", listen)
    return subprocess.Popen(
        arguments,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def end(process: subprocess.Popen[str], timeout: float = 60) -> Ended:
    """Wait for a process and read what it said."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the run did not end in {timeout} s: {err[-2000:]}") from None
    return Ended(process.returncode, out or "", err or "")


def run(arguments: list[str], home: Path, timeout: float = 60, **more: Any) -> Ended:
    """Run the program to its end."""
    return end(start(arguments, home, **more), timeout)


def leaks(folder: Path, *said: str) -> list[str]:
    """Every file under `folder`, and every text of `said`, in which the key stands."""
    found = [str(path) for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    return found + [text[:200] for text in said if KEY in text]


def until(holds: Any, what: str, timeout: float = 30) -> None:
    """Wait until a state holds that only looking can tell, such as the size of a file."""
    limit = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > limit:
            raise AssertionError(f"never came: {what}")
        time.sleep(0.005)
