"""Workbooks: what is read as a table, what is written, round trips, limits, and LibreOffice's own files."""

from __future__ import annotations

import datetime as dt
import errno
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from mellea_cli.errors import InputError, OutputError, UsageError
from mellea_cli.io import spreadsheets
from mellea_cli.io.files import resolve_output
from mellea_cli.io.formats import ColumnType
from mellea_cli.io.sink import SinkOptions, open_sink
from mellea_cli.io.spreadsheets import MOST_CHARS, MOST_COLUMNS, MOST_ROWS, SHEET, Worksheet
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item, Row
from tablefiles import convert, read_table, write_table

DATES = ColumnType(frozenset(("date", "datetime", "time", "duration")))
Cells = list[list[Any]]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None)


def workbook(path: Path, **sheets: Cells) -> Path:
    """Write sheets as another program would: dates as dates, texts as texts."""
    with xlsxwriter.Workbook(path, {"strings_to_formulas": False, "default_date_format": "yyyy-mm-dd"}) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    return path


def cells_of(path: Path, sheet: str = SHEET) -> Cells:
    return CalamineWorkbook.from_path(path).get_sheet_by_name(sheet).to_python(skip_empty_area=False)


# Reading.


def test_cells_keep_their_types(tmp_path: Path) -> None:
    """Whole numbers are whole, dates are ISO text, an empty cell is null."""
    rows: Cells = [["Comment", "rating", "share", "on", "ok"], ["Late.", 5, 0.5, dt.date(2026, 1, 31), True], ["", 1]]
    notes: list[str] = []
    assert read_table(workbook(tmp_path / "in.xlsx", A=rows), notes) == [
        {"Comment": "Late.", "rating": 5, "share": 0.5, "on": "2026-01-31", "ok": True},
        {"Comment": None, "rating": 1, "share": None, "on": None, "ok": None},
    ]
    assert notes == [f"{tmp_path / 'in.xlsx'}: the text is in column 'Comment'"]


def test_the_first_sheet_with_rows_is_read(tmp_path: Path) -> None:
    """Empty sheets are passed over, and the others are named."""
    path = workbook(tmp_path / "in.xlsx", Empty=[], Answers=[["text"], ["a"]], Other=[["text"], ["b"]])
    notes: list[str] = []
    assert read_table(path, notes) == [{"text": "a"}]
    assert f"{path}: the sheet is 'Answers'; not read: 'Empty', 'Other'" in notes


_COVER: Cells = [["Report"], ["Quarter 3"]]
_LEGEND: Cells = [["Key", "Share"], ["a", 1], ["b", 2]]


def test_a_cover_gives_way_to_the_only_sheet_with_a_text(tmp_path: Path) -> None:
    """The first sheet has no column for the text and one other has: that one is read, and the note says why."""
    answers: Cells = [["id", "Comment"], [1, "Late."], [2, "Good."]]
    path = workbook(tmp_path / "in.xlsx", Cover=_COVER, Answers=answers, Legend=_LEGEND)
    notes: list[str] = []
    assert [row["Comment"] for row in read_table(path, notes)] == ["Late.", "Good."]
    assert notes[0] == (
        f"{path}: the sheet is 'Answers', the only one with a column that looks like the text; "
        "not read: 'Cover', 'Legend'"
    )
    with pytest.raises(InputError, match="no column looks like the text"):
        read_table(path, sheet="Cover")


@pytest.mark.parametrize("further", [{}, {"A": [["text"], ["a"]], "B": [["text"], ["b"]]}])
def test_a_cover_that_nothing_clearly_replaces_is_named_with_the_other_sheets(
    tmp_path: Path, further: dict[str, Cells]
) -> None:
    """No other sheet has a text, or several have: the message names the sheet, the others, and the flag."""
    path = workbook(tmp_path / "in.xlsx", Cover=_COVER, Legend=_LEGEND, **further)
    others = ", ".join(map(repr, ["Legend", *further]))
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert f"in.xlsx:1: sheet 'Cover' (other sheets: {others}): no column looks like the text" in str(caught.value)
    assert "--sheet" in caught.value.hint


def test_a_named_column_chooses_the_sheet(tmp_path: Path) -> None:
    """`--text-field` names a column of another sheet than the first."""
    path = workbook(tmp_path / "in.xlsx", Legend=_LEGEND, Answers=[["Key", "Said"], ["a", "Late."]])
    assert [row["Said"] for row in read_table(path, text_field="Said")] == ["Late."]


