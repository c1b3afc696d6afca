"""Row ids in answers: those that exist, and those that do not."""

from __future__ import annotations

import pytest

from mellea_cli.chat.attachments import DataTable, Row
from mellea_cli.chat.citations import Citations, CitedIds, evidence

IDS = Citations(frozenset({"F-001", "F-002", "F-010"}))
NUMBERS = Citations(frozenset({"1", "2", "30"}))


@pytest.mark.parametrize(
    ("citations", "answer", "known", "unknown"),
    [
        (IDS, "Crashes [F-001], [F-099].", ["F-001"], ["F-099"]),
        (IDS, "Both [F-001, F-002; F-500] and [row F-010].", ["F-001", "F-002", "F-010"], ["F-500"]),
        (IDS, "A [link](http://x) and [a note], and [x].", [], []),
        (IDS, "As row F-002 says, and rows F-777.", ["F-002"], ["F-777"]),
        (NUMBERS, "Many [1][2] and [id: 30], but [31] is none.", ["1", "2", "30"], ["31"]),
        (NUMBERS, "See rows 2, and row #99.", ["2"], ["99"]),
        (NUMBERS, "Nothing is cited in 2026.", [], []),
    ],
)
def test_ids_are_found(citations: Citations, answer: str, known: list[str], unknown: list[str]) -> None:
    """Ids in brackets, or after the word row, are distinguished by whether they exist."""
    assert citations.find(answer) == CitedIds(tuple(known), tuple(unknown))


def test_ids_that_do_not_exist_are_marked() -> None:
    """The mark stands behind the wrong id, and right ones and other brackets stay as they are."""
    assert IDS.mark("[F-001] [F-099] [note] row F-098.") == (
        "[F-001] [F-099] (no such row) [note] row F-098. (no such row)"
    )
    assert IDS.mark("[F-001, F-404]") == "[F-001, F-404] (no such row: F-404)"


def test_the_cited_rows_are_the_evidence() -> None:
    """Below an answer stand the rows that it cites; where it cites none, those that are nearest to it."""
    table = DataTable("x", [Row("F-001", "the app crashes"), Row("F-002", "the door is stuck")])
    assert evidence([table], "It crashes [F-001] [F-009].") == ["[F-001] the app crashes", "not in the data: F-009"]
    assert evidence([table], "The doors stick.")[1:] == ["[F-002] the door is stuck"]
