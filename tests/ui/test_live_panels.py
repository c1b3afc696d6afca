"""Live panels: frames fit their terminal, and the thread that draws them on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mellea_cli.events import (
    AttemptFailed,
    Counted,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunPaused,
    RunResumed,
    RunStarted,
    RunTuned,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage
from mellea_cli.ui.console import make_console
from mellea_cli.ui.live_panels import FrameRenderer, LiveDisplay, plan_grid, progress_line
from mellea_cli.ui.run_state import Progress, RunState
from mellea_cli.ui.terminal import OutsideProgress
from mellea_cli.ui.theme import Palette, width
from memorystreams import TerminalStream

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
SIZES = [(40, 10), (80, 24), (200, 50), (120, 30), (12, 3), (38, 8), (27, 24), (80, 2), (80, 1), (1, 1), (300, 12)]
ANSWER = '{"positive_aspect": "clean dashboard", "main_complaint": "CSV export crashes", "urgency": "high", '
BUSY: tuple[Event, ...] = (
    RunStarted("single", ("analysis",), "qwen2.5-coder-1.5b", "local", 16, 500),
    *(ItemStarted(n, str(n + 1), f"I love item {n}, but it crashes 🎉 每天 all the time") for n in range(16)),
    *(StepStarted(n, "analysis") for n in range(16)),
    *(TokensReceived(n, "analysis", ANSWER[: 8 * n]) for n in range(16)),
)


def frame(
    events: Iterable[Event], size: tuple[int, int], *, encoding: str = "utf-8", environ: dict[str, str] | None = None
) -> list[str]:
    """The lines of one frame, with colours, after these events."""
    run = RunState(lambda: 50.0)
    for event in events:
        run(event)
        grid = plan_grid(size, run.snapshot().concurrency)
        run.snapshot(grid.panels)
    palette = Palette(make_console(TerminalStream(encoding), environ or {"TERM": "xterm-256color"}))
    return FrameRenderer(palette).frame(run.snapshot(grid.panels), grid, size)


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
    assert plan_grid(size, 16).panels == places
    lines = plain(frame(BUSY, size))
    assert sum(line.count("╭") for line in lines) == places
    assert sum(line.count("╯") for line in lines) == places
    assert "0/500" in lines[0]
    assert any(f"+{16 - places} more in flight" in line for line in lines) == (0 < places < 16)


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 600))
def test_any_plan_fits(columns: int, rows: int, wanted: int) -> None:
    """Panels, gaps and the lines around them never take more than the terminal has."""
    grid = plan_grid((columns, rows), wanted)
    assert grid.panels == 0 or grid.panels < wanted + grid.columns
    if grid.panels:
        assert grid.columns * grid.panel[0] + grid.columns - 1 <= columns - 1
        assert grid.rows * grid.panel[1] + 3 <= rows
        assert grid.panel[0] >= 28
        assert grid.panel[1] >= 5


@pytest.mark.parametrize(("wanted", "columns", "panels"), [(1, 1, 1), (2, 2, 2), (4, 2, 4), (6, 2, 6), (16, 4, 16)])
def test_a_large_screen_is_used(wanted: int, columns: int, panels: int) -> None:
    """At 200 by 50 few panels get wider and taller, and the lines that are left are for the latest answers."""
    grid = plan_grid((200, 50), wanted, figures=3)
    assert (grid.columns, grid.panels, grid.figures) == (columns, panels, 3)
    assert grid.rows * grid.panel[1] + grid.figures + grid.latest == 47


def test_figures_take_only_what_panels_leave() -> None:
    """On a usual screen panels keep a good size; a small one has no line to spare."""
    assert plan_grid((80, 24), 4, figures=4).figures == 4
    assert plan_grid((80, 24), 4, figures=9).panel[1] == 8
    assert plan_grid((80, 19), 4, figures=4).figures == 0


def answered(position: int, sentiment: str, summary: str) -> tuple[Event, ...]:
    values = {"summary": summary, "sentiment": sentiment, "issues": {"main_complaint": "late", "urgency": "high"}}
    return (
        ItemStarted(position, f"row-{position}", "text"),
        ItemFinished(position, f"row-{position}", True, "", "", Usage(9, 9), 1.0, False, values),
    )


def test_counts_the_urgent_row_and_the_latest_answers() -> None:
    """What was counted stands below the panels, the answers that are kept below that, the latest first."""
    counts = {"sentiment": {"negative": 30, "positive": 10}, "urgency": {"high": 4, "low": 36}}
    events = (
        *BUSY,
        Counted(counts, Usage(), "row-3", "Lost all\nmy \x1b[2Jdata"),
        *answered(100, "negative", "The parcel came late and nobody answered."),
        *answered(101, "positive", "All is well."),
    )
    run = RunState(lambda: 50.0)
    for event in events:
        run(event)
    grid = plan_grid((200, 50), 4, figures=3)
    palette = Palette(make_console(TerminalStream("utf-8"), {"TERM": "xterm-256color"}))
    lines = plain(FrameRenderer(palette).frame(run.snapshot(grid.panels, latest=True), grid, (200, 50)))
    text = "\n".join(lines)
    assert re.search(r"^sentiment +█+ +positive 10 25%  negative 30 75%", text, re.MULTILINE)
    assert re.search(r"^urgency +█+ +high 4 10%  low 36 90%", text, re.MULTILINE)
    assert re.search(r"^urgent +row-3  Lost all my data", text, re.MULTILINE)
    latest = [line for line in lines if line.startswith("row-10")]
    assert [line.split()[:3] for line in latest] == [["row-101", "positive", "high"], ["row-100", "negative", "high"]]
    assert "nobody answered" in latest[1]
    assert all(cell_len(line) <= 199 for line in lines)


def test_a_paused_run_says_so_in_its_panels() -> None:
    """With the reason, and not as an outage; what streams goes on."""
    paused = "\n".join(plain(frame((*BUSY[:18], *BUSY[18:21], RunPaused("a meeting")), (200, 50))))
    assert "paused by you: a meeting; mellea resume continues" in paused
    assert "│ paused: a meeting" in paused
    assert "reading" not in paused
    assert re.search(r"items/s +0.0 tok/s +paused", paused)
    resumed = "\n".join(plain(frame((*BUSY[:21], RunPaused("a meeting"), RunResumed()), (200, 50))))
    assert "paused" not in resumed
    assert "reading" in resumed
    outage = "\n".join(plain(frame((*BUSY[:21], Paused("connection refused", 9.0)), (200, 50))))
    assert "waits: connection refused" in outage
    assert "by you" not in outage


def test_a_tuned_run_has_more_panels() -> None:
    """The number of requests in flight is the run's new one."""
    run = RunState()
    run(RunStarted("single", ("analysis",), "m", "b", 2, 500))
    run(RunTuned("tuned: at most 6 in flight", 6))
    assert run.snapshot().concurrency == 6
    assert run.take_notes() == ["tuned: at most 6 in flight"]


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
    """A retry counts down in its panel with the reason, a failure says its kind, a pause is shown below."""
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
    """Without UTF-8 the panels are drawn with plus and minus, and other characters become question marks."""
    text = "\n".join(plain(frame(BUSY, (80, 24), encoding="ascii")))
    assert text.isascii()
    assert "+- 1 ---" in text
    assert "I love item 0, but it crashes ?" in text


