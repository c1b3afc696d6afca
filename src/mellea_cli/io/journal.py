"""The journal: every answer of a run on disk, so that nothing is asked twice and nothing is lost.

It is an SQLite database beside the output. A commit is one transaction with one sync; a crash at any moment leaves the
answers of every commit that had returned. Each answer carries a checksum, because SQLite does not notice a damaged
page that still looks like one: an answer that does not match is treated as not there, and asked again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, Self

from mellea_cli.errors import OutputError
from mellea_cli.io.files import OutputTarget, output_error
from mellea_cli.items import Failure, Outcome, Success
from mellea_cli.messages import Usage

# Answers by key: what a journal keeps, the form it keeps them in, and a journal that lives in memory only.

MEMORY_ANSWERS = 10_000
"""Answers that are remembered when there is no file to keep them beside."""


class Answers(Protocol):
    """Outcomes by a 16-byte key that the caller makes from the plan and the item's text."""

    def lookup(self, key: bytes) -> Outcome | None:
        """Return what is known for a key; quick enough for an event loop."""
        ...

    def mark(self) -> int:
        """Return where in the order of storing the next answer will be."""
        ...

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Return whether the answer for a key, if there is one, was stored after that `mark`."""
        ...

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Keep outcomes, all or none; the later one for a key wins. It is durable when this returns."""
        ...

    def facts(self) -> dict[str, str]:
        """Return what is noted about the run that wrote the answers."""
        ...

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something about the run, such as the program's version; other facts stay."""
        ...

    def close(self) -> None:
        """Let go of the answers."""
        ...


