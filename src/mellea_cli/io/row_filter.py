"""Row filter: the expression of `--where`, which selects rows by their columns and answers.

lark parses the expression into closures. A literal decides how a cell is read: CSV has only text, so `rating >= 4`
reads the cell `4` as a number, and `id == "007"` reads it as text.
"""

from __future__ import annotations

import json
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from mellea_cli.errors import InputError, UsageError, nearest
from mellea_cli.io.columns import PATH_ROWS, column_value, folded, has_column, is_path, listed
from mellea_cli.io.formats import RawRow, RowStream

if TYPE_CHECKING:
    from lark import Lark

FLAG = "--where"
_MOST_CHARACTERS = 10_000
_MOST_LEVELS = 100  # A closure calls the next one, and Python's stack ends
_NESTED = "issues"  # JSON outputs hold these answers in one object, tables in columns of their own

# Keywords are in upper or lower case; a name that is one of them is written in backticks.
_GRAMMAR = r"""
start: either
either: both (("or"i | "||") both)*
both: denial (("and"i | "&&") denial)*
?denial: ("not"i | "!") denial -> denied
    | test
?test: value (EQUAL | ORDER) value -> compared
    | value "in"i value -> within
    | value "not"i "in"i value -> outside
    | value "contains"i value -> containing
    | value "startswith"i value -> starting
    | value "endswith"i value -> ending
    | value ("matches"i | _LIKE) value -> matching
    | value "is"i "null"i -> missing
    | value "is"i "not"i "null"i -> present
    | value
?value: "(" either ")" -> group
    | literal
    | "[" [literal ("," literal)*] "]" -> items
    | "(" literal ("," literal)+ ")" -> items
    | "length"i "(" value ")" -> length
    | "lower"i "(" value ")" -> lower
    | NAME -> column
    | QUOTED_NAME -> quoted_column
?literal: NUMBER -> number
    | TEXT -> text
    | "true"i -> true
    | "false"i -> false
    | "null"i -> null

_LIKE.2: "=~"
EQUAL: "==" | "!=" | "<>" | "="
ORDER: "<=" | ">=" | "<" | ">"
NUMBER.2: /[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?(?![\w.])/i
TEXT: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
NAME: /[^\W\d]\w*(\.\w+|\[\d+\])*/i
QUOTED_NAME: /`[^`]+`/
%ignore /\s+/
"""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Value:
    """A part of an expression that has a value: a column, a literal, or a function of them."""

    of: Callable[[Row], Any]
    fixed: bool = False  # A literal
    condition: bool = False  # True or false, such as a comparison in parentheses
    levels: int = 1


class RowFilter:
    """A condition on rows.

    Raises:
        UsageError: it is no expression; the message names the place.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._columns: dict[str, NamedColumn] = {}
        self._test = _parse(expression, self._column)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it names, in order."""
        return tuple(self._columns)

    def matches(self, fields: Row) -> bool:
        """Whether a row meets the condition; a comparison with a missing value is false, `!=` is true."""
        return bool(self._test(fields))

    def checked(self, rows: RowStream, path: str) -> RowStream:
        """Return the rows, after looking at as many of them as tell whether the named columns exist.

        Raises:
            InputError: a column does not exist.
        """
        return require_columns(self._columns.values(), rows, path, FLAG)

    def _column(self, name: str, *, quoted: bool = False) -> Callable[[Row], Any]:
        return self._columns.setdefault(name, NamedColumn(name, quoted=quoted)).value