def test_a_panel_that_stands_still_is_not_drawn_again() -> None:
    """Between two frames only what changed is rendered again."""
    run = RunState(lambda: 50.0)
    for event in BUSY:
        run(event)
    grid = plan_grid((80, 24), 16)
    renderer = FrameRenderer(Palette(make_console(TerminalStream(), {"TERM": "xterm"})))
    renderer.frame(run.snapshot(4), grid, (80, 24), 0)
    before = {place: drawn[3] for place, drawn in renderer._cache.items()}
    run(TokensReceived(3, "analysis", "x"))
    renderer.frame(run.snapshot(4), grid, (80, 24), 0)
    assert [renderer._cache[place][3] is before[place] for place in range(4)] == [True, True, True, False]


_TEXTS = st.text(max_size=60) | st.text(st.sampled_from('{"a": 1, [é中🎉\x1b\u0301 '), max_size=200)


@given(_TEXTS, _TEXTS, _TEXTS, st.booleans(), st.integers(20, 90), st.integers(3, 30))
def test_any_text_fits_any_screen(name: str, text: str, answer: str, over: bool, columns: int, rows: int) -> None:
    """Wide characters, combining marks, long words and cut JSON never make a line too long."""
    events: list[Event] = [RunStarted("single", ("analysis",), "m", "b", 1, 1), ItemStarted(0, name, text)]
    events.append(TokensReceived(0, "analysis", answer))
    if over:
        events.append(ItemFinished(0, name, False, "parse", answer, Usage(1, 1), 1.0, False))
    lines = plain(frame(events, (columns, rows)))
    assert len(lines) < rows
    assert all(cell_len(line) < columns for line in lines)


