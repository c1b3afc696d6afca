"""File formats: reading, writing, and how the format of an input or an output is recognised."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mellea_cli.errors import InputError, UsageError
from mellea_cli.extensions import ExtensionPoint
from mellea_cli.io.byte_input import Encoding, Lines, decoded_chunks

if TYPE_CHECKING:
    from mellea_cli.io.sink import SinkOptions
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.io.writers import AddedColumns, Layout

# What a reader yields: physical line, columns, and the JSON text of the row (`None` when it was not JSON)
RawRow = tuple[int, dict[str, Any], str | None]


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a table is written, so that an output can be written in the same way."""

    delimiter: str = ","
    quote_all: bool = False
    line_end: str = "\n"
    mark: bool = False  # Whether it begins with a byte order mark
    sep_line: str = ""  # The first line that states the delimiter, such as `sep=;`; empty without one


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of an input's column, so that an output with types can have it, too.

    Rows hold what JSON has: dates, times and long decimals are text, in the form of ISO 8601.
    """

    kinds: frozenset[str] = frozenset()  # What its text may stand for: `date`, `datetime`, `time`, `duration`, `number`
    certain: bool = True  # Whether each such text was one; otherwise only a column that is all of a kind has its type
    arrow: Any = None  # The type in Arrow's words, if the input has one


PARTS = "parts"  # The kind of a column whose cells are objects or lists
# In a file of text each cell may be anything.
TEXT_CELLS = ColumnType(frozenset(("date", "datetime", "number")), certain=False)

Note = Callable[[str], None]  # Called with one sentence that the user should read, such as that a column was renamed


def ignore(_: object) -> None:
    """Take a note or a bad row and do nothing with it."""


class LeftOut:
    """Counts what is no row, by reason, with its first lines."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[int]]] = {}

    def add(self, reason: str, *lines: int) -> None:
        number, first = self._found.get(reason, (0, []))
        self._found[reason] = number + len(lines), [*first, *lines][:_SHOWN_LINES]

    def sentences(self) -> list[str]:
        """Return one sentence for each reason."""
        start = {FILLED: ""}
        return [f"{start.get(reason, 'left out: ')}{_several(reason, *found)}" for reason, found in self._found.items()]


FILLED = "row with fewer cells than the header, filled up"
_SHOWN_LINES = 5


def _several(reason: str, number: int, first: list[int]) -> str:
    shown = ", ".join(map(str, first))
    if number == 1:
        return f"1 {reason} (line {shown})"
    more = f" and {number - len(first):,} more" if number > len(first) else ""
    what, _, place = reason.partition(" ") if reason.startswith(("line ", "row ")) else (reason, "", "")
    return f"{number:,} {what}s{' ' + place if place else ''} (lines {shown}{more})"


@dataclass(frozen=True, slots=True)
class RowStream:
    """Rows of an input before their columns are mapped, and what is known before the first row."""

    # Rows in order; a bad row is an error. Raises `InputError` when the input itself fails.
    stream: Iterator[RawRow | InputError]
    header: tuple[str, ...] = ()  # The columns of a table; empty where each row has its own
    header_line: int = 1
    notes: Sequence[str] = ()  # What the user should know; complete once the first row has been read
    numbered: bool = False  # Whether messages about a row have its number, because a line may hold many rows
    labels: Mapping[str, str] = field(default_factory=dict)  # Columns by their names in further header rows, folded
    open_ended: tuple[str, ...] = ()  # The columns that a further header row calls answers in the user's own words
    left_out: LeftOut = field(default_factory=LeftOut)  # What is no row, complete after the last row
    dialect: CsvDialect | None = None  # How a table is written
    # The types of columns that are more than JSON's, complete after the last row
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    place: str = ""  # The part of the input that was chosen among several, for messages


@dataclass(frozen=True, slots=True)
class TextInput:
    """An input of known encoding, before its first row."""

    name: str  # The input's name in messages
    head: str  # The first characters: at least the first line, or an opening bracket
    chunks: Iterator[bytes]  # The bytes from the start, without a byte order mark
    encoding: Encoding  # Their encoding
    options: SourceOptions  # What the user said about the input

    def lines(self) -> Lines:
        """The physical lines with their numbers, as bytes in `Lines.codec`."""
        return Lines(self.chunks, self.encoding, self.name)

    def text(self) -> Iterator[str]:
        """The text in pieces that end anywhere.

        Raises:
            InputError: bytes that are no text in this encoding.
        """
        return decoded_chunks(self.chunks, self.encoding, self.name)


