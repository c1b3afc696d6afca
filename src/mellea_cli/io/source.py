"""Where items come from: a file or a pipe of JSONL, JSON, CSV or TSV, read as a stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from mellea_cli.errors import InputError, UsageError, nearest
from mellea_cli.io.byte_input import (
    CHUNK_BYTES,
    ByteInput,
    Lines,
    choose_encoding,
    decoded_chunks,
    known_codec,
    open_bytes,
    without_surrogates,
)
from mellea_cli.io.csv_reader import CsvReader
from mellea_cli.io.formats import (
    Format,
    detect_format,
    known_delimiter,
    known_format,
    refuse_binary,
    sniff_delimiter,
    stated_delimiter,
)
from mellea_cli.io.json_reader import JsonStream, RawRow, read_jsonl
from mellea_cli.items import Item


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How an input is to be read; `None` means: find out.

    Raises:
        UsageError: an option makes no sense, whatever the input.
    """

    format: str | None = None
    """`jsonl`, `json`, `csv` or `tsv`."""
    text_field: str | None = None
    id_field: str | None = None
    encoding: str | None = None
    """Any text encoding that Python knows; without it UTF-8, or UTF-16 and UTF-32 by their byte order mark."""
    delimiter: str | None = None
    """One character, or a word such as `tab`."""
    limit: int | None = None
    """Take the first so many items."""
    sample: int | None = None
    """Take so many items by chance, in the order of the input; `limit` then applies to them."""
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


# What the columns of an input mean: which one holds the text, which one the id.

TEXT_COLUMNS = ("text", "feedback", "comment", "review", "body", "message", "content")
"""The columns that are tried, in this order, when the user names none."""
ID_COLUMN = "id"
_SHOWN_COLUMNS = 12


