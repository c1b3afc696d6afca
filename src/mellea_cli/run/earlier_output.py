"""The earlier output of a run: whether it may be replaced, and what a person has changed in it."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
import unicodedata
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import guess_codec, open_bytes, without_surrogates
from mellea_cli.io.columns import folded
from mellea_cli.io.corrections import (
    MODEL_VALUES,
    Correction,
    Corrections,
    CorrectionsFile,
    now,
    read_lines,
    this_person,
)
from mellea_cli.io.files import OutputTarget
from mellea_cli.io.formats import FLAT_FORMATS, FORMATS, TEXT_TABLES, BinaryFormat, RowStream
from mellea_cli.io.journal import Journal, WrittenRow
from mellea_cli.io.row_filter import NamedColumn
from mellea_cli.io.source import SourceOptions, open_rows
from mellea_cli.io.writers import ERROR, AddedColumns
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.pipelines.pipeline import Column
from mellea_cli.run.batch import OrderedRows

REPLACE = "choose another name with -o, or replace the file with --overwrite"  # The choice that a refused run leaves
_HASH_BYTES = 8
_NOTHING = bytes(_HASH_BYTES)
# With fewer of its rows in the input than this share, an output belongs to another input.
_LEAST_SHARE = 0.5
_GROUP = 1_000
# Spreadsheets keep so many digits of a number.
_DIGITS = 15
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ROUNDED = re.compile(r"[+-]?\d[.,]\d+[eE][+-]?\d+")
_DATE = re.compile(
    r"(\d{1,4}([-/.])\d{1,2}\2\d{1,4}(?:[T ]+\d{1,2}:\d{2}(?::\d{2})?)?)(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?"
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# A cell as long as this tells whose answer a row has.
_TELLING = 20


def canonical(value: Any) -> str:  # noqa: PLR0911, PLR0912 - a case for each kind of cell
    """A cell's text without what a spreadsheet changes when it saves a file.

    Line ends, blanks around the text, the form of numbers and dates, and the way in which CSV writes null, true and
    nested values do not count.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _canonical_number(str(value)) if math.isfinite(value) else ""
    if not isinstance(value, str):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    text = value.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text[:1] == "'" and value.strip(" ")[1:].startswith(_FORMULA_STARTS):
        text = text[1:].strip()
    start = text[:1]
    if start in "+-.0123456789" and len(text) < 40:
        if _NUMBER.fullmatch(number := text.replace(",", ".", 1)):
            return _canonical_number(number)
        if found := _DATE.fullmatch(text):
            return _canonical_date(found[1])
    elif start in "{[":
        try:
            return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
        except ValueError:
            return text
    elif text in ("TRUE", "True", "FALSE", "False"):
        return text.lower()
    return text


def _canonical_number(text: str) -> str:
    number = float(text)
    return f"{number:.{_DIGITS}g}" if math.isfinite(number) else text


def _canonical_date(text: str) -> str:
    # Whichever comes first, day or month: the numbers are the same. Years may lose their century, times their zeros.
    numbers = [int(part) % 100 for part in re.findall(r"\d+", text)]
    return " ".join(map(str, [*sorted(numbers[:3]), *filter(None, numbers[3:])]))


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def _hash(text: str) -> bytes:
    return hashlib.blake2b(_bytes(text), digest_size=_HASH_BYTES).digest() if text else _NOTHING


def _cell(value: Any) -> bytes:
    text = canonical(value)
    return zlib.crc32(_bytes(text)).to_bytes(4) if text else b"\0\0\0\0"


_INPUT, _ADDED = "=", "+"


class _Names(dict[str, bytes]):
    """Hashes of column names, each computed once."""

    def __missing__(self, name: str) -> bytes:
        self[name] = found = zlib.crc32(_bytes(name)).to_bytes(4)
        return found