@dataclass(frozen=True, slots=True)
class FileInput:
    """A binary input, before its first row."""

    name: str  # The input's name in messages
    path: str  # A file with all its bytes, unpacked
    part: str  # The table or the sheet that the user named behind the file; empty for the only one
    options: SourceOptions  # What the user said about the input
    delivered: Callable[[int], None] = ignore  # Called with the bytes of the rows that were read


@dataclass(frozen=True, slots=True)
class RowOutput:
    """What an output is to hold, before its first row."""

    added: AddedColumns
    options: SinkOptions
    note: Note


class FileFormat(Protocol):
    """One file format. The entry points of the group `mellea.formats` are classes of this kind.

    A format of another package has the suffix of its name: `.xml` for `xml`.
    """

    def rows(self, source: TextInput) -> RowStream:
        """Start reading an input."""

    def layout(self, output: RowOutput) -> Layout:
        """Return the form of an output."""


@runtime_checkable
class BinaryFormat(Protocol):
    """A format that is read from a file as a whole, and is no text. It is registered as a `FileFormat` is."""

    def read_file(self, source: FileInput) -> RowStream:
        """Start reading an input."""

    def other_parts(self, path: str, name: str) -> list[str]:
        """Return what is in an output besides the rows, such as more sheets, and would be lost with it.

        Args:
            path: the file.
            name: its name in messages.
        """
        _ = path, name
        return []

    def layout(self, output: RowOutput) -> Layout:
        """Return the form of an output.

        Raises:
            UsageError: this format is only read, or cannot hold so many rows or columns.
        """


class JsonLinesFormat:
    """One JSON object per line."""

    def rows(self, source: TextInput) -> RowStream:
        from mellea_cli.io.json_reader import read_jsonl

        return RowStream(read_jsonl(source.lines()))

    def layout(self, output: RowOutput) -> Layout:
        from mellea_cli.io.writers import JsonLines

        return JsonLines(output.note)


class JsonFormat:
    """An array of objects, or objects one after the other."""

    def rows(self, source: TextInput) -> RowStream:
        from mellea_cli.io.json_reader import JsonStream

        stream = JsonStream(source.text(), source.name, source.options.text_fields)
        return RowStream(stream.rows(), notes=stream.notes, numbered=True)

    def layout(self, output: RowOutput) -> Layout:
        from mellea_cli.io.writers import JsonArray

        return JsonArray(output.note)


class CsvFormat:
    """A table with a header; reading guesses the delimiter, writing takes the input's."""

    _delimiter: str | None = None

    def rows(self, source: TextInput) -> RowStream:
        from mellea_cli.io.csv_reader import open_table

        return open_table(source, self._delimiter)

    def layout(self, output: RowOutput) -> Layout:
        from mellea_cli.io.writers import Table

        options = output.options
        return Table(
            output.added,
            options.columns,
            dialect=options.dialect,
            delimiter=self._delimiter,
            raw=options.raw_csv,
            note=output.note,
        )


class TsvFormat(CsvFormat):
    """A table with tabs between its cells."""

    _delimiter = "\t"


