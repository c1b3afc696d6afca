"""Reader of what `summarise` and `themes` write, in every input format.

A run adds its columns after the input's. Where the input had a column of that name, the added one is called
`mellea_NAME`, `mellea_NAME_2` and so on, so of several candidates the last one is the run's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal, Self

from mellea_cli.errors import InputError, OutputError, nearest
from mellea_cli.io.byte_input import ByteInput, open_bytes, without_surrogates
from mellea_cli.io.columns import (
    ID_COLUMN,
    PATH_ROWS,
    SAMPLE_ROWS,
    column_value,
    find_text,
    is_path,
    joined_texts,
    listed,
    same_names,
)
from mellea_cli.io.corrections import MODEL_VALUES, Correction, Corrections, corrections_path, read_lines
from mellea_cli.io.files import resolve_output
from mellea_cli.io.formats import ColumnType, CsvDialect, RawRow, RowStream
from mellea_cli.io.journal import peek_answers
from mellea_cli.io.row_filter import NamedColumn, require_columns
from mellea_cli.io.source import SourceOptions, open_rows
from mellea_cli.io.writers import Added
from mellea_cli.pipelines.pipeline import Column
from mellea_cli.pipelines.theme_prompts import NONE

State = Literal["answered", "blank", "failed", "non-answer"]

SENTIMENTS = ("negative", "mixed", "positive")
URGENCIES = ("high", "medium", "low")
UNSAID = "not said"  # The urgency of an answered row without one

_ADDED = ("summary", "sentiment", "issues", "themes", "theme_quotes", "error")
_ISSUE_PARTS = ("main_complaint", "positive_aspect", "urgency")
_FORMULA_GUARD = re.compile(r"'[=+\-@\t\r]")
_THEME_SEPARATOR = " | "


_FIELD_NAMES = {
    "sentiment": "sentiment",
    "urgency": "urgency",
    "main_complaint": "complaint",
    "positive_aspect": "praise",
    "summary": "summary",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a finished run: the feedback, the answers about it, and the input's other columns."""

    number: int  # Place among the rows that could be read, counted from 1
    id: str
    text: str
    # `answered` with a sentiment, `failed` with an error, `non-answer` with a text such as "n/a", else `blank`
    state: State
    summary: str = ""
    sentiment: str = ""
    urgency: str = ""
    complaint: str = ""
    praise: str = ""
    # Names of themes, or `other` or `none` alone; `None` when the row has not been labelled
    themes: tuple[str, ...] | None = None
    quotes: Mapping[str, str] = field(default_factory=dict)  # A verbatim part of the text for each theme
    error: str = ""
    error_kind: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)  # The input's other columns, unchanged
    own: Mapping[str, Any] = field(default_factory=dict)  # The values of own fields, whose columns are in `rest`, too
    reviewed: Mapping[str, Correction] = field(default_factory=dict)  # What people have said, by field
    is_sampled: bool = False  # Whether it is in the random sample that a person has reviewed

    def value(self, name: str) -> Any:
        """The value of a field; `main_complaint` and the like by their names in the output, null for nothing."""
        if name in _FIELD_NAMES:
            return getattr(self, _FIELD_NAMES[name]) or None
        return list(self.themes) if name == "themes" and self.themes else self.own.get(name)

    def model_value(self, name: str) -> Any:
        """The model's value of a field, also where a person has corrected it."""
        return self.reviewed[name].model if name in self.reviewed else self.value(name)

    def corrected(
        self, corrections: Mapping[str, Correction], columns: Mapping[str, str], *, is_sampled: bool
    ) -> Record:
        """The row with what people have said about it; `columns` are those of own fields, by field."""
        plain = {_FIELD_NAMES[name]: one.person or "" for name, one in corrections.items() if name in _FIELD_NAMES}
        if "themes" in corrections:
            plain["themes"] = tuple(corrections["themes"].person or ()) or None
        own = {name: one.person for name, one in corrections.items() if name in self.own}
        rest = {columns[name]: value for name, value in own.items() if columns.get(name) in self.rest}
        changed: dict[str, Any] = {"own": {**self.own, **own}, "rest": {**self.rest, **rest}, **plain}
        if self.state == "failed" and plain.get("sentiment"):
            changed["state"] = "answered"
        return replace(self, **changed, reviewed=corrections, is_sampled=is_sampled)

    @property
    def words(self) -> str:
        """The customer's text, or its summary where the text is not in the file."""
        return self.text.strip() or self.summary


