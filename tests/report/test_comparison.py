"""Two outputs side by side: rows that came and went, and what moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.report.comparison import Change, Comparison, compare, comparison_to_json, comparison_to_markdown, points
from mellea_cli.report.results import open_results
from resultrows import result_rows
from rowfiles import write_rows


def compared(tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Comparison:
    paths = write_rows(tmp_path / "old.jsonl", old), write_rows(tmp_path / "new.jsonl", new)
    with open_results(str(paths[0])) as before, open_results(str(paths[1])) as after:
        return compare(before, after)


def without_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def test_rows_are_matched_by_id(tmp_path: Path) -> None:
    """New, gone, kept, edited and judged differently are each counted."""
    rows = result_rows(100)
    new = [dict(row) for row in rows[20:]] + [row | {"id": f"N-{row['id']}"} for row in rows[:5]]
    new[0] |= {"text": "another text"}
    new[1] |= {"sentiment": "mixed" if new[1]["sentiment"] != "mixed" else "positive"}
    found = compared(tmp_path, rows, new)
    assert (found.matched_by, found.kept, found.gone, found.added) == ("id", 80, 20, 5)
    assert (found.edited, found.rejudged) == (1, 1)
    assert found.kept + found.gone == found.old.rows
    assert found.kept + found.added == found.new.rows


def test_rows_without_ids_are_matched_by_their_words(tmp_path: Path) -> None:
    """Texts that occur several times are matched as often as they occur in both."""
    rows = without_ids(result_rows(9))
    found = compared(tmp_path, [*rows, rows[0], rows[0]], [rows[0], rows[0], *rows[5:]])
    assert (found.matched_by, found.kept, found.gone, found.added) == ("text", 6, 5, 0)


def test_an_id_that_occurs_twice_is_matched_twice(tmp_path: Path) -> None:
    """A file whose ids are not unique still adds up."""
    rows = result_rows(4)
    found = compared(tmp_path, [rows[0], rows[0], rows[1]], [rows[0], rows[2]])
    assert (found.kept, found.gone, found.added) == (1, 2, 1)


def test_shares_move_and_themes_come_and_go(tmp_path: Path) -> None:
    """Counts are those of both reports; what is only on one side came or went."""

    def row(number: int, mood: str, theme: str) -> dict[str, Any]:
        return {"id": number, "text": f"t{number}", "sentiment": mood, "issues": None, "themes": [theme]}

    old = [row(number, "negative", "Old") for number in range(4)] + [row(4, "positive", "Both")]
    new = [row(number, "positive", "New") for number in range(8)] + [
        row(9, "negative", "Both"),
        row(10, "mixed", "Both"),
    ]
    found = compared(tmp_path, old, new)
    (negative, mixed, positive) = found.of("sentiment")
    assert (negative.old, negative.new, round(negative.points)) == (4, 1, -70)
    assert (mixed.old, mixed.new, positive.new) == (0, 1, 8)
    themes = {change.name: change for change in found.of("theme")}
    assert [change.name for change in found.of("theme")] == ["New", "Old", "Both"]
    assert (themes["New"].arrival, themes["Old"].arrival, themes["Both"].arrival) == ("came", "went", "")


def test_themes_on_one_side_only_are_not_compared(tmp_path: Path) -> None:
    """It says which file has none."""
    found = compared(tmp_path, result_rows(20), result_rows(20, themed=True))
    assert not found.themed
    assert found.of("theme") == []
    assert "themes are not compared" in comparison_to_markdown(found, "x")


def test_equal_files_have_not_changed(tmp_path: Path) -> None:
    """Every change is nothing, and two empty files are equal too."""
    rows = result_rows(50, themed=True)
    assert all(change.points == 0 and not change.arrival for change in compared(tmp_path, rows, rows).changes)
    assert compared(tmp_path, [], []).kept == 0


def test_json_holds_everything(tmp_path: Path) -> None:
    """Programs read the same figures."""
    found = compared(tmp_path, result_rows(30, themed=True), result_rows(60, themed=True))
    told = json.loads(comparison_to_json(found))
    assert told["rows"] == {"matched_by": "id", "kept": 30, "added": 30, "gone": 0, "edited": 0, "rejudged": 0}
    assert [(one["name"], one["old"], one["new"]) for one in told["changes"]] == [
        (change.name, change.old, change.new) for change in found.changes
    ]


@pytest.mark.parametrize(
    ("old", "new", "text"), [(0.1, 0.131, "+3.1"), (0.5, 0.38, "-12"), (0.2, 0.2, "0"), (0.1, 0.0996, "0")]
)
def test_a_move_is_told_in_percentage_points(old: float, new: float, text: str) -> None:
    """One decimal where it is small, none where it is large."""
    assert points(Change("theme", "x", 5, 5, old, new)) == text
