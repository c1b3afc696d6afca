"""Reads what `summarise` and `themes` write, in every format that a source reads, and finds our columns in it.

Our columns may be called otherwise: `mellea_NAME`, `mellea_NAME_2` and so on where the input had such a column itself.
They always stand behind the input's, so of several candidates the last one is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from mellea_cli.errors import InputError, nearest
from mellea_cli.io.byte_input import ByteInput, open_bytes, without_surrogates
from mellea_cli.io.source import ID_COLUMN, TEXT_COLUMNS, SourceOptions, open_rows

# One row of a finished run, as a report sees it.

State = Literal["answered", "blank", "failed"]

OTHER, NONE = "other", "none"
"""What stands in the place of a theme: something that no theme covers, and nothing worth one."""

SENTIMENTS = ("negative", "mixed", "positive")
URGENCIES = ("high", "medium", "low")
UNSAID = "not said"
"""Stands for a judgement that an answered row does not hold."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: the feedback, the answers about it, and what is left of its columns."""

    number: int
    """Place among the rows that could be read, counted from 1."""
    id: str
    text: str
    state: State
    """`answered` when there is a sentiment, `failed` when there is a reason why not, else `blank`."""
    summary: str = ""
    sentiment: str = ""
    urgency: str = ""
    complaint: str = ""
    praise: str = ""
    themes: tuple[str, ...] | None = None
    """Names of themes, or `other` or `none` alone; `None` when the row has not been labelled."""
    quotes: Mapping[str, str] = field(default_factory=dict)
    """A verbatim part of the text for each theme."""
    error: str = ""
    error_kind: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The input's other columns, as they stand there."""

    @property
    def words(self) -> str:
        """What the customer said, or the summary of it where the text is not at hand."""
        return self.text.strip() or self.summary


def ranked(value: str, order: tuple[str, ...]) -> int:
    """The place of a judgement in its order; unknown ones come after all known ones."""
    return order.index(value) if value in order else len(order)


