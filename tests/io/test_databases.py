"""SQLite and DuckDB: tables, views and queries, read only."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mellea_cli.errors import InputError, MelleaError, UsageError
from mellea_cli.io.source import SourceOptions, open_source
from tablefiles import convert, read_table

Make = Callable[[Path, str], None]


def sqlite(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)


def duck(path: Path, script: str) -> None:
    with duckdb.connect(str(path)) as database:
        database.execute(script)


BOTH = pytest.mark.parametrize(("make", "name"), [(sqlite, "in.db"), (duck, "in.db")], ids=["sqlite", "duckdb"])
TWO = """
CREATE TABLE orders (id INTEGER);
CREATE TABLE "my feedback" (id INTEGER, text VARCHAR);
INSERT INTO "my feedback" VALUES (1, 'Späte Lieferung'), (2, NULL), (3, '');
"""


@BOTH
def test_a_table_is_named_behind_the_file(tmp_path: Path, make: Make, name: str) -> None:
    """`FILE::TABLE`, case aside; the format is found by the content."""
    make(tmp_path / name, TWO)
    rows = [{"id": 1, "text": "Späte Lieferung"}, {"id": 2, "text": None}, {"id": 3, "text": ""}]
    assert read_table(f"{tmp_path / name}::my feedback") == rows
    assert read_table(f"{tmp_path / name}::My Feedback") == rows


@BOTH
def test_the_only_table_needs_no_name(tmp_path: Path, make: Make, name: str) -> None:
    """One table is meant."""
    make(tmp_path / name, "CREATE TABLE a (text VARCHAR); INSERT INTO a VALUES ('Good.')")
    assert read_table(tmp_path / name) == [{"text": "Good."}]


@BOTH
@pytest.mark.parametrize(
    ("part", "words", "hint"),
    [("::feedback", "has no table 'feedback'", "did you mean .*::my feedback"),
     ("::zzzzzz", "has no table 'zzzzzz'", "it has my feedback, orders")],
)  # fmt: skip
def test_an_unclear_table_is_refused(tmp_path: Path, make: Make, name: str, part: str, words: str, hint: str) -> None:
    """The message has the names, and the hint what to type."""
    make(tmp_path / name, TWO)
    with pytest.raises(InputError, match=words) as caught:
        read_table(f"{tmp_path / name}{part}")
    import re

    assert re.search(hint, caught.value.hint)


@BOTH
def test_the_only_table_with_a_text_is_read(tmp_path: Path, make: Make, name: str) -> None:
    """Of several tables, which is said; with two of them the message names both."""
    make(tmp_path / name, TWO)
    notes: list[str] = []
    with open_source(str(tmp_path / name), note=notes.append) as source:
        assert [item.text for item in source] == ["Späte Lieferung", "", ""]
    assert any("the table is 'my feedback'" in note and note.endswith("not read: orders") for note in notes)
    make(tmp_path / name, "ALTER TABLE orders ADD COLUMN comment VARCHAR")
    with pytest.raises(InputError, match="has 2 tables: my feedback, orders") as caught:
        read_table(tmp_path / name)
    assert caught.value.hint.endswith("::my feedback, or use --query")


@BOTH
def test_a_query_instead_of_a_table(tmp_path: Path, make: Make, name: str) -> None:
    """Its columns are the input's; two with one name get numbers."""
    make(tmp_path / name, TWO)
    query = 'SELECT id, text, id FROM "my feedback" WHERE id = 1'
    assert read_table(tmp_path / name, query=query) == [{"id": 1, "text": "Späte Lieferung", "id_2": 1}]


@BOTH
@pytest.mark.parametrize(
    ("query", "words"),
    [("SELEC 1", "--query: .*[sS]yntax error"), ("DROP TABLE orders", "--query"), ("DELETE FROM orders", "--query")],
)
def test_a_query_that_cannot_be_used(tmp_path: Path, make: Make, name: str, query: str, words: str) -> None:
    """The database says why; nothing is ever changed."""
    make(tmp_path / name, TWO)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UsageError, match=words):
        read_table(tmp_path / name, query=query)
    assert (tmp_path / name).read_bytes() == before


def test_a_query_sees_no_other_files(tmp_path: Path) -> None:
    """A DuckDB query reads this database, neither files nor addresses."""
    duck(tmp_path / "in.db", TWO)
    (tmp_path / "secret.csv").write_text("text\nx\n")
    with pytest.raises(UsageError, match="Permission"):
        read_table(tmp_path / "in.db", query=f"FROM read_csv('{tmp_path / 'secret.csv'}')")


def test_types_of_duckdb_go_into_parquet(tmp_path: Path) -> None:
    """Dates, decimals and lists stay what they are."""
    duck(
        tmp_path / "in.duckdb",
        "CREATE TABLE t AS SELECT 'Good.' AS text, DATE '2026-01-31' AS day, 1.50::DECIMAL(8,2) AS price, [1,2] AS l",
    )
    convert(tmp_path / "in.duckdb", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist()[0]["day"] == dt.date(2026, 1, 31)
    assert table.schema.field("price").type == pa.decimal128(8, 2)


def test_many_rows_of_a_table(tmp_path: Path) -> None:
    """Rows come in batches, in the order of the table."""
    for make, name in ((sqlite, "a.db"), (duck, "b.db")):
        make(tmp_path / name, "CREATE TABLE t (id INTEGER, text VARCHAR)")
    rows = ", ".join(f"({number}, 'row {number}')" for number in range(5_000))
    sqlite(tmp_path / "a.db", "INSERT INTO t VALUES " + rows)  # noqa: S608 - made here
    duck(tmp_path / "b.db", "INSERT INTO t VALUES " + rows)  # noqa: S608 - made here
    for name in ("a.db", "b.db"):
        assert [row["id"] for row in read_table(tmp_path / name)] == list(range(5_000))


@pytest.mark.parametrize("name", ["out.sqlite", "out.duckdb"])
def test_rows_are_not_written_to_a_database(tmp_path: Path, name: str) -> None:
    """The message names what can be written."""
    from mellea_cli.io.formats import output_format

    with pytest.raises(UsageError, match="cannot be written"):
        output_format(str(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"query": "SELECT 1"}, "--query is for databases"), ({"sheet": "A"}, "--sheet is for workbooks"),
     ({"cells": "A1"}, "--range is for workbooks")],
)  # fmt: skip
def test_flags_of_other_formats_are_refused(tmp_path: Path, options: dict[str, str], words: str) -> None:
    """A flag that would do nothing is an error."""
    path = tmp_path / "in.csv"
    path.write_text("text\nGood.\n")
    with pytest.raises(UsageError, match=words):
        read_table(path, **options)


def test_a_part_of_a_file_that_has_none(tmp_path: Path) -> None:
    """`in.csv::x` is no name of anything, unless a file is called so."""
    (tmp_path / "in.csv").write_text("text\nGood.\n")
    with pytest.raises(UsageError, match="has no parts"):
        read_table(f"{tmp_path / 'in.csv'}::x")
    (tmp_path / "in.csv::x").write_text("text\nOther.\n")
    assert read_table(f"{tmp_path / 'in.csv::x'}") == [{"text": "Other."}]


def test_a_broken_database(tmp_path: Path) -> None:
    """A file that only begins like one is named."""
    (tmp_path / "in.db").write_bytes(b"SQLite format 3\x00" + b"\x00" * 100)
    with pytest.raises(MelleaError, match=r"in\.db"), open_source(str(tmp_path / "in.db"), SourceOptions()) as source:
        list(source)
