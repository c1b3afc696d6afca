"""Output files: targets, streams of bytes, atomic replacement, and the lock on an output."""

from __future__ import annotations

import errno
import os
import select
import shlex
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Literal, Protocol, Self

from mellea_cli.errors import OutputBusy, OutputError, ReaderGone

if TYPE_CHECKING:
    from filelock import BaseFileLock

STDOUT_NAME = "<stdout>"
_STDOUT_PATHS = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_DESCRIPTOR_FOLDERS = ("/dev/fd/", "/proc/self/fd/")
_BUFFER_BYTES = 1 << 16
_HINTS = {
    errno.ENOSPC: "free some space, then run the same command again: finished answers are kept",
    errno.EDQUOT: "free some space, then run the same command again: finished answers are kept",
    errno.EFBIG: "raise the file size limit (ulimit -f), then run the same command again",
    errno.EACCES: "choose a folder that you may write to with -o",
    errno.EPERM: "choose a folder that you may write to with -o",
    errno.EROFS: "choose a writable folder with -o",
    errno.EIO: "check the disk, then run the same command again: finished answers are kept",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
    errno.EISDIR: "name a file inside it",
}


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """One resolved output: a file, standard output, or something special such as a device or a named pipe."""

    kind: Literal["file", "stdout", "special"]
    name: str  # The name in messages
    path: Path  # The file itself, symbolic links followed; meaningless for standard output

    @property
    def partial(self) -> Path:
        """The file that collects finished rows during a run."""
        return _with_suffix(self.path, ".partial")

    @property
    def journal(self) -> Path:
        """The file that stores the answers."""
        return _with_suffix(self.path, ".journal")

    @property
    def lock(self) -> Path:
        """The lock file that keeps a second run from writing this output."""
        return _with_suffix(self.path, ".lock")

    @property
    def fresh(self) -> Path:
        """The temporary file that is renamed to the output."""
        return _with_suffix(self.path, ".new")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def resolve_output(output: str | None) -> OutputTarget:
    """Find out what an output is; nothing is opened.

    Args:
        output: a path, or `-` or `None` for standard output.

    Raises:
        OutputError: the path is a directory, or its directory does not exist.
    """
    if output is None or output == "-" or output in _STDOUT_PATHS:
        return OutputTarget("stdout", STDOUT_NAME, Path("-"))
    if output.startswith(_DESCRIPTOR_FOLDERS) or output == "/dev/stderr":
        return OutputTarget("special", output, Path(output))
    if not output:
        raise OutputError("-o '': the name is empty", hint="check the variable that it comes from")
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
        raise OutputError(f"{output}: there is no folder {path.parent}", hint=f"create it: mkdir -p {path.parent}")
    try:
        os.lstat(f"{path}.journal-journal")  # the longest name of a file next to it
    except FileNotFoundError:
        pass
    except OSError as error:
        raise output_error(output, error) from error
    return OutputTarget("file", output, path)


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to the same file, through links too; a path that does not exist is compared by name."""
    try:
        return Path(first).samefile(second)
    except (OSError, ValueError):
        return os.path.realpath(first) == os.path.realpath(second)


def output_error(name: str, error: OSError) -> OutputError:
    """Return the `OutputError` for a failed write, with a hint where the cause has a remedy."""
    if isinstance(error, BrokenPipeError):
        return ReaderGone(f"{name}: the reader closed the pipe")
    hint = _HINTS.get(error.errno or 0, "")
    return OutputError(f"{name}: cannot be written: {error.strerror or error}", hint=hint)


class TextStream(Protocol):
    """A stream that takes text."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class TextOutput:
    """Writes rows to a text stream, such as a terminal that shows panels too.

    Args:
        stream: where to write; it belongs to the caller.
        name: the name in messages.
    """

    def __init__(self, stream: TextStream, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes) -> None:
        """Write whole characters in UTF-8.

        Raises:
            OutputError: the stream cannot be written.
            ReaderGone: the reader closed the pipe.
        """
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except OSError as error:
            raise output_error(self._name, error) from error

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class ByteOutput:
    """Buffered writer for a file descriptor; `close` closes one that is `owned`."""

    def __init__(self, fd: int, name: str, *, owned: bool = True) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> None:
        """Buffer bytes, and flush once there are many.

        Raises:
            OutputError: these bytes, or bytes before them, cannot be written.
            ReaderGone: the reader closed the pipe.
        """
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass the buffer to the operating system, in one call where it accepts that; raises as `write` does."""
        if not self._held:
            return
        rest = memoryview(b"".join(self._held))
        self._held, self._held_bytes = [], 0
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    # Another process that shares the pipe made it non-blocking.
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
        """Close an owned descriptor; what was not flushed is lost."""
        if self._owned and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def open_special(path: Path, name: str) -> ByteOutput:
    """Open a device, a named pipe or a descriptor for writing.

    Raises:
        OutputError: it cannot be opened.
    """
    try:
        return ByteOutput(os.open(path, os.O_WRONLY), name)
    except OSError as error:
        raise output_error(name, error) from error


class AtomicFile(ByteOutput):
    """A file that appears under its name whole, or not at all.

    Bytes go to a temporary file in the same folder, and `commit` renames it. Without `commit`, `close` and the end of
    a `with` block remove the temporary file; a file that had the name before is unchanged.

    Args:
        path: the file; symbolic links are not followed.
        name: its name in messages.
        temporary: the temporary file; by default `PATH.new`. A symbolic link in its place is refused.
        mode: permission bits; by default those of the file that has the name now, else those of the umask.
        keep: keep the temporary file when there is no `commit`.

    Raises:
        OutputError: the temporary file cannot be created, or what has this name is write-protected or no file.
    """

    def __init__(
        self, path: Path, name: str, *, temporary: Path | None = None, mode: int | None = None, keep: bool = False
    ) -> None:
        self.path = path
        self._temporary = temporary or _with_suffix(path, ".new")
        self._keep = keep
        if path.exists() and not (path.is_file() or path.is_dir()):
            # Renaming would put a file in the place of a device or a pipe.
            raise OutputError(f"{name}: is no regular file", hint="choose another name")
        if mode is None:
            with suppress(OSError):
                mode = stat.S_IMODE(path.stat().st_mode)
                # Renaming needs permission for the folder only, so it would replace a write-protected file.
                if not os.access(path, os.W_OK):
                    raise OutputError(f"{name}: is write-protected", hint="choose another name with -o")
        temporary_name = name + self._temporary.name.removeprefix(path.name)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            fd = os.open(self._temporary, flags, 0o666 if mode is None else 0o600)
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(fd, mode)
        except OSError as error:
            raise output_error(temporary_name, error) from error
        super().__init__(fd, temporary_name)

    def opened(self) -> IO[bytes]:
        """The temporary file for a library that writes it by itself; close it before `commit`."""
        self.flush()
        return open(self._fd, "w+b", closefd=False)

    def commit(self, *, overwrite: bool = True) -> None:
        """Rename the file into place, durably; raises as `write` does.

        Raises:
            FileExistsError: there is a file with this name and `overwrite` is false.
        """
        self.sync()
        super().close()
        if not overwrite and self.path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        try:
            self._temporary.replace(self.path)
            self._keep = True
            sync_folder(self.path.parent)
        except OSError as error:
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Close the file, and remove the temporary file unless it was committed or is kept."""
        super().close()
        if not self._keep:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def atomic_write(target: OutputTarget, pieces: Iterable[str]) -> None:
    """Write text in UTF-8; an existing file is replaced when all of it is written.

    Raises:
        OutputError: the target cannot be written.
        ReaderGone: the reader closed the pipe.
    """
    if target.kind == "file":
        with AtomicFile(target.path, target.name) as file:
            for piece in pieces:
                file.write(piece.encode())
            file.commit()
        return
    stdout = target.kind == "stdout"
    out = ByteOutput(1, target.name, owned=False) if stdout else open_special(target.path, target.name)
    try:
        for piece in pieces:
            out.write(piece.encode())
        out.flush()
    finally:
        out.close()


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
_PID_TRIES = 20
_PID_WAIT_S = 0.01


