# ruff: noqa: S603, T201 - it starts the benchmarks beside it, and says which one runs
"""`python -m benchmarks`: run every benchmark of this folder, one after the other.

Each prints ratios between contenders of one run; figures of different machines or runs are not to be compared.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them; the exit code is the worst of theirs."""
    worst = 0
    for script in sorted(Path(__file__).parent.glob("[!_]*.py")):
        print(f"== {script.stem}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=False).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