TIMEOUT_S = 30.0


class Terminal:
    """A pseudo-terminal whose other side is an emulated screen."""

    def __init__(self) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stderr: IO[str] = os.fdopen(side, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(os.dup(side), "w", encoding="utf-8")
        self.screen = pyte.Screen(80, 24)
        self._emulator = pyte.ByteStream(self.screen)

    def wait(self, state: Callable[[str], bool]) -> str:
        """Read until the screen is in this state; returns what it shows."""
        while not state(self.text):
            ready, _, _ = select.select([self._main], [], [], TIMEOUT_S)
            assert ready, f"it never came to that:\n{self.text}"
            self._emulator.feed(os.read(self._main, 65_536))
        return self.text

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.screen.display).rstrip()

    def close(self) -> None:
        for stream in (self.stderr, self.stdout):
            stream.close()
        os.close(self._main)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def run() -> RunState:
    run = RunState()
    run(RunStarted("single", ("analysis",), "granite", "ollama", 2, 9))
    run(ItemStarted(0, "first", "some feedback"))
    return run


def live(run: RunState, terminal: Terminal) -> LiveDisplay:
    return LiveDisplay(run, make_console(terminal.stderr, {"TERM": "xterm-256color"}))


def test_tokens_appear_by_themselves(terminal: Terminal, run: RunState) -> None:
    """The thread draws what has come in since."""
    with live(run, terminal) as display:
        terminal.wait(lambda text: "╭─ first " in text and "0/9" in text)
        run(TokensReceived(0, "analysis", '{"sentiment": "positive"'))
        terminal.wait(lambda text: "sentiment positive▌" in text)
    assert terminal.wait(lambda text: "╭" not in text) == ""
    assert not terminal.screen.cursor.hidden
    assert display.fault is None


def test_rows_and_lines_stand_above_the_panels(terminal: Terminal, run: RunState) -> None:
    """Data rows to the same terminal, notes and lines scroll above; afterwards they are what is left, in order."""
    with live(run, terminal) as display:
        rows = display.rows(terminal.stdout)
        terminal.wait(lambda text: "0/9" in text)
        rows.write('{"id": 1}\n{"id"')
        rows.flush()
        rows.write(": 2}\n")
        terminal.wait(lambda text: '{"id": 2}' in text)
        display.line("a line \x1b[2J[red]from[/red] outside")
        run(Note("a note"))
        text = terminal.wait(lambda text: "a note" in text and "0/9" in text)
        assert text.index('{"id": 2}') < text.index("a line") < text.index("a note") < text.index("0/9")
        rows.write('{"id": 3}\n')
    left = '{"id": 1}\n{"id": 2}\na line [red]from[/red] outside\na note\n{"id": 3}'
    assert terminal.wait(lambda text: text == left)
    rows.write('{"id": 4}\n')
    display.line("late")
    assert terminal.wait(lambda text: text == left + '\n{"id": 4}\nlate')