def require_columns(columns: Iterable[NamedColumn], rows: RowStream, path: str, flag: str) -> RowStream:
    """Return the rows, after looking at as many of them as tell whether all columns exist.

    Raises:
        InputError: a column does not exist.
    """
    taken: list[RawRow | InputError] = []
    known = dict.fromkeys(rows.header)
    missing = [column for column in columns if not column.is_in(known, rows.header)]
    if missing and rows.header:
        raise _unknown(missing[0].name, known, path, rows.header_line, flag)
    while missing and len(taken) < PATH_ROWS and (row := next(rows.stream, None)) is not None:
        taken.append(row)
        if not isinstance(row, InputError):
            known.update(dict.fromkeys((*row[1], *_parts(row[1]))))
            missing = [column for column in missing if not column.is_in(row[1], ())]
    if missing and any(not isinstance(row, InputError) for row in taken):
        raise _unknown(missing[0].name, known, path, None, flag)
    return replace(rows, stream=chain(taken, rows.stream)) if taken else rows


def condition_hint(name: str, names: Sequence[str]) -> str:
    """What to write in a condition in the place of a column that does not exist."""
    if not (close := nearest(name, names)):
        return f'write text in quotes: "{name}"; a column with blanks: `{name}`'
    bare = re.fullmatch(r"[^\W\d]\w*(\.\w+)*", close)
    return f"did you mean {close if bare else f'`{close}`'}?"


def _unknown(name: str, known: Iterable[str], path: str, line: int | None, flag: str) -> InputError:
    names = list(known)
    if flag == FLAG:
        hint = condition_hint(name, names)
    else:
        close = nearest(name, names)
        hint = f"did you mean {close}?" if close else f"name one of the columns with {flag}"
    return InputError(f"{flag}: no column {name!r}; columns seen: {listed(names)}", path=path, line=line, hint=hint)


def _parts(fields: Row) -> Iterator[str]:
    """The paths one level inside the columns."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{part}" for part in value)


class NamedColumn:
    """One named column, found in rows that may differ in their columns.

    Args:
        name: a column, a path into JSON, or an answer inside `issues`.
        quoted: whether it is a column's name as a whole, never a path.
    """

    def __init__(self, name: str, *, quoted: bool = False) -> None:
        self.name = name
        self._path = not quoted and is_path(name)
        self._known: dict[tuple[str, ...], str | None] = {}

    def value(self, fields: Row) -> Any:
        if self.name in fields:
            return fields[self.name]
        key = tuple(fields)
        if key not in self._known:
            if len(self._known) >= PATH_ROWS:
                self._known.clear()
            self._known[key] = self._same(key)
        if (same := self._known[key]) is not None:
            return fields[same]
        if self._path and (found := column_value(fields, self.name)) is not None:
            return found
        inside = fields.get(_NESTED)
        return inside.get(self.name) if isinstance(inside, Mapping) else None

    def is_in(self, fields: Mapping[str, Any], header: tuple[str, ...]) -> bool:
        """Whether a row, or a header, has the column."""
        if self.name in fields or self._same(tuple(fields)) is not None:
            return True
        if header:
            return False
        inside = fields.get(_NESTED)
        return (self._path and has_column(fields, self.name)) or (isinstance(inside, Mapping) and self.name in inside)

    def _same(self, names: tuple[str, ...]) -> str | None:
        """The only column of this name when case and white space are ignored, or the part of a path to an answer."""
        for wanted in (self.name, self.name.removeprefix(f"{_NESTED}.")):
            if wanted in names:
                return wanted
            fold = folded(wanted)
            same = [name for name in names if folded(name) == fold]
            if len(same) == 1:
                return same[0]
        return None


# Parsing.


def _parse(expression: str, column: Callable[..., Callable[[Row], Any]]) -> Callable[[Row], Any]:
    from lark import UnexpectedInput
    from lark.exceptions import VisitError

    if not expression.strip():
        raise UsageError(f"{FLAG}: the expression is empty", hint="write one such as 'urgency == \"high\"'")
    if len(expression) > _MOST_CHARACTERS:
        raise UsageError(f"{FLAG}: the expression has more than {_MOST_CHARACTERS:,} characters", hint="shorten it")
    try:
        built: _Value = _builder(column).transform(_parser().parse(expression))
    except UnexpectedInput as error:
        raise _syntax_error(expression, error) from None
    except VisitError as error:
        if isinstance(error.orig_exc, UsageError):
            raise error.orig_exc from None
        raise
    return built.of


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


def _syntax_error(expression: str, error: Any) -> UsageError:
    """The error with the place: what stands before it, and what stands there."""
    at = getattr(error, "pos_in_stream", None)
    at = len(expression) if at is None or at < 0 or getattr(error.__dict__.get("token"), "type", "") == "$END" else at
    before, after = expression[:at].rstrip(), expression[at:].strip()
    hint = "see mellea help filters"
    if not after:
        return UsageError(f"{FLAG}: {_shortened(expression)}: something is missing at the end", hint=hint)
    if after[0] in "\"'`":
        closing = "quotes are" if after[0] != "`" else "backticks are"
        if after.count(after[0]) % 2:
            return UsageError(f"{FLAG}: character {at + 1}: {closing} not closed: {after[:40]}", hint=hint)
    # Before the place may stand the first part of a date, which is a number by itself.
    date = next((one for one in _DATE.finditer(expression) if one[1] and one.start(1) <= at <= one.end(1)), None)
    if date is not None:
        hint = f'write "{date[1]}" (2026-01-31 is in order as text); {hint}'
        return UsageError(f"{FLAG}: character {date.start(1) + 1}: a date is written in quotes: {date[1]}", hint=hint)
    found = re.match(r"\w+|\S", after)
    word = found[0] if found else after[0]
    place = f"after {before[-40:]!r}" if before else "at the start"
    if re.match(r"\w", word) and before and re.search(r"\w$", before):
        hint = f"write a column with blanks in backticks, text in quotes; {hint}"
    return UsageError(f"{FLAG}: character {at + 1}: {word!r} is not expected {place}", hint=hint)


# Quoted texts and names are passed over: only a date outside of them is in the group.
_DATE = re.compile(
    r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*`
    | (?<![\w.])( \d{4}(?:-\d{1,2}){1,2}(?:T[\d:.]+(?:Z|[+-][\d:]+)?)? | \d{4}(?:[/.]\d{1,2}){2}
    | \d{1,2}([./-])\d{1,2}\2\d{2,4} )(?!\w)""",
    re.VERBOSE,
)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"…{text[-59:]}"


