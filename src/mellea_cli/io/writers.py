"""Writers: rows as JSON lines, one JSON array, CSV, TSV, or a table with types, with the columns that a run adds."""

from __future__ import annotations

import csv
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from types import SimpleNamespace
from typing import IO, Any, Protocol

from mellea_cli.errors import OutputError, UsageError
from mellea_cli.io.byte_input import without_surrogates
from mellea_cli.io.formats import ColumnType, CsvDialect, Note, RowOutput, ignore
from mellea_cli.items import Failure, Item, Outcome, Row

ERROR = "error"  # The column with the reason why a row has no answers
ANSWERED_BY = "answered_by"  # The column that says what has answered a row: `model`, `learned` or `duplicate of ID`
BY_MODEL = "model"
_PREFIX = "mellea_"
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Added:
    """One column that a run adds."""

    name: str
    parts: tuple[str, ...] = ()  # For a nested column the names inside it, which become columns of their own in CSV
    joint: str = ""  # For a column of lists the text between their parts in CSV; empty writes the list as JSON
    type: str = ""  # The type of an own field, such as `date`

    def cell(self, value: Any) -> Any:
        """The column's value in a table. An empty list is written as JSON: an empty cell is null."""
        return self.joint.join(map(str, value)) if self.joint and isinstance(value, list) and value else value


@dataclass(frozen=True, slots=True)
class AddedColumns:
    """The columns that a run adds, in order, without `error`, which is added to each row that failed."""

    columns: tuple[Added, ...] = ()
    names: tuple[str, ...] = field(init=False)  # The names in JSON

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(column.name for column in self.columns))

    @classmethod
    def of(cls, *columns: str | tuple[str, tuple[str, ...]]) -> AddedColumns:
        """Make it from names, and from (name, parts) for nested columns."""
        return cls(tuple(Added(column) if isinstance(column, str) else Added(*column) for column in columns))

    @property
    def flat(self) -> tuple[str, ...]:
        """The names in CSV: parts instead of nested columns, and `error` at the end."""
        names = [name for column in self.columns for name in (column.parts or (column.name,))]
        return (*names, ERROR) if names else ()

    def cells(self, added: Mapping[str, Any], *, joined: bool = True) -> list[Any]:
        """Return the values of `flat`, lists joined unless the format has lists."""
        cells: list[Any] = []
        for column in self.columns:
            value = added.get(column.name)
            if column.parts:
                inside = value if isinstance(value, Mapping) else {}
                cells.extend([inside.get(part) for part in column.parts])
            else:
                cells.append(column.cell(value) if joined else value)
        if self.columns:
            error = added.get(ERROR)
            if isinstance(error, Mapping):
                error = f"{error.get('kind', ERROR)}: {error.get('message', '')}"
            cells.append(error)
        return cells

    def row(self, item: Item, outcome: Outcome) -> Row:
        """Return the row of an item: its answers, or nulls and the reason when it failed."""
        if isinstance(outcome, Failure):
            return Row(item, {**dict.fromkeys(self.names), ERROR: _error_value(outcome)})
        values = outcome.values
        return Row(item, {name: values.get(name) for name in self.names})


def _error_value(failure: Failure) -> dict[str, Any]:
    value: dict[str, Any] = {"kind": failure.kind, "message": failure.message, "attempts": failure.attempts}
    if failure.step:
        value["step"] = failure.step
    if failure.status is not None:
        value["status"] = failure.status
    return value


