"""A lock between processes that dies with the process that holds it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(handle: BinaryIO) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_lock(handle: BinaryIO) -> None:
        while not _try_lock(handle):
            time.sleep(0.5)

else:
    import fcntl

    def _try_lock(handle: BinaryIO) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_lock(handle: BinaryIO) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)


class LockBusy(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock file at `path` for the length of the block.

    The file stays behind, empty: removing it would let two processes hold two files of one name.

    Args:
        path: the lock file, made when it is not there.
        waiting: called once before waiting for another holder; `None` means not to wait.

    Raises:
        LockBusy: somebody else holds it and `waiting` is `None`.
    """
    with path.open("ab") as handle:
        if not _try_lock(handle):
            if waiting is None:
                raise LockBusy(path)
            waiting()
            _wait_lock(handle)
        yield
