"""CSV and TSV reader: the dialect, the header, and rows with a reason for each bad one.

The rules, where the format leaves a choice:

- Quotes follow RFC 4180: a field that begins with `"` ends with `"`, and a quote inside it is doubled. Where the first
  rows only fit so, a backslash escapes a quote (MySQL), or quotes mean nothing (tabs without quoting).
  Where a blank follows each delimiter, quotes begin behind it. Where only that fits, single quotes are quotes, or each
  line is one quoted cell that is a row itself.
- A row with more cells than the header is bad, unless the extra cells are empty. One with fewer is bad, too, unless
  several in a row have as many and begin with an id: then Excel has left out the delimiters of empty cells.
- Blank lines do not count. An unnamed column is called `column_N`, a repeated name gets `_2`, `_3` and so on.
- Lines above the header, further header rows, repeated headers, comment lines and lines below the table are no rows.
  They are left out, and `left_out` says so.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Literal, Protocol

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.byte_input import MAX_ROW_BYTES, Encoding, Lines, too_long
from mellea_cli.io.columns import folded, listed, names_text
from mellea_cli.io.formats import FILLED, CsvDialect, LeftOut, RawRow, RowStream, TextInput, format_of_name

_CANDIDATES = (",", ";", "\t", "|")
_RARE = "~^\x01\xa6\xa7"
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def known_delimiter(wanted: str) -> str:
    r"""Return the delimiter that the user named: one character, or a word such as `tab` (also `\t`).

    Raises:
        UsageError: it cannot separate columns.
    """
    delimiter = _DELIMITER_NAMES.get(wanted.lower(), wanted)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UsageError(f"cannot be a delimiter: {wanted!r}", hint="one character such as ';', or the word tab")
    return delimiter


# A program that saves the file again quotes the cell, and fills the line up with delimiters.
_STATED = re.compile(r"""\ufeff?[ "']*sep[ ]*=[ ]*["']?(\\t|tab|[^\s"'\w]|\t)["', ;\t|]*[\r\n]*""", re.IGNORECASE)


def stated_delimiter(line: str) -> str | None:
    """Return the delimiter of a `sep=;` line, which Excel reads and writes above the header."""
    found = _STATED.fullmatch(line)
    return known_delimiter(found[1]) if found else None


Quoting = Literal["doubled", "spaced", "backslash", "none", "single", "whole"]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What the user said about a table; `None` means that it is detected."""

    delimiter: str | None = None
    names: tuple[str, ...] = ()  # Columns that the header has
    header_row: int | None = None  # The physical line with the header, counted from 1
    skip_rows: int | None = None  # Rows below the header that are no rows


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Where the parts of a table are, as its first lines tell."""

    delimiter: str = ","
    quoting: Quoting = "doubled"
    header_line: int = 1  # The physical line on which the header begins
    above: int = 0  # Lines above the header that are not blank, and state no delimiter
    extra: tuple[tuple[str, ...], ...] = ()  # Further header rows: the rows below the header that are none
    has_row_names: bool = False  # Whether each row begins with a name for which the header has no cell
    commented: bool = False  # Whether there are comment lines above the header
    sep_line: str = ""  # The line that states the delimiter
    junk: frozenset[tuple[str, ...]] = frozenset()  # The rows above the header
    groups: tuple[str, ...] = ()  # The row above the header if it names groups of columns


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]
    broken: bool = False

    @property
    def end(self) -> int:
        """Number of cells up to the last one that is not empty."""
        return next((at for at in range(len(self.cells), 0, -1) if self.cells[at - 1].strip()), 0)


_SAMPLE = 200
_HEADER_ROWS = 40  # The header is one of so many first rows
_ONE_COLUMN = "\x1f"  # The delimiter of a table with one column, whose texts have commas and no quotes


