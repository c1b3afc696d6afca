"""The journal: the answers of a run on disk, so that nothing is asked twice and nothing is lost.

It is an SQLite database next to the output. A commit is one transaction with one sync; a crash at any moment keeps the
answers of every commit that had returned.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, Self

from mellea_cli.errors import OutputError
from mellea_cli.io.files import OutputTarget, output_error
from mellea_cli.items import Failure, Outcome, Success
from mellea_cli.messages import Usage

MEMORY_ANSWERS = 10_000  # Answers that are kept in memory when the output has no file for a journal


class RowAnswers(Protocol):
    """Outcomes by a key that the caller derives from the plan and the item's text."""

    def lookup(self, key: bytes) -> Outcome | None:
        """Return the outcome for a key; takes microseconds, so an event loop can call it."""

    def mark(self) -> int:
        """Return the current position in the order of storing."""

    def stored_after(self, mark: int, key: bytes) -> bool:
        """Whether there is an outcome for a key and it was stored after `mark`."""

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store outcomes, all or none; the later one for a key wins. They are durable when this returns."""


class Answers(RowAnswers, Protocol):
    """A store of outcomes by keys of 16 bytes, with facts about the run."""

    def facts(self) -> dict[str, str]:
        """Return the facts about the run that wrote the answers, by name."""

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note facts about the run, such as the program's version; other facts are kept."""

    def close(self) -> None:
        """Release the store."""


class MemoryAnswers:
    """Answers of one run whose output has no journal: standard output, a pipe, a device.

    Identical texts are still asked once. Above `bound` answers the least recently used ones are forgotten.
    """

    def __init__(self, bound: int = MEMORY_ANSWERS) -> None:
        self._bound = bound
        self._known: OrderedDict[bytes, tuple[int, Outcome]] = OrderedDict()
        self._stored = 0
        self._facts: dict[str, str] = {}
        self._guard = Lock()

    def lookup(self, key: bytes) -> Outcome | None:
        with self._guard:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[1]

    def mark(self) -> int:
        return self._stored

    def stored_after(self, mark: int, key: bytes) -> bool:
        with self._guard:
            found = self._known.get(key)
            return found is not None and found[0] > mark

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        with self._guard:
            for key, outcome in records:
                self._stored += 1
                self._known[key] = self._stored, outcome
                self._known.move_to_end(key)
            while len(self._known) > self._bound:
                self._known.popitem(last=False)

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def note_facts(self, facts: Mapping[str, str]) -> None:
        self._facts.update(facts)

    def close(self) -> None:
        self._known.clear()


def outcome_to_text(outcome: Outcome) -> str:
    """Return an outcome as one line of ASCII JSON that `text_to_outcome` turns back into an equal one."""
    usage = [outcome.usage.prompt_tokens, outcome.usage.completion_tokens]
    cost = {"usage": usage, "latency_s": outcome.latency_s, "attempts": outcome.attempts}
    if isinstance(outcome, Success):
        by = {"answered_by": outcome.answered_by} if outcome.answered_by else {}
        return json.dumps({"values": dict(outcome.values), **cost, **by})
    reason = {"kind": outcome.kind, "message": outcome.message, "step": outcome.step, "status": outcome.status}
    return json.dumps({**reason, **cost})


def text_to_outcome(text: str) -> Outcome:
    """Read an outcome back.

    Raises:
        ValueError: the text is not what `outcome_to_text` writes.
    """
    stored = json.loads(text)
    try:
        usage, latency_s, attempts = Usage(*stored["usage"]), stored["latency_s"], stored["attempts"]
        if "values" in stored:
            return Success(stored["values"], usage, latency_s, attempts, answered_by=stored.get("answered_by", ""))
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


# A row of an output: its position, the hashes that find it again, and the hashes of its cells
WrittenRow = tuple[int, bytes, bytes]

APPLICATION_ID = 0x4D6C6C61  # Marks an SQLite file as a journal ("Mlla")
FORMAT_VERSION = 1