def open_results(path: str, options: SourceOptions | None = None) -> Results:
    """Open the output of a run: a JSONL, JSON, CSV or TSV file, also packed with gzip, or `-` for standard input."""
    facts = _facts(path)
    corrections = Corrections() if path == "-" else _corrections(path, facts)
    own, labels = own_columns(path, facts), [name.strip().lower() for name in _choices(facts).get("sentiment", ())]
    return Results(open_bytes(path), options or SourceOptions(), own, _sample(facts), corrections, labels)


OWN_FIELDS = "own fields"
"""The fact of a journal that describes the columns of own fields: a list of name, type and joint each."""


SAMPLE = "sample"  # The fact of a journal whose rows are a random sample: an object with `size` and `population`


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of an output are a random sample of its input, drawn with `--sample`."""

    size: int
    population: int  # Rows of the input


def _facts(path: str) -> Mapping[str, str]:
    """What the journal of an output says about its run; nothing where there is no journal."""
    try:
        with closing(peek_answers(resolve_output(path))) as answers:
            return answers.facts()
    except OutputError:
        return {}  # the report says what the file itself says


def _noted(facts: Mapping[str, str], name: str) -> Any:
    """What a fact says in JSON; `None` where there is none."""
    try:
        return json.loads(facts.get(name) or "null")
    except ValueError:
        return None


def own_columns(path: str, facts: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """The columns of own fields in an output, by its journal; none where there is no journal."""
    described = _noted(_facts(path) if facts is None else facts, OWN_FIELDS) or []
    try:
        return tuple(Column(name, type=kind, joint=joint) for name, kind, joint in described)
    except (ValueError, TypeError):
        return ()


def sample_note(path: str) -> str:
    """What the journal of an output notes about its sample, unread; empty without one."""
    return _facts(path).get(SAMPLE, "")


def _sample(facts: Mapping[str, str]) -> Sample | None:
    try:
        noted = _noted(facts, SAMPLE)
        return Sample(int(noted["size"]), int(noted["population"]))
    except (ValueError, TypeError, KeyError):
        return None


CHOICES = "choices"  # The fact of a journal with the values that its columns may have, by column


def known_choices(path: str) -> dict[str, list[str]]:
    """The values that the columns of an output may have, by its journal; none where there is no journal."""
    return _choices(_facts(path))


def _choices(facts: Mapping[str, str]) -> dict[str, list[str]]:
    found = _noted(facts, CHOICES)
    return found if isinstance(found, dict) else {}


def _corrections(path: str, facts: Mapping[str, str]) -> Corrections:
    """The corrections of an output, with what the model says about their rows by now; raises as `read_lines` does."""
    corrections = read_lines(corrections_path(path))
    try:
        later = {(item, name): value for item, name, value in _noted(facts, MODEL_VALUES) or []}
    except (ValueError, TypeError):
        later = {}
    keys = ((one, (one.item, one.field)) for one in corrections)
    return Corrections(replace(one, model=later[key]) if key in later else one for one, key in keys)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The role of each column in rows with the same set of columns; nothing for a role that no column has."""

    added: Mapping[str, str]  # The run's columns by their usual names
    nested: bool  # Whether the issues are one object, as in JSON, or a column for each part, as in CSV
    text: tuple[str, ...]
    id: str | None
    rest: tuple[str, ...]
    own: Mapping[str, str]  # The columns of own fields, by field