def _builder(column: Callable[..., Callable[[Row], Any]]) -> Any:  # noqa: C901 - one method for each rule
    from lark import v_args
    from lark.visitors import Transformer_NonRecursive

    def levels(*parts: _Value) -> int:
        deepest = 1 + max((part.levels for part in parts), default=0)
        if deepest > _MOST_LEVELS:
            raise UsageError(f"{FLAG}: more than {_MOST_LEVELS} levels of parentheses or not", hint="simplify it")
        return deepest

    def check(test: Callable[[Any, Any], bool], left: _Value, right: _Value) -> _Value:
        if left.fixed and right.fixed:
            raise UsageError(
                f"{FLAG}: two fixed values are compared", hint="write a column with blanks in backticks: `Order number`"
            )
        first, second = left.of, right.of
        return _Value(lambda row: test(first(row), second(row)), condition=True, levels=levels(left, right))

    def negated(part: _Value) -> _Value:
        test = part.of
        return _Value(lambda row: not test(row), condition=True, levels=levels(part))

    def condition(part: _Value) -> _Value:
        """A column alone stands for `== true`."""
        if part.condition:
            return part
        if part.fixed:
            raise UsageError(
                f"{FLAG}: a fixed value is no condition", hint='compare a column with it: urgency == "high"'
            )
        value = part.of
        return _Value(lambda row: _is_true(value(row)), condition=True, levels=levels(part))

    @v_args(inline=True)
    class Builder(Transformer_NonRecursive[Any, _Value]):
        def start(self, part: _Value) -> _Value:
            return condition(part)

        def either(self, *parts: _Value) -> _Value:
            if len(parts) == 1:
                return parts[0]
            tests = [condition(part).of for part in parts]
            return _Value(lambda row: any(test(row) for test in tests), condition=True, levels=levels(*parts))

        def both(self, *parts: _Value) -> _Value:
            if len(parts) == 1:
                return parts[0]
            tests = [condition(part).of for part in parts]
            return _Value(lambda row: all(test(row) for test in tests), condition=True, levels=levels(*parts))

        def denied(self, part: _Value) -> _Value:
            return negated(condition(part))

        def group(self, part: _Value) -> _Value:
            return replace(part, levels=levels(part))

        def compared(self, left: _Value, sign: Any, right: _Value) -> _Value:
            if sign in {"!=", "<>"}:
                return negated(check(_equal, left, right))
            if sign in ("==", "="):
                return check(_equal, left, right)
            return check(_ORDERS[str(sign)], left, right)

        def within(self, left: _Value, right: _Value) -> _Value:
            return check(_within, left, right)

        def outside(self, left: _Value, right: _Value) -> _Value:
            return negated(check(_within, left, right))

        def containing(self, left: _Value, right: _Value) -> _Value:
            return check(lambda whole, part: _within(part, whole), left, right)

        def starting(self, left: _Value, right: _Value) -> _Value:
            return check(_on_texts(str.startswith), left, right)

        def ending(self, left: _Value, right: _Value) -> _Value:
            return check(_on_texts(str.endswith), left, right)

        def matching(self, left: _Value, right: _Value) -> _Value:
            if not right.fixed:
                raise UsageError(
                    f"{FLAG}: matches needs a pattern in quotes", hint='write: text matches "refund|money"'
                )
            pattern = _pattern(right.of({}))
            return check(lambda text, _: any(pattern.search(one) is not None for one in _texts(text)), left, right)

        def missing(self, part: _Value) -> _Value:
            value = part.of
            return _Value(lambda row: _is_null(value(row)), condition=True, levels=levels(part))

        def present(self, part: _Value) -> _Value:
            return negated(self.missing(part))

        def items(self, *parts: _Value) -> _Value:
            values = tuple(part.of({}) for part in parts)
            return _Value(lambda _: values, fixed=True)

        def length(self, part: _Value) -> _Value:
            value = part.of
            return _Value(lambda row: _length(value(row)), levels=levels(part))

        def lower(self, part: _Value) -> _Value:
            value = part.of
            return _Value(lambda row: cell_text(value(row)).casefold(), levels=levels(part))

        def column(self, name: Any) -> _Value:
            return _Value(column(str(name)))

        def quoted_column(self, name: Any) -> _Value:
            return _Value(column(str(name)[1:-1], quoted=True))

        def number(self, digits: Any) -> _Value:
            value = _number(str(digits))
            return _Value(lambda _: value, fixed=True)

        def text(self, quoted: Any) -> _Value:
            # Other backslashes belong to a pattern such as "\\d+".
            value = _Text(re.sub(r"\\([\"'\\])", r"\1", str(quoted)[1:-1]))
            return _Value(lambda _: value, fixed=True)

        def true(self) -> _Value:
            return _Value(lambda _: True, fixed=True)

        def false(self) -> _Value:
            return _Value(lambda _: False, fixed=True)

        def null(self) -> _Value:
            return _Value(lambda _: None, fixed=True)

    return Builder()


