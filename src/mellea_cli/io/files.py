"""One output, one writer: a lock file that names its holder and dies with its process."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from mellea_cli.errors import OutputBusy, OutputError, ReaderGone

# Where an output goes: a file, standard output, or something special such as a device or a named pipe.

STDOUT_NAME = "<stdout>"
_STDOUT_PATHS = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_DESCRIPTOR_FOLDERS = ("/dev/fd/", "/proc/self/fd/")
_HINTS = {
    errno.ENOSPC: "make room, then type the same command again: finished answers are kept",
    errno.EDQUOT: "make room, then type the same command again: finished answers are kept",
    errno.EFBIG: "raise the limit for file sizes (ulimit -f), then type the same command again",
    errno.EACCES: "choose a place that you may write to with -o",
    errno.EPERM: "choose a place that you may write to with -o",
    errno.EROFS: "choose a place that can be written to with -o",
    errno.EIO: "check the disk, then type the same command again: finished answers are kept",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
    errno.EISDIR: "name a file inside it",
}


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """One resolved output."""

    kind: Literal["file", "stdout", "special"]
    name: str
    """How messages call it."""
    path: Path
    """The file itself, symbolic links followed; meaningless for standard output."""

    @property
    def partial(self) -> Path:
        """Where the finished rows grow while a run goes on."""
        return self._beside(".partial")

    @property
    def journal(self) -> Path:
        """Where the answers are kept."""
        return self._beside(".journal")

    @property
    def lock(self) -> Path:
        """What a run holds so that no other run writes this output."""
        return self._beside(".lock")

    @property
    def fresh(self) -> Path:
        """Where the whole output is written before it is renamed into place."""
        return self._beside(".new")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def resolve_output(output: str | None) -> OutputTarget:
    """Say what an output is; nothing is opened.

    Args:
        output: a path, or `-` or `None` for standard output.

    Raises:
        OutputError: it is a directory, or its directory is not there.
    """
    if output is None or output == "-" or output in _STDOUT_PATHS:
        return OutputTarget("stdout", STDOUT_NAME, Path("-"))
    if output.startswith(_DESCRIPTOR_FOLDERS) or output == "/dev/stderr":
        return OutputTarget("special", output, Path(output))
    try:
        path = Path(os.path.realpath(output))
        mode = path.stat().st_mode if path.exists() else None
    except (OSError, ValueError) as error:
        raise OutputError(f"{output!r}: not a file name: {error}", hint="choose another name with -o") from error
    if (mode is not None and stat.S_ISDIR(mode)) or output.endswith("/"):
        raise OutputError(f"{output}: is a directory", hint="name a file inside it")
    if mode is not None and not stat.S_ISREG(mode):
        return OutputTarget("special", output, path)
    if not path.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {path.parent}", hint=f"make it first: mkdir -p {path.parent}")
    return OutputTarget("file", output, path)


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to the same file, through links too; a path that is not there is compared by name."""
    try:
        return Path(first).samefile(second)
    except (OSError, ValueError):
        return os.path.realpath(first) == os.path.realpath(second)


def output_error(name: str, error: OSError) -> OutputError:
    """Word a failed write, with the way out where there is one."""
    if isinstance(error, BrokenPipeError):
        return ReaderGone(f"{name}: nobody reads it any more")
    code = error.errno or 0
    return OutputError(f"{name}: cannot be written: {error.strerror or error}", hint=_HINTS.get(code, ""))


# Bytes on their way to a file or a pipe, with every failure named.

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


# Files that are written in one go: whole and in place, or not at all.


def atomic_write(target: OutputTarget, pieces: Iterable[str]) -> None:
    """Write text in UTF-8. A file that is there stays as it is until everything has been written beside it.

    Args:
        target: where to, from `resolve_output`.
        pieces: the text, piece by piece.

    Raises:
        OutputError: it cannot be written there.
        ReaderGone: the reader of the pipe went away.
    """
    if target.kind != "file":
        out = (
            ByteOutput(1, target.name, owned=False)
            if target.kind == "stdout"
            else open_special(target.path, target.name)
        )
        _write(out, pieces)
        return
    mode = permissions(target.path)
    if mode is not None and not writable(target.path):
        raise OutputError(f"{target.name}: is write-protected", hint="choose another name with -o")
    try:
        _write(create_file(target.fresh, target.name, mode), pieces, durable=True)
        move_into_place(target.fresh, target.path, target.name)
    finally:
        with suppress(OSError):  # gone after the rename; after a failure it is only in the way
            target.fresh.unlink(missing_ok=True)


def _write(out: ByteOutput, pieces: Iterable[str], *, durable: bool = False) -> None:
    try:
        for piece in pieces:
            out.write(piece.encode())
        if durable:
            out.sync()
        else:
            out.flush()
    finally:
        out.close()


if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PID_TRIES = 20
_PID_WAIT_S = 0.01


class OutputLock:
    """An exclusive lock on an output, held until `release` or until the process ends, however it ends.

    The lock belongs to the open file, not to the name: a file that a dead process left behind does no harm.

    Args:
        path: the lock file.
        output: how messages call the output.
    """

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, at once or not at all.

        Raises:
            OutputBusy: another run holds it.
            OutputError: the lock file cannot be written.
        """
        try:
            while self._fd is None:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
                try:
                    if not _lock(fd):
                        raise self._busy()
                    # Its last holder may have removed the file between our open and our lock: then we hold nothing.
                    if _is_file(fd, self._path):
                        os.ftruncate(fd, 0)
                        os.write(fd, f"{os.getpid()}\n".encode())
                        self._fd, fd = fd, -1
                finally:
                    if fd >= 0:
                        os.close(fd)
        except OSError as error:
            raise output_error(str(self._path), error) from error

    def release(self) -> None:
        """Give the lock back and remove its file. Does nothing when it is not held."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        # Removed while it is held: nobody else can have locked this very file in between.
        with suppress(OSError):  # a leftover is harmless
            if _is_file(fd, self._path):
                self._path.unlink()
        os.close(fd)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _busy(self) -> OutputError:
        pid = self._holder()
        who = f"process {pid}" if pid else "another process"
        todo = f"wait for it or stop it (kill {pid})" if pid else "wait for it"
        return OutputBusy(
            f"{self._output}: is being written by {who}", hint=f"{todo}, or choose another output with -o"
        )

    def _holder(self) -> str:
        """Read the holder's pid; a holder that has only just taken the lock gets a moment to write it."""
        for _ in range(_PID_TRIES):
            with suppress(OSError):
                pid = self._path.read_text(encoding="ascii", errors="replace").strip()
                if pid.isdecimal():
                    return pid
            time.sleep(_PID_WAIT_S)
        return ""


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    _FAR = 1 << 30  # a locked byte cannot be read by others: lock one far behind the pid

    def _lock(fd: int) -> bool:
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(fd, 0, os.SEEK_SET)
        return True

else:

    def _lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
