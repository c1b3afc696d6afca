"""Several inputs and folders: one output with a column for the file, or one output each; tables in all formats."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xlsxwriter
from python_calamine import CalamineWorkbook

from mellea_cli.cli.batch_run import output_name
from rowfiles import Run, read_rows, write_rows

SCRIPTED = ("-b", "scripted", "-q")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Three exports, whose columns differ."""
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "jan.csv").write_text("id,Comment,rating\n1,The app crashes.,1\n2,Great.,5\n")
    (folder / "feb.csv").write_text("id,comment,stars\n1,Slow.,2\n")
    write_rows(folder / "mar.jsonl", [{"id": 1, "text": "Fine."}, {"text": "No id.", "source": "web"}])
    (folder / "notes.txt").write_text("no table")
    return folder


def test_files_become_one_output_with_their_names(mellea: Run, exports: Path, tmp_path: Path) -> None:
    """Columns are unified by name, differences are said, and the order is that of the command."""
    done = mellea("summarise", "exports/jan.csv", "exports/feb.csv", "-o", "all.jsonl", "-b", "scripted")
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "all.jsonl")
    assert [(row["source"], row["id"], row["Comment"]) for row in rows] == [
        ("exports/jan.csv", "1", "The app crashes."),
        ("exports/jan.csv", "2", "Great."),
        ("exports/feb.csv", "1", "Slow."),
    ]
    assert all(row["sentiment"] for row in rows)
    said = "exports/feb.csv: has no column rating, and has stars besides, compared with exports/jan.csv"
    assert said in done.stderr


def test_a_folder_is_its_tables_in_order(mellea: Run, exports: Path, tmp_path: Path) -> None:
    """Every table of the folder, neither other files nor the output itself; the same command asks nothing again."""
    for _ in range(2):
        done = mellea("summarise", "exports", "-o", "exports/all.csv", "--json", *SCRIPTED)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["calls"] == 0
    header, *lines = (tmp_path / "exports" / "all.csv").read_text().splitlines()
    assert len(lines) == 5
    # An input has a column of this name already.
    assert "mellea_source" in header


def test_a_pattern_chooses_files(mellea: Run, exports: Path, tmp_path: Path) -> None:
    """`--pattern` may go into folders; one that fits nothing is an error."""
    (exports / "more").mkdir()
    (exports / "more" / "apr.csv").write_text("Comment\nWonderful.\n")
    assert mellea("summarise", "exports", "--pattern", "**/*.csv", "-o", "a.jsonl", *SCRIPTED).returncode == 0
    sources = [row["source"] for row in read_rows(tmp_path / "a.jsonl")]
    assert sources == ["exports/feb.csv", "exports/jan.csv", "exports/jan.csv", "exports/more/apr.csv"]
    refused = mellea("summarise", "exports", "--pattern", "*.xml", "-o", "a.jsonl", *SCRIPTED)
    assert refused.returncode == 2
    assert "is a folder without a file that fits *.xml" in refused.stderr
    assert mellea("summarise", "exports/jan.csv", "--pattern", "*.csv", *SCRIPTED).returncode == 2


def test_limits_hold_for_all_files_together(mellea: Run, exports: Path) -> None:
    """`-n 3` takes the first three rows, wherever they are."""
    done = mellea("summarise", "exports/jan.csv", "exports/mar.jsonl", "-n", "3", *SCRIPTED)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", 1]


def test_ids_do_not_clash(mellea: Run, exports: Path, tmp_path: Path) -> None:
    """In messages an id has its file in front; the column is unchanged."""
    files = ("exports/jan.csv", "exports/feb.csv")
    done = mellea("summarise", *files, "-o", "a.jsonl", "--log-file", "log", *SCRIPTED)
    assert done.returncode == 0, done.stderr
    ids = {event["id"] for event in read_rows(tmp_path / "log") if event.get("id")}
    assert ids == {"jan.csv:1", "jan.csv:2", "feb.csv:1"}


