"""Input bytes: opening files and pipes, unpacking gzip, zstd and zip, choosing the encoding, and splitting lines."""

from __future__ import annotations

import codecs
import os
import re
import select
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from mellea_cli.errors import InputError, UsageError, name_some, nearest
from mellea_cli.extensions import extra_module

CHUNK_BYTES = 1 << 16
MAX_ROW_BYTES = 64 << 20  # The longest row that is read. A longer one is a broken file or a gzip bomb, not feedback.
STDIN_NAME = "<stdin>"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's code for a gzip header and trailer with the largest window
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZIP_MAGIC = b"PK\x03\x04"
_MAGIC_BYTES = 4
_MOST_PACKED = 2
PART = "::"  # Between a file and what is taken out of it: a table, a sheet, a file of an archive


def split_part(path: str) -> tuple[str, str]:
    """Divide `FILE::PART` into both; a file whose own name is such is no such pair."""
    file, mark, part = path.rpartition(PART)
    return (file, part) if mark and file and not os.path.lexists(path) else (path, "")


def zstd_module() -> Any:
    """Python's own zstd from 3.14 on, before that its backport.

    Raises:
        UsageError: the backport is not installed.
    """
    return extra_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "zstd data")


def open_bytes(path: str, stream: BinaryIO | None = None) -> ByteInput:
    """Open an input.

    Args:
        path: a file, `FILE::PART` for a table, a sheet or a file of an archive, or `-` for standard input.
        stream: replaces standard input when `path` is `-`.

    Raises:
        InputError: the file does not exist, is a directory, or cannot be read.
    """
    whole, (path, part) = path, split_part(path)
    if path == "-" and stream is not None:
        return ByteInput(STDIN_NAME, stream=stream)
    name = STDIN_NAME if path == "-" else whole
    try:
        fd = os.dup(0) if path == "-" else _open_file(path)
    except FileNotFoundError as error:
        # The files next to an output that is written at the end of its run
        if path != "-" and any(Path(path + suffix).exists() for suffix in (".partial", ".journal")):
            message = "is not there yet: its run was interrupted, or goes on"
            hint = "mellea status shows a run that goes on; else the same summarise command again continues it"
            raise InputError(message, path=name, hint=hint) from error
        raise InputError("no such file", path=name or "''", hint=_missing_file_hint(Path(path), path)) from error
    except ValueError as error:
        raise InputError(f"not a file name: {error}", path=repr(name)) from error
    except OSError as error:
        if path == "-":
            raise InputError("standard input is closed", path=name, hint="name a file") from error
        raise InputError(f"cannot be opened: {error.strerror or error}", path=name) from error
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError("is a directory", path=name, hint="name a file inside it")
    return ByteInput(name, fd, path="" if path == "-" else path, part=part)


def _open_file(path: str) -> int:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if stat.S_ISFIFO(Path(path).stat().st_mode):
        # Opening a named pipe waits for its writer; with this flag the wait happens in `poll`, which `stop` can end.
        flags |= os.O_NONBLOCK
    return os.open(path, flags)


def _missing_file_hint(path: Path, written: str) -> str:
    if not written:
        return "the name is empty: check the variable that it comes from"
    if re.match(r"[a-z]{3,5}:/+", written, re.IGNORECASE):
        return "an input is a file: fetch it first, such as with curl -o FILE ADDRESS, and name that"
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which is not there"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"there is no folder {path.parent} either"
    close = nearest(path.name, names)
    return f"did you mean {path.with_name(close)}?" if close else "check the name"


class ByteInput:
    """Bytes that can be read from the start: once, or several times when the input is a regular file.

    It closes the descriptor. `stop` cannot interrupt a stream, which is given instead of one, while that waits. `part`
    is what is to be taken out of the file: a table, a sheet or a file of an archive; empty for the only one.
    """

    def __init__(
        self, name: str, fd: int | None = None, stream: BinaryIO | None = None, *, path: str = "", part: str = ""
    ) -> None:
        self.name = name
        self.path = path
        self.part = part
        self.packed_name = path or name  # The name that tells the format: of a zip archive the name of its file
        self._spooled: IO[bytes] | None = None
        self._packed = False
        self.delivered = 0  # Bytes delivered since the last `rewind`, counted after unpacking
        self.stopped = False
        self._fd = fd
        self._stream = stream
        self._start = 0
        self._wake: tuple[int, int] | None = None
        self._regular = fd is not None and stat.S_ISREG(os.fstat(fd).st_mode)
        if fd is not None and self._regular:
            self._start = os.lseek(fd, 0, os.SEEK_CUR)
        elif fd is not None and hasattr(select, "poll"):
            self._wake = os.pipe()

    @property
    def size(self) -> int | None:
        """Bytes on disk, or `None` when this is not a regular file."""
        return os.fstat(self._fd).st_size if self._regular and self._fd is not None else None

    def signature(self) -> tuple[int, int] | None:
        """Size and time of the last change of a regular file: the same while the file is unchanged."""
        if self._fd is None or not self._regular:
            return None
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns

    def rewind(self) -> None:
        """Return to the place of a regular file where it was opened."""
        self.delivered = 0
        if self._fd is not None and self._regular:
            os.lseek(self._fd, self._start, os.SEEK_SET)

    def stop(self) -> None:
        """End the reading as at the end of the input. Safe from any thread, also while `chunks` waits for bytes."""
        self.stopped = True
        if self._wake is not None:
            os.write(self._wake[1], b"!")

    def close(self) -> None:
        """Close the descriptors. Call it when no thread reads."""
        owned = [self._fd] if self._fd is not None else []
        owned += list(self._wake or ())
        self._fd, self._wake = None, None
        for fd in owned:
            os.close(fd)
        if self._spooled is not None:
            self._spooled.close()
            self._spooled = None

    def count(self, size: int) -> None:
        """Count bytes that a reader of the file itself has delivered."""
        self.delivered += size

    def file(self, chunks: Iterator[bytes]) -> str:
        """Return the path of a file with all the bytes: this file, or a temporary one for a pipe or packed bytes.

        Args:
            chunks: the bytes from the start, unpacked.
        """
        if self._regular and self.path and self.packed_name == self.path and not self._packed:
            return self.path
        if self._spooled is None:
            self._spooled = tempfile.NamedTemporaryFile(prefix="mellea-")  # noqa: SIM115 - `close` closes it
            self._spool(chunks, self._spooled)
        return self._spooled.name

    def _spool(self, pieces: Iterator[bytes], file: IO[bytes]) -> None:
        try:
            file.writelines(pieces)
            file.flush()
        except OSError as error:
            message = f"cannot be stored in a temporary file: {error.strerror or error}"
            hint = "free some space in the folder for temporary files, or set TMPDIR to another one"
            raise InputError(message, path=self.name, hint=hint) from error

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces as they arrive, unpacked from gzip, zstd or a zip archive with one file.

        Raises:
            InputError: the input cannot be read, its packed data are broken or end early, or an archive has several
                files.
            UsageError: what unpacks it is not installed.
        """
        head, pieces = _with_head(self._raw_chunks())
        packed = False
        # A web server packs what is packed already, and the browser stores both.
        for _ in range(_MOST_PACKED):
            if head.startswith(_GZIP_MAGIC):
                pieces = self._unpacked(pieces)
            elif head.startswith(_ZSTD_MAGIC):
                pieces = self._unpacked_zstd(pieces)
            else:
                break
            self._packed = packed = True
            head, pieces = _with_head(pieces)
        if head.startswith(_ZIP_MAGIC) and not packed:
            pieces = self._from_archive(pieces)
        for piece in pieces:
            self.delivered += len(piece)
            yield piece

    def _raw_chunks(self) -> Iterator[bytes]:
        while not self.stopped:
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
            if self.stopped:
                return b""
        return os.read(self._fd, CHUNK_BYTES)

    def _unpacked(self, packed: Iterator[bytes]) -> Iterator[bytes]:
        unzip = zlib.decompressobj(_GZIP_WINDOW)
        data = next(packed)
        try:
            while True:
                # The output of each call is bounded: a few packed bytes never become gigabytes in memory.
                out = unzip.decompress(data, CHUNK_BYTES)
                if out:
                    yield out
                if unzip.eof:
                    data = _next_member(unzip.unused_data, packed)
                    if not data:
                        return
                    unzip = zlib.decompressobj(_GZIP_WINDOW)
                    continue
                data = unzip.unconsumed_tail
                if data or len(out) == CHUNK_BYTES:
                    continue
                data = next(packed, b"")
                if not data:
                    break
        except zlib.error as error:
            raise InputError("broken gzip data", path=self.name, hint="check it with: gzip -t") from error
        if not self.stopped:
            raise InputError("the gzip data end too early", path=self.name, hint="fetch or write the file again")

    def _unpacked_zstd(self, packed: Iterator[bytes]) -> Iterator[bytes]:
        zstd = zstd_module()
        unzip = zstd.ZstdDecompressor()
        data = next(packed)
        try:
            while True:
                if out := unzip.decompress(data, CHUNK_BYTES):
                    yield out
                if unzip.eof:
                    data = unzip.unused_data or next(packed, b"")
                    if not data:
                        return
                    unzip = zstd.ZstdDecompressor()
                    continue
                data = b"" if not unzip.needs_input else next(packed, b"")
                if unzip.needs_input and not data:
                    break
        except zstd.ZstdError as error:
            raise InputError("broken zstd data", path=self.name, hint="check it with: zstd -t") from error
        if not self.stopped:
            raise InputError("the zstd data end too early", path=self.name, hint="fetch or write the file again")

    def _from_archive(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The only file of a zip archive, or the one that is named; a workbook, which is an archive, too, as it is."""
        with tempfile.TemporaryFile() as spooled:
            if self._regular and self._fd is not None:
                os.lseek(self._fd, self._start, os.SEEK_SET)
                whole: BinaryIO = open(self._fd, "rb", closefd=False)  # noqa: SIM115 - it is the caller's descriptor
            else:
                self._spool(pieces, spooled)
                whole = spooled
            try:
                with zipfile.ZipFile(whole) as archive:
                    names = [one.filename for one in archive.infolist() if not one.is_dir()]
                    if "[Content_Types].xml" in names or {"mimetype", "content.xml"} <= {*names}:
                        whole.seek(0)
                        yield from iter(lambda: whole.read(CHUNK_BYTES), b"")
                        return
                    member = self._member([name for name in names if not _is_hidden(name)])
                    self.packed_name, self._packed = member, True
                    with archive.open(member) as file:
                        yield from iter(lambda: file.read(CHUNK_BYTES), b"")
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                hint = "fetch or write the file again; check it with: unzip -t"
                raise InputError(f"broken zip archive: {error}", path=self.name, hint=hint) from error
            except RuntimeError as error:  # what the module raises for a password
                hint = "unpack it first, and name the file"
                raise InputError("is a zip archive with a password", path=self.name, hint=hint) from error
            except NotImplementedError as error:
                raise InputError(f"cannot be unpacked: {error}", path=self.name, hint="unpack it first") from error

    def _member(self, names: list[str]) -> str:
        if not names:
            raise InputError("is a zip archive without a file", path=self.name)
        if self.part:
            if self.part in names:
                return self.part
            near = nearest(self.part, names)
            hint = f"did you mean {self.path}{PART}{near}?" if near else ""
            raise InputError(f"the archive has no such file; it has {name_some(names)}", path=self.name, hint=hint)
        if len(names) > 1:
            hint = f"name one: {self.path or 'FILE.zip'}{PART}{names[0]}"
            raise InputError(f"is a zip archive with {len(names)} files: {name_some(names)}", path=self.name, hint=hint)
        return names[0]


