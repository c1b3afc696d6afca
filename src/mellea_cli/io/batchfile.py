"""Files of batch requests, written within a server's limits, and files of replies, read line by line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mellea_cli.errors import InputError
from mellea_cli.io.target import output_error

_CUSTOM_ID = re.compile(r"([0-9a-f]{32})-([A-Za-z0-9_]{1,31})")


def custom_id(key: bytes, step: str) -> str:
    """The id of one request: the answer's journal key in hex, and the step; at most 64 characters, as servers demand.

    Nothing else depends on it, so replies find their rows in whatever order they come, for an input in any order.
    """
    return f"{key.hex()}-{step}"


def is_ours(name: str) -> bool:
    """Whether a reply's id has the form of ours."""
    return _CUSTOM_ID.fullmatch(name) is not None


@dataclass(slots=True)
class BatchFile:
    """One file of requests that is being written. Readable for its owner alone: it holds feedback.

    Args:
        path: the file; an old one of this name is replaced.

    Raises:
        OutputError: it cannot be written.
    """

    path: Path
    custom_ids: list[str] = field(default_factory=list)
    """The requests in it, in order."""
    size: int = 0
    _file: BinaryIO = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "wb")
        except OSError as error:
            raise output_error(str(self.path), error) from error

    def add(self, name: str, line: bytes) -> None:
        """Write one request. Raises `OutputError` when it cannot be written."""
        try:
            self._file.write(line)
        except OSError as error:
            raise output_error(str(self.path), error) from error
        self.custom_ids.append(name)
        self.size += len(line)

    def finish(self) -> None:
        """Bring it to the disk. Raises `OutputError` when that fails."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(str(self.path), error) from error
        finally:
            self._file.close()

    def discard(self) -> None:
        """Close and remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self.discard()


def reply_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of replies that are not blank, with their numbers, one in memory at a time.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=str(path)) from error