_NAMES = _Names()


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How an output's rows are written: what must stay the same for its cells to be comparable."""

    command: str  # The command that writes it, such as `summarise`
    format: str  # The file's format
    added: AddedColumns  # The columns that the run adds
    id_column: str  # The column with the id, where there is one

    @property
    def is_table(self) -> bool:
        """Whether parts of nested values have columns of their own."""
        return self.format in FLAT_FORMATS

    @property
    def joins_lists(self) -> bool:
        return self.format in (*TEXT_TABLES, "xlsx")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the cells that the run adds, `error` last."""
        return self.added.flat if self.is_table else (*self.added.names, ERROR)

    def cells(self, added: Mapping[str, Any]) -> dict[str, Any]:
        """The added cells of a row, as a reader of the output finds them."""
        if not self.is_table:
            return dict(added)
        cells: dict[str, Any] = {}
        for column in self.added.columns:
            value = added.get(column.name)
            if column.parts:
                inside = value if isinstance(value, Mapping) else {}
                cells.update((part, inside.get(part)) for part in column.parts)
            else:
                cells[column.name] = column.cell(value) if self.joins_lists else value
        error = added.get(ERROR)
        cells[ERROR] = f"{error.get('kind')}: {error.get('message')}" if isinstance(error, Mapping) else error
        return cells

    def with_cells(self, added: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
        """The added columns of a row with some of its cells changed."""
        if not self.is_table:
            return {**added, **changed}
        result = dict(added)
        for column in self.added.columns:
            if column.name in changed:
                result[column.name] = changed[column.name]
            elif parts := {part: changed[part] for part in column.parts if part in changed}:
                inside = result.get(column.name)
                result[column.name] = {**(inside if isinstance(inside, Mapping) else {}), **parts}
        if ERROR in changed:
            result[ERROR] = changed[ERROR]
        return result

    def split(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Divide a row of the output into its other cells and those that a run has added, by their own names."""
        added: dict[str, Any] = {}
        rest = {name[1:] if name[:1] == "'" else name: value for name, value in row.items()}
        for name in self.names:
            # Where the input has such a column, the added one has the longest of these names.
            found = [free for free in (name, f"mellea_{name}") if free in rest]
            while (free := f"mellea_{name}_{len(found)}") in rest:
                found.append(free)
            if found:
                added[name] = rest.pop(found[-1])
        return rest, added


@dataclass(slots=True)
class KnownRow:
    """What identifies a row, and the hashes of the cells that were written for it."""

    position: int  # Its place in the output, from 0
    row: bytes  # Hash of all its input cells
    texts: tuple[bytes, ...]  # Hashes of texts, one of which is the feedback
    ident: bytes  # Hash of its id, zero bytes without one
    # By the hash of a column, the hashes of what a run may have written there, one after the other
    cells: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Edit:
    """What a person has changed in a row."""

    known: KnownRow  # Identifies the row
    added: dict[str, Any]  # Cells among those that the run adds, by name
    input: dict[str, Any]  # Cells of the input's columns
    own: dict[str, Any]  # Cells of columns that are the person's own

    def fills_in(self, names: Iterable[str]) -> bool:
        """Whether it fills in a row without an answer in these columns, so that the row need not be asked about."""
        answers = [name for name in names if name != ERROR]
        empty = not any(any(self.known.cells.get(_NAMES[_ADDED + name], b"")) for name in answers)
        return empty and any(canonical(self.added.get(name)) for name in answers)


class _Index:
    """Finds each of some rows once: by all its cells, by text and id, by id, or by text."""

    def __init__(self, rows: Iterable[KnownRow]) -> None:
        self.rows = {row.position: row for row in rows}
        self._by_row: dict[bytes, deque[int]] = {}
        self._by_text: dict[bytes, deque[int]] = {}
        self._by_id: dict[bytes, deque[int]] = {}
        self._by_both: dict[tuple[bytes, bytes], deque[int]] = {}
        for position, row in sorted(self.rows.items()):
            self._by_row.setdefault(row.row, deque()).append(position)
            for text in dict.fromkeys(row.texts):
                if text != _NOTHING:
                    self._by_text.setdefault(text, deque()).append(position)
                    self._by_both.setdefault((text, row.ident), deque()).append(position)
            if row.ident != _NOTHING:
                self._by_id.setdefault(row.ident, deque()).append(position)

    def knows(self, row: KnownRow) -> bool:
        """Whether `take` might find a row in any way."""
        return row.ident in self._by_id or any(text in self._by_text for text in row.texts)

    def take(self, wanted: KnownRow, *, by_text_alone: bool = True, by_id_alone: bool = True) -> KnownRow | None:
        """Remove and return the row that `wanted` is, if it is there."""
        if (place := self._first(self._by_row.get(wanted.row))) is not None:
            return self.rows.pop(place)
        has_id = wanted.ident in self._by_id
        for text in wanted.texts:
            both = has_id or not by_text_alone
            places = self._by_both.get((text, wanted.ident)) if both else self._by_text.get(text)
            if (place := self._first(places)) is not None:
                return self.rows.pop(place)
        if by_id_alone and has_id and (place := self._first(self._by_id[wanted.ident])) is not None:
            return self.rows.pop(place)
        return None

    def _first(self, places: deque[int] | None) -> int | None:
        while places:
            if (place := places.popleft()) in self.rows:
                return place
        return None