FORMATS: ExtensionPoint[Callable[[], FileFormat | BinaryFormat]] = ExtensionPoint(
    "mellea.formats",
    {
        "jsonl": "mellea_cli.io.formats:JsonLinesFormat",
        "json": "mellea_cli.io.formats:JsonFormat",
        "csv": "mellea_cli.io.formats:CsvFormat",
        "tsv": "mellea_cli.io.formats:TsvFormat",
        "xlsx": "mellea_cli.io.spreadsheets:XlsxFormat",
        "ods": "mellea_cli.io.spreadsheets:OdsFormat",
        "parquet": "mellea_cli.io.columnar:ParquetFormat",
        "arrow": "mellea_cli.io.columnar:ArrowFormat",
        "sqlite": "mellea_cli.io.databases:SqliteFormat",
        "duckdb": "mellea_cli.io.databases:DuckDbFormat",
    },
)
TEXT_TABLES = ("csv", "tsv")
# Formats whose rows all have the same flat columns
FLAT_FORMATS = (*TEXT_TABLES, "xlsx", "parquet", "arrow")
DATABASES = ("sqlite", "duckdb")
WORKBOOKS = ("xlsx", "ods")
_WORKBOOK_STARTS = (b"PK", b"\xd0\xcf\x11\xe0")

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
# Suffixes of what is read and not written
_READ_SUFFIXES = {
    ".xlsm": "xlsx",
    ".xlsb": "xlsx",
    ".xls": "xlsx",
    ".ods": "ods",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".duckdb": "duckdb",
    ".arrows": "arrow",
}
_PACKED = (".gz", ".zst", ".zip")
_WORKBOOK = "omit --format: workbooks are read as they are, with pip install 'mellea-cli[tables]'"
_EXPORT = "open it in the spreadsheet program and export it as CSV"
# First bytes of files that are often given by mistake: what they are, and what to do.
_BINARY_FILES = (
    (b"PK\x03\x04", "a ZIP archive or a workbook", "omit --format"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "omit --format"),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"%PDF-", "a PDF document", "extract its text first"),
    (b"PAR1", "a Parquet file", "omit --format"),
    (b"ARROW1", "an Arrow file", "omit --format"),
    (b"SQLite format 3\x00", "an SQLite database", "omit --format"),
    (b"BZh", "bzip2 data", "unpack it: bunzip2 -k FILE"),
    (b"\xfd7zXZ", "xz data", "unpack it: unxz -k FILE"),
    (b"\x7fELF", "a program", ""),
    (b"$FL", "an SPSS file", "export it as CSV"),
    (b"<stata_dta>", "a Stata file", "export it as CSV"),
    (b"Obj\x01", "an Avro file", "export it as JSONL"),
    (b"ORC", "an ORC file", "export it as Parquet"),
)
_WORKBOOK_SUFFIXES = (".xlsx", ".xlsm", ".ods")
# First bytes of the formats that are no text, and where they are
_BINARY_FORMATS = (
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1", "arrow"),
    (0, b"\xff\xff\xff\xff", "arrow"),
    (0, b"SQLite format 3\x00", "sqlite"),
    (8, b"DUCK", "duckdb"),
    (0, b"PK\x03\x04", "xlsx"),
    (0, b"\xd0\xcf\x11\xe0", "xlsx"),
)
# First characters of texts that are no table, in lower case
_TEXT_FILES = (
    (r"-----begin ", "encrypted, signed or a key"),
    (r"\{\\rtf", "an RTF document"),
    (r"-- \w+( database)? dump|(insert into|create table) ", "a dump in SQL"),
    (r"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file)"),
    (r"<\w[\w:.-]*( [^<>]*)?>\s*<\w", "XML or a piece of a web page"),
    (r"from \S+@\S+ |(mime-version|return-path|delivered-to|received): |from: [^\n]*@[^\n]*\n\S+: ", "e-mail"),
    (r"\{\s*\"errors?\"\s*:\s*\[?\s*\{", "the error of an API"),
    (r"\*{9,} 1\. row|-\[ record 1 |shape: \(\d+, \d+\)\n|\u250c\u2500", "a printed table (export it as CSV)"),
)
_TEXT_HEAD = 200
_OTHER_FILE = "name a table: JSONL, CSV, XLSX, Parquet"


def suffixes_of(name: str) -> list[str]:
    """The suffixes that stand for a format; that of its name for one of another package."""
    return [suffix for suffix, one in _SUFFIXES.items() if one == name] or [f".{name}"]


def known_format(name: str) -> str:
    """Return the format with the name that the user gave.

    Raises:
        UsageError: there is no such format.
    """
    name = name.lower()
    return FORMATS.check("jsonl" if name == "ndjson" else name)


