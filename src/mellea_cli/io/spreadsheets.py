"""Workbooks: a sheet of an Excel or OpenDocument file as a table, and rows as an Excel sheet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from mellea_cli.errors import InputError, UsageError, name_some, nearest
from mellea_cli.extensions import extra_module
from mellea_cli.io.columns import ColumnMapping, find_text, folded, plain_value, same_names, seconds_of_text
from mellea_cli.io.csv_reader import TableOptions, TableReader, find_sheet_layout
from mellea_cli.io.formats import BinaryFormat, ColumnType, CsvDialect, FileInput, LeftOut, RawRow, RowOutput, RowStream
from mellea_cli.io.writers import TypedTable, cell_text, text_shape

SHEET = "Feedback"  # The sheet that is written
MOST_ROWS = 1_048_575  # Below the header
MOST_COLUMNS = 16_384
MOST_CHARS = 32_767  # In a cell
_SAMPLE = 200


class XlsxFormat(BinaryFormat):
    """An Excel workbook; reading takes every kind of workbook by its content."""

    def read_file(self, source: FileInput) -> RowStream:
        calamine = extra_module("python_calamine", "workbooks")
        # A sheet that was read is in memory, and needs the file no longer.
        with _open_workbook(source.path, source.name) as book:
            every = [sheet for sheet in book.sheets_metadata if sheet.typ == calamine.SheetTypeEnum.WorkSheet]
            names = [sheet.name for sheet in every]
            visible = [sheet.name for sheet in every if sheet.visible == calamine.SheetVisibleEnum.Visible]
            if wanted := source.options.sheet or source.part:
                return _table(source, book.get_sheet_by_name(_named_sheet(wanted, names, source.name)), [])
            sheets = map(book.get_sheet_by_name, visible or names)
            filled = (one for one in sheets if one.start is not None)
            sheet = next(filled, None)
            if sheet is None:
                raise InputError("has no sheet with rows", path=source.name)
            why = ""
            # The first sheet may be a cover, a legend or a pivot.
            if len(visible) > 1 and not _has_text(source, sheet):
                with_text = [other for other in filled if _has_text(source, other)]
                if len(with_text) == 1:
                    sheet, why = with_text[0], ", the only one with a column that looks like the text"
        others = name_some([repr(other) for other in visible if other != sheet.name])
        if not others:
            return _table(source, sheet, [])
        note = f"{source.name}: the sheet is {sheet.name!r}{why}; not read: {others}"
        return replace(_table(source, sheet, [note]), place=f"sheet {sheet.name!r} (other sheets: {others})")

    def other_parts(self, path: str, name: str) -> list[str]:
        with _open_workbook(path, name) as book:
            return [f"sheet {sheet.name!r}" for sheet in book.sheets_metadata if sheet.name != SHEET]

    def layout(self, output: RowOutput) -> Worksheet:
        return Worksheet(output)


class OdsFormat(XlsxFormat):
    """An OpenDocument spreadsheet, which is only read."""

    def layout(self, output: RowOutput) -> Worksheet:  # noqa: ARG002 - the protocol's
        raise UsageError(
            "rows cannot be written as .ods", hint="name the output .xlsx, which every office program opens"
        )


# A CSV file made from a workbook goes to a spreadsheet again, which needs the mark to read it as UTF-8.
_DIALECT = CsvDialect(mark=True)


# Reading.


@contextmanager
def _open_workbook(path: str, name: str) -> Iterator[Any]:
    calamine = extra_module("python_calamine", "workbooks")
    try:
        # By its content: a temporary file has no suffix.
        with Path(path).open("rb") as file, calamine.CalamineWorkbook.from_filelike(file) as book:
            yield book
    except calamine.PasswordError as error:
        hint = "open it in the spreadsheet program and save it without a password"
        raise InputError("is a workbook with a password", path=name, hint=hint) from error
    except (calamine.CalamineError, OSError) as error:
        raise InputError(f"cannot be read as a workbook: {_reason(error)}", path=name, hint=_OPEN) from error


_OPEN = "check that the spreadsheet program opens it, and save it there again"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _table(source: FileInput, sheet: Any, notes: list[str]) -> RowStream:
    options = source.options
    numbered = _numbered_rows(sheet, _Range.of(options.cells))
    sample = list(islice(numbered(), _SAMPLE))
    names = tuple(name for name in (*options.text_fields, options.id_field) if name)
    rows = [(number, [str(cell) for cell in cells]) for number, cells in sample if any(cells)]
    if not rows:
        return RowStream(iter(()), notes=notes, dialect=_DIALECT)
    if options.header_row is not None and options.header_row > rows[-1][0] and len(sample) < _SAMPLE:
        raise InputError(f"has no row {options.header_row}", path=source.name, hint="correct --header-row")
    layout = find_sheet_layout(
        rows, TableOptions(names=names, header_row=options.header_row, skip_rows=options.skip_rows)
    )
    parser = _SheetParser(numbered(), layout.header_line)
    reader = TableReader(parser, layout, source.name, skip_rows=options.skip_rows)
    parser.left_out = reader.left_out
    types: dict[str, ColumnType] = {}
    return RowStream(
        _values(reader.rows(), types),
        reader.columns,
        reader.header_line,
        [*notes, *reader.notes],
        labels=reader.labels,
        open_ended=reader.open_ended,
        left_out=reader.left_out,
        dialect=_DIALECT,
        types=types,
    )


def _has_text(source: FileInput, sheet: Any) -> bool:
    """Whether a sheet has the named columns, else one or several that look like the text."""
    named = source.options.text_fields
    try:
        rows = _table(source, sheet, [])
        if named:
            return all(same_names(name, rows.header) or folded(name) in rows.labels for name in named)
        sample = [row[1] for row in islice(rows.stream, _SAMPLE) if not isinstance(row, InputError)]
    except InputError:
        return False
    columns = list(rows.open_ended or rows.header)
    try:
        return bool(columns) and ColumnMapping((), None, "").choose(columns, sample, 1, header=True)
    except InputError:
        return len(find_text(columns, sample) or ()) > 1


def _named_sheet(wanted: str, names: list[str], path: str) -> str:
    if wanted in names:
        return wanted
    same = [name for name in names if name.casefold() == wanted.casefold()]
    if len(same) == 1:
        return same[0]
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return names[int(wanted) - 1]
    near = nearest(wanted, names)
    hint = f"did you mean --sheet {near!r}?" if near else f"name one of {name_some(map(repr, names))}"
    raise InputError(f"has no sheet {wanted!r}", path=path, hint=hint)


class _Range:
    """A part of a sheet, such as `A3:F200`, `A:F` or `B2`, which goes on to the end."""

    _FORM = re.compile(
        r"\$?([A-Z]{1,3})?\$?([1-9]\d{0,6})?(?::(?!$)\$?([A-Z]{1,3})?\$?([1-9]\d{0,6})?)?", re.IGNORECASE
    )

    def __init__(self, left: int = 0, top: int = 1, right: int | None = None, bottom: int | None = None) -> None:
        self.left, self.top, self.right, self.bottom = left, top, right, bottom

    @classmethod
    def of(cls, text: str | None) -> _Range:
        """Parse `--range`.

        Raises:
            UsageError: it cannot be read.
        """
        if text is None:
            return cls()
        found = cls._FORM.fullmatch(text.strip())
        if found is None or not any(found.groups()):
            raise UsageError(f"--range {text}: is not a part of a sheet", hint="write it as A3:F200, A:F or B2")
        left, top, right, bottom = found.groups()
        part = cls(
            _column(left) if left else 0,
            int(top or 1),
            _column(right) + 1 if right else None,
            int(bottom) if bottom else None,
        )
        if (part.right is not None and part.right <= part.left) or (part.bottom is not None and part.bottom < part.top):
            raise UsageError(f"--range {text}: ends before it begins", hint="write it as A3:F200")
        return part


def _column(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


class _Cell(str):
    """The text of a cell that holds something else, with its value, and the kind of a date or a time."""

    __slots__ = ("kind", "value")
    kind: str
    value: Any


def _cell(value: Any) -> str:
    if value.__class__ is str:
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    plain = plain_value(value)
    cell = _Cell(plain if isinstance(plain, str) else str(plain).lower() if isinstance(plain, bool) else plain)
    cell.value = plain
    kinds = ((datetime, "datetime"), (date, "date"), (time, "time"), (timedelta, "duration"))
    cell.kind = next((kind for one, kind in kinds if isinstance(value, one)), "")
    return cell


def _numbered_rows(sheet: Any, part: _Range) -> Callable[[], Iterator[tuple[int, list[str]]]]:
    """The rows of a part of a sheet with their numbers, as often as needed."""
    start = sheet.start[1] if sheet.start is not None else 0
    left = max(0, part.left - start)
    right = None if part.right is None else max(0, part.right - start)

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, cells in enumerate(sheet.iter_rows(), start=1):
            if part.bottom is not None and number > part.bottom:
                return
            if number >= part.top:
                yield number, [_cell(value) for value in cells[left:right]]

    return rows


class _SheetParser:
    """Yields the rows of a sheet to the reader of tables, and leaves out what stands below the table.

    Args:
        rows: the rows with their numbers.
        first: the number of the row with the header.
    """

    def __init__(self, rows: Iterator[tuple[int, list[str]]], first: int) -> None:
        self.lines = self
        self.first_line = 0
        self.row: list[tuple[int, str]] = []  # A sheet has no lines of text
        self.left_out = LeftOut()
        self._rows = self._without_footer((number, cells) for number, cells in rows if number >= first)

    def next_row(self) -> list[str] | InputError | None:
        self.first_line, row = next(self._rows, (self.first_line, None))
        return row

    def _without_footer(self, rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
        """The rows, blank ones as `[]`, without lines of one cell after the last blank row."""
        blank = False
        last: list[tuple[int, list[str]]] = []
        for number, cells in rows:
            if not any(cells):
                blank = True
                continue
            if (blank or last) and len(cells) > 1 and cells[0] and not any(cells[1:]):
                last.append((number, cells))
                continue
            if blank:
                yield number, []
            yield from last
            last.clear()
            blank = False
            yield number, cells
        if last:
            self.left_out.add("line below the rows", *(number for number, _ in last))


def _values(rows: Iterable[RawRow | InputError], types: dict[str, ColumnType]) -> Iterator[RawRow | InputError]:
    """Put the values of cells in the place of their text, and note which columns have dates and times."""
    for row in rows:
        if isinstance(row, InputError):
            yield row
            continue
        line, fields, raw = row
        for name, cell in fields.items():
            if cell.__class__ is _Cell:
                fields[name] = cell.value
                if cell.kind and cell.kind not in (known := types.get(name, ColumnType())).kinds:
                    types[name] = ColumnType(known.kinds | {cell.kind})
            elif not cell:
                fields[name] = None
        yield line, fields, raw


# Writing.

_FIRST_DAY = date(1900, 3, 1)  # Excel takes 1900 for a leap year: dates before this one are ambiguous
_MOST_DIGITS = 15
_WIDEST, _NARROWEST = 60, 8
_NO_CHARACTERS = re.compile("[\ufffe\uffff]")


class Worksheet(TypedTable):
    """An Excel sheet: a header that stays in view, filters, wrapped text, widths that fit; never a formula."""

    kind = "an Excel sheet"
    most_rows = MOST_ROWS
    most_columns = MOST_COLUMNS

    def __init__(self, output: RowOutput) -> None:
        self._excel = extra_module("xlsxwriter", "Excel workbooks")
        super().__init__(output, joined=True)
        self._cut = 0
        self._zoned: set[str] = set()

    def write(self, lines: Callable[[], Iterable[bytes]], file: IO[bytes]) -> None:
        # Each row goes to a temporary file at once, so memory stays flat. Excel's own tables need all rows in memory.
        # The library closes and deletes these files only where all goes well.
        with TemporaryDirectory(prefix="mellea-", ignore_cleanup_errors=True) as folder:
            options = {"constant_memory": True, "strings_to_numbers": False, "tmpdir": folder}
            book = self._excel.Workbook(file, options)
            sheet = book.add_worksheet(SHEET)
            with closing(sheet.row_data_fh):
                self._write_sheet(book, sheet, lines)
                book.close()

    def _write_sheet(self, book: Any, sheet: Any, lines: Callable[[], Iterable[bytes]]) -> None:
        columns = self.columns()
        head = book.add_format({"bold": True, "text_wrap": True, "valign": "top", "bg_color": "#E8EEF4", "bottom": 1})
        self._formats = {
            kind: book.add_format({"valign": "top", **look})
            for kind, look in (
                ("text", {"text_wrap": True}),
                ("plain", {}),
                ("date", {"num_format": "yyyy-mm-dd"}),
                ("datetime", {"num_format": "yyyy-mm-dd hh:mm:ss"}),
                ("time", {"num_format": "hh:mm:ss"}),
                ("duration", {"num_format": "[h]:mm:ss"}),
            )
        }
        rows = self.cells(lines())
        first = list(islice(rows, _SAMPLE))
        for at, (name, _, _) in enumerate(columns):
            sheet.set_column(at, at, _width(name, [row[at] for row in first]))
            sheet.write_string(0, at, _sheet_text(name)[:MOST_CHARS], head)
        sheet.freeze_panes(1, 0)
        number = 0
        for number, row in enumerate(chain(first, rows), start=1):
            for at, (cell, (name, kind, known)) in enumerate(zip(row, columns, strict=True)):
                self._write_cell(sheet, number, at, cell, name, kind, known)
        if columns:
            sheet.autofilter(0, 0, number, len(columns) - 1)
        for name in sorted(self._zoned):
            self._note(f"column {name!r}: a workbook has no time zones, so the times are written without theirs")
        if self._cut:
            cells = f"{self._cut:,} cell{'s' * (self._cut > 1)}"
            self._note(f"{cells} longer than {MOST_CHARS:,} characters cut; a Parquet or JSONL file keeps them whole")

    def _write_cell(self, sheet: Any, row: int, at: int, cell: Any, name: str, kind: str, known: ColumnType) -> None:
        formats = self._formats
        if cell is None or cell == "":
            return
        if isinstance(cell, bool):
            sheet.write_boolean(row, at, cell, formats["plain"])
        elif isinstance(cell, int | float) and len(str(abs(cell)).replace(".", "")) <= _MOST_DIGITS + 2:
            if isinstance(cell, int) and abs(cell) >= 10**_MOST_DIGITS:
                sheet.write_string(row, at, str(cell), formats["plain"])
            else:
                sheet.write_number(row, at, cell, formats["plain"])
        else:
            text = cell_text(cell)
            shape = text_shape(text) if known.kinds and isinstance(cell, str) else "text"
            number = shape in ("int", "float")
            if shape == "time" and "time" not in known.kinds:
                shape = "duration"
            meant = ("number" if number else shape) in known.kinds and (
                known.certain or kind == shape or kind in ("datetime", "float")
            )
            if not (meant and self._write_typed(sheet, row, at, text, shape, name)):
                if len(text) > MOST_CHARS:
                    self._cut += 1
                sheet.write_string(row, at, _sheet_text(text)[:MOST_CHARS], formats["text"])

    def _write_typed(self, sheet: Any, row: int, at: int, text: str, shape: str, name: str) -> bool:
        """Write a text as what it stands for; `False` where a sheet cannot hold that."""
        form = self._formats.get(shape, self._formats["plain"])
        if shape in ("int", "float"):
            sheet.write_number(row, at, float(text), form)
        elif shape == "duration":
            sheet.write_number(row, at, seconds_of_text(text) / 86_400, form)
        elif shape == "time":
            value = time.fromisoformat(text)
            if value.microsecond % 1000:
                return False
            sheet.write_datetime(row, at, value, form)
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                self._zoned.add(name)
            moment = moment.replace(tzinfo=None, microsecond=moment.microsecond // 1000 * 1000)
            if moment.date() < _FIRST_DAY:
                return False
            sheet.write_datetime(row, at, moment, form)
        return True


def _sheet_text(text: str) -> str:
    """A text without the two code points that are no characters, which XML cannot hold in any form."""
    return _NO_CHARACTERS.sub("\ufffd", text)


def _width(name: str, cells: list[Any]) -> float:
    longest = max((len(cell_text(cell)) for cell in (name, *cells) if cell is not None), default=0)
    return max(_NARROWEST, min(_WIDEST, longest + 3))
