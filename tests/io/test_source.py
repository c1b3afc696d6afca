"""Sources: columns, limits, samples, surveys, pipes that wait, and every odd file under `assets/input`."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.source import Source, SourceOptions, open_source
from mellea_cli.items import Item


def read(data: bytes, options: SourceOptions | None = None) -> list[Item]:
    with open_source("-", options, stream=io.BytesIO(data)) as source:
        return list(source)


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_item_carries_its_row_unchanged() -> None:
    """Text, id, every column, line and the raw object are there."""
    (item,) = read(b'\n{"id": 7, "text": "a",  "n": 1.10}\n')
    assert item == Item(0, 7, "a", {"id": 7, "text": "a", "n": 1.1}, 2, '{"id": 7, "text": "a",  "n": 1.10}')


def test_ids_come_as_they_stand_and_else_by_position() -> None:
    """7 is not "7"; what is no id gives the 1-based position."""
    ids = [item.id for item in read(jsonl(*({"id": i, "text": "a"} for i in (7, "7", None, True, "", [1], 7.5))))]
    assert [(value, type(value)) for value in ids] == [
        (7, int), ("7", str), (3, int), (4, int), (5, int), (6, int), (7.5, float),
    ]  # fmt: skip


def test_named_id_column_must_hold_an_id() -> None:
    """With --id-field a row without an id is bad, and a wrong name is corrected."""
    with pytest.raises(InputError, match="the id column 'key' holds no string or number") as caught:
        read(jsonl({"key": None, "text": "a"}), SourceOptions(id_field="key", on_bad_row="fail"))
    assert caught.value.line == 1
    with pytest.raises(InputError) as caught:
        read(b"Keys,text\n1,a\n", SourceOptions(id_field="key"))
    assert "did you mean --id-field Keys?" in caught.value.hint


def test_wrong_text_field_is_corrected() -> None:
    """A column that a flag names and nobody has ends in the columns seen and a guess."""
    for data in (b"id,comments\n1,a\n", jsonl({"id": 1, "comments": "a"})):
        with pytest.raises(InputError, match="no column 'comment'; columns seen: id, comments") as caught:
            read(data, SourceOptions(text_field="comment", on_bad_row="fail"))
        assert "did you mean --text-field comments?" in caught.value.hint


def test_rows_that_all_lack_the_named_column_fail_even_when_skipping() -> None:
    """Nothing usable at all is an error, not an empty run."""
    with pytest.raises(InputError, match="no column 'txt'"):
        read(jsonl({"text": "a"}, {"text": "b"}), SourceOptions(text_field="txt", on_bad_row="skip"))


def test_rows_without_a_text_column_fail_after_a_few() -> None:
    """Of an endless pipe with other columns some rows are read, not all."""
    rows = iter([b'{"colour": "a"}\n'] * 60)

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return next(rows)

    with pytest.raises(InputError, match="no column looks like the text"):
        next(iter(open_source("-", stream=Endless())))  # type: ignore[arg-type] # all that is used of it is there


@pytest.mark.parametrize(
    "options",
    [{"format": "xml"}, {"delimiter": ",,"}, {"delimiter": '"'}, {"limit": -1}, {"sample": -2}],
)
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    """An option that fits no input is a usage error before anything is opened."""
    with pytest.raises(UsageError):
        SourceOptions(**options)  # type: ignore[arg-type] # the point of the test


@pytest.mark.parametrize("name", ["utf-99", "base64", "rot13", "\0"])
def test_unknown_encoding_is_a_usage_error(name: str) -> None:
    """A name that is no text encoding is refused with examples."""
    with pytest.raises(UsageError, match="unknown encoding") as caught:
        read(b"text\na\n", SourceOptions(encoding=name))
    assert "cp1252" in caught.value.hint


@pytest.mark.parametrize("name", ["shift_jis", "gb18030", "euc-kr", "iso2022_jp", "cp037", "utf-16", "utf-7", "big5"])
def test_any_text_encoding_of_python_reads(name: str) -> None:
    """Encodings that keep ASCII's line ends and those that do not both come through."""
    text = "plain" if name == "cp037" else '日本 a, "b"'
    if name == "euc-kr":
        text = "한국"
    table = f'id,text\n1,"{text.replace(chr(34), chr(34) * 2)}"\n2,b\n'
    assert [item.text for item in read(table.encode(name), SourceOptions(encoding=name))] == [text, "b"]


