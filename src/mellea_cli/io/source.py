"""Source: items from files or a pipe, in any format, read as a stream."""

from __future__ import annotations

import json
import os
import random
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import (
    CHUNK_BYTES,
    ByteInput,
    choose_encoding,
    known_codec,
    open_bytes,
    split_part,
)
from mellea_cli.io.columns import PATH_ROWS, SAMPLE_ROWS, ColumnMapping, folded, listed
from mellea_cli.io.csv_reader import known_delimiter
from mellea_cli.io.formats import (
    DATABASES,
    FORMATS,
    PARTS,
    TEXT_CELLS,
    TEXT_TABLES,
    WORKBOOKS,
    BinaryFormat,
    ColumnType,
    CsvDialect,
    FileInput,
    Note,
    RawRow,
    RowStream,
    TextInput,
    binary_format,
    detect_format,
    format_of_name,
    ignore,
    known_format,
    refuse_binary,
)
from mellea_cli.io.json_reader import is_empty_page, is_page, rows_inside, table_inside
from mellea_cli.items import Item

if TYPE_CHECKING:
    from mellea_cli.io.row_filter import RowFilter

# Regular files up to this size, packed and unpacked, are checked whole before the first item is processed
SURVEY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read an input; `None` means that it is detected.

    Raises:
        UsageError: an option is invalid for every input.
    """

    format: str | None = None  # A name of `FORMATS`
    # The column with the text, or several that are joined; in JSON also a path such as `data.body`
    text_field: str | tuple[str, ...] | None = None
    id_field: str | None = None
    # Any text encoding that Python knows; by default UTF-8, or UTF-16 and UTF-32 by their byte order mark
    encoding: str | None = None
    delimiter: str | None = None  # One character, or a word such as `tab`
    header_row: int | None = None  # The physical line with the header of a table, counted from 1
    skip_rows: int | None = None  # Rows below the header of a table that are no rows
    sheet: str | None = None  # The sheet of a workbook, by name or number from 1; by default the first one with rows
    cells: str | None = None  # The part of a sheet with the table, such as `A3:F200` or `B2`
    query: str | None = None  # The rows of a database: the result of this query instead of a table
    limit: int | None = None  # Take at most this many items, the first ones
    sample: int | None = None  # Take this many items at random, in the order of the input; `limit` then applies to them
    seed: int = 0  # The same seed takes the same sample
    # `auto` fails before the first item when the input can be checked first, else it skips and reports
    on_bad_row: Literal["auto", "fail", "skip"] = "auto"
    where: RowFilter | None = None  # Take only rows that meet this condition; sample and limit then apply to them
    corrected: Callable[[ByteInput, RowStream], RowStream] | None = None  # Puts what people have said into the rows

    def __post_init__(self) -> None:
        if self.format is not None:
            known_format(self.format)
        if self.encoding is not None:
            known_codec(self.encoding)
        if self.delimiter is not None:
            known_delimiter(self.delimiter)
        for name, value in (("--limit", self.limit), ("--sample", self.sample), ("--skip-rows", self.skip_rows)):
            if value is not None and value < 0:
                raise UsageError(f"{name} cannot be negative: {value}")
        if self.header_row is not None and self.header_row < 1:
            raise UsageError(f"--header-row counts lines from 1: {self.header_row}")

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The named columns with the text."""
        named = self.text_field
        return (named,) if isinstance(named, str) else tuple(named or ())


@dataclass(frozen=True, slots=True)
class InputScan:
    """The result of a survey."""

    count: int  # Items that the iteration will yield
    columns: tuple[str, ...]  # Every column that occurs, in the order of its first appearance
    skipped: int  # Bad rows; the iteration will skip them
    longest: int = 0  # Bytes of the longest text in UTF-8
    unselected: int = 0  # Rows that the condition on rows leaves out
    all_items: int = 0  # Items of the input, also those that a sample or a limit leaves out


Report = Callable[[InputError], None]