@dataclass(slots=True)
class EarlierOutput:
    """An output that is there before a run."""

    rows: int  # The number of its rows
    edits: list[Edit]  # What a person has changed
    known: Callable[[], Iterator[KnownRow]]  # Yields what identifies its rows
    input: str = ""  # The input that it was written for; empty when unknown
    missing: int = 0  # Rows that a person has deleted

    @property
    def own_columns(self) -> list[str]:
        return list(dict.fromkeys(name for edit in self.edits for name in edit.own))


def read_earlier(target: OutputTarget, form: OutputForm, journal: Journal | None) -> EarlierOutput | None:
    """Read the output that is there, and find what a person has changed in it; `None` for none, or an empty file.

    Raises:
        UsageError: the file was not written by this program, or not in this form.
        OutputError: the journal cannot be read.
    """
    path = target.path
    if not path.exists() or path.stat().st_size == 0:
        return None
    if journal is None:
        raise UsageError(f"{target.name}: exists, and no journal says that it is an output of mellea", hint=REPLACE)
    records = {generation: json.loads(text) for generation, text in journal.outputs().items()}
    if not records:
        return _adopted(target, form, journal)
    last = records[max(records)]
    if last["command"] != form.command or last["format"] != form.format:
        raise UsageError(
            f"{target.name}: was written by mellea {last['command']} as {last['format']}, and this run would write"
            f" {form.format} by mellea {form.command}",
            hint=REPLACE,
        )
    digest = file_digest(path)
    same = [generation for generation, record in records.items() if record.get("digest") == digest]
    if same and not records[same[0]]["edited"]:
        record = records[same[0]]
        return EarlierOutput(record["rows"], [], lambda: _stored(journal, [same[0]]), record["input"])
    generations = same or sorted(records, reverse=True)
    rows, edits, missing = _compared(target, form, list(_stored(journal, generations)), last["columns"])
    return EarlierOutput(rows, edits, lambda: _stored(journal, generations), last["input"], missing)


def file_digest(path: Path) -> str:
    """A hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _stored(journal: Journal, generations: Sequence[int]) -> Iterator[KnownRow]:
    """The rows of one generation, or of two of which it is not known which one is in place."""
    if len(generations) == 1:
        yield from map(_known_row, journal.written(generations[0]))
        return
    found: dict[tuple[bytes, int], KnownRow] = {}
    for generation in generations:
        equal = Counter[bytes]()
        for _, keys, packed in journal.written(generation):
            equal[keys] += 1
            row = _known_row((len(found), keys, packed))
            twin = found.setdefault((keys, equal[keys]), row)
            if twin is not row:
                both = twin.cells | row.cells
                twin.cells = {name: twin.cells.get(name, b"") + row.cells.get(name, b"") for name in both}
    yield from found.values()


def _known_row(written: WrittenRow) -> KnownRow:
    position, keys, packed = written
    cells = {packed[at : at + 4]: packed[at + 4 : at + 8] for at in range(0, len(packed), 8)}
    return KnownRow(position, keys[:8], (keys[8:16],), keys[16:], cells)


def foreign_rows(path: str, form: str, items: Iterable[Item]) -> int:
    """The number of rows in a file that are none of the items.

    Raises:
        InputError: the file cannot be read.
    """
    with closing(open_bytes(path)) as data:
        rows = Counter[bytes]()
        for row in open_rows(data, SourceOptions(format=form)).stream:
            if isinstance(row, InputError):
                raise row
            rows[row_hash(row[1])] += 1
    for item in items:
        rows.pop(row_hash(item.fields), None)
    return rows.total()


def _file_rows(target: OutputTarget, form: OutputForm, columns: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of the file, in whatever encoding a spreadsheet has saved it, and however its header is written."""
    encoding = _code_page(target.path) if form.format in TEXT_TABLES else None
    _check_parts(target, form)
    known = [*columns, *form.names, *(f"mellea_{name}" for name in form.names)]
    spelt = {folded(name): name for name in known}
    try:
        with closing(open_bytes(str(target.path))) as data:
            rows = open_rows(data, SourceOptions(format=form.format, encoding=encoding))
            names = {name: spelt[folded(name)] for name in {*rows.header} - {*known} if folded(name) in spelt}
            names = {name: wanted for name, wanted in names.items() if wanted not in rows.header}
            for row in rows.stream:
                if isinstance(row, InputError):
                    raise row
                yield {names.get(name, name): value for name, value in row[1].items()} if names else row[1]
            _check_lines(target, rows)
    except InputError as error:
        raise UsageError(
            f"{error.message}: what a person may have changed in the output cannot be read",
            hint=f"correct the file; or {REPLACE}",
        ) from error


