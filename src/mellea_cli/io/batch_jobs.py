"""Batch jobs: what was submitted to a provider's batch queue, and the files of requests and replies."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from mellea_cli.io.byte_input import Lines, choose_encoding, open_bytes
from mellea_cli.io.files import AtomicFile
from mellea_cli.io.journal import connect_to_read, journal_error
from mellea_cli.messages import Completion, Usage

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
_STORE_REPLY = (
    "UPDATE batch_requests SET reply = ?, prompt = ?, completion = ?"
    " WHERE custom_id = ? AND job = ? AND (reply IS NULL OR reply LIKE '{\"error\"%')"
)
_IMPORT_REPLY = (
    "INSERT INTO batch_requests (custom_id, plan, job, reply, prompt, completion) VALUES (?, ?, '', ?, ?, ?)"
    " ON CONFLICT (custom_id) DO UPDATE SET reply = excluded.reply, prompt = excluded.prompt,"
    " completion = excluded.completion WHERE reply LIKE '{\"error\"%'"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One file of requests, and its state in the batch queue."""

    tag: str  # Identifies the job: part of the file's name at the server, and of the batch's metadata
    plan: str  # The plan's fingerprint in hex
    base_url: str
    model: str
    state: State
    file: str  # The file's local name, in the journal's folder, while it is still needed
    requests: int
    prompt: int  # Expected prompt tokens
    completion: int  # Expected completion tokens
    created: float  # Seconds since 1970
    file_id: str = ""
    batch_id: str = ""
    status: str = ""  # The server's last status

    @property
    def remote_name(self) -> str:
        return f"mellea-{self.tag}.jsonl"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in a job that has no reply yet."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request that the queue did not answer: it is asked live."""

    reason: str


RequestState = Completion | Waiting | Unanswered | None  # `None` when the request was never submitted
NamedReply = tuple[str, Completion | Unanswered]

_COLUMNS = tuple(column.name for column in fields(Job))
_JOBS = f"SELECT {', '.join(_COLUMNS)} FROM batch_jobs"  # noqa: S608 - fixed names


