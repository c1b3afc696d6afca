"""Frames fit their terminal, whatever stands in them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Paused,
    RetryScheduled,
    RunStarted,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage
from mellea_cli.ui.console import make_console
from mellea_cli.ui.live_panels import Painter, plan
from mellea_cli.ui.run_state import RunState
from mellea_cli.ui.theme import Palette

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
SIZES = [(40, 10), (80, 24), (200, 50), (120, 30), (12, 3), (38, 8), (27, 24), (80, 2), (80, 1), (1, 1), (300, 12)]
ANSWER = '{"positive_aspect": "clean dashboard", "main_complaint": "CSV export crashes", "urgency": "high", '
BUSY: tuple[Event, ...] = (
    RunStarted("single", ("analysis",), "qwen2.5-coder-1.5b", "local", 16, 500),
    *(ItemStarted(n, str(n + 1), f"I love item {n}, but it crashes 🎉 每天 all the time") for n in range(16)),
    *(StepStarted(n, "analysis") for n in range(16)),
    *(TokensReceived(n, "analysis", ANSWER[: 8 * n]) for n in range(16)),
)


class Stream(io.StringIO):
    """A terminal's stream with an encoding of its own."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._name = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a StringIO's own says None
        return self._name

    def isatty(self) -> bool:
        return True


def frame(
    events: Iterable[Event], size: tuple[int, int], *, encoding: str = "utf-8", environ: dict[str, str] | None = None
) -> list[str]:
    """The lines of one frame, with colours, after these events."""
    view = RunState(lambda: 50.0)
    for event in events:
        view(event)
        grid = plan(size, view.snapshot().concurrency)
        view.snapshot(grid.places)
    palette = Palette(make_console(Stream(encoding), environ or {"TERM": "xterm-256color"}))
    return Painter(palette).frame(view.snapshot(grid.places), grid, size)


def plain(lines: list[str]) -> list[str]:
    return [_COLOUR.sub("", line) for line in lines]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_frame_fits_its_terminal(size: tuple[int, int]) -> None:
    """No line reaches the last column and the last row stays free, down to a terminal of a single cell."""
    lines = plain(frame(BUSY, size))
    assert len(lines) <= max(0, size[1] - 1)
    assert all(cell_len(line) <= size[0] - 1 for line in lines)


@pytest.mark.parametrize(
    ("size", "places"), [((40, 10), 1), ((80, 24), 4), ((200, 50), 16), ((12, 3), 0), ((80, 7), 0)]
)
def test_a_screen_has_a_fixed_number_of_panels(size: tuple[int, int], places: int) -> None:
    """The number depends on the size alone; what has no panel is counted; too small a screen keeps the line."""
    assert plan(size, 16).places == places
    lines = plain(frame(BUSY, size))
    assert sum(line.count("╭") for line in lines) == places
    assert sum(line.count("╯") for line in lines) == places
    assert "0/500" in lines[0]
    assert any(f"+{16 - places} more in flight" in line for line in lines) == (0 < places < 16)


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 600))
def test_any_plan_fits(columns: int, rows: int, wanted: int) -> None:
    """Panels, gaps and the lines around them never take more than the terminal has."""
    grid = plan((columns, rows), wanted)
    assert grid.places == 0 or grid.places < wanted + grid.columns
    if grid.places:
        assert grid.columns * grid.card[0] + grid.columns - 1 <= columns - 1
        assert grid.rows * grid.card[1] + 3 <= rows
        assert grid.card[0] >= 28
        assert grid.card[1] >= 5


def test_a_panel_shows_fields_and_not_json() -> None:
    """Labels and values fill while the JSON is cut anywhere; the growing end has a cursor."""
    events = (*BUSY[:2], StepStarted(0, "analysis"), TokensReceived(0, "analysis", ANSWER + '"sentiment": "mix'))
    text = "\n".join(plain(frame(events, (80, 24))))
    assert "praise    clean dashboard" in text
    assert "complaint CSV export crashes" in text
    assert "sentiment mix▌" in text
    assert "{" not in text
    assert "positive_aspect" not in text


def test_while_it_is_read_the_text_has_the_room() -> None:
    """Before the first token a panel shows the feedback itself; then the answer takes its place."""
    long = RunStarted("single", ("analysis",), "/models/tiny-q4.gguf", "local", 1, 1), ItemStarted(0, "a", "word " * 60)
    reading = "\n".join(plain(frame((*long, StepStarted(0, "analysis")), (80, 24))))
    assert reading.count("word") > 40
    assert re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] reading", reading)
    assert "tiny-q4 · local" in reading
    assert "/models" not in reading
    begun = "\n".join(plain(frame((*long, TokensReceived(0, "analysis", "{")), (80, 24))))
    assert begun.count("word") < 40
    assert "▌" in begun


def test_text_without_structure_shows_its_tail() -> None:
    """Of a long plain answer the end is what is seen."""
    words = " ".join(f"word{n}" for n in range(400))
    text = "\n".join(plain(frame((*BUSY[:2], TokensReceived(0, "analysis", words)), (80, 24))))
    assert "word399▌" in text
    assert "word10 " not in text


