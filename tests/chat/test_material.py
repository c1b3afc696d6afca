"""Files for a chat: text, rows, outputs of a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mellea_cli.chat.attachments import Document, Table, read_data, read_file
from mellea_cli.chat.system_prompt import preamble
from mellea_cli.chat.turns import Meter
from mellea_cli.errors import InputError
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
        "id,text,summary,sentiment,main_complaint,positive_aspect,urgency\n7,x,It broke.,negative,broke,,high\n"
    )
    assert read_data(str(path)).rows[0].line == "[7] negative/high | complaint: broke | It broke."


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
    assert isinstance(table, Table)
    assert table.rows[0].line == "[7] broken | stars: 2"
    plain = tmp_path / "b.csv"
    plain.write_text("x,y\n1,2\n")
    assert read_file(str(plain)) == Document("b.csv", "x,y\n1,2\n")
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps({"text": "packed"}).encode()))
    assert isinstance(read_file(str(packed)), Table)


@pytest.mark.parametrize(("name", "data", "words"), [("x.bin", b"\0\1", "not a text"), ("", b"", "cannot be read")])
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    """A binary file, and a folder, are errors."""
    path = tmp_path / name
    if name:
        path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_file(str(path))


def test_the_preamble_keeps_to_its_budget_and_says_what_is_left_out(tmp_path: Path) -> None:
    """The system prompt is whole; a file that is too long is cut, rows are chosen, and both are told."""
    meter = Meter()
    table = Table("rows", read_data(str(write_rows(tmp_path / "o.jsonl", JUDGED[:2] * 200))).rows)
    made = preamble("Be brief.", [Document("long.txt", "word " * 5000), table], "crashes?", 1500, meter.tokens)
    assert made.text.startswith("Be brief.")
    assert meter.tokens(made.text) <= 1700
    assert "long.txt: only its first" in made.notes[0]
    assert "of 400 rows fit the model's window" in made.notes[1]
    whole = preamble("", [Document("short.txt", "all of it")], "?", None, meter.tokens)
    assert "all of it" in whole.text
    assert whole.notes == ()
