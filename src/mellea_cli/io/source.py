"""Source: items from a file or a pipe of JSONL, JSON, CSV or TSV, read as a stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain, islice
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from mellea_cli.errors import InputError, UsageError, nearest
from mellea_cli.io.byte_input import (
    CHUNK_BYTES,
    ByteInput,
    choose_encoding,
    known_codec,
    open_bytes,
    without_surrogates,
)
from mellea_cli.io.csv_reader import CsvReader, known_delimiter, sniff_delimiter, stated_delimiter
from mellea_cli.io.formats import (
    FORMATS,
    Note,
    RawRow,
    RowStream,
    TextInput,
    detect_format,
    ignore,
    known_format,
    refuse_binary,
)
from mellea_cli.items import Item

SURVEY_BYTES = 64 << 20
"""Regular files up to this size, packed and unpacked, are checked whole before the first item is processed."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read an input; `None` means that it is detected.

    Raises:
        UsageError: an option is invalid for every input.
    """

    format: str | None = None
    """A name of `FORMATS`."""
    text_field: str | None = None
    id_field: str | None = None
    encoding: str | None = None
    """Any text encoding that Python knows; by default UTF-8, or UTF-16 and UTF-32 by their byte order mark."""
    delimiter: str | None = None
    """One character, or a word such as `tab`."""
    limit: int | None = None
    """Take at most this many items, the first ones."""
    sample: int | None = None
    """Take this many items at random, in the order of the input; `limit` then applies to them."""
    seed: int = 0
    """The same seed takes the same sample."""
    on_bad_row: Literal["auto", "fail", "skip"] = "auto"
    """`auto` fails before the first item when the input can be checked first, else it skips and reports."""

    def __post_init__(self) -> None:
        if self.format is not None:
            known_format(self.format)
        if self.encoding is not None:
            known_codec(self.encoding)
        if self.delimiter is not None:
            known_delimiter(self.delimiter)
        for name, value in (("--limit", self.limit), ("--sample", self.sample)):
            if value is not None and value < 0:
                raise UsageError(f"{name} cannot be negative: {value}")


@dataclass(frozen=True, slots=True)
class InputScan:
    """The result of a survey."""

    count: int
    """Items that the iteration will yield."""
    columns: tuple[str, ...]
    """Every column that occurs, in the order of its first appearance."""
    skipped: int
    """Bad rows; the iteration will skip them."""
    longest: int = 0
    """Bytes of the longest text in UTF-8."""


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
        self.name = data.name
        """The path, or `<stdin>`."""
        self.skipped = 0
        """Bad rows that the iteration has skipped so far."""
        self._data = data
        self._options = options
        self._report = report
        self._note = note
        self._noted: set[str] = set()
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
        if bad and (self._fails or not count):
            raise _refusal(bad, usable=count)
        self._surveyed = signature
        for most in (options.sample, options.limit):
            count = count if most is None else min(count, most)
        return InputScan(count, tuple(columns) or self._header, len(bad), longest)

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
        mapping = ColumnMapping(self._options.text_field, self._options.id_field, self.name)
        position = 0
        first_bad: InputError | None = None
        try:
            rows = self._open_rows(mapping)
            for number, row in enumerate(rows.stream, start=1):
                if data.stopped:
                    return  # it may be half a row
                try:
                    if isinstance(row, InputError):
                        raise row
                    item = mapping.item(row, position)
                except InputError as error:
                    if mapping.text_field is None and row is not error:
                        raise  # the text column is not named, and the first row has none that looks like it
                    bad = _numbered(error, number) if rows.numbered else error
                    first_bad = first_bad or bad
                    on_bad(bad)
                    continue
                yield item
                position += 1
        except InputError:
            if not data.stopped:  # what was cut off by `stop` is not broken
                raise
        if first_bad is not None and not position and not data.stopped:
            raise first_bad

    def _open_rows(self, mapping: ColumnMapping) -> RowStream:
        rows = open_rows(self._data, self._options)
        for note in rows.notes:
            self._note_once(note)
        self._header = rows.header
        if rows.header:
            mapping.check_header(rows.header, rows.header_line)
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
        if note not in self._noted:
            self._noted.add(note)
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
    """Detect encoding, format and delimiter by the first bytes, and start reading.

    Raises:
        InputError: the input is not text, or its first bytes cannot be read.
    """
    chunks = data.chunks()
    head = _head(chunks)
    encoding = choose_encoding(head, options.encoding, data.name)
    refuse_binary(head, encoding, data.name)
    text = head[encoding.mark :].decode(encoding.codec, "replace")
    form = detect_format(text, options.format, data.name)
    rest = chain((head[encoding.mark :],), chunks)
    return FORMATS.require(form)().rows(TextInput(data.name, text, rest, encoding, options))


def open_table(source: TextInput, delimiter: str | None) -> RowStream:
    """Find the delimiter of a table, unless it is known, and read the header."""
    stated = stated_delimiter("".join(_physical_lines(source.head)[:1]))
    delimiter = _delimiter(source.head, delimiter, source.options, stated)
    reader = CsvReader(source.lines(), delimiter, skip=0 if stated is None else 1)
    return RowStream(reader.rows(), reader.columns, reader.header_line, tuple(reader.notes))


_BLANK = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"


def _head(chunks: Iterator[bytes]) -> bytes:
    """Read until the format can be seen: an opening bracket, or the first line that is not blank."""
    head = b""
    for piece in chunks:
        head += piece
        start = head.lstrip(_BLANK)
        # A slow pipe may send an array without any line end, so its bracket has to be enough.
        if start.startswith(b"[") or b"\n" in start or b"\r" in start or len(head) >= CHUNK_BYTES:
            break
    return head


def _delimiter(text: str, known: str | None, options: SourceOptions, stated: str | None) -> str:
    if options.delimiter is not None:
        return known_delimiter(options.delimiter)
    if known is not None:
        return known
    if stated is not None:
        return stated
    lines = _physical_lines(text.lstrip("\ufeff\r\n"))
    if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")):
        lines.pop()  # the head may end inside a line
    wanted = {name.strip().lower() for name in (options.text_field, options.id_field) if name}
    return sniff_delimiter(lines, wanted or {*TEXT_COLUMNS})


def _physical_lines(text: str) -> list[str]:
    # `str.splitlines` would also split at U+2028 and the like.
    return list(StringIO(text, newline=""))


TEXT_COLUMNS = ("text", "feedback", "comment", "review", "body", "message", "content")
"""The columns that are tried, in this order, when the user names none."""
ID_COLUMN = "id"
_ID_TYPES = (str, int, float)  # not bool
_SHOWN_COLUMNS = 12
_SHOWN_LENGTH = 40


class ColumnMapping:
    """Maps the columns of raw rows to the text and the id of items.

    Args:
        text_field: the column with the text, or `None` to find it.
        id_field: the column with the id, or `None` for `id` where there is one.
        path: the input's name in messages.
    """

    def __init__(self, text_field: str | None, id_field: str | None, path: str) -> None:
        self.text_field = text_field
        """The column with the text; `None` until it is found in the header or the first row."""
        self._id_field = ID_COLUMN if id_field is None else id_field
        self._id_required = id_field is not None
        self._path = path

    def check_header(self, columns: tuple[str, ...], line: int) -> None:
        """Find the columns in the header of a table.

        Raises:
            InputError: a named column does not exist, or none looks like the text.
        """
        if self.text_field is None:
            self.text_field = self._find_text(dict.fromkeys(columns), line)
        elif self.text_field not in columns:
            raise self._missing(self.text_field, "--text-field", columns, line)
        if self._id_required and self._id_field not in columns:
            raise self._missing(self._id_field, "--id-field", columns, line)

    def item(self, row: RawRow, position: int) -> Item:
        """Return the item of a row; an item without an id gets its 1-based position.

        Raises:
            InputError: the text is missing, or is an object or an array.
        """
        line, fields, raw = row
        name = self.text_field
        if name is None:
            name = self.text_field = self._find_text(fields, line)
        text = fields.get(name)
        if text.__class__ is not str:
            text = self._as_text(name, row)
        elif not text.isascii():
            text = without_surrogates(text)
        ident = fields.get(self._id_field)
        if ident.__class__ not in _ID_TYPES or ident == "":
            if self._id_required:
                raise self._no_id(fields, line)
            ident = position + 1
        return Item(position, ident, text, fields, line, raw)

    def _as_text(self, name: str, row: RawRow) -> str:
        line, fields, _ = row
        if name not in fields:
            raise self._missing(name, "--text-field", fields, line)
        value = fields[name]
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "an array"
            raise self._error(f"column {name!r} holds {kind}, not text", line, "name a column with text")
        return "" if value is None else json.dumps(value)

    def _find_text(self, columns: Mapping[str, Any], line: int) -> str:
        folded = {name.strip().casefold(): name for name in reversed(list(columns))}
        for names in ({name: name for name in columns}, folded):
            for name in TEXT_COLUMNS:
                if name in names:
                    return names[name]
        for name, value in columns.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                hint = f"take them out: jq -c '.{name}[]' FILE | mellea summarise -"
                raise self._error(f"is one object with its rows under {name!r}", line, hint)
        hint = "name the column with the feedback: --text-field NAME"
        if any(name.startswith(("{", "[")) for name in columns):
            hint = "if this is JSON, add --format jsonl or json; else --text-field NAME"
        raise self._error(f"no column looks like the text; columns seen: {_listed(columns)}", line, hint)

    def _missing(self, wanted: str, flag: str, columns: Iterable[str], line: int) -> InputError:
        close = nearest(wanted, columns)
        hint = f"did you mean {flag} {close}?" if close else f"name another one with {flag}"
        return self._error(f"no column {wanted!r}; columns seen: {_listed(columns)}", line, hint)

    def _no_id(self, fields: Mapping[str, Any], line: int) -> InputError:
        if self._id_field not in fields:
            return self._missing(self._id_field, "--id-field", fields, line)
        hint = "without --id-field the rows are numbered"
        return self._error(f"the id column {self._id_field!r} holds no string or number", line, hint)

    def _error(self, message: str, line: int, hint: str) -> InputError:
        return InputError(message, path=self._path, line=line, hint=hint)


def _listed(columns: Iterable[str]) -> str:
    names = ["".join(char if char.isprintable() else "?" for char in name) for name in columns]
    shown = [name if len(name) <= _SHOWN_LENGTH else name[: _SHOWN_LENGTH - 1] + "…" for name in names[:_SHOWN_COLUMNS]]
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return (", ".join(shown) or "none") + more
