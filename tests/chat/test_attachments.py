"""Attachments: text, rows and outputs of a run; rows are chosen by the question."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.chat.attachments import DataTable, Document, Row, read_data, read_file, words
from mellea_cli.chat.chat_session import system_message
from mellea_cli.chat.conversation import TokenEstimator
from mellea_cli.errors import InputError
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import Journal
from mellea_cli.report.results import OWN_FIELDS
from rowfiles import write_rows

JUDGED = [
    {
        "id": "F-1", "text": "It crashes.", "summary": "The app crashes.", "sentiment": "negative",
        "issues": {"main_complaint": "crashes", "positive_aspect": None, "urgency": "high"},
    },
    {"id": "F-2", "text": "Nice.", "summary": "They like it.", "sentiment": "positive",
     "issues": {"main_complaint": None, "positive_aspect": "look", "urgency": "low"}},
    {"id": "F-3", "text": "?", "summary": None, "sentiment": None, "issues": None, "error": {"kind": "empty"}},
]  # fmt: skip


def test_an_output_is_read_with_its_judgements(tmp_path: Path) -> None:
    """Ids, judgements and summaries are taken, failed rows are counted and left out."""
    table = read_data(str(write_rows(tmp_path / "out.jsonl", JUDGED)))
    assert [row.line for row in table.rows] == [
        "[F-1] negative/high | complaint: crashes | The app crashes.",
        "[F-2] positive/low | praise: look | They like it.",
    ]
    assert table.skipped == 1
    assert "negative/high 1, positive/low 1" in table.overview()


def test_a_csv_output_is_read_alike(tmp_path: Path) -> None:
    """CSV has a column for each part of the issues."""
    path = tmp_path / "out.csv"
    path.write_text(
        "id,text,summary,sentiment,main_complaint,positive_aspect,urgency\n7,It fell,It broke.,negative,broke,,high\n"
    )
    assert read_data(str(path)).rows[0].line == "[7] negative/high | complaint: broke | It broke."


def test_corrections_win_in_a_chat(tmp_path: Path) -> None:
    """The rows are those that the report counts."""
    path = write_rows(tmp_path / "out.jsonl", JUDGED)
    said = {"item": "F-2", "text": "Nice.", "field": "sentiment", "model": "positive", "person": "mixed"}
    write_rows(tmp_path / "out.jsonl.corrections.jsonl", [said])
    assert "negative/high 1, mixed/low 1" in read_data(str(path)).overview()


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    """A file without summaries is an error that says what to type."""
    with pytest.raises(InputError, match="not an output of mellea summarise") as caught:
        read_data(str(write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "x"}])))
    assert "mellea summarise" in caught.value.hint


def test_rows_are_rows_and_text_is_text(tmp_path: Path) -> None:
    """A CSV file with a text column is rows, one without is shown as it is, and so is any other text."""
    rows = tmp_path / "a.csv"
    rows.write_text("id,text,stars\n7,broken,2\n")
    table = read_file(str(rows))
    assert isinstance(table, DataTable)
    assert table.rows[0].line == "[7] broken | stars: 2"
    plain = tmp_path / "b.csv"
    plain.write_text("x,y\n1,2\n")
    assert read_file(str(plain)) == Document("b.csv", "x,y\n1,2\n")
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps({"text": "packed"}).encode()))
    assert isinstance(read_file(str(packed)), DataTable)


@pytest.mark.parametrize(("name", "data", "words"), [("x.bin", b"\0\1", "not a text"), ("", b"", "cannot be read")])
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    """A binary file, and a folder, are errors."""
    path = tmp_path / name
    if name:
        path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_file(str(path))


def test_the_system_message_keeps_to_its_budget(tmp_path: Path) -> None:
    """The system prompt is whole; a file that is too long is cut, rows are chosen, and notes say so."""
    meter = TokenEstimator()
    table = DataTable("rows", read_data(str(write_rows(tmp_path / "o.jsonl", JUDGED[:2] * 200))).rows)
    text, notes = system_message(
        "Be brief.", [Document("long.txt", "word " * 5000), table], "crashes?", 1500, meter.tokens
    )
    assert text.startswith("Be brief.")
    assert meter.tokens(text) <= 1700
    assert "long.txt: only its first" in notes[0]
    assert "of 400 rows fit the model's window" in notes[1]
    whole, no_notes = system_message("", [Document("short.txt", "all of it")], "?", None, meter.tokens)
    assert "all of it" in whole
    assert no_notes == []


KINDS = ("negative/high", "neutral/low", "positive/low")


def row(number: int, text: str = "") -> Row:
    kind = KINDS[number % 3]
    complaint = "slow delivery" if kind == "negative/high" else ""
    return Row(f"R-{number}", f"{kind} | {complaint} | {text or f'text number {number} of the file'}", kind, complaint)


TABLE = DataTable("out.jsonl", [row(number, "the zipper broke" if number == 77 else "") for number in range(300)])


def test_everything_is_shown_when_it_fits() -> None:
    """With room for all rows all are shown, in order."""
    rows, _ = TABLE.pick("anything", 100_000, TokenEstimator().tokens)
    assert rows == TABLE.rows


@given(room=st.integers(min_value=0, max_value=6000))
def test_what_is_chosen_fits(room: int) -> None:
    """The chosen rows have no more tokens than there is room for, each comes once, and they keep their order."""
    meter = TokenEstimator()
    rows, _ = TABLE.pick("what is wrong with the zipper?", room, meter.tokens)
    assert sum(meter.tokens(one.line) + 1 for one in rows) <= room
    places = [int(one.id.removeprefix("R-")) for one in rows]
    assert places == sorted(set(places))


def test_rows_that_share_words_with_the_question_come_first() -> None:
    """The one row about zippers is among the few that fit."""
    rows, by_words = TABLE.pick("what is wrong with the zippers?", 600, TokenEstimator().tokens)
    assert "R-77" in {one.id for one in rows}
    assert by_words >= 1


def test_the_rest_is_spread_over_all_kinds() -> None:
    """Each kind has about its share of the rows that do not share words with the question."""
    rows, by_words = TABLE.pick("xylophone?", 2000, TokenEstimator().tokens)
    counts = [sum(one.stratum == kind for one in rows) for kind in KINDS]
    assert by_words == 0
    assert max(counts) - min(counts) <= 2
    assert max(int(one.id.removeprefix("R-")) for one in rows) > 200


def test_the_overview_counts_all_rows() -> None:
    """Judgements and the words that complaints share are counted over every row, with ids."""
    overview = TABLE.overview()
    assert "300 rows in all" in overview
    assert "negative/high 100" in overview
    assert "delivery in 100: [R-0] [R-3]" in overview


def test_idle_words_do_not_count() -> None:
    """Words that say nothing are left out, and plurals are one word with their singular."""
    assert words("What do people complain about? The Zippers!") == {"zipper"}


OWN = [
    {"id": 1, "text": "The pump leaks.", "team": "workshop", "parts": ["pump", "hose"], "stars": 1, "again": False},
    {"id": 2, "text": "It came late.", "team": "delivery", "parts": [], "stars": 2, "again": False},
    {"id": 3, "text": "The pump is great.", "team": "workshop", "parts": ["pump"], "stars": 5, "again": True},
    {"id": 4, "text": "?", "team": None, "parts": None, "stars": None, "again": None, "error": {"kind": "empty"}},
]
COLUMNS = [["team", "category", ""], ["parts", "list", ""], ["stars", "int", ""], ["again", "bool", ""]]


def own_output(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write an output with own fields, and its journal."""
    write_rows(path, rows)
    with closing(Journal.open(resolve_output(str(path)).journal)) as journal:
        journal.note_facts({OWN_FIELDS: json.dumps(COLUMNS)})
    return str(path)


