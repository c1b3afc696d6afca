"""Rows in files, and the program as a process: what tests of whole runs share."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loopback import ModelServer

Process = subprocess.CompletedProcess[str]
Run = Callable[..., Process]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows of JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def interrupted(command: Sequence[str], folder: Path, server: ModelServer, *, answered: int) -> tuple[int, str]:
    """Start the program in `folder`, press Ctrl-C once the server has answered that many, and wait for the end.

    Returns:
        The exit code, and what was said on stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "mellea_cli", *command], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        server.wait(lambda state: state.completed >= answered, timeout=60)
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, talk
