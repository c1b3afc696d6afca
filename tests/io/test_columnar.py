"""Parquet and Arrow: round trips with types, what is broken, and what a person has changed."""

from __future__ import annotations

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.formats import TEXT_CELLS, ColumnType
from mellea_cli.io.source import open_source
from tablefiles import convert, read_table, write_table

FORMATS = pytest.mark.parametrize("form", ["parquet", "arrow"])
EPOCH, MS = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(milliseconds=1)
TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "string": (pa.string(), st.text()),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "float64": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "bool": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "zoned": (pa.timestamp("ms", "UTC"), st.integers(-(10**12), 10**13).map(lambda ms: EPOCH + MS * ms)),
    "duration": (pa.duration("s"), st.integers(-(10**6), 10**6).map(lambda s: dt.timedelta(seconds=s))),
    "decimal": (pa.decimal128(20, 3), st.decimals(-(10**12), 10**12, places=3)),
    "list": (pa.list_(pa.date32()), st.lists(st.dates(), max_size=3)),
    "struct": (
        pa.struct([("a", pa.string()), ("b", pa.timestamp("us"))]),
        st.fixed_dictionaries({"a": st.text(), "b": st.none() | st.datetimes()}),
    ),
    "map": (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.text(), st.integers(-9, 9), max_size=3).map(lambda found: list(found.items())),
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table with some columns of any type and names, and a text."""
    kinds = draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=5))
    names = draw(st.lists(st.text(min_size=1), min_size=len(kinds), max_size=len(kinds), unique=True))
    count = draw(st.integers(0, 6))
    columns = {"text": pa.array(draw(st.lists(st.none() | st.text(), min_size=count, max_size=count)), pa.string())}
    for name, kind in zip(names, kinds, strict=True):
        arrow, values = TYPES[kind]
        cells = draw(st.lists(st.none() | values, min_size=count, max_size=count))
        columns.setdefault(name, pa.array(cells, arrow))
    return pa.table(columns)


def read_back(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pyarrow.feather.read_table(path)


@FORMATS
@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_a_table_comes_back_with_types_and_values(form: str, table: pa.Table) -> None:
    """Every type, unicode, empty cells and no rows at all."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, f"in.{form}"), Path(folder, f"out.{form}")
        if form == "parquet":
            pq.write_table(table, source)
        else:
            pyarrow.feather.write_feather(table, source)
        convert(source, output, text_field="text")
        back = read_back(output)
    assert back.column_names == table.column_names
    assert back.schema.types == table.schema.types
    assert back.to_pylist() == table.to_pylist()


def test_what_json_has_for_each_type(tmp_path: Path) -> None:
    """Dates are ISO text, decimals numbers where they fit, bytes text where they are one, dictionaries their values."""
    row = {
        "text": "Good.",
        "date": dt.date(2026, 1, 31),
        "moment": dt.datetime(2026, 1, 31, 10, 0, 1, 500_000),  # noqa: DTZ001 - a moment without a zone
        "utc": dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC),
        "price": Decimal("12.50"),
        "long": Decimal("12345678901234567.125"),
        "bytes": b"abc",
        "binary": b"\xff\x00",
        "nan": float("nan"),
    }
    table = pa.Table.from_pylist([row]).append_column("kind", pa.array(["a"]).dictionary_encode())
    pq.write_table(table, tmp_path / "in.parquet")
    (found,) = read_table(tmp_path / "in.parquet")
    assert found == {
        "text": "Good.",
        "date": "2026-01-31",
        "moment": "2026-01-31T10:00:01.500000",
        "utc": "2026-01-31T10:00:00Z",
        "price": 12.5,
        "long": "12345678901234567.125",
        "bytes": "abc",
        "binary": "/wA=",
        "nan": None,
        "kind": "a",
    }


def test_nanoseconds_that_python_cannot_hold(tmp_path: Path) -> None:
    """They are read as text with all digits, and pandas' usual moments as microseconds."""
    moments = pa.array([1_700_000_000_000_000_001, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"text": ["a", "b"], "at": moments}), tmp_path / "in.parquet")
    assert read_table(tmp_path / "in.parquet")[0]["at"] == "2023-11-14T22:13:20.000000001"


@FORMATS
def test_types_of_json_are_those_of_the_values(tmp_path: Path, form: str) -> None:
    """Numbers, booleans and lists of text have their types; mixed cells and objects are text."""
    path = tmp_path / f"out.{form}"
    rows: list[dict[str, Any]] = [
        {"id": 1, "score": 1, "ok": True, "tags": ["a"], "mixed": 1, "nested": {"a": 1}, "date": "2026-01-31"},
        {"id": 2, "score": 2.5, "ok": None, "tags": [], "mixed": "x", "nested": None, "date": "2026-02-01"},
    ]
    write_table(path, rows)
    types = dict(zip(read_back(path).schema.names, read_back(path).schema.types, strict=True))
    assert types["id"] == pa.int64()
    assert types["score"] == pa.float64()
    assert types["ok"] == pa.bool_()
    assert pa.types.is_list(types["tags"])
    assert types["mixed"] == types["nested"] == types["date"] == pa.string()
    assert read_back(path)["nested"].to_pylist() == ['{"a": 1}', None]


