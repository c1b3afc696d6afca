"""Rows in files, and the program as a process: what tests of whole runs share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Process = subprocess.CompletedProcess[str]
Run = Callable[..., Process]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