class FreeNames:
    """Finds names for added columns that no input column has.

    Input columns are never touched. When the input has a column `NAME`, in whatever case, the added one is called
    `mellea_NAME`, and `mellea_NAME_2`, `mellea_NAME_3` and so on when that exists too.
    """

    def __init__(self, note: Note = ignore) -> None:
        self._note = note
        self._noted: set[str] = set()
        self._found: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, str]] = {}

    def find(self, name: str, taken: Collection[str]) -> str:
        """Return `name`, or another name when it is taken."""
        folded = {one.casefold(): one for one in taken}
        if (own := folded.get(name.casefold())) is None:
            return name
        free = base = _PREFIX + name
        number = 2
        while free.casefold() in folded:
            free = f"{base}_{number}"
            number += 1
        if name not in self._noted:
            self._noted.add(name)
            self._note(f"the input has a column {own!r}: it is kept, and the added column is called {free!r}")
        return free

    def all(self, names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
        """Return the name to use for each name; what was found for the same columns is remembered."""
        key = (tuple(names), tuple(taken))
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = {name: self.find(name, taken) for name in names}
        return self._found[key]


class Layout(Protocol):
    """The form of one output.

    A file collects partial lines while a run goes on and is rendered from them at the end, because some forms need
    what only the end shows: the header of a table is the union of all columns. A stream gets each row at once.
    """

    partial_is_final: bool  # Whether the partial lines, one after the other, are the final bytes

    def partial_line(self, row: Row) -> bytes:
        """Return the line for the partial file."""

    def render_partial(self, line: bytes) -> bytes:
        """Return the final bytes of a partial line, with whatever comes before it."""

    def render(self, row: Row) -> bytes:
        """Return the final bytes of a row, with whatever comes before it."""

    def end(self) -> bytes:
        """Return what comes after the last row; called once."""


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


def encoded(value: Any) -> bytes:
    """Return a value as JSON in UTF-8: NaN and infinities as null, lone surrogates as escapes."""
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


class JsonLines:
    """One JSON object per line.

    Args:
        note: called once for each added column that is renamed.
    """

    partial_is_final = True

    def __init__(self, note: Note = ignore) -> None:
        self._names = FreeNames(note)

    def partial_line(self, row: Row) -> bytes:
        item, added = row.item, row.added
        if added:
            names = self._names.all(added, item.fields)
            added = {names[name]: value for name, value in added.items()}
        raw = item.raw
        if raw is None:
            return encoded({**item.fields, **added}) + b"\n"
        if not added:
            return raw.encode() + b"\n"
        # The input's own text is kept, so that numbers, escapes and repeated keys come out as they were.
        return raw[:-1].rstrip().encode() + (b", " if item.fields else b"") + encoded(added)[1:] + b"\n"

    def render_partial(self, line: bytes) -> bytes:
        return line

    def render(self, row: Row) -> bytes:
        return self.partial_line(row)

    def end(self) -> bytes:
        return b""


class JsonArray(JsonLines):
    """One JSON array, with one object per line."""

    partial_is_final = False
    _separator = b"[\n"

    def render_partial(self, line: bytes) -> bytes:
        separator, self._separator = self._separator, b",\n"
        return separator + line.rstrip(b"\n")

    def render(self, row: Row) -> bytes:
        return self.render_partial(self.partial_line(row))

    def end(self) -> bytes:
        return b"[]\n" if self._separator == b"[\n" else b"\n]\n"


# A spreadsheet runs a cell that begins with one of these as a formula, unless it is a number such as -5, +3.2 or -12%.
_FORMULA_STARTS = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:[eE][+-]?\d+)?\s?%?", re.ASCII)