class MemoryAnswers:
    """Answers of one run, for outputs that nothing can stand beside: standard output, a pipe, a device.

    Identical texts are still asked once. Of more than `bound` answers those that were used longest ago go.
    """

    def __init__(self, bound: int = MEMORY_ANSWERS) -> None:
        self._bound = bound
        self._known: OrderedDict[bytes, tuple[int, Outcome]] = OrderedDict()
        self._stored = 0
        self._facts: dict[str, str] = {}
        self._guard = Lock()

    def lookup(self, key: bytes) -> Outcome | None:
        """Return what is known for a key, which counts as using it."""
        with self._guard:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[1]

    def mark(self) -> int:
        """Return how many answers have been stored."""
        return self._stored

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Return whether the answer for a key is remembered and newer than that `mark`."""
        with self._guard:
            found = self._known.get(key)
            return found is not None and found[0] > mark

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Remember outcomes."""
        with self._guard:
            for key, outcome in records:
                self._stored += 1
                self._known[key] = self._stored, outcome
                self._known.move_to_end(key)
            while len(self._known) > self._bound:
                self._known.popitem(last=False)

    def facts(self) -> dict[str, str]:
        """Return what was noted."""
        return dict(self._facts)

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something about the run."""
        self._facts.update(facts)

    def close(self) -> None:
        """Forget everything."""
        self._known.clear()


def outcome_to_text(outcome: Outcome) -> str:
    """Return an outcome as one line of ASCII JSON that `text_to_outcome` turns back into an equal one."""
    usage = [outcome.usage.prompt_tokens, outcome.usage.completion_tokens]
    told = {"usage": usage, "latency_s": outcome.latency_s, "attempts": outcome.attempts}
    if isinstance(outcome, Success):
        return json.dumps({"values": dict(outcome.values), **told})
    why = {"kind": outcome.kind, "message": outcome.message, "step": outcome.step, "status": outcome.status}
    return json.dumps({**why, **told})


def text_to_outcome(text: str) -> Outcome:
    """Read an outcome back.

    Raises:
        ValueError: the text is not what `outcome_to_text` writes.
    """
    stored = json.loads(text)
    try:
        usage, latency_s, attempts = Usage(*stored["usage"]), stored["latency_s"], stored["attempts"]
        if "values" in stored:
            return Success(stored["values"], usage, latency_s, attempts)
        return Failure(
            kind=stored["kind"],
            message=stored["message"],
            step=stored["step"],
            attempts=attempts,
            status=stored["status"],
            usage=usage,
            latency_s=latency_s,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an outcome: {error}") from error


APPLICATION_ID = 0x4D6C6C61
"""Tells our journals from other SQLite files ("Mlla")."""
FORMAT_VERSION = 1

_BUSY_S = 5.0
_CHECKPOINT_PAGES = 4_000
"""Answers land on scattered index pages: gathering 16 MB before they are moved writes each page once, not often."""
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, outcome TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""
_INSERT = (
    "INSERT INTO answers (key, outcome, checksum) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET outcome = excluded.outcome, checksum = excluded.checksum,"
    " id = (SELECT max(id) + 1 FROM answers)"
)
_LAST = "SELECT coalesce(max(id), 0) FROM answers"
_AFTER = "SELECT id > ? FROM answers WHERE key = ?"
_LOOKUP = "SELECT outcome, checksum FROM answers WHERE key = ?"
_START_OVER = "start over with --fresh, or move the file away to keep it"
_ELSEWHERE = "choose a place that you may write to with -o"
# What SQLite's names for errors begin with, what it means here, what to do.
_REASONS = (
    ("SQLITE_FULL", "the disk is full", "make room, then type the same command again: finished answers are kept"),
    ("SQLITE_IOERR", "cannot be read or written", "check the disk, its room and ulimit -f, then type it again"),
    ("SQLITE_READONLY", "cannot be written", _ELSEWHERE),
    ("SQLITE_CANTOPEN", "cannot be opened", _ELSEWHERE),
    ("SQLITE_PERM", "cannot be written", _ELSEWHERE),
    ("SQLITE_NOTADB", "is not a journal", _START_OVER),
    ("SQLITE_CORRUPT", "is damaged", _START_OVER),
    ("SQLITE_BUSY", "another program has it open", "close that program, then type the same command again"),
)


class Journal:
    """Answers in a file. Make one with `Journal.open`, or with `open_answers` for any kind of output.

    `lookup` may be called from one thread while another one calls `commit`; `close` when neither does.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._failed: OutputError | None = None

    @classmethod
    def open(cls, path: Path, *, fresh: bool = False) -> Self:
        """Open a journal, or make an empty one. The caller holds the output's lock.

        Args:
            path: the file.
            fresh: throw away what is there.

        Raises:
            OutputError: it cannot be written there, is damaged, is none of ours, or is from a newer version.
        """
        with ExitStack() as undo:
            try:
                if fresh:
                    _remove(path)
                _create_private(path)
                writer = undo.enter_context(closing(_connect(path)))
                _prepare(path, writer)
                reader = _connect(path)
            except OSError as error:
                raise output_error(str(path), error) from error
            except sqlite3.Error as error:
                raise journal_error(path, error) from error
            undo.pop_all()
        return cls(path, writer, reader)

    def lookup(self, key: bytes) -> Outcome | None:
        """Return the outcome for a key, or `None`; takes microseconds.

        Raises:
            OutputError: the file cannot be read any more.
        """
        found = self._one(_LOOKUP, key)
        if found is None:
            return None
        text, checksum = found
        try:
            return text_to_outcome(text) if checksum == _checksum(key, text) else None
        except (ValueError, AttributeError):
            return None

    def mark(self) -> int:
        """Return the place in the order of storing where the next answer follows; raises as `lookup` does."""
        place: int = self._one(_LAST)[0]
        return place

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Return whether there is an answer for a key that was stored after a `mark`; raises as `lookup` does."""
        return bool(self._one(_AFTER, mark, key) == (1,))

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store outcomes in one transaction; the later one for a key wins. They are on the disk when this returns.

        Raises:
            OutputError: they cannot be written. None of them is stored, those of earlier commits are, and every
                later call fails too: after a failed sync nobody knows what is on the disk until it is read again.
        """
        if self._failed is not None:
            raise self._failed
        rows = []
        for key, outcome in records:
            text = outcome_to_text(outcome)
            rows.append((key, text, _checksum(key, text)))
        self._write(_INSERT, rows)

    def facts(self) -> dict[str, str]:
        """Return what is noted about the run that wrote the answers."""
        try:
            return dict(self._reader.execute("SELECT name, value FROM facts").fetchall())
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something about the run; raises as `commit` does."""
        self._write("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", list(facts.items()))

    def count(self) -> int:
        """Count the answers, of whatever plan."""
        counted: int = self._one("SELECT count(*) FROM answers")[0]
        return counted

    def close(self) -> None:
        """Move everything into the one file and let go of it; what cannot be moved stays beside it, safe."""
        for connection in (self._reader, self._writer):
            with suppress(sqlite3.Error):  # the answers are durable in the -wal file, the next run moves them
                connection.close()

    def _one(self, question: str, *values: object) -> Any:
        """The first row of an answer of SQLite's, `None` where there is none."""
        try:
            return self._reader.execute(question, values).fetchone()
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany(statement, rows)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                writer.execute("ROLLBACK")
            self._failed = journal_error(self.path, error)
            raise self._failed from error


