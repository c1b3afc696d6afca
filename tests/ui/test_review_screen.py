"""The review's state and what its screen shows, without a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from mellea_cli.io.corrections import Corrections, CorrectionsFile, read_corrections, read_lines
from mellea_cli.report.agreement import ReviewField, ReviewRow
from mellea_cli.report.results import Record
from mellea_cli.ui.console import make_console
from mellea_cli.ui.review_screen import Review, screen_lines
from mellea_cli.ui.theme import Palette, width

FIELDS = (
    ReviewField("sentiment", "label", ("positive", "negative", "mixed")),
    ReviewField("main_complaint", "text"),
    ReviewField("tags", "categories", ("price", "staff", "room")),
    ReviewField("refund", "bool", ("true", "false")),
    ReviewField("stars", "int"),
)
TEXT = "The room was loud.\nBut the staff was kind, and breakfast lasted until noon. " + "It went on and on. " * 30


def _row(number: int) -> ReviewRow:
    own = {"tags": ["room"], "refund": False, "stars": 2}
    record = Record(
        number, f"R{number}", f"{number}: {TEXT}", "answered", "S.", "negative", "low", "loud room", own=own
    )
    return ReviewRow(record, "random" if number < 3 else "doubtful", 7 if number < 3 else None, 0.5)


@pytest.fixture
def review(tmp_path: Path) -> Review:
    """Three rows."""
    rows = [_row(number) for number in (1, 2, 3)]
    return Review(rows, FIELDS, Corrections(), CorrectionsFile(tmp_path / "c.jsonl"), "eva")


def _saved(tmp_path: Path) -> dict[tuple[str, str], object]:
    return {(one.item, one.field): one.person for one in read_corrections(tmp_path / "c.jsonl")}


def test_accepting_saves_every_field(review: Review, tmp_path: Path) -> None:
    """With the model's values, the person, the sample and its seed."""
    review.accept()
    assert (review.at, review.reviewed, review.changed) == (1, 1, 0)
    lines = read_lines(tmp_path / "c.jsonl")
    assert [one.field for one in lines] == [field.name for field in FIELDS]
    assert all(one.person == one.model for one in lines)
    assert {(one.who, one.sample, one.seed, one.item) for one in lines} == {("eva", "random", 7, "R1")}


def test_each_key_is_saved_at_once(review: Review, tmp_path: Path) -> None:
    """A label, a list that is toggled, a yes or no, a number and a text that are typed, and no value."""
    review.label(3)
    assert _saved(tmp_path) == {("R1", "sentiment"): "mixed"}
    review.choose(1)
    review.edit("  thin   walls ")
    review.choose(1)
    review.label(2)
    review.label(3)
    review.choose(1)
    review.label(1)
    review.choose(1)
    review.edit("4")
    saved = {name: value for (_, name), value in _saved(tmp_path).items()}
    assert saved == {
        "sentiment": "mixed",
        "main_complaint": "thin walls",
        "tags": ["staff"],
        "refund": True,
        "stars": 4,
    }
    review.choose(1)
    review.label(0)
    assert _saved(tmp_path)["R1", "sentiment"] is None
    review.label(9)
    assert _saved(tmp_path)["R1", "sentiment"] is None


def test_a_bad_number_is_not_saved(review: Review, tmp_path: Path) -> None:
    """The screen says what to type."""
    review.choose(-1)
    with pytest.raises(ValueError, match="type a number"):
        review.edit("many")
    assert not (tmp_path / "c.jsonl").exists()


def test_undo_goes_back_key_by_key(review: Review, tmp_path: Path) -> None:
    """An accepted row, then a label; what was never said is withdrawn, what was said before is said again."""
    review.label(3)
    review.label(1)
    review.accept()
    review.skip()
    assert review.at == 2
    review.undo()
    review.undo()
    assert (review.at, review.reviewed, review.changed) == (0, 0, 0)
    assert _saved(tmp_path) == {("R1", "sentiment"): "positive"}
    review.undo()
    assert _saved(tmp_path) == {("R1", "sentiment"): "mixed"}
    review.undo()
    assert _saved(tmp_path) == {}
    review.undo()
    assert review.message == "nothing to undo"


