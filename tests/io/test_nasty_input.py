"""Every odd file under `assets/input` ends in the right rows, or in one line with file, line and what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mellea_cli.errors import InputError
from mellea_cli.io.source import SourceOptions, open_source

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
    Case("nan.jsonl", ["a"], {2: "NaN is not JSON", 3: "-Infinity is not JSON"}),
    Case("blank-text.jsonl", ["", "", "  "]),
    Case("odd-text.jsonl", ["12", "true", "1.5"], {4: "holds an array", 5: "holds an object", 6: "no column 'text'"}),
    Case("odd-ids.jsonl", ["a", "b", "c", "d", "e", "f", "g"]),
    Case("array-in.jsonl", ["a", "b"]),
    Case("lines-in.json", ["a", "c"], {2: "ends in the middle"}),
    Case("comma-after-line.jsonl", ["b"], {1: "Extra data"}),
    Case("pretty.json", ["a", "b"]),
    Case("pretty-objects.json", ["a", "b"]),
    Case("pretty-objects.jsonl", ["a"], options=SourceOptions(format="json")),
    Case("odd-elements.json", ["a", "c"], {1: "not a JSON object"}),
    Case("empty-array.json", []),
    Case("json-in.csv", ["a", "b"], options=SourceOptions(format="jsonl")),
    Case("upper-case.csv", ["a"]),
    Case("several-candidates.csv", ["c"]),
    Case("no-text-column.csv", ["a"], options=SourceOptions(text_field="remark")),
    Case("packed.csv.gz", ["a"]),
    Case("packed-without-suffix.jsonl", ["a"]),
    Case("plain-with-suffix.jsonl.gz", ["a"]),
    Case("packed-members.jsonl.gz", ["a", "b"]),
    Case("tabs.tsv", ["a, b"]),
    Case("tabs.csv", ["a, b; c"]),
    Case("single-column-plain.csv", ["nice", "good"]),
    Case("single-column.csv", ["quoted, too"], {2: "2 cells where the header has 1"}),
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
    ("no-text-column.csv", 1, "columns seen: id, remark, stars", "--text-field NAME"),
    ("json-in.csv", 1, "no column looks like the text", "--format jsonl"),
    ("truncated.json", 2, "ends in the middle of a value", ""),
    ("truncated-array.json", 3, "the array does not end", ""),
    ("raw-tab.jsonl", 1, "raw control character at column 12", ""),
    ("single-quotes.jsonl", 1, "double quotes at column 2", ""),
    ("trailing-comma.jsonl", 1, "not a JSON object", ""),
    ("pretty-objects.jsonl", 1, "ends in the middle", "--format json"),
    ("wrapper.json", 1, "is one object with its rows under 'data'", "jq -c '.data[]'"),
    ("pretty-wrapper.json", 1, "is one object with its rows under 'data'", "jq -c '.data[]'"),
    ("missing-comma.json", 2, "expected ',' or ']'", ""),
    ("after-array.json", 2, "more after the end of the array", ""),
    ("scalar.json", 1, "expected a JSON array or JSON objects", "--format"),
    ("string.json", 1, "expected a JSON array or JSON objects", "--format"),
    ("html.json", 1, "expected a JSON array or JSON objects", "--format"),
    ("python.json", 1, "double quotes at column 3", "jq"),
    ("picture.csv", None, "is a PNG image", ""),
    ("document.jsonl", None, "is a PDF document", ""),
    ("noise.csv", None, "does not look like text", ""),
    ("workbook.xlsx", None, "spreadsheet workbook", "export it as CSV"),
    ("workbook-renamed.csv", None, "spreadsheet workbook", "export it as CSV"),
    ("archive.csv", None, "ZIP archive", "unpack"),
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