class OutputLock:
    """Exclusive lock on an output, held until `release` or until the process ends, however it ends.

    The lock belongs to the open file, not to the name: the file of a dead process holds nothing.
    """

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output
        self._fd = -1
        self._lock: BaseFileLock | None = None

    def acquire(self) -> None:
        """Take the lock without waiting for it.

        Raises:
            OutputBusy: another run holds it.
            OutputError: the lock file cannot be written.
        """
        from filelock import FileLock, Timeout

        if not self._path.parent.is_dir():  # the library would create it
            raise output_error(str(self._path), FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        # Without `thread_local=False` only the acquiring thread could release it. A soft lock would outlive a crash.
        lock = FileLock(self._path, thread_local=False, fallback_to_soft=False, on_acquired=self._write_pid)
        while self._lock is None:
            try:
                lock.acquire(blocking=False)
                self._lock = lock
            except Timeout as error:
                pid = self._read_pid()
                # The holder removes the file when it releases the lock: without a file there is no holder any more.
                if self._path.exists():
                    raise self._busy(pid) from error
            except (OSError, NotImplementedError) as error:
                if getattr(error, "errno", None) in _NO_LOCKS or isinstance(error, NotImplementedError):
                    raise OutputError(
                        f"{self._path}: the file system has no locks ({error})",
                        hint="choose a folder on this machine with -o, or use --no-lock and start no second run on it",
                    ) from error
                raise output_error(str(self._path), error) from error

    def release(self) -> None:
        """Release the lock and remove its file; does nothing when it is not held."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        # Removed before it is unlocked: after that, another process may have locked this very file.
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                self._path.unlink()
        lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _write_pid(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def _read_pid(self) -> str:
        # A holder that has just taken the lock needs a moment to write its pid.
        for _ in range(_PID_TRIES):
            with suppress(OSError):
                pid = self._path.read_text(encoding="ascii", errors="replace").strip()
                if pid.isdecimal():
                    return pid
            time.sleep(_PID_WAIT_S)
        return ""

    def _busy(self, pid: str) -> OutputBusy:
        holder = f"process {pid}" if pid else "another process"
        hint = f"wait for it, or stop it: mellea stop {shlex.quote(self._output)}; or choose another output with -o"
        return OutputBusy(f"{self._output}: is being written by {holder}", hint=hint)