def test_skipped_rows_have_no_judgement(review: Review, tmp_path: Path) -> None:
    """Nothing is written, and after the last row there is none."""
    for _ in range(5):
        review.skip()
    assert review.row is None
    review.accept()
    review.label(1)
    assert not (tmp_path / "c.jsonl").exists()


def test_what_was_said_before_is_shown(review: Review, tmp_path: Path) -> None:
    """A row that was left half judged goes on where it was; another person sees the model's values only."""
    review.label(3)
    said = read_corrections(tmp_path / "c.jsonl")
    again = Review(review.rows, FIELDS, said, CorrectionsFile(tmp_path / "c.jsonl"), "eva")
    assert again.value(FIELDS[0]) == "mixed"
    assert again.is_changed(FIELDS[0])
    other = Review(review.rows, FIELDS, Corrections(), CorrectionsFile(tmp_path / "c.jsonl"), "ben")
    assert other.value(FIELDS[0]) == "negative"


def test_a_continued_review_counts_on(review: Review, tmp_path: Path) -> None:
    """The place is that in the whole sample, and earlier changes count; rows carry the size of the sample."""
    rows = [replace(row, size=20) for row in review.rows]
    again = Review(rows, FIELDS, Corrections(), CorrectionsFile(tmp_path / "c.jsonl"), "eva", before=(17, 4))
    assert "18 of 20" in (shown := _screen(again, 80, 24)[0])
    assert shown.rstrip().endswith("4 changed")
    again.label(3)
    again.accept()
    assert (again.reviewed, again.changed, again.total) == (18, 5, 20)
    assert {one.size for one in read_lines(tmp_path / "c.jsonl")} == {20}
    again.undo()
    assert (again.reviewed, again.changed) == (17, 4)


def _screen(review: Review, columns: int, rows: int, scroll: int = 0) -> list[str]:
    palette = Palette(make_console(io.StringIO(), {"TERM": "xterm"}))
    lines = screen_lines(review, (columns, rows), palette, scroll)
    assert all(width(line) <= columns for line in lines)
    assert len(lines) <= rows
    return ["".join(text for _, text in line) for line in lines]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (24, 8)])
def test_the_screen_fits(review: Review, size: tuple[int, int]) -> None:
    """Any size: place, text, the chosen field with its keys."""
    shown = "\n".join(_screen(review, *size))
    assert "1 of 3" in shown
    assert "The room" in shown
    assert "sentiment" in shown
    if size[0] >= 80:
        assert "1 positive  2 negative  3 mixed" in shown
        assert "row R1 · random sample · confidence 0.50" in shown
        assert "Enter accept" in shown


def test_a_long_text_is_scrolled(review: Review) -> None:
    """The screen says how much is below, and never goes beyond the end."""
    first = "\n".join(_screen(review, 60, 20))
    assert "more lines: PageDown" in first
    assert "The room was loud." in first
    last = "\n".join(_screen(review, 60, 20, scroll=500))
    assert "The room was loud." not in last
    assert "more lines" not in last


def test_changes_and_evidence_stand_out(review: Review) -> None:
    """A changed field shows the model's value; words of the complaint have a colour of their own."""
    review.label(3)
    assert any("mixed  (model: negative)" in line for line in _screen(review, 80, 24))
    palette = Palette(make_console(io.StringIO(), {"TERM": "xterm"}))
    marked = [text for line in screen_lines(review, (80, 24), palette) for role, text in line if role == "bad"]
    assert marked[:2] == ["room", "loud"]


def test_many_choices_keep_the_chosen_field_in_view(tmp_path: Path) -> None:
    """More choices than keys, more fields than lines, and text that a terminal would obey."""
    fields = [ReviewField(f"field{n}", "category", tuple(f"choice {m}" for m in range(12))) for n in range(30)]
    record = Record(1, "\x1b[31m1", "Text \x1b[2J here.", "answered", own={"field0": "choice 1"})
    review = Review([ReviewRow(record, "random")], fields, Corrections(), CorrectionsFile(tmp_path / "c.jsonl"), "eva")
    review.choose(-1)
    shown = _screen(review, 80, 24)
    assert any(line.startswith("→  field29") for line in shown)
    assert any("e: 3 more" in line for line in shown)
    assert "\x1b" not in "".join(shown)


def test_the_end_says_so(review: Review) -> None:
    """And how to go back."""
    review.at = 3
    assert "All rows are judged" in _screen(review, 80, 24)[0]
