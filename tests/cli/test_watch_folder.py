"""`mellea watch-folder`: files as they appear, each once, also after a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.cli.summarise import RunOptions
from mellea_cli.cli.watch_folder import _Watched
from mellea_cli.errors import ExitCode
from mellea_cli.io.files import resolve_output
from rowfiles import Run

STATE = "watch-folder.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that is watched, with one for the outputs."""
    (tmp_path / "in" / "results").mkdir(parents=True)
    return tmp_path / "in"


def put(path: Path, text: str = "text\nGood.\n", age: float = 60.0) -> None:
    """Write a file that was last changed so many seconds ago."""
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))


def watched(folder: Path, codes: dict[str, ExitCode] | None = None, **options: Any) -> tuple[_Watched, list[str]]:
    """A watcher that notes the names of the files that it processes."""
    ran: list[str] = []

    def run(one: RunOptions) -> ExitCode:
        ran.append(Path(one.input).name)
        return (codes or {}).get(ran[-1], ExitCode.OK)

    settings = RunOptions(inputs=[str(folder)], output_dir=str(folder / "results"), nightly=True, **options)
    return _Watched(settings, resolve_output(str(folder / "results" / STATE)), run), ran


def test_a_file_is_processed_once_and_again_when_it_changes(folder: Path) -> None:
    """Also by the next watcher, which knows what this one has done."""
    put(folder / "a.csv")
    one, ran = watched(folder)
    for _ in range(2):
        assert one.step(threading.Event()) == ExitCode.OK
    assert ran == ["a.csv"]
    put(folder / "b.csv")
    put(folder / "a.csv", "text\nGood.\nLate.\n")
    other, ran_later = watched(folder)
    other.step(threading.Event())
    assert ran_later == ["a.csv", "b.csv"]


def test_a_file_that_grows_is_left_until_it_is_complete(folder: Path) -> None:
    """What has just changed waits; what is empty waits for its content."""
    put(folder / "a.csv", age=0)
    put(folder / "empty.csv", "")
    one, ran = watched(folder, settle=30.0)
    one.step(threading.Event())
    assert ran == []
    put(folder / "a.csv", age=31)
    one.step(threading.Event())
    assert ran == []  # it has changed since the last look
    next_start, ran_later = watched(folder, settle=30.0)
    next_start.step(threading.Event())
    assert ran_later == ["a.csv"]


def test_unfinished_and_foreign_files_are_none(folder: Path) -> None:
    """Hidden files, those of a download, an office program's lock, and what is no table."""
    for name in (".a.csv", "a.csv.part", "~$a.xlsx", "a.csv.tmp", "readme.txt"):
        put(folder / name)
    put(folder / "a.csv")
    one, ran = watched(folder)
    one.step(threading.Event())
    assert ran == ["a.csv"]


def test_a_bad_file_is_told_once_and_a_server_that_is_down_is_tried_again(folder: Path) -> None:
    """A file that cannot be read is not tried again until it changes; an outage forgets nothing."""
    put(folder / "bad.csv")
    put(folder / "late.csv")
    codes = {"bad.csv": ExitCode.USAGE, "late.csv": ExitCode.STOPPED_EARLY}
    one, ran = watched(folder, codes)
    for _ in range(3):
        one.step(threading.Event())
    assert ran == ["bad.csv", "late.csv"]  # the next try has to wait
    other, ran_later = watched(folder)
    other.step(threading.Event())
    assert ran_later == ["late.csv"]


def test_two_files_never_share_an_output(folder: Path) -> None:
    """`a.xls` and `a.xlsx` both would be written to a.xlsx."""
    put(folder / "a.xls")
    put(folder / "a.xlsx")
    one, ran = watched(folder)
    one.step(threading.Event())
    assert ran == ["a.xls"]


def test_an_interrupted_run_ends_it(folder: Path) -> None:
    """The file is not marked as processed."""
    put(folder / "a.csv")
    one, _ = watched(folder, {"a.csv": ExitCode.INTERRUPTED})
    assert one.step(threading.Event()) == ExitCode.INTERRUPTED
    assert not (folder / "results" / STATE).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "no such folder"),
        (("in", "in"), "takes one folder"),
        (("in", "--output-dir", "in"), "is the folder that is watched"),
        (("in", "--dry-run"), "has no --dry-run"),
    ],
)
def test_what_cannot_work_is_said_at_once(mellea: Run, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    """Before it watches."""
    done = mellea("watch-folder", *arguments, "-b", "scripted")
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--dry-run",),
        ("--estimate",),
        ("--errors-file", "e.csv"),
        ("--max-errors", "few"),
        ("--where", "rating >"),
        ("--accuracy", "1.5"),
    ],
)
def test_flags_that_would_leave_files_unprocessed_are_refused(
    mellea: Run, folder: Path, flags: tuple[str, ...]
) -> None:
    """Before any file: a preview, one errors file for all, and what cannot be read at all."""
    done = mellea("watch-folder", str(folder), "-b", "scripted", *flags)
    assert done.returncode == 2
    assert flags[-1].split()[0] in done.stderr
    assert not (folder / "results" / STATE).exists()


@contextmanager
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The program, with the scripted backend."""
    command = [sys.executable, "-m", "mellea_cli", "watch-folder", str(folder), "-b", "scripted", "--settle", "0.2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(state: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_files_appear_and_a_signal_ends_it(folder: Path, end: signal.Signals) -> None:
    """Two files, one before the start and one after it; the exit code is 0, and the state is on the disk."""
    (folder / "a.csv").write_text("text\nGood.\n")
    with watching(folder) as process:
        wait_for((folder / "results" / "a.csv").exists)
        (folder / "b.csv").write_text("text\nThe app crashes.\n")
        wait_for(lambda: "b.csv" in _processed(folder))
        process.send_signal(end)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "2 files processed" in said
    assert "crash" in (folder / "results" / "b.csv").read_text()


@pytest.mark.slow
def test_a_second_watcher_is_refused_and_a_killed_one_goes_on(folder: Path) -> None:
    """One watcher for each folder of outputs; after kill -9 the next one does only what is left."""
    (folder / "a.csv").write_text("text\nGood.\n")
    with watching(folder) as process:
        wait_for(lambda: "a.csv" in _processed(folder))
        with watching(folder) as second:
            _, said = second.communicate(timeout=60)
        assert second.returncode == 2
        assert "is being written by" in said
        process.kill()
    before = (folder / "results" / "a.csv").stat().st_mtime_ns
    (folder / "b.csv").write_text("text\nLate.\n")
    with watching(folder):
        wait_for(lambda: "b.csv" in _processed(folder))
    assert (folder / "results" / "a.csv").stat().st_mtime_ns == before


def _processed(folder: Path) -> set[str]:
    state = folder / "results" / STATE
    return set(json.loads(state.read_text())["files"]) if state.exists() else set()
