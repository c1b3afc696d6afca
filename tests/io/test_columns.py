"""Added columns: names that give way to the input's, and the rows of failures."""

from __future__ import annotations

from mellea_cli.io.writers import AddedColumns, FreeNames
from mellea_cli.items import Failure, Item, Success

ADDED = AddedColumns.of("summary", ("issues", ("main_complaint", "urgency")))
ITEM = Item(0, 1, "a", {"text": "a"})


def test_names_as_json_and_as_csv_have_them() -> None:
    """A nested column stands for its parts in a table, and `error` is always there."""
    assert ADDED.names == ("summary", "issues")
    assert ADDED.flat == ("summary", "main_complaint", "urgency", "error")
    assert AddedColumns().flat == ()


def test_success_brings_the_declared_columns_in_their_order() -> None:
    """What a pipeline leaves out is null, and what nobody declared is not written."""
    assert list(ADDED.row(ITEM, Success({"issues": {}, "x": 1})).added.items()) == [("summary", None), ("issues", {})]


def test_failure_brings_nulls_and_its_reason() -> None:
    """Step and status are named where there are any."""
    full = ADDED.row(ITEM, Failure("server-fault", "no answer", step="issues", attempts=3, status=503)).added
    assert full == {
        "summary": None,
        "issues": None,
        "error": {"kind": "server-fault", "message": "no answer", "attempts": 3, "step": "issues", "status": 503},
    }
    assert ADDED.row(ITEM, Failure("parse", "no JSON")).added["error"] == {
        "kind": "parse",
        "message": "no JSON",
        "attempts": 1,
    }


def test_name_gives_way_until_it_is_free_and_says_so_once() -> None:
    """An input column is never touched; each of our names is noted once, however many rows have it."""
    notes: list[str] = []
    names = FreeNames(notes.append)
    assert names.find("summary", ["text"]) == "summary"
    assert notes == []
    assert names.find("summary", ["summary"]) == "mellea_summary"
    assert names.find("summary", ["summary", "mellea_summary", "mellea_summary_2"]) == "mellea_summary_3"
    assert names.find("error", ["error"]) == "mellea_error"
    assert notes == [
        "the input has a column 'summary': it stays as it is, ours is called 'mellea_summary'",
        "the input has a column 'error': it stays as it is, ours is called 'mellea_error'",
    ]
