"""What every test may rely on: no proxy, key or server address from outside, and a model server on loopback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from loopback import ModelServer

# A shell that starts the tests in the background, or nohup, has them ignore these signals, and programs that they start
# would inherit that: then nothing could be interrupted. With a handler of our own they start as users start them.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)

# Some tests let programs meet a limit on file sizes: none of them may leave half-written bytecode for the next.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# No test asserts a time, those with made-up examples included: a busy machine is no mistake of theirs.
hypothesis.settings.register_profile(
    "here", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("here")

_FOREIGN = ("OLLAMA_", "OPENAI_", "MELLEA_", "RAY_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    """Run the quick tests only where nothing was chosen; a path, `-k`, `-m` and `--last-failed` choose."""
    options = config.option
    chosen = options.markexpr or options.keyword or getattr(options, "lf", False)
    # A worker of pytest-xdist gets this from the main process.
    if not chosen and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        options.markexpr = "not slow"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the settings of the machine that runs the tests, and keep its list of runs free of theirs."""
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN):
            monkeypatch.delenv(name)
    # uvloop is there for the tests that are about it; most users have Python's own loop.
    monkeypatch.setenv("MELLEA_LOOP", "asyncio")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def serve() -> Iterator[Callable[..., ModelServer]]:
    """Start model servers with these settings; each is stopped when the test ends."""
    running: list[ModelServer] = []

    def start(**settings: Any) -> ModelServer:
        server = ModelServer(**settings)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., ModelServer]) -> ModelServer:
    """Start a model server that does what it should."""
    return serve()