class ColumnMapping:
    """Turns raw rows into items.

    Args:
        text_field: the column with the text, or `None` to find it.
        id_field: the column with the id, or `None` for `id` where there is one.
        path: how messages call the input.
    """

    def __init__(self, text_field: str | None, id_field: str | None, path: str) -> None:
        self._wanted_text = text_field
        self._wanted_id = id_field
        self._path = path
        self.text_field: str | None = text_field
        """The column with the text; `None` until the first row is seen."""

    def check_header(self, columns: tuple[str, ...], line: int) -> None:
        """Settle the columns of an input that names them above its rows.

        Raises:
            InputError: a column that was asked for is not there, or none looks like the text.
        """
        for wanted, flag in ((self._wanted_text, "--text-field"), (self._wanted_id, "--id-field")):
            if wanted is not None and wanted not in columns:
                raise self._missing(wanted, flag, columns, line)
        if self.text_field is None:
            self.text_field = self._find_text(dict.fromkeys(columns), line)

    def item(self, row: RawRow, position: int) -> Item:
        """Make an item of a row.

        Args:
            row: the row.
            position: the item's place, from 0; its 1-based form is the id of an item that brings none.

        Raises:
            InputError: the row lacks the text, or holds something else in its place.
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
        wanted = self._wanted_id
        ident = _as_id(fields.get(ID_COLUMN if wanted is None else wanted))
        if ident is None:
            if wanted is not None:
                raise self._no_id(wanted, fields, line)
            ident = position + 1
        return Item(position, ident, text, fields, line, raw)

    def _as_text(self, name: str, row: RawRow) -> str:
        line, fields, _ = row
        if name not in fields:
            raise self._missing(name, "--text-field", fields, line)
        value = fields[name]
        if value is None:
            return ""
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "an array"
            raise InputError(
                f"column {name!r} holds {kind}, not text", path=self._path, line=line, hint="name a column with text"
            )
        return json.dumps(value)

    def _find_text(self, columns: Mapping[str, Any], line: int) -> str:
        for name in TEXT_COLUMNS:
            if name in columns:
                return name
        folded = {name.strip().casefold(): name for name in reversed(list(columns))}
        for name in TEXT_COLUMNS:
            if name in folded:
                return folded[name]
        if (inside := _wrapped_rows(columns)) is not None:
            raise InputError(
                f"is one object with its rows under {inside!r}",
                path=self._path,
                line=line,
                hint=f"take them out: jq -c '.{inside}[]' FILE | mellea summarise -",
            )
        hint = "say which one holds the feedback: --text-field NAME"
        if any(name.startswith(("{", "[")) for name in columns):
            hint = "if this is JSON, say --format jsonl or json; else --text-field NAME"
        raise InputError(
            f"no column looks like the text; columns seen: {_listed(columns)}", path=self._path, line=line, hint=hint
        )

    def _missing(self, wanted: str, flag: str, columns: Iterable[str], line: int) -> InputError:
        names = list(columns)
        close = nearest(wanted, names)
        hint = f"did you mean {flag} {close}?" if close else f"name another one with {flag}"
        return InputError(
            f"no column {wanted!r}; columns seen: {_listed(names)}", path=self._path, line=line, hint=hint
        )

    def _no_id(self, wanted: str, fields: Mapping[str, Any], line: int) -> InputError:
        if wanted not in fields:
            return self._missing(wanted, "--id-field", fields, line)
        return InputError(
            f"the id column {wanted!r} holds no string or number",
            path=self._path,
            line=line,
            hint="leave --id-field out to number the rows",
        )


def _as_id(value: Any) -> str | int | float | None:
    if isinstance(value, str):
        return value or None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _wrapped_rows(columns: Mapping[str, Any]) -> str | None:
    for name, value in columns.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return name
    return None


def _listed(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return (", ".join(_printable(name) for name in names[:_SHOWN_COLUMNS]) or "none") + more


def _printable(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return shown if len(shown) <= 40 else shown[:39] + "…"


# Raw rows of an input in whichever format it is.

_BLANK = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"


@dataclass(frozen=True, slots=True)
class Rows:
    """A stream of raw rows and what is known before the first one."""

    format: Format
    stream: Iterator[RawRow | InputError]
    """Rows in order; a bad row is the error that it is. Raises `InputError` when the input itself fails."""
    header: tuple[str, ...] = ()
    """The columns of a CSV file; empty for JSON, where each row has its own."""
    header_line: int = 1
    notes: tuple[str, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether a row's line says little about it, because all rows of the input may stand in one."""
        return self.format == "json"


def open_rows(data: ByteInput, options: SourceOptions) -> Rows:
    """Look at the first bytes of an input and start to read it.

    Raises:
        InputError: it is no text, or its first bytes cannot be read.
    """
    chunks = data.chunks()
    head = _head(chunks)
    encoding = choose_encoding(head, options.encoding, data.name)
    refuse_binary(head, encoding, data.name)
    text = head[encoding.mark :].decode(encoding.codec, "replace")
    form = detect_format(text, options.format, data.name)
    rest = chain((head[encoding.mark :],), chunks)
    if form == "json":
        return Rows(form, JsonStream(decoded_chunks(rest, encoding, data.name), data.name).rows())
    lines = Lines(rest, encoding, data.name)
    if form == "jsonl":
        return Rows(form, read_jsonl(lines))
    stated = stated_delimiter("".join(_physical_lines(text)[:1]))
    reader = CsvReader(lines, _delimiter(text, form, options, stated), skip=0 if stated is None else 1)
    return Rows(form, reader.rows(), reader.columns, reader.header_line, tuple(reader.notes))


def _head(chunks: Iterator[bytes]) -> bytes:
    """Collect enough to see what the input is: an opening bracket, or the first line that is not blank."""
    head = b""
    for piece in chunks:
        head += piece
        start = head.lstrip(_BLANK)
        # The rows of an array may come without any line end, so its bracket has to be enough.
        if start.startswith(b"[") or b"\n" in start or b"\r" in start or len(head) >= CHUNK_BYTES:
            break
    return head


