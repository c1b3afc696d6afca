"""File formats: their names, and how the format of an input or an output is recognised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import Encoding

Format = Literal["jsonl", "json", "csv", "tsv"]

FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "tsv")

RawRow = tuple[int, dict[str, Any], str | None]
"""What a reader yields: physical line, columns, and the JSON text of the row (`None` when it was not JSON)."""


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a table is written, so that an output can be written in the same way."""

    delimiter: str = ","
    quote_all: bool = False
    line_end: str = "\n"
    mark: bool = False
    """Whether it begins with a byte order mark."""
    sep_line: str = ""
    """The first line that states the delimiter, such as `sep=;`; empty without one."""


Note = Callable[[str], None]
"""Called with one sentence that the user should read, such as that a column was renamed."""


def ignore(_: object) -> None:
    """Take a note or a bad row and do nothing with it."""


_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
_EXPORT = "open it in the spreadsheet program and export it as CSV"
# First bytes of files that are often given by mistake: what they are, and what to do.
_BINARY_FILES = (
    (b"PK\x03\x04", "a ZIP archive (an Excel workbook is one)", _EXPORT + ", or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", _EXPORT),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"%PDF-", "a PDF document", "extract its text first"),
    (b"PAR1", "a Parquet file", "export it as CSV or JSONL"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"BZh", "bzip2 data", "unpack it: bunzip2 -k FILE"),
    (b"\xfd7zXZ", "xz data", "unpack it: unxz -k FILE"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "unpack it: unzstd FILE"),
    (b"\x7fELF", "a program", ""),
)
_WORKBOOK_SUFFIXES = (".xlsx", ".xlsm", ".ods")
_OTHER_FILE = "name a JSONL, JSON, CSV or TSV file"


def known_format(name: str) -> Format:
    """Return the format with the name that the user gave.

    Raises:
        UsageError: there is no such format.
    """
    for known in FORMATS:
        if name.lower() in (known, {"jsonl": "ndjson"}.get(known)):
            return known
    raise UsageError(f"unknown format: {name!r}", hint=f"one of {', '.join(FORMATS)}")


def format_of_name(path: str) -> Format | None:
    """Return the format that a file name's suffix stands for; `.gz` at the end is ignored."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def output_format(path: str) -> Format:
    """Return an output's format; a name without a suffix, or with something like `.v2`, means JSONL.

    Raises:
        UsageError: the suffix stands for a format that cannot be written.
    """
    if (found := format_of_name(path)) is not None:
        return found
    suffix = PurePath(path).suffix
    if suffix[1:].isalpha() and suffix != ".gz" and not path.startswith(("/dev/", "<")):
        raise UsageError(
            f"{path}: rows cannot be written as {suffix}",
            hint="name it .jsonl, .json, .csv or .tsv, or add --output-format",
        )
    return "jsonl"


def detect_format(head: str, wanted: str | None, path: str) -> Format:
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
    if named in ("csv", "tsv"):
        return named
    start = head.lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        return "jsonl" if named == "jsonl" or _one_object_per_line(start) else "json"
    return named or "csv"


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
        raise InputError("is a spreadsheet workbook, not text", path=path, hint=_EXPORT)
    for magic, kind, remedy in _BINARY_FILES:
        if head.startswith(magic):
            raise InputError(f"is {kind}, not text", path=path, hint=remedy or _OTHER_FILE)
    # Single control characters do occur in exports; binary data are full of them.
    sample = head[:4096]
    if encoding.keeps_ascii and sum(map(sample.count, range(6))) > len(sample) * 0.2:
        raise InputError("does not look like text", path=path, hint=_OTHER_FILE)
