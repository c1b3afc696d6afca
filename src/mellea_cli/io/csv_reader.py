"""CSV and TSV reader: the delimiter, the header, and rows with a reason for each bad one.

The rules, where the format leaves a choice:

- Quotes follow RFC 4180: a field that begins with `"` ends with `"`, and a quote inside it is doubled.
- A row with fewer cells than the header is bad. One with more is bad too, unless the extra cells are empty.
- Blank lines do not count. An unnamed column is called `column_N`, a repeated name gets `_2`, `_3` and so on.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import MAX_ROW_BYTES, Lines, too_long
from mellea_cli.io.formats import RawRow

_CANDIDATES = (",", ";", "\t", "|")
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def known_delimiter(wanted: str) -> str:
    r"""Return the delimiter that the user named: one character, or a word such as `tab` (also `\t`).

    Raises:
        UsageError: it cannot separate columns.
    """
    delimiter = _DELIMITER_NAMES.get(wanted.lower(), wanted)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UsageError(f"cannot be a delimiter: {wanted!r}", hint="one character such as ';', or the word tab")
    return delimiter


def stated_delimiter(line: str) -> str | None:
    """Return the delimiter of a `sep=;` line, which Excel reads and writes above the header."""
    text = line.strip("\ufeff\r\n")
    return text[4] if len(text) == 5 and text.lower().startswith("sep=") else None


def sniff_delimiter(lines: list[str], likely: Collection[str]) -> str:
    """Choose among comma, semicolon, tab and pipe by the first lines of a file.

    A candidate must split the header. The best one gives the header a likely column, then gives most lines as many
    columns as the header, then gives most columns. Separators inside quotes do not count.

    Args:
        lines: the first physical lines, the header first.
        likely: column names in lower case of which the header probably has one.

    Returns:
        The delimiter; a comma when there is only one column.
    """
    best, best_score = ",", (False, 0.0, 1)
    for candidate in _CANDIDATES:
        try:
            rows = [row for row in csv.reader(lines, delimiter=candidate) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        header = {name.strip().lower() for name in rows[0]}
        body = rows[1:]
        regular = sum(len(row) == len(rows[0]) for row in body) / len(body) if body else 1.0
        score = (not header.isdisjoint(likely), regular, len(rows[0]))
        if score > best_score:
            best, best_score = candidate, score
    return best


class CsvReader:
    """Reads the header at once and the rows on demand.

    Args:
        lines: the physical lines.
        delimiter: one character.
        skip: lines above the header that are no part of the table.

    Raises:
        InputError: the header cannot be read.
    """

    def __init__(self, lines: Lines, delimiter: str, *, skip: int = 0) -> None:
        # The limit is global to the csv module: it is raised and never lowered, so that other users are not harmed.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ROW_BYTES))
        self._lines = _RowLines(lines, skip)
        self._path = lines.path
        self._delimiter = delimiter
        self._rows = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self.notes: list[str] = []
        """Changes to the header, one sentence each."""
        self.columns: tuple[str, ...] = self._read_header()
        """The names of the columns, each once; empty for an empty file."""
        self.header_line = self._lines.first_line

    def rows(self) -> Iterator[RawRow | InputError]:
        """Yield the rows in order; a bad row is yielded as an error."""
        columns = self.columns
        width = len(columns)
        lines = self._lines
        while (row := self._next_row()) is not None:
            if isinstance(row, InputError):
                yield row
            elif len(row) == width or (len(row) > width and not any(row[width:])):
                yield lines.first_line, dict(zip(columns, row, strict=False)), None
            elif row:
                yield self._wrong_width(len(row))

    def _next_row(self) -> list[str] | InputError | None:
        """Return the next row, `[]` for a blank line, an error for a bad row, `None` at the end."""
        lines = self._lines
        lines.row.clear()
        lines.row_size = 0
        try:
            return next(self._rows, None)
        except InputError as error:
            if error is lines.fatal:
                raise
            return error
        except csv.Error as error:
            return self._broken(error)
        except _RowTooLong:
            return too_long(self._path, self._recover(), "check whether a quote in this line is never closed")

    def _read_header(self) -> tuple[str, ...]:
        while (row := self._next_row()) is not None:
            if isinstance(row, InputError):
                raise row
            names = [cell.strip("\ufeff \t") for cell in row]
            if any(names):
                return self._unique(names)
        return ()

    def _unique(self, names: list[str]) -> tuple[str, ...]:
        unique: dict[str, None] = {}
        given = set(names)
        for position, name in enumerate(names, start=1):
            new = base = name or f"column_{position}"
            number = 2
            while new in unique or (new != name and new in given):
                new = f"{base}_{number}"
                number += 1
            if name and new != name:
                self.notes.append(f"{self._path}: column {position} repeats the name {name!r} and is called {new!r}")
            elif not name and position < len(names):
                self.notes.append(f"{self._path}: column {position} has no name and is called {new!r}")
            unique[new] = None
        return tuple(unique)

    def _wrong_width(self, cells: int) -> InputError:
        width = len(self.columns)
        hint = "put text with separators or line breaks in quotes" if width > 1 else "check --delimiter"
        message = f"{cells} cell{'s' if cells > 1 else ''} where the header has {width}"
        return InputError(message, path=self._path, line=self._lines.first_line, hint=hint)

    def _broken(self, error: csv.Error) -> InputError:
        if "unexpected end" in str(error):
            line = self._recover()
            hint = 'close it, or double it ("") when it belongs to the text'
            return InputError("a quote that is opened here is never closed", path=self._path, line=line, hint=hint)
        line = self._lines.line
        if "expected after" in str(error):
            hint = 'inside quotes, a quote is written twice ("")'
            return InputError("text after a closing quote", path=self._path, line=line, hint=hint)
        return InputError(f"broken CSV: {error}", path=self._path, line=line)

    def _recover(self) -> int:
        """Return the line with the quote that is never closed, and continue reading below it."""
        row = list(self._lines.row)
        opened = _unclosed_quote((text for _, text in row), self._delimiter)
        self._lines.pending.extend(reversed(row[opened + 1 :]))
        return row[opened][0]


class _RowTooLong(Exception):
    """The lines of one row exceed `MAX_ROW_BYTES`."""


class _RowLines:
    """Feeds decoded lines to the csv module and remembers those of the current row."""

    def __init__(self, lines: Lines, skip: int) -> None:
        self._lines = lines
        self._numbered = iter(lines)
        for _ in range(skip):
            next(self._numbered, None)
        self.pending: list[tuple[int, str]] = []
        """Lines to deliver again, the last one first."""
        self.row: list[tuple[int, str]] = []
        self.row_size = 0
        self.line = 0
        """The number of the line that was delivered last."""
        self.first_line = 0
        """The number of the line on which the current row starts."""
        self.fatal: InputError | None = None
        """The error that ended the input itself, not one row of it."""

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        if self.pending:
            number, text = self.pending.pop()
        else:
            try:
                number, data = next(self._numbered)
            except InputError as error:
                self.fatal = error
                raise
            try:
                text = data.decode(self._lines.codec)
            except UnicodeDecodeError as error:
                raise self._lines.undecodable(error, number) from error
        if not self.row:
            self.first_line = number
        self.line = number
        self.row.append((number, text))
        self.row_size += len(text)
        if self.row_size > MAX_ROW_BYTES:
            raise _RowTooLong
        return text


def _unclosed_quote(lines: Iterable[str], delimiter: str) -> int:
    """Return the index of the line with the quote that is never closed; the last line when all are."""
    opened: int | None = None
    last = 0
    for index, line in enumerate(lines):
        at, last = 0, index
        while at < len(line):
            if opened is None:
                if line[at] == '"':
                    opened, at = index, at + 1
                else:
                    cut = line.find(delimiter, at)
                    at = len(line) if cut < 0 else cut + 1
                continue
            close = line.find('"', at)
            if close < 0:
                break
            if line[close + 1 : close + 2] == '"':
                at = close + 2
            else:
                opened, at = None, close + 2
    return last if opened is None else opened