def _pattern(text: Any) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's plans for patterns such as [[a]
            return re.compile(str(text), re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{FLAG}: {str(text)!r} is not a pattern: {error}", hint="see mellea help filters") from error


# Values. A cell is what a reader yields: text in a table, any JSON value, dates of a workbook.


class _Text(str):
    """Text that the expression has in quotes: it is compared as text, although it may look like a number."""

    __slots__ = ()


_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_MOST_DIGITS = 300
_NESTED_TYPES = (list, tuple, Mapping)


def _number(value: Any) -> int | float | None:
    """A cell as a number; `None` for what is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None if isinstance(value, _NESTED_TYPES) else _number(str(value))
    text = value.strip()
    if not _NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("+-").isdecimal() and len(text) < _MOST_DIGITS else float(text)


def cell_text(value: Any) -> str:
    """A cell as text: JSON for what is nested."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float | list | tuple | Mapping):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except ValueError:  # digits without end
            return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a cell: its own, or those of a list."""
    if isinstance(value, list):
        yield from map(cell_text, value)
    elif value is not None:
        yield cell_text(value)


def _is_null(value: Any) -> bool:
    return value is None or value in ("", [])


def _is_true(value: Any) -> bool:
    """Whether a cell says true: `true` itself, or as a table writes it."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _is_false(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")