def test_rows_to_a_file_take_no_detour(terminal: Terminal, run: RunState, tmp_path: Path) -> None:
    """Only the terminal that shows the panels needs care."""
    display = live(run, terminal)
    with (tmp_path / "rows").open("w", encoding="utf-8") as file:
        assert display.rows(file) is file
    memory = io.StringIO()
    assert display.rows(memory) is memory
    other = Terminal()
    try:
        assert display.rows(other.stdout) is other.stdout
    finally:
        other.close()
    display.close()


def test_nothing_is_drawn_before_the_run_begins(terminal: Terminal) -> None:
    """While the model loads only lines appear, and the cursor stays."""
    with live(RunState(), terminal) as display:
        display.line("loading granite")
        terminal.wait(lambda text: text == "loading granite")
        display.refresh()
        assert not terminal.screen.cursor.hidden
    assert terminal.text == "loading granite"


def test_it_is_closed_once_and_for_all(terminal: Terminal, run: RunState) -> None:
    """Closing twice, or drawing after the end, changes nothing; the thread is gone."""
    before = threading.active_count()
    display = live(run, terminal)
    with display:
        terminal.wait(lambda text: "0/9" in text)
        display.close()
        display.close()
        display.refresh()
    assert threading.active_count() == before
    assert terminal.wait(lambda text: "0/9" not in text) == ""


def test_a_bug_in_drawing_does_not_reach_the_run(terminal: Terminal, run: RunState) -> None:
    """When a frame cannot be drawn the panels go, the reason is kept, and lines are still printed."""

    class Poisoned(str):
        __slots__ = ()

        def isascii(self) -> bool:
            raise RuntimeError("a bug")

    with live(run, terminal) as display:
        terminal.wait(lambda text: "╭─ first " in text)
        run(ItemStarted(1, Poisoned("bad"), "text"))
        terminal.wait(lambda text: "╭" not in text)
        display.line("one more line")
        terminal.wait(lambda text: "a bug" in text and text.endswith("one more line"))
    assert isinstance(display.fault, RuntimeError)
    assert not terminal.screen.cursor.hidden


def test_many_rows_wait_for_the_terminal(terminal: Terminal, run: RunState) -> None:
    """Twenty thousand rows at once are all printed, and not hoarded."""
    seen: list[int] = []
    with live(run, terminal) as display:
        rows = display.rows(terminal.stdout)

        def write() -> None:
            for number in range(20_000):
                rows.write(f"row {number}\n")
                if number % 1000 == 0:
                    seen.append(len(display._above))

        writer = threading.Thread(target=write)
        writer.start()
        terminal.wait(lambda text: "row 19999" in text)
        writer.join()
    assert max(seen) <= 5_000


