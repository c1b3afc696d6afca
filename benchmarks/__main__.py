# ruff: noqa: S603 - it starts the benchmarks next to it
"""`python -m benchmarks`: run every benchmark of this folder, one after the other, and keep what they found.

Each prints ratios between contenders of one run; figures of different machines or runs are not to be compared. Rows go
to `benchmarks/results.json` with the machine and the versions; `docs/performance.md` quotes that file.

    python -m benchmarks --only startup,adaptive      # some of them; the rows of the others stay
    python -m benchmarks --peer PYTHON             # an interpreter with the bench extra, for those who compare with it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
# What the others are made of.
_PARTS = {"rows", "contenders", "model_server", "page", "__init__", "__main__"}
_PEERS = {"wire", "session"}
_VERSIONS = ("mellea-cli", "httpx", "httpx-aiohttp", "aiohttp", "pydantic", "rich", "typer")


def machine() -> dict[str, Any]:
    """What the figures were found on."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in _VERSIONS},
    }


def keep(rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of those of the same benchmarks."""
    parts = {row["part"] for row in rows}
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": []}
    here = machine()
    stay = [row for row in kept["rows"] if row["part"] not in parts]
    told = {"rows": [*stay, *({**row, "on": here} for row in rows)]}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run them; the exit code is the worst of theirs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter in which `import mellea` works")
    args = parser.parse_args()
    scripts = [script for script in sorted(HERE.glob("*.py")) if script.stem not in _PARTS]
    wanted = set(filter(None, args.only.split(",")))
    if unknown := wanted - {script.stem for script in scripts}:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder, "rows.jsonl")
        for script in scripts:
            if wanted and script.stem not in wanted:
                continue
            sys.stdout.write(f"== {script.stem}\n")
            sys.stdout.flush()
            more = ["--peer", args.peer] if args.peer and script.stem in _PEERS else []
            ran = subprocess.run(
                [sys.executable, str(script), *more], env={**os.environ, "MELLEA_BENCH_INTO": str(into)}, check=False
            )
            worst = max(worst, ran.returncode)
        if into.exists():
            keep([json.loads(line) for line in into.read_text(encoding="utf-8").splitlines()])
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
