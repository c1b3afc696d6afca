"""Files of batch requests, written within a server's limits, and files of replies, read line by line."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from mellea_cli.errors import InputError
from mellea_cli.io.files import output_error
from mellea_cli.io.journal import journal_error
from mellea_cli.messages import Completion, Usage

# The book of batch jobs: what was handed to a provider's queue, and what has come back.
#
# It lives in the journal, in tables of its own that other versions do not mind. Each step of a submission is written
# down before it is taken, so that after a crash at any moment the book says what may have happened: a job that may be
# on its way is looked for at the server and never simply sent again.

State = Literal["written", "uploading", "uploaded", "submitting", "submitted", "over"]

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS batch_jobs (
    tag TEXT PRIMARY KEY, plan TEXT NOT NULL, base_url TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL,
    file TEXT NOT NULL, requests INTEGER NOT NULL, prompt INTEGER NOT NULL, completion INTEGER NOT NULL,
    created REAL NOT NULL, file_id TEXT NOT NULL, batch_id TEXT NOT NULL, status TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_requests (
    custom_id TEXT PRIMARY KEY, plan TEXT NOT NULL, job TEXT NOT NULL, reply TEXT,
    prompt INTEGER NOT NULL DEFAULT 0, completion INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batch_requests_by_job ON batch_requests (job);
COMMIT;
"""
_KEEP = (
    "UPDATE batch_requests SET reply = ?, prompt = ?, completion = ?"
    " WHERE custom_id = ? AND job = ? AND (reply IS NULL OR reply LIKE '{\"error\"%')"
)
_BRING = (
    "INSERT INTO batch_requests (custom_id, plan, job, reply, prompt, completion) VALUES (?, ?, '', ?, ?, ?)"
    " ON CONFLICT (custom_id) DO UPDATE SET reply = excluded.reply, prompt = excluded.prompt,"
    " completion = excluded.completion WHERE reply LIKE '{\"error\"%'"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One file of requests and its way through the queue."""

    tag: str
    """Our own mark: part of the file's name there, and the batch's metadata."""
    plan: str
    """The plan's fingerprint in hex."""
    base_url: str
    model: str
    state: State
    file: str
    """The file's name here, beside the journal, while it is still needed."""
    requests: int
    prompt: int
    """Prompt tokens that it is expected to use."""
    completion: int
    created: float
    """Seconds since 1970."""
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    """What the server last said."""

    @property
    def remote_name(self) -> str:
        """The file's name at the server."""
        return f"mellea-{self.tag}.jsonl"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that is in a job."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A request that the queue did not answer: it is to be asked live."""

    reason: str


RequestState = Completion | Waiting | Gone | None
"""How a request stands; `None` when it was never handed in."""
Answered = tuple[str, Completion | Gone]

_COLUMNS = tuple(field.name for field in fields(Job))
_JOBS = f"SELECT {', '.join(_COLUMNS)} FROM batch_jobs"  # noqa: S608 - our own names


class BatchJobStore:
    """The jobs and requests in one journal. The caller holds the output's lock; one thread at a time.

    Args:
        path: the journal, which is there already.

    Raises:
        OutputError: here and in every method, when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise journal_error(path, error) from error

    def jobs(self, plan: str) -> list[Job]:
        """The jobs of this plan that are not over, the oldest first."""
        return [job for job in _read_jobs(self._db, self.path) if job.plan == plan and job.state != "over"]

    def add(self, job: Job, custom_ids: Iterable[str]) -> None:
        """Note a job whose file is on the disk, together with the requests in it."""
        places = ", ".join("?" for _ in _COLUMNS)
        self._write(
            (f"INSERT INTO batch_jobs VALUES ({places})", [astuple(job)]),  # noqa: S608 - question marks only
            (
                "INSERT OR REPLACE INTO batch_requests (custom_id, plan, job) VALUES (?, ?, ?)",
                [(name, job.plan, job.tag) for name in custom_ids],
            ),
        )

    def change(self, tag: str, *, state: State, file_id: str = "", batch_id: str = "", status: str = "") -> None:
        """Note a job's next step; ids that are left empty stay as they are."""
        changed = {"file_id": file_id, "batch_id": batch_id, "status": status}
        given = {name: value for name, value in changed.items() if value}
        settings = ", ".join(f"{name} = ?" for name in ("state", *given))
        statement = f"UPDATE batch_jobs SET {settings} WHERE tag = ?"  # noqa: S608 - our own names
        self._write((statement, [(state, *given.values(), tag)]))

    def standing(self, custom_id: str) -> RequestState:
        """How a request stands; takes microseconds."""
        try:
            found = self._db.execute(
                "SELECT reply, prompt, completion FROM batch_requests WHERE custom_id = ?", (custom_id,)
            ).fetchone()
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error
        if found is None:
            return None
        reply, prompt, completion = found
        if reply is None:
            return Waiting()
        stored = json.loads(reply)
        if "error" in stored:
            return Gone(stored["error"])
        return Completion(stored["text"], stored["finish"], Usage(prompt, completion))

    def keep(self, tag: str, replies: Sequence[Answered]) -> None:
        """Store replies to the requests of one job, all or none; an answer is never replaced."""
        self._write((_KEEP, [(*_stored(reply), name, tag) for name, reply in replies]))

    def bring(self, plan: str, replies: Sequence[Answered]) -> None:
        """Store replies that did not come by a job; one that is there already stays."""
        self._write(
            (
                _BRING,
                [(name, plan, *_stored(reply)) for name, reply in replies],
            )
        )

    def finish(self, tag: str, status: str, *, release: bool) -> None:
        """Note that a job is over.

        Args:
            tag: the job.
            status: how it ended.
            release: whether requests without a reply may be handed in again; otherwise they are to be asked live.
        """
        gone = json.dumps({"error": f"the batch ended as {status} without it"})
        left: tuple[str, list[tuple[object, ...]]] = (
            ("DELETE FROM batch_requests WHERE job = ? AND reply IS NULL", [(tag,)])
            if release
            else ("UPDATE batch_requests SET reply = ? WHERE job = ? AND reply IS NULL", [(gone, tag)])
        )
        self._write(("UPDATE batch_jobs SET state = 'over', status = ? WHERE tag = ?", [(status, tag)]), left)

    def unanswered(self, tag: str) -> int:
        """Requests of a job for which nothing has come back yet."""
        return self._sum("SELECT count(*), 0 FROM batch_requests WHERE job = ? AND reply IS NULL", tag)[0]

    def used(self, plan: str) -> tuple[int, Usage]:
        """Replies that are there for a plan, and the tokens they took."""
        counted = self._sum("SELECT count(*), 0 FROM batch_requests WHERE plan = ? AND prompt > 0", plan)[0]
        taken = self._sum("SELECT sum(prompt), sum(completion) FROM batch_requests WHERE plan = ?", plan)
        return counted, Usage(*taken)

    def clear(self, plan: str) -> None:
        """Forget a plan's requests: their answers stand in the journal. Its jobs stay listed."""
        self._write(("DELETE FROM batch_requests WHERE plan = ?", [(plan,)]))

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _sum(self, query: str, value: str) -> tuple[int, int]:
        try:
            first, second = self._db.execute(query, (value,)).fetchone()
        except sqlite3.Error as error:
            raise journal_error(self.path, error) from error
        return first or 0, second or 0

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise journal_error(self.path, error) from error


def look_up_jobs(path: Path) -> list[Job]:
    """Every job in a journal, the oldest first, without changing anything; none where there is no journal.

    Raises:
        OutputError: it cannot be read.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            return _read_jobs(db, path)
    except sqlite3.Error as error:
        raise journal_error(path, error) from error


def _read_jobs(db: sqlite3.Connection, path: Path) -> list[Job]:
    try:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'batch_jobs'").fetchone():
            return []
        return [Job(*row) for row in db.execute(f"{_JOBS} ORDER BY created, tag")]
    except sqlite3.Error as error:
        raise journal_error(path, error) from error


def _stored(reply: Completion | Gone) -> tuple[str, int, int]:
    if isinstance(reply, Gone):
        return json.dumps({"error": reply.reason}), 0, 0
    usage = reply.usage
    text = json.dumps({"text": reply.text, "finish": reply.finish_reason})
    return text, usage.prompt_tokens, usage.completion_tokens


_CUSTOM_ID = re.compile(r"([0-9a-f]{32})-([A-Za-z0-9_]{1,31})")


def custom_id(key: bytes, step: str) -> str:
    """The id of one request: the answer's journal key in hex, and the step; at most 64 characters, as servers demand.

    Nothing else depends on it, so replies find their rows in whatever order they come, for an input in any order.
    """
    return f"{key.hex()}-{step}"


def is_ours(name: str) -> bool:
    """Whether a reply's id has the form of ours."""
    return _CUSTOM_ID.fullmatch(name) is not None


@dataclass(slots=True)
class BatchFile:
    """One file of requests that is being written. Readable for its owner alone: it holds feedback.

    Args:
        path: the file; an old one of this name is replaced.

    Raises:
        OutputError: it cannot be written.
    """

    path: Path
    custom_ids: list[str] = field(default_factory=list)
    """The requests in it, in order."""
    size: int = 0
    _file: BinaryIO = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "wb")
        except OSError as error:
            raise output_error(str(self.path), error) from error

    def add(self, name: str, line: bytes) -> None:
        """Write one request. Raises `OutputError` when it cannot be written."""
        try:
            self._file.write(line)
        except OSError as error:
            raise output_error(str(self.path), error) from error
        self.custom_ids.append(name)
        self.size += len(line)

    def finish(self) -> None:
        """Bring it to the disk. Raises `OutputError` when that fails."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(str(self.path), error) from error
        finally:
            self._file.close()

    def discard(self) -> None:
        """Close and remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self.discard()


def reply_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of replies that are not blank, with their numbers, one in memory at a time.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=str(path)) from error
