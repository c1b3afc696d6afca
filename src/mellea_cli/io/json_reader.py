"""JSON readers: one object per line, and an array or a sequence of objects that is never held whole in memory."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from mellea_cli.errors import InputError
from mellea_cli.io.byte_input import CHUNK_BYTES, MAX_ROW_BYTES, LineCounter, Lines, too_long
from mellea_cli.io.columns import has_column, names_text, text_paths, text_rank
from mellea_cli.io.formats import RawRow

MAX_DEPTH = 400  # Levels of objects and arrays. More is refused, so that every row that is read can also be written.

_SPACE = " \t\r\n\ufeff\x1e"  # The last one stands before each object of a JSON text sequence
# Around a line's object any white space is accepted, and the byte order marks that remain when files are concatenated.
_LINE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff"
_TYPE_NAMES = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "an array"}


class _NotJson(ValueError):
    """A constant that Python writes and JSON does not have."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
# Python writes NaN and infinities, which are no JSON: they are read as null.
_NULLING = json.JSONDecoder(parse_constant=lambda _: None)


class BadJson(ValueError):
    """Text that is not one JSON object."""


def read_jsonl(lines: Lines) -> Iterator[RawRow | InputError]:
    """Yield one row per line, blank lines skipped; a bad line is yielded as an error."""
    codec = lines.codec
    decode = _DECODER.raw_decode
    for number, line in lines:
        try:
            text = line.decode(codec).strip(_LINE_SPACE)
            if not text:
                continue
            try:
                value, end = decode(text)
            except _NotJson:
                value, end = None, 0
            if end != len(text):
                yield from [(number, value, raw) for value, raw in _several(text)]
            else:
                yield number, _checked_object(value, text), text
        except UnicodeDecodeError as error:
            yield lines.undecodable(error, number)
        except (ValueError, RecursionError) as error:
            if text.startswith(("{'", "{u'")) and (loose := _python_dict(text)):
                yield number, loose, json.dumps(loose, ensure_ascii=False)
                continue
            message = f"not a JSON object: {_reason(error, text)}"
            yield InputError(message, path=lines.path, line=number, hint=_line_hint(text))


_COMMA = re.compile(r"\s*,?\s*")


def _several(text: str) -> list[tuple[dict[str, Any], str]]:
    """The objects of a line: some programs write no line ends, others a comma behind each object.

    Raises:
        ValueError: there is something else on the line.
    """
    rows = []
    at = 0
    while at < len(text):
        try:
            value, end = _DECODER.raw_decode(text, at)
            raw = text[at:end]
        except _NotJson:
            value, end = _NULLING.raw_decode(text, at)
            raw = json.dumps(value, ensure_ascii=False)
        rows.append((_checked_object(value, raw), raw))
        at = _COMMA.match(text, end).end()  # type: ignore[union-attr]  # it matches the empty text, too
        if at < len(text) and text[at] != "{":
            raise json.JSONDecodeError("Extra data", text, at)
    return rows


def _python_dict(text: str) -> dict[str, Any] | None:
    """What Python prints for a dict, which older data sets have on each line; `None` for anything else."""
    try:
        value = ast.literal_eval(text)
        return value if isinstance(value, dict) and json.dumps(value) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _checked_object(value: Any, text: str) -> dict[str, Any]:
    """Return a parsed value when it is an object of bounded depth, and raise `BadJson` when it is not."""
    if not isinstance(value, dict):
        raise BadJson(f"expected an object, found {_TYPE_NAMES.get(type(value), 'null')}")
    # Short texts cannot be too deep, and most long ones have few brackets: the walk is rarely needed.
    if len(text) > 2 * MAX_DEPTH and text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise BadJson(f"nested more than {MAX_DEPTH} levels deep")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _reason(error: Exception, text: str) -> str:
    if isinstance(error, RecursionError):
        return f"nested more than {MAX_DEPTH} levels deep"
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return "it ends in the middle (cut off?)"
        if error.msg.startswith("Invalid control character"):
            return f"a raw control character at column {error.pos + 1}; JSON needs it escaped"
        return f"{error.msg} at column {error.pos + 1}"
    return "a number with too many digits" if "digits" in str(error) else str(error)


def _line_hint(text: str) -> str:
    if text in ("{", "["):
        return "rows that span lines need --format json"
    if not text.startswith(("{", "[", '"')):
        return "if this is not JSONL, add --format csv, tsv or json"
    return "each line must be one whole JSON object"


_LEVELS = 5


def _are_rows(part: Any, names: Sequence[str]) -> bool:
    """Whether a value holds rows: a list of objects, objects under their ids, or lists below a header."""
    if isinstance(part, dict):
        return len(part) > 1 and all(isinstance(one, dict) and _is_row(one, names) for one in part.values())
    if not isinstance(part, list) or not part:
        return False
    return all(isinstance(one, dict) for one in part) or _has_header(part)


