"""The journal: durable, private, versioned; damaged or foreign files are refused with the next step."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.errors import ExitCode, OutputError
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import FORMAT_VERSION, Journal, MemoryAnswers, open_answers, outcome_to_text, text_to_outcome
from mellea_cli.items import Failure, Outcome, Success
from mellea_cli.messages import Usage

TEXT = st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
USAGE = st.builds(Usage, st.integers(0), st.integers(0))
SECONDS = st.floats(0, 1e6)
OUTCOMES = st.builds(Success, st.dictionaries(TEXT, VALUES, max_size=4), USAGE, SECONDS, st.integers(1)) | st.builds(
    Failure, TEXT, TEXT, TEXT, st.integers(1), st.none() | st.integers(), USAGE, SECONDS
)


@settings(deadline=None)
@given(OUTCOMES)
def test_outcome_comes_back_equal(outcome: Success | Failure) -> None:
    """Every field survives, surrogate halves and control characters too, in one line of ASCII."""
    text = outcome_to_text(outcome)
    assert text_to_outcome(text) == outcome
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", '{"values": {}}', '{"values": {}, "usage": 1}', '{"kind": "x"'])
def test_text_that_is_no_outcome_is_refused(text: str) -> None:
    """Damage is an error, never a wrong outcome."""
    with pytest.raises(ValueError, match=r"."):
        text_to_outcome(text)


def test_memory_keeps_the_answers_used_last() -> None:
    """The bound holds, a lookup counts as use, a later answer replaces an earlier one."""
    answers = MemoryAnswers(bound=3)
    answers.commit([(bytes([n]), Success({"n": n})) for n in range(3)])
    assert answers.lookup(b"\0") == Success({"n": 0})
    answers.commit([(b"\3", Success({"n": 3})), (b"\2", Failure("parse", "x"))])
    assert answers.lookup(b"\1") is None
    assert [answers.lookup(bytes([n])) for n in (0, 2, 3)] == [
        Success({"n": 0}), Failure("parse", "x"), Success({"n": 3}),
    ]  # fmt: skip
    mark = answers.mark()
    answers.commit([(b"\2", Failure("parse", "x"))])
    assert [answers.stored_after(mark, bytes([n])) for n in (0, 1, 2, 3)] == [False, False, True, False]
    answers.note_facts({"plan": "a", "version": "1"})
    answers.note_facts({"plan": "b"})
    assert answers.facts() == {"plan": "b", "version": "1"}
    answers.close()
    assert answers.lookup(b"\0") is None


def key(number: int) -> bytes:
    return random.Random(number).randbytes(16)  # noqa: S311 - repeatable, not secret


def answer(number: int) -> Outcome:
    if number % 7 == 3:
        return Failure("parse", f"no JSON {number}", step="single", attempts=3, status=200, usage=Usage(1, 2))
    return Success({"summary": f"ä {number} " + "x" * (number % 200), "issues": {"urgency": None}}, Usage(3, 4), 1.5, 2)


def records(start: int, end: int) -> list[tuple[bytes, Outcome]]:
    return [(key(number), answer(number)) for number in range(start, end)]


def stored(journal: Journal) -> int:
    """The number of answers in the file, of any plan."""
    with closing(sqlite3.connect(journal.path)) as db:
        count: int = db.execute("SELECT count(*) FROM answers").fetchone()[0]
    return count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.journal"


def test_answers_are_there_at_once_and_after_opening_again(path: Path) -> None:
    """What was committed is found by this run and by the next; a later answer for a key wins."""
    journal = Journal.open(path)
    assert journal.lookup(key(1)) is None
    journal.commit(records(0, 100))
    journal.commit([(key(1), Success({"n": 1})), (key(1), Success({"n": 2}))])
    assert journal.lookup(key(1)) == Success({"n": 2})
    journal.close()
    journal = Journal.open(path)
    assert stored(journal) == 100
    assert journal.lookup(key(1)) == Success({"n": 2})
    assert all(journal.lookup(known) == outcome for known, outcome in records(2, 100))
    assert journal.lookup(key(100)) is None
    journal.close()


def test_what_was_stored_after_a_mark_is_told_apart(path: Path) -> None:
    """New answers and replaced ones are later than the mark, the last one before it too; all others are not."""
    journal = Journal.open(path)
    assert journal.mark() == 0
    journal.commit(records(0, 10))
    journal.close()
    journal = Journal.open(path)
    mark = journal.mark()
    assert not any(journal.stored_after(mark, key(number)) for number in range(12))
    journal.commit([(key(9), answer(1)), (key(2), answer(2)), *records(10, 11)])
    assert [number for number in range(12) if journal.stored_after(mark, key(number))] == [2, 9, 10]
    assert not journal.stored_after(journal.mark(), key(10))
    assert (stored(journal), journal.lookup(key(9)), journal.lookup(key(2))) == (11, answer(1), answer(2))
    journal.close()


def test_fresh_throws_everything_away(path: Path) -> None:
    """--fresh starts over, also over a file that is no journal."""
    journal = Journal.open(path)
    journal.commit(records(0, 3))
    journal.close()
    journal = Journal.open(path, fresh=True)
    assert stored(journal) == 0
    journal.close()
    path.write_text("garbage" * 1000)
    journal = Journal.open(path, fresh=True)
    journal.commit(records(0, 3))
    assert stored(journal) == 3
    journal.close()


def test_facts_are_kept(path: Path) -> None:
    """Facts about a run are replaced one by one."""
    journal = Journal.open(path)
    journal.note_facts({"version": "0.1.0", "plan": "a"})
    journal.note_facts({"plan": "b"})
    journal.close()
    journal = Journal.open(path)
    assert journal.facts() == {"version": "0.1.0", "plan": "b"}
    journal.close()


def test_files_are_private_and_nothing_stays_next_to_it_after_closing(path: Path) -> None:
    """Mode 0600 for the database and its log, whatever the umask; one file at rest."""
    old = os.umask(0)
    try:
        journal = Journal.open(path)
        journal.commit(records(0, 10))
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
        assert f"{path.name}-wal" in modes
        journal.close()
    finally:
        os.umask(old)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_lax_permissions_are_tightened(path: Path) -> None:
    """A journal that others could read becomes private when it is opened."""
    Journal.open(path).close()
    path.chmod(0o644)
    Journal.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lookup_goes_on_while_another_thread_commits(path: Path) -> None:
    """The reader never waits for the writer, and sees what is committed."""
    journal = Journal.open(path)
    done = threading.Event()
    failures: list[OutputError] = []

    def write() -> None:
        try:
            for start in range(0, 2000, 20):
                journal.commit(records(start, start + 20))
        except OutputError as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        for number in range(0, 2000, 97):
            assert journal.lookup(key(number)) in (None, answer(number))
    thread.join()
    assert failures == []
    assert all(journal.lookup(key(number)) == answer(number) for number in range(2000))
    journal.close()


def test_copy_made_while_running_is_usable(path: Path, tmp_path: Path) -> None:
    """Database and log copied together hold every committed answer."""
    journal = Journal.open(path)
    journal.commit(records(0, 500))
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    journal.commit(records(500, 600))
    again = Journal.open(copy)
    assert stored(again) == 500
    assert all(again.lookup(known) == outcome for known, outcome in records(0, 500))
    again.close()
    journal.close()


def refused(path: Path, words: str, hint: str = "--fresh") -> None:
    before = path.read_bytes()
    with pytest.raises(OutputError, match=words) as caught:
        Journal.open(path)
    assert str(path) in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE
    assert path.read_bytes() == before


def test_file_that_is_no_journal_is_refused_and_left_alone(path: Path) -> None:
    """Garbage, another program's database and a newer format each say what they are."""
    path.write_text("no database at all " * 100)
    refused(path, "is not a journal")
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    refused(path, "is a database of another program", "choose another name")
    path.unlink()
    Journal.open(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    newer.close()
    refused(path, rf"newer version \(journal format {FORMAT_VERSION + 1}, this one knows {FORMAT_VERSION}\)")


def test_directory_or_link_in_its_place_is_refused(path: Path) -> None:
    """A journal is a file of its own, and no link leads a run elsewhere."""
    path.mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        Journal.open(path)
    path.rmdir()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal.open(path)
    assert not (path.parent / "elsewhere").exists()


def test_journal_that_another_program_holds_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign writer is waited for a moment, then named."""
    monkeypatch.setattr("mellea_cli.io.journal._BUSY_S", 0.05)
    journal = Journal.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutputError, match="another program has it open"):
        journal.commit(records(0, 1))
    other.close()
    journal.close()


@pytest.mark.parametrize("target", ["-", "/dev/null", "/dev/full"])
def test_outputs_without_a_place_next_to_them_remember_in_memory(target: str) -> None:
    """No journal appears next to a device."""
    answers = open_answers(resolve_output(target))
    assert isinstance(answers, MemoryAnswers)


def test_output_file_has_its_journal_next_to_it(tmp_path: Path) -> None:
    """The name says what it belongs to."""
    answers = open_answers(resolve_output(str(tmp_path / "out.csv")))
    answers.commit(records(0, 1))
    answers.close()
    assert (tmp_path / "out.csv.journal").is_file()
    again = open_answers(resolve_output(str(tmp_path / "out.csv")), fresh=True)
    assert again.lookup(key(0)) is None
    again.close()


def intact_or_refused(path: Path, total: int) -> str:
    """Open a damaged journal: every answer it gives is right, or it is refused with a message."""
    try:
        journal = Journal.open(path)
    except OutputError as error:
        return "refused" if error.hint else "refused without a next step"
    try:
        found = [journal.lookup(key(number)) for number in range(total)]
        assert all(outcome in (None, answer(number)) for number, outcome in enumerate(found))
        journal.commit(records(0, total))
        assert all(journal.lookup(key(number)) == answer(number) for number in range(total))
    except OutputError as error:
        return "refused" if error.hint else "refused without a next step"
    finally:
        journal.close()
    return "whole" if None not in found else "repaired"


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_damaged_tail_never_gives_a_wrong_answer(tmp_path: Path, suffix: str) -> None:
    """Tails cut by 1 to 700 bytes or filled with NUL bytes, of the database and of its log."""
    live = tmp_path / "live.journal"
    journal = Journal.open(live)
    for start in range(0, 300, 30):
        journal.commit(records(start, start + 30))
    if suffix == "":
        journal.close()
    saved = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if not entry.name.endswith("-shm")}
    if suffix:
        journal.close()
    verdicts = []
    for damage in [*range(1, 40, 3), *range(40, 701, 55), -300, -3000]:
        folder = tmp_path / f"damage{damage}"
        folder.mkdir()
        for name, data in saved.items():
            (folder / name).write_bytes(data)
        victim = folder / f"live.journal{suffix}"
        data = victim.read_bytes()
        victim.write_bytes(data[:-damage] if damage > 0 else data[:damage] + bytes(-damage))
        verdicts.append(intact_or_refused(folder / "live.journal", 300))
    if suffix == "-wal":
        # The last commit is lost with its tail, and only that.
        assert set(verdicts) == {"repaired", "whole"} or set(verdicts) == {"repaired"}
    else:
        assert set(verdicts) <= {"repaired", "whole", "refused"}


def test_damage_in_the_middle_never_gives_a_wrong_answer(tmp_path: Path) -> None:
    """Random bytes of the database changed: right answers, missing answers, or a refusal."""
    live = tmp_path / "live.journal"
    journal = Journal.open(live)
    journal.commit(records(0, 300))
    journal.close()
    whole = live.read_bytes()
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    verdicts = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 1, 30])):
            data[chance.randrange(100, len(data))] = chance.randrange(256)
        live.write_bytes(data)
        verdicts.add(intact_or_refused(live, 300))
        for leftover in tmp_path.glob("live.journal-*"):
            leftover.unlink()
    assert verdicts >= {"repaired", "refused"}
    assert "refused without a next step" not in verdicts


COMMITS = """
import random, sys
from pathlib import Path
from mellea_cli.io.journal import Journal
from mellea_cli.items import Success
journal = Journal.open(Path(sys.argv[1]))
print("open", flush=True)
start = int(sys.argv[2])
while True:
    group = range(start, start + random.randrange(1, 60))
    journal.commit([(random.Random(n).randbytes(16), Success({"n": n, "x": "y" * (n % 300)})) for n in group])
    start = group.stop
    print(start, flush=True)
"""


def test_kill_at_any_moment_keeps_every_acknowledged_commit(path: Path) -> None:
    """Killed with -9 in a loop of commits, again and again: no acknowledged answer is gone or half there."""
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    done = 0
    for _ in range(15):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMITS, str(path), str(done)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        for _ in range(chance.randrange(0, 25)):
            done = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().splitlines()
        child.wait()
        child.stdout.close()
        # The last line may be cut in two by the kill; the one before it was whole.
        done = max([done, *(int(line) for line in rest[:-1])])
        journal = Journal.open(path)
        count = stored(journal)
        assert count >= done
        for number in range(count):
            assert journal.lookup(key(number)) == Success({"n": number, "x": "y" * (number % 300)})
        journal.close()
        done = count
    assert done > 1000


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_journal import records
from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Journal
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
kept = 0
try:
    journal = Journal.open(Path(sys.argv[1]))
    for start in range(0, 100_000, 50):
        journal.commit(records(start, start + 50))
        kept = start + 50
except OutputError as error:
    print(kept, error, error.hint, sep="|")
    try:
        journal.commit(records(0, 1))
    except OutputError as again:
        assert str(again) == str(error)
    except NameError:
        pass
    else:
        raise SystemExit("a commit after a failed one went through")
"""


@pytest.mark.parametrize("limit", [0, 3_000, 8_192, 40_000, 70_000, 200_000, 1_000_000])
def test_no_room_stops_cleanly_and_goes_on_when_there_is_room(path: Path, limit: int) -> None:
    """At a file size limit the commit fails with file and reason; what was acknowledged is there afterwards."""
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit), str(Path(__file__).parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stderr == ""
    kept, message, hint = run.stdout.strip().split("|")
    assert str(path) in message
    assert "again" in hint
    journal = Journal.open(path)
    assert all(journal.lookup(key(number)) == answer(number) for number in range(int(kept)))
    journal.commit(records(int(kept), int(kept) + 50))
    journal.close()
    journal = Journal.open(path)
    assert stored(journal) >= int(kept) + 50
    journal.close()


def test_read_only_places_are_refused_with_the_next_step() -> None:
    """A folder or a journal that may not be written: one line, nothing changed."""
    program = """
import os, sys
from pathlib import Path
from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Journal
if os.geteuid() == 0:
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        Journal.open(Path(path))
    except OutputError as error:
        print(error, error.hint, sep="|")
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        closed = folder / "closed"
        closed.mkdir()
        Journal.open(closed / "old.journal").close()
        (closed / "old.journal").chmod(0o444)
        closed.chmod(0o555)
        run = subprocess.run(
            [sys.executable, "-c", program, str(closed / "new.journal"), str(closed / "old.journal")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        lines = run.stdout.splitlines()
        assert len(lines) == 2
        assert all("journal: cannot be written: Permission denied|choose a folder" in line for line in lines)
        closed.chmod(0o755)


def test_read_only_folder_with_a_writable_journal_is_refused() -> None:
    """SQLite needs to put its log next to the file: when it cannot, that is said before any request."""
    program = """
import os, sys
from pathlib import Path
from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Journal
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Journal.open(Path(sys.argv[1]))
except OutputError as error:
    print(error, error.hint, sep="|")
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        closed = folder / "closed"
        closed.mkdir()
        Journal.open(closed / "old.journal").close()
        (closed / "old.journal").chmod(0o666)
        closed.chmod(0o555)
        run = subprocess.run(
            [sys.executable, "-c", program, str(closed / "old.journal")], capture_output=True, text=True, check=True
        )
        assert "old.journal: cannot be" in run.stdout
        assert "choose a folder" in run.stdout
        closed.chmod(0o755)
