"""What the store and the places it fetches from agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.partial import PartialFile

BLOCK = 1024 * 1024
"""Bytes that are read or written at a time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull has come.

    Args:
        phase: `waiting` for another process that pulls the same file, `fetching`, or `checking` the hash.
        done: bytes fetched, or bytes hashed.
        total: bytes in the whole file.
        source: where the bytes come from, in a few words.
    """

    phase: Literal["waiting", "fetching", "checking"]
    done: int
    total: int
    source: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called often, in the thread that pulls; must return at once."""


class SourceFailed(Exception):
    """A source cannot give the file; the text is its reason, in one line.

    Never leaves this package: the store tries the next source, and names every reason when there is none left.
    """


class Source(Protocol):
    """A place that may have a model file."""

    @property
    def name(self) -> str:
        """What the place is called in progress and errors."""

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Append what is missing to `partial`, until it holds `model.size` bytes.

        The bytes that `partial` already holds may come from another source: they are a prefix of the one right file,
        or the hash will tell. Raises `SourceFailed`, and `OSError` when the disk refuses.
        """


def silent(progress: Progress) -> None:
    """A progress callback that does nothing."""
