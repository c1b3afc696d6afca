"""Which display a run gets."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.errors import ExitCode, InputError, OutputError
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
from mellea_cli.ui.live_panels import LiveDisplay
from mellea_cli.ui.run_display import (
    DisplayOptions,
    EventLog,
    PlainDisplay,
    RunDisplay,
    TroubleLines,
    choose_display,
    make_display,
    plain_line,
)
from mellea_cli.ui.run_state import RunState
from mellea_cli.ui.summary import RunSummary
from memorystreams import TerminalStream

XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (XTERM, "live"),
        ({}, "live"),
        ({**XTERM, "NO_COLOR": "1"}, "live"),
        ({"TERM": "dumb"}, "plain"),
        ({"TERM": "unknown"}, "plain"),
        ({**XTERM, "CI": "true"}, "plain"),
        ({**XTERM, "CI": "false"}, "live"),
        ({**XTERM, "CI": ""}, "live"),
        ({**XTERM, "TTY_COMPATIBLE": "0"}, "plain"),
        ({**XTERM, "TTY_INTERACTIVE": "0"}, "plain"),
    ],
)
def test_a_terminal_is_drawn_on_unless_it_says_no(environ: dict[str, str], expected: str) -> None:
    """Panels need a terminal that can be drawn on and that is not said to be unattended."""
    assert choose_display(TerminalStream(), environ) == expected


@pytest.mark.parametrize("environ", [{}, XTERM, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_what_is_no_terminal_gets_lines(environ: dict[str, str]) -> None:
    """A file or a pipe is never drawn on, whatever the environment says about colours."""
    assert choose_display(io.StringIO(), environ) == "plain"


def test_a_closed_stream_is_no_terminal() -> None:
    """Asking a closed stream is no error."""
    stream = TerminalStream()
    stream.close()
    assert choose_display(stream, XTERM) in {"plain", "live"}
    pipe = io.StringIO()
    pipe.close()
    assert choose_display(pipe, XTERM) == "plain"


def test_each_name_has_its_display() -> None:
    """The two names lead to the two displays."""
    stream = TerminalStream()
    assert isinstance(make_display("live", RunState(), stream, XTERM), LiveDisplay)
    assert isinstance(make_display("plain", RunState(), stream, XTERM), PlainDisplay)


STORY: tuple[Event, ...] = (
    RunStarted("single", ("analysis",), "m", "b", 1, 1),
    ItemStarted(0, "a-17", "a complaint"),
    AttemptFailed(0, "analysis", "unavailable", "no answer"),
    ItemFinished(0, "a-17", False, "unavailable", "no answer", Usage(), 1.0, False),
    RunFinished(0, 1, 0, Usage(), 1.0, ""),
)
SUMMARY = RunSummary(total=1, failed=1, failures={"unavailable": 1}, elapsed_s=1.0)


def shown(options: DisplayOptions, stream: io.StringIO | None = None) -> str:
    """What a run with one failure prints."""
    stream = stream or io.StringIO()
    with RunDisplay(stream, XTERM, options) as display:
        display.say("using granite")
        observer = display.begin()
        for event in STORY:
            observer(event)
        display.trouble(InputError("not JSON", path="in.jsonl", line=7))
        display.end(SUMMARY)
    return stream.getvalue()


def test_quiet_prints_errors_only() -> None:
    """A row that cannot be read is said, nothing else; the terminal gets no panels."""
    assert shown(DisplayOptions(quiet=True), TerminalStream()) == "mellea: skipped: in.jsonl:7: not JSON\n"


def test_a_note_about_the_input_is_printed_once() -> None:
    """Themes are found in a pass of its own over the input."""
    stream = io.StringIO()
    with RunDisplay(stream, XTERM, DisplayOptions()) as display:
        for _ in range(2):
            display.note("in.csv: the text is in column 'text'")
    assert stream.getvalue() == "mellea: in.csv: the text is in column 'text'\n"


def test_without_live_a_terminal_gets_lines() -> None:
    """`--no-live` and `-vv` draw nothing; `-v` says why attempts failed."""
    assert "\x1b[?25l" not in shown(DisplayOptions(live=False), TerminalStream())
    verbose = shown(DisplayOptions(verbose=2), TerminalStream())
    assert "\x1b[?25l" not in verbose
    assert "mellea: a-17 analysis: unavailable: no answer\n" in verbose
    assert "a-17 analysis" not in shown(DisplayOptions())


def test_the_summary_and_the_log_go_where_they_should(tmp_path: Path) -> None:
    """As a table, as one line of JSON, into a file; the log has every event."""
    assert "mellea: 0 of 1 item answered in 1.0s" in shown(DisplayOptions())
    last = shown(DisplayOptions(json=True, summary_file=str(tmp_path / "s.json"), log_file=str(tmp_path / "log")))
    line = last.splitlines()[-1]
    assert json.loads(line)["failures"] == {"unavailable": 1}
    assert (tmp_path / "s.json").read_text() == line + "\n"
    assert len((tmp_path / "log").read_text().splitlines()) == len(STORY)
    with pytest.raises(OutputError, match="the summary cannot be written"):
        shown(DisplayOptions(summary_file=str(tmp_path / "missing" / "s.json")))


def test_the_bell_rings_at_a_terminal_only() -> None:
    """Once, at the end of the run, where it was asked for."""
    for stream, options, rings in (
        (TerminalStream(), DisplayOptions(bell=True, live=False), 1),
        (TerminalStream(), DisplayOptions(live=False), 0),
        (io.StringIO(), DisplayOptions(bell=True), 0),
    ):
        with RunDisplay(stream, {"TERM": "xterm"}, options) as show:
            show.begin()
            show.end(RunSummary(done=1))
        assert stream.getvalue().count("\a") == rings


def test_rows_take_a_detour_only_where_they_must() -> None:
    """A replaced stdout is written through another stream, which is the plain one while nothing is drawn."""
    rows = io.StringIO()
    display = RunDisplay(io.StringIO(), {}, DisplayOptions())
    stream = display.rows(rows)
    assert stream is not None
    stream.write("row\n")
    stream.flush()
    assert rows.getvalue() == "row\n"


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


LOGGED: tuple[Event, ...] = (
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
        for event in LOGGED:
            log(event)
    logged = records(path)
    assert [one["event"] for one in logged] == [type(e).__name__ for e in LOGGED if not isinstance(e, TokensReceived)]
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
            log(LOGGED[0])
        log(LOGGED[0])
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
        log(LOGGED[-1])
    log.close()
    assert log.fault is not None
    assert "space" in str(log.fault)