def _rank(value: dict[str, Any], names: Sequence[str] = ()) -> int | None:
    """How well the object's own texts, or the named columns, make it a row; `None` when nothing does."""
    if any(has_column(value, name) for name in names):
        return -1
    return text_rank(key for key, part in value.items() if isinstance(part, str) and part)


def _is_row(value: dict[str, Any], names: Sequence[str]) -> bool:
    return _rank(value, names) is not None


def _has_header(part: list[Any]) -> bool:
    """Whether a list has lists as rows, with the names of columns in the first one."""
    return (
        len(part) > 1
        and all(isinstance(one, list) for one in part)
        and all(isinstance(name, str) for name in part[0])
        and names_text(part[0])
    )


def rows_inside(value: Any, names: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Return the paths to the rows in an object that is a wrapper rather than a row; an empty path means its values.

    Of several levels the one nearest to the top counts, and of several lists those with the named columns, or with a
    text. An object with a text of its own is a row, unless the rows in it are more surely the text: the comments on
    something that is described.
    """
    if not isinstance(value, dict):
        return []
    if (own := _rank(value, names)) is not None:
        lists = [(key,) for key, part in value.items() if isinstance(part, list) and _are_rows(part, names)]
        ranks = [(key, _rank(value[key[0]][0])) for key in lists if isinstance(value[key[0]][0], dict)]
        return [key for key, rank in ranks if rank is not None and rank < own]
    if _are_rows(value, names):
        return [()]
    level: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), value)]
    for _ in range(_LEVELS):
        found = [(*path, key) for path, parent in level for key, part in parent.items() if _are_rows(part, names)]
        if len(found) > 1:
            fits = [path for path in found if _has_text(value, path, names)]
            return fits or found
        if found:
            return found
        level = [
            ((*path, key), part) for path, parent in level for key, part in parent.items() if isinstance(part, dict)
        ]
    return []


_SCALARS = (str, int, float, type(None))


def table_inside(value: Any, names: Sequence[str] = ()) -> list[list[Any]]:
    """Return the header and the rows of a table whose names stand apart from its rows, or above each column."""
    if not isinstance(value, dict):
        return []
    columns = [list(part.values()) if isinstance(part, dict) else part for part in value.values()]
    if (
        len(columns) > 1
        and all(isinstance(part, list) and len(part) == len(columns[0]) for part in columns)
        and all(isinstance(cell, _SCALARS) for part in columns for cell in part)
    ):
        return [[*value], *map(list, zip(*columns, strict=True))] if _has_names(list(value), names) else []
    parts: list[list[Any]] = []
    level: list[Any] = [] if _is_row(value, names) else [value]
    for _ in range(_LEVELS):
        level = [part for one in level if isinstance(one, dict) for part in one.values()]
        parts += [part for part in level if isinstance(part, list)]
        level = [part[0] if isinstance(part, list) and part else part for part in level]
    heads = [[one.get("name") if isinstance(one, dict) else one for one in part] for part in parts]
    tables = [part for part in parts if part and all(isinstance(one, list) for one in part)]
    fits = ([head, *rows] for rows in tables for head in heads if {*map(len, rows)} == {len(head)})
    return next((table for table in fits if _has_names(table[0], names)), [])


def _has_names(head: list[Any], names: Sequence[str]) -> bool:
    """Whether a list is a header: the names of columns, one of which is a named one, or that of a text."""
    return all(isinstance(name, str) for name in head) and (
        not {*names}.isdisjoint(head) or (not names and names_text(head))
    )


def _under(value: Any, path: Sequence[str]) -> Any:
    """What is under some names; nothing when one of them is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _has_text(value: dict[str, Any], path: tuple[str, ...], names: Sequence[str]) -> bool:
    rows = _under(value, path)
    rows = list(rows.values() if isinstance(rows, dict) else rows)[:_FIRST_ROWS]
    if names:
        start = ".".join(path) + "."
        return any(name.startswith(start) or has_column(row, name) for row in rows for name in names)
    return any(names_text(path.rpartition(".")[2] for path in text_paths(row)) for row in rows)


_FIRST_ROWS = 5
# Names in a page of an API besides its rows: where the next one is, and how many there are.
_PAGE = re.compile(
    "(?i)(?<![a-z])(page|per|size|count|total|results|items|next|prev|last|first|more|limit|offset|cursor|ur[li]|links?"
    "|meta|paging|pagination|after|before|start|end|time|ok|status)"
)


def is_page(value: Any, names: Sequence[str]) -> bool:
    """Whether an object is one page of an API's answers, with its rows in one list."""
    paths = rows_inside(value, names)
    return len(paths) == 1 and bool(paths[0]) and _are_counts(key for key in value if key != paths[0][0])


def _are_counts(keys: Iterable[str]) -> bool:
    return all(map(_PAGE.search, keys))


def is_empty_page(value: dict[str, Any]) -> bool:
    """Whether an object has an empty list where a page has its rows."""
    return sum(part == [] for part in value.values()) == 1 and _are_counts(key for key in value if value[key] != [])


_GAP = re.compile(r"[\s,:\ufeff]*")
# What stands around the JSON of a script, of a call, or of an API that guards against being run as a script
_BEFORE = re.compile(r"\)\]\}'?,?\s*|(?:(?:var|let|const) )?[A-Za-z_$][\w.$]*\s*[=(]\s*|//[^\n]*\n\s*")
_LONGEST_BEFORE = 200
_BEHIND = ");"


def _member(text: str, key: str, start: int) -> int:
    """Return where the value under a key begins in the text of an object that begins at `start`."""
    at = _GAP.match(text, start + 1).end()  # type: ignore[union-attr]  # it matches the empty text, too
    found = start
    while text[at] != "}":
        name, at = _NULLING.raw_decode(text, at)
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]  # as above
        if name == key:
            found = at  # of a repeated key the last one counts
        _, at = _NULLING.raw_decode(text, at)
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]  # as above
    return found


