"""The command line: in this process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inprocess import run_in_process
from rowfiles import Process, Run, write_rows


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration, the cache or the state of whoever runs it."""
    for variable, name in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def mellea(tmp_path: Path) -> Run:
    """Run `mellea ARGS` in this process, in a folder of its own."""

    def run(*arguments: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Process:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        return run_in_process(arguments, tmp_path, given, env)

    return run


@pytest.fixture
def mellea_process(tmp_path: Path) -> Run:
    """Run `mellea ARGS` as a process in a folder of its own, for tests that are about the process."""

    def run(*arguments: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Process:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(
            [sys.executable, "-m", "mellea_cli", *arguments],
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            timeout=100,
            check=False,
            **source,
        )
        return Process(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def feedback(tmp_path: Path) -> Path:
    """Thirty rows, each with a text of its own."""
    rows = [{"id": number, "text": f"MARK-{number} The door of car {number} is stuck.", "n": 1} for number in range(30)]
    return write_rows(tmp_path / "feedback.jsonl", rows)