@pytest.mark.parametrize("sheet", ["Other", "other", "3"])
def test_a_sheet_is_chosen_by_name_or_number(tmp_path: Path, sheet: str) -> None:
    """`--sheet` and the part behind the file do the same."""
    path = workbook(tmp_path / "in.xlsx", Empty=[], Answers=[["text"], ["a"]], Other=[["text"], ["b"]])
    assert read_table(path, sheet=sheet) == [{"text": "b"}]
    assert read_table(f"{path}::{sheet}") == [{"text": "b"}]


def test_an_unknown_sheet(tmp_path: Path) -> None:
    """The nearest name is the hint."""
    path = workbook(tmp_path / "in.xlsx", Answers=[["text"], ["a"]])
    with pytest.raises(InputError, match="has no sheet 'Answer'") as caught:
        read_table(path, sheet="Answer")
    assert caught.value.hint == "did you mean --sheet 'Answers'?"


BLOCK: Cells = [
    ["x", "Report", "", "", "y"],
    ["x", "text", "id", "n", "y"],
    ["x", "a", 1, 2, "y"],
    ["x", "b", 2, 3, "y"],
]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("B2:D4", [{"text": "a", "id": 1, "n": 2}, {"text": "b", "id": 2, "n": 3}]),
        ("$b$2:c3", [{"text": "a", "id": 1}]),
        ("B:C", [{"text": "a", "id": 1}, {"text": "b", "id": 2}]),
        ("B2", [{"text": "a", "id": 1, "n": 2, "y": "y"}, {"text": "b", "id": 2, "n": 3, "y": "y"}]),
    ],
)
def test_a_range_is_a_part_of_the_sheet(tmp_path: Path, cells: str, expected: list[dict[str, Any]]) -> None:
    """Rows, columns, a corner."""
    assert read_table(workbook(tmp_path / "in.xlsx", A=BLOCK), cells=cells) == expected


@pytest.mark.parametrize("cells", ["", "A0", "B2:", "ZZZZ1", "C3:A1", "A5:B2", "feedback"])
def test_a_range_that_is_none(tmp_path: Path, cells: str) -> None:
    """The hint shows the form."""
    with pytest.raises(UsageError, match="--range") as caught:
        read_table(workbook(tmp_path / "in.xlsx", A=BLOCK), cells=cells)
    assert "A3:F200" in caught.value.hint


def test_titles_further_headers_and_footers_are_left_out(tmp_path: Path) -> None:
    """A sheet is read by the same rules as CSV, and what is left out is said."""
    rows: Cells = [
        ["Feedback of January"],
        [],
        ["ResponseId", "Q1", "Q3_TEXT"],
        ["Response ID", "How likely?", "Any other comments?"],
        ['{"ImportId":"_recordId"}', '{"ImportId":"QID1"}', '{"ImportId":"QID3_TEXT"}'],
        ["R_1", 9, "Good."],
        ["R_2", 3, "Late."],
        [],
        ["Total: 2 answers"],
    ]
    notes: list[str] = []
    found = read_table(workbook(tmp_path / "in.xlsx", A=rows), notes, text_field="any other comments?")
    assert found == [
        {"ResponseId": "R_1", "Q1": 9, "Q3_TEXT": "Good."},
        {"ResponseId": "R_2", "Q1": 3, "Q3_TEXT": "Late."},
    ]
    said = "\n".join(notes)
    assert "left out: 1 line above the header, which is line 3" in said
    assert "2 extra header rows (lines 4, 5)" in said
    assert "1 line below the rows (line 9)" in said


def test_texts_alone_in_their_row_are_rows(tmp_path: Path) -> None:
    """Only at the end, after a blank row, a lone cell is no row."""
    rows: Cells = [["text", "n"], ["a", 1], [], ["b"], ["c", 2]]
    assert [row["text"] for row in read_table(workbook(tmp_path / "in.xlsx", A=rows))] == ["a", "b", "c"]