_OURS = ("summary", "sentiment", "issues", "themes", "theme_quotes", "error")
_PARTS = ("main_complaint", "positive_aspect", "urgency")
_FORMULA = re.compile(r"'[=+\-@\t\r]")
_BETWEEN_THEMES = " | "
_SHOWN_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the columns of a row are called; `None` for what it does not have."""

    ours: Mapping[str, str]
    """Our columns by the name that they would have if it were free."""
    nested: bool
    """Whether the issues are one object, as in JSON, or a column for each part, as in CSV."""
    text: str | None
    id: str | None
    rest: tuple[str, ...]


def open_results(path: str, options: SourceOptions | None = None, *, stream: BinaryIO | None = None) -> Results:
    """Open the output of a run.

    Args:
        path: a JSONL, JSON, CSV or TSV file, also packed with gzip, or `-` for standard input.
        options: how to read it; `text_field` and `id_field` name the columns of the input.
        stream: stands in for standard input when `path` is `-`.

    Raises:
        InputError: it cannot be opened.
    """
    return Results(open_bytes(path, stream), options or SourceOptions())


class Results:
    """The rows of one output, in order, read as they are asked for. Iterate it once, in a `with` block.

    While iterating:

    Raises:
        InputError: it cannot be read on, or not one row has the columns that a run adds.
    """

    def __init__(self, data: ByteInput, options: SourceOptions) -> None:
        self.name = data.name
        """The path, or `<stdin>`."""
        self.bad: list[InputError] = []
        """The first rows that could not be used."""
        self.unreadable = 0
        """How many could not be used."""
        self.columns: dict[str, None] = {}
        """The input's columns other than text and id, in the order in which they turn up."""
        self.labelled = False
        """Whether there is a column with themes."""
        self.has_ids = False
        """Whether the rows bring ids of their own."""
        self.has_text = False
        """Whether the feedback itself is in the rows."""
        self._data = data
        self._options = options
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._flat = False
        self.notes: tuple[str, ...] = ()
        """What the user should know about the file, such as that a column was renamed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def __iter__(self) -> Iterator[Record]:
        rows = open_rows(self._data, self._options)
        self._flat = rows.format in ("csv", "tsv")
        self.notes = rows.notes
        if rows.header:
            self._layout(rows.header, rows.header_line)
        number = 0
        for row in rows.stream:
            try:
                if isinstance(row, InputError):
                    raise row
                line, fields, _ = row
                record = self._record(fields, self._layout(tuple(fields), line), number + 1)
            except InputError as error:
                self.unreadable += 1
                if len(self.bad) < 3:
                    self.bad.append(error)
                continue
            number += 1
            yield record
        if self.bad and not number:
            raise self.bad[0]

    def _layout(self, columns: tuple[str, ...], line: int) -> _Layout:
        if (known := self._layouts.get(columns)) is not None:
            return known
        ours = {name: found for name in _OURS if (found := _last(name, columns)) is not None}
        if "sentiment" not in ours:
            raise self._not_ours(columns, line)
        nested = not self._flat and "issues" in ours
        if not nested:
            ours.pop("issues", None)
            ours |= {name: found for name in _PARTS if (found := _last(name, columns)) is not None}
        text = self._named(self._options.text_field, "--text-field", columns, line) or _text_column(columns, ours)
        ident = self._named(self._options.id_field, "--id-field", columns, line)
        ident = ident or (ID_COLUMN if ID_COLUMN in columns else None)
        taken = {*ours.values(), text, ident}
        layout = _Layout(ours, nested, text, ident, tuple(name for name in columns if name not in taken))
        self.columns.update(dict.fromkeys(layout.rest))
        self.labelled = self.labelled or "themes" in ours
        self.has_ids = self.has_ids or ident is not None
        self.has_text = self.has_text or text is not None
        self._layouts[columns] = layout
        return layout

    def _record(self, fields: Mapping[str, Any], layout: _Layout, number: int) -> Record:
        def ours(name: str) -> Any:
            column = layout.ours.get(name)
            return None if column is None else fields.get(column)

        issues = ours("issues")
        parts: Mapping[str, Any] = issues if isinstance(issues, Mapping) else {}
        complaint, praise, urgency = ((parts.get(name) if layout.nested else ours(name)) for name in _PARTS)
        sentiment = self._word(ours("sentiment"))
        kind, reason = self._reason(ours("error"))
        state: State = "answered" if sentiment else "failed" if reason else "blank"
        ident = None if layout.id is None else self._word(fields.get(layout.id), fold=False)
        return Record(
            number=number,
            id=ident or str(number),
            text="" if layout.text is None else self._text(fields.get(layout.text)),
            state=state,
            summary=self._text(ours("summary")),
            sentiment=sentiment,
            urgency=self._word(urgency) if sentiment else "",
            complaint=self._text(complaint),
            praise=self._text(praise),
            themes=self._themes(ours("themes")),
            quotes=self._quotes(ours("theme_quotes")),
            error=reason,
            error_kind=kind,
            rest={name: self._cell(fields.get(name)) for name in self._rest(fields, layout)},
        )

    def _rest(self, fields: Mapping[str, Any], layout: _Layout) -> tuple[str, ...]:
        """The columns of the input: in JSON an error that is no object is one of them."""
        error = layout.ours.get("error")
        if error is None or self._flat or isinstance(fields.get(error), Mapping | None):
            return layout.rest
        self.columns.setdefault(error)
        return (*layout.rest, error)

    def _cell(self, value: Any) -> Any:
        return self._text(value) if isinstance(value, str) else value

    def _text(self, value: Any) -> str:
        if value is None:
            return ""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # The apostrophe that our CSV puts in front of what a spreadsheet would run is no part of the text.
        if self._flat and _FORMULA.match(text):
            text = text[1:]
        return text if text.isascii() else without_surrogates(text)

    def _word(self, value: Any, *, fold: bool = True) -> str:
        text = self._text(value).strip()
        return text.lower() if fold else text

    def _reason(self, error: Any) -> tuple[str, str]:
        """Kind and sentence of a failure; a text in JSON is the input's own column."""
        if isinstance(error, Mapping):
            kind = self._text(error.get("kind")) or "error"
            return kind, f"{kind}: {self._text(error.get('message'))}"
        if self._flat and error:
            return self._text(error).partition(":")[0], self._text(error)
        return "", ""

    def _themes(self, value: Any) -> tuple[str, ...] | None:
        if isinstance(value, str):
            value = self._text(value).split(_BETWEEN_THEMES)
        if not isinstance(value, list):
            return None
        names = (self._text(one).strip() for one in value)
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

    def _named(self, wanted: str | None, flag: str, columns: tuple[str, ...], line: int) -> str | None:
        if wanted is None or wanted in columns:
            return wanted
        raise self.missing(wanted, flag, columns, line)

    def missing(self, wanted: str, flag: str, columns: Iterable[str] = (), line: int | None = None) -> InputError:
        """The error for a column that was asked for and is not there.

        Args:
            wanted: the column's name.
            flag: the flag that named it.
            columns: those that there are; by default all that were seen.
            line: where that was found.
        """
        names = list(columns) or list(self.columns)
        close = nearest(wanted, names)
        hint = f"did you mean {flag} {close!r}?" if close else f"name another one with {flag}"
        seen = f"no column {wanted!r}; columns seen: {_listed(names)}"
        return InputError(seen, path=self.name, line=line, hint=hint)

    def _not_ours(self, columns: tuple[str, ...], line: int) -> InputError:
        name = "FILE" if self.name.startswith("<") else self.name
        return InputError(
            f"is not an output of mellea summarise: no column 'sentiment'; columns seen: {_listed(columns)}",
            path=self.name,
            line=line,
            hint=f"make one first: mellea summarise {name} -o results.jsonl",
        )


def _last(name: str, columns: tuple[str, ...]) -> str | None:
    pattern = re.compile(rf"(?:mellea_)?{name}|mellea_{name}_\d+")
    return next((column for column in reversed(columns) if pattern.fullmatch(column)), None)


def _text_column(columns: tuple[str, ...], ours: Mapping[str, str]) -> str | None:
    folded = {name.strip().casefold(): name for name in reversed(columns) if name not in ours.values()}
    for name in TEXT_COLUMNS:
        if name in columns:
            return name
    return next((folded[name] for name in TEXT_COLUMNS if name in folded), None)


def _listed(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(names[:_SHOWN_COLUMNS]) + more if names else "none"
