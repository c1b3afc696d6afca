"""Source: items from a file or a pipe of JSONL, JSON, CSV or TSV, read as a stream."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import (
    CHUNK_BYTES,
    ByteInput,
    choose_encoding,
    known_codec,
    open_bytes,
)
from mellea_cli.io.columns import PATH_ROWS, SAMPLE_ROWS, ColumnMapping
from mellea_cli.io.csv_reader import known_delimiter
from mellea_cli.io.formats import (
    FORMATS,
    CsvDialect,
    Note,
    RawRow,
    RowStream,
    TextInput,
    detect_format,
    format_of_name,
    ignore,
    known_format,
    refuse_binary,
)
from mellea_cli.io.json_reader import is_page, rows_inside
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
    limit: int | None = None  # Take at most this many items, the first ones
    sample: int | None = None  # Take this many items at random, in the order of the input; `limit` then applies to them
    seed: int = 0  # The same seed takes the same sample
    # `auto` fails before the first item when the input can be checked first, else it skips and reports
    on_bad_row: Literal["auto", "fail", "skip"] = "auto"
    where: RowFilter | None = None  # Take only rows that meet this condition; sample and limit then apply to them

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


Report = Callable[[InputError], None]


def open_source(
    path: str,
    options: SourceOptions | None = None,
    *,
    report: Report = ignore,
    note: Note = ignore,
    stream: BinaryIO | None = None,
) -> Source:
    """Open an input.

    Args:
        path: a file, or `-` for standard input.
        options: how to read it.
        report: called with each bad row that is skipped, in the thread that iterates.
        note: called with what the user should know about the input, such as a renamed column, once each.
        stream: replaces standard input when `path` is `-`.

    Raises:
        InputError: the file cannot be opened.
    """
    return Source(open_bytes(path, stream), options or SourceOptions(), report, note)


class Source:
    """Items of one input, in order, read on demand; memory does not grow with the input.

    Iterate it once, in any one thread; call `survey` before, if at all. `stop` may be called from any thread. Close
    the source, or use it in a `with` block, after the iteration. While iterating:

    Raises:
        InputError: the input cannot be read any further, or a row is bad and bad rows are not to be skipped.
    """

    def __init__(self, data: ByteInput, options: SourceOptions, report: Report, note: Note) -> None:
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
        self._header: tuple[str, ...] = ()
        self._surveyed: tuple[int, int] | None = None
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
        for most in (options.sample, options.limit):
            count = count if most is None else min(count, most)
        return InputScan(count, tuple(columns) or self._header, len(bad), longest, self._unselected)

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

    def _read(self, on_bad: Report) -> Iterator[Item]:
        """Yield the items from the start of the input, and pass bad rows to `on_bad`."""
        data = self._data
        data.rewind()
        mapping = ColumnMapping(self._options.text_fields, self._options.id_field, self.name)
        where, position, self._unselected = self._options.where, 0, 0
        first_bad: InputError | None = None
        rows: RowStream | None = None
        try:
            rows = self._open_rows(mapping)
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
                # Positions have no gaps; a row without an id keeps its number in the input.
                yield replace(item, position=position) if self._unselected else item
                position += 1
        except InputError:
            if not data.stopped:  # what was cut off by `stop` is not broken
                raise
        finally:
            for sentence in rows.left_out.sentences() if rows is not None else ():
                self._note_once(f"{self.name}: {sentence}")
        if first_bad is not None and not (position or self._unselected) and not data.stopped:
            raise first_bad

    def _open_rows(self, mapping: ColumnMapping) -> RowStream:
        rows = open_rows(self._data, self._options)
        self._header, self.dialect = rows.header, rows.dialect
        rows = with_columns(rows, mapping)
        if self._options.where is not None:
            rows = self._options.where.checked(rows, self.name)
        for note in (*rows.notes, *mapping.notes):
            self._note_once(note)
        self.text_columns = mapping.text_fields
        return rows

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
    encoding = choose_encoding(head, options.encoding, data.name)
    refuse_binary(head, encoding, data.name)
    text = head[encoding.mark :].decode(encoding.codec, "replace")
    form = detect_format(text, options.format, data.name)
    if (
        form == "jsonl"
        and options.format is None
        and format_of_name(data.name) != "jsonl"
        and _wraps_rows(text, options)
    ):
        form = "json"
    rest = chain((head[encoding.mark :],), chunks)
    rows = FORMATS.require(form)().rows(TextInput(data.name, text, rest, encoding, options))
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


def with_columns(rows: RowStream, mapping: ColumnMapping, but: Sequence[str] = ()) -> RowStream:
    """Find the columns of the text and the id, and read as many rows for it as are needed.

    Args:
        rows: the rows.
        mapping: finds the columns.
        but: columns that do not hold the text.

    Raises:
        InputError: a named column does not exist, or none is clearly the text.
    """
    named = bool(mapping.text_fields)
    columns = [name for name in rows.open_ended or rows.header if name not in but]
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
    return bool(rows_inside(value, options.text_fields))


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