def test_the_header_row_can_be_named(tmp_path: Path) -> None:
    """`--header-row` is the sheet's own number of the row."""
    rows: Cells = [["text", "n"], ["a", 1], ["text", "m"], ["b", 2]]
    path = workbook(tmp_path / "in.xlsx", A=rows)
    assert read_table(path, header_row=3) == [{"text": "b", "m": 2}]
    with pytest.raises(InputError, match="has no row 9"):
        read_table(path, header_row=9)


def test_a_bad_row_is_named_by_its_number(tmp_path: Path) -> None:
    """The number that the spreadsheet program shows."""
    from mellea_cli.io.source import SourceOptions, open_source

    path = workbook(tmp_path / "in.xlsx", A=[["title"], [], ["text", "n"], ["a", 1], ["b", 2]])
    with open_source(str(path), SourceOptions()) as source:
        assert [item.line for item in source] == [4, 5]


@pytest.mark.parametrize("data", [b"PK\x03\x04 not really", b"\xd0\xcf\x11\xe0" + bytes(600)])
def test_a_broken_workbook(tmp_path: Path, data: bytes) -> None:
    """One line with the file's name."""
    (tmp_path / "in.xlsx").write_bytes(data)
    with pytest.raises(InputError, match=r"in\.xlsx: (cannot be read as a workbook|broken zip archive)"):
        read_table(tmp_path / "in.xlsx")


# Writing.

UNREADABLE = re.compile(r"[\r\ufeff\ufffe\uffff]")  # The header has these trimmed, or XML cannot hold them
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.strip() == name and not UNREADABLE.search(name))
TEXTS = st.text().filter(lambda text: not re.search(r"[\ufffe\uffff]", text))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**14), 10**14),
    st.floats(-1e9, 1e9).map(lambda number: round(number, 4) + 0.0),
    TEXTS,
    st.dates(dt.date(1900, 3, 1)).map(str),
    st.integers(-(2**31), 2**33).map(lambda second: (EPOCH + dt.timedelta(seconds=second)).isoformat()),
)