def test_mark_that_contradicts_the_flag_is_refused() -> None:
    """A byte order mark and --encoding cp1252 do not go together."""
    with pytest.raises(InputError, match="UTF-8 byte order mark, but --encoding says cp1252"):
        read(b"\xef\xbb\xbftext\na\n", SourceOptions(encoding="cp1252"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("jsonl", b'{"text": "a"}\n{"text": "b"}\n'),
        ("ndjson", b'{"text": "a"}\n{"text": "b"}\n'),
        ("json", b'[{"text": "a"}, {"text": "b"}]'),
        ("csv", b"text,n\na,1\nb,2\n"),
        ("tsv", b"text\tn\na\t1\nb\t2\n"),
        ("txt", b"n;text\n1;a\n2;b\n"),
        ("none", b'{"text": "a"}\n{"text": "b"}\n'),
        ("none", b'[{"text": "a"}, {"text": "b"}]'),
    ],
)
def test_format_by_suffix_or_content_packed_or_not(tmp_path: Path, suffix: str, content: bytes, packed: bool) -> None:
    """Each format is known by its suffix or its first bytes, with gzip around it too; stdin the same."""
    path = tmp_path / (f"in.{suffix}.gz" if packed else f"in.{suffix}")
    data = gzip.compress(content) if packed else content
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert [item.text for item in source] == ["a", "b"]
    if suffix != "tsv":
        assert [item.text for item in read(data)] == ["a", "b"]


def test_limit_reads_no_further_row() -> None:
    """The row after the last one wanted is never asked for."""
    pieces = iter([b'{"text": "a"}\n', b'{"text": "b"}\n'])

    class Pieces(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return next(pieces)

    source = open_source("-", SourceOptions(limit=2), stream=Pieces())  # type: ignore[arg-type] # as above
    assert [item.text for item in source] == ["a", "b"]


def test_bad_row_behind_the_limit_does_not_matter(tmp_path: Path) -> None:
    """The survey looks at what will be read, not further."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl({"text": "a"}, {"text": "b"}) + b"broken\n")
    with open_source(str(path), SourceOptions(limit=2)) as source:
        survey = source.survey()
        assert survey is not None
        assert survey.count == len(list(source)) == 2


def test_sample_is_repeatable_fair_and_in_order(tmp_path: Path) -> None:
    """The same seed takes the same rows in input order; over many seeds each row has its chance."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(*({"text": str(i)} for i in range(20))))
    counts = dict.fromkeys(range(20), 0)
    for seed in range(400):
        with open_source(str(path), SourceOptions(sample=5, seed=seed)) as source:
            taken = list(source)
        with open_source(str(path), SourceOptions(sample=5, seed=seed, limit=3)) as source:
            survey = source.survey()
            assert list(source) == taken[:3]
        assert survey is not None
        assert survey.count == 3
        assert [item.position for item in taken] == [0, 1, 2, 3, 4]
        numbers = [int(item.text) for item in taken]
        assert numbers == sorted(set(numbers))
        assert [item.id for item in taken] == [number + 1 for number in numbers]
        for number in numbers:
            counts[number] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_survey_finds_count_and_all_columns(tmp_path: Path) -> None:
    """Columns that only some rows have are there, in the order of their first appearance."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl({"id": 1, "text": "a"}, {"text": "b", "stars": 1}, {"z": 0, "id": 3, "text": "c"}))
    with open_source(str(path)) as source:
        survey = source.survey()
        assert survey is not None
        assert (survey.count, survey.columns, survey.skipped) == (3, ("id", "text", "stars", "z"), 0)
        assert len(list(source)) == 3


def test_header_of_a_table_without_rows_is_surveyed(tmp_path: Path) -> None:
    """A header-only file has columns and no items."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"id,text\n")
    with open_source(str(path)) as source:
        survey = source.survey()
    assert survey is not None
    assert (survey.count, survey.columns) == (0, ("id", "text"))


def test_several_bad_rows_are_counted_in_the_refusal(tmp_path: Path) -> None:
    """The first bad row is named, and how many there are."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl({"text": "a"}) + b"x\ny\n")
    with open_source(str(path)) as source, pytest.raises(InputError, match=r"in\.jsonl:2") as caught:
        source.survey()
    assert "skip the 2 bad rows with --on-bad-row skip" in caught.value.hint


def test_file_that_changes_after_its_survey_is_refused(tmp_path: Path) -> None:
    """What was checked and what is read must be the same."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl({"text": "a"}))
    with open_source(str(path)) as source:
        source.survey()
        with path.open("ab") as more:
            more.write(b"broken\n")
        with pytest.raises(InputError, match="changed while it was being checked"):
            list(source)


def test_file_that_changes_while_it_is_read_is_noted(tmp_path: Path) -> None:
    """A change in the middle of the reading is said afterwards."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl({"text": "a"}, {"text": "b"}))
    notes: list[str] = []
    with open_source(str(path), note=notes.append) as source:
        source.survey()
        for item in source:
            if item.position == 0:
                with path.open("ab") as more:
                    more.write(jsonl({"text": "c"}))
    assert notes[1:] == [f"{path}: changed while it was being read"]


def test_renamed_columns_are_noted_once(tmp_path: Path) -> None:
    """A survey and an iteration together say each thing once."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"text,n,n,\na,1,2,3\n")
    notes: list[str] = []
    with open_source(str(path), note=notes.append) as source:
        source.survey()
        (item,) = source
    assert item.fields == {"text": "a", "n": "1", "n_2": "2", "column_4": "3"}
    renamed, chosen = notes
    assert renamed == f"{path}: column 3 repeats the name 'n' and is called 'n_2'"
    assert chosen == f"{path}: the text is in column 'text'"


def test_large_or_bomb_file_is_not_surveyed(tmp_path: Path) -> None:
    """A small file that unpacks to much is given up, and bad rows are then skipped and reported."""
    path = tmp_path / "in.jsonl.gz"
    row = jsonl({"text": "a" * 100_000})
    with gzip.open(path, "wb", compresslevel=1) as out:
        for _ in range(700):
            out.write(row)
        out.write(b"broken\n")
    reported: list[InputError] = []
    with open_source(str(path), report=reported.append) as source:
        assert source.survey() is None
        assert sum(1 for _ in source) == 700
    assert [error.line for error in reported] == [701]


def test_row_beyond_all_bounds_is_refused() -> None:
    """A gzip bomb of one endless line ends in an error long before it fills the memory."""
    packer = __import__("zlib").compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"a" * (1 << 20)) for _ in range(70)) + packer.flush()
    assert len(bomb) < 1 << 20
    for options in (None, SourceOptions(format="json"), SourceOptions(format="jsonl")):
        with pytest.raises(InputError, match=r"a row longer than 64 MB|expected a JSON array"):
            read(bomb, options)


