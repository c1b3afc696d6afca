"""Formats by name and by first characters."""

from __future__ import annotations

import pytest

from mellea_cli.io.formats import detect_format, format_of_name, known_format


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.json.gz", "json"), ("dir.csv/a", None), ("a.csv.GZ", "csv"),
        ("a.tab", "tsv"), ("a.b.tsv", "tsv"), ("a", None), (".csv", None), ("a.gz", None), ("csv", None),
    ],
)  # fmt: skip
def test_format_is_read_off_the_last_suffix(path: str, form: str | None) -> None:
    """`.gz` does not count, case neither, folders neither."""
    assert format_of_name(path) == form


@pytest.mark.parametrize(
    ("head", "wanted", "path", "form"),
    [
        ('{"a": 1}\n', None, "-", "jsonl"),
        ('{"a": 1}', None, "-", "jsonl"),
        ('{\n"a": 1}', None, "-", "json"),
        ('{"a": "' + "x" * 40_000, None, "-", "jsonl"),
        ('\ufeff\n [{"a"', None, "-", "json"),
        ("a,b\n", None, "-", "csv"),
        ("", None, "-", "csv"),
        ("", None, "a.jsonl", "jsonl"),
        ('[{"a": 1}]', None, "a.jsonl", "json"),
        ('{"a": 1}\n{"a": 2}', None, "a.json", "jsonl"),
        ('{"a": 1}', None, "a.csv", "jsonl"),
        ('{"a": 1}', "csv", "a.jsonl", "csv"),
        ("x", "NDJSON", "a.csv", "jsonl"),
        ("x", None, "a.json", "json"),
    ],
)
def test_format_by_flag_name_and_content(head: str, wanted: str | None, path: str, form: str) -> None:
    """The user's word counts most, then the name, corrected by what is plainly there, then the content."""
    assert detect_format(head, wanted, path) == form


def test_formats_have_two_spellings_where_people_use_two() -> None:
    """NDJSON is JSONL."""
    assert known_format("ndjson") == known_format("JSONL") == "jsonl"