class Table:
    """CSV or TSV. A partial line is a JSON array of two objects: the input's columns, and the added ones.

    Null is an empty cell, a nested value is JSON. An output that was read from a table is written as that was:
    delimiter, quotes, line ends and byte order mark, but always in UTF-8; else with commas and LF. A cell that a
    spreadsheet would run as a formula gets an apostrophe in front, also in the header.

    Args:
        added: the columns that the run adds.
        columns: input columns that are known in advance, in order.
        dialect: returns how the input was written, or `None`; called when the header is rendered.
        delimiter: the character between cells, whatever the input's was.
        raw: write formulas unchanged.
        note: called once for each added column that is renamed, and for each input column that is dropped.
    """

    partial_is_final = False

    def __init__(
        self,
        added: AddedColumns,
        columns: Iterable[str] = (),
        *,
        dialect: Callable[[], CsvDialect | None] = lambda: None,
        delimiter: str | None = None,
        raw: bool = False,
        note: Note = ignore,
    ) -> None:
        self._added = added
        self._columns = dict.fromkeys(columns)
        self._raw = raw
        self._note = note
        self._dropped: set[str] = set()
        self._header_rendered = False
        self._lines: list[str] = []
        self._dialect = dialect
        self._delimiter = delimiter

    def partial_line(self, row: Row) -> bytes:
        item = row.item
        if not item.fields.keys() <= self._columns.keys():
            self._columns.update(dict.fromkeys(item.fields))
        fields = encoded(dict(item.fields)) if item.raw is None else item.raw.encode()
        return b"[" + fields + b", " + encoded(dict(row.added)) + b"]\n"

    def render_partial(self, line: bytes) -> bytes:
        fields, added = json.loads(line.decode())
        return self._render(fields, added)

    def render(self, row: Row) -> bytes:
        return self._render(row.item.fields, row.added)

    def end(self) -> bytes:
        return b"" if self._header_rendered else self._header()

    def _header(self) -> bytes:
        self._header_rendered = True
        dialect = self._dialect() or CsvDialect()
        delimiter = self._delimiter or dialect.delimiter
        # The csv module quotes a lone CR or LF only when its line end contains them, so it gets CR LF.
        self._writer = csv.writer(
            SimpleNamespace(write=self._lines.append),
            delimiter=delimiter,
            lineterminator="\r\n",
            quoting=csv.QUOTE_ALL if dialect.quote_all else csv.QUOTE_MINIMAL,
        )
        self._line_end = dialect.line_end
        start = "\ufeff" if dialect.mark else ""
        if dialect.sep_line and delimiter == dialect.delimiter:
            start += dialect.sep_line + dialect.line_end
        names = FreeNames(self._note).all(self._added.flat, self._columns.keys())
        cells = [*self._columns, *names.values()]
        return start.encode() + self._line(cells) if cells else b""

    def _render(self, fields: Mapping[str, Any], added: Mapping[str, Any]) -> bytes:
        if not self._header_rendered:
            # A file knows all columns by now, a stream those of a survey and of its first row.
            self._columns.update(dict.fromkeys(fields))
            return self._header() + self._render(fields, added)
        cells = [fields.get(name) for name in self._columns]
        if not fields.keys() <= self._columns.keys():
            self._note_dropped(fields.keys() - self._columns.keys())
        return self._line([*cells, *self._added.cells(added)])

    def _line(self, cells: Iterable[Any]) -> bytes:
        texts = [cell if cell.__class__ is str else _cell_text(cell) for cell in cells]
        if not self._raw:
            texts = [
                "'" + text if text and text[0] in _FORMULA_STARTS and not _NUMBER.fullmatch(text) else text
                for text in texts
            ]
        self._writer.writerow(texts)
        line = self._lines.pop()[:-2] + self._line_end
        try:
            return line.encode()
        except UnicodeEncodeError:
            return without_surrogates(line).encode()

    def _note_dropped(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            if name not in self._dropped:
                self._dropped.add(name)
                self._note(f"column {name!r} first occurs below the header and is dropped; with -o FILE it is kept")


def _cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, float):
        return "" if math.isnan(cell) else repr(cell)
    return encoded(cell).decode()


_INT64 = 1 << 63
_LONGEST_SHAPE = 40
_SHAPES = re.compile(
    r"(?P<datetime>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|(?P<date>\d{4}-\d\d-\d\d)"
    r"|(?P<time>\d\d:\d\d:\d\d(?:\.\d{1,6})?)"
    r"|(?P<duration>-?\d+:\d\d:\d\d(?:\.\d{1,6})?)"
    # A number that is written as programs write it: its text can be made from it again
    r"|(?P<int>-?(?:0|[1-9]\d{0,14}))"
    r"|(?P<float>-?(?:0|[1-9]\d{0,10})\.\d{1,4})",
    re.ASCII,
)


def text_shape(text: str) -> str:
    """What a text looks like: `datetime`, `date`, `time`, `duration`, `int`, `float` or `text`; empty for nothing."""
    if not text:
        return ""
    found = _SHAPES.fullmatch(text) if len(text) <= _LONGEST_SHAPE and text[0] in "-0123456789" else None
    shape = (found.lastgroup if found else None) or "text"
    try:
        if shape == "time":
            time.fromisoformat(text)
        elif shape == "date":
            date.fromisoformat(text)
        elif shape == "datetime":
            datetime.fromisoformat(text)
    except ValueError:
        return "duration" if shape == "time" else "text"
    return shape


