"""Which character separates the columns of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Collection

from mellea_cli.errors import UsageError

_CANDIDATES = (",", ";", "\t", "|")
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def known_delimiter(wanted: str) -> str:
    r"""Check a delimiter that the user named: one character, or a word such as `tab` (also `\t`).

    Raises:
        UsageError: it cannot separate columns.
    """
    delimiter = _NAMED.get(wanted.lower(), wanted)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UsageError(f"cannot be a delimiter: {wanted!r}", hint="one character such as ';', or the word tab")
    return delimiter


def sniff_delimiter(lines: list[str], likely: Collection[str]) -> str:
    """Choose among comma, semicolon, tab and pipe by the first lines of a file.

    A candidate must split the header. The best one gives the header a column that we know, then gives most lines as
    many columns as the header has, then gives most columns. Separators inside quotes do not count.

    Args:
        lines: the first physical lines, the header first.
        likely: column names in lower case of which the header probably has one.

    Returns:
        The delimiter; a comma when there is only one column.
    """
    best, best_score = ",", (False, 0.0, 1)
    for candidate in _CANDIDATES:
        rows = _split(lines, candidate)
        if not rows or len(rows[0]) < 2:
            continue
        header = {name.strip().lower() for name in rows[0]}
        body = rows[1:]
        same = sum(len(row) == len(rows[0]) for row in body) / len(body) if body else 1.0
        score = (not header.isdisjoint(likely), same, len(rows[0]))
        if score > best_score:
            best, best_score = candidate, score
    return best


def stated_delimiter(line: str) -> str | None:
    """Read the `sep=;` line that Excel writes and reads above the header."""
    text = line.strip("\ufeff\r\n")
    return text[4] if len(text) == 5 and text.lower().startswith("sep=") else None


def _split(lines: list[str], delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []
