"""The expression of `--where`: how cells are read, which places errors name, and that nothing is run as Python."""

from __future__ import annotations

import datetime
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.errors import InputError, MelleaError, UsageError
from mellea_cli.io.row_filter import RowFilter
from mellea_cli.io.source import SourceOptions, open_source

ROW: dict[str, Any] = {
    "id": "007",
    "rating": "4",
    "text": "I want a Refund",
    "Order number": "17",
    "empty": "",
    "nothing": None,
    "flag": "true",
    "count": 3,
    "share": 0.5,
    "open": False,
    "issues": {"urgency": "high", "main_complaint": None},
    "themes": ["Billing", "Mobile app"],
    "Größe": "12.50",
    "day": datetime.date(2026, 10, 2),
    "created": "2026-10-02",
    "meta": {"tags": ["a", "b"], "n": 7},
}


@pytest.mark.parametrize(
    "expression",
    [
        "rating >= 4",
        "rating > 3.5 and rating < 10",
        "rating == 4",
        "rating = 4.0",
        'rating == "4"',
        "rating <> 5",
        'id == "007"',
        "id == 7",
        'id != "7"',
        "count == 3",
        'count == "3"',
        "share < 1",
        "`Order number` > 3",
        "`order   NUMBER` == 17",
        "RATING == 4",
        "Größe > 12",
        'urgency == "high"',
        'issues.urgency == "high"',
        "meta.n == 7",
        'meta.tags[1] == "b"',
        'meta.tags contains "A"',
        'text contains "refund"',
        '"refund" in text',
        'text startswith "i want"',
        'text endswith "REFUND"',
        'text matches "\\brefund$"',
        'text =~ "\\\\brefund"',
        "text matches 'wants?'",
        'themes contains "mobile app"',
        '"Billing" in themes',
        "length(themes) == 2",
        "length(text) > 10",
        'lower(text) == "i want a refund"',
        "rating in [1, 4]",
        'rating in ("1", "4")',
        "rating not in [1, 2]",
        "flag",
        "flag == true",
        "not open",
        "open == false",
        "!open && flag || open",
        "NOT open AND flag",
        "nothing is null",
        "nothing == null",
        "empty is null",
        'empty == ""',
        "text is not null",
        "main_complaint is null",
        "nothing != 3",
        "not nothing > 3",
        'day >= "2026-10-01"',
        'created < "2026-11-01"',
        "((rating)) == 4",
        "created == day",
        "rating < `Order number`",
        'text != "say \\"no\\""',
        "rating > -1",
    ],
)
def test_a_row_meets_a_condition(expression: str) -> None:
    """A literal decides how a cell is read; the names of columns and answers are found as the other flags find them."""
    assert RowFilter(expression).matches(ROW)


@pytest.mark.parametrize(
    "expression",
    [
        "rating > 10",
        'rating == "4.0"',
        "nothing > 3",
        "nothing < 3",
        'nothing contains "x"',
        "empty is not null",
        "text > 3",
        "text < 3",
        'urgency == "High"',
        'themes contains "Bill"',
        'rating in ["04"]',
        "open",
        "text",
        "count == true",
        "themes > 3",
        "issues < 5",
        "rating is null",
        "length(nothing) > 0",
        "null in text",
        "[1] in text",
        "flag and open",
    ],
)
def test_a_row_does_not_meet_a_condition(expression: str) -> None:
    """A comparison with a missing value, or of a number with text, is false."""
    assert not RowFilter(expression).matches(ROW)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "--where: the expression is empty"),
        ("rating >", "--where: rating >: something is missing at the end"),
        ("rating >= 3 and", "something is missing at the end"),
        ("date > 2026-11-16", "character 8: a date is written in quotes: 2026-11-16"),
        ("rating > 3 and date >= 2026-11", "character 24: a date is written in quotes: 2026-11"),
        ("date in [2026-11-16, 2026-11-17]", "character 10: a date is written in quotes: 2026-11-16"),
        ("date > 2026-11-16T09:30:00Z", "a date is written in quotes: 2026-11-16T09:30:00Z"),
        ('a == "2026-11-16" and date < 16.11.2026', "character 30: a date is written in quotes: 16.11.2026"),
        ("date = 11/16/2026 and rating > 3", "character 8: a date is written in quotes: 11/16/2026"),
        ('date > "2026-11-16" rating', "'rating' is not expected after"),
        ("rating = = 3", "character 10: '=' is not expected after 'rating ='"),
        ("Order number > 3", "character 7: 'number' is not expected after 'Order'"),
        ("rating == 4)", "character 12: ')' is not expected after 'rating == 4'"),
        (") == 4", "character 1: ')' is not expected at the start"),
        ('text == "abc', 'character 9: quotes are not closed: "abc'),
        ("`Order", "character 1: backticks are not closed"),
        ('"Order number" > 3', "two fixed values are compared"),
        ("1", "a fixed value is no condition"),
        ('text matches "("', "'(' is not a pattern"),
        ("text matches id", "matches needs a pattern in quotes"),
        ("(" * 200 + "a" + ")" * 200 + " == 1", "more than 100 levels"),
        ("not " * 200 + "a", "more than 100 levels"),
        ("a == 1 or " * 2_000 + "b", "more than 10,000 characters"),
        ("__import__('os').system('true')", "'(' is not expected after '__import__'"),
        ("(lambda: 1)()", "character 8"),
    ],
)
def test_an_expression_that_cannot_be_read(expression: str, message: str) -> None:
    """The message names the place; nothing of the text is run."""
    with pytest.raises(UsageError) as error:
        RowFilter(expression)
    assert message in error.value.message
    assert error.value.hint


def test_many_alternatives_are_no_levels() -> None:
    """A chain of `or` is as long as it likes."""
    assert RowFilter(" or ".join(f"count == {number}" for number in range(500))).matches(ROW)


def selected(path: Path, expression: str, **options: Any) -> list[Any]:
    with open_source(str(path), SourceOptions(where=RowFilter(expression), **options)) as source:
        source.survey()
        return [(item.position, item.id) for item in source]


def test_a_source_yields_the_rows_that_meet_it(tmp_path: Path) -> None:
    """Positions have no gaps; rows without an id keep their number in the input."""
    path = tmp_path / "in.csv"
    path.write_text("text,stars\nfine,5\nbad,1\ngood,4\nworse,1\n")
    assert selected(path, "stars < 3") == [(0, 2), (1, 4)]
    assert selected(path, "stars > 9") == []
    assert selected(path, "stars < 9", limit=2) == [(0, 1), (1, 2)]
    assert selected(path, "stars < 5", sample=2, seed=1) == selected(path, "stars < 5", sample=2, seed=1)
    assert {number for _, number in selected(path, "stars < 5", sample=3)} == {2, 3, 4}


def test_a_row_that_is_left_out_may_be_bad(tmp_path: Path) -> None:
    """What has no text, and is not selected, is no error."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "fine", "kind": "review"}\n{"kind": "ping"}\n{"text": "bad", "kind": "review"}\n')
    assert selected(path, 'kind == "review"') == [(0, 1), (1, 3)]
    with pytest.raises(InputError, match="no column 'text'"):
        selected(path, 'kind == "ping" or kind == "review"')


def test_a_wrong_column_is_refused(tmp_path: Path) -> None:
    """With the nearest name, before any row is yielded; a table's header tells at once."""
    table, rows = tmp_path / "in.csv", tmp_path / "in.jsonl"
    table.write_text("text,Order number\nfine,5\n")
    rows.write_text('{"text": "fine"}\n{"text": "bad", "kind": {"name": "x"}}\n')
    for path, expression, hint in (
        (table, "`Order nmber` > 3", "did you mean `Order number`?"),
        (table, "texts is null", "did you mean text?"),
        (table, 'text == "a" or zzz == 1', 'write text in quotes: "zzz"; a column with blanks: `zzz`'),
        (rows, "knd is null", "did you mean kind?"),
        (rows, "kind.nmae is null", "did you mean kind.name?"),
    ):
        with pytest.raises(InputError, match="--where: no column") as error:
            selected(path, expression)
        assert error.value.hint == hint
        assert error.value.path == str(path)
    assert error.value.line is None
    assert selected(rows, 'kind.name == "x"') == [(0, 2)]


