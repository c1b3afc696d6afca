"""The bytes of one input: a file, a pipe or a stream, unpacked when they are gzip, and stoppable while they wait."""

from __future__ import annotations

import codecs
import os
import select
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mellea_cli.errors import InputError, UsageError, nearest

# From bytes to text: which encoding it is, and what to say when it is not.

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_GUESSES = ("cp1252", "latin-1")
_SNIPPET = 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the bytes of an input become text."""

    codec: str
    """Python's name of the codec."""
    mark: int = 0
    """Bytes of the byte order mark, which are no part of the text."""

    @property
    def keeps_ascii(self) -> bool:
        """Whether line ends are the same bytes as in ASCII, so that lines can be split before they are decoded."""
        return "\r\n".encode(self.codec) == b"\r\n"


def known_codec(name: str) -> str:
    """Return Python's own name for an encoding.

    Raises:
        UsageError: there is no text encoding of this name.
    """
    try:
        "".encode(name)  # refuses codecs that are not about text, such as base64
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        hint = "common ones are utf-8, utf-16, cp1252 and latin-1"
        raise UsageError(f"unknown encoding: {name!r}", hint=hint) from error


def choose_encoding(head: bytes, wanted: str | None, path: str) -> Encoding:
    """Settle the encoding from the first bytes and the user's word.

    Raises:
        UsageError: as `known_codec` does.
        InputError: the first bytes contradict the user, or look like UTF-16 that does not say so.
    """
    mark = next((entry for entry in _MARKS if head.startswith(entry[0])), None)
    if wanted is not None:
        codec = known_codec(wanted)
        if mark is None:
            return Encoding(codec)
        if not codec.startswith("utf"):
            raise InputError(
                f"starts with a {mark[2]} byte order mark, but --encoding says {wanted}",
                path=path,
                hint="leave --encoding out",
            )
        return Encoding(codec if codec.startswith("utf-7") else mark[1], len(mark[0]))
    if mark is not None:
        return Encoding(mark[1], len(mark[0]))
    if hidden := _unmarked_utf16(head):
        raise InputError("looks like UTF-16 without a byte order mark", path=path, hint=f"say --encoding {hidden}")
    return Encoding("utf-8")


def undecodable(error: UnicodeDecodeError, encoding: Encoding, *, path: str, line: int) -> InputError:
    """Word the error for bytes that are not text in the encoding that was expected."""
    data: bytes = error.object
    bad = data[error.start : max(error.end, error.start + 1)][:4]
    hint = "say what it is with --encoding NAME"
    for guess in _GUESSES:
        around = data[max(0, error.start - _SNIPPET) : error.start + _SNIPPET]
        if guess != encoding.codec and (text := _decodes(data, around, guess)) is not None:
            hint = f"say --encoding {guess} if this reads right: {text}"
            break
    shown = f"byte 0x{bad.hex()}" if len(bad) == 1 else f"bytes 0x{bad.hex(' ').replace(' ', ' 0x')}"
    return InputError(f"{shown}: not {encoding.codec.upper()} text", path=path, line=line, hint=hint)


def without_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs, which no server accepts, with U+FFFD; whole pairs become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def decoded_chunks(chunks: Iterator[bytes], encoding: Encoding, path: str) -> Iterator[str]:
    """Decode a stream piece by piece, without waiting for line ends.

    Raises:
        InputError: bytes that are not text in this encoding, with their line.
    """
    decoder = codecs.getincrementaldecoder(encoding.codec)("strict")
    place = LineCounter()
    try:
        for piece in chunks:
            text = decoder.decode(piece)
            place.pass_over(text, 0, len(text))
            if text:
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest
    except UnicodeDecodeError as error:
        text = error.object[: error.start].decode(encoding.codec, "replace")
        place.pass_over(text, 0, len(text))
        if text:
            # What stands before it counts all the same, however much of it has arrived at once.
            yield text
        raise undecodable(error, encoding, path=path, line=place.line) from error


class LineCounter:
    """Counts line ends (LF, CR LF or a lone CR) in text that comes in pieces; a CR LF may be cut in two."""

    __slots__ = ("_after_cr", "column", "line")

    def __init__(self) -> None:
        self.line = 1
        """The line on which the text goes on."""
        self.column = 1
        """The column there, in characters."""
        self._after_cr = False

    def pass_over(self, text: str, start: int, end: int) -> None:
        """Count the line ends in `text[start:end]`, which follows on what was counted before."""
        if start >= end:
            return
        self.line += text.count("\n", start, end)
        if self._after_cr and text[start] == "\n":
            self.line -= 1
        if returns := text.count("\r", start, end):
            self.line += returns - text.count("\r\n", start, end)
        self._after_cr = text[end - 1] == "\r"
        last = max(text.rfind("\n", start, end), text.rfind("\r", start, end))
        self.column = end - last if last >= start else self.column + end - start


