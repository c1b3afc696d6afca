"""A Ray cluster of two nodes for the tests of this folder, and the program that runs on it."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class RayNodes:
    """Two raylets in processes of their own.

    Attributes:
        address: what `--ray-address` takes.
        environ: the environment that drivers need to be let in.
    """

    def __init__(self, folder: Path) -> None:
        # Only who knows the word may use the cluster, and Ray looks for nothing in the user's home.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environ = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "XDG_CACHE_HOME": str(folder)}
        self._log = (folder / "raynodes.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("raynodes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self.environ,
            text=True,
        )
        self.address = self._answer()
        if not self.address:
            raise RuntimeError(f"the cluster did not start: {(folder / 'raynodes.log').read_text()}")

    def kill_second(self) -> None:
        """End the second node's processes at once."""
        self._tell("kill", "killed")

    def add_second(self) -> None:
        """Start a second node again."""
        self._tell("add", "added")

    def _tell(self, word: str, answer: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._answer() == answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        """Take the cluster down."""
        self._process.communicate(timeout=60)
        self._log.close()


@pytest.fixture(scope="module")
def raynodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    """A cluster of two nodes."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'mellea-cli[ray]'")
    nodes = RayNodes(tmp_path_factory.mktemp("raynodes"))
    yield nodes
    nodes.stop()
