"""The bytes of one input: a file, a pipe or a stream, unpacked when they are gzip, and stoppable while they wait."""

from __future__ import annotations

import difflib
import os
import select
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mellea_cli.errors import InputError

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
    close = difflib.get_close_matches(wanted.name, names, n=1)
    return f"did you mean {wanted.with_name(close[0])}?" if close else "check the name"
