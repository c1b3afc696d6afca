"""The book of batch jobs: what it says after each step, and that it lives in the journal without disturbing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mellea_cli.errors import OutputError
from mellea_cli.io.batch_jobs import BatchJobStore, Gone, Job, Waiting, look_up_jobs
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
def book(journal: Journal) -> Iterator[BatchJobStore]:
    """A book in it with one job of two requests."""
    made = BatchJobStore(journal.path)
    made.add(JOB, ["a", "b"])
    yield made
    made.close()


def test_it_shares_the_journal(journal: Journal, book: BatchJobStore) -> None:
    """Answers and jobs are written to one file side by side, and either can be opened again."""
    journal.commit([(b"k" * 16, Success({"x": 1}))])
    book.keep("t1", [("a", GOOD)])
    assert journal.count() == 1
    again = BatchJobStore(journal.path)
    assert again.standing("a") == GOOD
    again.close()


def test_each_step_is_remembered(book: BatchJobStore) -> None:
    """A job carries its ids and state from step to step, and leaves the list when it is over."""
    book.change("t1", state="uploaded", file_id="file-1")
    book.change("t1", state="submitted", batch_id="batch-1", status="validating")
    (job,) = book.jobs("plan")
    assert (job.state, job.file_id, job.batch_id, job.status) == ("submitted", "file-1", "batch-1", "validating")
    assert book.jobs("another plan") == []
    book.finish("t1", "completed", release=False)
    assert book.jobs("plan") == []
    assert [job.status for job in look_up_jobs(book.path)] == ["completed"]


def test_a_request_stands_as_its_reply_says(book: BatchJobStore) -> None:
    """Unknown, waiting, answered or gone; an answer is never replaced by anything, an error is by an answer."""
    assert book.standing("z") is None
    assert book.standing("a") == Waiting()
    book.keep("t1", [("a", Gone("no")), ("b", GOOD), ("z", GOOD)])
    assert book.standing("a") == Gone("no")
    assert book.standing("z") is None
    book.keep("t1", [("a", GOOD), ("b", Gone("late"))])
    assert (book.standing("a"), book.standing("b")) == (GOOD, GOOD)
    assert book.used("plan") == (2, Usage(20, 10))


@pytest.mark.parametrize(
    ("release", "standing"), [(True, None), (False, Gone("the batch ended as expired without it"))]
)
def test_what_a_batch_leaves_over(book: BatchJobStore, release: bool, standing: Gone | None) -> None:
    """Requests without a reply may be handed in again, or are to be asked live; the others stay."""
    book.keep("t1", [("a", GOOD)])
    assert book.unanswered("t1") == 1
    book.finish("t1", "expired", release=release)
    assert book.standing("b") == standing
    assert book.standing("a") == GOOD


def test_replies_that_are_brought_in(book: BatchJobStore) -> None:
    """One that is there stays, one that waits in a job too, an error gives way."""
    book.bring("plan", [("a", GOOD), ("c", Gone("no"))])
    assert book.standing("a") == Waiting()
    book.bring("plan", [("c", GOOD)])
    book.bring("plan", [("c", Gone("no"))])
    assert book.standing("c") == GOOD
    book.clear("plan")
    assert book.standing("c") is None


def test_looking_changes_nothing(tmp_path: Path, book: BatchJobStore) -> None:
    """Jobs can be listed while a run writes; a file that is no journal has none, or is named."""
    assert [job.tag for job in look_up_jobs(book.path)] == ["t1"]
    assert look_up_jobs(tmp_path / "nowhere") == []
    plain = tmp_path / "old.journal"
    with sqlite3.connect(plain) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    assert look_up_jobs(plain) == []
    (tmp_path / "text.journal").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(OutputError, match=r"text\.journal"):
        look_up_jobs(tmp_path / "text.journal")


def test_nothing_of_a_failed_step_is_kept(book: BatchJobStore) -> None:
    """A job that cannot be written whole is not written at all."""
    with pytest.raises(OutputError):
        book.add(JOB, ["c", "d"])
    assert book.standing("c") is None
