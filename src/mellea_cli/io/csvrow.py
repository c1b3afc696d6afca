"""Rows as CSV or TSV text.

Cells: null is empty, `true` and `false` are words, numbers are digits, a nested value is JSON. Lines end
with LF.

Formulas: a spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return. Such a cell gets an
apostrophe in front, unless it is a plain number such as `-5`, `+3.2` or `-12%`. This holds for every cell, also for
header cells; `raw` turns it off.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mellea_cli.io.columns import ERROR, AddedColumns, FreeNames, Note, unsaid
from mellea_cli.io.jsonrow import encoded
from mellea_cli.io.shape import encodable

_FORMULA_STARTS = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:[eE][+-]?\d+)?\s?%?", re.ASCII)


class CsvTable:
    """Renders rows under one fixed header: the input's columns, then ours.

    Args:
        columns: the input's columns.
        added: the columns that the run adds.
        delimiter: what separates cells.
        raw: write cells as they are, formulas too.
        note: told once for each of our columns that took another name, and for each input column that is left out.
    """

    def __init__(
        self,
        columns: Iterable[str],
        added: AddedColumns,
        *,
        delimiter: str = ",",
        raw: bool = False,
        note: Note = unsaid,
    ) -> None:
        self._columns = tuple(dict.fromkeys(columns))
        self._known = frozenset(self._columns)
        self._added = added
        self._raw = raw
        self._note = note
        self._left_out: set[str] = set()
        self._out: list[str] = []
        names = FreeNames(note)
        self._header = [*self._columns, *(names.find(name, self._known) for name in added.flat)]
        # The module quotes a lone CR or LF only when the line end it writes holds them.
        self._writer = csv.writer(_Collector(self._out), delimiter=delimiter, lineterminator="\r\n")

    def header(self) -> bytes:
        """Return the header line; empty when there are no columns at all."""
        return self._line(self._header) if self._header else b""

    def render(self, fields: Mapping[str, Any], added: Mapping[str, Any]) -> bytes:
        """Return one row with its line end."""
        cells = [fields.get(name) for name in self._columns]
        if not fields.keys() <= self._known:
            self._leave_out(fields.keys() - self._known)
        for column in self._added.columns:
            value = added.get(column.name)
            if column.parts:
                inside = value if isinstance(value, Mapping) else {}
                cells.extend(inside.get(part) for part in column.parts)
            elif column.joint and isinstance(value, list):
                cells.append(column.joint.join(map(str, value)))
            else:
                cells.append(value)
        if self._added.columns:
            cells.append(_reason(added.get(ERROR)))
        return self._line(cells)

    def _line(self, cells: Iterable[Any]) -> bytes:
        texts = [_text(cell) for cell in cells]
        if not self._raw:
            texts = [_harmless(text) if text and text[0] in _FORMULA_STARTS else text for text in texts]
        self._writer.writerow(texts)
        line = self._out.pop()[:-2] + "\n"
        try:
            return line.encode()
        except UnicodeEncodeError:
            return encodable(line).encode()

    def _leave_out(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            if name not in self._left_out:
                self._left_out.add(name)
                self._note(f"column {name!r} turned up after the header was written and is left out; a file holds it")


class _Collector:
    """What the csv module writes to: its lines land in a list."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines.append(line)


def _text(cell: Any) -> str:
    if cell.__class__ is str:
        return str(cell)
    if cell is None:
        return ""
    if cell.__class__ is int:
        return str(cell)
    if isinstance(cell, float):
        return "" if math.isnan(cell) else repr(cell)
    return encoded(cell).decode()


def _harmless(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else "'" + text


def _reason(error: Any) -> str | None:
    if isinstance(error, Mapping):
        return f"{error.get('kind', ERROR)}: {error.get('message', '')}"
    return None if error is None else str(error)
