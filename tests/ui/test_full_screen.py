"""The pager of rows: what fits a screen, how keys move, and what is typed at the bottom."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from mellea_cli.io.corrections import Corrections, CorrectionsFile, read_lines
from mellea_cli.report.agreement import ReviewField, ReviewRow
from mellea_cli.report.results import Record
from mellea_cli.ui.console import make_console
from mellea_cli.ui.full_screen import Review, RowPager, screen_lines
from mellea_cli.ui.theme import ASCII, Palette, width

LONG = "The hotline used to pick up within a minute; yesterday I was on hold for fifty and was cut off twice. "


def row(number: int) -> dict[str, Any]:
    """One row as a table has it; every third one is urgent, every seventh one is long."""
    return {
        "id": f"R-{number:02}",
        "stars": number % 5,
        "text": LONG * (4 if number % 7 == 0 else 1) + f"Case {number}. 日本語 \x1b[31mred",
        "sentiment": "negative",
        "urgency": "high" if number % 3 == 0 else "low",
        "summary": None if number == 2 else f"Summary {number}",
    }


def pager(rows: int = 40, columns: tuple[str, ...] = ()) -> RowPager:
    return RowPager("out.jsonl", map(row, range(rows)), columns, lambda sample: list(sample[0]) if sample else [])


def screen(shown: RowPager, columns: int = 80, lines: int = 24) -> list[str]:
    drawn = shown.lines(columns, lines)
    assert len(drawn) == lines
    assert all(width(line) <= columns for line in drawn)
    texts = ["".join(text for _, text in line).rstrip() for line in drawn]
    assert not any("\x1b" in text for text in texts)
    return texts


def ids(texts: list[str]) -> list[str]:
    return [text.split()[0] for text in texts[2:-2] if text.lstrip().startswith("R-")]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50), (40, 10), (20, 6), (8, 5)])
def test_a_screen_of_any_size_is_filled(columns: int, lines: int) -> None:
    """No line is wider than the terminal, and the columns have the heads that fit."""
    texts = screen(pager(), columns, lines)
    assert texts[0].startswith("out.jsonl"[:columns])
    assert texts[1].split()[0] == "id"
    assert texts[2].split()[0] == "R-00"


def test_text_is_wrapped_and_cut_after_five_lines() -> None:
    """A long text ends with a mark; a short one is whole."""
    texts = screen(pager(columns=("id", "text")), 60)
    second = next(number for number, text in enumerate(texts) if text.startswith(" R-01"))
    assert second - 2 == 5
    assert texts[second - 1].endswith("…")
    assert "Case 1. 日本語 red" in texts[second + 2]


def test_the_arrow_keys_move_by_rows_and_screens() -> None:
    """The selected row is always on the screen; the ends are said."""
    shown = pager()
    first = ids(screen(shown))
    for _ in range(6):
        shown.press("down")
        assert f"R-{shown.row:02}" in ids(screen(shown))
    shown.press("home")
    assert ids(screen(shown)) == first
    shown.press("up")
    assert screen(shown)[-1] == "this is the first row"
    shown.press("pagedown")
    following = ids(screen(shown))
    assert following[0] == first[-1] or following[0] > first[-1]
    shown.press("pageup")
    assert ids(screen(shown)) == first
    shown.press("G")
    assert ids(screen(shown))[-1] == "R-39"
    shown.press("j")
    assert screen(shown)[-1] == "this is the last row"
    assert "row 40 of 40" in screen(shown)[0]
    shown.press("g")
    for _ in range(60):
        shown.press("pagedown")
        screen(shown)
    assert shown.row == 39


def test_rows_are_read_as_far_as_they_are_seen() -> None:
    """A large file opens at once; its end is known after End."""
    taken = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(5_000):
            taken += 1
            yield row(number)

    shown = RowPager("big.jsonl", rows(), ("id",), lambda _: [])
    assert "row 1 of 200+" in screen(shown)[0]
    assert taken == 200
    shown.press("end")
    assert "row 5,000 of 5,000" in screen(shown)[0]


def test_a_row_is_shown_as_a_whole() -> None:
    """Enter shows every column that has something; the arrows go to the row before and after, or scroll."""
    shown = pager()
    shown.press("enter")
    texts = screen(shown, 60, 12)
    assert texts[1] == "id  R-00"
    assert "stars  0" in texts
    for _ in range(3):
        shown.press("down")
    assert screen(shown, 60, 12)[1] != "id  R-00"
    for _ in range(30):
        shown.press("pagedown")
    assert screen(shown, 60, 12)[-3] == "summary  Summary 0"
    shown.press("right")
    shown.press("right")
    assert screen(shown)[1] == "id  R-02"
    assert not any(text.startswith("summary") for text in screen(shown))
    shown.press("escape")
    assert screen(shown)[1].split()[0] == "id"


def test_a_search_goes_on_and_is_marked() -> None:
    """In any case, in every column; n and N go on; what is not found is said."""
    shown = pager()
    shown.answer("search", "CASE 12.")
    assert shown.row == 12
    marked = [text for line in shown.lines(80, 24) for role, text in line if role == "cursor" and text.strip()]
    assert marked == ["Case 12."]
    shown.press("n")
    assert "no further row has 'CASE 12.'" in screen(shown)[-1]
    shown.answer("search", "high")
    assert shown.row == 12
    shown.press("n")
    assert shown.row == 15
    shown.press("N")
    assert shown.row == 12
    shown.answer("search", "nowhere")
    assert "no row from here on has 'nowhere'" in screen(shown)[-1]
    shown.answer("search", "")
    shown.press("n")
    assert "nothing is searched" in screen(shown)[-1]


def test_rows_are_selected_and_sorted() -> None:
    """Numbers by value, what is empty last, and back to the order of the file."""
    shown = pager(8)
    shown.answer("where", 'urgency == "high" and stars > 0')
    assert ids(screen(shown, lines=40)) == ["R-03", "R-06"]
    assert 'where urgency == "high" and stars > 0' in screen(shown, 120)[0]
    shown.answer("sort by", "-stars")
    assert ids(screen(shown, lines=40)) == ["R-03", "R-06"]
    shown.answer("where", "")
    assert ids(screen(shown, lines=60)) == ["R-04", "R-03", "R-02", "R-07", "R-01", "R-06", "R-00", "R-05"]
    shown.answer("sort by", "summary")
    assert ids(screen(shown, lines=60))[-1] == "R-02"
    shown.answer("sort by", "urgency")
    assert ids(screen(shown, lines=60))[:3] == ["R-00", "R-03", "R-06"]
    shown.answer("sort by", "")
    assert ids(screen(shown, lines=60))[:3] == ["R-00", "R-01", "R-02"]
    shown.answer("where", "stars > 9")
    assert "no rows" in screen(shown)[0]
    shown.press("enter")
    shown.press("G")
    assert "no rows" in screen(shown)[0]


@pytest.mark.parametrize(
    ("question", "text", "said"),
    [
        ("where", "urgncy == 1", "no column 'urgncy': did you mean urgency?"),
        ("where", "urgency == high", "no column 'high': write text in quotes: \"high\"; a column with blanks: `high`"),
        ("where", "stars ==", "--where: stars ==: something is missing at the end"),
        ("sort by", "-strs", "no column 'strs': did you mean stars?"),
        ("columns", "id, txt", "no column 'txt': did you mean text?"),
    ],
)
def test_a_wrong_answer_changes_nothing(question: str, text: str, said: str) -> None:
    """The line at the bottom says what is wrong."""
    shown = pager()
    before = screen(shown)
    assert not shown.answer(question, text)
    after = screen(shown, 120)
    assert after[-1].startswith(said)
    assert screen(shown)[:-1] == before[:-1]
    shown.press("down")
    assert screen(shown)[-1].startswith("q quit")


def test_columns_are_chosen_and_scrolled() -> None:
    """In the order in which they are named; those that do not fit come with the right arrow."""
    shown = pager()
    shown.answer("columns", "urgency, `id`")
    assert screen(shown)[1].split() == ["urgency", "id"]
    assert shown.initial("columns") == "urgency, id"
    shown.answer("columns", "id, text, summary, sentiment, urgency")
    assert screen(shown, 40)[1].split() == ["id", "text"]
    shown.press("right")
    assert screen(shown, 40)[1].split()[0] == "text"
    shown.press("left")
    shown.press("left")
    assert screen(shown, 40)[1].split()[0] == "id"


def test_the_keys_are_listed() -> None:
    """? shows them, and hides them again."""
    shown = pager()
    shown.press("?")
    assert any("search in every column" in text for text in screen(shown))
    shown.press("?")
    assert screen(shown)[1].split()[0] == "id"


async def test_keys_reach_the_pager() -> None:
    """A whole session of typed keys: movement, a search, a condition, an answer that is given up, the end."""
    shown = pager()
    with create_pipe_input() as typed:
        application = shown._application({}, typed, DummyOutput())
        typed.send_text("jj/case 12.\rw" + 'urgency == "high"\r' + "j?hs\x1b")
        drawn = asyncio.Event()
        application.after_render += lambda _: drawn.set()
        ended = asyncio.create_task(application.run_async())
        while shown.where is None or shown.row != 1 or shown.question or shown.mode != "table":
            drawn.clear()
            await drawn.wait()
        typed.send_text("\r")
        while shown.mode != "row":
            drawn.clear()
            await drawn.wait()
        typed.send_text("qq")
        await ended
    assert shown.mode == "table"
    assert shown.search == "case 12."
    assert shown.row == 1


async def test_a_mistake_at_the_bottom_is_corrected_there() -> None:
    """The line stays open with its text and with what is wrong, so further keys are no commands."""
    shown = pager()
    with create_pipe_input() as typed:
        application = shown._application({}, typed, DummyOutput())
        drawn = asyncio.Event()
        application.after_render += lambda _: drawn.set()
        ended = asyncio.create_task(application.run_async())
        typed.send_text("wurgency == high\r")
        while not shown.note:
            drawn.clear()
            await drawn.wait()
        assert shown.question == "where"
        assert screen(shown)[-1].startswith("no column 'high': write text in quotes")
        assert application.current_buffer.text == "urgency == high"
        typed.send_text("\x7f" * 4 + '"high"\r')
        while shown.where is None:
            drawn.clear()
            await drawn.wait()
        typed.send_text("q")
        await ended
    assert shown.where.expression == 'urgency == "high"'
    assert (shown.question, shown.note) == ("", "")


def test_the_bottom_line_says_what_q_does() -> None:
    """It quits from the table, and goes back from a row and from the keys."""
    shown = pager()
    assert screen(shown)[-1].startswith("q quit")
    for key in ("enter", "?"):
        shown.press(key)
        assert screen(shown)[-1].startswith("q back")
        shown.press("escape")
        assert screen(shown)[-1].startswith("q quit")


def test_a_terminal_of_few_characters_gets_these() -> None:
    """Lines and marks are drawn with what its encoding has."""
    shown = pager()
    shown.glyphs = ASCII
    shown.answer("sort by", "id")
    assert "".join(screen(shown, 40, 12)).isascii()


@pytest.mark.parametrize("columns", [80, 60])
def test_the_keys_are_explained_in_full(columns: int) -> None:
    """A line that does not fit is wrapped below its beginning, not cut."""
    shown = pager()
    shown.press("?")
    texts = screen(shown, columns, 24)
    said = " ".join(" ".join(texts).split())
    assert "Left Right columns that do not fit; in a row: the row before and after Enter" in said
    assert "nothing restores the file's order w " in said
    assert "\u2026" not in said


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
    return {(one.item, one.field): one.person for one in Corrections(read_lines(tmp_path / "c.jsonl"))}


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
    review.label(0)
    review.label(9)
    assert _saved(tmp_path)["R1", "stars"] == 4
    review.choose(3)
    review.label(0)
    assert _saved(tmp_path)["R1", "tags"] == []


def test_a_sentiment_is_never_nothing(review: Review, tmp_path: Path) -> None:
    """The screen says which values there are, for the key and for an empty line."""
    review.label(0)
    assert review.message == "sentiment is one of positive, negative, mixed"
    with pytest.raises(ValueError, match="type one of positive, negative, mixed"):
        review.edit(" ")
    assert not (tmp_path / "c.jsonl").exists()


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
    said = Corrections(read_lines(tmp_path / "c.jsonl"))
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


def test_a_long_answer_is_whole_or_ends_with_a_sign(tmp_path: Path) -> None:
    """It is wrapped while there are empty lines; on a small screen it ends with an ellipsis."""
    own = {"reason": "word " * 20 + "end", "stars": 2}
    fields = (ReviewField("stars", "int"), ReviewField("reason", "text"))
    rows = [ReviewRow(Record(1, "R1", "A text. " * 30, "answered", own=own), "random")]
    review = Review(rows, fields, Corrections(), CorrectionsFile(tmp_path / "c.jsonl"), "eva")
    assert any(line.rstrip().endswith(" end") for line in _screen(review, 60, 30))
    small = [line for line in _screen(review, 60, 10) if "reason" in line]
    assert len(small) == 1
    assert small[0].endswith("…")


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
