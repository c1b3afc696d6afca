"""Which display a run gets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mellea_cli.errors import InputError, OutputError
from mellea_cli.events import AttemptFailed, Event, ItemFinished, ItemStarted, RunFinished, RunStarted
from mellea_cli.messages import Usage
from mellea_cli.ui.live_panels import LiveDisplay
from mellea_cli.ui.plain_lines import PlainDisplay
from mellea_cli.ui.run_display import DisplayOptions, RunDisplay, choose_display, make_display
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
