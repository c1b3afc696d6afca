"""What the tests on real servers share; `realservers.py` lists the variables that name the servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from realservers import TIMEOUT_S, RealServer, Run, real_server
from relay import Relay


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration, the cache or the state of whoever runs it."""
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


@pytest.fixture(params=["ollama", "ollama-openai", "litellm", "llamacpp"])
def server(request: pytest.FixtureRequest) -> RealServer:
    """Each server, Ollama by both of its protocols."""
    return real_server(request.param)


@pytest.fixture
def relays() -> Iterator[Callable[[str], Relay]]:
    """Start relays; each is closed when the test ends."""
    running: list[Relay] = []

    def start(target: str) -> Relay:
        running.append(Relay(target))
        return running[-1]

    yield start
    for relay in running:
        relay.close()


@pytest.fixture
def relay(server: RealServer, relays: Callable[[str], Relay]) -> Relay:
    """A relay in front of the server."""
    return relays(server.url)


@pytest.fixture
def seen(server: RealServer, relay: Relay) -> RealServer:
    """The server behind the relay."""
    return replace(server, url=relay.url)


@pytest.fixture
def mellea(tmp_path: Path) -> Run:
    """Run `mellea ARGUMENTS` as a process in the test's folder."""

    def run(
        *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [sys.executable, "-m", "mellea_cli", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            timeout=TIMEOUT_S,
            check=False,
            **source,
        )

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `mellea ARGUMENTS` in the test's folder; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mellea_cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        with process:
            process.kill()
