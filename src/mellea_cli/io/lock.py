"""One output, one writer: a lock file that names its holder and dies with its process."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mellea_cli.errors import OutputBusy, OutputError
from mellea_cli.io.target import output_error

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
