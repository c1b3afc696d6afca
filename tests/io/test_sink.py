"""Sinks: whole or not at all, in input order, rows visible, every failure named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import resource
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.errors import OutputError, ReaderGone, UsageError
from mellea_cli.io.files import resolve_output
from mellea_cli.io.sink import FileSink, OrderedSink, Sink, SinkOptions, StreamSink, open_dead_letters, open_sink
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Failure, Item, Row, Success

ADDED = AddedColumns.of("summary", ("issues", ("urgency",)))


def row(position: int, **fields: object) -> Row:
    raw = json.dumps({"id": position, "text": f"t{position}", **fields})
    item = Item(position, position, f"t{position}", json.loads(raw), position + 1, raw)
    if position % 3 == 2:
        return ADDED.row(item, Failure("parse", "no JSON", attempts=2))
    return ADDED.row(item, Success({"summary": f"s{position}", "issues": {"urgency": "low"}}))


def write(path: Path | str, rows: list[Row], options: SinkOptions | None = None) -> list[str]:
    notes: list[str] = []
    with open_sink(resolve_output(str(path)), ADDED, options, note=notes.append) as sink:
        for each in rows:
            sink.write(each)
        sink.finish()
    return notes


EXPECTED = [
    {"id": 0, "text": "t0", "summary": "s0", "issues": {"urgency": "low"}},
    {"id": 1, "text": "t1", "summary": "s1", "issues": {"urgency": "low"}},
    {
        "id": 2, "text": "t2", "summary": None, "issues": None,
        "error": {"kind": "parse", "message": "no JSON", "attempts": 2},
    },
]  # fmt: skip
TABLE = "id,text,summary,urgency,error\n0,t0,s0,low,\n1,t1,s1,low,\n2,t2,,,parse: no JSON\n"


def test_json_lines(tmp_path: Path) -> None:
    """A row a line, `error` only where a row failed."""
    write(tmp_path / "out.jsonl", [row(n) for n in range(3)])
    text = (tmp_path / "out.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == EXPECTED
    assert text.endswith("}\n")


def test_json_array(tmp_path: Path) -> None:
    """One array; without rows an empty one."""
    write(tmp_path / "out.json", [row(n) for n in range(3)])
    assert json.loads((tmp_path / "out.json").read_text()) == EXPECTED
    write(tmp_path / "out.json", [])
    assert (tmp_path / "out.json").read_text() == "[]\n"


def test_table(tmp_path: Path) -> None:
    """A header, flat columns, `error` always a column; TSV with tabs; the format by flag wins over the suffix."""
    rows = [row(n) for n in range(3)]
    write(tmp_path / "out.csv", rows)
    assert (tmp_path / "out.csv").read_text() == TABLE
    write(tmp_path / "out.tsv", rows)
    assert (tmp_path / "out.tsv").read_text() == TABLE.replace(",", "\t")
    write(tmp_path / "out.jsonl", rows, SinkOptions(format="csv"))
    assert (tmp_path / "out.jsonl").read_text() == TABLE


def test_packed_outputs(tmp_path: Path) -> None:
    """A name that ends in .gz is written as gzip, the same bytes every time."""
    rows = [row(n) for n in range(3)]
    write(tmp_path / "out.csv.gz", rows)
    first = (tmp_path / "out.csv.gz").read_bytes()
    assert gzip.decompress(first).decode() == TABLE
    write(tmp_path / "out.csv.gz", rows)
    assert (tmp_path / "out.csv.gz").read_bytes() == first


def test_header_is_the_union_of_all_rows(tmp_path: Path) -> None:
    """Columns that turn up late have their place, empty above; ours come last and give way to any row's."""
    notes = write(tmp_path / "out.csv", [row(0), row(1, late="x"), row(3, urgency="mine")])
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert list(table[0]) == ["id", "text", "late", "urgency", "summary", "mellea_urgency", "error"]
    assert [(line["late"], line["urgency"], line["mellea_urgency"]) for line in table] == [
        ("", "", "low"), ("x", "", "low"), ("", "mine", "low"),
    ]  # fmt: skip
    assert len(notes) == 1