# A literal or an escape that is cut off at the end of the received text starts at most this many characters before it.
_LONGEST_CUT_TOKEN = 12
# `e+` and a digit may follow a number that seems complete.
_LONGEST_NUMBER_REST = 3


class JsonStream:
    """Reads objects from an array, or from a sequence of objects.

    Broken syntax ends the reading: inside an array there is no safe place to continue. An element that is not an
    object is one bad row. An object with one of the named columns is a row and no wrapper of rows.
    """

    def __init__(self, chunks: Iterator[str], path: str, names: Sequence[str] = ()) -> None:
        self._chunks = chunks
        self._path = path
        self._text = ""
        self._at = 0
        self._place = LineCounter()
        self._names = names
        self._parsed = ""
        self._value: Any = None
        self.notes: list[str] = []  # Where the rows are, if they are inside one object
        self._ended = False

    def rows(self) -> Iterator[RawRow | InputError]:
        """Yield the objects in order.

        Raises:
            InputError: the text is not JSON from some place on; the rows before it have been yielded.
        """
        pages: list[tuple[str, ...]] = []
        first = self._peek()
        if first not in ("", "{", "["):
            self._read_more(_LONGEST_BEFORE)
            if before := _BEFORE.match(self._text):
                self._skip(before.end())
                first = self._peek()
        if first == "{":
            pages = yield from self._first_object()
        elif first not in ("", "["):
            raise self._error("expected a JSON array or JSON objects", "if this is not JSON, add --format")
        while mark := self._peek():
            if mark == "[" and first == "[":
                # Often there are several, the pages of an API.
                self._skip(1)
                yield from self._elements()
                continue
            if mark in _BEHIND:
                self._skip(1)
                continue
            row = self._element()
            rows = _under(row[1], pages[0]) if pages and not isinstance(row, InputError) else None
            if isinstance(rows, list):
                yield from self._inside(self._parsed, pages) if rows else ()
            else:
                yield row

    def _first_object(self) -> Generator[RawRow | InputError, None, list[tuple[str, ...]]]:
        """Yield the rows that are in the first object, or itself; returns where the rows of a page are."""
        row, text = self._element(), self._parsed
        if isinstance(row, InputError):
            yield row
            return []
        value, alone = row[1], not self._peek()
        if alone and (table := table_inside(value, self._names)):
            yield from JsonStream(iter((json.dumps(table, ensure_ascii=False),)), self._path).rows()
        elif (paths := rows_inside(value, self._names)) and (alone or is_page(value, self._names)):
            yield from self._inside(text, paths)
            return paths
        elif not (alone and is_empty_page(value)):
            yield row
        return []

    def _elements(self) -> Iterator[RawRow | InputError]:
        header: list[str] = []
        if self._peek() != "]":
            yield from self._row_of(header)
            while (mark := self._peek()) == ",":
                self._skip(1)
                if (mark := self._peek()) == "]":
                    break  # some programs write a comma behind each row
                yield from self._row_of(header)
            if not mark:
                raise self._error("the array does not end (cut off?)", "fetch or write the file again")
            if mark != "]":
                raise self._error(f"expected ',' or ']' after an element, found {mark!r}", "")
        self._skip(1)
        if self._peek() not in ("", "[", *_BEHIND):
            raise self._error("there is more after the end of the array", "write one array, or one object per line")

    def _inside(self, text: str, paths: list[tuple[str, ...]]) -> Iterator[RawRow | InputError]:
        """Yield the rows of the only list inside the only object."""
        names = [".".join(path) for path in paths]
        if len(paths) > 1:
            message = f"is one object with rows under {' and '.join(map(repr, names))}"
            paths_inside = (text_paths(row) for row in _under(json.loads(text), paths[0])[:_FIRST_ROWS])
            column = next((name for some in paths_inside for name in some if names_text([name.rpartition(".")[2]])), "")
            hint = f"take one out: jq -c '.{names[0]}[]' FILE | mellea summarise -"
            hint += f" --text-field {column}" if column else ""
            raise InputError(message, path=self._path, line=1, hint=hint)
        if names[0] and (note := f"{self._path}: the rows are under {names[0]!r}") not in self.notes:
            self.notes.append(note)
        at = text.index("{")
        for key in paths[0]:
            at = _member(text, key, at)
        value, end = _NULLING.raw_decode(text, at)
        inner = text[at:end] if isinstance(value, list) else json.dumps(list(value.values()), ensure_ascii=False)
        inside = JsonStream(iter((inner,)), self._path)
        inside._place.advance(text, 0, at)
        yield from inside.rows()

    def _row_of(self, header: list[str]) -> Iterator[RawRow | InputError]:
        """Yield the row of an element; the first list of a list of lists is their header, which is no row."""
        line, starts = self._place.line, not header
        row = self._element()
        value = self._value
        if not isinstance(value, list) or (starts and not names_text(map(str, value))):
            yield row
        elif starts:
            header += map(str, value)
        else:
            fields = dict(zip(header, value, strict=False))
            yield line, fields, json.dumps(fields, ensure_ascii=False)

    def _element(self) -> RawRow | InputError:
        line = self._place.line
        value, raw = self._parse_value()
        self._parsed, self._value = raw, value
        try:
            fields = _checked_object(value, raw)
        except BadJson as error:
            return InputError(f"not a JSON object: {error}", path=self._path, line=line)
        if "\n" in raw or "\r" in raw:
            # Line breaks between tokens become spaces; inside JSON strings there are none.
            raw = raw.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
        return line, fields, raw

    def _parse_value(self) -> tuple[Any, str]:
        while True:
            decoder = _DECODER
            try:
                try:
                    value, end = decoder.raw_decode(self._text, self._at)
                except _NotJson:
                    decoder = _NULLING
                    value, end = decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or not self._may_be_cut(error):
                    raise self._broken(error) from error
            else:
                # `1` may be the beginning of `1e+5`.
                may_grow = isinstance(value, int | float) and len(self._text) - end < _LONGEST_NUMBER_REST
                if self._ended or not may_grow:
                    raw = self._text[self._at : end]
                    raw = raw if decoder is _DECODER else json.dumps(value, ensure_ascii=False)
                    self._skip(end - self._at)
                    return value, raw
            have = len(self._text) - self._at
            if have > MAX_ROW_BYTES:
                raise too_long(self._path, self._place.line)
            # A long element is not parsed again for each small piece of it that arrives.
            self._read_more(1 if have < CHUNK_BYTES else have // 4)

    def _may_be_cut(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_CUT_TOKEN

    def _broken(self, error: Exception) -> InputError:
        if not isinstance(error, json.JSONDecodeError):
            return self._error(f"broken JSON: {_reason(error, self._text)}", "")
        if self._ended and self._may_be_cut(error):
            return self._error("the JSON ends in the middle of a value (cut off?)", "fetch or write the file again")
        self._skip(max(error.pos - self._at, 0))
        message = f"broken JSON: {error.msg} at column {self._place.column}"
        return self._error(message, "check the file with a JSON tool such as jq")

    def _peek(self) -> str:
        """Skip white space and return the next character, `""` at the end of the input."""
        while True:
            at = self._at
            text = self._text
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._skip(at - self._at)
            if at < len(text):
                return text[at]
            if self._ended:
                return ""
            self._read_more()

    def _skip(self, count: int) -> None:
        self._place.advance(self._text, self._at, self._at + count)
        self._at += count

    def _read_more(self, at_least: int = 1) -> None:
        pieces = [self._text[self._at :]]
        got = 0
        while got < at_least and not self._ended:
            piece = next(self._chunks, None)
            if piece is None:
                self._ended = True
            else:
                pieces.append(piece)
                got += len(piece)
        self._text, self._at = "".join(pieces), 0

    def _error(self, message: str, hint: str) -> InputError:
        return InputError(message, path=self._path, line=self._place.line, hint=hint)
