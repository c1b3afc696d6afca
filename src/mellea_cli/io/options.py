"""How an input is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mellea_cli.errors import UsageError
from mellea_cli.io.delimiter import known_delimiter
from mellea_cli.io.detect import known_format
from mellea_cli.io.encoding import known_codec


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How an input is to be read; `None` means: find out.

    Raises:
        UsageError: an option makes no sense, whatever the input.
    """

    format: str | None = None
    """`jsonl`, `json`, `csv` or `tsv`."""
    text_field: str | None = None
    id_field: str | None = None
    encoding: str | None = None
    """Any text encoding that Python knows; without it UTF-8, or UTF-16 and UTF-32 by their byte order mark."""
    delimiter: str | None = None
    """One character, or a word such as `tab`."""
    limit: int | None = None
    """Take the first so many items."""
    sample: int | None = None
    """Take so many items by chance, in the order of the input; `limit` then applies to them."""
    seed: int = 0
    """The same seed takes the same sample."""
    on_bad_row: Literal["auto", "fail", "skip"] = "auto"
    """`auto` fails before the first item when the input can be checked first, else it skips and reports."""

    def __post_init__(self) -> None:
        if self.format is not None:
            known_format(self.format)
        if self.encoding is not None:
            known_codec(self.encoding)
        if self.delimiter is not None:
            known_delimiter(self.delimiter)
        for name, value in (("--limit", self.limit), ("--sample", self.sample)):
            if value is not None and value < 0:
                raise UsageError(f"{name} cannot be negative: {value}")
