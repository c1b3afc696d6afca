"""Table rows: quoting, nested values, and cells that must not become formulas."""

from __future__ import annotations

import csv
import io

import pytest

from mellea_cli.io.writers import AddedColumns, CsvTable

ADDED = AddedColumns.of("summary", ("issues", ("main_complaint", "urgency")))


def cells(data: bytes, delimiter: str = ",") -> list[str]:
    (row,) = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True)
    return row


@pytest.mark.parametrize(
    "text", ["=1+1", "+SUM(A1)", "-2+3", "@cmd", "\tx", "\r=1", "-", "=", "+49 170 1234567", "-5 stars", "--", "-1-1"]
)
def test_formula_gets_an_apostrophe(text: str) -> None:
    """Whatever a spreadsheet would run is text, in input columns, our columns and headers alike."""
    table = CsvTable(["text", text], ADDED)
    assert cells(table.header())[1] == "'" + text
    row = cells(table.render({"text": text}, {"summary": text, "issues": {"urgency": text}}))
    assert (row[0], row[2], row[4]) == ("'" + text,) * 3


@pytest.mark.parametrize(
    "text", ["-5", "+3.2", "-1,234.50", "-.5", "+1e-9", "-12%", "-3 %", "a=1", "'=1", " =1", "", "5"]
)
def test_plain_numbers_and_harmless_text_stay(text: str) -> None:
    """A signed number is no formula."""
    assert cells(CsvTable(["text", "n"], ADDED).render({"text": text}, {}))[0] == text


def test_raw_leaves_formulas_alone() -> None:
    """Who asks for it gets every cell as it is."""
    table = CsvTable(["text", "=n"], AddedColumns(), raw=True)
    assert cells(table.header()) == ["text", "=n"]
    assert cells(table.render({"text": "=1+1"}, {})) == ["=1+1", ""]


def test_values_have_their_stated_form() -> None:
    """Null is empty, words and digits are plain, nested values are JSON, a failure is one sentence."""
    values = [None, True, 12, 1.5, float("nan"), 10**30, {"a": ["é"]}, [], "a\nb", -7]
    names = [str(number) for number in range(len(values))]
    table = CsvTable(names, ADDED)
    error = {"kind": "parse", "message": "no JSON", "attempts": 3}
    row = cells(table.render(dict(zip(names, values, strict=True)), {"summary": None, "issues": None, "error": error}))
    assert row == [
        "", "true", "12", "1.5", "", "1" + "0" * 30, '{"a": ["é"]}', "[]", "a\nb", "-7", "", "", "", "parse: no JSON"
    ]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b\tc", "a\0b", "\ufeffa", "a\u2028b"])
def test_awkward_characters_come_back(text: str, delimiter: str) -> None:
    """Line ends of every kind, quotes and separators are quoted, and a row ends with LF."""
    data = CsvTable(["text", "n"], AddedColumns(), delimiter=delimiter, raw=True).render({"text": text, "n": 1}, {})
    assert cells(data, delimiter) == [text, "1"]
    assert data.endswith(b"1\n")


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    """A table has no escapes."""
    assert cells(CsvTable(["text"], AddedColumns()).render({"text": "a\ud83db"}, {})) == ["a\ufffdb"]


def test_clash_and_late_columns_are_noted_once() -> None:
    """Ours gives way in the header; a column that the header lacks is left out and said once."""
    notes: list[str] = []
    table = CsvTable(["text", "urgency"], ADDED, note=notes.append)
    assert cells(table.header()) == ["text", "urgency", "summary", "main_complaint", "mellea_urgency", "error"]
    for _ in range(2):
        row = table.render({"text": "a", "urgency": "mine", "late": 1}, {"issues": {"urgency": "low"}})
        assert cells(row) == ["a", "mine", "", "", "low", ""]
    assert len(notes) == 2
    assert "'late' turned up after the header" in notes[1]