def _as_numbers(left: Any, right: Any) -> tuple[int | float, int | float] | None:
    """Both sides as numbers, where they are to be compared so."""
    if isinstance(left, _Text) or isinstance(right, _Text):
        return None
    first, second = _number(left), _number(right)
    return None if first is None or second is None else (first, second)


def _equal(left: Any, right: Any) -> bool:
    for one, other in ((left, right), (right, left)):
        if one is None:
            return _is_null(other)
        if one is True or one is False:
            return _is_true(other) if one else _is_false(other)
        if isinstance(one, _NESTED_TYPES):
            return isinstance(other, _NESTED_TYPES) and cell_text(one) == cell_text(other)
    if (numbers := _as_numbers(left, right)) is not None:
        return numbers[0] == numbers[1]
    return cell_text(left) == cell_text(right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        if _is_null(left) or _is_null(right) or isinstance(left, _NESTED_TYPES) or isinstance(right, _NESTED_TYPES):
            return False
        if (numbers := _as_numbers(left, right)) is not None:
            return compare(*numbers)
        if any(isinstance(side, int | float) for side in (left, right)):
            return False  # a number and text that is none
        return compare(cell_text(left), cell_text(right))

    return test


_ORDERS = {
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
}


def _within(part: Any, whole: Any) -> bool:
    """Whether a cell is one of several values, or is a part of a cell: of its list, or of its text in any case."""
    if isinstance(whole, tuple):
        return any(_equal(one, part) for one in whole)
    if isinstance(whole, list):
        wanted = cell_text(part).casefold()
        return any(_equal(one, part) or (isinstance(one, str) and one.casefold() == wanted) for one in whole)
    if isinstance(whole, Mapping):
        return cell_text(part) in whole
    return _on_texts(str.__contains__)(whole, part)


def _on_texts(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def compare(whole: Any, part: Any) -> bool:
        if part is None or isinstance(part, list | tuple | Mapping):
            return False
        wanted = cell_text(part).casefold()
        return any(test(text.casefold(), wanted) for text in _texts(whole))

    return compare


def _length(value: Any) -> int | None:
    if value is None:
        return None
    return len(value) if isinstance(value, list | Mapping) else len(cell_text(value))


_RANKED = {"high": "\0", "medium": "\1", "low": "\2"}


T = TypeVar("T")


def in_order(rows: Iterable[T], value: Callable[[T], Any], *, descending: bool) -> Iterator[T]:
    """Rows in the order of a value; what has none stays last, whatever the direction."""
    ordered = sorted(rows, key=lambda row: _sort_key(value(row)), reverse=descending)
    return iter(sorted(ordered, key=lambda row: _is_null(value(row))))


def _sort_key(value: Any) -> tuple[int, Any]:
    """How cells are ordered: numbers, then text in any case, then nothing; high before medium before low."""
    if _is_null(value):
        return (2, "")
    if (number := _number(value)) is not None:
        return (0, number if number == number else 0)  # noqa: PLR0124 - NaN has no place
    text = cell_text(value).casefold()
    return (1, _RANKED.get(text, text))


def has_text(fields: Row, text: str) -> bool:
    """Whether a text, in any case, is in one of the cells."""
    wanted = text.casefold()
    return any(wanted in cell_text(value).casefold() for value in fields.values())