def test_quote_that_swallows_too_much_is_refused_and_read_on() -> None:
    """An unclosed quote in an endless table costs one row and bounded memory, not the rest."""
    data = b'text,n\n"open,1\n' + b"b,2\n" * 3
    reported: list[InputError] = []
    filler = b"c" * 1000 + b",3\n"
    stream = io.BytesIO(data + filler * 70_000)
    with open_source("-", stream=stream, report=reported.append) as source:
        first = [item.text for item, _ in zip(source, range(4), strict=False)]
    assert first == ["b", "b", "b", "c" * 1000]
    assert [(error.line, "longer than 64 MB" in error.message) for error in reported] == [(2, True)]


def test_five_megabyte_fields_come_through() -> None:
    """Large texts are no special case in any format."""
    text = 'ä, "x"\n' * 700_000
    quoted = text.replace('"', '""')
    assert [item.text for item in read(f'text,n\n"{quoted}",1\n'.encode())] == [text]
    assert [item.text for item in read(jsonl({"text": text}))] == [text]
    assert [item.text for item in read(json.dumps([{"text": text}, {"text": "b"}]).encode())] == [text, "b"]


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("folder", "is a directory", "name a file inside it"),
        ("feedbak.csv", "no such file", "did you mean"),
        ("nowhere/in.csv", "no such file", "there is no folder"),
        ("in\0.csv", "not a file name", ""),
    ],
)
def test_path_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str, words: str, hint: str) -> None:
    """A missing file, a directory and an impossible name each say so."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "feedback.csv").write_bytes(b"text\na\n")
    with pytest.raises(InputError, match=words) as caught:
        open_source(str(tmp_path / name))
    assert hint in caught.value.hint


def in_thread(source: Source, got: list[str], arrived: threading.Semaphore) -> threading.Thread:
    def pull() -> None:
        for item in source:
            got.append(item.text)
            arrived.release()

    thread = threading.Thread(target=pull)
    thread.start()
    return thread


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("before", "rows", "after"),
    [
        (b"", [b'{"text": "a"}\n', b'{"text": "b"}\n'], b""),
        (b"id,text\n", [b"1,a\n", b'2,"b"\n'], b""),
        (b"", [b'[{"text": "a"}', b', {"text": "b"}'], b"]"),
    ],
)
def test_item_of_a_slow_pipe_is_handed_out_at_once_and_a_waiting_reader_stops(
    fifo: Path, before: bytes, rows: list[bytes], after: bytes
) -> None:
    """Each row comes as soon as it is written; `stop` ends a reader that waits for the next one."""
    source = open_source(str(fifo))
    got: list[str] = []
    arrived = threading.Semaphore(0)
    thread = in_thread(source, got, arrived)
    writer = os.open(fifo, os.O_WRONLY)
    os.write(writer, before)
    for number, row in enumerate(rows, start=1):
        os.write(writer, row)
        assert arrived.acquire(timeout=30)
        assert len(got) == number
    assert thread.is_alive()
    source.stop()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert got == ["a", "b"]
    os.close(writer)
    source.close()


def test_pipe_without_a_writer_can_be_stopped(fifo: Path) -> None:
    """Nobody ever opening the other end is no reason to hang."""
    source = open_source(str(fifo))
    thread = in_thread(source, [], threading.Semaphore(0))
    source.stop()
    thread.join(timeout=30)
    assert not thread.is_alive()
    source.close()


def test_half_a_line_is_dropped_when_stopped(fifo: Path) -> None:
    """What had arrived of a row when the reading was stopped is neither an item nor a bad row."""
    reported: list[InputError] = []
    source = open_source(str(fifo), report=reported.append)
    got: list[str] = []
    arrived = threading.Semaphore(0)
    thread = in_thread(source, got, arrived)
    writer = os.open(fifo, os.O_WRONLY)
    os.write(writer, b'{"text": "a"}\n{"text": "b')
    assert arrived.acquire(timeout=30)
    source.stop()
    thread.join(timeout=30)
    assert (got, reported, source.skipped) == (["a"], [], 0)
    os.close(writer)
    source.close()


def test_stdin_of_a_process_is_read_and_a_blocked_reader_does_not_hold_its_exit() -> None:
    """Standard input works as a pipe and as a file, and an idle pipe does not keep a process alive."""
    program = """