def open_source(
    path: str | Sequence[str],
    options: SourceOptions | None = None,
    *,
    report: Report = ignore,
    note: Note = ignore,
    stream: BinaryIO | None = None,
) -> Source:
    """Open an input.

    Args:
        path: a file, or `-` for standard input; several files are read one after the other, each row with a column
            that names its file.
        options: how to read it.
        report: called with each bad row that is skipped, in the thread that iterates.
        note: called with what the user should know about the input, such as a renamed column, once each.
        stream: replaces standard input when `path` is `-`.

    Raises:
        InputError: the file cannot be opened.
    """
    paths = [path] if isinstance(path, str) else list(dict.fromkeys(path))
    data = open_bytes(paths[0], stream) if len(paths) == 1 else FileList(paths)
    return Source(data, options or SourceOptions(), report, note)


class FileList:
    """Several files that are read one after the other; only one is open at a time.

    Raises:
        InputError: a file does not exist, is a directory, or is standard input.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: ByteInput | None = None
        self._done = 0  # Bytes of the files that are closed again
        self.stopped = False
        for path in paths:
            if path == "-":
                raise InputError("standard input cannot be one of several inputs", path=path, hint="name it alone")
            file = Path(split_part(path)[0])
            if not file.exists() or file.is_dir():
                open_bytes(path).close()  # says what is wrong

    @property
    def name(self) -> str:
        more = len(self._paths) - 2
        return f"{', '.join(self._paths[:2])} and {more} more" if more > 0 else ", ".join(self._paths)

    @property
    def size(self) -> int | None:
        """Bytes on disk of all files, or `None` when one is not a regular file."""
        states = self._states()
        return sum(one.st_size for one in states) if all(stat.S_ISREG(one.st_mode) for one in states) else None

    def signature(self) -> tuple[object, ...]:
        """Size and time of the last change of each file."""
        return tuple((one.st_size, one.st_mtime_ns) for one in self._states())

    def _states(self) -> list[os.stat_result]:
        try:
            return [Path(split_part(path)[0]).stat() for path in self._paths]
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=str(error.filename or self.name)) from error

    @property
    def delivered(self) -> int:
        return self._done + (self._open.delivered if self._open is not None else 0)

    def inputs(self) -> Iterator[ByteInput]:
        """Yield each file, opened; it is closed when the next one is asked for."""
        self._done = 0
        for path in self._paths:
            if self.stopped:
                return
            self._open = data = open_bytes(path)
            try:
                yield data
            finally:
                self._done += data.delivered
                self._open = None
                data.close()

    def stop(self) -> None:
        self.stopped = True
        if self._open is not None:
            self._open.stop()

    def close(self) -> None:
        """Do nothing: each file is closed after its last row."""


SOURCE_COLUMN = "source"  # The column that names the file of a row, where there are several


class _Unified:
    """The columns of several files under one name each, and what differs between the files."""

    def __init__(self) -> None:
        self.source = SOURCE_COLUMN
        self._names: dict[str, str] = {}  # The spelling that came first, by the folded name
        self._first: tuple[str, set[str]] | None = None

    def renamed(self, header: Iterable[str]) -> dict[str, str]:
        """The columns of a table that another file before it spells otherwise."""
        names = list(header)
        same = {name: self._names.setdefault(folded(name), name) for name in names}
        return {name: first for name, first in same.items() if first != name and first not in names}

    def labelled(self, item: Item, path: str, renamed: Mapping[str, str], id_column: str) -> Item:
        """Add the file's name to an item."""
        fields = {renamed.get(name, name): value for name, value in item.fields.items()}
        while self.source in fields:
            self.source = f"mellea_{self.source}"
        raw = item.raw if not renamed else None
        if raw is not None:
            mark = ", " if fields else ""
            raw = f"{raw[:-1].rstrip()}{mark}{json.dumps(self.source)}: {json.dumps(path, ensure_ascii=False)}}}"
        # Each file counts its ids for itself.
        ident = f"{PurePath(path).name}:{item.id}" if id_column in item.fields else item.id
        return replace(item, id=ident, fields={**fields, self.source: path}, raw=raw)

    def difference(self, path: str, columns: Iterable[str]) -> str:
        """What a file has, and has not, compared with the first one; empty for nothing."""
        here = {folded(name): name for name in columns}
        if self._first is None:
            self._first = path, set(here)
            return ""
        first, there = self._first
        missing = [self._names.get(name, name) for name in sorted(there - here.keys())]
        new = [here[name] for name in here if name not in there]
        parts = [f"has no column {listed(missing)}"] * bool(missing) + [f"has {listed(new)} besides"] * bool(new)
        return f"{path}: {', and '.join(parts)}, compared with {first}" if parts else ""