def _unmarked_utf16(head: bytes) -> str:
    """Name the UTF-16 that mostly Latin text without a byte order mark is in; empty when it is not UTF-16."""
    sample = head[:512]
    if len(sample) < 4:
        return ""
    half = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > half * 0.6 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.6 and odd < half * 0.1:
        return "utf-16-be"
    return ""


def _decodes(data: bytes, around: bytes, codec: str) -> str | None:
    try:
        data.decode(codec)
        text = around.decode(codec)
    except UnicodeDecodeError:
        return None
    return "".join(char if char.isprintable() else " " for char in text).strip()


# Physical lines of an input, split before they are decoded, each with its number.

MAX_ROW_BYTES = 64 << 20
"""The longest row that is read. A longer one is a broken file or a gzip bomb, not feedback."""


class Lines:
    """The lines of an input as `(number, bytes)`, line ends kept.

    A line ends at LF, CR LF or a lone CR, and nowhere else: U+2028 and its kin inside a text do not split it.

    Args:
        chunks: the bytes, without a byte order mark.
        encoding: how a line is decoded.
        path: how messages call the input.
    """

    def __init__(self, chunks: Iterator[bytes], encoding: Encoding, path: str) -> None:
        self.path = path
        if encoding.keeps_ascii:
            self._chunks, self._encoding = chunks, encoding
        else:
            self._chunks = (text.encode() for text in decoded_chunks(chunks, encoding, path))
            self._encoding = Encoding("utf-8")
        self._codec = self._encoding.codec

    def decode(self, number: int, line: bytes) -> str:
        """Turn a line into text.

        Raises:
            InputError: it is not text in the encoding of this input.
        """
        try:
            return line.decode(self._codec)
        except UnicodeDecodeError as error:
            raise undecodable(error, self._encoding, path=self.path, line=number) from error

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        held: list[bytes] = []
        held_bytes = 0
        for chunk in self._chunks:
            if held and not _ends_line(chunk):
                # A long line: collect its pieces instead of copying it again for each of them.
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes > MAX_ROW_BYTES:
                    raise too_long(self.path, number + 1)
                continue
            if not chunk:
                continue
            held.append(chunk)
            lines = b"".join(held).splitlines(keepends=True)
            held, held_bytes = [], 0
            # A CR at the very end may be the first half of CR LF: wait for the next byte.
            if not lines[-1].endswith(b"\n"):
                held.append(lines.pop())
                held_bytes = len(held[0])
            for line in lines:
                number += 1
                yield number, line
        for line in b"".join(held).splitlines(keepends=True):
            number += 1
            yield number, line


def _ends_line(chunk: bytes) -> bool:
    return b"\n" in chunk or b"\r" in chunk


def too_long(path: str, line: int, cause: str = "") -> InputError:
    """Word the error for a row above `MAX_ROW_BYTES`."""
    hint = cause or "check that this is the right file and the right --format"
    return InputError(f"a row longer than {MAX_ROW_BYTES >> 20} MB", path=path, line=line, hint=hint)


CHUNK_BYTES = 1 << 16
STDIN_NAME = "<stdin>"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way to say: a gzip header and trailer, the largest window