def test_steps_that_wait_are_seen_waiting() -> None:
    """A pipeline of several steps shows each of them."""
    events = (
        RunStarted("steps", ("summary", "issues", "sentiment"), "m", "b", 1, 1),
        ItemStarted(0, "a", "text"),
        StepStarted(0, "summary"),
        TokensReceived(0, "summary", '{"summary": "All is well."}'),
        StepFinished(0, "summary", Usage()),
        StepStarted(0, "issues"),
    )
    text = "\n".join(plain(frame(events, (80, 24))))
    assert re.search(r"summary +All is well\. ", text)
    assert re.search(r"issues +[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", text)
    assert re.search(r"sentiment +·", text)


def test_trouble_is_told_in_its_place() -> None:
    """A retry counts down in its panel with the reason, a failure says its kind, a pause stands below."""
    events = (
        *BUSY[:5],
        AttemptFailed(0, "analysis", "parse", "not the JSON that was asked for"),
        RetryScheduled(0, "analysis", 3.0, 2),
        ItemFinished(1, "2", False, "unavailable", "no answer in 60 s", Usage(), 61.0, False),
        ItemFinished(2, "3", True, "", "", Usage(9, 84), 2.1, False),
    )
    text = "\n".join(plain(frame(events, (80, 24))))
    assert "↻ 2 in 3s" in text
    assert "not the JSON" in text
    assert "✗ unavailable" in text
    assert "✗ 2 unavailable: no answer in 60 s" in text
    assert "2.1s · 84 tokens" in text
    paused = "\n".join(plain(frame((*events, Paused("too many requests", 12)), (80, 24))))
    assert "paused 12s: too many requests" in paused


NASTY = "\x1b[2J\x1b]52;c;AAAA\x07[red]boom[/red] \u202eabc\x9b31m \ud800 {{7*7}}\n\t\x00end"


def test_nothing_from_outside_acts() -> None:
    """Escapes, markup and direction marks in ids, texts, answers, reasons and names stay text or go."""
    events = (
        RunStarted(NASTY, ("analysis",), NASTY, NASTY, 3, 3),
        *(ItemStarted(n, NASTY, NASTY) for n in range(3)),
        TokensReceived(0, "analysis", NASTY),
        TokensReceived(1, "analysis", '{"\\u001b[31mkey": "\\u001b[2J value \\u202e \\u0007"'),
        AttemptFailed(2, "analysis", NASTY, NASTY),
        ItemFinished(0, NASTY, False, NASTY, NASTY, Usage(), 1.0, False),
        Paused(NASTY, 9),
    )
    for size in SIZES:
        lines = frame(events, size)
        text = "\n".join(plain(lines))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
        assert all(cell_len(line) < size[0] for line in plain(lines))
    wide = "\n".join(plain(frame(events, (200, 50))))
    assert "[red]boom[/red] abc" in wide
    assert re.search("key +value", wide)


def test_no_color_keeps_weight_and_drops_colour() -> None:
    """NO_COLOR leaves bold and dim, and not one colour."""
    environ = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    codes = {code for line in frame(BUSY, (80, 24), environ=environ) for code in _COLOUR.findall(line)}
    assert codes <= {"\x1b[0m", "\x1b[1m", "\x1b[2m"}
    coloured = {code for line in frame(BUSY, (80, 24)) for code in _COLOUR.findall(line)}
    assert "\x1b[36m" in coloured


def test_an_ascii_terminal_gets_ascii() -> None:
    """Without UTF-8 the panels are drawn with plus and minus, and foreign letters become question marks."""
    text = "\n".join(plain(frame(BUSY, (80, 24), encoding="ascii")))
    assert text.isascii()
    assert "+- 1 ---" in text
    assert "I love item 0, but it crashes ?" in text


def test_a_panel_that_stands_still_is_not_drawn_again() -> None:
    """Between two frames only what changed is made anew."""
    view = RunState(lambda: 50.0)
    for event in BUSY:
        view(event)
    grid = plan((80, 24), 16)
    painter = Painter(Palette(make_console(Stream(), {"TERM": "xterm"})))
    painter.frame(view.snapshot(4), grid, (80, 24), 0)
    before = {place: drawn[3] for place, drawn in painter._drawn.items()}
    view(TokensReceived(3, "analysis", "x"))
    painter.frame(view.snapshot(4), grid, (80, 24), 0)
    assert [painter._drawn[place][3] is before[place] for place in range(4)] == [True, True, True, False]


_TEXTS = st.text(max_size=60) | st.text(st.sampled_from('{"a": 1, [é中🎉\x1b\u0301 '), max_size=200)


@given(_TEXTS, _TEXTS, _TEXTS, st.booleans(), st.integers(20, 90), st.integers(3, 30))
def test_any_text_fits_any_screen(name: str, text: str, answer: str, over: bool, columns: int, rows: int) -> None:
    """Wide letters, combining marks, long words and cut JSON never make a line too long."""
    events: list[Event] = [RunStarted("single", ("analysis",), "m", "b", 1, 1), ItemStarted(0, name, text)]
    events.append(TokensReceived(0, "analysis", answer))
    if over:
        events.append(ItemFinished(0, name, False, "parse", answer, Usage(1, 1), 1.0, False))
    lines = plain(frame(events, (columns, rows)))
    assert len(lines) < rows
    assert all(cell_len(line) < columns for line in lines)