def test_one_output_each(mellea: Run, exports: Path, tmp_path: Path) -> None:
    """`--output-dir` writes each file in its own form; one that cannot be read does not stop the others."""
    (exports / "bad.json").write_text("[{")
    done = mellea("summarise", "exports", "--output-dir", "out", *SCRIPTED)
    assert done.returncode == 2
    assert "exports/bad.json" in done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.endswith(".journal"))
    assert names == ["feb.csv", "jan.csv", "mar.jsonl"]
    assert "source" not in (tmp_path / "out" / "jan.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.csv", "-o", "x.csv", "--output-dir", "out"), "-o and --output-dir do not go together"),
        (("a.csv", "b/a.csv", "--output-dir", "out"), "both would be written to out/a.csv"),
        (("a.csv", "--output-dir", "."), "is the folder of the inputs"),
        (("a.csv", "--output-dir", "out", "--errors-file", "e.csv"), "--errors-file e.csv: is one file, and each"),
        (("a.csv", "-", "-o", "x.csv"), "standard input cannot be one of several inputs"),
        (("a.csv", "c.csv", "-o", "x.csv"), "c.csv: no such file"),
        (("a.csv", "b", "-o", "a.csv"), "is an input and the output at once"),
        (("a.csv", "", "-o", "x.csv"), "'': no such file"),
    ],
)
def test_what_cannot_work_is_said_at_once(mellea: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Before anything is asked or written."""
    (tmp_path / "b").mkdir()
    for name in ("a.csv", "b/a.csv"):
        (tmp_path / name).write_text("text\nGood.\n")
    done = mellea("summarise", *arguments, *SCRIPTED)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("path", "wanted", "expected"),
    [
        ("in/jan.csv", None, "jan.csv"),
        ("jan.csv.gz", None, "jan.csv"),
        ("jan.xls", None, "jan.xlsx"),
        ("book.xlsx::March", None, "book-March.xlsx"),
        ("db.sqlite::orders", None, "db-orders.jsonl"),
        ("jan.v2", None, "jan.v2.jsonl"),
        ("export.zip", None, "export.jsonl"),
        ("jan.csv", "parquet", "jan.parquet"),
    ],
)
def test_the_name_of_an_output_in_a_folder(path: str, wanted: str | None, expected: str) -> None:
    """The input's name, in a form that can be written."""
    assert output_name(path, wanted) == expected


# Formats through the whole program.


def test_a_workbook_becomes_a_workbook_and_edits_stay(mellea: Run, tmp_path: Path) -> None:
    """What a person writes into the output is kept, and so is a column of one's own."""
    with xlsxwriter.Workbook(tmp_path / "in.xlsx") as book:
        sheet = book.add_worksheet("January")
        for number, row in enumerate([["id", "Comment"], [1, "The app crashes."], [2, "Great."]]):
            sheet.write_row(number, 0, row)
    assert mellea("summarise", "in.xlsx", "-o", "out.xlsx", *SCRIPTED).returncode == 0
    rows = _rows(tmp_path / "out.xlsx")
    assert rows[0] == ["id", "Comment", "summary", "sentiment", "main_complaint", "positive_aspect", "urgency", "error"]
    rows[1][2] = "=MY OWN"
    rows = [[*row, note] for row, note in zip(rows, ["note", "ask Ann", ""], strict=True)]
    _save(tmp_path / "out.xlsx", Feedback=[rows[0], rows[2], rows[1]])
    with xlsxwriter.Workbook(tmp_path / "in.xlsx") as book:
        sheet = book.add_worksheet("January")
        for number, row in enumerate([["id", "Comment"], [1, "The app crashes."], [2, "Great."], [3, "New."]]):
            sheet.write_row(number, 0, row)
    done = mellea("summarise", "in.xlsx", "-o", "out.xlsx", "--json", *SCRIPTED)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert (told["calls"], told["edited_cells"]) == (1, 1)
    again = _rows(tmp_path / "out.xlsx")
    assert again[0] == ["id", "Comment", "note", *rows[0][2:-1]]
    assert again[1][2:4] == ["ask Ann", "=MY OWN"]
    assert [row[0] for row in again[1:]] == [1.0, 2.0, 3.0]


def test_a_workbook_with_sheets_of_one_s_own_is_not_replaced(mellea: Run, tmp_path: Path) -> None:
    """A new file would not have them."""
    write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Great."}])
    assert mellea("summarise", "in.jsonl", "-o", "out.xlsx", *SCRIPTED).returncode == 0
    _save(tmp_path / "out.xlsx", Feedback=_rows(tmp_path / "out.xlsx"), Pivot=[["x"]])
    done = mellea("summarise", "in.jsonl", "-o", "out.xlsx", *SCRIPTED)
    assert done.returncode == 2
    assert "has sheet 'Pivot', which this run would remove" in done.stderr


def _rows(path: Path) -> list[list[object]]:
    return CalamineWorkbook.from_path(path).get_sheet_by_name("Feedback").to_python(skip_empty_area=False)


def _save(path: Path, **sheets: list[list[object]]) -> None:
    with xlsxwriter.Workbook(path, {"strings_to_formulas": False}) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.xlsx", "out.jsonl.zst", "out.csv.zst"])
def test_every_output_goes_on_and_is_reported(mellea: Run, tmp_path: Path, name: str) -> None:
    """A database table in, any format out: the second run asks only what is new, and the report reads it."""
    with closing(sqlite3.connect(tmp_path / "in.db")) as database:
        database.executescript("CREATE TABLE f (id INTEGER, text TEXT); INSERT INTO f VALUES (1,'Great.'),(2,'Slow.');")
        for calls in (2, 1):
            done = mellea("summarise", "in.db::f", "-o", name, "--json", *SCRIPTED)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stderr.splitlines()[-1])["calls"] == calls
            database.executescript("INSERT INTO f VALUES (3, 'The app crashes.');")
    report = json.loads(mellea("report", name, "--format", "json").stdout)
    assert (report["rows"], report["answered"]) == (3, 3)


def test_own_fields_have_their_types_in_parquet(mellea: Run, tmp_path: Path) -> None:
    """Numbers and booleans of own fields are numbers and booleans, several categories a list."""
    write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Great."}])
    fields = ("--field", "refund(bool): wants a refund", "--field", "n(int): how many", "--category", "tags[]=a,b")
    done = mellea("summarise", "in.jsonl", "-o", "out.parquet", *fields, *SCRIPTED)
    assert done.returncode in (0, 3), done.stderr
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert {"refund", "n", "tags"} <= {*schema.names}
