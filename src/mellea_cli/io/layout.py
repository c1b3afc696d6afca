"""How rows make up a whole output: lines, one array, or a table under a header.

A layout knows two forms of a row. `keep` makes the line that grows in the partial file while a run goes on; `emit` and
`emit_kept` make the final bytes. They differ where the final form needs what only the end tells: a table's header is
the union of all columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from mellea_cli.io.columns import AddedColumns, Note, unsaid
from mellea_cli.io.csvrow import CsvTable
from mellea_cli.io.jsonrow import JsonRows, encoded
from mellea_cli.items import Row


class Layout(Protocol):
    """The form of one output. Rows are emitted in order, `tail` is asked for once, after the last."""

    kept_is_final: bool
    """Whether the kept lines, one after the other, are the final bytes already."""

    def keep(self, row: Row) -> bytes:
        """Return the line for the partial file."""
        ...

    def emit(self, row: Row) -> bytes:
        """Return the final bytes for a row, with whatever has to stand before it."""
        ...

    def emit_kept(self, line: bytes) -> bytes:
        """Return the final bytes for a line that `keep` made."""
        ...

    def tail(self) -> bytes:
        """Return what stands after the last row."""
        ...


class JsonLines:
    """One object a line."""

    kept_is_final = True

    def __init__(self, note: Note = unsaid) -> None:
        self._rows = JsonRows(note)

    def keep(self, row: Row) -> bytes:
        """Return the object and a line end."""
        return self._rows.render(row) + b"\n"

    def emit(self, row: Row) -> bytes:
        """Return the object and a line end."""
        return self._rows.render(row) + b"\n"

    def emit_kept(self, line: bytes) -> bytes:
        """Return the line as it is."""
        return line

    def tail(self) -> bytes:
        """Return nothing: lines need no end."""
        return b""


class JsonArray:
    """One array, an object a line."""

    kept_is_final = False

    def __init__(self, note: Note = unsaid) -> None:
        self._rows = JsonRows(note)
        self._begun = False

    def keep(self, row: Row) -> bytes:
        """Return the object and a line end."""
        return self._rows.render(row) + b"\n"

    def emit(self, row: Row) -> bytes:
        """Return the object after a bracket or a comma."""
        return self._joint() + self._rows.render(row)

    def emit_kept(self, line: bytes) -> bytes:
        """Return a kept object after a bracket or a comma."""
        return self._joint() + line.rstrip(b"\n")

    def tail(self) -> bytes:
        """Return the closing bracket."""
        return b"\n]\n" if self._begun else b"[]\n"

    def _joint(self) -> bytes:
        joint = b",\n" if self._begun else b"[\n"
        self._begun = True
        return joint


class Table:
    """CSV or TSV. A kept line is a JSON array of two objects: the input's columns, and ours.

    Args:
        added: the columns that the run adds.
        columns: input columns that are known beforehand, in order.
        delimiter: what separates cells.
        raw: write formulas as they are.
        note: told of renamed and of left-out columns.
    """

    kept_is_final = False

    def __init__(
        self,
        added: AddedColumns,
        columns: Iterable[str] = (),
        *,
        delimiter: str = ",",
        raw: bool = False,
        note: Note = unsaid,
    ) -> None:
        self._added = added
        self._columns = dict.fromkeys(columns)
        self._delimiter = delimiter
        self._raw = raw
        self._note = note
        self._table: CsvTable | None = None

    def keep(self, row: Row) -> bytes:
        """Return both halves of the row, and remember its columns for the header."""
        item = row.item
        if not item.fields.keys() <= self._columns.keys():
            self._columns.update(dict.fromkeys(item.fields))
        fields = encoded(dict(item.fields)) if item.raw is None else item.raw.encode()
        return b"[" + fields + b", " + encoded(dict(row.added)) + b"]\n"

    def emit(self, row: Row) -> bytes:
        """Return the row; the first one brings the header, and with it the columns there are."""
        return self._emit(row.item.fields, row.added)

    def emit_kept(self, line: bytes) -> bytes:
        """Return a kept row under the header of all kept rows."""
        fields, added = json.loads(line)
        return self._emit(fields, added)

    def tail(self) -> bytes:
        """Return the header when there was no row to bring it."""
        return self._emit({}, {}, header_only=True) if self._table is None else b""

    def _emit(self, fields: Mapping[str, Any], added: Mapping[str, Any], *, header_only: bool = False) -> bytes:
        if self._table is not None:
            return self._table.render(fields, added)
        self._columns.update(dict.fromkeys(fields))
        self._table = CsvTable(self._columns, self._added, delimiter=self._delimiter, raw=self._raw, note=self._note)
        return self._table.header() + (b"" if header_only else self._table.render(fields, added))