import sys, threading
from mellea_cli.io.source import open_source
source = open_source("-")
survey = source.survey()
print(source.name, survey.count if survey else None)
def pull():
    for item in source:
        print(item.text, flush=True)
thread = threading.Thread(target=pull)
thread.start()
if sys.argv[1] == "stop":
    source.stop()
thread.join()
source.close()
"""
    table = b"text\na\nb\n"
    run = subprocess.run([sys.executable, "-c", program, "go"], input=table, capture_output=True, check=True)
    assert run.stdout.decode().split("\n") == ["<stdin> None", "a", "b", ""]
    with __import__("tempfile").TemporaryFile() as file:
        file.write(b"skipped\n" + table)
        file.seek(8)
        run = subprocess.run([sys.executable, "-c", program, "go"], stdin=file, capture_output=True, check=True)
    assert run.stdout.decode().split("\n") == ["<stdin> 2", "a", "b", ""]
    idle = subprocess.Popen([sys.executable, "-c", program, "stop"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert idle.wait(timeout=60) == 0
    for stream in (idle.stdin, idle.stdout):
        assert stream is not None
        stream.close()


def test_closed_stdin_is_an_input_error() -> None:
    """A process without standard input says so."""
    program = "from mellea_cli.io.source import open_source\nopen_source('-')"
    command = f'{sys.executable} -c "{program.replace(chr(10), ";")}" <&-'
    run = subprocess.run(command, shell=True, capture_output=True, check=False)  # noqa: S602 - a fixed command
    assert b"<stdin>: standard input is closed" in run.stderr


def test_random_bytes_end_in_rows_or_in_an_input_error() -> None:
    """No input whatever raises anything else, in any format."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    seeds = [b'{"text": "a", "n": [1, {"b": null}]}\n', b'id,text\n1,"a\nb"\n', b'[{"text": "a"}, {"text": "b"}]']
    for number in range(3000):
        data = bytearray(chance.choice(seeds) * chance.randrange(1, 4))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[place] = chance.choice(b"\x00\xff\xfe\xe2\"',[]{}\r\n\\:ab1")
            else:
                del data[place : place + chance.randrange(4)]
            data = data or bytearray(b"x")
        form = chance.choice([None, "jsonl", "json", "csv", "tsv"])
        try:
            items = read(bytes(data), SourceOptions(format=form))
        except InputError as error:
            words, texts = str(error), [""]
        else:
            words, texts = "", [item.text for item in items]
        assert "\n" not in words, number
        assert all(isinstance(text, str) for text in texts)