class BatchJobStore:
    """The jobs and requests in one journal, in tables that other versions ignore.

    Each step of a submission is stored before it is taken, so that after a crash at any moment the store says what may
    have happened: a job that may have been submitted is searched for at the server and never simply sent again. The
    caller holds the output's lock; one thread at a time. Every method may raise `OutputError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _sqlite_errors(path):
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)

    def jobs(self, plan: str) -> list[Job]:
        """Return the jobs of this plan that are not over, the oldest first."""
        with _sqlite_errors(self.path):
            return [job for job in _select_jobs(self._db) if job.plan == plan and job.state != "over"]

    def add(self, job: Job, custom_ids: Iterable[str]) -> None:
        """Store a job whose file is on the disk, and the requests in it."""
        places = ", ".join("?" for _ in _COLUMNS)
        self._write(
            (f"INSERT INTO batch_jobs VALUES ({places})", [astuple(job)]),  # noqa: S608 - question marks only
            (
                "INSERT OR REPLACE INTO batch_requests (custom_id, plan, job) VALUES (?, ?, ?)",
                [(name, job.plan, job.tag) for name in custom_ids],
            ),
        )

    def change(self, tag: str, *, state: State, file_id: str = "", batch_id: str = "", status: str = "") -> None:
        """Store a job's next step; empty ids are not changed."""
        fields = {"file_id": file_id, "batch_id": batch_id, "status": status}
        given = {name: value for name, value in fields.items() if value}
        settings = ", ".join(f"{name} = ?" for name in ("state", *given))
        statement = f"UPDATE batch_jobs SET {settings} WHERE tag = ?"  # noqa: S608 - fixed names
        self._write((statement, [(state, *given.values(), tag)]))

    def request_state(self, custom_id: str) -> RequestState:
        found = self._first("SELECT reply, prompt, completion FROM batch_requests WHERE custom_id = ?", custom_id)
        if found is None:
            return None
        reply, prompt, completion = found
        if reply is None:
            return Waiting()
        stored = json.loads(reply)
        if "error" in stored:
            return Unanswered(stored["error"])
        return Completion(stored["text"], stored["finish"], Usage(prompt, completion))

    def store_replies(self, tag: str, replies: Sequence[NamedReply]) -> None:
        """Store replies to the requests of one job, all or none; a stored answer is never replaced."""
        self._write((_STORE_REPLY, [(*_stored(reply), name, tag) for name, reply in replies]))

    def import_replies(self, plan: str, replies: Sequence[NamedReply]) -> None:
        """Store replies that no job brought; a stored answer is never replaced."""
        self._write((_IMPORT_REPLY, [(name, plan, *_stored(reply)) for name, reply in replies]))

    def finish(self, tag: str, status: str, *, release: bool) -> None:
        """Store that a job is over. Requests without a reply may then be submitted again, or else are asked live."""
        gone = json.dumps({"error": f"the batch ended as {status} without it"})
        unanswered: tuple[str, list[tuple[object, ...]]] = (
            ("DELETE FROM batch_requests WHERE job = ? AND reply IS NULL", [(tag,)])
            if release
            else ("UPDATE batch_requests SET reply = ? WHERE job = ? AND reply IS NULL", [(gone, tag)])
        )
        self._write(("UPDATE batch_jobs SET state = 'over', status = ? WHERE tag = ?", [(status, tag)]), unanswered)

    def unanswered(self, tag: str) -> int:
        found = self._first("SELECT count(*) FROM batch_requests WHERE job = ? AND reply IS NULL", tag)
        return found[0] if found else 0

    def used(self, plan: str) -> tuple[int, Usage]:
        """Return how many replies a plan has, and their tokens."""
        query = "SELECT sum(prompt > 0), sum(prompt), sum(completion) FROM batch_requests WHERE plan = ?"
        replies, prompt, completion = (number or 0 for number in self._first(query, plan) or (0, 0, 0))
        return replies, Usage(prompt, completion)

    def clear(self, plan: str) -> None:
        """Delete a plan's requests, whose answers are in the journal; its jobs are kept."""
        self._write(("DELETE FROM batch_requests WHERE plan = ?", [(plan,)]))

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    def _first(self, query: str, value: str) -> tuple[Any, ...] | None:
        with _sqlite_errors(self.path):
            row: tuple[Any, ...] | None = self._db.execute(query, (value,)).fetchone()
            return row

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        with _sqlite_errors(self.path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise


def read_jobs(path: Path) -> list[Job]:
    """Return every job in a journal, the oldest first, without changing it; none where there is no journal."""
    if not path.is_file() or path.stat().st_size == 0:
        return []
    with _sqlite_errors(path), closing(connect_to_read(path)) as db:
        return _select_jobs(db)


def _select_jobs(db: sqlite3.Connection) -> list[Job]:
    # A journal of a run that never had a batch lacks the table.
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'batch_jobs'").fetchone():
        return []
    return [Job(*row) for row in db.execute(f"{_JOBS} ORDER BY created, tag")]


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise journal_error(path, error) from error


def _stored(reply: Completion | Unanswered) -> tuple[str, int, int]:
    if isinstance(reply, Unanswered):
        return json.dumps({"error": reply.reason}), 0, 0
    usage = reply.usage
    text = json.dumps({"text": reply.text, "finish": reply.finish_reason})
    return text, usage.prompt_tokens, usage.completion_tokens


_LONGEST_STEP = 31  # Servers allow ids of 64 characters
_CUSTOM_ID = re.compile(rf"[0-9a-f]{{32}}-[\w-]{{1,{_LONGEST_STEP}}}")


def custom_id(key: bytes, step: str) -> str:
    """Return the id of one request: the answer's key in hex, and the step, or a hash of a long name."""
    # It depends on nothing else, so replies find their rows in any order.
    if len(step) > _LONGEST_STEP:
        step = hashlib.blake2b(step.encode(), digest_size=8).hexdigest()
    return f"{key.hex()}-{step}"


def is_custom_id(name: str) -> bool:
    """Whether an id has the form that `custom_id` returns."""
    return _CUSTOM_ID.fullmatch(name) is not None


class BatchFile(AtomicFile):
    """One file of batch requests, which replaces an existing one. Readable for its owner alone: it has feedback."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, str(path), mode=0o600)
        self.custom_ids: list[str] = []  # The requests in it, in order
        self.size = 0

    def add(self, name: str, line: bytes) -> None:
        self.write(line)
        self.custom_ids.append(name)
        self.size += len(line)


def reply_lines(path: Path) -> Iterator[bytes]:
    """Yield the replies of a file in UTF-8: also packed, with a byte order mark, with CR LF, as lines of an array."""
    with closing(open_bytes(str(path))) as data:
        chunks = data.chunks()
        head = next(chunks, b"")
        encoding = choose_encoding(head, None, str(path))
        lines = Lines(chain((head[encoding.mark :],), chunks), encoding, str(path))
        for _, line in lines:
            reply = line.strip(b" \t\r\n,")
            if reply.startswith(b"[{") and reply.endswith(b"}]"):
                with suppress(ValueError):
                    yield from (json.dumps(value).encode() for value in json.loads(reply))
            elif reply := reply.strip(b"[]"):
                yield reply