def find_layout(text: str, options: TableOptions) -> TableLayout:
    """Choose the dialect and find the header by the first lines of a file.

    Of comma, semicolon, tab and pipe the one is best that gives the header a likely column, then gives most rows as
    many cells as the header, then gives most columns. Separators inside quotes do not count.

    Args:
        text: the first lines; the last one may be cut off.
        options: what the user said.
    """
    lines = text.splitlines(keepends=True) if "\r" not in text else re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+", text)
    if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")):
        lines.pop()
    first = next((line for line in lines if line.strip("\ufeff \t\r\n")), "")
    stated = stated_delimiter(first)
    # R separates with blanks, and quotes the names.
    given = options.delimiter or stated or (" " if re.fullmatch(r'"[^"\n]*"(?: "[^"\n]*")+\r?\n?', first) else None)
    sample = "".join(lines)
    best, best_score = TableLayout(given or ","), (False, -1.0, 1)
    for delimiter in (given,) if given else (*_CANDIDATES, *filter(first.count, _RARE)):
        for quoting in _quotings(sample, delimiter):
            rows = _sample(sample, delimiter, quoting)
            if stated is not None and rows:
                del rows[0]
            if not rows:
                continue
            header = _locate(rows, options)
            body = [row for row in rows[header + 1 :] if row.end or row.broken]
            width = len(rows[header].cells)
            if width < 2 and not given:
                regular = -1.0
            else:
                fit = sum(len(row.cells) == width and not row.broken for row in body)
                regular = fit / len(body) if body else 1.0
                if quoting == "spaced":
                    regular += 0.01  # equal is enough
            if not given and delimiter in _RARE and regular < 1:
                continue  # the character is part of a name or a text
            score = (_has_names(rows[header], options), regular, width)
            # A rarer way of quoting must make more rows regular.
            if score > best_score and (quoting == "doubled" or regular > best_score[1] or delimiter != best.delimiter):
                best, best_score = _layout(rows, header, delimiter, quoting, options), score
                if width < 2 and not given and delimiter == "," and score[0] and _is_prose(body):
                    best = replace(best, delimiter=_ONE_COLUMN)
    return replace(best, sep_line=f"sep={stated}" if stated is not None else "")


def find_sheet_layout(rows: Sequence[tuple[int, list[str]]], options: TableOptions) -> TableLayout:
    """Find the header by the first rows of a sheet that are not blank, with their numbers; all have as many cells."""
    whole = [_Row(number, cells) for number, cells in rows]
    # Above a table there are often a few cells, and the sheet fills them up.
    header = _locate([replace(row, cells=row.cells[: row.end]) for row in whole], options)
    return _layout(whole, header, ",", "doubled", options)


def _quotings(sample: str, delimiter: str) -> Iterator[Quoting]:
    """The ways of quoting that a file may have."""
    yield "doubled"
    if delimiter not in "\t " and re.search(rf'(?m)^[^"\n]*{re.escape(delimiter)} "', sample):
        yield "spaced"
    if '\\"' in sample or "\\N" in sample or f"\\{delimiter}" in sample:
        yield "backslash"
    if '"' in sample and delimiter in "\t|":
        yield "none"
    mark = re.escape(delimiter)
    if re.search(rf"(?m)(?:^|{mark})'[^'\n]*{mark}[^'\n]*'(?:{mark}|\r?$)", sample):
        yield "single"
    if re.match(rf'\ufeff?"[^"\n]*[^"\n{mark}]{mark}[^"\n{mark}][^"\n]*"\r?\n"', sample):
        yield "whole"


def _is_prose(rows: list[_Row]) -> bool:
    """Whether commas separate parts of sentences, not cells: most often a blank follows."""
    behind = [cell for row in rows for cell in row.cells[1:] if cell]
    return bool(behind) and 2 * sum(cell.startswith(" ") for cell in behind) > len(behind)


def _sample(text: str, delimiter: str, quoting: Quoting) -> list[_Row]:
    """The rows of the first lines that can be read; blank lines are left out."""
    rows: list[_Row] = []
    parser = _Parser(Lines(iter((text.encode(errors="replace"),)), Encoding("utf-8"), ""), delimiter, quoting)
    while len(rows) < _SAMPLE and (cells := parser.next_row()) is not None:
        if isinstance(cells, InputError):
            if parser.lines.at_end:
                break  # most often the text was cut inside quotes
            rows.append(_Row(parser.lines.first_line, [""], broken=True))
        elif cells:
            rows.append(_Row(parser.lines.first_line, cells))
    return rows


