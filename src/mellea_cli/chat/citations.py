"""Finds the row ids that an answer cites, and tells those that exist from those that do not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mellea_cli.chat.attachments import Row, Table

_BRACKETS = re.compile(r"\[([^\[\]\n]{1,200})\](?!\()")
_SPLIT = re.compile(r"\s*(?:[,;&]|\band\b|\s)\s*")
_WORDED = re.compile(r"\b(?:rows?|ids?)[ \t]+#?([\w.-]*\d[\w.-]*)", re.IGNORECASE)
_LABELS = frozenset({"row", "rows", "id", "ids", "#", "no", "see", ""})
UNKNOWN = " (no such row)"
"""What is put behind an id that does not exist."""


@dataclass(frozen=True, slots=True)
class Cited:
    """The ids in an answer, each once, in the order in which they come."""

    known: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Citations:
    """Knows the ids of the data.

    Args:
        ids: every id that exists.
    """

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids
        self._shapes = {_shape(one) for one in ids}

    def find(self, answer: str) -> Cited:
        """The ids that an answer cites, in square brackets or after the word "row" or "id"."""
        named = [one for found in _BRACKETS.finditer(answer) for one in self._parts(found[1])]
        named += [found[1].rstrip(".-") for found in _WORDED.finditer(answer)]
        known = dict.fromkeys(one for one in named if one in self._ids)
        unknown = dict.fromkeys(one for one in named if one not in self._ids and _shape(one) in self._shapes)
        return Cited(tuple(known), tuple(unknown))

    def mark(self, text: str) -> str:
        """The text with a mark behind each id that does not exist."""
        text = _BRACKETS.sub(self._bracket, text)
        return _WORDED.sub(self._worded, text)

    def _bracket(self, found: re.Match[str]) -> str:
        wrong = [one for one in self._parts(found[1]) if self._wrong(one)]
        if not wrong:
            return found[0]
        several = len(self._parts(found[1])) > 1
        return found[0] + (f" (no such row: {', '.join(wrong)})" if several else UNKNOWN)

    def _worded(self, found: re.Match[str]) -> str:
        return found[0] + (UNKNOWN if self._wrong(found[1].rstrip(".-")) else "")

    def _wrong(self, one: str) -> bool:
        return one not in self._ids and _shape(one) in self._shapes

    def _parts(self, inside: str) -> list[str]:
        if inside in self._ids:
            return [inside]
        cut = (part.lstrip("#") for part in _SPLIT.split(inside.replace(":", " ")))
        return [part for part in cut if part.lower() not in _LABELS]


def _shape(one: str) -> str:
    """What an id looks like: `F-003` and `F-12` both look like `a-9`."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", one))


def evidence(tables: Sequence[Table], answer: str, most: int = 5) -> list[str]:
    """Lines to print below an answer: the rows that it cites, the ids that do not exist, or that it cites nothing."""
    cited = Citations(frozenset().union(*(table.ids for table in tables))).find(answer)
    rows: dict[str, Row] = {}
    for table in tables:
        rows |= {row.id: row for row in table.rows if row.id in cited.known}
    lines = [rows[one].line for one in cited.known[:most]]
    if len(cited.known) > most:
        lines.append(f"and {len(cited.known) - most} more rows: {', '.join(cited.known[most:])}")
    if cited.unknown:
        lines.append(f"not in the data: {', '.join(cited.unknown)}")
    if not cited.known:
        near = [row.line for table in tables for row in table.near(answer, 3)]
        lines.append("the answer cites no row" + ("; these are nearest to what it says:" if near else ""))
        lines += near
    return lines