class TypedTable(ABC):
    """The form of an output with types, which is written as a whole at the end.

    A partial line is a JSON array: the input's columns as an object, and the added cells. `joined` makes lists text.
    """

    partial_is_final = False
    kind = "a table"
    most_rows: int | None = None
    most_columns: int | None = None

    def __init__(self, output: RowOutput, *, joined: bool) -> None:
        self._added = output.added
        self._options = output.options
        self._note = output.note
        self._columns = dict.fromkeys(output.options.columns)
        self._joined = joined
        self._count = 0
        self._shapes: dict[str, set[str]] = {}  # What the cells of each input column look like
        self._added_shapes: dict[str, set[str]] = {name: set() for name in self._added.flat}
        if (problem := self._excess(output.options.rows or 0)) is not None:
            raise UsageError(*problem[:1], hint=problem[1])

    def _excess(self, rows: int) -> tuple[str, str] | None:
        """Why the output cannot hold so many rows, or its columns, and what to do."""
        hint = "name a Parquet, CSV or JSONL file with -o"
        columns = len(self._columns) + len(self._added.flat)
        if self.most_rows is not None and rows > self.most_rows:
            return f"{self.kind} holds {self.most_rows:,} rows below its header, and there are {rows:,} or more", hint
        if self.most_columns is not None and columns > self.most_columns:
            return f"{self.kind} holds {self.most_columns:,} columns, and there are {columns:,}", hint
        return None

    def partial_line(self, row: Row) -> bytes:
        fields, added = row.item.fields, self._added.cells(row.added, joined=self._joined)
        self._count += 1
        new = not fields.keys() <= self._columns.keys()
        if new:
            self._columns.update(dict.fromkeys(fields))
        if (new or self._count == (self.most_rows or 0) + 1) and (problem := self._excess(self._count)) is not None:
            raise OutputError(problem[0], hint=f"{problem[1]}; to keep the answers, rename the journal likewise")
        for name, value in fields.items():
            self._see(self._shapes.setdefault(name, set()), value)
        for shapes, value in zip(self._added_shapes.values(), added, strict=True):
            self._see(shapes, value)
        text = encoded(dict(fields)) if row.item.raw is None else row.item.raw.encode()
        return b"[" + text + b", " + encoded(added) + b"]\n"

    @staticmethod
    def _see(shapes: set[str], value: Any) -> None:
        if value is None:
            return
        if isinstance(value, str):
            if "text" not in shapes:
                shapes.add(text_shape(value))
        elif isinstance(value, bool):
            shapes.add("bool")
        elif isinstance(value, int):
            shapes.add("whole" if -_INT64 <= value < _INT64 else "text")
        elif isinstance(value, float):
            shapes.add("fraction")
        elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            shapes.add("texts")
        else:
            shapes.add("nested")

    def columns(self) -> list[tuple[str, str, ColumnType]]:
        """Return the columns: name, what all their cells are, and the type of the input's column.

        All cells are `bool`, `int`, `float`, `date`, `datetime`, `time`, `duration`, `texts`, `nested` or `text`.
        """
        types = self._options.types()
        plain = ColumnType()
        found = [
            (name, self._common(self._shapes.get(name, set()), types.get(name, plain)), types.get(name, plain))
            for name in self._columns
        ]
        own = {column.name: ColumnType(frozenset(("date",))) for column in self._added.columns if column.type == "date"}
        names = FreeNames(self._note).all(self._added.flat, self._columns.keys())
        for flat, name in names.items():
            found.append((name, self._common(self._added_shapes[flat], own.get(flat, plain)), own.get(flat, plain)))
        return found

    @staticmethod
    def _common(shapes: set[str], known: ColumnType) -> str:
        numbers = {"int": "int", "float": "float"} if "number" in known.kinds else {}
        meaning = {**numbers, "whole": "int", "fraction": "float"}
        texts = ("text", "int", "float")
        kinds = set()
        shapes = {"duration" if one == "time" and "time" not in known.kinds else one for one in shapes}
        for shape in shapes - {""}:
            one = meaning.get(shape, shape if shape not in texts else "text")
            kinds.add("text" if shape in ("date", "datetime", "time", "duration") and shape not in known.kinds else one)
        if kinds == {"int", "float"}:
            return "float"
        if kinds == {"date", "datetime"}:
            return "datetime"
        if kinds == {"texts", "nested"}:
            return "nested"
        return kinds.pop() if len(kinds) == 1 else "text"

    def cells(self, lines: Iterable[bytes]) -> Iterator[list[Any]]:
        """The cells of each row in the order of `columns`."""
        names = list(self._columns)
        for line in lines:
            fields, added = json.loads(line)
            yield [*map(fields.get, names), *added]

    def render(self, row: Row) -> bytes:
        raise NotImplementedError

    def render_partial(self, line: bytes) -> bytes:
        raise NotImplementedError

    def end(self) -> bytes:
        raise NotImplementedError

    @abstractmethod
    def write(self, lines: Callable[[], Iterable[bytes]], file: IO[bytes]) -> None:
        """Write the whole output.

        Args:
            lines: returns the partial lines from the start.
            file: where to; it can be cut and written again.
        """


def cell_text(cell: Any) -> str:
    """A cell in a column of text: what CSV would have, without apostrophes."""
    return without_surrogates(_cell_text(cell))