def _has_names(row: _Row, options: TableOptions) -> bool:
    if row.cells and _PROMPT.match(row.cells[0]):
        return False
    if options.names:
        cells = {folded(cell) for cell in row.cells}
        return any(folded(name) in cells for name in options.names)
    return names_text(row.cells)


def _locate(rows: list[_Row], options: TableOptions) -> int:
    """Return the index of the header among the first rows."""
    if options.header_row is not None:
        return next((at for at, row in enumerate(rows) if row.line >= options.header_row), len(rows) - 1)
    counts = Counter(len(row.cells) for row in rows if row.end)
    width = max(counts, key=lambda width: counts[width] * (width - 1), default=1)
    # Above a table whose rows all are much wider, a row is a title, whatever its words.
    table = next(at for at, row in enumerate(rows) if len(row.cells) == width) if counts else 0
    narrow = width / 2 if all(len(row.cells) == width for row in rows[table:]) else 0
    named = [at for at, row in enumerate(rows[:_HEADER_ROWS]) if len(row.cells) >= narrow and _has_names(row, options)]
    wide = [at for at in named if rows[at].end > 1]
    header = rows[wide[0]] if wide else None
    for at, row in enumerate(rows[:_HEADER_ROWS]):
        if at in wide or (at in named and not wide) or not _is_above(row, rows[at + 1 :], width, header):
            return at + (at + 1 in wide and _groups(row, rows[at + 1]))
    return 0


def _repeats(names: Sequence[str]) -> bool:
    return any(name.strip() and name == other for name, other in pairwise(names))


def _groups(row: _Row, below: _Row) -> bool:
    """Whether a row names groups of columns, in merged cells or again for each, and the row below it the columns."""
    over = [cell.strip() for cell in row.cells]
    # The first column may be an index. Where groups are named again, one may have the name of its only column.
    again = _repeats(over)
    names = [cell.strip() or (above if again else "") for cell, above in zip_longest(below.cells, over, fillvalue="")]
    filled = [name for name in names if name]
    return (
        len({*filter(None, over)}) < len(filled) == len(set(filled))
        and all(names[1 : max(row.end, below.end)])
        and not any(char.isdigit() for name in filled for char in name)
    )


def _has_spaced(row: _Row) -> bool:
    return any(cell.startswith(" ") for cell in row.cells[1:])


_LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
_PROMPT = re.compile(r"(?:SQL|mysql|MariaDB[^>]{0,40}|\w+=[#>]?)> ", re.IGNORECASE)


def _is_above(row: _Row, later: list[_Row], width: int, header: _Row | None) -> bool:
    """Whether a row above the first one that may be the header is a title, a comment, or a name with its value."""
    if row.broken or not later:
        return False
    named = header is not None
    is_comment = row.cells[0].lstrip("\ufeff ").startswith("#") and (named or len(row.cells) != width)
    is_screen = named and (row.cells == _LETTERS[: len(row.cells)] or _PROMPT.match(row.cells[0]))
    if not row.end or is_comment or is_screen:
        return True
    if width < 2 or row.end > 2:
        # A title may have commas: a blank follows them.
        is_title = header is not None and _has_spaced(row) and not _has_spaced(header)
        return row.end > 2 and named and (is_title or len(row.cells) * 2 < width)
    table = [other for other in later if len(other.cells) == width]
    if row.end == 1:
        # A column of texts with commas is no table of more columns: there a blank follows the comma.
        spaced = sum(cell.startswith(" ") for other in table for cell in other.cells[1:])
        return named or (any(other.end > 1 for other in table) and spaced * 2 <= sum(len(o.cells) - 1 for o in table))
    return any(other.end > 2 for other in table)


def _layout(rows: list[_Row], header: int, delimiter: str, quoting: Quoting, options: TableOptions) -> TableLayout:
    names, body = rows[header].cells, rows[header + 1 :]
    above = [row for row in rows[:header] if row.end]
    # R writes a name for each row, and none for their column.
    has_row_names = len(body) > 0 and all(
        len(row.cells) == len(names) + 1 and row.cells[0] == str(at) and row.cells[-1] for at, row in enumerate(body, 1)
    )
    over = rows[header - 1].cells if header and _groups(rows[header - 1], rows[header]) else []
    count = options.skip_rows
    if count is None:
        marked = _repeats(over) or not names[0].strip()
        extra = (at for at in range(len(body)) if at == _MOST_EXTRA or not _is_header(names, body[at:], marked))
        count = next(extra, 0)
    return TableLayout(
        delimiter=delimiter,
        quoting=quoting,
        header_line=options.header_row or rows[header].line,
        above=len(above),
        extra=tuple(tuple(row.cells) for row in body[:count]),
        has_row_names=has_row_names and len(names) > 1 and not _is_prose(body) and not _splits_text(names, body),
        commented=any(row.cells[0].startswith("#") for row in above),
        junk=frozenset(tuple(row.cells) for row in above),
        groups=tuple(over),
    )


