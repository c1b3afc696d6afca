"""Output locks between real processes: one holder, named; dead holders do not matter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mellea_cli.errors import ExitCode, OutputBusy, OutputError
from mellea_cli.io.files import OutputLock

HOLD = """
import sys
from pathlib import Path
from mellea_cli.io.files import OutputLock
with OutputLock(Path(sys.argv[1]), "out.csv"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        stream.close()
    child.wait(timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.lock"


def test_second_run_is_refused_with_the_first_ones_pid(path: Path) -> None:
    """Who holds the output, and what to do; afterwards it is free and no file is left."""
    child = hold(path)
    with pytest.raises(OutputBusy, match=f"out.csv: is being written by process {child.pid}") as caught:
        OutputLock(path, "out.csv").acquire()
    assert f"kill {child.pid}" in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE
    assert path.exists()
    end(child)
    assert not path.exists()
    with OutputLock(path, "out.csv"):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_two_locks_in_one_process_exclude_each_other(path: Path) -> None:
    """Two runs of one program are two runs."""
    with OutputLock(path, "out.csv"), pytest.raises(OutputBusy, match=f"process {os.getpid()}"):
        OutputLock(path, "out.csv").acquire()


def test_lock_dies_with_its_process(path: Path) -> None:
    """After kill -9 the file is still there, with a dead pid, and in nobody's way."""
    child = hold(path)
    child.send_signal(signal.SIGKILL)
    end(child)
    assert path.read_text() == f"{child.pid}\n"
    with OutputLock(path, "out.csv"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_children_do_not_inherit_the_lock(path: Path) -> None:
    """A model server that outlives its run does not hold the run's output."""
    lock = OutputLock(path, "out.csv")
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    lock.release()
    with OutputLock(path, "out.csv"):
        pass
    assert child.stdin is not None
    child.stdin.close()
    child.wait(timeout=60)


def test_releasing_twice_or_unheld_is_harmless(path: Path) -> None:
    """Clean-up paths may meet."""
    lock = OutputLock(path, "out.csv")
    lock.release()
    lock.acquire()
    lock.release()
    lock.release()
    assert not path.exists()


def test_release_does_not_remove_another_ones_file(path: Path) -> None:
    """A file that was replaced under the same name belongs to somebody else."""
    lock = OutputLock(path, "out.csv")
    lock.acquire()
    path.unlink()
    other = OutputLock(path, "out.csv")
    other.acquire()
    lock.release()
    assert path.exists()
    other.release()


def test_many_contenders_never_hold_it_together(path: Path, tmp_path: Path) -> None:
    """Processes that lock, work and unlink in a loop never overlap, through the unlink race too."""
    program = """
import os, sys
from pathlib import Path
from mellea_cli.errors import OutputBusy
from mellea_cli.io.files import OutputLock
inside = Path(sys.argv[2])
taken = 0
while taken < 150:
    try:
        with OutputLock(Path(sys.argv[1]), "out"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
            taken += 1
    except OutputBusy:
        pass
"""
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "inside")]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert (child.returncode, errors) == (0, b"")


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A lock that cannot be written is an output error, not a busy output."""
    with pytest.raises(OutputError, match="cannot be written: No such file") as caught:
        OutputLock(tmp_path / "no" / "out.lock", "out").acquire()
    assert not isinstance(caught.value, OutputBusy)