def test_a_bad_element_of_an_array_is_named_by_its_number(tmp_path: Path) -> None:
    """An export is often one line: the line alone would be the same for every element."""
    path = tmp_path / "in.json"
    path.write_text('[{"text": "a"}, 3, {"text": "b"}, {"text": {"a": 1}}]')
    told: list[str] = []
    source = open_source(str(path), SourceOptions(on_bad_row="skip"), report=lambda error: told.append(error.message))
    with source:
        assert [item.text for item in source] == ["a", "b"]
    assert f"{path}:1: item 2: " in told[0]
    assert f"{path}:1: item 4: " in told[1]


ASSETS = Path(__file__).parent.parent / "assets" / "input"


@dataclass
class Case:
    """What must become of one file when bad rows are skipped."""

    name: str
    texts: list[str]
    bad: dict[int, str] | None = None
    """Physical line -> words of the message, for each bad row."""
    options: SourceOptions = field(default_factory=SourceOptions)


GOOD = [
    Case("bom.csv", ["café"]),
    Case("bom.jsonl", ["a"]),
    Case("bom-in-the-middle.jsonl", ["a", "b"]),
    Case("utf16-le.csv", ["Zürich", "naïve"]),
    Case("utf16-be.jsonl", ["Zürich"]),
    Case("utf16-no-bom.csv", ["plain words here"], options=SourceOptions(encoding="utf-16-le")),
    Case("utf32.jsonl", ["Zürich"]),
    Case("cp1252.csv", ["fine", "Müller\u2019s café"], options=SourceOptions(encoding="cp1252")),
    Case("cp1252.json", ["fine", "Müller"], options=SourceOptions(encoding="windows-1252")),
    Case("cp1252.jsonl", ["fine", "ok"], {2: "byte 0xfc"}),
    Case("crlf.csv", ["a", "b\r\nc"]),
    Case("crlf.jsonl", ["a", "b"]),
    Case("lone-cr.csv", ["a", "b\rc", "d"]),
    Case("lone-cr.jsonl", ["a", "b"]),
    Case("newline-in-quotes.csv", ["first\n\nthird", "b"], {6: "1 cell where the header has 2"}),
    Case("separators-in-text.csv", ["good, but slow", "bad, loud, late"]),
    Case("pipe.csv", ["a, b; c"]),
    Case("excel-sep.csv", ["a,b"]),
    Case("ragged.csv", ["a", "e", "f"], {3: "2 cells where the header has 3", 4: "4 cells where the header has 3"}),
    Case("duplicate-columns.csv", ["a"]),
    Case("empty-column-names.csv", ["a"]),
    Case("header-only.csv", []),
    Case("empty.csv", []),
    Case("empty.jsonl", []),
    Case("empty.json", []),
    Case("blank-lines.jsonl", []),
    Case("blank-lines.csv", ["a", "b"]),
    Case("unclosed-quote.csv", ["a", "c", "d"], {3: "never closed"}),
    Case("unclosed-quote-later-line.csv", ["d"], {3: "never closed"}),
    Case("text-after-quote.csv", ["b"], {2: "text after a closing quote"}),
    Case("quote-inside.csv", ['a 5" screen', 'a "5" screen']),
    Case("no-last-newline.csv", ["a"]),
    Case("no-last-newline.jsonl", ["a", "b"]),
    Case("truncated.jsonl", ["a"], {2: "ends in the middle (cut off?)"}),
    Case("nul-bytes.csv", ["a\0b"]),
    Case("nul-bytes.jsonl", ["a"], {2: "raw control character"}),
    Case("nul-tail.jsonl", ["a"], {2: "not a JSON object"}),
    Case("escaped-nul.jsonl", ["a\0b"]),
    Case("line-separators.jsonl", ["a\u2028b\u2029c\u0085d\x0b"]),
    Case("line-separators.csv", ["a\u2028b\x0bc\x1cd"]),
    Case("lone-surrogate.jsonl", ["a\ufffdz", "\U0001f600"]),
    Case("huge-integer.jsonl", ["a"]),
    Case("enormous-integer.jsonl", ["a"], {2: "too many digits"}),
    Case("deep-nesting.jsonl", ["a", "d"], {2: "nested more than 400", 3: "nested more than 400"}),
    Case("deep-unclosed.jsonl", ["a"], {2: "nested more than 400"}),
    Case("duplicate-keys.jsonl", ["b"]),
    Case("duplicate-ids.jsonl", ["a", "a"]),
    Case(
        "scalars.jsonl",
        ["a", "b"],
        {2: "found a number", 3: "found a string", 4: "found null", 5: "found true or false", 6: "found an array"},
    ),
    Case("nan.jsonl", ["a", "b", "c"]),
    Case("blank-text.jsonl", ["", "", "  "]),
    Case("odd-text.jsonl", ["12", "true", "1.5"], {4: "holds an array", 5: "holds an object", 6: "no column 'text'"}),
    Case("odd-ids.jsonl", ["a", "b", "c", "d", "e", "f", "g"]),
    Case("array-in.jsonl", ["a", "b"]),
    Case("lines-in.json", ["a", "c"], {2: "ends in the middle"}),
    Case("comma-after-line.jsonl", ["a", "b"]),
    Case("single-quotes.jsonl", ["a"]),
    Case("after-array.json", ["a", "b"]),
    Case("pretty.json", ["a", "b"]),
    Case("pretty-objects.json", ["a", "b"]),
    Case("pretty-objects.jsonl", ["a"], options=SourceOptions(format="json")),
    Case("odd-elements.json", ["a", "c"], {1: "not a JSON object"}),
    Case("empty-array.json", []),
    Case("wrapper.json", ["a", "b"]),
    Case("pretty-wrapper.json", ["a"]),
    Case("json-in.csv", ["a", "b"]),
    Case("upper-case.csv", ["a"]),
    Case("several-candidates.csv", ["c"]),
    Case("no-text-column.csv", ["a"]),
    Case("packed.csv.gz", ["a"]),
    Case("packed-without-suffix.jsonl", ["a"]),
    Case("plain-with-suffix.jsonl.gz", ["a"]),
    Case("packed-members.jsonl.gz", ["a", "b"]),
    Case("tabs.tsv", ["a, b"]),
    Case("tabs.csv", ["a, b; c"]),
    Case("single-column-plain.csv", ["nice", "good"]),
    Case("single-column.csv", ["nice, really", "quoted, too"]),
    Case("formulas.csv", ["=1+1", "@SUM(A1)", "-5"]),
    Case("odd \U0001f600 name;.csv", ["a"]),
    Case("templates.jsonl", ["{{7*7}} [bold]x[/bold] \x1b[31m {0} %s"]),
]

