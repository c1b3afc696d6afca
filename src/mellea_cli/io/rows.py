"""Raw rows of an input in whichever format it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import chain

from mellea_cli.errors import InputError
from mellea_cli.io.bytesin import CHUNK_BYTES, ByteInput
from mellea_cli.io.csvfile import CsvReader
from mellea_cli.io.delimiter import known_delimiter, sniff_delimiter, stated_delimiter
from mellea_cli.io.detect import Format, detect_format, refuse_binary
from mellea_cli.io.encoding import choose_encoding, decoded_chunks
from mellea_cli.io.jsonarray import JsonStream
from mellea_cli.io.jsonl import RawRow, read_jsonl
from mellea_cli.io.lines import Lines
from mellea_cli.io.options import SourceOptions
from mellea_cli.io.shape import TEXT_COLUMNS

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