def test_a_column_that_only_later_rows_have(tmp_path: Path) -> None:
    """The first thousand rows tell whether there is such a column."""
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({"text": f"row {number}"}) for number in range(900)]
    path.write_text("\n".join([*lines, json.dumps({"text": "last", "late": 1})]))
    assert selected(path, "late == 1") == [(0, 901)]
    assert len(selected(path, "late is null")) == 900


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.one_of(st.text(max_size=4), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
TESTS = st.sampled_from([
    "{} == {}", "{} != {}", "{} < {}", "{} <= {}", "{} > {}", "{} in {}", "{} not in {}", "{} contains {}",
    "{} startswith {}", "{} endswith {}", "length({}) > {}", "lower({}) == {}",
])  # fmt: skip


@given(a=CELLS, b=CELLS, test=TESTS)
def test_any_two_cells_can_be_compared(a: Any, b: Any, test: str) -> None:
    """Cells of any type, and none: a comparison is true or false."""
    row = {"a": a, "b": b}
    assert RowFilter(test.format("a", "b")).matches(row) in (True, False)
    assert RowFilter(f"not ({test.format('a', 'b')})").matches(row) is not RowFilter(test.format("a", "b")).matches(row)


_PIECES = [
    "a",
    "b",
    "`a b`",
    "issues.urgency",
    "a.b[0]",
    "1",
    "-2.5",
    "1e9",
    '"x"',
    "'y z'",
    '"(a+)+$"',
    "true",
    "null",
    "[1, 2]",
    "(",
    ")",
    "[",
    "]",
    ",",
    "and",
    "or",
    "not",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "contains",
    "matches",
    "=~",
    "is",
    "length(",
    "lower(",
    "&&",
    "||",
    "!",
    "startswith",
    "`",
    '"',
    "'",
    "\\",
    ".",
    ";",
    "#",
    "\n",
    "\x00",
    "é",
    "日本",
    "\U0001f600",
    "__import__('os')",
    "lambda: 0",
    "().__class__",
    "exec('1')",
    "{",
    "}",
    "{{7*7}}",
    "${a}",
    "%s",
    "@",
    ":=",
    "**",
    "def f(): pass",
    "a.__class__.__mro__",
    "f'{a}'",
    "open('x','w')",
    "eval",
    "globals()",
]


def random_expression(draw: random.Random) -> str:
    """Pieces of the language and of Python in any order, or a sound expression with some letters changed."""
    if draw.random() < 0.5:
        return draw.choice(["", " "]).join(draw.choice(_PIECES) for _ in range(draw.randint(1, 12)))
    operators = ["==", "!=", "<", ">", "in", "contains", "startswith", "matches"]
    parts = [
        f"{draw.choice(_PIECES[:5])} {draw.choice(operators)} {draw.choice(_PIECES[5:14])}"
        for _ in range(draw.randint(1, 4))
    ]
    letters = list(draw.choice([" and ", " or ", " and not "]).join(parts))
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        letters[draw.randrange(len(letters))] = chr(draw.choice([draw.randrange(32, 127), draw.randrange(0x2FFF)]))
    return "".join(letters)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What Python compiles, runs, imports or opens inside the block."""
    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"compile", "exec", "import", "open", "os.system", "subprocess.Popen"}:
            seen.append(f"{event} {str(arguments)[:80]}")

    sys.addaudithook(hook)  # no hook can be removed
    yield seen
    watching = False


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_ten_thousand_random_expressions() -> None:
    """Each is refused with a message or gives true or false; nothing is compiled, imported or opened by Python."""
    draw = random.Random(19)  # noqa: S311 - the same expressions each time
    rows: list[dict[str, Any]] = [ROW, {}, {"a": "1", "b": None, "a b": [1, "x"]}, {"a": {"b": ["y z"]}, "b": 2.5}]
    sound = refused = 0
    RowFilter('a == 1 and b matches "x"').matches(ROW)  # lark is loaded now
    with watched() as control:
        eval("1")  # noqa: S307 - the watch sees it
    assert control
    with watched() as seen:
        for _ in range(10_000):
            expression = random_expression(draw)
            try:
                condition = RowFilter(expression)
            except MelleaError as error:
                refused += error.message.startswith("--where")
                continue
            assert all(condition.matches(row) in (True, False) for row in rows)
            sound += 1
    assert seen == []
    assert sound + refused == 10_000
    assert min(sound, refused) > 1_000