FATAL = [
    ("utf16-no-bom.csv", None, "looks like UTF-16", "--encoding utf-16-le"),
    ("utf16-cut.csv", 2, "not UTF-16-LE text", ""),
    ("cp1252.csv", 3, "byte 0xfc", "--encoding cp1252 if this reads right: 2,Müller\u2019s café"),
    ("cp1252.json", 2, "byte 0xfc", "--encoding cp1252"),
    ("no-header.csv", 1, "no column looks like the text; columns seen: 1, The box was broken", "--text-field"),
    ("header-without-text.csv", 1, "columns seen: id, stars", "--text-field"),
    ("truncated.json", 2, "ends in the middle of a value", ""),
    ("truncated-array.json", 3, "the array does not end", ""),
    ("raw-tab.jsonl", 1, "raw control character at column 12", ""),
    ("trailing-comma.jsonl", 1, "not a JSON object", ""),
    ("pretty-objects.jsonl", 1, "ends in the middle", "--format json"),
    ("missing-comma.json", 2, "expected ',' or ']'", ""),
    ("scalar.json", 1, "expected a JSON array or JSON objects", "--format"),
    ("string.json", 1, "expected a JSON array or JSON objects", "--format"),
    ("html.json", None, "is an HTML page", "export it as CSV"),
    ("python.json", 1, "double quotes at column 3", "jq"),
    ("picture.csv", None, "is a PNG image", ""),
    ("document.jsonl", None, "is a PDF document", ""),
    ("noise.csv", None, "does not look like text", ""),
    ("workbook.xlsx", None, "cannot be read as a workbook", "spreadsheet program"),
    ("workbook-renamed.csv", None, "cannot be read as a workbook", "spreadsheet program"),
    ("packed-cut.jsonl.gz", None, "gzip data end too early", ""),
    ("packed-broken.jsonl.gz", None, "broken gzip data", "gzip -t"),
    ("packed-and-garbage.jsonl.gz", None, "broken gzip data", ""),
]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_odd_file_gives_its_rows_and_names_the_bad_ones(case: Case) -> None:
    """Good rows come through, and every bad one is reported with its physical line and a reason."""
    reported: list[InputError] = []
    options = replace(case.options, on_bad_row="skip")
    with open_source(str(ASSETS / case.name), options, report=reported.append) as source:
        survey = source.survey()
        items = list(source)
    assert [item.text for item in items] == case.texts
    assert [item.position for item in items] == list(range(len(items)))
    bad = case.bad or {}
    assert {error.line for error in reported} == set(bad)
    for error in reported:
        assert bad[error.line or 0] in error.message, error.message
        assert str(error).startswith(str(ASSETS / case.name) + ":")
        assert "\n" not in str(error)
    assert survey is not None
    assert (survey.count, survey.skipped) == (len(items), source.skipped)
    assert source.skipped == len(reported)


