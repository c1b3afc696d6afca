"""Cuts Markdown that is still arriving into blocks: those that are finished never change again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "item", "open", "code", "close"]

_FENCE = re.compile(r"( *)(`{3,}|~{3,})[ \t]*([^`]*)$")
_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)])([ \t]+|$)")
_HEADING = re.compile(r" {0,3}#{1,6}([ \t]|$)")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that is finished.

    Args:
        kind: `text` for a block of Markdown, `item` for an item of a list with all that is in it; a code block comes as
            `open`, its lines as `code`, and `close`.
        text: the Markdown; for `open` the language, for `code` one line.
        gap: whether an empty line stands before it.
    """

    kind: Kind
    text: str
    gap: bool = False


class Blocks:
    """Takes text as it comes and gives finished pieces; what is left is the tail."""

    def __init__(self) -> None:
        self._rest = ""
        self._lines: list[str] = []
        self._item: int | None = None
        """Where the text of the list's item begins; `None` outside of lists."""
        self._blank = False
        self._fence = ""
        """The fence of the code block that is open."""
        self._indent = 0
        self._inner = ""
        """The fence of a code block inside a list's item."""
        self._last: Kind | None = None
        self._gap = False

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what it finishes."""
        *lines, self._rest = (self._rest + text).split("\n")
        return [piece for line in lines for piece in self._line(line.removesuffix("\r"))]

    def end(self) -> list[Piece]:
        """The answer has ended: return all that is left."""
        pieces = list(self._line(self._rest)) if self._rest else []
        self._rest = ""
        pieces += self._finish()
        if self._fence:
            self._fence = ""
            pieces.append(Piece("close", ""))
        return pieces

    @property
    def tail(self) -> Piece | None:
        """What is not finished, as it would be if the answer ended here; `None` when there is nothing."""
        if self._fence:
            return Piece("code", self._cut(self._rest)) if self._rest else None
        lines = [*self._lines, self._rest] if self._rest else self._lines
        if not any(lines):
            return None
        kind: Kind = "item" if self._item is not None else "text"
        return Piece(kind, "\n".join(lines), self._gap if self._lines else self._last is not None)

    def _line(self, line: str) -> Iterator[Piece]:
        if self._fence:
            yield self._code(line)
            return
        fence, item = _FENCE.match(line), _ITEM.match(line)
        if self._item is not None and self._belongs(line, fence):
            return
        if not line.strip():
            yield from self._finish()
        elif fence:
            yield from self._finish()
            yield Piece("open", fence[3].strip().split(" ")[0], self._begin("open"))
            self._fence, self._indent = fence[2], len(fence[1])
        elif item and not _RULE.match(line) and self._may_begin(item):
            yield from self._finish()
            self._begin("item")
            self._item = item.end(2) + 1
            self._lines.append(line)
        elif _HEADING.match(line) or (_RULE.match(line) and not self._lines):
            yield from self._finish()
            self._begin("text")
            self._lines.append(line)
            yield from self._finish()
        else:
            if self._item is not None:
                yield from self._finish()
            if not self._lines:
                self._begin("text")
            self._lines.append(line)

    def _belongs(self, line: str, fence: re.Match[str] | None) -> bool:
        """Whether a line is part of the list's item, which then has it."""
        if self._inner:
            if fence and fence[2].startswith(self._inner) and not fence[3].strip():
                self._inner = ""
            self._lines.append(line)
            return True
        if not line.strip():
            # Whether the item goes on after it, the next line will tell.
            self._blank = True
            return True
        inside = len(line) - len(line.lstrip(" ")) >= (self._item or 0)
        if not inside and (self._blank or fence or _ITEM.match(line) or _HEADING.match(line) or _RULE.match(line)):
            return False
        if fence and inside:
            self._inner = fence[2]
        if self._blank:
            self._lines.append("")
            self._blank = False
        self._lines.append(line)
        return True

    def _may_begin(self, item: re.Match[str]) -> bool:
        """A number in the middle of a paragraph begins no list, except the first one."""
        return not self._lines or self._item is not None or not item[2][0].isdigit() or item[2][:-1] == "1"

    def _code(self, line: str) -> Piece:
        bare = line.strip()
        if bare.startswith(self._fence) and not bare.strip(self._fence[0]):
            self._fence = ""
            return Piece("close", "")
        return Piece("code", self._cut(line))

    def _cut(self, line: str) -> str:
        """A line of code without the fence's own indentation."""
        own = len(line) - len(line.lstrip(" "))
        return line[min(own, self._indent) :]

    def _begin(self, kind: Kind) -> bool:
        """A block begins; return whether an empty line stands before it: only items may stand close together."""
        close = kind == self._last == "item" and not self._blank
        self._gap = self._last is not None and not close
        self._last, self._blank = kind, False
        return self._gap

    def _finish(self) -> list[Piece]:
        """End the block that is open, if one is."""
        kind: Kind = "item" if self._item is not None else "text"
        lines, self._lines, self._item, self._inner = self._lines, [], None, ""
        return [Piece(kind, "\n".join(lines), self._gap)] if lines else []