def _check_parts(target: OutputTarget, form: OutputForm) -> None:
    """Refuse to replace a file in which a person has made more than rows, such as a sheet.

    Raises:
        UsageError: there is such a part.
    """
    known = FORMATS.require(form.format)()
    parts = known.other_parts(str(target.path), target.name) if isinstance(known, BinaryFormat) else []
    if parts:
        raise UsageError(f"{target.name}: has {', '.join(parts)}, which this run would remove", hint=REPLACE)


def _check_lines(target: OutputTarget, rows: RowStream) -> None:
    """Refuse to replace a file in which a person has written lines that are no rows, such as a title or a remark.

    Raises:
        UsageError: there are such lines.
    """
    lines = [sentence for sentence in rows.left_out.sentences() if "filled up" not in sentence]
    lines += [note for note in rows.notes if "above the header" in note]
    if lines:
        what = ", ".join(line.rpartition("left out: ")[2] for line in lines)
        raise UsageError(f"{target.name}: has {what}, which this run would remove", hint=REPLACE)


def _code_page(path: Path) -> str | None:
    """The encoding in which a spreadsheet has saved a file; `None` for UTF-8, and where a mark says it is Unicode."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with closing(open_bytes(str(path))) as data:
        for number, chunk in enumerate(data.chunks()):
            if not number and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return None
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return guess_codec(b"".join(line for line in chunk.splitlines(True) if not line.isascii())) or "cp1252"
    return None


def _compared(
    target: OutputTarget, form: OutputForm, known: list[KnownRow], names: Sequence[str]
) -> tuple[int, list[Edit], int]:
    """Compare the file with what was written: its number of rows, the edits, and how many rows are missing in it."""
    columns = {_NAMES[_INPUT + name] for name in names}
    edits: list[Edit] = []
    unmatched: list[tuple[KnownRow, dict[str, Any], dict[str, Any]]] = []
    left: list[KnownRow] = []
    position = -1
    for position, fields in enumerate(_file_rows(target, form, names)):
        rest, added = form.split(fields)
        row = _identity(position, rest, form.id_column, columns)
        before = known[position] if position < len(known) else None
        if before is not None and before.row == row.row and before.ident == row.ident:
            _add_edit(edits, before, rest, added)
        else:
            unmatched.append((row, rest, added))
            if before is not None:
                left.append(before)
    index = _Index([*left, *known[position + 1 :]])
    strange: list[int] = []
    blank = 0
    for row, rest, added in unmatched:
        # An id alone proves nothing where none of the columns is there that a run adds.
        if (before := index.take(row, by_id_alone=bool(added))) is None:
            if any(map(canonical, (rest | added).values())):
                strange.append(row.position + 1)
            else:
                blank += 1  # a line between rows
        else:
            _add_edit(edits, before, rest, added)
    if strange:
        rows = "row" if len(strange) == 1 else "rows"
        raise UsageError(
            f"{target.name}: {len(strange):,} of its {position + 1:,} rows were not written by mellea"
            f" ({rows} {_first_few(strange)})",
            hint=REPLACE,
        )
    return position + 1 - blank, edits, len(index.rows)


def _identity(position: int, fields: Mapping[str, Any], id_column: str, columns: set[bytes]) -> KnownRow:
    """What identifies a row of a file in which any cell may be the feedback."""
    texts = tuple(_hash(canonical(value)) for value in fields.values() if isinstance(value, str) and value)
    known = {name: value for name, value in fields.items() if _NAMES[_INPUT + name] in columns}
    return KnownRow(position, row_hash(known), texts, _ident(fields, id_column))


def row_hash(fields: Mapping[str, Any]) -> bytes:
    """A hash of a row's cells that a spreadsheet does not change."""
    cells = sorted(_NAMES[_INPUT + name] + cell for name, value in fields.items() if any(cell := _cell(value)))
    return hashlib.blake2b(b"".join(cells), digest_size=_HASH_BYTES).digest()


_id_column = cache(NamedColumn)


def _ident(fields: Mapping[str, Any], id_column: str) -> bytes:
    value = fields[id_column] if id_column in fields else _id_column(id_column).value(fields)
    return _NOTHING if value is None else _hash(canonical(value))


def _add_edit(edits: list[Edit], before: KnownRow, rest: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    edit = Edit(before, {}, {}, {})
    for name, value in added.items():
        written = before.cells.get(_NAMES[_ADDED + name], b"\0\0\0\0")
        if not _is_one_of(_cell(value), written):
            edit.added[name] = value
    for name, value in rest.items():
        if (known := before.cells.get(_NAMES[_INPUT + name])) is None:
            # A column that an earlier run added and this one does not: what was written goes, what was changed stays.
            was_added = before.cells.get(_NAMES[_ADDED + name.removeprefix("mellea_")], b"")
            if canonical(value) and not _is_one_of(_cell(value), was_added):
                edit.own[name] = value
        elif not _is_one_of(_cell(value), known):
            edit.input[name] = value
    if edit.added or edit.input or edit.own:
        edits.append(edit)


def _is_one_of(cell: bytes, written: bytes) -> bool:
    return any(written[at : at + 4] == cell for at in range(0, len(written), 4))


def _adopted(target: OutputTarget, form: OutputForm, journal: Journal) -> EarlierOutput:
    """An output of version 0.1, whose journal has the answers but not what was written.

    Raises:
        UsageError: no row has an answer of the journal.
    """
    names = form.names[:-1]
    answers: set[bytes] = set()
    telling: dict[bytes, bytes] = {}
    for outcome in journal.outcomes():
        values = outcome.values if isinstance(outcome, Success) else {}
        cells = form.cells(form.added.row(Item(0, 0, ""), Success(values)).added)
        packed = b"".join(_cell(cells.get(name)) for name in names)
        answers.add(packed)
        for name in names:
            if len(text := canonical(cells.get(name))) >= _TELLING:
                telling[_hash(text)] = packed
    known: list[KnownRow] = []
    edits: list[Edit] = []
    ours = 0
    for position, fields in enumerate(_file_rows(target, form)):
        rest, added = form.split(fields)
        row = _identity(position, rest, form.id_column, {_NAMES[_INPUT + name] for name in rest})
        known.append(row)
        here = b"".join(_cell(added.get(name)) for name in names)
        # The labels of a themes run are renamed and checked after the model has answered, so they cannot be compared.
        if here in answers or (form.command != "summarise" and {*names} <= added.keys()):
            ours += 1
            continue
        hashes = (_hash(canonical(added[name])) for name in names if name in added)
        twin = next((telling[one] for one in hashes if one in telling), None)
        ours += twin is not None
        written = twin or bytes(4 * len(names))
        changed = {
            name: added[name]
            for at, name in enumerate(names)
            if name in added and _cell(added[name]) != written[4 * at : 4 * at + 4]
        }
        if changed:
            edits.append(Edit(row, changed, {}, {}))
    if not ours:
        raise UsageError(f"{target.name}: is not the output that its journal belongs to", hint=REPLACE)
    return EarlierOutput(len(known), edits, lambda: iter(known))


def _first_few(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


class Reviewed:
    """Puts what people have said about rows into them, and takes edits by hand over into the corrections file.

    A correction wins over the model. A cell that was edited by hand after the correction is newer than that, so it
    becomes a correction itself; with `adopt` each edited cell does. A bad line of the file raises `InputError`.
    """

    def __init__(
        self,
        file: CorrectionsFile,
        columns: Iterable[Column],
        id_column: str,
        *,
        adopt: bool,
        say: Callable[[str], None],
    ) -> None:
        self._file = file
        self._say = say
        self._id_column = id_column
        self._corrections = Corrections(read_lines(file.path))
        self._columns = {column.name: column for column in columns if column.type}
        self._adopt = adopt
        self._new: list[Correction] = []
        self._later: list[tuple[str, str, Any]] = []

    @property
    def has_work(self) -> bool:
        """Whether any row may change."""
        return self._adopt or bool(self._corrections)

    def notes(self) -> Iterator[str]:
        """What the user should know, a sentence each."""
        if self._corrections:
            yield self._corrections.note(self._file.path)

    def _said(self, item: Item) -> dict[str, Correction]:
        return self._corrections.row(item.id, item.text, has_id=_ident(item.fields, self._id_column) != _NOTHING)

    def corrected(
        self, item: Item, added: Mapping[str, Any], edited: dict[str, Any], form: OutputForm
    ) -> Mapping[str, Any]:
        """The added columns of a row with its corrections; cells that become corrections leave `edited`."""
        from mellea_cli.pipelines.own_fields import read_cell

        said = self._said(item)
        values = {name: one.person for name, one in said.items()}
        if edited and (said or self._adopt):
            for name, value in _fields(edited, form).items():
                if not self._is_news(name, value, said):
                    continue
                before = _fields(added, form).get(name)
                person = read_cell(self._columns[name], value) if name in self._columns else value
                person = None if person == "" else person
                self._new.append(
                    Correction(str(item.id), item.text, name, before, person, this_person(), now(), "edited")
                )
                values[name] = person
        for column in form.added.columns:
            mine = {name: values[name] for name in (column.parts or (column.name,)) if name in values}
            if not mine:
                continue
            self._note_model(said, mine, _fields(added, form))
            if not column.parts:
                added = {**added, **mine}
                edited.pop(column.name, None)
                continue
            inside, of_person = added.get(column.name), edited.get(column.name)
            added = {**added, column.name: {**(inside if isinstance(inside, Mapping) else {}), **mine}}
            if isinstance(of_person, Mapping):
                edited[column.name] = {**of_person, **mine}
            for name in mine:
                edited.pop(name, None)
        return added

    def _is_news(self, name: str, value: Any, said: Mapping[str, Correction]) -> bool:
        """Whether an edited cell is newer than the corrections: a review has seen the cells edited before it."""
        if (one := said.get(name)) is None:
            return self._adopt
        return canonical(value) not in (canonical(one.model), canonical(one.person))

    def _note_model(self, said: Mapping[str, Correction], values: Iterable[str], answered: Mapping[str, Any]) -> None:
        for name in values:
            if name in said and canonical(said[name].model) != canonical(answered.get(name)):
                self._later.append((said[name].item, name, answered.get(name)))

    def store(self, journal: Journal) -> None:
        """Write the new corrections, and what the model says now about corrected rows."""
        self._file.add(self._new)
        if number := len(self._new):
            self._say(f"{number:,} edit{'s' * (number > 1)} adopted into {self._file.path.name}")
        self._new = []
        if self._later or MODEL_VALUES in journal.facts():
            journal.note_facts({MODEL_VALUES: json.dumps(self._later)})


def _fields(cells: Mapping[str, Any], form: OutputForm) -> dict[str, Any]:
    """The cells that a run adds by the names of fields: the parts of a nested column each for itself."""
    found: dict[str, Any] = {}
    for column in form.added.columns:
        inside = cells.get(column.name)
        if column.parts:
            found |= {part: cells[part] for part in column.parts if part in cells}
            if isinstance(inside, Mapping):
                found |= {part: inside[part] for part in column.parts if part in inside}
        elif column.name in cells:
            found[column.name] = inside
    return found


class EditedRows:
    """The rows of a run with the cells that a person has changed; notes in the journal what it writes.

    It stands before the output's sink, and makes the rows, too. `reviewed` is what people have said about the rows,
    `None` where that is not for this command.
    """

    def __init__(
        self,
        rows: OrderedRows,
        form: OutputForm,
        journal: Journal,
        target: OutputTarget,
        source: str,
        reviewed: Reviewed | None = None,
    ) -> None:
        self.edits: dict[int, Edit] = {}  # What a person has changed, by the position of the item
        self.edited: dict[int, Mapping[str, Any]] = {}
        """The changed cells among those that the input or a run has filled, by the position of the item."""
        self.earlier: EarlierOutput | None = None
        self.overwrite = False
        self._rows = rows
        self._form = form
        self._journal = journal
        self._target = target
        self._input = source
        self._generation = max(journal.outputs(), default=0) + 1
        self._columns: dict[str, None] = {}
        self._written: list[WrittenRow] = []
        self._count = self._found = 0
        self._prepared = False
        self._unplaced = _Index(())
        self._old_rows: set[bytes] = set()
        self._old_texts: set[bytes] = set()
        self._old_ids: set[bytes] = set()
        self._known_by_id = 0
        self._new_texts: set[int] = set()
        self._placed = False
        self._edits_by_place: dict[int, Edit] = {}
        self._unwritten: set[int] = set()
        self._reviewed = reviewed
        self._changed: dict[int, Mapping[str, Any]] = {}

    def keep(self, earlier: EarlierOutput | None, items: Iterable[Item] | None, *, overwrite: bool) -> None:
        """Find the rows of the earlier output among the items; `None` for those that can be read only once.

        Raises:
            UsageError: rows or edits would be lost.
        """
        self.earlier, self.overwrite = earlier, overwrite
        if earlier is None:
            return
        self._edits_by_place = {edit.known.position: edit for edit in earlier.edits}
        # Of equal rows, or of equal texts, only the edited one gets its edit back, so the others are looked for, too.
        edited = {edit.known.row for edit in earlier.edits}
        texts = {text for edit in earlier.edits for text in edit.known.texts} - {_NOTHING}
        wanted: list[KnownRow] = []
        for row in earlier.known():
            if row.row in edited or not texts.isdisjoint(row.texts):
                wanted.append(row)
            self._old_rows.add(row.row)
            self._old_texts.update(row.texts)
            if row.ident != _NOTHING:
                self._old_ids.add(row.ident)
        self._unplaced = _Index(wanted)
        if items is None:
            return
        left: list[tuple[Item, KnownRow]] = []
        count = 0
        for count, item in enumerate(items, 1):  # noqa: B007 - the number of items counts after the loop
            row = self._look_for(item)
            # By the text alone, and by the id alone, after all others: another row may have this one's text, or its id.
            if self._unplaced.rows and not self._place(
                item, row, by_text_alone=row.ident == _NOTHING, by_id_alone=False
            ):
                left += [(item, row)] if self._unplaced.knows(row) else []
        left = [one for one in left if not self._place(*one, by_id_alone=False)]
        if self._found >= _LEAST_SHARE * min(count, earlier.rows):
            for item, row in left:
                self._place(item, row)
        self._placed = True
        if why := self._refusal(count):
            raise UsageError(why, hint=REPLACE)

    def notes(self) -> Iterator[str]:
        """What the user should know about the earlier output, a sentence each."""
        if self._reviewed is not None:
            yield from self._reviewed.notes()
        if (earlier := self.earlier) is None:
            return
        name = self._target.name
        if self.edited:
            cells = sum(map(len, self.edited.values()))
            yield f"{name}: {cells:,} cell{'s' * (cells > 1)} in {_rows(len(self.edited))} edited by hand, kept"
        if earlier.own_columns:
            columns = ", ".join(map(repr, earlier.own_columns))
            yield f"{name}: column{'s' * (len(earlier.own_columns) > 1)} {columns} added by hand, kept"
        if earlier.missing:
            yield f"{name}: {_rows(earlier.missing)} deleted by hand, written again; delete them in the input"

    def _look_for(self, item: Item) -> KnownRow:
        row = row_hash(item.fields)
        text, ident = _hash(canonical(item.text)), _ident(item.fields, self._form.id_column)
        if text == _NOTHING or text in self._old_texts or row in self._old_rows:
            self._found += 1
        else:
            self._known_by_id += ident in self._old_ids
            if item.position in self._edits_by_place:
                self._new_texts.add(item.position)
        return KnownRow(item.position, row, (text,), ident)

    def _place(self, item: Item, row: KnownRow, *, by_text_alone: bool = True, by_id_alone: bool = True) -> bool:
        if (known := self._unplaced.take(row, by_text_alone=by_text_alone, by_id_alone=by_id_alone)) is None:
            return False
        if (edit := self._edits_by_place.get(known.position)) is None:
            return True
        rounded = [name for name, value in edit.input.items() if _is_shortened(value, item.fields.get(name))]
        for name in rounded:
            del edit.input[name]
        if cells := edit.input | edit.added:
            self.edited[item.position] = cells
        if cells or edit.own:
            self.edits[item.position] = edit
            self._unwritten.add(item.position)
        return True

    def check(self, rows: int) -> None:
        """Check before the output is put into place that nothing is lost by that.

        Raises:
            UsageError: rows or edits would be lost.
        """
        why = self._refusal(rows)
        if not why and self._unwritten and not self.overwrite:
            why = f"{self._target.name}: {_rows(len(self._unwritten))} that a person has changed would be lost"
        if why:
            raise UsageError(why, hint=REPLACE)

    def _refusal(self, rows: int) -> str:
        """Why so many rows must not replace the earlier output; empty when they may."""
        earlier, name = self.earlier, self._target.name
        if earlier is None or self.overwrite:
            return ""
        if rows < earlier.rows:
            return f"{name}: holds {_rows(earlier.rows)}, and this run would leave {rows:,}"
        found = self._found + (self._known_by_id if earlier.input == self._input else 0)
        if found < _LEAST_SHARE * earlier.rows:
            return f"{name}: was written for another input: {found:,} of its {_rows(earlier.rows)} are in {self._input}"
        if lost := [edit for edit in self._edits_by_place.values() if edit.known.position in self._unplaced.rows]:
            places = _first_few([edit.known.position + 1 for edit in lost])
            if all(edit.known.position in self._new_texts for edit in lost):
                text = f"the text of row{'s' * (len(lost) > 1)} {places} changed in {self._input}"
                return f"{name}: {text}, and a person has edited the answers; --overwrite gives up these edits alone"
            return (
                f"{name}: {_rows(len(lost))} that a person has changed {'is' if len(lost) == 1 else 'are'} not in"
                f" {self._input} (number {places}), and the changes would be lost"
            )
        return ""

    def by_hand(self, item: Item) -> Outcome | None:
        """The outcome of a row whose answers a person has filled in: nothing is asked; `None` for any other row."""
        edit = self.edits.get(item.position)
        return Success({}, attempts=0) if edit is not None and edit.fills_in(self._form.names) else None

    def to_row(self, item: Item, outcome: Outcome) -> Row:
        """Make the row of an outcome, with the cells that a person has changed."""
        row = self._form.added.row(item, outcome)
        identity: KnownRow | None = None
        if not self._placed and self.earlier is not None:
            identity = self._look_for(item)
            if self._unplaced.rows:
                self._place(item, identity, by_text_alone=identity.ident == _NOTHING)
        edit = self.edits.get(item.position)
        if self._reviewed is not None:
            edited = edit.added if edit is not None else {}
            if (corrected := self._reviewed.corrected(item, row.added, edited, self._form)) is not row.added:
                self._changed[item.position] = corrected
                row = replace(row, added=corrected)
        self._note(item, row, identity)
        if edit is None:
            return row
        self._unwritten.discard(item.position)
        self._changed[item.position] = added = self._form.with_cells(row.added, edit.added)
        changed = {**edit.input, **{name: value for name, value in edit.own.items() if name in item.fields}}
        own = {name: value for name, value in edit.own.items() if name not in item.fields}
        if self._form.is_table:
            changed |= own
        else:
            added |= own
        return Row(replace(item, fields={**item.fields, **changed}, raw=None) if changed else item, added)

    def counted(self, item: Item, outcome: Outcome) -> Outcome:
        """The outcome of a row that is made, as the output has it: with what people have changed in it."""
        if (changed := self._changed.pop(item.position, None)) is None or not isinstance(outcome, Success):
            return outcome
        values = {**outcome.values, **changed}
        for column in self._form.added.columns:
            if column.joint and isinstance(text := values.get(column.name), str):
                values[column.name] = text.split(column.joint)
        return replace(outcome, values=values)

    def _note(self, item: Item, row: Row, identity: KnownRow | None) -> None:
        """Remember what the run itself says about a row: whatever else is found in its cells is a person's."""
        fields = item.fields
        if not fields.keys() <= self._columns.keys():
            self._columns.update(dict.fromkeys(fields))
        cells = {_NAMES[_INPUT + name]: _cell(value) for name, value in fields.items()}
        inputs = sorted(name + cell for name, cell in cells.items() if any(cell))
        whole = hashlib.blake2b(b"".join(inputs), digest_size=_HASH_BYTES).digest()
        text = identity.texts[0] if identity is not None else _hash(canonical(item.text))
        packed = [name + cell for name, cell in cells.items()]
        packed += [_NAMES[_ADDED + name] + _cell(value) for name, value in self._form.cells(row.added).items()]
        keys = whole + text + _ident(fields, self._form.id_column)
        self._written.append((item.position, keys, b"".join(packed)))
        self._count += 1
        if len(self._written) >= _GROUP:
            self._store()

    def _store(self) -> None:
        if not self._prepared:
            self._journal.prepare_outputs()
            self._prepared = True
        self._journal.add_written(self._generation, self._written)
        self._written = []

    def add(self, row: Row) -> None:
        self._rows.add(row)

    def flush(self) -> None:
        self._rows.flush()

    def finish(self) -> None:
        """Put the output into place. Between the two records it is not known which of two outputs is there."""
        self._store()
        record = {
            "command": self._form.command,
            "format": self._form.format,
            "columns": list(self._columns),
            "input": self._input,
            "rows": self._count,
            "edited": len(self.edits),
            "digest": None,
        }
        self._journal.note_output(self._generation, json.dumps(record))
        if self._reviewed is not None:
            self._reviewed.store(self._journal)
        self._rows.finish()
        record["digest"] = file_digest(self._target.path)
        self._journal.note_output(self._generation, json.dumps(record))
        self._journal.forget_outputs(self._generation)

    def close(self) -> None:
        self._rows.close()


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


_CELL_CHARS = 32_767


def _is_shortened(value: Any, was: Any) -> bool:
    """Whether a spreadsheet has shortened a long number, as in 1.23457E+12, or a very long text."""
    text = str(value).strip()
    if len(str(value)) >= _CELL_CHARS:
        return isinstance(was, str) and canonical(was).startswith(canonical(value)[: _CELL_CHARS - 10])
    if not _ROUNDED.fullmatch(text):
        return False
    try:
        return math.isclose(float(text.replace(",", ".")), float(was), rel_tol=1e-3)
    except (TypeError, ValueError):
        return False