GHOSTTY = {"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}


def test_the_title_and_the_taskbar_show_the_progress() -> None:
    """Once for each percent; a pause has its own state; both are restored at the end."""
    outside = OutsideProgress(GHOSTTY, "out.jsonl")
    assert outside.reset() == ""
    first = outside.update((4, "running"))
    assert first == "\x1b[22;0t\x1b]0;4% out.jsonl - mellea\x07\x1b]9;4;1;4\x07"
    assert outside.update((4, "running")) == ""
    assert outside.update((4, "paused")) == "\x1b]0;paused 4% out.jsonl - mellea\x07\x1b]9;4;4;4\x07"
    assert outside.update((None, "running")).endswith("\x1b]9;4;3;0\x07")
    assert outside.reset() == "\x1b]0;\x07\x1b[23;0t\x1b]9;4;0;0\x07"
    assert outside.reset() == ""


@pytest.mark.parametrize(
    ("environ", "titled", "taskbar"),
    [
        ({"TERM": "xterm-256color"}, True, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True, False),
        ({"TERM": "linux"}, False, False),
        ({}, False, False),
        ({"WT_SESSION": "1"}, True, True),
        ({"TERM": "xterm", "ConEmuANSI": "ON"}, True, True),
    ],
)
def test_only_terminals_that_know_a_sequence_get_it(environ: dict[str, str], titled: bool, taskbar: bool) -> None:
    """To others the taskbar's would be a notification, or text."""
    text = OutsideProgress(environ, "x").update((1, "running"))
    assert ("]0;" in text, "]9;4" in text) == (titled, taskbar)


def test_the_title_is_restored_when_the_panels_end(terminal: Terminal, run: RunState) -> None:
    """The emulated terminal has the run's title while it goes on, and none of it afterwards."""
    outside = OutsideProgress(GHOSTTY, "out.jsonl")
    with LiveDisplay(run, make_console(terminal.stderr, {"TERM": "xterm-256color"}), outside):
        terminal.wait(lambda text: "0/9" in text)
        terminal.wait(lambda _: terminal.screen.title == "0% out.jsonl - mellea")
    terminal.wait(lambda _: terminal.screen.title == "")
    assert terminal.wait(lambda text: "╭" not in text) == ""


PALETTE = Palette(make_console(io.StringIO(), {"TERM": "xterm"}))
HALF = Progress(total=500, done=247, failed=3, retries=12, items_per_s=2.4, tokens_per_s=310, left_s=158, elapsed_s=100)


def text(progress: Progress, columns: int, paused_s: int = 0) -> str:
    return "".join(part for _, part in progress_line(progress, columns, PALETTE, paused_s=paused_s))


def test_all_of_it_at_80_columns() -> None:
    """Bar, counts, both rates, time left, failures and retries."""
    line = text(HALF, 79)
    assert line.startswith("━")
    assert line.endswith("250/500  2.4 items/s  310 tok/s  2m 38s left  3 failed  12 retries")


@pytest.mark.parametrize(
    ("columns", "end"),
    [
        (70, "250/500  2.4 items/s  310 tok/s  2m 38s left  3 failed"),
        (50, "250/500  2m 38s left  3 failed"),
        (39, "250/500  2m 38s left  3 failed"),
        (22, "250/500  2m 38s left"),
        (12, "250/500"),
        (5, "250/5"),
    ],
)
def test_what_matters_least_goes_first(columns: int, end: str) -> None:
    """A narrow terminal keeps the counts, the time left and failures."""
    line = text(HALF, columns)
    assert line.endswith(end)
    assert len(line) <= columns


def test_the_bar_is_as_long_as_the_work() -> None:
    """The filled part grows with what is settled, failures included, and is full only at the end."""
    bars = [text(Progress(total=40, done=done), 79).split("  ")[0] for done in range(41)]
    assert len(set(map(len, bars))) == 1
    filled = [
        sum(len(part) for role, part in progress_line(Progress(total=40, done=done), 79, PALETTE) if role == "done")
        for done in range(41)
    ]
    assert filled == sorted(filled)
    assert filled[0] == 0
    assert filled[39] <= filled[40] == len(bars[40])


def test_an_unknown_total_has_no_bar_and_no_time_left() -> None:
    """From a pipe it is said what is done, and for how long it has been going on."""
    line = text(Progress(done=1234, items_per_s=0.5, elapsed_s=65.4), 79)
    assert line.startswith("1,234 done")
    assert "1m 05s so far" in line


def test_a_pause_takes_the_place_of_the_time_left() -> None:
    """While nothing is sent, the countdown is what counts."""
    assert "paused 12s" in text(HALF, 79, paused_s=12)


@given(
    st.builds(
        Progress,
        total=st.none() | st.integers(0, 10**9),
        done=st.integers(0, 10**9),
        failed=st.integers(0, 10**6),
        retries=st.integers(0, 10**6),
        items_per_s=st.floats(0, 10**7),
        tokens_per_s=st.floats(0, 10**9),
        left_s=st.none() | st.floats(0.001, 10**9),
        elapsed_s=st.floats(0, 10**8),
    ),
    st.integers(1, 220),
    st.integers(0, 1000),
)
def test_it_never_wraps(progress: Progress, columns: int, paused_s: int) -> None:
    """Whatever the numbers and the width: one line that fits."""
    assert width(progress_line(progress, columns, PALETTE, paused_s=paused_s)) <= columns
