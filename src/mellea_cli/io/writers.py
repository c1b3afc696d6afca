"""How rows make up a whole output: lines, one array, or a table under a header.

A layout knows two forms of a row. `keep` makes the line that grows in the partial file while a run goes on; `emit` and
`emit_kept` make the final bytes. They differ where the final form needs what only the end tells: a table's header is
the union of all columns.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mellea_cli.io.byte_input import without_surrogates
from mellea_cli.items import Failure, Item, Outcome, Row

# The columns a run adds to a row, and what they are called when the row has such columns already.
#
# The rule for a clash: an input column is never touched. When the row has a column with the name of ours, ours is
# called `mellea_NAME`, and `mellea_NAME_2`, `mellea_NAME_3` and so on when that exists too. It is said once for each
# name.

ERROR = "error"
"""The column that says why a row has no answers."""
_PREFIX = "mellea_"

Note = Callable[[str], None]


def unsaid(_: str) -> None:
    """Take a note and tell nobody."""


@dataclass(frozen=True, slots=True)
class Added:
    """One column that a run adds."""

    name: str
    parts: tuple[str, ...] = ()
    """For a nested column the names inside it, which become columns of their own in CSV."""
    joint: str = ""
    """For a column of lists what stands between their parts in CSV; empty writes them as JSON."""


@dataclass(frozen=True, slots=True)
class AddedColumns:
    """Every column that a run adds, in order, `error` excluded: it is added to each row that failed."""

    columns: tuple[Added, ...] = ()

    @classmethod
    def of(cls, *columns: str | tuple[str, tuple[str, ...]]) -> AddedColumns:
        """Make it from names, and from (name, parts) for nested columns."""
        return cls(tuple(Added(column) if isinstance(column, str) else Added(*column) for column in columns))

    @property
    def names(self) -> tuple[str, ...]:
        """The names as JSON has them."""
        return tuple(column.name for column in self.columns)

    @property
    def flat(self) -> tuple[str, ...]:
        """The names as CSV has them: parts instead of nested columns, and `error` at the end."""
        names = [name for column in self.columns for name in (column.parts or (column.name,))]
        return (*names, ERROR) if names else ()

    def row(self, item: Item, outcome: Outcome) -> Row:
        """Make the row of an item: its answers, or nulls and the reason when it failed."""
        if isinstance(outcome, Failure):
            return Row(item, {**dict.fromkeys(self.names), ERROR: described(outcome)})
        return Row(item, {name: outcome.values.get(name) for name in self.names})


def described(failure: Failure) -> dict[str, Any]:
    """Return a failure as the value of the `error` column."""
    value: dict[str, Any] = {"kind": failure.kind, "message": failure.message, "attempts": failure.attempts}
    if failure.step:
        value["step"] = failure.step
    if failure.status is not None:
        value["status"] = failure.status
    return value


class FreeNames:
    """Finds names for our columns that no input column has.

    Args:
        note: told once for each of our names that had to give way.
    """

    def __init__(self, note: Note = unsaid) -> None:
        self._note = note
        self._said: set[str] = set()

    def find(self, name: str, taken: Collection[str]) -> str:
        """Return `name`, or what it is called instead when it is taken."""
        if name not in taken:
            return name
        free = base = _PREFIX + name
        number = 2
        while free in taken:
            free = f"{base}_{number}"
            number += 1
        if name not in self._said:
            self._said.add(name)
            self._note(f"the input has a column {name!r}: it stays as it is, ours is called {free!r}")
        return free


# Rows as JSON text: the input's own letters, and our columns spliced in behind them.

_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


class JsonRows:
    """Renders rows as JSON objects, one line each.

    Args:
        note: told once for each of our columns that had to take another name.
    """

    def __init__(self, note: Note = unsaid) -> None:
        self._names = FreeNames(note)

    def render(self, row: Row) -> bytes:
        """Return the object in UTF-8, without a line end."""
        item = row.item
        added = row.added
        if not item.fields.keys().isdisjoint(added):
            added = {self._names.find(name, item.fields): value for name, value in added.items()}
        raw = item.raw
        if raw is None:
            return encoded({**item.fields, **added})
        if not added:
            return raw.encode()
        return raw[:-1].rstrip().encode() + (b", " if item.fields else b"") + encoded(added)[1:]


def encoded(value: Any) -> bytes:
    """Return a value as JSON in UTF-8: NaN and infinities as null, halves of surrogate pairs as escapes."""
    try:
        return _ENCODE(value).encode()
    except UnicodeEncodeError:
        return _ENCODE_ASCII(value).encode()
    except ValueError:
        return encoded(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


# Rows as CSV or TSV text.
#
# Cells: null is empty, `true` and `false` are words, numbers are digits, a nested value is JSON. Lines end with LF.
#
# Formulas: a spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return. Such a cell gets
# an apostrophe in front, unless it is a plain number such as `-5`, `+3.2` or `-12%`. This holds for every cell, also
# for header cells; `raw` turns it off.

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
            return without_surrogates(line).encode()

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