_OPEN_ENDED = (
    "open-ended", "open ended", "offene antwort", "freitext", "réponse ouverte", "réponse libre", "respuesta abierta",
    "risposta aperta", "resposta aberta", "open antwoord", "odpowiedź otwarta", "自由回答", "自由形式"
)  # fmt: skip
_RESPONSE = ("response", "antwort", "réponse", "respuesta", "risposta", "resposta", "antwoord", "odpowiedź", "回答")


_COUNTER = re.compile(r"(?:.*\b)?(?:id|nr|no|num|number|row|index|key)|#", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.,:/\s-]*\d[\d.,:/\s-]*")


def _splits_text(names: Sequence[str], body: list[_Row]) -> bool:
    """Whether a cell too many in each row rather comes from texts with a comma and no quotes."""
    counts = _COUNTER.fullmatch(names[0].strip()) and not all(_ID.fullmatch(row.cells[1]) for row in body)
    return bool(counts) or any(row.cells[-1].startswith(" ") for row in body)


_MOST_EXTRA = 3
_TYPE = re.compile(
    r"(?:nullable\(|lowcardinality\()*(?:u?int(?:eger|\d+)?|bigint|float\d*|double|decimal|numeric|bool(?:ean)?|str(?:ing)?"
    r"|text|(?:var)?char|object|date(?:time)?\d*|timestamp|json|uuid)(?:\W.*)?",
    re.IGNORECASE,
)
_CODE = re.compile(r"\S*[\d_]\S*")


def _is_header(names: Sequence[str], body: list[_Row], marked: bool) -> bool:
    """Whether the first row below the header is a further header row.

    `marked` says that names of groups are repeated above the header, or that its first column, an index, has no name.
    """
    row, below = body[0], body[1:]
    first = row.cells
    rule = "".join(first)
    # Qualtrics: the questions, and the ids of their columns
    if not row.broken and (
        any(_is_import_ids(one.cells) for one in body[:2])
        or (folded(names[0]) == "v1" and folded(first[0]) == "responseid")
        # The rule below the header of sqlcmd, psql and Markdown
        or (len(rule) > 2 and "--" in rule and not rule.strip(" :+-"))
    ):
        return True
    if row.broken or len(names) < 2:
        return False
    if marked and below and first[0].strip() and not any(first[1:]) and not _ID.fullmatch(first[0]):
        return any(below[0].cells[1:])  # pandas: the name of the index
    return (
        all(_TYPE.fullmatch(cell.strip()) for cell in first)
        or bool(names[0].strip() and not first[0].strip() and _tells_answers(names, body))
        or _are_labels(names, first, below)
    )


def _are_labels(names: Sequence[str], first: Sequence[str], below: list[_Row]) -> bool:
    """Whether a row has words where all rows below it have numbers: what the names mean, or their codes."""
    if len(below) < 2 or len(first) != len(names):
        return False
    columns = [[row.cells[at].strip() if at < len(row.cells) else "" for row in below] for at in range(len(names))]
    blank = [at for at, cell in enumerate(first) if not cell.strip()]
    words = [cell.strip() for cell, column in zip(first, columns, strict=True) if all(map(_NUMBER.fullmatch, column))]
    words = [word for word in words if word]
    if not words or any(char.isdigit() for word in words for char in word) or not all(all(columns[at]) for at in blank):
        return False
    if sum(bool(cell.strip()) and folded(cell) == folded(name) for cell, name in zip(first, names, strict=True)) > 1:
        return True
    if _repeats(names):
        return True
    codes = all(_CODE.fullmatch(name) for name, cell in zip(names, first, strict=True) if cell.strip())
    return all(" " in word for word in words) and (not blank or codes)