def test_known_columns_make_the_header_of_an_empty_table(tmp_path: Path) -> None:
    """No rows still gives a header; dead letters without rows give an empty file."""
    write(tmp_path / "out.csv", [], SinkOptions(columns=("id", "text")))
    assert (tmp_path / "out.csv").read_text() == "id,text,summary,urgency,error\n"
    with open_dead_letters(str(tmp_path / "failed.csv")) as sink:
        sink.finish()
    assert (tmp_path / "failed.csv").read_bytes() == b""


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv"])
def test_old_output_stands_until_the_end_and_keeps_its_permissions(tmp_path: Path, name: str) -> None:
    """Rows grow in the partial file, private when the output is; only `finish` replaces the old output."""
    path = tmp_path / name
    path.write_text("old")
    path.chmod(0o640)
    sink = open_sink(resolve_output(str(path)), ADDED)
    partial = tmp_path / f"{name}.partial"
    for number in range(3):
        sink.write(row(number))
        sink.flush()
        assert len(partial.read_text().splitlines()) == number + 1
        assert path.read_text() == "old"
    assert stat.S_IMODE(partial.stat().st_mode) == 0o640
    sink.finish()
    sink.close()
    assert "t2" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_new_output_follows_the_umask(tmp_path: Path) -> None:
    """A new file has the permissions that any program's new file has."""
    old = os.umask(0o027)
    try:
        write(tmp_path / "out.csv", [row(0)])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


def test_closing_without_finish_keeps_the_partial_file(tmp_path: Path) -> None:
    """What is done can be looked at; the output is untouched."""
    path = tmp_path / "out.jsonl"
    with open_sink(resolve_output(str(path)), ADDED) as sink:
        sink.write(row(0))
    assert not path.exists()
    assert json.loads((tmp_path / "out.jsonl.partial").read_text()) == EXPECTED[0]


def test_leftovers_of_a_crash_are_overwritten(tmp_path: Path) -> None:
    """A partial and a half-written file of a dead run do no harm."""
    (tmp_path / "out.csv.partial").write_text("half a")
    (tmp_path / "out.csv.new").write_text("half a")
    write(tmp_path / "out.csv", [row(n) for n in range(3)])
    assert (tmp_path / "out.csv").read_text() == TABLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_link_stays_a_link(tmp_path: Path) -> None:
    """The file that a symbolic link leads to is replaced, not the link."""
    (tmp_path / "far").mkdir()
    link = tmp_path / "out.jsonl"
    link.symlink_to(tmp_path / "far" / "real.jsonl")
    write(link, [row(0)])
    assert link.is_symlink()
    assert json.loads((tmp_path / "far" / "real.jsonl").read_text()) == EXPECTED[0]


def test_link_in_place_of_the_partial_file_is_refused(tmp_path: Path) -> None:
    """Nobody can make a run write through a link that it did not expect."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out.jsonl.partial").symlink_to(victim)
    with pytest.raises(OutputError, match="cannot be written"):
        open_sink(resolve_output(str(tmp_path / "out.jsonl")), ADDED)
    assert victim.read_text() == "precious"


def test_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    """Formats are named in the message."""
    with pytest.raises(UsageError, match="there is no format") as caught:
        open_sink(resolve_output(str(tmp_path / "out")), ADDED, SinkOptions(format="xml"))
    assert "jsonl" in caught.value.hint


def test_devices_take_rows(tmp_path: Path) -> None:
    """/dev/null swallows them, /dev/full says that it is full."""
    write("/dev/null", [row(0)])
    with open_sink(resolve_output("/dev/full"), ADDED) as sink, pytest.raises(OutputError, match="No space left"):
        sink.write(row(0))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("jsonl", "".join(json.dumps(each) + "\n" for each in EXPECTED)),
        ("json", "[\n" + ",\n".join(json.dumps(each) for each in EXPECTED) + "\n]\n"),
        ("csv", TABLE),
    ],
)
def test_pipe_gets_each_row_at_once(tmp_path: Path, form: str, expected: str) -> None:
    """A reader sees row n before row n + 1 is written, in one piece; the end makes it whole."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink(resolve_output(str(path)), ADDED, SinkOptions(format=form))
    got = ""
    for number in range(3):
        sink.write(row(number))
        piece = os.read(reader, 1 << 16).decode()
        assert f"t{number}" in piece
        assert f"t{number + 1}" not in piece
        got += piece
    sink.finish()
    sink.close()
    assert got + os.read(reader, 1 << 16).decode() == expected
    os.close(reader)


