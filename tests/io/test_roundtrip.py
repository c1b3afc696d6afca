"""Any list of rows, written in any dialect, comes back equal; and what we write can be read again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mellea_cli.io.files import resolve_output
from mellea_cli.io.sink import SinkOptions, open_dead_letters, open_sink
from mellea_cli.io.source import SourceOptions, open_source
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item, Success

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.sampled_from("a,;|\t\"'\r\n =+-@é\u2028\ufeff\0"), max_size=12
)
# Marks without a width: a text of nothing else is none.
UNSEEN = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u200e\u200f\u00ad"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
JSON_ROWS = st.lists(
    st.builds(lambda extra, text: {**extra, "text": text}, st.dictionaries(TEXT, VALUES, max_size=4), TEXT), max_size=6
)
NAMES = st.lists(st.text(st.sampled_from("abcäß_ 1"), min_size=1, max_size=6), max_size=4)
ADDED = AddedColumns.of("summary", ("issues", ("urgency",)))


def read(data: bytes, options: SourceOptions) -> list[Item]:
    with open_source("-", options, stream=io.BytesIO(data)) as source:
        return list(source)


@settings(deadline=None)
@given(JSON_ROWS, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_json_lines_in_any_dialect(
    rows: list[dict[str, object]], ascii_only: bool, end: str, last: bool, packed: bool
) -> None:
    """Escaped or not, with any line end, packed or not: all values are as they were; what nobody sees is no text."""
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows) + (end if last else "")
    data = gzip.compress(text.encode()) if packed else text.encode()
    items = read(data, SourceOptions(format="jsonl", text_field="text", on_bad_row="fail"))
    assert [dict(item.fields) for item in items] == rows
    texts = [str(row["text"]) for row in rows]
    seen = [text if text.isascii() or text.translate(UNSEEN).strip() else "" for text in texts]
    assert [item.text for item in items] == seen


@settings(deadline=None)
@given(
    NAMES,
    st.lists(st.lists(TEXT, min_size=5, max_size=5), max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
)
def test_tables_in_any_dialect(
    names: list[str], cells: list[list[str]], delimiter: str, end: str, always: bool, encoding: str
) -> None:
    """With any delimiter, line end, quoting and encoding: every cell of every row is as it was."""
    header = list(dict.fromkeys(["text", *(name.strip() or "x" for name in names)]))
    rows = [dict(zip(header, row, strict=False)) for row in cells]
    out = io.StringIO()
    # What is quoted when nothing is forced depends on the line end that is written, hence \r\n first.
    quoting = csv.QUOTE_ALL if always or len(header) == 1 else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n", quoting=quoting)
    writer.writerow(header)
    lines = [out.getvalue()[:-2]]
    for row in rows:
        out.seek(0)
        out.truncate()
        writer.writerow(row.values())
        lines.append(out.getvalue()[:-2])
    data = (end.join(lines) + end).encode(encoding)
    options = SourceOptions(
        format="csv",
        text_field="text",
        on_bad_row="fail",
        delimiter=delimiter,
        encoding=None if encoding in ("utf-8", "utf-8-sig", "utf-16") else encoding,
    )
    assert [dict(item.fields) for item in read(data, options)] == rows


def written(items: list[Item], suffix: str, options: SinkOptions) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out.{suffix}"
        with open_sink(resolve_output(str(path)), ADDED, options) as sink:
            for item in items:
                sink.write(ADDED.row(item, Success({"summary": item.text, "issues": {"urgency": "low"}})))
            sink.finish()
        return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(JSON_ROWS, st.sampled_from(["jsonl", "json", "jsonl.gz", "json.gz"]), st.booleans())
def test_what_is_written_as_json_reads_back(rows: list[dict[str, object]], suffix: str, with_raw: bool) -> None:
    """Input columns come first and unchanged, ours follow, whatever the values are."""
    items = [
        Item(position, position + 1, str(row["text"]), row, raw=json.dumps(row) if with_raw else None)
        for position, row in enumerate(rows)
    ]
    again = read(written(items, suffix, SinkOptions()), SourceOptions(text_field="text", on_bad_row="fail"))
    assert len(again) == len(rows)
    for row, item in zip(rows, again, strict=True):
        left = dict(item.fields)
        ours = {name: left.pop(name) for name in list(left) if name not in row}
        assert left == row
        assert row["text"] in ours.values()
        assert {"urgency": "low"} in ours.values()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.sampled_from(["csv", "tsv"]))
def test_what_is_written_as_a_table_reads_back(cells: list[tuple[str, str]], suffix: str) -> None:
    """With formulas left alone, every cell is as it was."""
    # A first row with nothing but "Response" is the second header of a survey tool, which is no feedback.
    assume(not cells or cells[0][0].strip())
    rows = [{"text": text, "note": note} for text, note in cells]
    items = [Item(position, position + 1, row["text"], row) for position, row in enumerate(rows)]
    data = written(items, suffix, SinkOptions(raw_csv=True, columns=("text", "note")))
    again = read(data, SourceOptions(format=suffix, on_bad_row="fail"))
    assert [dict(item.fields) for item in again] == [
        {**row, "summary": row["text"], "urgency": "low", "error": ""} for row in rows
    ]


def test_dead_letters_are_an_input_again(tmp_path: Path) -> None:
    """Failed rows come out letter by letter as they went in, in the format that the name says."""
    raw = '{"id": 7, "text":  "a", "n": 1.10, "big": 123456789012345678901234567890}'
    (item,) = read(raw.encode(), SourceOptions())
    for suffix in ("jsonl", "json", "csv", "jsonl.gz"):
        path = tmp_path / f"failed.{suffix}"
        with open_dead_letters(str(path)) as sink:
            sink.write(AddedColumns().row(item, Success({})))
            sink.finish()
        with open_source(str(path)) as source:
            (again,) = source
        assert again.text == "a"
        if suffix == "csv":
            assert again.fields["big"] == "123456789012345678901234567890"
        else:
            assert again.raw == raw
    assert (tmp_path / "failed.jsonl").read_text() == raw + "\n"
