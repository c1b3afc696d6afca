"""Starts the program by a fork of a process that has loaded its modules: a start costs hundredths of a second.

Each run is a process of its own, as for a user: descriptors, folder, variables, signals and exit code are its own. Only
what an interpreter reads at its start, such as PYTHONUTF8, is not: such runs need a real start.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# Loaded where they are installed, as a run of the program loads them later.
_LIBRARIES = ("aiohttp", "httpx", "httpx_aiohttp", "pydantic", "jinja2", "rich.console", "rich.live", "sqlite3", "csv")
_LATE = ("mellea_cli.cluster", "mellea_cli.__main__", "mellea_cli.backends.llama_server")
_MOST_BYTES = 1 << 20


class Starter:
    """A process that waits for runs to start."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name, "starter"))
        command = [sys.executable, "-m", "field.starter", self._address]
        tests = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
        self._folder.cleanup()

    def start(self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], stdin: bytes | None) -> Started:
        """Start `mellea ARGUMENTS`. Without `stdin` its input is /dev/null."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.connect(self._address)
        # `communicate` closes the two.
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        source = tempfile.TemporaryFile() if stdin is not None else Path(os.devnull).open("rb")  # noqa: SIM115 - below
        if stdin is not None:
            source.write(stdin)
            source.seek(0)
        request = json.dumps({"arguments": arguments, "folder": str(folder), "env": dict(env)}).encode()
        with source:
            socket.send_fds(link, [request], [source.fileno(), out.fileno(), err.fileno()])
        return Started(int(link.recv(64)), link, out, err)


class Started:
    """A run that has been started."""

    def __init__(self, pid: int, link: socket.socket, out: io.IOBase, err: io.IOBase) -> None:
        self.pid, self._link, self._out, self._err = pid, link, out, err

    def communicate(self, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Wait for the end, then kill; returns exit code (negative: the signal), stdout and stderr."""
        self._link.settimeout(timeout_s)
        try:
            code = int(self._link.recv(64))
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            self._link.settimeout(None)
            code = int(self._link.recv(64))
        self._link.close()
        texts = []
        for file in (self._out, self._err):
            with file:
                file.seek(0)
                texts.append(file.read())
        return code, texts[0], texts[1]


def _load() -> None:
    import mellea_cli

    for name in _LIBRARIES:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(mellea_cli.__path__, "mellea_cli."):
        if not module.name.startswith(_LATE):
            importlib.import_module(module.name)


def _serve(address: str) -> None:
    """Start a run for each connection, until this process is ended."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            link, _ = listener.accept()
            request, descriptors, _, _ = socket.recv_fds(link, _MOST_BYTES, 3)
            if os.fork() == 0:
                listener.close()
                _supervise(link, json.loads(request), descriptors)
            link.close()
            for descriptor in descriptors:
                os.close(descriptor)


def _supervise(link: socket.socket, request: dict[str, object], descriptors: list[int]) -> None:
    """Fork the run, tell its process id, wait for it, tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        link.close()
        _run(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    link.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    link.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(request: dict[str, object], descriptors: list[int]) -> None:
    """Be the program."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]  # JSON made it
    sys.argv = ["mellea", *request["arguments"]]  # type: ignore[misc]  # as above
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), "utf-8", "backslashreplace", line_buffering=True
    )
    code = 1
    try:
        from mellea_cli.cli.entry import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does at its end
        import traceback

        traceback.print_exc()
    finally:
        # As at the end of an interpreter, without the time it takes.
        import atexit

        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 120
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