def format_of_name(path: str) -> str | None:
    """Return the format that a file name's suffix stands for; `.gz`, `.zst` or `.zip` at the end is ignored."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    if not suffixes:
        return None
    if (known := _SUFFIXES.get(suffixes[-1]) or _READ_SUFFIXES.get(suffixes[-1])) is not None:
        return known
    return suffixes[-1][1:] if suffixes[-1][1:] in FORMATS.added() else None


def output_format(path: str) -> str:
    """Return an output's format; a name without a suffix, or with something like `.v2`, means JSONL.

    Raises:
        UsageError: the suffix stands for a format that cannot be written.
    """
    suffix = PurePath(path).suffix.lower()
    found = format_of_name(path)
    if found is not None and suffix not in _READ_SUFFIXES and suffix != ".zip":
        return found
    named = suffix[1:].isalpha() and suffix not in (".gz", ".zst") and not path.startswith(("/dev/", "<"))
    if found is not None or named:
        raise UsageError(
            f"{path}: rows cannot be written as {suffix}",
            hint="name it .jsonl, .json, .csv, .tsv, .xlsx or .parquet, or add --output-format",
        )
    return "jsonl"


def binary_format(head: bytes, wanted: str | None, path: str) -> BinaryFormat | None:
    """Return the format of an input that is no text: the user's choice, else that of its first bytes or its name."""
    name = known_format(wanted) if wanted is not None else None
    if name is None:
        found = (one for at, magic, one in _BINARY_FORMATS if head.startswith(magic, at))
        name = next(found, None) or format_of_name(path)
        if name in WORKBOOKS and not head.startswith(_WORKBOOK_STARTS):
            return None  # a page or a table of text under a workbook's name
    known = FORMATS.require(name)() if name is not None else None
    return known if isinstance(known, BinaryFormat) else None


def detect_format(head: str, wanted: str | None, path: str) -> str:
    """Return an input's format: the user's choice, else that of the file's name, else that of its first characters.

    The content corrects the name where it is plain: a `.jsonl` file that is an array, or a `.json` file with an object
    on each line.

    Args:
        head: the first characters: at least the first line, or an opening bracket.
        wanted: the user's choice, or `None`.
        path: the file's name.
    """
    if wanted is not None:
        return known_format(wanted)
    named = format_of_name(path)
    start = head.lstrip("\ufeff \t\r\n\x1e")
    if named in WORKBOOKS or (named in TEXT_TABLES and _JSON_ROW.match(start)):
        named = None  # `binary_format` has seen that it is no workbook
    if named not in (None, "json", "jsonl"):
        return named
    if _JSON_LIST.match(start) or path.lower().endswith(".js"):
        return "json"
    if start.startswith("{"):
        return "jsonl" if named == "jsonl" or _one_object_per_line(start) else "json"
    return named or "csv"


_JSON_ROW = re.compile(r'(?:\[\s*)?\{\s*"[^"\n]*"\s*:')
# A bracket with what can follow it in JSON: the lines of chats and logs begin with one, too
_JSON_LIST = re.compile(
    r"\[\s*(?:[\[{\"\]-]|$|(?:null|true|false|NaN)\b|\d[\d.eE+-]*\s*(?:$|\]|,\s*[\[{\"\d-][^:/]{0,9}[,\]]))"
)


def _one_object_per_line(text: str) -> bool:
    first, end, _ = text.partition("\n")
    if not end and len(text) > 1 << 15:
        return True  # the head ends inside a very long first line
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        # The first line of a pretty-printed object is incomplete; a line that is broken inside still ends with "}".
        return first.rstrip().endswith("}")


def refuse_binary(head: bytes, encoding: Encoding, path: str) -> None:
    """Raise an `InputError` when the first bytes, byte order mark included, are not text."""
    if head.startswith(b"PK") and (path.lower().endswith(_WORKBOOK_SUFFIXES) or b"[Content_Types].xml" in head):
        raise InputError("is a spreadsheet workbook, not text", path=path, hint=_WORKBOOK)
    for magic, kind, remedy in _BINARY_FILES:
        if head.startswith(magic):
            raise InputError(f"is {kind}, not text", path=path, hint=remedy or _OTHER_FILE)
    start = head[encoding.mark :][:_TEXT_HEAD].decode(encoding.codec, "replace").lstrip("\ufeff \t\r\n").casefold()
    if start.startswith(("<!doctype html", "<html", "<table", "<meta", "<style")):
        raise InputError("is an HTML page, not a table", path=path, hint=_EXPORT)
    if start.startswith("<?xml"):
        raise InputError("is XML", path=path, hint=_EXPORT)
    if path.lower().endswith((".yaml", ".yml")):
        raise InputError("is YAML", path=path, hint=_OTHER_FILE)
    for mark, kind in _TEXT_FILES:
        if re.match(mark, start):
            raise InputError(f"is {kind}, not a table", path=path, hint=_OTHER_FILE)
    # Single control characters do occur in exports; binary data are full of them.
    sample = head[:4096]
    if encoding.keeps_ascii and sum(map(sample.count, range(6))) > len(sample) * 0.2:
        raise InputError("does not look like text", path=path, hint=_OTHER_FILE)
