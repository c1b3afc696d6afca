"""Makes the N-th system call of a kind fail on a run's own files, for each kind and N, and counts what became of it.

`PYTHONPATH=tests python tests/reliability/fault_injection.py` prints a table; it needs strace. After each fault the
same command is typed again: everything must be there then, and nothing that had been committed may be asked for again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit import audit, command, leaks, run, write_input
from kill_harness import stored

from loopback import ModelServer, find_mark

ITEMS = 60
FLAGS = ("-c", "8", "--json", "-q")
CALLS = {
    "write": "ENOSPC",
    "pwrite64": "ENOSPC",
    "fsync": "EIO",
    "fdatasync": "EIO",
    "rename": "EACCES",
    "openat": "EIO",
}
TIMES = (1, 2, 3, 7, 20)


@dataclass(frozen=True)
class Seen:
    """What became of one fault."""

    call: str
    error: str
    when: int
    code: int
    """The exit code of the run that met it; 0 when it never came to that call, or could do without."""
    said: str
    kept: int
    """Answers in the journal after it."""
    paid_twice: int
    asked_again: int
    """Of the kept ones: there must be none."""
    went_on: bool
    """Whether the next run ended well, with every item once."""

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        told = self.code == 0 or (self.code == 5 and "out.jsonl" in self.said)
        return told and self.went_on and not self.asked_again and self.paid_twice <= 8 + 2


def why_not() -> str:
    """Why system calls cannot be made to fail here; empty when they can."""
    program = shutil.which("strace")
    if program is None:
        return "strace is not installed here"
    probe = subprocess.run([program, "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "strace may not trace here" if probe.returncode else ""


def tracing(call: str, error: str, when: int, paths: Sequence[Path]) -> list[str]:
    """A command line in front of another that makes its `when`-th `call` on any of `paths` fail."""
    only = [part for path in paths for part in ("-P", str(path))]
    return ["strace", "-f", "-qq", "-o", "/dev/null", *only, "-e", f"inject={call}:error={error}:when={when}"]


def inject(call: str, when: int, folder: Path) -> Seen:
    """Run with the fault, look, and run again without it."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(source, ITEMS)
    journal = folder / "out.jsonl.journal"
    files = [output, folder / "out.jsonl.partial", journal, folder / "out.jsonl.journal-wal"]
    with ModelServer(record=False, latency_s=0.01) as server:
        arguments = command(source, output, server.openai_url, *FLAGS)
        first = run([*tracing(call, CALLS[call], when, files), *arguments], folder, 200)
        kept = {find_mark(text) for text in stored(journal).values()}
        asked = server.state.attempts.copy()
        again = run(arguments, folder, 200)
        found = audit(output, ITEMS)
        later = server.state.attempts - asked
        clean = again.code == 0 and not found.problems and len(found.answered) == ITEMS
        return Seen(
            call=call,
            error=CALLS[call],
            when=when,
            code=first.code,
            said=next((line for line in first.err.splitlines() if '"error": {' in line), ""),
            kept=len(kept),
            paid_twice=server.state.completed - ITEMS,
            asked_again=sum(find_mark(prompt) in kept for prompt in later),
            went_on=clean and not leaks(folder, first.err, again.err) and "Traceback" not in first.err,
        )


def main() -> int:
    """Print a row for each fault; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", nargs="+", default=list(CALLS), choices=list(CALLS))
    parser.add_argument("--when", nargs="+", type=int, default=list(TIMES))
    args = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    if reason := why_not():
        parser.error(reason)
    good = True
    for call in args.calls:
        for when in args.when:
            with tempfile.TemporaryDirectory() as folder:
                seen = inject(call, when, Path(folder))
            told = seen.said.replace(folder + "/", "")
            facts = [seen.call, seen.error, seen.when, seen.code, told, seen.kept, seen.paid_twice, seen.good]
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
            good &= seen.good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
