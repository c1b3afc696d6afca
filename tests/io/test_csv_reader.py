"""The CSV reader: delimiters."""

from __future__ import annotations

import pytest

from mellea_cli.errors import UsageError
from mellea_cli.io.csv_reader import known_delimiter, sniff_delimiter, stated_delimiter
from mellea_cli.io.source import TEXT_COLUMNS


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["id,text\n", "1,a;b;c\n", "2,d;e;f\n"], ","),
        (["id;text\n", "1;a, b\n", "2;c, d\n"], ";"),
        (["id\ttext\n", "1\ta, b; c|d\n"], "\t"),
        (["id|text|n\n", "1|a, b, c|2\n"], "|"),
        (["text\n", "a, b\n", "c, d\n"], ","),
        (['"text, in words";id\n', '"a, b";1\n'], ";"),
        (["id;note, if any;text\n", "1;a;b\n", "2;c;d\n"], ";"),
        (["id;text\n", '1;"a\n', 'b, c; d"\n'], ";"),
        (["id,price;unit,text\n", "1,2,a\n", "2,3,b\n"], ","),
        (["a;b,c\n"], ","),
        ([], ","),
    ],
)
def test_delimiter_is_found(lines: list[str], delimiter: str) -> None:
    """Separators inside text and quotes do not mislead."""
    assert sniff_delimiter(lines, TEXT_COLUMNS) == delimiter


@pytest.mark.parametrize(
    ("wanted", "delimiter"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), ("PIPE", "|"), ("^", "^")]
)
def test_named_delimiters_are_known(wanted: str, delimiter: str) -> None:
    """One character, or a word that is easier to type."""
    assert known_delimiter(wanted) == delimiter


@pytest.mark.parametrize("wanted", ["", ",,", '"', "\n", "\0", "word"])
def test_what_cannot_separate_is_refused(wanted: str) -> None:
    """Quotes, line ends and more than one character are no delimiters."""
    with pytest.raises(UsageError, match="cannot be a delimiter"):
        known_delimiter(wanted)


@pytest.mark.parametrize(
    ("line", "delimiter"), [("sep=;\r\n", ";"), ("\ufeffSEP=|\n", "|"), ("sep=\n", None), ("separator\n", None)]
)
def test_line_that_states_the_delimiter_is_read(line: str, delimiter: str | None) -> None:
    """Excel's first line is understood."""
    assert stated_delimiter(line) == delimiter
