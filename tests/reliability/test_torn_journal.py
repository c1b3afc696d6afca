"""The journal's files as a crash of the machine can leave them: the next run goes on, or says one clear line."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from audit import Ended, audit, command, end, leaks, run, start, write_input

from loopback import ModelServer
from mellea_cli.io.journal import FORMAT_VERSION

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]
ITEMS = 60
FLAGS = ("-c", "8", "--json", "-q")
FRAME = 24 + 4096
"""Bytes of a page in SQLite's log, with what stands before it."""


class Torn:
    """What a run that was killed in its middle has left, to be damaged and gone on with."""

    def __init__(self, folder: Path, server: ModelServer) -> None:
        self.folder, self.server = folder, server
        self.source, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.journal, self.log, self.index = (folder / f"out.jsonl.journal{end}" for end in ("", "-wal", "-shm"))
        write_input(self.source, ITEMS)
        process = start(self.arguments, folder)
        server.wait(lambda state: state.completed >= ITEMS // 2, 60)
        os.killpg(process.pid, signal.SIGKILL)
        end(process)
        assert self.log.stat().st_size > 2 * FRAME

    @property
    def arguments(self) -> list[str]:
        """The command, always the same."""
        return command(self.source, self.output, self.server.openai_url, *FLAGS)

    def go_on(self, *more: str) -> Ended:
        """Type the command again; whatever becomes of it, it is no traceback."""
        ended = run([*self.arguments, *more], self.folder)
        assert "Traceback" not in ended.err
        assert leaks(self.folder, ended.out, ended.err) == []
        return ended

    def finishes(self) -> None:
        """The command goes on: each item once, each with its own answer."""
        assert self.go_on().code == 0
        found = audit(self.output, ITEMS)
        assert (len(found.answered), found.failed, found.problems) == (ITEMS, {}, [])

    def refuses(self, words: str) -> None:
        """One line names the file and what to do; nothing is asked; `--fresh` is the way out."""
        asked = self.server.state.requests
        refused = self.go_on()
        assert refused.code == 5
        assert refused.err.count('{"error": {') == 1
        assert "out.jsonl.journal" in refused.err
        assert words in refused.err
        assert "--fresh" in refused.err
        assert self.server.state.requests == asked
        assert self.go_on("--fresh").code == 0
        assert len(audit(self.output, ITEMS).answered) == ITEMS


@pytest.fixture
def torn(serve: Serve, tmp_path: Path) -> Torn:
    """A run killed in its middle."""
    return Torn(tmp_path, serve(record=False, latency_s=0.05))


def zero(path: Path, start_at: int, count: int) -> None:
    """Fill a part of a file with NUL bytes, as a lost page cache does."""
    with path.open("r+b") as file:
        file.seek(start_at)
        file.write(bytes(count))


@pytest.mark.parametrize("cut", [1, 23, 300, 700, FRAME, FRAME + 1, "header", "half the header", "all"])
def test_a_log_that_is_cut_short(cut: int | str, torn: Torn) -> None:
    """Commits whose pages are not whole are asked for again, those before them are there."""
    size = torn.log.stat().st_size
    left = {"header": 32, "half the header": 16, "all": 0}.get(str(cut), size - cut if isinstance(cut, int) else 0)
    os.truncate(torn.log, left)
    torn.finishes()


@pytest.mark.parametrize("count", [300, FRAME, 2 * FRAME])
def test_a_log_whose_tail_is_zeros(count: int, torn: Torn) -> None:
    """Zeros are no commit: the checksums of the log say so."""
    zero(torn.log, torn.log.stat().st_size - count, count)
    torn.finishes()


def test_a_log_that_grew_by_zeros(torn: Torn) -> None:
    """A file that was made longer before its content came."""
    os.truncate(torn.log, torn.log.stat().st_size + 300)
    torn.finishes()


@pytest.mark.parametrize("gone", [("index",), ("log",), ("log", "index")])
def test_files_next_to_the_journal_that_are_gone(gone: tuple[str, ...], torn: Torn) -> None:
    """Without its log the journal is older, not wrong; the index is made again."""
    for name in gone:
        getattr(torn, name).unlink(missing_ok=True)
    torn.finishes()


def checkpointed(torn: Torn) -> None:
    """Move the log into the journal's one file, as an orderly end does."""
    with closing(sqlite3.connect(torn.journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    torn.log.unlink(missing_ok=True)
    torn.index.unlink(missing_ok=True)


@pytest.mark.parametrize("cut", ["to 4096", "to 50"])
def test_a_journal_without_most_of_it(cut: str, torn: Torn) -> None:
    """The one file is damaged, and that is said before anything is asked."""
    checkpointed(torn)
    os.truncate(torn.journal, int(cut.split()[1]))
    torn.refuses("is ")


@pytest.mark.parametrize("cut", [1, 300, 700, 4096])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_journal_that_lost_its_tail(cut: int, zeros: bool, torn: Torn) -> None:
    """What SQLite notices is refused in one line; what only our checksums notice is asked again; nothing is wrong."""
    checkpointed(torn)
    size = torn.journal.stat().st_size
    if zeros:
        zero(torn.journal, size - cut, cut)
    else:
        os.truncate(torn.journal, size - cut)
    ended = torn.go_on()
    assert ended.code in {0, 5}
    if ended.code == 5:
        torn.refuses("damaged")
    found = audit(torn.output, ITEMS)
    assert (len(found.answered), found.problems) == (ITEMS, [])


def test_a_journal_that_is_empty(torn: Torn) -> None:
    """A file of no bytes holds nothing: the run starts over."""
    checkpointed(torn)
    os.truncate(torn.journal, 0)
    torn.finishes()


def test_a_journal_of_a_newer_version(torn: Torn) -> None:
    """It is left as it is, and both versions are named."""
    checkpointed(torn)
    with closing(sqlite3.connect(torn.journal)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    torn.refuses("newer version")


def test_a_copy_made_while_the_run_goes_on(serve: Serve, tmp_path: Path) -> None:
    """The files copied one after the other from a running run are a run to go on with, elsewhere."""
    server = serve(record=False, latency_s=0.05)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, ITEMS)
    process = start(command(source, output, server.openai_url, *FLAGS), tmp_path)
    server.wait(lambda state: state.completed >= ITEMS // 2, 60)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("out.jsonl.journal", "out.jsonl.journal-wal"):
        shutil.copy(tmp_path / name, elsewhere / name)
    assert end(process).code == 0
    again = run(command(source, elsewhere / "out.jsonl", server.openai_url, *FLAGS), tmp_path)
    assert again.code == 0
    found = audit(elsewhere / "out.jsonl", ITEMS)
    assert (len(found.answered), found.problems) == (ITEMS, [])