class Results:
    """The rows of one output, in order. Iterate once, in a `with` block.

    Iterating raises `InputError` when the file cannot be read further, or no row has the columns that a run adds.
    """

    def __init__(
        self,
        data: ByteInput,
        options: SourceOptions,
        own: Sequence[Column] = (),
        sample: Sample | None = None,
        corrections: Corrections | None = None,
        sentiments: Sequence[str] = (),
    ) -> None:
        self.sentiments = tuple(sentiments)  # The labels that the sentiment may have; none where nothing is known
        self.sample = sample  # `None` for all rows of an input, and where nothing is known
        self.name = data.name  # The path, or `<stdin>`
        self.bad: list[InputError] = []  # The first rows that could not be used
        self.unreadable = 0  # The number of rows that could not be used
        # The input's columns other than text and id, in the order of their first occurrence
        self.columns: dict[str, None] = {}
        self.corrections = corrections or Corrections()
        self.own = tuple(own)  # The columns of own fields, which are among the others in `columns`
        self.labelled = False  # Whether there is a column with themes
        self.has_ids = False
        self.has_text = False  # Whether the rows contain the feedback itself
        self._data = data
        self._options = options
        self._known_columns: dict[tuple[str, ...], _Columns] = {}
        self._flat = False
        self._text_fields = options.text_fields
        self.notes: list[str] = []  # What the user should know about the file, such as that a column was renamed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def __iter__(self) -> Iterator[Record]:
        rows = open_rows(self._data, self._options)
        if rows.header:
            self._added(rows.header, rows.header_line)
        where = self._options.where
        if where is not None:
            rows = where.checked(rows, self.name)
        stream = self.find_columns(rows)
        self.notes = [*rows.notes]
        if rows.header:
            self._assign(rows.header, rows.header_line)
        number = unselected = 0
        for row in stream:
            try:
                if isinstance(row, InputError):
                    raise row
                line, fields, _ = row
                place = number + unselected + 1
                if where is not None and not where.matches(self.with_corrections(fields, line, place)):
                    unselected += 1
                    continue
                record = self._record(fields, self._assign(tuple(fields), line), place)
            except InputError as error:
                self.unreadable += 1
                if len(self.bad) < 3:
                    self.bad.append(error)
                continue
            number += 1
            yield record
        if self.bad and not (number or unselected):
            raise self.bad[0]

    def find_columns(self, rows: RowStream) -> Iterator[RawRow | InputError]:
        """Find the column with the feedback as the run did when nobody names it, and return all rows."""
        self._flat = bool(rows.header)
        if self._text_fields:
            return rows.stream
        taken = list(islice(rows.stream, SAMPLE_ROWS))
        sample = [row[1] for row in taken if not isinstance(row, InputError)]
        names = rows.header or tuple(dict.fromkeys(key for fields in sample for key in fields))
        added = {added_column(name, names) for name in (*_ADDED, *_ISSUE_PARTS, *(column.name for column in self.own))}
        found = find_text([name for name in names if name not in added], sample)
        self._text_fields = tuple(found or ()) if found and len(found) == 1 else ()
        return chain(taken, rows.stream)

    def _added(self, names: tuple[str, ...], line: int) -> dict[str, str]:
        """The run's columns by their usual names."""
        added = {name: found for name in _ADDED if (found := added_column(name, names)) is not None}
        if "sentiment" not in added and not any(column.name in names for column in self.own):
            hint = "make one first: mellea summarise FILE -o results.jsonl"
            if not self.name.startswith("<"):
                hint = hint.replace("FILE", self.name)
                if not resolve_output(self.name).journal.exists():
                    hint += f"; the output of own fields needs its journal next to it: {self.name}.journal"
            raise InputError(
                f"is not an output of mellea summarise: no column 'sentiment'; columns seen: {listed(names)}",
                path=self.name,
                line=line,
                hint=hint,
            )
        return added

    def _named(self, wanted: str, flag: str, names: tuple[str, ...], line: int) -> str:
        same = same_names(wanted, names)
        if len(same) != 1 and (self._flat or not is_path(wanted)):
            raise self.missing(wanted, flag, names, line)
        return same[0] if same else wanted

    def _assign(self, names: tuple[str, ...], line: int) -> _Columns:
        """Find the role of each column; rows of JSON may differ in their columns."""
        if (known := self._known_columns.get(names)) is not None:
            return known
        added = self._added(names, line)
        nested = not self._flat and "issues" in added
        if not nested:
            added.pop("issues", None)
            added |= {name: found for name in _ISSUE_PARTS if (found := added_column(name, names)) is not None}
        options = self._options
        if options.text_fields:
            text = tuple(self._named(name, "--text-field", names, line) for name in options.text_fields)
        else:
            text = tuple(name for name in self._text_fields if name in names)
        if options.id_field is not None:
            ident: str | None = self._named(options.id_field, "--id-field", names, line)
        else:
            ident = same[0] if len(same := same_names(ID_COLUMN, names)) == 1 else None
        taken = {*added.values(), *text, ident}
        own = {one.name: found for one in self.own if (found := added_column(one.name, names)) is not None}
        columns = _Columns(added, nested, text, ident, tuple(name for name in names if name not in taken), own)
        self.columns.update(dict.fromkeys(columns.rest))
        self.labelled = self.labelled or "themes" in added
        self.has_ids = self.has_ids or ident is not None
        self.has_text = self.has_text or bool(text)
        if len(self._known_columns) >= PATH_ROWS:
            self._known_columns.clear()
        self._known_columns[names] = columns
        return columns

    def with_corrections(self, fields: Mapping[str, Any], line: int, number: int) -> Mapping[str, Any]:
        """The cells of a row with what people have said in place of the answers, as the next run writes them."""
        if not self.corrections:
            return fields
        columns = self._assign(tuple(fields), line)
        ident, text = self._identity(fields, columns)
        said = self.corrections.row(ident or str(number), text, has_id=bool(ident))
        if not said or is_non_answer(text):
            return fields
        changed = dict(fields)
        for name, one in said.items():
            if columns.nested and name in _ISSUE_PARTS:
                column = columns.added["issues"]
                inside = changed.get(column)
                changed[column] = {**(inside if isinstance(inside, Mapping) else {}), name: one.person}
            elif column := columns.added.get(name) or columns.own.get(name, ""):
                value = (
                    Added(name, joint=_joints(self.own).get(name, "")).cell(one.person) if self._flat else one.person
                )
                changed[column] = "" if self._flat and value is None else value
        return changed

    def _identity(self, fields: Mapping[str, Any], columns: _Columns) -> tuple[str, str]:
        """The id of a row, empty without one, and its text."""
        ident = "" if columns.id is None else self._text(column_value(fields, columns.id)).strip()
        return ident, joined_texts({name: self._text(column_value(fields, name)) for name in columns.text})

    def _record(self, fields: Mapping[str, Any], columns: _Columns, number: int) -> Record:
        added = {name: fields.get(column) for name, column in columns.added.items()}
        issues = added.get("issues") if columns.nested else added
        complaint, praise, urgency = (
            (issues.get(name) for name in _ISSUE_PARTS) if isinstance(issues, Mapping) else (None, None, None)
        )
        sentiment = self._text(added.get("sentiment")).strip().lower()
        kind, reason = self._failure(added.get("error"))
        ident, text = self._identity(fields, columns)
        rest = columns.rest
        error = columns.added.get("error")
        if error and not self._flat and not isinstance(fields.get(error), Mapping | None):
            # In JSON the run writes an object: an error of another type is the input's own column.
            self.columns.setdefault(error)
            rest = (*rest, error)
        # Without built-in columns every row with a text is answered, unless it failed.
        answered = bool(sentiment) or ("sentiment" not in columns.added and not reason and bool(text.strip()))
        state: State = "answered" if answered else "failed" if reason else "blank"
        themes, own = self._themes(added.get("themes")), self._own(fields, columns.own)
        if answered and is_non_answer(text):
            # Whatever a model made of it, nothing was said: no judgement, no theme, no value of an own field.
            state, sentiment, urgency, own = "non-answer", "", None, {}
            themes = (NONE,) if themes is not None else None
        found = Record(
            number=number,
            id=ident or str(number),
            text=text,
            state=state,
            summary=self._text(added.get("summary")),
            sentiment=sentiment,
            urgency=self._text(urgency).strip().lower() if sentiment else "",
            complaint=self._text(complaint),
            praise=self._text(praise),
            themes=themes,
            quotes=self._quotes(added.get("theme_quotes")),
            error=reason,
            error_kind=kind,
            rest={name: self._cell(fields.get(name)) for name in rest},
            own=own,
        )
        if state == "non-answer" or not self.corrections:
            return found
        if not (said := self.corrections.row(found.id, found.text, has_id=bool(ident))):
            return found
        return found.corrected(said, columns.own, is_sampled=self.corrections.is_random(found.id, found.text))

    def _own(self, fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
        if not self.own:
            return {}
        from mellea_cli.pipelines.own_fields import read_cell

        return {column.name: read_cell(column, fields.get(columns.get(column.name, ""))) for column in self.own}

    def _text(self, value: Any) -> str:
        if value is None:
            return ""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # The apostrophe that the CSV writer puts before what a spreadsheet would execute is no part of the text.
        if self._flat and _FORMULA_GUARD.match(text):
            text = text[1:]
        return text if text.isascii() else without_surrogates(text)

    def _cell(self, value: Any) -> Any:
        return self._text(value) if isinstance(value, str) else value

    def _failure(self, error: Any) -> tuple[str, str]:
        """Kind and sentence of a failure; both empty without one."""
        if isinstance(error, Mapping):
            kind = self._text(error.get("kind")) or "error"
            return kind, f"{kind}: {self._text(error.get('message'))}"
        if self._flat and error:
            return self._text(error).partition(":")[0], self._text(error)
        return "", ""

    def _themes(self, value: Any) -> tuple[str, ...] | None:
        if isinstance(value, str):
            value = self._text(value).split(_THEME_SEPARATOR)
        if not isinstance(value, list):
            return None
        names = (self._text(name).strip() for name in value)
        return tuple(dict.fromkeys(name for name in names if name)) or None

    def _quotes(self, value: Any) -> dict[str, str]:
        if isinstance(value, str):
            try:
                value = json.loads(self._text(value))
            except ValueError:
                return {}
        if not isinstance(value, Mapping):
            return {}
        return {self._text(name).strip(): self._text(quote) for name, quote in value.items() if isinstance(quote, str)}

    def missing(self, wanted: str, flag: str, columns: Iterable[str] = (), line: int | None = None) -> InputError:
        """The error for a column that the user named with `flag` and that does not exist."""
        names = list(columns) or list(self.columns)
        close = nearest(wanted, names)
        hint = f"did you mean {flag} {close!r}?" if close else f"name another one with {flag}"
        seen = f"no column {wanted!r}; columns seen: {listed(names)}"
        return InputError(seen, path=self.name, line=line, hint=hint)


# Texts that people type to get past a field. "Nothing" and "all good" can be answers, so they are not among them.
_NON_ANSWERS = frozenset((
    *("n/a", "n.a", "n.a.", "n\\a", "na", "none", "nil", "null", "nan", "undefined", "x"),
    *("test", "testing", "tbd", "idk"),
    *("no comment", "no comments", "no answer", "no response", "not applicable", "nothing to say", "prefer not to say"),
    *("k.a.", "k. a.", "keine angabe", "kein kommentar", "entfällt", "sans objet", "néant", "n.v.t."),
    *("sin comentarios", "no aplica"),
))  # fmt: skip
_KEYBOARD_ROWS = ("qwertyuiop", "qwertzuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "azertyuiop")
_MARKS = re.compile(
    r"[\s\-\u2013\u2014_./\\*,;~=+#?·…]+"
)  # Without brackets, colons and `!`: a face made of them says something


def is_non_answer(text: str) -> bool:
    """Whether a text says nothing: `n/a`, `-`, `asdf`, `xxx`. An empty one is no text at all."""
    text = text.strip().casefold()
    if not text or len(text) > 20:
        return False
    if text in _NON_ANSWERS or text.rstrip(".!") in _NON_ANSWERS or _MARKS.fullmatch(text):
        return True
    letters = text.replace(" ", "")
    if len(letters) >= 3 and letters.isascii() and letters.isalpha() and len(set(letters)) == 1:
        return True
    # Part of a row of keys, once or several times: asdf, asdfasdf, qwertz. A text is found in its double first at the
    # length of the part that it repeats.
    unit = letters[: (letters * 2).index(letters, 1)] if letters else ""
    return len(unit) >= 4 and any(unit in row or unit in row[::-1] for row in _KEYBOARD_ROWS)


def added_column(name: str, columns: tuple[str, ...]) -> str | None:
    """The column that a run has added under a name or a name that was free; `None` where there is none."""
    pattern = re.compile(rf"(?:mellea_)?{name}|mellea_{name}_\d+")
    return next((column for column in reversed(columns) if pattern.fullmatch(column)), None)


def _joints(own: Iterable[Column]) -> dict[str, str]:
    """What separates the values of a list in a table, by column."""
    return {"themes": _THEME_SEPARATOR} | {one.name: one.joint for one in own if one.joint}


class OutputRows:
    """The rows of a table or a JSON file, for `mellea show` and `mellea export`: as they are, with corrections.

    Args:
        path: the file, or `-` for standard input.
        options: how to read it, and which rows.
        columns: columns that must exist, as the user names them.
        flag: the flag that names them.
        sort: one more such column, from `--sort`.

    Iterate once, in a `with` block; iterating raises `InputError` as `Results` does.
    """

    def __init__(
        self,
        path: str,
        options: SourceOptions,
        columns: Sequence[str] = (),
        *,
        flag: str = "--columns",
        sort: str | None = None,
    ) -> None:
        self._data = open_bytes(path)
        self.name = self._data.name
        self.bad: list[InputError] = []  # The first rows that could not be read
        self.unreadable = 0
        self.dialect: CsvDialect | None = None
        self.types: Mapping[str, ColumnType] = {}
        self.first: Mapping[str, Any] = {}  # The columns of a table, or those of the first row, selected or not
        self._options = options
        self._columns = [NamedColumn(name) for name in columns]
        self._flag = flag
        self._sort = [NamedColumn(sort)] if sort else []
        facts = _facts(path)
        own = own_columns(path, facts)
        self.own = tuple(column.name for column in own)
        self._joints = _joints(own)
        corrections = Corrections() if path == "-" else _corrections(path, facts)
        self._results = Results(self._data, options, own, corrections=corrections) if corrections else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def __iter__(self) -> Iterator[RawRow]:
        rows = require_columns(self._columns, open_rows(self._data, self._options), self.name, self._flag)
        rows = require_columns(self._sort, rows, self.name, "--sort")
        where = self._options.where
        if where is not None:
            rows = where.checked(rows, self.name)
        self.dialect, self.types = rows.dialect, rows.types
        self.first = dict.fromkeys(rows.header)
        seen = 0
        for row in self._results.find_columns(rows) if self._results else rows.stream:
            if isinstance(row, InputError):
                self.unreadable += 1
                self.bad = [*self.bad, row][:3]
                continue
            seen += 1
            self.first = self.first or row[1]
            row = self._corrected(row, seen)  # noqa: PLW2901
            if where is not None and not where.matches(row[1]):
                continue
            yield row
        if self.bad and not seen:
            raise self.bad[0]

    def _corrected(self, row: RawRow, number: int) -> RawRow:
        line, fields, _ = row
        if self._results is None:
            return row
        try:
            changed = self._results.with_corrections(fields, line, number)
        except InputError:
            return row  # it has none of the columns that a run adds
        return row if changed is fields else (line, dict(changed), None)

    def chosen(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a row that were named, in their order; without names all of them."""
        return {one.name: one.value(fields) for one in self._columns} if self._columns else dict(fields)

    def sorting(self, fields: Mapping[str, Any]) -> Any:
        """The value of the column of `--sort`."""
        return self._sort[0].value(fields)

    def flat(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A row as tables have it: the parts of `issues` in columns of their own, lists joined, an error as text."""
        cells: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "issues" and isinstance(value, Mapping | None):
                cells |= {part: (value or {}).get(part) for part in _ISSUE_PARTS}
            elif name == "error" and isinstance(value, Mapping):
                cells[name] = f"{value.get('kind', name)}: {value.get('message', '')}"
            else:
                cells[name] = Added(name, joint=self._joints.get(name, "")).cell(value)
        return cells


def usual_columns(rows: Sequence[Mapping[str, Any]], own: Sequence[str]) -> list[str]:
    """The columns to show first when nobody chooses: id, text and the answers; then the others."""
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    answers = [added_column(name, names) for name in ("sentiment", "urgency", *own, "themes", "summary", "error")]
    added = [name for name in answers if name is not None]
    found = find_text([name for name in names if name not in (*added, *_ISSUE_PARTS)], rows) if rows else None
    first = [*same_names(ID_COLUMN, names), *(found or ())[:1], *added]
    return list(dict.fromkeys((*first, *names)))
