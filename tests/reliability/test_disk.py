"""No silent failure to write: full disks, limits, failing system calls; and then room again."""

from __future__ import annotations

import functools
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit import Ended, audit, command, leaks, run, write_input
from kill_harness import stored

from loopback import ModelServer

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]
FLAGS = ("-c", "8", "--json", "-q")


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def said_well(ended: Ended) -> None:
    """Exit code 5 and one message that names a file, with no trace of Python."""
    assert ended.code == 5, ended.err
    assert ended.err.count('{"error": {') == 1
    assert "Traceback" not in ended.err
    assert "out.jsonl" in ended.err


def few_in_vain(server: ModelServer, output: Path) -> None:
    """After the first failed write the run stopped asking: few answers were paid for and not kept."""
    kept = stored(output.with_name(output.name + ".journal"))
    assert server.state.requests - len(kept) <= 8 + 2


def room_again(arguments: list[str], folder: Path, output: Path, server: ModelServer, items: int) -> None:
    """The same command with room: everything is there, and at most the answers in flight were paid twice."""
    again = run(arguments, folder)
    found = audit(output, items)
    assert (again.code, found.problems, found.failed) == (0, [], {})
    assert server.state.completed <= items + 8 + 2
    assert leaks(folder, again.out, again.err) == []


@pytest.mark.parametrize("size", [8_192, 50_000, 90_000])
def test_a_limit_on_file_sizes(size: int, serve: Serve, tmp_path: Path) -> None:
    """The run stops when a file may not grow, says which, and goes on where it was once the limit is gone."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 300)
    arguments = command(source, output, server.openai_url, *FLAGS)
    ended = run(arguments, tmp_path, preexec_fn=functools.partial(limit_files, size))
    said_well(ended)
    few_in_vain(server, output)
    room_again(arguments, tmp_path, output, server, 300)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)  # noqa: S607 - the system's own


def test_a_disk_that_is_full(small_disk: Path, serve: Serve, tmp_path: Path) -> None:
    """What fits is kept; the same command goes on elsewhere once everything has been moved to where there is room."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", small_disk / "out.jsonl"
    write_input(source, 300)
    ended = run(command(source, output, server.openai_url, *FLAGS), tmp_path)
    said_well(ended)
    assert "free some space" in ended.err
    few_in_vain(server, output)
    roomy = tmp_path / "roomy"
    shutil.copytree(small_disk, roomy)
    room_again(
        command(source, roomy / "out.jsonl", server.openai_url, *FLAGS), tmp_path, roomy / "out.jsonl", server, 300
    )


def test_a_device_that_is_full(serve: Serve, tmp_path: Path) -> None:
    """`-o /dev/full` ends with exit 5 after a few requests, and does not read the device."""
    server = serve(record=False, latency_s=0.02)
    source = tmp_path / "in.jsonl"
    write_input(source, 500)
    ended = run(command(source, "/dev/full", server.openai_url, "-c", "8", "-q"), tmp_path)
    assert (ended.code, ended.err.count("error:")) == (5, 1)
    assert "/dev/full" in ended.err
    assert server.state.requests <= 4 * 8


def strace(inject: str, path: Path) -> list[str]:
    """A command line in front of another that makes system calls on `path` fail."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed here")
    probe = subprocess.run([program, "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("strace may not trace here")
    return [program, "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"inject={inject}"]


@pytest.mark.parametrize(
    ("call", "error", "suffix", "when"),
    [
        ("pwrite64", "ENOSPC", ".journal-wal", 1),
        ("pwrite64", "EIO", ".journal-wal", 7),
        ("pwrite64", "ENOSPC", ".journal-wal", 20),
        ("fdatasync", "EIO", ".journal-wal", 2),
        ("write", "ENOSPC", ".partial", 1),
        ("fsync", "EIO", ".partial", 1),
        ("rename", "EACCES", ".partial", 1),
        ("openat", "EIO", ".journal", 1),
        ("openat", "ENOSPC", ".partial", 1),
    ],
)
def test_a_system_call_that_fails(call: str, error: str, suffix: str, when: int, serve: Serve, tmp_path: Path) -> None:
    """The N-th write, sync, rename or open fails: it is said, nothing is lost, the same command finishes it."""
    server = serve(record=False, latency_s=0.01)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 100)
    arguments = command(source, output, server.openai_url, *FLAGS)
    prefix = strace(f"{call}:error={error}:when={when}", tmp_path / f"out.jsonl{suffix}")
    ended = run([*prefix, *arguments], tmp_path, 100)
    assert "Traceback" not in ended.err
    said_well(ended)
    room_again(arguments, tmp_path, output, server, 100)
