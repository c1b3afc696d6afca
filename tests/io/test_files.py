"""Output files: targets, atomic writes, and locks between real processes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mellea_cli.errors import ExitCode, OutputBusy, OutputError, ReaderGone
from mellea_cli.io.files import AtomicFile, OutputLock, atomic_write, output_error, resolve_output, same_file


@pytest.mark.parametrize("output", [None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_every_name_of_standard_output_means_it(output: str | None) -> None:
    """Nothing is ever renamed onto what standard output happens to be."""
    assert resolve_output(output).kind == "stdout"


@pytest.mark.parametrize("output", ["/dev/null", "/dev/full", "/dev/stderr", "/dev/fd/2"])
def test_devices_are_written_as_they_are(output: str) -> None:
    """A device is not a file that could be replaced."""
    assert resolve_output(output).kind == "special"


def test_pipe_is_special_and_a_new_name_is_a_file(tmp_path: Path) -> None:
    """A named pipe is written into; a missing file will be made, with its companions next to it."""
    os.mkfifo(tmp_path / "pipe")
    assert resolve_output(str(tmp_path / "pipe")).kind == "special"
    target = resolve_output(str(tmp_path / "out.jsonl"))
    assert target.kind == "file"
    assert [path.name for path in (target.partial, target.journal, target.lock, target.fresh)] == [
        "out.jsonl.partial", "out.jsonl.journal", "out.jsonl.lock", "out.jsonl.new",
    ]  # fmt: skip


def test_link_leads_to_its_file(tmp_path: Path) -> None:
    """Both names of one output have one journal and one lock; a dangling link is fine."""
    (tmp_path / "far").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "out.csv")
    target = resolve_output(str(tmp_path / "link.csv"))
    assert (target.kind, target.path) == ("file", (tmp_path / "far" / "out.csv").resolve())
    assert target.name.endswith("link.csv")


@pytest.mark.parametrize(
    ("name", "words"), [("", "is a directory"), ("new/", "is a directory"), ("no/out", "no folder")]
)
def test_impossible_outputs_are_refused(tmp_path: Path, name: str, words: str) -> None:
    """A directory, and a file in a folder that is not there, with the next step."""
    with pytest.raises(OutputError, match=words) as caught:
        resolve_output(f"{tmp_path}/{name}")
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE


def test_name_with_a_nul_is_refused() -> None:
    """What no system takes as a name is one clear line."""
    with pytest.raises(OutputError, match="not a file name"):
        resolve_output("a\0b")


def test_same_file_sees_through_links_and_spellings(tmp_path: Path) -> None:
    """Hard links, symbolic links and dots are one file; different files are not, missing ones compare by name."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("a")
    (tmp_path / "hard").hardlink_to(one)
    (tmp_path / "soft").symlink_to(one)
    assert same_file(str(one), str(tmp_path / "hard"))
    assert same_file(str(one), str(tmp_path / "soft"))
    assert same_file(str(one), f"{tmp_path}/./one")
    assert not same_file(str(one), str(two))
    assert same_file(f"{tmp_path}/new", f"{tmp_path}/x/../new")
    assert not same_file(f"{tmp_path}/new", str(one))


def test_errors_name_file_reason_and_way_out() -> None:
    """A full disk and a gone reader are told apart."""
    full = output_error("out.csv", OSError(errno.ENOSPC, "No space left on device"))
    assert str(full) == "out.csv: cannot be written: No space left on device"
    assert "same command again" in full.hint
    gone = output_error("<stdout>", BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert isinstance(gone, ReaderGone)
    assert gone.exit_code is ExitCode.READER_GONE


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    """All pieces are there, nothing is left next to it."""
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write(resolve_output(str(path)), ["é", "", "€" * 100_000])
    assert path.read_text(encoding="utf-8") == "é" + "€" * 100_000
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    """An error while the pieces are made changes nothing."""
    path = tmp_path / "report.html"
    path.write_text("old")

    def pieces() -> Iterator[str]:
        yield "new" * 100_000
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        atomic_write(resolve_output(str(path)), pieces())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The device that is always full says so as an `OutputError`."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OutputError, match="No space left"):
        atomic_write(resolve_output("/dev/full"), ["x" * 100])


def test_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    """A directory in the file's place is refused before anything is made."""
    with pytest.raises(OutputError, match="is a directory"):
        atomic_write(resolve_output(str(tmp_path)), ["x"])


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
    assert "mellea stop out.csv" in caught.value.hint
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


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    """What has the name and is no regular file stays what it is."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        with pytest.raises(OutputError, match="is no regular file"):
            AtomicFile(path, path.name)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
