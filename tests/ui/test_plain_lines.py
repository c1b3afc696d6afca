"""Progress in one line, in words and drawn, and the event log."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.errors import ExitCode, OutputError
from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage
from mellea_cli.ui.console import make_console
from mellea_cli.ui.plain_lines import EventLog, PlainDisplay, TroubleLines, plain_line, progress_line
from mellea_cli.ui.run_state import Progress, RunState
from mellea_cli.ui.theme import Palette, width


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


NOON = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> RunState:
    state = RunState(clock, wall=lambda: NOON)
    state(RunStarted("single", ("analysis",), "m", "b", 2, 500))
    return state


def finish(state: RunState, clock: Clock, position: int, *, ok: bool = True) -> None:
    state(ItemStarted(position, str(position), "text"))
    state(TokensReceived(position, "analysis", "word"))
    clock.now += 0.5
    state(ItemFinished(position, str(position), ok, "" if ok else "parse", "", Usage(9, 31), 1.0, False))


def test_a_line_says_it_in_words(state: RunState, clock: Clock) -> None:
    """Counts, failures, both rates and the time left."""
    for position in range(120):
        finish(state, clock, position, ok=position not in {3, 30, 60})
        snapshot = state.snapshot()
    assert plain_line(snapshot) == "120/500 done, 3 failed, 2.0 items/s, 62 tok/s, 3m 10s left until 12:03"
    state(RetryScheduled(0, "analysis", 1.0, 2))
    state(ItemFinished(200, "x", True, "", "", Usage(), 0.0, True))
    state(Paused("too\nmany \x1b[31mrequests", 7.0))
    assert plain_line(state.snapshot()).startswith("121/500 done, 3 failed, 1 reused, 1 retry, ")
    assert plain_line(state.snapshot()).endswith("paused 7s: too many requests")


def test_nothing_new_is_not_said_again(state: RunState, clock: Clock) -> None:
    """The same numbers are printed once, and again only as a sign of life now and then."""
    stream = io.StringIO()
    display = PlainDisplay(state, stream)
    for _ in range(12):
        clock.now += 5
        display.refresh()
    assert stream.getvalue().count("\n") == 1
    display.refresh()
    assert stream.getvalue().count("\n") == 2
    finish(state, clock, 0)
    display.refresh()
    assert stream.getvalue().splitlines()[-1].startswith("mellea: 1/500 done")


def test_notes_and_lines_are_lines(state: RunState) -> None:
    """Each is printed once, harmless, and without escapes."""
    stream = io.StringIO()
    state(Note("column \x1b]0;x\x07renamed"))
    display = PlainDisplay(state, stream)
    display.refresh()
    display.line("two\nlines")
    display.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "mellea: column renamed"
    assert lines[1].startswith("mellea: 0/500 done")
    assert lines[2] == "mellea: two lines"
    assert "\x1b" not in stream.getvalue()


def test_nothing_is_said_before_the_run_begins() -> None:
    """While the model loads there is no progress to tell."""
    stream = io.StringIO()
    PlainDisplay(RunState(), stream).refresh()
    assert not stream.getvalue()


def test_the_thread_ends_at_once(state: RunState) -> None:
    """Leaving does not wait for the next line, not even for one that is an hour away, and prints what is left."""
    stream = io.StringIO()
    with PlainDisplay(state, stream, interval_s=3600) as display:
        assert display._thread.is_alive()
        state(Note("last words"))
    assert not display._thread.is_alive()
    assert stream.getvalue().endswith("mellea: last words\n")


def test_it_prints_by_itself(state: RunState) -> None:
    """A timer prints."""

    class Awaited(io.StringIO):
        def write(self, text: str) -> int:
            size = super().write(text)
            if "\n" in text:
                printed.set()
            return size

    from threading import Event

    printed = Event()
    with PlainDisplay(state, Awaited(), interval_s=0.01):
        assert printed.wait(30)


def test_a_reader_that_went_away_does_not_stop_the_run(state: RunState) -> None:
    """When stderr is closed, nothing more is said and nothing is raised."""
    stream = io.StringIO()
    stream.close()
    display = PlainDisplay(state, stream)
    display.line("anybody there?")
    display.close()


def test_a_foreign_encoding_is_survived(state: RunState) -> None:
    """What a stream cannot encode becomes a question mark instead of an error."""
    raw = io.BytesIO()
    PlainDisplay(state, io.TextIOWrapper(raw, encoding="ascii", write_through=True)).line("grün 🎉")
    assert raw.getvalue() == b"mellea: gr?n ?\n"


def test_rows_go_straight_to_their_stream(state: RunState) -> None:
    """Lines do not disturb each other, so data needs no detour."""
    stream = io.StringIO()
    assert PlainDisplay(state, io.StringIO()).rows(stream) is stream


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


TROUBLE: tuple[Event, ...] = (
    ItemStarted(0, "a-17", "a complaint"),
    AttemptFailed(0, "analysis", "parse", "not JSON"),
    RetryScheduled(0, "analysis", 0.0, 2, reprompt=True),
    StepFinished(0, "analysis", Usage(3, 2)),
    ItemFinished(0, "a-17", True, "", "", Usage(3, 2), 1.0, False),
    Paused("too many requests", 4.0),
    RetryScheduled(1, "analysis", 2.5, 3),
    ItemFinished(1, "b", False, "unavailable", "no answer", Usage(), 9.0, False),
)


def test_trouble_is_a_line_each() -> None:
    """Each failed attempt, retry, re-prompt, pause and failed item is one line, with the item's id."""
    said: list[str] = []
    observer = TroubleLines(said.append)
    for event in TROUBLE:
        observer(event)
    assert said == [
        "a-17 analysis: parse: not JSON",
        "a-17 analysis: re-prompt at once, attempt 2",
        "paused for 4.0s: too many requests",
        "#2 analysis: retry in 2.5s, attempt 3",
        "b failed: unavailable: no answer",
    ]
    assert not observer._ids