def _delimiter(text: str, form: Format, options: SourceOptions, stated: str | None) -> str:
    if options.delimiter is not None:
        return known_delimiter(options.delimiter)
    if form == "tsv":
        return "\t"
    if stated is not None:
        return stated
    lines = _physical_lines(text.lstrip("\ufeff\r\n"))
    if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")):
        lines.pop()  # the head may end inside a line
    wanted = {name.strip().lower() for name in (options.text_field, options.id_field) if name}
    return sniff_delimiter(lines, wanted or {*TEXT_COLUMNS})


def _physical_lines(text: str) -> list[str]:
    # `str.splitlines` would also split at U+2028 and its kin.
    return list(StringIO(text, newline=""))


SURVEY_BYTES = 64 << 20
"""Regular files up to this size, packed and unpacked, are checked whole before the first item is handed out."""

Report = Callable[[InputError], None]


@dataclass(frozen=True, slots=True)
class InputScan:
    """What a first pass over a whole file found."""

    count: int
    """Items that the iteration will yield."""
    columns: tuple[str, ...]
    """Every column that occurs, in the order of its first appearance."""
    skipped: int
    """Bad rows; the iteration will skip them."""


def ignore(_: InputError) -> None:
    """Report a bad row to nobody: it is still counted."""


def open_source(
    path: str, options: SourceOptions | None = None, *, report: Report = ignore, stream: BinaryIO | None = None
) -> Source:
    """Open an input.

    Args:
        path: a file, or `-` for standard input.
        options: how to read it.
        report: told of each bad row that is skipped, in the thread that iterates.
        stream: stands in for standard input when `path` is `-`.

    Raises:
        InputError: the file cannot be opened.
    """
    return Source(open_bytes(path, stream), options or SourceOptions(), report)


