"""Citations: the row ids in an answer, checked against the ids that exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mellea_cli.chat.attachments import DataTable, Row

_BRACKETS = re.compile(r"\[([^\[\]\n]{1,200})\](?!\()")
_SEPARATOR = re.compile(r"\s*(?:[,;&]|\band\b|\s)\s*")
_AFTER_WORD = re.compile(r"\b(?:rows?|ids?)[ \t]+#?([\w.-]*\d[\w.-]*)", re.IGNORECASE)
_MAX_SHOWN = 5
_LABELS = frozenset({"row", "rows", "id", "ids", "#", "no", "see", ""})


class CitedIds(NamedTuple):
    """The ids in an answer, each once, in the order in which they come."""

    known: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Citations:
    """Finds cited row ids in text.

    What looks like one of the existing `ids` but is none is a wrong id; other words in brackets are no citations.
    """

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids
        self._shapes = {_shape(one) for one in ids}

    def find(self, answer: str) -> CitedIds:
        """The ids that an answer cites, in square brackets or after the word "row" or "id"."""
        cited = [one for found in _BRACKETS.finditer(answer) for one in self._split(found[1])]
        cited += [found[1].rstrip(".-") for found in _AFTER_WORD.finditer(answer)]
        known = dict.fromkeys(one for one in cited if one in self._ids)
        unknown = dict.fromkeys(one for one in cited if self._is_wrong(one))
        return CitedIds(tuple(known), tuple(unknown))

    def mark(self, text: str) -> str:
        """The text with "(no such row)" after each id that does not exist."""

        def brackets(found: re.Match[str]) -> str:
            ids = self._split(found[1])
            wrong = [one for one in ids if self._is_wrong(one)]
            which = f": {', '.join(wrong)}" if len(ids) > 1 else ""
            return f"{found[0]} (no such row{which})" if wrong else found[0]

        def after_word(found: re.Match[str]) -> str:
            return found[0] + (" (no such row)" if self._is_wrong(found[1].rstrip(".-")) else "")

        return _AFTER_WORD.sub(after_word, _BRACKETS.sub(brackets, text))

    def _is_wrong(self, one: str) -> bool:
        return one not in self._ids and _shape(one) in self._shapes

    def _split(self, inside: str) -> list[str]:
        if inside in self._ids:
            return [inside]
        parts = (part.lstrip("#") for part in _SEPARATOR.split(inside.replace(":", " ")))
        return [part for part in parts if part.lower() not in _LABELS]


def _shape(one: str) -> str:
    """What an id looks like: `F-003` and `F-12` both have the shape `a-9`."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", one))


def evidence(tables: Sequence[DataTable], answer: str) -> list[str]:
    """Lines to print below an answer: the rows that it cites, the ids that do not exist, or that it cites nothing."""
    if not tables:
        return []
    cited = Citations(frozenset().union(*(table.ids for table in tables))).find(answer)
    rows: dict[str, Row] = {}
    for table in tables:
        rows |= {row.id: row for row in table.rows if row.id in cited.known}
    lines = [rows[one].line for one in cited.known[:_MAX_SHOWN]]
    if more := cited.known[_MAX_SHOWN:]:
        lines.append(f"and {len(more)} more rows: {', '.join(more)}")
    if cited.unknown:
        lines.append(f"not in the data: {', '.join(cited.unknown)}")
    if not cited.known:
        nearest = [row.line for table in tables for row in table.nearest(answer, 3)]
        lines.append("the answer cites no row" + ("; the nearest to what it says:" if nearest else ""))
        lines += nearest
    return lines