class Source:
    """Items of one input, in order, read on demand; memory does not grow with the input.

    Iterate it once, in any one thread; call `survey` before, if at all. `stop` may be called from any thread. Close
    the source, or use it in a `with` block, after the iteration. While iterating:

    Raises:
        InputError: the input cannot be read any further, or a row is bad and bad rows are not to be skipped.
    """

    def __init__(self, data: ByteInput | FileList, options: SourceOptions, report: Report, note: Note) -> None:
        self.name = data.name  # The path, or `<stdin>`
        self.skipped = 0  # Bad rows that the iteration has skipped so far
        self._data = data
        self._options = options
        self._report = report
        self._note = note
        self.notes: list[str] = []  # What was said about the input so far
        self.text_columns: tuple[str, ...] = ()  # The columns with the text, once the first row has been read
        self.dialect: CsvDialect | None = None  # How a table is written, once its header has been read; `None` for JSON
        self._unselected = 0  # Rows of the last reading that do not meet the condition
        self.types: dict[str, ColumnType] = {}  # The types of columns, complete after the last row
        self._header: tuple[str, ...] = ()
        self._surveyed: tuple[object, ...] | None = None
        self._unified = _Unified() if isinstance(data, FileList) else None
        checkable = data.size is not None and data.size <= SURVEY_BYTES
        self._fails = options.on_bad_row == "fail" or (options.on_bad_row == "auto" and checkable)

    def survey(self) -> InputScan | None:
        """Read a regular file once to count its items and check every row.

        Returns:
            The result, or `None` when the input is a pipe or too large: then bad rows are skipped and reported unless
            the options say `fail`.

        Raises:
            InputError: a row is bad and bad rows are not to be skipped, or the file cannot be read.
        """
        size = self._data.size
        if size is None or size > SURVEY_BYTES:
            return None
        options = self._options
        signature = self._data.signature()
        bad: list[InputError] = []
        columns: dict[str, None] = {}
        count = longest = 0
        for item in islice(self._read(bad.append), options.limit if options.sample is None else None):
            count += 1
            size = len(item.text)
            longest = max(longest, size if item.text.isascii() else len(item.text.encode("utf-8", "replace")))
            if not item.fields.keys() <= columns.keys():
                columns.update(dict.fromkeys(item.fields))
            if self._data.delivered > SURVEY_BYTES:
                # A small packed file can hold gigabytes.
                self._fails = options.on_bad_row == "fail"
                return None
        if bad and (self._fails or not (count or self._unselected)):
            raise _refusal(bad, usable=count)
        self._surveyed = signature
        all_items = count
        for most in (options.sample, options.limit):
            count = count if most is None else min(count, most)
        return InputScan(count, tuple(columns) or self._header, len(bad), longest, self._unselected, all_items)

    @property
    def repeatable(self) -> bool:
        """Whether it can be read more than once: a regular file can, a pipe cannot."""
        return self._data.size is not None

    def __iter__(self) -> Iterator[Item]:
        return self._items(self._skip)

    def reread(self) -> Iterator[Item]:
        """Yield the items of a repeatable input as the iteration does, but neither count nor report bad rows."""
        return self._items(self._refuse)

    def stop(self) -> None:
        """End the iteration soon, also while it waits for a pipe. Safe from any thread."""
        self._data.stop()

    def close(self) -> None:
        """Close the file. Call it when no thread iterates."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _items(self, on_bad: Report) -> Iterator[Item]:
        """Yield the items that the options select."""
        options = self._options
        if self._changed():
            raise InputError(
                "changed while it was being checked",
                path=self.name,
                hint="run the same command again, or pipe it in: cat FILE | mellea summarise -",
            )
        if options.sample is None:
            yield from islice(self._read(on_bad), options.limit)
        elif options.limit != 0:
            yield from _sample(self._read(on_bad), options.sample, options.seed)[: options.limit]
        if self._changed():
            self._note_once(f"{self.name}: changed while it was being read")

    def _read(self, on_bad: Report) -> Iterator[Item]:  # noqa: C901, PLR0912 - the path of every item, in one piece
        """Yield the items from the start of the input, and pass bad rows to `on_bad`."""
        where, position, self._unselected = self._options.where, 0, 0
        first_bad: InputError | None = None
        unified = self._unified
        for data in self._inputs():
            mapping = ColumnMapping(self._options.text_fields, self._options.id_field, data.name)
            rows: RowStream | None = None
            renamed: Mapping[str, str] = {}
            seen: dict[str, None] = {}
            try:
                rows = self._open_rows(data, mapping)
                if unified is not None:
                    renamed = unified.renamed(rows.header)
                    seen = dict.fromkeys(rows.header)
                for number, row in enumerate(rows.stream, start=1):
                    if data.stopped:
                        return  # it may be half a row
                    try:
                        if isinstance(row, InputError):
                            raise row
                        if where is not None and not where.matches(row[1]):
                            self._unselected += 1
                            continue
                        item = mapping.item(row, position + self._unselected)
                    except InputError as error:
                        bad = _numbered(error, number) if rows.numbered else error
                        first_bad = first_bad or bad
                        on_bad(bad)
                        continue
                    if self._unselected:
                        # Positions have no gaps; a row without an id keeps its number in the input.
                        item = replace(item, position=position)
                    if unified is not None:
                        seen.update(dict.fromkeys(item.fields))
                        item = unified.labelled(item, data.name, renamed, mapping.id_field)
                    yield item
                    position += 1
            except InputError:
                if not data.stopped:  # what was cut off by `stop` is not broken
                    raise
            finally:
                if rows is not None:
                    self._note_types(rows.types, renamed)
                    for sentence in rows.left_out.sentences():
                        self._note_once(f"{data.name}: {sentence}")
            if unified is not None and (difference := unified.difference(data.name, seen)):
                self._note_once(difference)
        if first_bad is not None and not (position or self._unselected) and not self._data.stopped:
            raise first_bad

    def _inputs(self) -> Iterator[ByteInput]:
        if isinstance(self._data, FileList):
            yield from self._data.inputs()
            return
        self._data.rewind()
        yield self._data

    def _open_rows(self, data: ByteInput, mapping: ColumnMapping) -> RowStream:
        rows = open_rows(data, self._options)
        self._header = tuple(dict.fromkeys((*self._header, *rows.header)))
        self.dialect = self.dialect or rows.dialect
        if (
            not (rows.dialect or rows.header or self._options.format)
            and format_of_name(data.packed_name) in TEXT_TABLES
        ):
            self._note_once(f"{data.name}: holds JSON, whatever its name says")
        try:
            rows = with_columns(rows, mapping)
        except InputError as error:
            if not rows.place:
                raise
            hint = f"name the sheet with --sheet; or {error.hint}"
            raise InputError(f"{rows.place}: {error.reason}", path=error.path, line=error.line, hint=hint) from error
        if self._options.corrected is not None:
            rows = self._options.corrected(data, rows)
        if self._options.where is not None:
            rows = self._options.where.checked(rows, data.name)
        for note in (*rows.notes, *mapping.notes):
            self._note_once(note)
        self.text_columns = tuple(dict.fromkeys((*self.text_columns, *mapping.text_fields)))
        self._note_types(rows.types, {})
        return rows

    def _note_types(self, types: Mapping[str, ColumnType], renamed: Mapping[str, str]) -> None:
        for name, found in types.items():
            name = renamed.get(name, name)  # noqa: PLW2901 - the same column
            known = self.types.setdefault(name, found)
            if known != found:
                alike = found.arrow if found.arrow == known.arrow else None
                self.types[name] = ColumnType(known.kinds | found.kinds, known.certain and found.certain, alike)

    def _refuse(self, error: InputError) -> None:
        if self._fails:
            raise _refusal([error], usable=1)

    def _skip(self, error: InputError) -> None:
        self._refuse(error)
        self.skipped += 1
        self._report(error)

    def _changed(self) -> bool:
        return self._surveyed is not None and self._surveyed != self._data.signature()

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
            self._note(note)


def _numbered(error: InputError, number: int) -> InputError:
    # All elements of an array may be on one line, so the line alone does not say which one is bad.
    return InputError(f"item {number}: {error.reason}", path=error.path, line=error.line, hint=error.hint)


def _refusal(bad: list[InputError], *, usable: int) -> InputError:
    """Return the first bad row's error, with the flag that skips such rows when usable ones remain."""
    error = bad[0]
    if usable:
        rows = f"the {len(bad)} bad rows" if len(bad) > 1 else "it"
        remedy = f"skip {rows} with --on-bad-row skip"
        error.hint = f"{error.hint}; or {remedy}" if error.hint else remedy
    return error