STORY: tuple[Event, ...] = (
    RunStarted("single", ("analysis",), "m", "b", 2, 2),
    ItemStarted(0, "a-17", "a secret complaint"),
    StepStarted(0, "analysis"),
    TokensReceived(0, "analysis", "hush"),
    AttemptFailed(0, "analysis", "parse", "not JSON"),
    RetryScheduled(0, "analysis", 0.0, 2),
    TokensReceived(0, "analysis", "hush "),
    TokensReceived(0, "analysis", "hush"),
    StepFinished(0, "analysis", Usage(3, 2)),
    ItemFinished(0, "a-17", True, "", "", Usage(3, 2), 1.0, False),
    Paused("too many requests", 4.0),
    RetryScheduled(1, "analysis", 2.5, 3),
    ItemFinished(1, "b", False, "unavailable", "no answer", Usage(), 9.0, False),
    RunFinished(1, 1, 0, Usage(3, 2), 12.0, ""),
)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_programs_get_every_event_without_the_texts(tmp_path: Path) -> None:
    """Each event is a line of JSON; tokens are counted where their step ends, texts stay out."""
    path = tmp_path / "log.jsonl"
    with EventLog(path) as log:
        for event in STORY:
            log(event)
    logged = records(path)
    assert [one["event"] for one in logged] == [type(e).__name__ for e in STORY if not isinstance(e, TokensReceived)]
    assert logged[1]["text"] == len("a secret complaint")
    assert (logged[3]["pieces"], logged[3]["chars"]) == (1, 4)
    assert (logged[5]["pieces"], logged[5]["chars"], logged[5]["usage"]) == (
        2,
        9,
        {"prompt_tokens": 3, "completion_tokens": 2, "reasoning_tokens": 0, "cached_tokens": 0},
    )
    assert all(one["time"].endswith("+00:00") and one["t"] >= 0 for one in logged)
    assert "hush" not in path.read_text()
    assert "secret" not in path.read_text()
    assert not log._streams


def test_a_log_is_continued(tmp_path: Path) -> None:
    """A second run adds to the file of the first, and what comes after the end is ignored."""
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with EventLog(path) as log:
            log(STORY[0])
        log(STORY[0])
    assert len(records(path)) == 2


def test_any_text_can_be_logged(tmp_path: Path) -> None:
    """Lone surrogates and line breaks keep a line a line."""
    path = tmp_path / "log.jsonl"
    with EventLog(path) as log:
        log(AttemptFailed(0, "s", "parse", "bad \udc80\nletter"))
    assert len(records(path)) == 1


def test_a_log_that_cannot_be_opened_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """The run does not begin without the log that was asked for."""
    with pytest.raises(OutputError) as caught:
        EventLog(tmp_path / "missing" / "log.jsonl")
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE
    assert "log.jsonl" in caught.value.message
    assert "--log-file" in caught.value.hint


def test_a_full_disk_ends_the_log_and_not_the_run() -> None:
    """When the log can no longer be written, the run goes on and the reason is kept."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    log = EventLog(full)
    for _ in range(3):
        log(STORY[-1])
    log.close()
    assert log.fault is not None
    assert "space" in str(log.fault)
