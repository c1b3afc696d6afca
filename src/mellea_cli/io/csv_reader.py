"""Rows of a CSV or TSV file, with a reason for each row that is none.

The rules, where the format leaves a choice:

- Quotes follow RFC 4180: a field that begins with `"` ends with `"`, and a quote inside it is doubled.
- A row with fewer cells than the header is bad. One with more is bad too, unless the extra cells are empty.
- Blank lines do not count. An unnamed column is called `column_N`, a repeated name gets `_2`, `_3` and so on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from mellea_cli.errors import InputError
from mellea_cli.io.byte_input import MAX_ROW_BYTES, Lines, too_long
from mellea_cli.io.json_reader import RawRow


class CsvReader:
    """Reads the header at once and the rows as they are asked for.

    Args:
        lines: the physical lines.
        delimiter: one character.
        skip: lines above the header that are no part of the table.

    Raises:
        InputError: the header cannot be read.
    """

    def __init__(self, lines: Lines, delimiter: str, *, skip: int = 0) -> None:
        # The limit is the csv module's own global: raised, never lowered, so that it harms nobody else.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ROW_BYTES))
        self._feed = _Feed(lines, skip)
        self._path = lines.path
        self._delimiter = delimiter
        self._rows = csv.reader(self._feed, delimiter=delimiter, strict=True)
        self.notes: list[str] = []
        """What was done to the header, in sentences for a person."""
        self.columns: tuple[str, ...] = self._read_header()
        """The names of the columns, each once; empty for an empty file."""
        self.header_line = self._feed.first_line

    def rows(self) -> Iterator[RawRow | InputError]:
        """Yield the rows in order; a bad row is yielded as the error that it is."""
        columns = self.columns
        width = len(columns)
        feed = self._feed
        while True:
            row = self._next_row()
            if row is None:
                return
            if isinstance(row, InputError):
                yield row
            elif len(row) == width or (len(row) > width and not any(row[width:])):
                yield feed.first_line, dict(zip(columns, row, strict=False)), None
            elif row:
                yield self._ragged(len(row))

    def _next_row(self) -> list[str] | InputError | None:
        """Return the next row, `[]` for a blank line, an error for a bad row, `None` at the end."""
        feed = self._feed
        feed.start_row()
        try:
            return next(self._rows, None)
        except InputError as error:
            if error is feed.fatal:
                raise
            return error
        except csv.Error as error:
            return self._misquoted(error)
        except _RowTooLong:
            opened = self._recover()
            return too_long(self._path, opened, "a quote that is opened in this line is perhaps never closed")

    def _read_header(self) -> tuple[str, ...]:
        while (row := self._next_row()) is not None:
            if isinstance(row, InputError):
                raise row
            if any(cell.strip("\ufeff \t") for cell in row):
                return self._unique([cell.strip("\ufeff \t") for cell in row])
        return ()

    def _unique(self, names: list[str]) -> tuple[str, ...]:
        taken: dict[str, None] = {}
        given = set(names)
        for position, name in enumerate(names, start=1):
            new = base = name or f"column_{position}"
            number = 2
            while new in taken or (new != name and new in given):
                new = f"{base}_{number}"
                number += 1
            if name and new != name:
                self.notes.append(f"{self._path}: column {position} repeats the name {name!r} and is called {new!r}")
            elif not name and position < len(names):
                self.notes.append(f"{self._path}: column {position} has no name and is called {new!r}")
            taken[new] = None
        return tuple(taken)

    def _ragged(self, cells: int) -> InputError:
        width = len(self.columns)
        advice = "text with separators or line breaks must be in quotes" if width > 1 else "is --delimiter right?"
        counts = f"{_cells(cells)} where the header has {width}"
        return InputError(counts, path=self._path, line=self._feed.first_line, hint=advice)

    def _misquoted(self, error: csv.Error) -> InputError:
        if "unexpected end" in str(error):
            line = self._recover()
            hint = 'close it, or double it ("") when it belongs to the text'
            return InputError("a quote that is opened here is never closed", path=self._path, line=line, hint=hint)
        line = self._feed.line
        if "expected after" in str(error):
            hint = 'inside quotes, a quote is written twice ("")'
            return InputError("text after a closing quote", path=self._path, line=line, hint=hint)
        return InputError(f"broken CSV: {error}", path=self._path, line=line)

    def _recover(self) -> int:
        """Return the line with the quote that stayed open, and go on reading below it."""
        offset = _open_quote(self._feed.row_lines, self._delimiter)
        return self._feed.read_again_after(offset)


class _RowTooLong(Exception):
    """The lines of one row hold more than `MAX_ROW_BYTES`."""


class _Feed:
    """Executor decoded lines to the csv module and remembers those of the current row."""

    def __init__(self, lines: Lines, skip: int) -> None:
        self._lines = lines
        self._numbered = iter(lines)
        for _ in range(skip):
            next(self._numbered, None)
        self._again: list[tuple[int, str]] = []
        self.line = 0
        """The physical line that was handed out last."""
        self.first_line = 0
        """The physical line on which the current row starts."""
        self.row_lines: list[str] = []
        self.fatal: InputError | None = None
        """The error that ended the input itself, not one row of it."""
        self._numbers: list[int] = []
        self._size = 0

    def start_row(self) -> None:
        """Forget the lines of the row before."""
        if self.row_lines:
            self.row_lines.clear()
            self._numbers.clear()
            self._size = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self._again:
            number, text = self._again.pop()
        else:
            number, text = self._next_line()
        if not self.row_lines:
            self.first_line = number
        self.line = number
        self.row_lines.append(text)
        self._numbers.append(number)
        self._size += len(text)
        if self._size > MAX_ROW_BYTES:
            raise _RowTooLong
        return text

    def _next_line(self) -> tuple[int, str]:
        try:
            number, raw = next(self._numbered)
        except InputError as error:
            self.fatal = error
            raise
        if not self.row_lines:
            self.first_line = number
        return number, self._lines.decode(number, raw)

    def read_again_after(self, offset: int) -> int:
        """Put the row's lines after the one at `offset` back, and return that one's number."""
        rest = list(zip(self._numbers, self.row_lines, strict=True))[offset + 1 :]
        self._again.extend(reversed(rest))
        return self._numbers[offset]


def _open_quote(lines: Iterable[str], delimiter: str) -> int:
    """Find the quote that is opened and not closed: the index of its line."""
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


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