@settings(max_examples=80, deadline=None)
@given(columns=st.lists(NAMES, max_size=4, unique_by=str.casefold), data=st.data())
def test_a_sheet_comes_back(columns: list[str], data: st.DataObject) -> None:
    """Texts of any characters, numbers, booleans, dates and empty cells."""
    columns = ["text", *(name for name in columns if name.casefold() != "text")]
    rows = [
        {"text": f"row {number}", **{name: data.draw(VALUES) for name in columns[1:]}}
        for number in range(data.draw(st.integers(1, 4)))
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.xlsx")
        write_table(path, rows, dict.fromkeys(columns, DATES))
        found = read_table(path, text_field="text", header_row=1, skip_rows=0)
    assert [[_plain(row.get(name)) for name in columns] for row in found] == [
        [_plain(row[name]) for name in columns] for row in rows
    ]


def _plain(value: Any) -> Any:
    """A cell without what a sheet does not tell apart: no text and no value, midnight and a date, 2.0 and 2."""
    if isinstance(value, str):
        return value.removesuffix("T00:00:00") or None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_texts_are_never_formulas_or_links(tmp_path: Path) -> None:
    """What begins with = stays text, without an apostrophe."""
    starts = ["=1+1", "+49 30", "-x", "@here", "{=1}", '=HYPERLINK("x")']
    texts = [*starts, "https://example.org", "'quoted", "007"]
    write_table(tmp_path / "out.xlsx", [{"text": text} for text in texts])
    assert [row["text"] for row in read_table(tmp_path / "out.xlsx")] == texts
    with zipfile.ZipFile(tmp_path / "out.xlsx") as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet


def test_a_sheet_is_ready_to_work_with(tmp_path: Path) -> None:
    """A header that stays, filters over all rows, widths, wrapped text, and dates in the form of dates."""
    rows = [{"text": "word " * 40, "on": "2026-01-31", "n": 5}, {"text": "b", "on": "2026-02-01", "n": 6}]
    write_table(tmp_path / "out.xlsx", rows, {"on": DATES})
    with zipfile.ZipFile(tmp_path / "out.xlsx") as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
        styles = archive.read("xl/styles.xml").decode()
    assert 'state="frozen"' in sheet
    assert '<autoFilter ref="A1:C3"/>' in sheet
    assert "wrapText" in styles
    widths = [float(width) for width in re.findall(r'<col [^>]*width="([\d.]+)"', sheet)]
    assert widths[0] > 50
    assert 20 > widths[1] > widths[2]
    assert cells_of(tmp_path / "out.xlsx")[1][1:] == [dt.date(2026, 1, 31), 5.0]


def test_what_a_sheet_cannot_hold_is_text(tmp_path: Path) -> None:
    """Long numbers keep their digits, old dates their day, times their microseconds; a lost time zone has a note."""
    row = {
        "text": "a",
        "number": 12345678901234567,
        "old": "1850-01-01",
        "time": "10:00:00.123456",
        "zoned": "2026-01-31T10:00:00+02:00",
    }
    notes = write_table(tmp_path / "out.xlsx", [row], dict.fromkeys(row, DATES))
    assert notes == ["column 'zoned': a workbook has no time zones, so the times are written without theirs"]
    assert cells_of(tmp_path / "out.xlsx")[1] == [
        "a",
        "12345678901234567",
        "1850-01-01",
        "10:00:00.123456",
        dt.datetime(2026, 1, 31, 10),  # noqa: DTZ001 - a workbook has no zones
    ]


def test_a_text_that_is_too_long_is_cut_and_said(tmp_path: Path) -> None:
    """A cell holds 32,767 characters."""
    notes = write_table(tmp_path / "out.xlsx", [{"text": "x" * 40_000}, {"text": "y" * MOST_CHARS}])
    assert [len(row["text"]) for row in read_table(tmp_path / "out.xlsx")] == [MOST_CHARS, MOST_CHARS]
    assert notes == ["1 cell longer than 32,767 characters cut; a Parquet or JSONL file keeps them whole"]


def test_numbers_of_csv_are_numbers(tmp_path: Path) -> None:
    """A column of CSV in which every cell is a number or a date is one in the workbook; other columns stay text."""
    (tmp_path / "in.csv").write_text("text,rating,zip,on,mixed\na,5,01234,2026-01-31,1\nb,4,99999,,x\n")
    convert(tmp_path / "in.csv", tmp_path / "out.xlsx")
    assert cells_of(tmp_path / "out.xlsx")[1:] == [
        ["a", 5.0, "01234", dt.date(2026, 1, 31), "1"],
        ["b", 4.0, "99999", "", "x"],
    ]


def test_too_many_rows_or_columns_are_refused_before_the_first_row(tmp_path: Path) -> None:
    """Where the number of rows is known, nothing is asked; the hint names other formats."""
    target = resolve_output(str(tmp_path / "out.xlsx"))
    with pytest.raises(UsageError, match="1,048,575 rows below its header, and there are 1,048,576") as caught:
        open_sink(target, AddedColumns(), SinkOptions(rows=MOST_ROWS + 1))
    assert "Parquet" in caught.value.hint
    columns = tuple(f"c{number}" for number in range(MOST_COLUMNS))
    with pytest.raises(UsageError, match="16,384 columns, and there are 16,386"):
        open_sink(target, AddedColumns.of("summary"), SinkOptions(columns=columns))
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_is_too_long_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number of rows is not known, the row above the limit is an error, and the output is not changed."""
    monkeypatch.setattr(Worksheet, "most_rows", 3)
    with open_sink(resolve_output(str(tmp_path / "out.xlsx")), AddedColumns()) as sink:
        for position in range(3):
            sink.write(Row(Item(position, position, "", {"text": "a"}), {}))
        with pytest.raises(OutputError, match="holds 3 rows below its header, and there are 4 or more"):
            sink.write(Row(Item(3, 3, "", {"text": "a"}), {}))
    assert not (tmp_path / "out.xlsx").exists()


def test_a_sheet_that_cannot_be_written_leaves_no_rows_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library collects rows in temporary files, which hold feedback."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    write = Worksheet._write_cell

    def fails(self: Worksheet, sheet: Any, row: int, *cell: Any) -> None:
        if row == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, sheet, row, *cell)

    monkeypatch.setattr(Worksheet, "_write_cell", fails)
    with pytest.raises(OutputError, match="No space left"):
        write_table(tmp_path / "out.xlsx", [{"text": "a"}] * 4)
    assert list(temporary.iterdir()) == []


def test_as_many_columns_as_a_sheet_holds(tmp_path: Path) -> None:
    """16,384 columns come back."""
    row = {"text": "a"} | {f"c{number}": number for number in range(1, MOST_COLUMNS)}
    write_table(tmp_path / "out.xlsx", [row])
    assert read_table(tmp_path / "out.xlsx", text_field="text") == [row]


@pytest.mark.slow
def test_as_many_rows_as_a_sheet_holds(tmp_path: Path) -> None:
    """1,048,576 rows with the header."""
    path = tmp_path / "out.xlsx"
    with open_sink(resolve_output(str(path)), AddedColumns()) as sink:
        for position in range(MOST_ROWS):
            sink.write(Row(Item(position, position, "", {"n": position}), {}))
        sink.finish()
    sheet = CalamineWorkbook.from_path(path).get_sheet_by_name(SHEET)
    assert sheet.height == MOST_ROWS + 1


def test_more_rows_than_a_sheet_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row that has no place is an error."""
    monkeypatch.setattr(spreadsheets.Worksheet, "most_rows", 3)
    with open_sink(resolve_output(str(tmp_path / "out.xlsx")), AddedColumns()) as sink:
        for position in range(3):
            sink.write(Row(Item(position, position, "", {"n": position}), {}))
        with pytest.raises(OutputError, match="3 rows"):
            sink.write(Row(Item(3, 1, "", {"n": 1}), {}))


@pytest.mark.parametrize("name", ["out.ods", "out.xls", "out.xlsm"])
def test_other_workbooks_are_only_read(tmp_path: Path, name: str) -> None:
    """The message says so before anything is asked."""
    from mellea_cli.io.formats import output_format

    with pytest.raises(UsageError, match=f"rows cannot be written as {Path(name).suffix}"):
        output_format(str(tmp_path / name))
    with pytest.raises(UsageError, match=r"cannot be written as \.ods"):
        open_sink(resolve_output(str(tmp_path / "out")), AddedColumns(), SinkOptions(format="ods"))


# LibreOffice.

OFFICE: list[dict[str, Any]] = [
    {"text": "Späte Lieferung 😀", "n": 5, "share": 0.25, "ok": True, "on": "2026-01-31", "at": "2026-01-31T10:11:12"},
    {"text": "=1+1", "n": None, "share": -3.5, "ok": False, "on": None, "at": None},
    {"text": "two\nlines, \"quotes\"", "n": 0, "share": None, "ok": None, "on": None, "at": "2000-01-01T00:00:01"},
]  # fmt: skip


def office(path: Path, to: str) -> Path:
    """Convert a file with LibreOffice."""
    soffice = shutil.which("soffice") or shutil.which("libreoffice")
    if soffice is None:
        pytest.skip("LibreOffice is not installed (Debian: libreoffice-calc-nogui)")
    out = path.parent / f"office-{to}"
    command = [soffice, f"-env:UserInstallation=file://{path.parent}/profile", "--headless", "--convert-to", to]
    subprocess.run([*command, "--outdir", str(out), str(path)], check=True, capture_output=True, timeout=110)
    return out / f"{path.stem}.{to}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("to", ["ods", "xls", "xlsx"])
def test_what_libreoffice_makes_of_our_workbook_is_the_same(tmp_path: Path, to: str) -> None:
    """It opens what is written, and what it saves is read with the same values and types."""
    write_table(tmp_path / "ours.xlsx", OFFICE, {"on": DATES, "at": DATES})
    assert read_table(office(tmp_path / "ours.xlsx", to), text_field="text") == OFFICE


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_workbook_that_libreoffice_made(tmp_path: Path) -> None:
    """From CSV by way of LibreOffice: the same rows as from the CSV itself, with types, and back again."""
    (tmp_path / "in.csv").write_text("text,n,on\nGood.,5,2026-01-31\nLate.,-1.5,2026-02-01\n", encoding="utf-8")
    rows = read_table(office(tmp_path / "in.csv", "xlsx"), text_field="text")
    assert rows == [{"text": "Good.", "n": 5, "on": "2026-01-31"}, {"text": "Late.", "n": -1.5, "on": "2026-02-01"}]
    convert(tmp_path / "office-xlsx" / "in.xlsx", tmp_path / "again.xlsx")
    back = office(tmp_path / "again.xlsx", "csv").read_text(encoding="utf-8")
    assert back == "text,n,on\nGood.,5,2026-01-31\nLate.,-1.5,2026-02-01\n"
