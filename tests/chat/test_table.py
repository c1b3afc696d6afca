"""Rows are chosen by the question and spread over their kinds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.chat.attachments import Row, Table, words
from mellea_cli.chat.turns import Meter

KINDS = ("negative/high", "neutral/low", "positive/low")


def row(number: int, text: str = "") -> Row:
    kind = KINDS[number % 3]
    complaint = "slow delivery" if kind == "negative/high" else ""
    return Row(f"R-{number}", f"{kind} | {complaint} | {text or f'text number {number} of the file'}", kind, complaint)


TABLE = Table("out.jsonl", [row(number, "the zipper broke" if number == 77 else "") for number in range(300)])


def test_everything_is_shown_when_it_fits() -> None:
    """With room for all rows all are shown, in order."""
    picked = TABLE.pick("anything", 100_000, Meter().tokens)
    assert picked.rows == TABLE.rows


@given(room=st.integers(min_value=0, max_value=6000))
def test_what_is_chosen_fits(room: int) -> None:
    """The chosen rows have no more tokens than there is room for, each stands once, and they keep their order."""
    meter = Meter()
    picked = TABLE.pick("what is wrong with the zipper?", room, meter.tokens)
    assert sum(meter.tokens(one.line) + 1 for one in picked.rows) <= room
    places = [int(one.id.removeprefix("R-")) for one in picked.rows]
    assert places == sorted(set(places))


def test_rows_that_share_words_with_the_question_come_first() -> None:
    """The one row about zippers is among the few that fit."""
    picked = TABLE.pick("what is wrong with the zippers?", 600, Meter().tokens)
    assert "R-77" in {one.id for one in picked.rows}
    assert picked.by_words >= 1


def test_the_rest_is_spread_over_all_kinds() -> None:
    """Each kind has about its share of the rows that do not share words with the question."""
    picked = TABLE.pick("xylophone?", 2000, Meter().tokens)
    counts = [sum(one.stratum == kind for one in picked.rows) for kind in KINDS]
    assert picked.by_words == 0
    assert max(counts) - min(counts) <= 2
    assert max(int(one.id.removeprefix("R-")) for one in picked.rows) > 200


def test_the_overview_counts_all_rows() -> None:
    """Judgements and the words that complaints share are counted over every row, with ids."""
    overview = TABLE.overview()
    assert "300 rows in all" in overview
    assert "negative/high 100" in overview
    assert "delivery in 100: [R-0] [R-3]" in overview


def test_idle_words_do_not_count() -> None:
    """Words that say nothing are left out, and plurals are one word with their singular."""
    assert words("What do people complain about? The Zippers!") == {"zipper"}
