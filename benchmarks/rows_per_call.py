# ruff: noqa: S603 - it starts the program
"""What `--rows-per-call` saves and costs with the embedded model: calls, tokens, CPU and right answers.

    python benchmarks/rows_per_call.py                # 1 and 4 rows in a request; a quarter of an hour on two cores
    python benchmarks/rows_per_call.py --sizes 1,2,4,8 -n 60

The rows and labels are those of the template `nps-reasons`. CPU is that of the program and of the model server that it
starts, which read the prompt's beginning in a run before this one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rows import Row, tell

from mellea_cli.cli.pipeline_file import template_path

NAME, FIELD = "nps-reasons", "reason"
ROWS = Path(__file__).parents[1] / "samples" / "templates" / f"{NAME}.jsonl"


def run(size: int, limit: int, model: str | None, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """Run the template with so many rows in a request; return its rows, its summary and its CPU seconds."""
    output = folder / f"{size}-{limit}.jsonl"
    command = [sys.executable, "-m", "mellea_cli", "run", str(template_path(NAME)), str(ROWS), "-o", str(output)]
    command += ["-b", "local", "--json", "-q", "-n", str(limit), *(["-m", model] if model else [])]
    command += ["--rows-per-call", str(size)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode not in {0, 3}:
        raise RuntimeError(f"mellea run ended with {ran.returncode}: {ran.stderr[-2000:]}")
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return rows, json.loads(ran.stderr.splitlines()[-1]), cpu


def measure(size: int, limit: int, model: str | None, folder: Path) -> None:
    """Measure one size and print its figures."""
    run(size, 1, model, folder)  # reads the beginning of the prompt, whose state is kept
    rows, summary, cpu = run(size, limit, model, folder)
    count = len(rows)
    right = sum(str(row[FIELD]).casefold() == row["expected"][FIELD].casefold() for row in rows)

    def say(what: str, value: float, unit: str, **more: Any) -> None:
        tell(Row("rows_per_call", f"{size} rows, {summary['model']}: {what}", value, unit, **more))

    say("right", 100 * right / count, "%", note=f"{count} rows, {summary['failed']} failed")
    say("calls a row", summary["calls"] / count, "calls", note=f"{summary['calls']} calls")
    say("prompt tokens a row", summary["prompt_tokens"] / count, "tokens")
    say("answer tokens a row", summary["completion_tokens"] / count, "tokens")
    say("CPU seconds a row", cpu / count, "s")


def main() -> None:
    """Measure the sizes one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="1,4", help="numbers, separated by commas")
    parser.add_argument("-m", "--model", help="a name from the catalogue, or a .gguf file")
    parser.add_argument("-n", "--limit", type=int, default=40, help="only the first rows; they are in mixed order")
    args = parser.parse_args()
    for size in args.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure(int(size), args.limit, args.model, Path(folder))


if __name__ == "__main__":
    main()