class ByteInput:
    """Bytes that can be read from the start, once or (a regular file) several times.

    Args:
        name: how messages call it.
        fd: a descriptor that belongs to this object from now on, or `None` when `stream` is given.
        stream: a binary stream to read instead of a descriptor; it cannot be interrupted while it waits.
    """

    def __init__(self, name: str, fd: int | None = None, stream: BinaryIO | None = None) -> None:
        self.name = name
        self.delivered = 0
        """Bytes handed out since the last `rewind`, counted after unpacking."""
        self._fd = fd
        self._stream = stream
        self._stopped = False
        self._start = 0
        self._wake: tuple[int, int] | None = None
        self.regular = fd is not None and stat.S_ISREG(os.fstat(fd).st_mode)
        if fd is not None and self.regular:
            self._start = os.lseek(fd, 0, os.SEEK_CUR)
        elif fd is not None and hasattr(select, "poll"):
            self._wake = os.pipe()

    @property
    def size(self) -> int | None:
        """Bytes on disk, or `None` when this is not a regular file."""
        return os.fstat(self._fd).st_size if self.regular and self._fd is not None else None

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def signature(self) -> tuple[int, int] | None:
        """Size and time of the last change of a regular file: equal as long as nobody wrote to it."""
        if self._fd is None or not self.regular:
            return None
        facts = os.fstat(self._fd)
        return facts.st_size, facts.st_mtime_ns

    def rewind(self) -> None:
        """Go back to where a regular file was when it was opened."""
        self.delivered = 0
        if self._fd is not None and self.regular:
            os.lseek(self._fd, self._start, os.SEEK_SET)

    def stop(self) -> None:
        """Make the reading end as if the input did, from any thread, also while it waits for bytes."""
        self._stopped = True
        if self._wake is not None:
            os.write(self._wake[1], b"!")

    def close(self) -> None:
        """Give the descriptors back. Call it when no thread reads any more."""
        owned = [self._fd] if self._fd is not None else []
        owned += list(self._wake or ())
        self._fd, self._wake = None, None
        for fd in owned:
            os.close(fd)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces as they arrive, gzip unpacked.

        Raises:
            InputError: the input cannot be read, or its gzip data are broken or end early.
        """
        raw = self._raw_chunks()
        head = b""
        for piece in raw:
            head += piece
            if len(head) >= len(_GZIP_MAGIC):
                break
        pieces = self._unpacked(head, raw) if head.startswith(_GZIP_MAGIC) else _chain(head, raw)
        for piece in pieces:
            self.delivered += len(piece)
            yield piece

    def _raw_chunks(self) -> Iterator[bytes]:
        while not self._stopped:
            try:
                piece = self._read()
            except BlockingIOError:
                continue
            except OSError as error:
                raise InputError(f"cannot be read: {error.strerror or error}", path=self.name) from error
            if not piece:
                return
            yield piece

    def _read(self) -> bytes:
        if self._stream is not None:
            read_some = getattr(self._stream, "read1", self._stream.read)
            piece: bytes = read_some(CHUNK_BYTES)
            return piece
        if self._fd is None:
            return b""
        if self._wake is not None:
            waiting = select.poll()
            waiting.register(self._fd, select.POLLIN)
            waiting.register(self._wake[0], select.POLLIN)
            waiting.poll()
            if self._stopped:
                return b""
        return os.read(self._fd, CHUNK_BYTES)

    def _unpacked(self, head: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
        # Each call is bounded, so that a few packed bytes never become gigabytes in memory.
        unzip = zlib.decompressobj(_GZIP_WINDOW)
        data = head
        try:
            while True:
                out = unzip.decompress(data, CHUNK_BYTES)
                if out:
                    yield out
                if unzip.eof:
                    data = _next_member(unzip.unused_data, raw)
                    if not data:
                        return
                    unzip = zlib.decompressobj(_GZIP_WINDOW)
                    continue
                data = unzip.unconsumed_tail
                if data or len(out) == CHUNK_BYTES:
                    continue
                data = next(raw, b"")
                if not data:
                    break
        except zlib.error as error:
            raise InputError("broken gzip data", path=self.name, hint="check it with: gzip -t") from error
        if not self._stopped:
            raise InputError("the gzip data end too early", path=self.name, hint="fetch or write the file again")


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _next_member(unused: bytes, raw: Iterator[bytes]) -> bytes:
    """Return the start of the next gzip member; padding with NUL bytes is legal and means nothing."""
    while not (unused := unused.lstrip(b"\0")):
        piece = next(raw, b"")
        if not piece:
            return b""
        unused = piece
    return unused


def open_bytes(path: str, stream: BinaryIO | None = None) -> ByteInput:
    """Open an input.

    Args:
        path: a file, or `-` for standard input.
        stream: stands in for standard input when `path` is `-`.

    Raises:
        InputError: there is no such file, it is a directory, or it may not be read.
    """
    if path == "-" and stream is not None:
        return ByteInput(STDIN_NAME, stream=stream)
    name = STDIN_NAME if path == "-" else path
    try:
        fd = os.dup(0) if path == "-" else _open_file(path)
    except FileNotFoundError as error:
        raise InputError("no such file", path=name, hint=_nearby(path)) from error
    except ValueError as error:
        raise InputError(f"not a file name: {error}", path=repr(name)) from error
    except OSError as error:
        if path == "-":
            raise InputError("standard input is closed", path=name, hint="name a file") from error
        raise InputError(f"cannot be opened: {error.strerror or error}", path=name) from error
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError("is a directory", path=name, hint="name a file inside it")
    return ByteInput(name, fd)


def _open_file(path: str) -> int:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if stat.S_ISFIFO(Path(path).stat().st_mode):
        # Opening a named pipe waits for its writer; with this flag the wait happens in poll, which can be stopped.
        flags |= os.O_NONBLOCK
    return os.open(path, flags)


def _nearby(path: str) -> str:
    wanted = Path(path)
    try:
        names = sorted(entry.name for entry in wanted.parent.iterdir())
    except OSError:
        return f"there is no folder {wanted.parent} either"
    close = nearest(wanted.name, names)
    return f"did you mean {wanted.with_name(close)}?" if close else "check the name"
