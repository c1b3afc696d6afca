"""Batch jobs: the store inside the journal, and the files of requests and replies."""

from __future__ import annotations

import gzip
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mellea_cli.errors import InputError, OutputError
from mellea_cli.io.batch_jobs import (
    BatchFile,
    BatchJobStore,
    Job,
    Unanswered,
    Waiting,
    custom_id,
    is_custom_id,
    read_jobs,
    reply_lines,
)
from mellea_cli.io.journal import Journal
from mellea_cli.items import Success
from mellea_cli.messages import Completion, Usage

JOB = Job("t1", "plan", "http://x/v1", "m", "written", "out.batch-t1.jsonl", 2, 100, 50, 1.0)
GOOD = Completion("{}", "stop", Usage(10, 5))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    opened = Journal.open(tmp_path / "out.journal")
    yield opened
    opened.close()


@pytest.fixture
def store(journal: Journal) -> Iterator[BatchJobStore]:
    """A store in it with one job of two requests."""
    made = BatchJobStore(journal.path)
    made.add(JOB, ["a", "b"])
    yield made
    made.close()


def test_it_shares_the_journal(journal: Journal, store: BatchJobStore) -> None:
    """Answers and jobs are written to one file side by side, and either can be opened again."""
    journal.commit([(b"k" * 16, Success({"x": 1}))])
    store.store_replies("t1", [("a", GOOD)])
    assert journal.lookup(b"k" * 16) == Success({"x": 1})
    again = BatchJobStore(journal.path)
    assert again.request_state("a") == GOOD
    again.close()


def test_each_step_is_remembered(store: BatchJobStore) -> None:
    """A job carries its ids and state from step to step, and leaves the list when it is over."""
    store.change("t1", state="uploaded", file_id="file-1")
    store.change("t1", state="submitted", batch_id="batch-1", status="validating")
    (job,) = store.jobs("plan")
    assert (job.state, job.file_id, job.batch_id, job.status) == ("submitted", "file-1", "batch-1", "validating")
    assert store.jobs("another plan") == []
    store.finish("t1", "completed", release=False)
    assert store.jobs("plan") == []
    assert [job.status for job in read_jobs(store.path)] == ["completed"]


def test_a_request_stands_as_its_reply_says(store: BatchJobStore) -> None:
    """Unknown, waiting, answered or gone; an answer is never replaced by anything, an error is by an answer."""
    assert store.request_state("z") is None
    assert store.request_state("a") == Waiting()
    store.store_replies("t1", [("a", Unanswered("no")), ("b", GOOD), ("z", GOOD)])
    assert store.request_state("a") == Unanswered("no")
    assert store.request_state("z") is None
    store.store_replies("t1", [("a", GOOD), ("b", Unanswered("late"))])
    assert (store.request_state("a"), store.request_state("b")) == (GOOD, GOOD)
    assert store.used("plan") == (2, Usage(20, 10))


@pytest.mark.parametrize(
    ("release", "expected"), [(True, None), (False, Unanswered("the batch ended as expired without it"))]
)
def test_what_a_batch_leaves_over(store: BatchJobStore, release: bool, expected: Unanswered | None) -> None:
    """Requests without a reply may be handed in again, or are to be asked live; the others stay."""
    store.store_replies("t1", [("a", GOOD)])
    assert store.unanswered("t1") == 1
    store.finish("t1", "expired", release=release)
    assert store.request_state("b") == expected
    assert store.request_state("a") == GOOD


def test_replies_that_are_brought_in(store: BatchJobStore) -> None:
    """One that is there stays, one that waits in a job too, an error gives way."""
    store.import_replies("plan", [("a", GOOD), ("c", Unanswered("no"))])
    assert store.request_state("a") == Waiting()
    store.import_replies("plan", [("c", GOOD)])
    store.import_replies("plan", [("c", Unanswered("no"))])
    assert store.request_state("c") == GOOD
    store.clear("plan")
    assert store.request_state("c") is None


def test_looking_changes_nothing(tmp_path: Path, store: BatchJobStore) -> None:
    """Jobs can be listed while a run writes; a file that is no journal has none, or is named."""
    assert [job.tag for job in read_jobs(store.path)] == ["t1"]
    assert read_jobs(tmp_path / "nowhere") == []
    plain = tmp_path / "old.journal"
    with sqlite3.connect(plain) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    assert read_jobs(plain) == []
    (tmp_path / "text.journal").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(OutputError, match=r"text\.journal"):
        read_jobs(tmp_path / "text.journal")


def test_nothing_of_a_failed_step_is_kept(store: BatchJobStore) -> None:
    """A job that cannot be written whole is not written at all."""
    with pytest.raises(OutputError):
        store.add(JOB, ["c", "d"])
    assert store.request_state("c") is None


def test_an_id_says_which_answer_and_which_step() -> None:
    """The journal key in hex and the step, within the 64 characters that servers allow; others are not taken for it."""
    name = custom_id(bytes(range(16)), "analysis")
    assert name == "000102030405060708090a0b0c0d0e0f-analysis"
    assert is_custom_id(name)
    assert len(custom_id(b"x" * 16, "s" * 31)) == 64
    # Steps of a pipeline file may have other names: a reply to each is one of a run, and no id is too long.
    other = [custom_id(b"x" * 16, step) for step in ("first-look", "prüfung", "s" * 59 + "a", "s" * 59 + "b")]
    assert len(set(other)) == 4
    assert all(is_custom_id(one) and len(one) <= 64 for one in other)
    assert not any(is_custom_id(other) for other in ("request-1", name.upper(), name + "\n", "-analysis", ""))


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask says, and also where one of that name stood before."""
    path = tmp_path / "b.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        file = BatchFile(path)
    finally:
        os.umask(before)
    file.add("a", b"{}\n")
    file.commit()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"{}\n"
    assert (file.custom_ids, file.size) == (["a"], 3)


def test_a_file_that_is_not_finished_goes(tmp_path: Path) -> None:
    """Nothing half-written stays behind."""
    with BatchFile(tmp_path / "b.jsonl") as file:
        file.add("a", b"{}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file elsewhere is not written over through a link with the right name."""
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "b.jsonl").symlink_to(target)
    file = BatchFile(tmp_path / "b.jsonl")
    file.add("a", b"{}\n")
    file.commit()
    assert target.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the file's name."""
    with pytest.raises(OutputError, match=r"b\.jsonl"):
        BatchFile(tmp_path / "nowhere" / "b.jsonl")


def test_replies_are_read_line_by_line(tmp_path: Path) -> None:
    """Blank lines are passed over, the last one needs no end, and a missing file is an input error."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"b": 2}')
    assert list(reply_lines(path)) == [b'{"a": 1}', b'{"b": 2}']
    with pytest.raises(InputError, match="no such file"):
        list(reply_lines(tmp_path / "nowhere"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xff\xfe"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_replies_are_read_as_other_programs_save_them(tmp_path: Path, packed: bool, mark: bytes, end: str) -> None:
    """Packed, with a byte order mark, with CR LF, in UTF-16 from PowerShell: the same lines."""
    text = end.join(('{"a": 1}', "", '{"b": 2}'))
    data = mark + text.encode("utf-16-le" if mark == b"\xff\xfe" else "utf-8")
    path = tmp_path / "r"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert [line.strip() for line in reply_lines(path)] == [b'{"a": 1}', b'{"b": 2}']
