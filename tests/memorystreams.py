"""Streams in memory that say they are a terminal."""

from __future__ import annotations

import io


class TerminalStream(io.StringIO):
    """A stream that is a terminal, with an encoding of its own."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._name = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a StringIO's own says None
        return self._name

    def isatty(self) -> bool:
        return True
