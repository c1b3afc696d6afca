"""The key, and the header that carries it, are searched for in everything that runs write which fail in every way."""

from __future__ import annotations

import base64
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit import KEY, Ended, audit, command, end, environment, run, start, write_input
from test_disk import limit_files, strace
from test_fault_matrix import ANSWERS, FOR_EVER, TRANSPORT

from loopback import Call, Fault, ModelServer, faults

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]

ITEMS = 60
QUICK = ("--first-token-timeout", "1", "--stall-timeout", "1", "--timeout", "5", "--max-wait", "1", "--grace", "1s")
TALK = (
    "--errors-file",
    "failed.jsonl",
    "--log-file",
    "log.jsonl",
    "--summary-file",
    "summary.json",
    "-vv",
    "--no-live",
)
PATTERNS = (
    KEY.encode(),
    base64.b64encode(KEY.encode()).rstrip(b"="),
    KEY[3:].encode(),
    b"Authorization",
    b"authorization",
    b"Bearer ",
)


@pytest.fixture(params=["variable", "file"])
def keyed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """The key in the environment, or in a private file outside the folder that is searched."""
    if request.param == "variable":
        return ()
    folder = tmp_path / "private"
    folder.mkdir()
    path = folder / "key"
    path.touch(0o600)
    path.write_text(KEY)
    return ("--key-file", str(path))


class Bench:
    """A folder in which runs write all they can, and the search over it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder / "here"
        self.folder.mkdir()
        self.source, self.output = self.folder / "in.jsonl", self.folder / "out.jsonl"
        self.flags = flags
        write_input(self.source, ITEMS)

    def arguments(self, url: str, *more: str, output: str = "") -> list[str]:
        """The command line of a run that talks as much as it can."""
        flags = [str(self.folder / flag) if flag.endswith((".jsonl", ".json")) else flag for flag in TALK]
        return command(self.source, output or self.output, url, "-c", "8", *QUICK, *flags, *self.flags, *more)

    def run(self, url: str, *more: str, output: str = "", **how: Any) -> Ended:
        """Run to the end and search."""
        return self.searched(run(self.arguments(url, *more, output=output), self.folder, 100, cwd=self.folder, **how))

    def searched(self, ended: Ended) -> Ended:
        """Nothing that was said or written holds the key, a part of it, or the header; some of it was written."""
        said = {"stdout": ended.out.encode(), "stderr": ended.err.encode()}
        files = {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        found = [(name, pattern) for name, data in {**said, **files}.items() for pattern in PATTERNS if pattern in data]
        assert found == []
        return ended


def every_fault(call: Call) -> Fault | None:
    """Each way to fail for one item, for ever or once, the key repeated in the words of the error."""
    table = [*TRANSPORT.values(), *ANSWERS.values(), *(fault for fault, _, _ in FOR_EVER.values())]
    number = int(call.prompt.rsplit("MARK-i", 1)[1][:6]) if "MARK-i" in call.prompt else ITEMS
    return table[number] if number < len(table) and (call.attempt == 1 or number >= 32) else None


def test_faults_of_every_kind(keyed: tuple[str, ...], serve: Serve, tmp_path: Path) -> None:
    """Answers, dead letters, the log of every attempt, the journal."""
    bench = Bench(tmp_path, *keyed)
    server = serve(api_key=KEY, fault=every_fault, record=False)
    ended = bench.run(server.openai_url, "--json")
    assert ended.code == 3
    assert audit(bench.output, ITEMS).failed
    assert (bench.folder / "log.jsonl").stat().st_size > 10_000
    assert (bench.folder / "failed.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(401, message=KEY),
        faults.status(500, message=f"key {KEY}"),
        faults.status(400, message=f"key={KEY}", param=KEY),
        faults.raw_status(403, f"<b>{KEY}</b>"),
        faults.error_object(1, error={"message": KEY, "type": KEY}),
        faults.raw_status(200, f"data: {KEY}\n\n", {"Content-Type": "text/event-stream"}),
        faults.raw_status(302, headers={"Location": f"http://192.0.2.1/?key={KEY}"}),
    ],
    ids=["401", "500", "400", "403", "in the stream", "no JSON", "redirect"],
)
def test_servers_that_repeat_the_key(fault: Fault, serve: Serve, tmp_path: Path) -> None:
    """Their words are passed on without it."""
    server = serve(fault=faults.always(fault), record=False)
    ended = Bench(tmp_path).run(server.openai_url, "--json", "--max-retries", "1", "-n", "5")
    assert ended.code in {3, 4}


def test_nobody_there(tmp_path: Path) -> None:
    """A server that is away for good."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ended = Bench(tmp_path).run(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1")
    assert ended.code == 4


