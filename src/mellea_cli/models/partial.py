"""A file that is still being fetched, and can be gone on with after any kind of end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_CHECKPOINT = 16 * 1024 * 1024
"""Bytes between two syncs: what a power cut can cost at most."""


class PartialFile:
    """The beginning of a file, with a note beside it of how many bytes are surely on disk.

    After a crash the tail behind that number may be torn (a grown file whose last pages never reached the disk), so
    it is cut off on opening. Leaving the `with` block syncs, whatever the reason for leaving.

    Args:
        path: where the bytes are gathered; the note stands at `path` + `.json`.
        size: how many bytes the whole file has; more are refused.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._note = path.with_name(path.name + ".json")
        self._file: BinaryIO | None = None
        self._kept = 0
        self._synced = 0

    @property
    def kept(self) -> int:
        """Bytes gathered so far."""
        return self._kept

    @property
    def complete(self) -> bool:
        """Whether all bytes are there; their hash is another question."""
        return self._kept == self.size

    def __enter__(self) -> Self:
        noted = _noted(self._note)
        self._open(noted if noted <= self.size else 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            try:
                self.sync()
            finally:
                self._file.close()
                self._file = None

    def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            ValueError: there would be more than `size`.
        """
        if self._kept + len(data) > self.size:
            raise ValueError(f"more than the {self.size} bytes that the file has")
        self._opened().write(data)
        self._kept += len(data)
        if self._kept - self._synced >= _CHECKPOINT:
            self.sync()

    def sync(self) -> None:
        """Bring everything appended so far to the disk, then note how much that is."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        if self._synced != self._kept:
            beside = self._note.with_name(self._note.name + ".new")
            beside.write_text(json.dumps({"kept": self._kept}), encoding="utf-8")
            beside.replace(self._note)
            self._synced = self._kept

    def restart(self) -> None:
        """Forget every byte."""
        self._clear()
        self._open(0)

    def adopt(self, whole: Path) -> None:
        """Take a whole file that is already on this machine instead of fetching it: as a hard link, else as a copy.

        Raises:
            ValueError: `whole` does not have the right size.
        """
        if whole.stat().st_size != self.size:
            raise ValueError(f"{whole} does not have {self.size} bytes")
        self._clear()
        try:
            self.path.hardlink_to(whole)
        except OSError:
            shutil.copyfile(whole, self.path)
        self._open(self.size)

    def move_to(self, target: Path) -> None:
        """Give the finished file its name; this object must not be used afterwards."""
        self.sync()
        self._opened().close()
        self._file = None
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def _open(self, known: int) -> None:
        """Open at the `known`-th byte, cutting off what lies behind it."""
        if known == 0:
            self._clear()
        self._file = self.path.open("ab")
        there = self._file.tell()
        self._kept = self._synced = min(there, known)
        if there > self._kept:
            self._file.truncate(self._kept)

    def _clear(self) -> None:
        # Unlinked, not emptied: after `adopt` the same bytes may belong to another program's cache as well.
        if self._file is not None:
            self._file.close()
            self._file = None
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        return self._file


def remove_partial(path: Path) -> int:
    """Remove a partial file and its note; returns the bytes that became free."""
    freed = bytes_of(path)
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".json").unlink(missing_ok=True)
    return freed


def bytes_of(path: Path) -> int:
    """The file's size; 0 when it is not there, or went away at this moment (another process may be at work)."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _noted(note: Path) -> int:
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))["kept"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # no note, or a torn one: nothing is known to be whole
    return kept if isinstance(kept, int) and kept >= 0 else 0


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; where folders cannot be synced (Windows) the file system does it in its own time."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