class Source:
    """Items of one input, in order, read as they are asked for; memory does not grow with the input.

    Iterate it once, in any one thread; call `survey` before, if at all. `stop` may be called from any thread. Close
    the source, or use it in a `with` block, when the iteration is over. While iterating:

    Raises:
        InputError: the input cannot be read on, or a row is bad and bad rows are not to be skipped.
    """

    def __init__(self, data: ByteInput, options: SourceOptions, report: Report) -> None:
        self.name = data.name
        """The path, or `<stdin>`."""
        self.skipped = 0
        """Bad rows that the iteration has left out so far."""
        self.notes: list[str] = []
        """What a person should know about the input, such as a column that was renamed; grows while reading."""
        self._data = data
        self._options = options
        self._report = report
        self._checked: tuple[int, int] | None = None
        checkable = data.size is not None and data.size <= SURVEY_BYTES
        self._fails = options.on_bad_row == "fail" or (options.on_bad_row == "auto" and checkable)

    def survey(self) -> InputScan | None:
        """Read a regular file once to count its items and check every row.

        Returns:
            What was found, or `None` when the input is a pipe or too large for that: then bad rows are skipped and
            reported unless the options say `fail`.

        Raises:
            InputError: a row is bad and bad rows are not to be skipped, or the file cannot be read.
        """
        size = self._data.size
        if size is None or size > SURVEY_BYTES:
            return None
        signature = self._data.signature()
        bad: list[InputError] = []
        columns: dict[str, None] = {}
        count = 0
        for item in self._items(columns, bad.append):
            count += 1
            if not item.fields.keys() <= columns.keys():
                columns.update(dict.fromkeys(item.fields))
            if count == self._options.limit and self._options.sample is None:
                break
            if self._data.delivered > SURVEY_BYTES:
                self._fails = self._options.on_bad_row == "fail"
                return None
        if bad and (self._fails or not count):
            raise _refusal(bad, usable=count)
        self._checked = signature
        for most in (self._options.sample, self._options.limit):
            count = count if most is None else min(count, most)
        return InputScan(count, tuple(columns), len(bad))

    @property
    def repeatable(self) -> bool:
        """Whether it can be gone through more than once: a regular file can, a pipe cannot."""
        return self._data.size is not None

    def reread(self) -> Iterator[Item]:
        """Go through a repeatable input as the iteration does, but neither count nor report bad rows again."""
        return self._taken(self._refuse)

    def __iter__(self) -> Iterator[Item]:
        if self._changed():
            raise InputError(
                "changed while it was being checked",
                path=self.name,
                hint="run the same command again, or pipe it in: cat FILE | mellea summarise -",
            )
        yield from self._taken(self._skip)
        if self._changed():
            self._note(f"{self.name}: changed while it was being read")

    def _taken(self, on_bad: Report) -> Iterator[Item]:
        """Yield the items that the options leave."""
        limit = self._options.limit
        if limit == 0:
            return
        items = self._items({}, on_bad)
        if self._options.sample is not None:
            items = _reservoir(items, self._options.sample, self._options.seed)
        for item in items:
            yield item
            if item.position + 1 == limit:
                return

    def stop(self) -> None:
        """End the iteration soon, also when it waits for a pipe. Safe from any thread."""
        self._data.stop()

    def close(self) -> None:
        """Give the file back. Call it when no thread iterates any more."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _items(self, columns: dict[str, None], on_bad: Report) -> Iterator[Item]:
        """Yield every item from the start, enter a header into `columns`, and hand bad rows to `on_bad`."""
        self._data.rewind()
        shape = ColumnMapping(self._options.text_field, self._options.id_field, self.name)
        try:
            rows = self._open(shape)
        except InputError:
            if self._data.stopped:
                return
            raise
        columns.update(dict.fromkeys(rows.header))
        position = 0
        bad: InputError | None = None
        for number, row in enumerate(self._until_stopped(rows.stream), start=1):
            try:
                if isinstance(row, InputError):
                    raise row
                item = shape.item(row, position)
            except InputError as error:
                if shape.text_field is None and row is not error:
                    raise  # nobody said which column is the text, and the first row has none that looks like it
                told = _numbered(error, number) if rows.numbered else error
                bad = bad or told
                on_bad(told)
                continue
            yield item
            position += 1
        if bad is not None and not position and not self._data.stopped:
            raise bad

    def _until_stopped(self, rows: Iterator[RawRow | InputError]) -> Iterator[RawRow | InputError]:
        try:
            for row in rows:
                if self._data.stopped:
                    return  # it may be half a row
                yield row
        except InputError:
            if not self._data.stopped:  # an array that was left in its middle is not broken
                raise

    def _open(self, shape: ColumnMapping) -> Rows:
        rows = open_rows(self._data, self._options)
        for note in rows.notes:
            self._note(note)
        if rows.header:
            shape.check_header(rows.header, rows.header_line)
        return rows

    def _refuse(self, error: InputError) -> None:
        if self._fails:
            raise _refusal([error], usable=1)

    def _skip(self, error: InputError) -> None:
        self._refuse(error)
        self.skipped += 1
        self._report(error)

    def _changed(self) -> bool:
        return self._checked is not None and self._checked != self._data.signature()

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _numbered(error: InputError, number: int) -> InputError:
    """Say which element of an array it is: all of them may stand in one line."""
    return InputError(f"item {number}: {error.reason}", path=error.path, line=error.line, hint=error.hint)


def _refusal(bad: list[InputError], *, usable: int) -> InputError:
    """Return the first bad row's error with the way out, unless there would be nothing left."""
    error = bad[0]
    if usable:
        rows = f"the {len(bad)} bad rows" if len(bad) > 1 else "it"
        way_out = f"leave {rows} out with --on-bad-row skip"
        error.hint = f"{error.hint}; or {way_out}" if error.hint else way_out
    return error


def _reservoir(items: Iterator[Item], size: int, seed: int) -> Iterator[Item]:
    """Take `size` items by chance, each with the same probability, and yield them in order; holds `size` items."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    kept: list[Item] = []
    for item in items:
        if len(kept) < size:
            kept.append(item)
        elif (place := draw.randrange(item.position + 1)) < size:
            kept[place] = item
    kept.sort(key=lambda item: item.position)
    for position, item in enumerate(kept):
        yield replace(item, position=position)