def test_table_to_a_pipe_has_the_columns_it_knows_at_its_first_row(tmp_path: Path) -> None:
    """Surveyed columns are in the header; one that nobody knew is left out and noted once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    options = SinkOptions(format="csv", columns=("id", "text", "stars"))
    notes = write(path, [row(0), row(1, stars=5, late=1), row(3, late=2)], options)
    lines = os.read(reader, 1 << 16).decode().splitlines()
    os.close(reader)
    assert lines[0] == "id,text,stars,summary,urgency,error"
    assert lines[2] == "1,t1,5,s1,low,"
    assert len(notes) == 1
    assert "'late'" in notes[0]


def test_reader_that_goes_away_is_told_apart() -> None:
    """A closed pipe is a reader gone, not a failure of the disk."""
    reader, writer = os.pipe()
    os.close(reader)
    with open_sink(resolve_output(f"/dev/fd/{writer}"), ADDED) as sink, pytest.raises(ReaderGone):
        sink.write(row(0))
    os.close(writer)


def test_standard_output_gets_rows_and_stays_open() -> None:
    """Rows go to descriptor 1 itself; `head` ends the writer with the reader-gone error, without noise."""
    program = """
import sys
from mellea_cli.errors import ReaderGone
from mellea_cli.io.writers import AddedColumns
from mellea_cli.io.sink import open_sink
from mellea_cli.io.files import resolve_output
from mellea_cli.items import Item, Row
try:
    with open_sink(resolve_output("-"), AddedColumns()) as sink:
        for n in range(int(sys.argv[1])):
            sink.write(Row(Item(n, n, "a", {"text": "a" * 100}), {}))
        sink.finish()
    print("after")
except ReaderGone as error:
    sys.exit(int(error.exit_code))
"""
    whole = subprocess.run([sys.executable, "-c", program, "2"], capture_output=True, check=True)
    assert whole.stdout.decode().splitlines()[2:] == ["after"]
    run = subprocess.Popen(
        [sys.executable, "-c", program, "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.read(300)
    run.stdout.close()
    assert run.wait(timeout=60) == 141
    assert run.stderr.read() == b""
    run.stderr.close()


def test_non_blocking_pipe_is_waited_for() -> None:
    """A pipe that somebody made non-blocking loses nothing when its reader is slow."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got: list[bytes] = []

    def slowly() -> None:
        while piece := os.read(reader, 4096):
            got.append(piece)

    thread = threading.Thread(target=slowly)
    thread.start()
    with open_sink(resolve_output(f"/dev/fd/{writer}"), AddedColumns()) as sink:
        sink.write(Row(Item(0, 1, "a", {"text": "x" * 1_000_000}), {}))
    os.close(writer)
    thread.join()
    os.close(reader)
    assert len(b"".join(got)) == 1_000_000 + len('{"text": ""}\n')


FULL = """
import os, resource, signal, sys
from mellea_cli.errors import OutputError
from mellea_cli.io.writers import AddedColumns
from mellea_cli.io.sink import open_sink
from mellea_cli.io.files import resolve_output
from mellea_cli.items import Item, Row
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
sink = open_sink(resolve_output(sys.argv[1]), AddedColumns())
try:
    with sink:
        for n in range(int(sys.argv[3])):
            sink.write(Row(Item(n, n, "a", {"text": "a" * 1000}), {"summary": "b" * 1000}))
            sink.flush()
        sink.finish()
except OutputError as error:
    print(n, error, error.hint, sep="|")
    sys.exit(int(error.exit_code))
"""


@pytest.mark.parametrize(
    ("name", "limit", "rows"),
    [("out.jsonl", 50_000, 1000), ("out.csv", 50_000, 1000), ("out.json", 20_275, 10)],
    ids=["while-writing", "while-writing-a-table", "at-the-end"],
)
def test_no_room_is_named_and_harms_nothing(tmp_path: Path, name: str, limit: int, rows: int) -> None:
    """At the file size limit the run ends with file and reason; the old output and the partial file are there."""
    path = tmp_path / name
    path.write_text("old")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit), str(rows)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 5, run.stderr
    assert "File too large" in run.stdout
    assert "ulimit -f" in run.stdout
    assert name in run.stdout
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [name, f"{name}.partial"]