def open_answers(target: OutputTarget, *, fresh: bool = False) -> Answers:
    """Open what keeps the answers for an output: its journal, or memory where no file can stand beside it.

    Raises:
        OutputError: as `Journal.open` does.
    """
    return Journal.open(target.journal, fresh=fresh) if target.kind == "file" else MemoryAnswers()


def peek_answers(target: OutputTarget) -> Answers:
    """Open what an earlier run has left, for looking only: nothing is changed, and a run may be writing it.

    Raises:
        OutputError: it cannot be read, is none of ours, or is from a newer version.
    """
    path = target.journal
    if target.kind != "file" or not path.exists():
        return MemoryAnswers()
    # Without a log beside it nobody has it open: then SQLite need not make the files that readers share.
    log = path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    with ExitStack() as undo:
        try:
            where = f"{path.resolve().as_uri()}?{mode}"
            reader = undo.enter_context(closing(sqlite3.connect(where, timeout=_BUSY_S, uri=True)))
            if _checked_empty(path, reader):
                return MemoryAnswers()
        except sqlite3.Error as error:
            raise journal_error(path, error) from error
        undo.pop_all()
    return Journal(path, reader, reader)


def journal_error(path: Path, error: sqlite3.Error) -> OutputError:
    """Word what SQLite said, with the next step."""
    name = getattr(error, "sqlite_errorname", "")
    for prefix, what, hint in _REASONS:
        if name.startswith(prefix):
            return OutputError(f"{path}: {what} ({error})", hint=hint)
    return OutputError(f"{path}: {error}", hint=_START_OVER)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def _checked_empty(path: Path, connection: sqlite3.Connection) -> bool:
    """Return whether the file is still empty; raise `OutputError` when it is no journal that we understand."""
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    if application == APPLICATION_ID and version > FORMAT_VERSION:
        raise OutputError(
            f"{path}: was written by a newer version (journal format {version}, this one knows {FORMAT_VERSION})",
            hint="install that version again, or start over with --fresh",
        )
    empty: bool = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and application == 0):
        raise OutputError(f"{path}: is a database of another program", hint="choose another name with -o")
    return empty


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the file is a journal that we understand, and make it one when it is empty."""
    empty = _checked_empty(path, connection)
    connection.execute("PRAGMA journal_mode = WAL")
    if empty:
        connection.executescript(_SCHEMA)
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise OutputError(f"{path}: is damaged ({verdict.splitlines()[-1]})", hint=_START_OVER)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    value: tuple[int] = connection.execute(f"PRAGMA {pragma}").fetchone()
    return value[0]


def _create_private(path: Path) -> None:
    """Make the file before SQLite does, so that its answers are never readable for others, not for an instant."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        if hasattr(os, "fchmod"):
            with suppress(PermissionError):  # another user's file that we may write: its bits are not ours to set
                os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    # The log goes first: a new database must never find the log of an old one.
    for suffix in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _checksum(key: bytes, text: str) -> int:
    return zlib.crc32(text.encode(), zlib.crc32(key))