@pytest.mark.parametrize("case", [case for case in GOOD if case.bad], ids=lambda case: case.name)
def test_bad_row_in_a_regular_file_is_refused_before_the_first_item(case: Case) -> None:
    """By default a checkable file with a bad row ends at once, with the row's line and the way out."""
    with open_source(str(ASSETS / case.name), case.options) as source, pytest.raises(InputError) as caught:
        source.survey()
    assert caught.value.line == min(case.bad or {})
    assert "--on-bad-row skip" in caught.value.hint


@pytest.mark.parametrize(("name", "line", "words", "hint"), FATAL, ids=[case[0] for case in FATAL])
def test_unusable_file_ends_in_one_line(name: str, line: int | None, words: str, hint: str) -> None:
    """A file that cannot be used is refused by the survey and by the iteration, with the same words."""
    with open_source(str(ASSETS / name)) as source, pytest.raises(InputError) as surveyed:
        source.survey()
    with open_source(str(ASSETS / name)) as source, pytest.raises(InputError) as caught:
        list(source)
    for error in (surveyed.value, caught.value):
        assert words in error.message
        assert hint in error.hint
        assert error.line == line
        assert "\n" not in error.message + error.hint


def test_every_asset_is_in_a_table() -> None:
    """No file lies in the folder untested."""
    named = {case.name for case in GOOD} | {case[0] for case in FATAL}
    assert {path.name for path in ASSETS.iterdir()} == named
    assert len(named) >= 80


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_raw_json_stands_for_the_fields(case: Case) -> None:
    """`raw` is one line, and parses to the very fields of its item; a CSV item has none."""
    with open_source(str(ASSETS / case.name), replace(case.options, on_bad_row="skip")) as source:
        items = list(source)
    for item in items:
        if item.raw is None:
            assert all(isinstance(value, str) for value in item.fields.values())
        else:
            assert "\n" not in item.raw
            assert "\r" not in item.raw
            assert json.loads(item.raw) == item.fields
            assert item.raw[0] + item.raw[-1] == "{}"


def test_a_workbook_that_is_called_csv_says_how_to_read_it(tmp_path: Path) -> None:
    """Workbooks are read as they are, so the named format is what is wrong."""
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(InputError, match="is a spreadsheet workbook, not text") as found:
        list(open_source(str(path), SourceOptions(format="csv")))
    assert "omit --format" in (found.value.hint or "")
    assert "mellea-cli[tables]" in (found.value.hint or "")