def test_columns_of_csv_that_are_all_numbers_or_dates(tmp_path: Path) -> None:
    """They become numbers and dates; a leading zero keeps a column text."""
    (tmp_path / "in.csv").write_text("text,rating,on,zip,share\na,5,2026-01-31,01234,0.5\nb,,2026-02-01,99999,12\n")
    convert(tmp_path / "in.csv", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert dict(zip(table.schema.names, map(str, table.schema.types), strict=True)) == {
        "text": "string",
        "rating": "int64",
        "on": "date32[day]",
        "zip": "string",
        "share": "double",
    }
    assert table["rating"].to_pylist() == [5, None]


@FORMATS
def test_a_cell_that_does_not_fit_makes_its_column_text(tmp_path: Path, form: str) -> None:
    """A person has written a word into a column of dates: nothing is lost, and the other columns keep their types."""
    types = {"on": ColumnType(frozenset(("date",)), arrow=pa.date32()), "n": ColumnType(arrow=pa.int8())}
    path = tmp_path / f"out.{form}"
    write_table(path, [{"on": "2026-01-31", "n": 1}, {"on": "unknown", "n": 2}], types)
    assert read_back(path).schema.types == [pa.string(), pa.int8()]
    assert read_back(path)["on"].to_pylist() == ["2026-01-31", "unknown"]


def test_many_columns(tmp_path: Path) -> None:
    """16,000 columns come back."""
    row = {f"c{number}": number for number in range(16_000)} | {"text": "Good."}
    write_table(tmp_path / "wide.parquet", [row])
    assert read_table(tmp_path / "wide.parquet") == [row]


def test_rows_of_several_groups_keep_their_order(tmp_path: Path) -> None:
    """Groups are written and read one after the other."""
    rows = [{"text": f"row {number}"} for number in range(45_000)]
    write_table(tmp_path / "long.parquet", rows)
    assert pq.ParquetFile(tmp_path / "long.parquet").num_row_groups == 5
    assert read_table(tmp_path / "long.parquet") == rows


@FORMATS
def test_a_broken_file_is_named(tmp_path: Path, form: str) -> None:
    """A file that is cut off, and one that only has the name."""
    path = tmp_path / f"in.{form}"
    write_table(path, [{"text": "Good."}])
    for data in (path.read_bytes()[:-20], b"text\nGood.\n"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"in\.{form}: is no \w+ file, or a broken one"):
            read_table(path)


@pytest.mark.parametrize("name", ["in.arrow", "in.arrows", "in"])
def test_a_stream_of_arrow_is_read(tmp_path: Path, name: str) -> None:
    """Data sets are stored so, under any name."""
    stored = pa.table({"text": ["Good.", "Late."]})
    with pa.ipc.new_stream(tmp_path / name, stored.schema) as writer:
        writer.write_table(stored)
    assert read_table(tmp_path / name) == [{"text": "Good."}, {"text": "Late."}]


def test_the_text_inside_a_column_is_found(tmp_path: Path) -> None:
    """A column of objects is not the text itself, whatever its name."""
    pq.write_table(pa.table({"id": [1], "review": [{"text": "Good.", "stars": 5}]}), tmp_path / "in.parquet")
    with open_source(str(tmp_path / "in.parquet")) as source:
        assert [item.text for item in source] == ["Good."]
        assert source.text_columns == ("review.text",)


def test_a_pipe_and_a_packed_file_are_read(tmp_path: Path) -> None:
    """Parquet needs the whole file: what comes packed is unpacked into a temporary one."""
    import gzip

    write_table(tmp_path / "in.parquet", [{"text": "Good."}])
    (tmp_path / "in.parquet.gz").write_bytes(gzip.compress((tmp_path / "in.parquet").read_bytes()))
    assert read_table(tmp_path / "in.parquet.gz") == [{"text": "Good."}]


@pytest.mark.parametrize("name", ["-", "out.parquet.gz", "out.arrow.zst"])
def test_it_is_written_to_plain_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A reader of a pipe would get nothing before the end, and it is packed already."""
    from mellea_cli.io.files import resolve_output
    from mellea_cli.io.sink import SinkOptions, open_sink
    from tablefiles import ANSWERS

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot hold"):
        open_sink(resolve_output(name), ANSWERS, SinkOptions(format="parquet"))
    assert list(tmp_path.iterdir()) == []


def test_repeated_names_get_numbers(tmp_path: Path) -> None:
    """A column is found by its name, so each has its own."""
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    assert read_table(tmp_path / "in.parquet", text_field="text") == [{"text": "a", "text_2": "b"}]


def test_the_type_of_text_cells_is_uncertain() -> None:
    """A cell of CSV is a date only where all of its column are."""
    assert not TEXT_CELLS.certain
    assert ColumnType().certain
