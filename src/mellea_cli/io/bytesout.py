"""Bytes on their way to a file or a pipe, with every failure named."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import Protocol

from mellea_cli.io.target import output_error

_BUFFER_BYTES = 1 << 16


class TextStream(Protocol):
    """Where text can be written: all that is asked of a stream."""

    def write(self, text: str, /) -> object:
        """Take text."""
        ...

    def flush(self) -> None:
        """Pass it on."""
        ...


class TextOutput:
    """Writes rows as text, for a stream that is more than a descriptor: a terminal that shows other things as well.

    Args:
        stream: where to write.
        name: how messages call it.
    """

    def __init__(self, stream: TextStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take bytes; they are whole lines of UTF-8 by the time of `flush`."""
        self._held.append(data)

    def flush(self) -> None:
        """Write what was taken.

        Raises:
            OutputError: it cannot be written.
            ReaderGone: the reader of the pipe went away.
        """
        text, self._held = b"".join(self._held).decode(), []
        if not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Leave the stream open: it is not ours."""


class ByteOutput:
    """Writes to a descriptor: whole pieces, in order, buffered until `flush` or until there is much of it.

    Args:
        fd: where to write.
        name: how messages call it.
        owned: whether `close` closes the descriptor too.
    """

    def __init__(self, fd: int, name: str, *, owned: bool = True) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            OutputError: they, or bytes before them, cannot be written.
            ReaderGone: the reader of the pipe went away.
        """
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system, in one call where it takes it; raises as `write` does."""
        if not self._held:
            return
        left = memoryview(b"".join(self._held))
        self._held, self._held_bytes = [], 0
        try:
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:
                    # Somebody made the pipe non-blocking: wait until it takes more.
                    select.select([], [self._fd], [])
        except OSError as error:
            raise output_error(self._name, error) from error

    def sync(self) -> None:
        """Flush, and wait until the bytes are on the disk; raises as `write` does."""
        self.flush()
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Give the descriptor back; what was not flushed is lost."""
        if self._owned and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def create_file(path: Path, name: str, mode: int | None) -> ByteOutput:
    """Create or empty a file that belongs to a run.

    Args:
        path: the file; a symbolic link in its place is refused.
        name: how messages call it.
        mode: its permission bits, or `None` for what the umask leaves.

    Raises:
        OutputError: it cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags, 0o666 if mode is None else 0o600)
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(fd, mode)
    except OSError as error:
        raise output_error(name, error) from error
    return ByteOutput(fd, name)


def open_special(path: Path, name: str) -> ByteOutput:
    """Open a device, a named pipe or a descriptor for writing, as it is.

    Raises:
        OutputError: it cannot be opened.
    """
    try:
        return ByteOutput(os.open(path, os.O_WRONLY), name)
    except OSError as error:
        raise output_error(name, error) from error


def permissions(path: Path) -> int | None:
    """Return the permission bits of a file, or `None` when there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def move_into_place(source: Path, target: Path, name: str) -> None:
    """Rename a finished file onto its target, durably.

    Raises:
        OutputError: it cannot be renamed; the target is as it was.
    """
    try:
        source.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise output_error(name, error) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot do it
            raise
    finally:
        os.close(fd)


def writable(path: Path) -> bool:
    """Whether the user may write to a file that is there; renaming over it would not ask."""
    return os.access(path, os.W_OK)