def _sample(items: Iterable[Item], size: int, seed: int) -> list[Item]:
    """Take `size` items, each with the same probability, and return them in order (reservoir sampling)."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    kept: list[Item] = []
    for item in items:
        if len(kept) < size:
            kept.append(item)
        elif (place := draw.randrange(item.position + 1)) < size:
            kept[place] = item
    kept.sort(key=lambda item: item.position)
    return [replace(item, position=position) for position, item in enumerate(kept)]


def open_rows(data: ByteInput, options: SourceOptions) -> RowStream:
    """Detect encoding, format and dialect by the first bytes, and start reading.

    Raises:
        InputError: the input is not text, or its first bytes cannot be read.
    """
    chunks = data.chunks()
    head = _head(chunks, _FILE_HEAD if data.size is not None else 0)
    binary = binary_format(head, options.format, data.packed_name)
    _refuse_options(data, options, binary)
    if binary is not None:
        path = data.file(chain((head,), chunks))
        return binary.read_file(FileInput(data.name, path, data.part, options, data.count))
    encoding = choose_encoding(head, options.encoding, data.name)
    refuse_binary(head, encoding, data.name)
    text = head[encoding.mark :].decode(encoding.codec, "replace")
    form = detect_format(text, options.format, data.packed_name)
    if (
        form == "jsonl"
        and options.format is None
        and format_of_name(data.packed_name) != "jsonl"
        and _wraps_rows(text, options)
    ):
        form = "json"
    rest = chain((head[encoding.mark :],), chunks)
    known = FORMATS.require(form)()
    assert not isinstance(known, BinaryFormat)  # noqa: S101 - it would have been recognized above
    rows = known.rows(TextInput(data.name, text, rest, encoding, options))
    if rows.dialect is not None:
        rows = replace(rows, types=dict.fromkeys(rows.header, TEXT_CELLS))
    if rows.dialect is None and (options.header_row is not None or options.skip_rows is not None):
        raise InputError("has no header", path=data.name, hint="omit --header-row and --skip-rows")
    return rows


def first_columns(path: str, options: SourceOptions) -> tuple[str, ...]:
    """The columns of a table, or those of the first row of JSON.

    Raises:
        InputError: the input cannot be read.
    """
    with closing(open_bytes(path)) as data:
        rows = open_rows(data, options)
        row = () if rows.header else next(rows.stream, ())
        return rows.header or (tuple(row[1]) if isinstance(row, tuple) and row else ())


def _is_one_of(binary: BinaryFormat | None, names: Iterable[str]) -> bool:
    return binary is not None and any(type(binary) is FORMATS.require(name) for name in names)


def _refuse_options(data: ByteInput, options: SourceOptions, binary: BinaryFormat | None) -> None:
    """Raise a `UsageError` for an option that is for another format."""
    for value, flag, forms, what in (
        (options.sheet, "--sheet", WORKBOOKS, "workbooks"),
        (options.cells, "--range", WORKBOOKS, "workbooks"),
        (options.query, "--query", DATABASES, "databases"),
    ):
        if value is not None and not _is_one_of(binary, forms):
            raise UsageError(f"{data.name}: {flag} is for {what}", hint=f"omit {flag}")
    in_archive = data.packed_name != data.path
    if data.part and not in_archive and not _is_one_of(binary, (*WORKBOOKS, *DATABASES)):
        raise UsageError(f"{data.name}: has no parts to choose from", hint=f"name the file alone: {data.path}")


def with_columns(rows: RowStream, mapping: ColumnMapping, but: Sequence[str] = ()) -> RowStream:
    """Find the columns of the text, not one of `but`, and of the id, and read as many rows for it as are needed.

    Raises:
        InputError: a named column does not exist, or none is clearly the text.
    """
    named = bool(mapping.text_fields)
    nested = {name for name, known in rows.types.items() if PARTS in known.kinds}
    columns = [name for name in rows.open_ended or rows.header if name not in but and name not in nested]
    if rows.header:
        mapping.check_header(rows.header, rows.header_line, rows.labels)
        if named or mapping.choose(columns, (), rows.header_line, header=True, last=False):
            return rows
    taken: list[RawRow | InputError] = []
    sample: list[Mapping[str, object]] = []
    stream = _with_end(rows.stream)
    last = found = False
    while not (last or found):
        row = next(stream)
        taken.append(row)
        if not isinstance(row, InputError):
            sample.append(row[1])
        last = isinstance(row, _End) or len(taken) >= (PATH_ROWS if named else SAMPLE_ROWS)
        if not rows.header:
            columns = [name for name in dict.fromkeys(key for one in sample for key in one) if name not in but]
        if named:
            found = mapping.find_named(sample, last=last)
        elif columns:
            line = next((one[0] for one in taken if not isinstance(one, InputError)), 1)
            line = rows.header_line if rows.header else line
            found = mapping.choose(columns, sample, line, header=bool(rows.header), last=last)
    return replace(rows, stream=_without_end(chain(taken, stream)))


class _End(InputError):
    """The end of a stream, with the error that ended it."""


def _with_end(stream: Iterator[RawRow | InputError]) -> Iterator[RawRow | InputError]:
    try:
        yield from stream
    except InputError as error:
        yield _End(error.reason, path=error.path, line=error.line, hint=error.hint)
    else:
        yield _End("")


def _without_end(stream: Iterator[RawRow | InputError]) -> Iterator[RawRow | InputError]:
    for row in stream:
        if not isinstance(row, _End):
            yield row
        elif row.reason:
            raise InputError(row.reason, path=row.path, line=row.line, hint=row.hint)


def _wraps_rows(text: str, options: SourceOptions) -> bool:
    start = text.lstrip("\ufeff \t\r\n")
    try:
        value, end = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        # Most often there is a second line, so the first one is a row.
        return len(text) > CHUNK_BYTES and "\n" not in text
    if start[end:].strip():
        return is_page(value, options.text_fields)
    inside = table_inside(value, options.text_fields) or rows_inside(value, options.text_fields)
    return bool(inside) or (isinstance(value, dict) and is_empty_page(value))


_BLANK = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
_FILE_HEAD = 1 << 18
# Surveys have further header rows, which only the rows below them show.
_SURVEY = re.compile(rb"response_?id|respondent id|startdate|importid", re.IGNORECASE)
_SURVEY_LINES = 12


def _head(chunks: Iterator[bytes], at_least: int) -> bytes:
    """Read until the format can be seen: an opening bracket, or the first line that is not blank.

    Args:
        chunks: the input.
        at_least: bytes to read anyway where the input does not have to be waited for.
    """
    head = b""
    for piece in chunks:
        head += piece
        start = head.lstrip(_BLANK)
        ends = start.count(b"\n") or start.count(b"\r")
        may_be_survey = 0 < ends < _SURVEY_LINES and len(head) < CHUNK_BYTES and not start.startswith((b"[", b"{"))
        if may_be_survey and _SURVEY.search(start.replace(b"\0", b"")):
            continue
        # A slow pipe may send an array without any line end, so its bracket has to be enough.
        if len(head) >= at_least and (start.startswith(b"[") or ends or len(head) >= CHUNK_BYTES):
            break
    return head