def _tells_answers(names: Sequence[str], body: list[_Row]) -> bool:
    """Whether the row below the header is SurveyMonkey's: how each question is answered, nothing on the respondent."""
    if not body[0].end:
        return folded(names[0]).startswith("respondent")
    if len(body) > 1 and not body[1].cells[0].strip():
        return False
    words = [folded(cell) for cell in body[0].cells]
    unnamed = any(word and not name.strip() for word, name in zip(words, names, strict=False))
    return unnamed or any(word.startswith(_OPEN_ENDED + _RESPONSE) for word in words)


def _is_import_ids(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    return bool(filled) and all(cell.replace(" ", "").startswith('{"ImportId"') for cell in filled)


_SHOWN_RENAMED = 3
EXTRA = "extra header row"
_TRIM = "\ufeff \t\u00a0\u200b"
_LONGEST_NAME = 300
_MOST_BELOW = 10_000  # Short rows that wait for the row below them
_END = "\x1a"  # DOS
_ODD = frozenset(f"#{{{_END}")
_SEP = "sep="
_ID = re.compile(r"\S*\d\S*")
_COUNT = re.compile(r"\(\d+ rows?(?: affected)?\)|\d+ rows? (?:selected|in set).*", re.IGNORECASE)


class RowLines(Protocol):
    """Where the current row is: the line on which it starts, and its lines, if it has any."""

    first_line: int
    row: list[tuple[int, str]]


class RowParser(Protocol):
    """Yields the rows of a table from the header on."""

    @property
    def lines(self) -> RowLines:
        """Where the current row is."""

    def next_row(self) -> list[str] | InputError | None:
        """Return the next row, `[]` for a blank line, an error for a bad row, `None` at the end."""


class TableReader:
    """Reads the header of a table at once and the rows on demand.

    Raises:
        InputError: the header cannot be read.
    """

    def __init__(self, parser: RowParser, layout: TableLayout, path: str, *, skip_rows: int | None = None) -> None:
        self._layout = layout
        self._parser = parser
        self._lines = parser.lines
        self._path = path
        self.notes: list[str] = []  # Changes to the header, one sentence each
        self.left_out = LeftOut()  # What is no row, complete after the last row
        delimiter = "," if layout.delimiter == _ONE_COLUMN else layout.delimiter
        self.dialect = CsvDialect(delimiter, sep_line=layout.sep_line)  # How the file is written
        # The names of the columns, each once; empty for an empty file
        self.columns: tuple[str, ...] = self._read_header()
        self.header_line = self._lines.first_line
        self.labels, self.open_ended = self._read_labels()
        self._to_skip = len(layout.extra) if skip_rows is None else skip_rows
        self._skip_reason = EXTRA if skip_rows is None else "row below the header, as --skip-rows says"
        self._names = [folded(name) for name in self._header_cells]
        firsts = [row[0] for row in (*layout.junk, *layout.extra) if row]
        self._starts = {_SEP, *self._names, *(first.strip(_TRIM).casefold() for first in firsts)} - {""}
        self._order: list[int] | None = None
        self._after_header = False
        if layout.above:
            self._note_above(layout)

    def _note_above(self, layout: TableLayout) -> None:
        last = layout.header_line - 1
        what = "1 line" if layout.above == 1 else f"{layout.above} lines"
        self.notes.append(f"{self._path}: left out: {what} above the header, which is line {last + 1}")

    def rows(self) -> Iterator[RawRow | InputError]:
        """Yield the rows in order; a bad row is yielded as an error."""
        columns = self.columns
        width = len(columns)
        lines = self._lines
        starts = self._starts
        below: list[_Row] = []
        blank = False
        while (row := self._parser.next_row()) is not None:
            if isinstance(row, InputError):
                yield from self._flushed(below, [""])
                yield row
                continue
            if not row:
                blank = True
                continue
            first = row[0]
            unusual = first[:1] in _ODD or (len(first) < _LONGEST_NAME and first.strip(_TRIM).casefold() in starts)
            if (unusual or self._to_skip) and self._is_no_row(row):
                continue
            if len(row) == width or (len(row) > width and not any(row[width:])):
                if below:
                    yield from self._flushed(below, row)
                if self._order is not None:
                    row = [row[at] for at in self._order]
                blank = self._after_header = False
                yield lines.first_line, dict(zip(columns, row, strict=False)), None
            elif not any(row):
                blank = True  # fewer or more cells than the header, and nothing in them
            elif len(row) < width and (len(row) > 1 if _ID.fullmatch(first) else (blank or below) and not any(row[1:])):
                # Perhaps a row whose last cells are empty: the row below it tells.
                # Perhaps what a report writes below its table; a row below it would show that it is not.
                below.append(_Row(lines.first_line, row))
                if len(below) >= _MOST_BELOW:
                    last = below[-2:]
                    del below[-2:]
                    yield from self._flushed(below, last[0].cells)
                    below += last
            elif row == ["\\."] or _COUNT.fullmatch(first) or stated_delimiter(first):
                self.left_out.add("line outside the table", lines.first_line)
            else:
                yield from self._flushed(below, row)
                yield self._wrong_width(len(row), lines.first_line)
        yield from self._last(below)

    def _last(self, below: list[_Row]) -> list[RawRow | InputError]:
        """The last rows, less what a report writes below its table."""
        footer = [row.line for row in below if len(row.cells) == 1] if below and len(below[-1].cells) == 1 else []
        if footer:
            self.left_out.add("line below the rows", *footer)
        rows = [row for row in below if row.line not in footer]
        return self._flushed(rows, ["1"])

    def _flushed(self, below: list[_Row], then: list[str]) -> list[RawRow | InputError]:
        """The rows that are too short, filled up where they, and the row below them, are no parts of a broken one."""
        rows: list[RawRow | InputError]
        firsts = [*(row.cells[0] for row in below), then[0]]
        if len(below) > 1 and len({len(row.cells) for row in below}) == 1 and all(map(_ID.fullmatch, firsts)):
            self.left_out.add(FILLED, *(row.line for row in below))
            rows = [(row.line, dict(zip_longest(self.columns, row.cells, fillvalue="")), None) for row in below]
        else:
            rows = [self._wrong_width(len(row.cells), row.line) for row in below]
        below.clear()
        return rows

    def _is_no_row(self, row: list[str]) -> bool:
        """Whether a row that looks unusual is none; then it is counted."""
        layout, width = self._layout, len(self.columns)
        first = row[0].strip(_TRIM)
        reason = ""
        if self._to_skip:
            reason = self._skip_reason
            self._to_skip -= 1
        elif len(row) == len(self._names) and self._repeats_header(row):
            reason, self._after_header = "repeated header", True
        elif _is_import_ids(row) or (self._after_header and tuple(row) in layout.extra):
            reason = EXTRA
        elif first.startswith("#") and (len(row) != width or (layout.commented and self.columns[0] != "#")):
            reason = "comment line"
        elif row == [_END] or tuple(row) in layout.junk or (first.casefold() == _SEP and not any(row[1:])):
            reason = "line outside the table"
        if reason:
            self.left_out.add(reason, self._lines.first_line)
        return bool(reason)

    def _repeats_header(self, row: list[str]) -> bool:
        """Whether a row is the header again, perhaps in another order; then the rows below it have that order."""
        if len(row) == 1:
            return row[0].strip(_TRIM) == self._header_cells[0].strip(_TRIM)
        names = [folded(cell) for cell in row]
        if names == self._names:
            self._order = None
        elif len(set(names)) == len(names) and set(names) == set(self._names):
            self._order = [names.index(name) for name in self._names]
        else:
            return False
        return True

    def _read_header(self) -> tuple[str, ...]:
        self._header_cells: list[str] = []
        while (row := self._parser.next_row()) is not None:
            if isinstance(row, InputError):
                raise row
            names = [cell.replace("\ufeff", "").strip() for cell in row]
            names = [name or over.strip() for name, over in zip_longest(names, self._layout.groups, fillvalue="")]
            if any(names):
                raw = "".join(text for _, text in self._lines.row)
                self._set_dialect(raw)
                if self._layout.has_row_names:
                    names.insert(0, "")
                self._header_cells = names
                return self._unique(names)
        return ()

    def _set_dialect(self, header: str) -> None:
        cell = r'"(?:[^"]|"")*"'
        text = header.strip("\ufeff\r\n")
        quoted = re.fullmatch(f"{cell}(?:{re.escape(self._layout.delimiter)}{cell})*", text) is not None
        end = "\r\n" if header.endswith("\r\n") else "\n"
        self.dialect = replace(self.dialect, quote_all=quoted, line_end=end)

    def _read_labels(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Other names of columns in further header rows, and the columns that are answered in the user's own words."""
        labels: dict[str, list[str]] = {}
        open_ended = []
        for row in self._layout.extra:
            for name, cell in zip(self.columns, row, strict=False):
                if word := folded(cell):
                    labels.setdefault(word, []).append(name)
                    if word.startswith(_OPEN_ENDED):
                        open_ended.append(name)
        return {word: names[0] for word, names in labels.items() if len(names) == 1}, tuple(open_ended)

    def _unique(self, names: list[str]) -> tuple[str, ...]:
        unique: dict[str, None] = {}
        given = set(names)
        renamed: dict[str, str] = {}
        for position, name in enumerate(names, start=1):
            new = base = name or f"column_{position}"
            number = 2
            while new in unique or (new != name and new in given):
                new = f"{base}_{number}"
                number += 1
            if name and new != name:
                renamed[new] = f"column {position} repeats the name {name!r} and is called {new!r}"
            elif not name and any(names[position:]):
                renamed[new] = f"column {position} has no name and is called {new!r}"
            unique[new] = None
        if len(renamed) > _SHOWN_RENAMED:
            self.notes.append(f"{self._path}: columns with a repeated name or none are called {listed(renamed)}")
        else:
            self.notes += [f"{self._path}: {sentence}" for sentence in renamed.values()]
        return tuple(unique)

    def _wrong_width(self, cells: int, line: int) -> InputError:
        width = len(self.columns)
        hint = "put text with separators or line breaks in quotes" if width > 1 else "check --delimiter"
        message = f"{cells} cell{'s' if cells > 1 else ''} where the header has {width}"
        return InputError(message, path=self._path, line=line, hint=hint)


def open_table(source: TextInput, delimiter: str | None) -> RowStream:
    """Find the dialect and the header of a table, and start reading; `delimiter` is the format's own.

    Raises:
        InputError: the header cannot be read, or is not where the user says.
    """
    options, encoding = source.options, source.encoding
    if options.delimiter is not None:
        delimiter = known_delimiter(options.delimiter)
    elif delimiter is not None and delimiter not in source.head:
        delimiter = None  # the file's name is wrong
    names = tuple(name for name in (*options.text_fields, options.id_field) if name)
    layout = find_layout(source.head, TableOptions(delimiter, names, options.header_row, options.skip_rows))
    parser = _Parser(source.lines(), layout.delimiter, layout.quoting, skip=layout.header_line - 1)
    reader = TableReader(parser, layout, source.name, skip_rows=options.skip_rows)
    if options.header_row is not None and not reader.columns:
        raise InputError(f"has no line {options.header_row}", path=source.name, hint="correct --header-row")
    # Where only the content tells that it is a table, tabs are its own way of writing, not that of CSV.
    tabs = reader.dialect.delimiter == "\t" and format_of_name(source.name) != "csv"
    return RowStream(
        reader.rows(),
        reader.columns,
        reader.header_line,
        reader.notes,
        labels=reader.labels,
        open_ended=reader.open_ended,
        left_out=reader.left_out,
        # The output is UTF-8: with a mark also where a spreadsheet would not take the input for it.
        dialect=replace(
            reader.dialect,
            mark=encoding.mark > 0 or encoding.codec not in ("utf-8", "ascii"),
            delimiter="," if tabs else reader.dialect.delimiter,
        ),
    )


class _Parser:
    """Parses rows one at a time; a broken one is returned as an error, and parsing continues below it."""

    def __init__(self, lines: Lines, delimiter: str, quoting: Quoting, *, skip: int = 0) -> None:
        # The limit is global to the csv module: it is raised and never lowered, so that other users are not harmed.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ROW_BYTES))
        null = re.compile(rf"(?:^|(?<={re.escape(delimiter)}))\\N(?=[{re.escape(delimiter)}\r\n]|$)")
        self.lines = _RowLines(lines, skip, null if quoting == "backslash" else None)
        self._path = lines.path
        self._delimiter = delimiter
        self._rows = csv.reader(
            self.lines,
            delimiter=delimiter,
            strict=True,
            escapechar="\\" if quoting == "backslash" else None,
            skipinitialspace=quoting == "spaced",
            quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
            quotechar="'" if quoting == "single" else '"',
        )
        if quoting == "whole":
            self._rows = csv.reader((row[0] for row in self._rows if row), delimiter=delimiter, strict=True)

    def next_row(self) -> list[str] | InputError | None:
        """Return the next row, `[]` for a blank line, an error for a bad row, `None` at the end."""
        lines = self.lines
        lines.row.clear()
        lines.row_size = 0
        try:
            return next(self._rows, None)
        except InputError as error:
            if error is lines.fatal:
                raise
            return error
        except csv.Error as error:
            return self._broken(error)
        except _RowTooLong:
            return too_long(self._path, self._recover(), "check whether a quote in this line is never closed")

    def _broken(self, error: csv.Error) -> InputError:
        if "unexpected end" in str(error):
            line = self._recover()
            hint = 'close it, or double it ("") when it belongs to the text'
            return InputError("a quote that is opened here is never closed", path=self._path, line=line, hint=hint)
        line = self.lines.line
        if "expected after" in str(error):
            hint = 'inside quotes, a quote is written twice ("")'
            return InputError("text after a closing quote", path=self._path, line=line, hint=hint)
        return InputError(f"broken CSV: {error}", path=self._path, line=line)

    def _recover(self) -> int:
        """Return the line with the quote that is never closed, and continue reading below it."""
        row = list(self.lines.row)
        opened = _unclosed_quote((text for _, text in row), self._delimiter)
        self.lines.pending.extend(reversed(row[opened + 1 :]))
        return row[opened][0]


class _RowTooLong(Exception):
    """The lines of one row exceed `MAX_ROW_BYTES`."""


class _RowLines:
    """Feeds decoded lines to the csv module and remembers those of the current row."""

    def __init__(self, lines: Lines, skip: int, null: re.Pattern[str] | None) -> None:
        self._lines = lines
        self._null = null  # finds cells with MySQL's null, which are not escapes
        self.at_end = False
        self._numbered = iter(lines)
        for _ in range(skip):
            next(self._numbered, None)
        self.pending: list[tuple[int, str]] = []  # Lines to deliver again, the last one first
        self.row: list[tuple[int, str]] = []
        self.row_size = 0
        self.line = 0  # The number of the line that was delivered last
        self.first_line = 0  # The number of the line on which the current row starts
        self.fatal: InputError | None = None  # The error that ended the input itself, not one row of it

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        if self.pending:
            number, text = self.pending.pop()
        else:
            try:
                number, data = next(self._numbered)
            except InputError as error:
                self.fatal = error
                raise
            except StopIteration:
                self.at_end = True
                raise
            try:
                text = data.decode(self._lines.codec)
            except UnicodeDecodeError as error:
                raise self._lines.undecodable(error, number) from error
            if self._null is not None and "\\N" in text:
                text = self._null.sub(r"\\\\N", text)
        if not self.row:
            self.first_line = number
            # The mark of a file that was glued on would hide the quote behind it.
            text = text[1:] if text.startswith('\ufeff"') else text
        self.line = number
        self.row.append((number, text))
        self.row_size += len(text)
        if self.row_size > MAX_ROW_BYTES:
            raise _RowTooLong
        return text


def _unclosed_quote(lines: Iterable[str], delimiter: str) -> int:
    """Return the index of the line with the quote that is never closed; the last line when all are."""
    opened: int | None = None
    last = 0
    for index, line in enumerate(lines):
        at, last = 0, index
        while at < len(line):
            if opened is None:
                if line[at] == '"':
                    opened, at = index, at + 1
                else:
                    cut = line.find(delimiter, at)
                    at = len(line) if cut < 0 else cut + 1
                continue
            close = line.find('"', at)
            if close < 0:
                break
            if line[close + 1 : close + 2] == '"':
                at = close + 2
            else:
                opened, at = None, close + 2
    return last if opened is None else opened