def test_disks_that_fail(serve: Serve, tmp_path: Path) -> None:
    """A limit on file sizes, and a device that is full."""
    server = serve(api_key=KEY, latency_s=0.01, record=False)
    bench = Bench(tmp_path)
    assert bench.run(server.openai_url, preexec_fn=functools.partial(limit_files, 16_384)).code == 5
    assert bench.run(server.openai_url, output="/dev/full").code == 5


@pytest.mark.parametrize(("call", "suffix"), [("pwrite64", ".journal-wal"), ("fsync", ".partial")])
def test_system_calls_that_fail(call: str, suffix: str, serve: Serve, tmp_path: Path) -> None:
    """An I/O error from the system itself."""
    server = serve(api_key=KEY, latency_s=0.01, record=False)
    bench = Bench(tmp_path)
    prefix = strace(f"{call}:error=EIO:when=1", bench.output.with_name(bench.output.name + suffix))
    ended = run([*prefix, *bench.arguments(server.openai_url)], bench.folder, 100)
    assert bench.searched(ended).code == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(number: signal.Signals, serve: Serve, tmp_path: Path) -> None:
    """What a killed or stopped run leaves behind: the journal's log, the partial output, the lock."""
    server = serve(api_key=KEY, latency_s=0.05, record=False)
    bench = Bench(tmp_path)
    process = start(bench.arguments(server.openai_url), bench.folder, cwd=bench.folder)
    server.wait(lambda state: state.completed >= 16, 30)
    os.killpg(process.pid, number)
    bench.searched(end(process))
    left = {path.name for path in bench.folder.iterdir()}
    assert {"out.jsonl.journal", "log.jsonl"} <= left


def test_a_second_run_and_bad_input(keyed: tuple[str, ...], serve: Serve, tmp_path: Path) -> None:
    """Refusals before anything is sent."""
    server = serve(api_key=KEY, fault=lambda call: faults.stall(0) if call.index >= 8 else None, record=False)
    bench = Bench(tmp_path, *keyed)
    first = start(
        bench.arguments(server.openai_url, "--first-token-timeout", "1h", "--timeout", "1h"),
        bench.folder,
        cwd=bench.folder,
    )
    server.wait(lambda state: state.requests > 8, 30)
    assert bench.run(server.openai_url).code == 2
    os.killpg(first.pid, signal.SIGKILL)
    bench.searched(end(first))
    bench.source.write_text("no json\n")
    assert bench.run(server.openai_url).code == 2


BUG = """
import mellea_cli.backends.http as wire
def broken(self, *args):
    raise RuntimeError(f"headers: {self._headers}")
wire.WireClient._send = broken
from mellea_cli.cli.entry import main
"""
EARLY_BUG = """
import os
import mellea_cli.backends.openai as backend
import mellea_cli.backends.security as keys
def broken(*args):
    raise RuntimeError(f"Bearer {keys.Secrets.from_environ(os.environ).key()} and {dict(os.environ)}")
backend._hints = broken
from mellea_cli.cli.entry import main
"""


@pytest.mark.parametrize("bug", [BUG, EARLY_BUG], ids=["around a row", "around the run"])
def test_an_internal_error(bug: str, keyed: tuple[str, ...], serve: Serve, tmp_path: Path) -> None:
    """A bug whose own message holds every header: neither the row's error nor the report passes the key on."""
    server = serve(api_key=KEY, record=False)
    bench = Bench(tmp_path, *keyed)
    arguments = [sys.executable, "-c", f"{bug}\nmain()", *bench.arguments(server.openai_url)[3:]]
    done = subprocess.run(
        arguments, env=environment(bench.folder), cwd=bench.folder, capture_output=True, text=True, check=False
    )
    ended = bench.searched(Ended(done.returncode, done.stdout, done.stderr))
    assert ended.code == (3 if bug is BUG else 1)
    assert "bug in mellea" in (ended.err if bug is EARLY_BUG else bench.output.read_text())
    reports = list(bench.folder.rglob("mellea-bug-*.txt"))
    assert len(reports) == (bug is EARLY_BUG)
    assert all("RuntimeError" in path.read_text() for path in reports)