def test_folder_or_file_that_may_not_be_written_is_refused_at_the_start() -> None:
    """Permissions are checked before any request is paid for, and renaming does not go around them."""
    program = """
import os, sys
from mellea_cli.errors import OutputError
from mellea_cli.io.writers import AddedColumns
from mellea_cli.io.sink import open_sink
from mellea_cli.io.files import resolve_output
if os.geteuid() == 0:
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        open_sink(resolve_output(path), AddedColumns())
    except OutputError as error:
        print(error, error.hint, sep="|")
"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        closed = folder / "closed"
        closed.mkdir(mode=0o555)
        fixed = folder / "fixed.csv"
        fixed.write_text("old")
        fixed.chmod(0o444)
        run = subprocess.run(
            [sys.executable, "-c", program, str(closed / "out.csv"), str(fixed)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "closed/out.csv.partial: cannot be written: Permission denied|choose a folder" in run.stdout
        assert "fixed.csv: is write-protected" in run.stdout
        assert fixed.read_text() == "old"
        closed.chmod(0o755)


def test_kinds_of_sinks() -> None:
    """A stream for standard output, a file for a name."""
    assert isinstance(open_sink(resolve_output("-"), ADDED), StreamSink)
    with tempfile.TemporaryDirectory() as folder, open_sink(resolve_output(f"{folder}/out"), ADDED) as sink:
        assert isinstance(sink, FileSink)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


class Kept(Sink):
    """A sink that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def numbered(position: int) -> Row:
    if position % 2:
        fields = {"text": f"ä{position}\ud83d", "n": str(position)}
        return Row(Item(position, f"id{position}", "ä", fields, position + 2), {"summary": None, "x": {"y": [1]}})
    raw = json.dumps({"text": f"t{position}", "big": 10**40}, indent=None)
    return Row(Item(position, position, "t", json.loads(raw), None, raw), {"summary": "s"})


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(0, 45))
def test_any_order_of_arrival_gives_the_input_order(order: list[int], bound: int) -> None:
    """Held in memory or spilled, each row comes out once, unchanged, and as soon as it can."""
    kept = Kept()
    ordered = OrderedSink(kept, bound=bound)
    seen: set[int] = set()
    for position in order:
        ordered.add(numbered(position))
        seen.add(position)
        ready = next(n for n in range(41) if n not in seen)
        assert len(kept.rows) == ready
        assert ordered.held == len(seen) - ready
    assert kept.rows == [numbered(position) for position in range(40)]
    ordered.close()


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)), st.integers(0, 30), st.randoms())
def test_finish_writes_what_waits_behind_gaps(positions: set[int], bound: int, chance: random.Random) -> None:
    """A stopped run's rows come out in order though some never came."""
    kept = Kept()
    ordered = OrderedSink(kept, bound=bound)
    shuffled = sorted(positions)
    chance.shuffle(shuffled)
    for position in shuffled:
        ordered.add(numbered(position))
    ordered.finish()
    assert [each.item.position for each in kept.rows] == sorted(positions)
    assert ordered.held == 0
    ordered.close()


@pytest.mark.parametrize("bound", [0, 1000])
def test_slow_head_holds_many_rows_back(bound: int) -> None:
    """Ten thousand early rows wait for the first one and then come at once."""
    kept = Kept()
    ordered = OrderedSink(kept, bound=bound)
    for position in range(10_000, 0, -1):
        ordered.add(numbered(position))
    assert (ordered.held, kept.rows) == (10_000, [])
    ordered.add(numbered(0))
    assert [each.item.position for each in kept.rows] == list(range(10_001))
    ordered.close()


def test_closing_drops_what_waits() -> None:
    """An aborted run leaves nothing behind."""
    ordered = OrderedSink(Kept(), bound=1)
    for position in (5, 4, 3):
        ordered.add(numbered(position))
    ordered.close()
    assert ordered.held == 0


def test_failed_items_also_go_to_the_dead_letters_as_input_rows() -> None:
    """Every row goes to the output; a row with an error goes to the other sink too, without added columns."""
    kept, failed = Kept(), Kept()
    ordered = OrderedSink(kept, failed)
    for position in (2, 0, 1):
        ordered.add(row(position))
    ordered.finish()
    assert [each.item.position for each in kept.rows] == [0, 1, 2]
    assert failed.rows == [Row(row(2).item, {})]


def test_unordered_rows_are_written_at_once() -> None:
    """No row waits for an earlier one."""
    kept = Kept()
    ordered = OrderedSink(kept, ordered=False)
    for position in (2, 0, 1):
        ordered.add(row(position))
        assert kept.rows[-1].item.position == position
    assert ordered.held == 0