def _with_head(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all of them again."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _MAGIC_BYTES:
            break
    return head, chain((head,) if head else (), pieces)


def _is_hidden(name: str) -> bool:
    # macOS packs a folder with its own notes about each file.
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _next_member(unused: bytes, packed: Iterator[bytes]) -> bytes:
    # Padding with NUL bytes between and after the members of a gzip file is legal.
    while not (unused := unused.lstrip(b"\0")):
        piece = next(packed, b"")
        if not piece:
            return b""
        unused = piece
    return unused


_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of an input."""

    codec: str  # Python's name of the codec
    mark: int = 0  # Length in bytes of the byte order mark, which is no part of the text

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
        "".encode(name)  # refuses codecs that are not for text, such as base64
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        hint = "common ones are utf-8, utf-16, cp1252 and latin-1"
        raise UsageError(f"unknown encoding: {name!r}", hint=hint) from error


def choose_encoding(head: bytes, wanted: str | None, path: str) -> Encoding:
    """Choose the encoding: the user's, else that of the byte order mark, else UTF-8.

    Raises:
        UsageError: as `known_codec` does.
        InputError: the first bytes contradict the user, or look like UTF-16 without a byte order mark.
    """
    mark = next((entry for entry in _BYTE_ORDER_MARKS if head.startswith(entry[0])), None)
    if wanted is not None:
        codec = known_codec(wanted)
        if mark is None:
            return Encoding(codec)
        if not codec.startswith("utf"):
            raise InputError(
                f"starts with a {mark[2]} byte order mark, but --encoding says {wanted}",
                path=path,
                hint="run it without --encoding",
            )
        return Encoding(codec if codec.startswith("utf-7") else mark[1], len(mark[0]))
    if mark is not None:
        # A program that does not know the mark of what it reads puts another one in front.
        length = len(mark[0])
        while head.startswith(mark[0], length):
            length += len(mark[0])
        return Encoding(mark[1], length)
    if utf16 := _unmarked_utf16(head):
        raise InputError("looks like UTF-16 without a byte order mark", path=path, hint=f"add --encoding {utf16}")
    if b"\x1b$B" in head or b"\x1b$@" in head:
        raise InputError("is ISO-2022-JP, not UTF-8 text", path=path, hint="add --encoding iso-2022-jp")
    return Encoding("utf-8")


def _unmarked_utf16(head: bytes) -> str:
    # In mostly Latin text every other byte of UTF-16 is zero.
    sample = head[:512]
    if len(sample) < 4:
        return ""
    half = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > half * 0.6 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.6 and odd < half * 0.1:
        return "utf-16-be"
    # In other scripts only spaces, digits and line ends have the zero, but always on the same side.
    zeros, codec = (odd, "utf-16-le") if odd else (even, "utf-16-be")
    if zeros < 2 or (even and odd):
        return ""
    text = sample.decode(codec, "replace")[:-1]
    # A text in UTF-8 may have a zero here and there. UTF-16 read as UTF-8 breaks, or is full of control characters.
    plain = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    controls = sum(char < " " and char not in "\t\r\n\0" for char in plain)
    if "\ufffd" not in plain and controls < len(plain) / 4:
        return ""
    return codec if all(char.isprintable() or char in "\t\r\n" for char in text) and "\ufffd" not in text else ""


# Encodings of real exports. In a short text several fit equally well: then the first of them is guessed.
_LIKELY_CODECS = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "cp932", "gb18030", "big5", "cp949", "latin_1",
    "mac_roman", "euc_jp", "koi8_r", "cp866", "cp1255", "cp1256"
]  # fmt: skip
# Encodings of Latin letters, which the library's measures confuse. Those of old systems need better evidence.
_LATIN_CODECS = ("cp1252", "cp1250", "cp1254", "latin_1")
_OLD_LATIN_CODECS = ("mac_roman", "cp850", "cp437")
_FREQUENT_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüßœ")
_RARE_LETTERS = frozenset("ýðþÿąćęłńśźżčďěňřšťůžőűăşţđğı")
_BEFORE_WORDS = "\u201e\u201a\xbf\xa1\xab"
_AROUND_WORDS = "\u201c\u201d\u2018\u2026\u2013\u2014\u20ac\xa3\xbb\xb0\xa0\xae\u2122\xa7"
_GUESS_BYTES = 1 << 14
_SNIPPET = 20


def _undecodable(error: UnicodeDecodeError, sample: bytes, encoding: Encoding, path: str, line: int) -> InputError:
    """Return the error for bytes that are not text in the expected encoding; a longer sample makes a better guess."""
    data: bytes = error.object
    bad = data[error.start : max(error.end, error.start + 1)][:4]
    around = data[max(0, error.start - _SNIPPET) : error.start + _SNIPPET]
    hint = "name the encoding with --encoding NAME"
    if encoding.codec == "utf-8" and any(map(_is_utf8, sample.splitlines())):
        hint = "other lines are UTF-8: write this one again, as --encoding would spoil the others"
    elif (guess := guess_codec(sample)) and guess != encoding.codec:
        text = "".join(char if char.isprintable() else " " for char in around.decode(guess, "replace")).strip()
        hint = f"add --encoding {guess} if this reads right: {text}"
    shown = f"byte 0x{bad.hex()}" if len(bad) == 1 else f"bytes 0x{bad.hex(' ').replace(' ', ' 0x')}"
    return InputError(f"{shown}: not {encoding.codec.upper()} text", path=path, line=line, hint=hint)


def _is_utf8(line: bytes) -> bool:
    """Whether a line has characters outside ASCII, and is UTF-8."""
    try:
        return not line.isascii() and bool(line.decode())
    except UnicodeDecodeError:
        return False


def guess_codec(sample: bytes) -> str:
    """The likely encoding of a text that is not UTF-8; empty when none is."""
    from charset_normalizer import from_bytes

    # The library's own choice prefers rare encodings for short texts, so its measures are used with our order.
    guesses = {
        codec: (round(match.chaos, 1), -match.coherence, _LIKELY_CODECS.index(codec))
        for match in from_bytes(sample, cp_isolation=_LIKELY_CODECS)
        for codec in match.could_be_from_charset
        if codec in _LIKELY_CODECS
    }
    best = min(guesses, key=guesses.__getitem__, default="")
    if not best or best in (*_LATIN_CODECS, *_OLD_LATIN_CODECS):
        fits = {codec: _latin_fit(sample, codec) for codec in (*_LATIN_CODECS, *_OLD_LATIN_CODECS)}
        unmeasured = (1.0, 0.0, len(_LIKELY_CODECS))
        usual = min(_LATIN_CODECS, key=lambda codec: (-fits[codec][0], guesses.get(codec, unmeasured)))
        best_fit, best = max(((fits[codec][1], codec) for codec in (usual, *_OLD_LATIN_CODECS)), key=itemgetter(0))
        best = best if best_fit > 0.5 else min(guesses, key=guesses.__getitem__, default="")
    return best.replace("_", "-")


def _latin_fit(sample: bytes, codec: str) -> tuple[float, float]:
    """How well the characters outside ASCII fit where they stand, from -1 to 1; again with rare letters for less."""
    try:
        text = f"  {sample.decode(codec)} "
    except UnicodeDecodeError:
        return -1.0, -1.0
    places = [at for at, char in enumerate(text) if not char.isascii()]
    fits = [_fit(text, at) for at in places]
    rare = sum(fit > 0 and text[at].lower() in _RARE_LETTERS for at, fit in zip(places, fits, strict=True))
    count = max(1, len(places))
    return sum(fits) / count, (sum(fits) - rare / 10) / count


def _fit(text: str, at: int) -> float:
    """Whether a character stands where one of its kind stands: 1 for yes, -1 for no."""
    char, before, after = text[at], text[at - 1], text[at + 1]
    if (letter := char.lower()) in _FREQUENT_LETTERS or letter in _RARE_LETTERS:
        # No Latin language has three of them in a row, as other scripts read as Latin have.
        in_row = not before.isascii() and not text[at - 2].isascii()
        return -1 if in_row or (char.isupper() and before.islower()) else 1
    in_word = before.isalpha() and after.isalpha()
    if char == "\u2019":
        return 1 if in_word else 0.5
    if char in _BEFORE_WORDS:
        return -1 if before.isalpha() else 1
    return 1 if char in _AROUND_WORDS and not in_word else -1


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which no server accepts, with U+FFFD; whole pairs become their character."""
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
    piece = b""
    try:
        for piece in chunks:
            text = decoder.decode(piece)
            place.advance(text, 0, len(text))
            if text:
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest
    except UnicodeDecodeError as error:
        text = error.object[: error.start].decode(encoding.codec, "replace")
        place.advance(text, 0, len(text))
        if text:
            # Rows before the bad bytes count, however much has arrived at once.
            yield text
        sample = piece[:_GUESS_BYTES] or error.object
        raise _undecodable(error, sample, encoding, path, place.line) from error


class LineCounter:
    """Counts line ends (LF, CR LF or a lone CR) in text that comes in pieces; a CR LF may be cut in two."""

    __slots__ = ("_after_cr", "column", "line")

    def __init__(self) -> None:
        self.line = 1
        self.column = 1  # In characters, counted from 1
        self._after_cr = False

    def advance(self, text: str, start: int, end: int) -> None:
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


class Lines:
    """Physical lines of an input as `(number, bytes)`, line ends kept.

    A line ends at LF, CR LF or a lone CR, and nowhere else: U+2028 inside a text does not split it. The bytes come
    without a byte order mark.
    """

    def __init__(self, chunks: Iterator[bytes], encoding: Encoding, path: str) -> None:
        self.path = path
        self._encoding = encoding
        self._chunks = chunks
        if not encoding.keeps_ascii:
            self._chunks = (text.encode() for text in decoded_chunks(chunks, encoding, path))
            self._encoding = Encoding("utf-8")
        self.codec = self._encoding.codec  # The codec of the lines: decode each with it
        self._block = b""

    def undecodable(self, error: UnicodeDecodeError, number: int) -> InputError:
        """Return the error for a line that `codec` cannot decode."""
        # The lines around the bad one make the guess better.
        at = max(0, self._block.find(error.object) - _GUESS_BYTES // 2)
        sample = self._block[at : at + _GUESS_BYTES]
        return _undecodable(error, sample, self._encoding, self.path, number)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        held: list[bytes] = []
        held_bytes = 0
        for chunk in self._chunks:
            if held and b"\n" not in chunk and b"\r" not in chunk:
                # A long line: collect its pieces instead of copying it again for each of them.
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes > MAX_ROW_BYTES:
                    raise too_long(self.path, number + 1)
                continue
            if not chunk:
                continue
            held.append(chunk)
            self._block = b"".join(held)
            lines = self._block.splitlines(keepends=True)
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


def too_long(
    path: str, line: int, hint: str = "check that this is the right file and the right --format"
) -> InputError:
    """Return the error for a row above `MAX_ROW_BYTES`."""
    return InputError(f"a row longer than {MAX_ROW_BYTES >> 20} MB", path=path, line=line, hint=hint)