_BUSY_S = 5.0
# Answers are written to scattered index pages: with 16 MB of log between checkpoints most pages are written once.
_CHECKPOINT_PAGES = 4_000
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
# Tables that an older version ignores: what each version of the output holds, so that edits by hand are recognised.
_OUTPUT_TABLES = (
    "CREATE TABLE IF NOT EXISTS outputs (generation INTEGER PRIMARY KEY, record TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS written (
        generation INTEGER NOT NULL, position INTEGER NOT NULL, keys BLOB NOT NULL, cells BLOB NOT NULL,
        PRIMARY KEY (generation, position)
    ) WITHOUT ROWID""",
    "DELETE FROM written WHERE generation NOT IN (SELECT generation FROM outputs)",
)
_INSERT = (
    "INSERT INTO answers (key, outcome, checksum) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET outcome = excluded.outcome, checksum = excluded.checksum,"
    " id = (SELECT max(id) + 1 FROM answers)"
)
_LAST = "SELECT coalesce(max(id), 0) FROM answers"
_AFTER = "SELECT id > ? FROM answers WHERE key = ?"
_LOOKUP = "SELECT outcome, checksum FROM answers WHERE key = ?"
_START_OVER = "start over with --fresh, or move the file away to keep it"
_NO_LOCKS, _USE_NO_LOCK = "the file system has no locks", "choose a folder on this machine with -o, or use --no-lock"
_OTHER_FOLDER = "choose a folder that you may write to with -o"
# Prefixes of SQLite's error names, what each means here, and what to do.
_ERRORS = (
    ("SQLITE_FULL", "the disk is full", "free some space, then run the same command again: finished answers are kept"),
    ("SQLITE_PROTOCOL", _NO_LOCKS, _USE_NO_LOCK),
    ("SQLITE_IOERR_LOCK", _NO_LOCKS, _USE_NO_LOCK),
    ("SQLITE_IOERR_RDLOCK", _NO_LOCKS, _USE_NO_LOCK),
    ("SQLITE_IOERR_SHMLOCK", _NO_LOCKS, _USE_NO_LOCK),
    ("SQLITE_IOERR_SHMMAP", _NO_LOCKS, _USE_NO_LOCK),
    ("SQLITE_IOERR", "cannot be read or written", "check the disk, its space and ulimit -f, then run it again"),
    ("SQLITE_READONLY", "cannot be written", _OTHER_FOLDER),
    ("SQLITE_CANTOPEN", "cannot be opened", _OTHER_FOLDER),
    ("SQLITE_PERM", "cannot be written", _OTHER_FOLDER),
    ("SQLITE_NOTADB", "is not a journal", _START_OVER),
    ("SQLITE_CORRUPT", "is damaged", _START_OVER),
    ("SQLITE_BUSY", "another program has it open", "close that program, then run the same command again"),
)


class Journal:
    """Answers in a file. Open one with `Journal.open`, or with `open_answers` for any kind of output.

    `lookup` may be called from one thread while another one calls `commit`; call `close` when neither does. Every
    method but `close` raises `OutputError` when the file cannot be read or written.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._failed: OutputError | None = None

    @classmethod
    def open(cls, path: Path, *, fresh: bool = False, locks: bool = True) -> Self:
        """Open a journal, or create an empty one; `fresh` discards what is there. The caller holds the output's lock.

        Raises:
            OutputError: the file cannot be written, is damaged, is not a journal, or is from a newer version.
        """
        with ExitStack() as undo:
            try:
                if fresh:
                    remove_journal(path)
                _create_private(path)
                writer = undo.enter_context(closing(_connect(path, locks=locks)))
                _prepare(path, writer)
                # Without locks a second connection could not know what the first one does.
                reader = _connect(path) if locks else writer
            except OSError as error:
                raise output_error(str(path), error) from error
            except sqlite3.Error as error:
                raise journal_error(path, error) from error
            undo.pop_all()
        return cls(path, writer, reader)

    def lookup(self, key: bytes) -> Outcome | None:
        found = self._one(_LOOKUP, key)
        if found is None:
            return None
        text, checksum = found
        # SQLite does not notice a damaged page that still looks like one: such an answer is asked again.
        try:
            return text_to_outcome(text) if checksum == _checksum(key, text) else None
        except (ValueError, AttributeError):
            return None

    def mark(self) -> int:
        place: int = self._one(_LAST)[0]
        return place

    def stored_after(self, mark: int, key: bytes) -> bool:
        return bool(self._one(_AFTER, mark, key) == (1,))

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store outcomes in one transaction with one sync.

        Raises:
            OutputError: they cannot be written. None of them is stored, those of earlier commits are, and every later
                call fails too: after a failed sync the content of the disk is unknown until it is read again.
        """
        if self._failed is not None:
            raise self._failed
        rows = []
        for key, outcome in records:
            text = outcome_to_text(outcome)
            rows.append((key, text, _checksum(key, text)))
        self._write(_INSERT, rows)

    def facts(self) -> dict[str, str]:
        try:
            return dict(self._reader.execute("SELECT name, value FROM facts").fetchall())
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def note_facts(self, facts: Mapping[str, str]) -> None:
        self._write("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", list(facts.items()))

    def start_over(self) -> None:
        """Delete the answers and the facts, but not what outputs hold: edits by hand are recognised by that."""
        for table in ("answers", "facts"):
            self._write(f"DELETE FROM {table} WHERE ?", [(True,)])  # noqa: S608 - fixed names

    def is_empty(self) -> bool:
        """Whether nothing but facts about the run is stored."""
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'facts'"
        try:
            names = [name for (name,) in self._reader.execute(tables).fetchall()]
            return not any(self._one(f'SELECT 1 FROM "{name}" LIMIT 1') for name in names)  # noqa: S608 - our own names
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def outcomes(self) -> Iterator[Outcome]:
        """Yield every stored outcome that can be read, in no order."""
        try:
            for (text,) in self._reader.execute("SELECT outcome FROM answers"):
                with suppress(ValueError, AttributeError):
                    yield text_to_outcome(text)
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def outputs(self) -> dict[int, str]:
        """The records of the output by generation: one, or two when a run ended while it put its output into place."""
        return dict(self._output_rows("SELECT generation, record FROM outputs ORDER BY generation"))

    def written(self, generation: int) -> Iterator[WrittenRow]:
        """Yield the rows of a generation, by position."""
        query = "SELECT position, keys, cells FROM written WHERE generation = ? ORDER BY position"
        return self._output_rows(query, generation)

    def prepare_outputs(self) -> None:
        """Create the tables of outputs, and delete the rows of an output that was never put into place."""
        try:
            for statement in _OUTPUT_TABLES:
                self._writer.execute(statement)
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def add_written(self, generation: int, rows: Sequence[WrittenRow]) -> None:
        """Store what rows of an output hold; call `prepare_outputs` before."""
        statement = "INSERT OR REPLACE INTO written (generation, position, keys, cells) VALUES (?, ?, ?, ?)"
        self._write(statement, [(generation, *row) for row in rows])

    def note_output(self, generation: int, record: str) -> None:
        """Store the record of an output."""
        self._write("INSERT OR REPLACE INTO outputs (generation, record) VALUES (?, ?)", [(generation, record)])

    def forget_outputs(self, before: int) -> None:
        """Delete what earlier generations hold."""
        self._write("DELETE FROM outputs WHERE generation < ?", [(before,)])
        self._write("DELETE FROM written WHERE generation < ?", [(before,)])

    def _output_rows(self, query: str, *values: object) -> Iterator[Any]:
        try:
            yield from self._reader.execute(query, values)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):  # a journal of version 0.1
                raise journal_error(self.path, error) from error
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error

    def close(self) -> None:
        """Move the log into the database and close it."""
        for connection in (self._reader, self._writer):
            with suppress(sqlite3.Error):  # the answers are durable in the -wal file, and the next run moves them
                connection.close()

    def _one(self, query: str, *values: object) -> Any:
        try:
            return self._reader.execute(query, values).fetchone()
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
    """Open the answers of an output: its journal, or memory when the output is not a file.

    Raises:
        OutputError: as `Journal.open` does.
    """
    return Journal.open(target.journal, fresh=fresh) if target.kind == "file" else MemoryAnswers()


def peek_answers(target: OutputTarget) -> Answers:
    """Open the answers of an earlier run read-only; a run may be writing them at the same time.

    Raises:
        OutputError: the journal cannot be read, is not a journal, or is from a newer version.
    """
    path = target.journal
    if target.kind != "file" or not path.exists():
        return MemoryAnswers()
    with ExitStack() as undo:
        try:
            reader = undo.enter_context(closing(connect_to_read(path)))
            if _checked_empty(path, reader):
                return MemoryAnswers()
        except sqlite3.Error as error:
            raise journal_error(path, error) from error
        undo.pop_all()
    return Journal(path, reader, reader)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database read-only; raises `sqlite3.Error` when that is impossible."""
    # Without a log no program has it open: then SQLite need not create the files that readers share.
    log = path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", timeout=_BUSY_S, uri=True)


def journal_error(path: Path, error: sqlite3.Error) -> OutputError:
    """Return the `OutputError` for an error of SQLite, with the next step."""
    name = getattr(error, "sqlite_errorname", "")
    for prefix, what, hint in _ERRORS:
        if name.startswith(prefix):
            return OutputError(f"{path}: {what} ({error})", hint=hint)
    return OutputError(f"{path}: {error}", hint=_START_OVER)


def _connect(path: Path, *, locks: bool = True) -> sqlite3.Connection:
    where = f"{path.absolute().as_uri()}{'' if locks else '?nolock=1'}"
    connection = sqlite3.connect(where, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True)
    if not locks:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # needs no shared memory, which would be locked, too
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def _checked_empty(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the file is empty; raises `OutputError` when it is not a journal that this version can read."""
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
    # Created before SQLite does it, so that its answers are never readable for other users, not for an instant.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        if hasattr(os, "fchmod"):
            with suppress(PermissionError):  # another user's file that we may write
                os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def remove_journal(path: Path) -> None:
    """Delete a journal with its log."""
    # The log is removed first: a new database must never find the log of an old one.
    for suffix in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _checksum(key: bytes, text: str) -> int:
    return zlib.crc32(text.encode(), zlib.crc32(key))
