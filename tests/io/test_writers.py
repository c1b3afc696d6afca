"""Writers: added columns, JSON rows and table rows."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from mellea_cli.io.formats import CsvDialect
from mellea_cli.io.writers import AddedColumns, FreeNames, JsonLines, Table
from mellea_cli.items import Failure, Item, Row, Success

ADDED = AddedColumns.of("summary", ("issues", ("main_complaint", "urgency")))
ITEM = Item(0, 1, "a", {"text": "a"})


def test_names_as_json_and_as_csv_have_them() -> None:
    """A nested column stands for its parts in a table, and `error` is always there."""
    assert ADDED.names == ("summary", "issues")
    assert ADDED.flat == ("summary", "main_complaint", "urgency", "error")
    assert AddedColumns().flat == ()


def test_success_brings_the_declared_columns_in_their_order() -> None:
    """What a pipeline leaves out is null, and what nobody declared is not written."""
    assert list(ADDED.row(ITEM, Success({"issues": {}, "x": 1})).added.items()) == [("summary", None), ("issues", {})]


def test_failure_brings_nulls_and_its_reason() -> None:
    """Step and status are named where there are any."""
    full = ADDED.row(ITEM, Failure("server-fault", "no answer", step="issues", attempts=3, status=503)).added
    assert full == {
        "summary": None,
        "issues": None,
        "error": {"kind": "server-fault", "message": "no answer", "attempts": 3, "step": "issues", "status": 503},
    }
    assert ADDED.row(ITEM, Failure("parse", "no JSON")).added["error"] == {
        "kind": "parse",
        "message": "no JSON",
        "attempts": 1,
    }


def test_name_gives_way_until_it_is_free_and_says_so_once() -> None:
    """An input column is never touched; each of our names is noted once, however many rows have it."""
    notes: list[str] = []
    assert FreeNames().find("summary", ["Summary", "MELLEA_SUMMARY"]) == "mellea_summary_2"
    assert FreeNames().find("Team", ["Team", "mellea_team"]) == "mellea_Team_2"
    names = FreeNames(notes.append)
    assert names.find("summary", ["text"]) == "summary"
    assert notes == []
    assert names.find("summary", ["summary"]) == "mellea_summary"
    assert names.find("summary", ["summary", "mellea_summary", "mellea_summary_2"]) == "mellea_summary_3"
    assert names.find("error", ["error"]) == "mellea_error"
    assert notes == [
        "the input has a column 'summary': it is kept, and the added column is called 'mellea_summary'",
        "the input has a column 'error': it is kept, and the added column is called 'mellea_error'",
    ]


def render(item: Item, **added: object) -> str:
    return JsonLines().partial_line(Row(item, added)).decode().removesuffix("\n")


@pytest.mark.parametrize(
    "raw",
    [
        '{"text":"a","n":1.10,"e":1e400,"big":123456789012345678901234567890}',
        '{ "text" : "\\u00e9\\ud83d",   "k": {"b": [1,  2]} }',
        '{"text": "a", "text": "b"}',
        '{  "text": "a"   }',
    ],
)
def test_input_object_is_kept_letter_by_letter(raw: str) -> None:
    """Numbers, escapes, spacing and even repeated keys stay as they stood."""
    line = render(Item(0, 1, "a", json.loads(raw), raw=raw), summary="é")
    assert line == raw[:-1].rstrip() + ', "summary": "é"}'
    assert json.loads(line)["summary"] == "é"


def test_nothing_added_is_the_raw_row() -> None:
    """A dead letter is its input row."""
    assert render(Item(0, 1, "a", {"text": "a"}, raw='{ "text":"a" }')) == '{ "text":"a" }'


def test_clash_is_resolved_by_row() -> None:
    """Only the rows that have the column get the other name; theirs stays."""
    notes: list[str] = []
    rows = JsonLines(notes.append)
    raw = '{"summary": "mine", "text": "a"}'
    clash = rows.partial_line(Row(Item(0, 1, "a", json.loads(raw), raw=raw), {"summary": "ours", "error": None}))
    plain = rows.partial_line(Row(Item(1, 2, "a", {"text": "a"}), {"summary": "ours"}))
    assert clash == b'{"summary": "mine", "text": "a", "mellea_summary": "ours", "error": null}\n'
    assert plain == b'{"text": "a", "summary": "ours"}\n'
    assert len(notes) == 1


@pytest.mark.parametrize("fields", [{}, {"text": "a", "x": float("nan")}])
def test_values_that_json_has_no_words_for_become_null(fields: dict[str, object]) -> None:
    """NaN and infinities never reach the output, nested or not."""
    line = render(Item(0, 1, "a", fields), a=math.inf, b={"c": [math.nan, 1.5]})
    again = json.loads(line, parse_constant=pytest.fail)
    assert again["a"] is None
    assert again["b"] == {"c": [None, 1.5]}


def test_half_a_surrogate_pair_is_escaped() -> None:
    """Text that UTF-8 cannot hold still comes out, as an escape, on one line."""
    line = render(Item(0, 1, "a", {"text": "a\ud83d"}), summary="é\n\udc00")
    assert json.loads(line) == {"text": "a\ud83d", "summary": "é\n\udc00"}
    assert "\n" not in line


def test_row_without_any_input_column_is_an_object_too() -> None:
    """No stray comma."""
    assert render(Item(0, 1, "a", {}, raw="{ }"), summary="b") == '{"summary": "b"}'


ADDED = AddedColumns.of("summary", ("issues", ("main_complaint", "urgency")))


def cells(data: bytes, delimiter: str = ",") -> list[str]:
    (row,) = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True)
    return row


def line(table: Table, fields: dict[str, object], added: dict[str, object]) -> bytes:
    """One row without the header above it."""
    table.end()
    return table.render(Row(Item(0, 1, "", fields), added))


@pytest.mark.parametrize(
    "text", ["=1+1", "+SUM(A1)", "-2+3", "@cmd", "\tx", "\r=1", "-", "=", "+49 170 1234567", "-5 stars", "--", "-1-1"]
)
def test_formula_gets_an_apostrophe(text: str) -> None:
    """Whatever a spreadsheet would run is text, in input columns, our columns and headers alike."""
    table = Table(ADDED, ["text", text])
    assert cells(table.end())[1] == "'" + text
    row = cells(line(table, {"text": text}, {"summary": text, "issues": {"urgency": text}}))
    assert (row[0], row[2], row[4]) == ("'" + text,) * 3


@pytest.mark.parametrize(
    "text", ["-5", "+3.2", "-1,234.50", "-.5", "+1e-9", "-12%", "-3 %", "a=1", "'=1", " =1", "", "5"]
)
def test_plain_numbers_and_harmless_text_stay(text: str) -> None:
    """A signed number is no formula."""
    assert cells(line(Table(ADDED, ["text", "n"]), {"text": text}, {}))[0] == text


def test_raw_leaves_formulas_alone() -> None:
    """Who asks for it gets every cell as it is."""
    table = Table(AddedColumns(), ["text", "=n"], raw=True)
    assert cells(table.end()) == ["text", "=n"]
    assert cells(line(table, {"text": "=1+1"}, {})) == ["=1+1", ""]


def test_values_have_their_stated_form() -> None:
    """Null is empty, words and digits are plain, nested values are JSON, a failure is one sentence."""
    values = [None, True, 12, 1.5, float("nan"), 10**30, {"a": ["é"]}, [], "a\nb", -7]
    names = [str(number) for number in range(len(values))]
    table = Table(ADDED, names)
    error = {"kind": "parse", "message": "no JSON", "attempts": 3}
    row = cells(line(table, dict(zip(names, values, strict=True)), {"summary": None, "issues": None, "error": error}))
    assert row == [
        "", "true", "12", "1.5", "", "1" + "0" * 30, '{"a": ["é"]}', "[]", "a\nb", "-7", "", "", "", "parse: no JSON"
    ]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b\tc", "a\0b", "\ufeffa", "a\u2028b"])
def test_awkward_characters_come_back(text: str, delimiter: str) -> None:
    """Line ends of every kind, quotes and separators are quoted, and a row ends with LF."""
    data = line(Table(AddedColumns(), ["text", "n"], delimiter=delimiter, raw=True), {"text": text, "n": 1}, {})
    assert cells(data, delimiter) == [text, "1"]
    assert data.endswith(b"1\n")


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    """A table has no escapes."""
    assert cells(line(Table(AddedColumns(), ["text"]), {"text": "a\ud83db"}, {})) == ["a\ufffdb"]


def test_clash_and_late_columns_are_noted_once() -> None:
    """Ours gives way in the header; a column that the header lacks is left out and said once."""
    notes: list[str] = []
    table = Table(ADDED, ["text", "urgency"], note=notes.append)
    assert cells(table.end()) == ["text", "urgency", "summary", "main_complaint", "mellea_urgency", "error"]
    for _ in range(2):
        row = line(table, {"text": "a", "urgency": "mine", "late": 1}, {"issues": {"urgency": "low"}})
        assert cells(row) == ["a", "mine", "", "", "low", ""]
    assert len(notes) == 2
    assert "'late' first occurs below the header" in notes[1]


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (None, b"text,summary,error\na,s,\n"),
        (CsvDialect(";", line_end="\r\n", mark=True), b"\xef\xbb\xbftext;summary;error\r\na;s;\r\n"),
        (CsvDialect(",", quote_all=True), b'"text","summary","error"\n"a","s",""\n'),
        (CsvDialect(";", sep_line="sep=;"), b"sep=;\ntext;summary;error\na;s;\n"),
    ],
)
def test_table_is_written_as_its_input_was(dialect: CsvDialect | None, expected: bytes) -> None:
    """Delimiter, mark, quotes, line ends and the line that states the delimiter; they are asked for at the header."""
    added = AddedColumns.of("summary")
    table = Table(added, dialect=lambda: dialect)
    line = table.partial_line(added.row(ITEM, Success({"summary": "s"})))
    assert table.render_partial(line) == expected


def test_tabs_of_the_format_beat_the_dialect() -> None:
    """In a .tsv file there are tabs, and no line that states another delimiter."""
    table = Table(AddedColumns(), dialect=lambda: CsvDialect(";", sep_line="sep=;"), delimiter="\t")
    assert table.render(Row(Item(0, 1, "a", {"text": "a", "n": "b"}), {})) == b"text\tn\na\tb\n"