def test_an_output_of_own_fields_alone(tmp_path: Path) -> None:
    """Each row shows its fields, the counts are over all rows with their ids, and kinds are those of the choices."""
    table = read_data(own_output(tmp_path / "out.jsonl", OWN))
    assert [row.line for row in table.rows] == [
        "[1] team: workshop | parts: pump, hose | stars: 1 | again: no | The pump leaks.",
        "[2] team: delivery | stars: 2 | again: no | It came late.",
        "[3] team: workshop | parts: pump | stars: 5 | again: yes | The pump is great.",
    ]
    assert table.skipped == 1
    assert table.overview().splitlines() == [
        "3 rows in all.",
        "Kinds of rows: team workshop 2, team delivery 1",
        "team: workshop in 2: [1] [3]; delivery in 1: [2]",
        "parts: pump in 2: [1] [3]",
        "stars: mean 2.67, from 1 to 5, in 3 rows",
        "again: no in 2: [1] [2]; yes in 1: [3]",
    ]


def test_own_fields_next_to_the_built_in_ones(tmp_path: Path) -> None:
    """The counts say how many of each choice are of which sentiment, also out of a table."""
    path = tmp_path / "out.csv"
    head = "id,text,summary,sentiment,main_complaint,positive_aspect,urgency,team,parts,stars,again,error\n"
    path.write_text(
        head + '7,The pump broke.,It broke.,negative,broke,,high,workshop,"[""pump""]",1,false,\n'
        "8,The pump is fine.,It is fine.,positive,,fine,low,workshop,[],5,true,\n9,z,,,,,,,,,,parse: it is empty\n"
    )
    with closing(Journal.open(resolve_output(str(path)).journal)) as journal:
        journal.note_facts({OWN_FIELDS: json.dumps(COLUMNS)})
    table = read_data(str(path))
    shown = "negative/high | complaint: broke | team: workshop | parts: pump | stars: 1 | again: no | It broke."
    assert table.rows[0].line == f"[7] {shown}"
    assert "Sentiment/urgency: negative/high 1, positive/low 1" in table.overview()
    assert "team: workshop in 2 (1 negative, 1 positive): [7] [8]" in table.overview()


def test_a_question_about_a_choice_gets_its_rows(tmp_path: Path) -> None:
    """When not all rows fit, those with the choice in the question come first."""
    many = [{**OWN[0], "id": number, "team": "shop", "text": f"Row {number}."} for number in range(10, 400)]
    table = read_data(own_output(tmp_path / "out.jsonl", [*many, *OWN[:3]]))
    chosen, by_words = table.pick("What does the team delivery do wrong?", 600, lambda text: len(text) // 4)
    assert len(chosen) < len(table.rows)
    assert by_words
    assert "2" in {row.id for row in chosen}
