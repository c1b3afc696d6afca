"""How an input is to be read."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from pathlib import PurePath
from typing import Literal

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import Encoding

# Which character separates the columns of a CSV file.

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


# Which format an input or an output has: by name, or by its first bytes.

Format = Literal["jsonl", "json", "csv", "tsv"]

FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "tsv")
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
_EXPORT = "open it in the spreadsheet program and export it as CSV"
# The first bytes of files that people hand in by mistake: what they are, and what to do.
_NOT_TEXT = (
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
_WORKBOOK = (".xlsx", ".xlsm", ".ods")


def named_format(path: str) -> Format | None:
    """Read the format off a file name; `.gz` at its end does not count."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def output_format(path: str) -> Format:
    """Read an output's format off its name; one without a suffix, or with something like `.v2`, is JSONL.

    Raises:
        UsageError: the suffix names a format that is none of ours.
    """
    if (found := named_format(path)) is not None:
        return found
    suffix = PurePath(path).suffix
    if suffix[1:].isalpha() and suffix != ".gz" and not path.startswith(("/dev/", "<")):
        raise UsageError(
            f"{path}: rows cannot be written as {suffix}",
            hint="name it .jsonl, .json, .csv or .tsv, or give --output-format",
        )
    return "jsonl"


def known_format(name: str) -> Format:
    """Check a format that the user named.

    Raises:
        UsageError: it is none of ours.
    """
    for known in FORMATS:
        if name.lower() in (known, {"jsonl": "ndjson"}.get(known)):
            return known
    raise UsageError(f"unknown format: {name!r}", hint=f"one of {', '.join(FORMATS)}")


def refuse_binary(head: bytes, encoding: Encoding, path: str) -> None:
    """Raise an `InputError` when the first bytes are no text at all.

    Args:
        head: the first bytes, the byte order mark included.
        encoding: what the bytes are said to be.
        path: how messages call the input.
    """
    if head.startswith(b"PK") and (path.lower().endswith(_WORKBOOK) or b"[Content_Types].xml" in head):
        raise InputError("is a spreadsheet workbook, not text", path=path, hint=_EXPORT)
    for magic, what, todo in _NOT_TEXT:
        if head.startswith(magic):
            raise InputError(f"is {what}, not text", path=path, hint=todo or "name a JSONL, JSON, CSV or TSV file")
    # Single NUL bytes do occur in exports, a head that is full of them does not.
    sample = head[:4096]
    if encoding.keeps_ascii and sum(sample.count(byte) for byte in b"\x00\x01\x02\x03\x04\x05") > len(sample) * 0.2:
        raise InputError("does not look like text", path=path, hint="name a JSONL, JSON, CSV or TSV file")


def detect_format(head: str, wanted: str | None, path: str) -> Format:
    """Settle the format: the user's word, else the file's name, else its first characters.

    A name does not stop us from seeing that a `.jsonl` file is an array, or that a `.json` file has an object a line.

    Args:
        head: the first characters: at least the first line, or an opening bracket.
        wanted: what the user said, or `None`.
        path: the file's name.
    """
    named = known_format(wanted) if wanted is not None else named_format(path)
    start = head.lstrip("\ufeff \t\r\n")
    if wanted is not None or named in ("csv", "tsv"):
        return named or "csv"
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        return "jsonl" if named == "jsonl" or _one_object_a_line(start) else "json"
    return named or "csv"


def _one_object_a_line(text: str) -> bool:
    first, end, _ = text.partition("\n")
    if not end and len(text) > 1 << 15:
        return True  # the head was cut inside a very long first line
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        # A pretty-printed object breaks off at its first line's end; a line that is broken inside does not.
        return first.rstrip().endswith("}")
