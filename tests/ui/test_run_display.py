"""Which display a run gets."""

from __future__ import annotations

import io

import pytest

from mellea_cli.ui.live_panels import LiveDisplay
from mellea_cli.ui.plain_lines import PlainDisplay
from mellea_cli.ui.run_display import NoDisplay, choose_display, make_display
from mellea_cli.ui.run_state import RunState
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
    """Panels need a terminal that can be drawn on and that somebody looks at."""
    assert choose_display(stream=TerminalStream(), environ=environ, quiet=False, no_live=False) == expected
    assert choose_display(stream=TerminalStream(), environ=environ, quiet=False, no_live=True) == "plain"
    assert choose_display(stream=TerminalStream(), environ=environ, quiet=True, no_live=False) == "none"


@pytest.mark.parametrize("environ", [{}, XTERM, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_what_is_no_terminal_gets_lines(environ: dict[str, str]) -> None:
    """A file or a pipe is never drawn on, whatever the environment says about colours."""
    assert choose_display(stream=io.StringIO(), environ=environ, quiet=False, no_live=False) == "plain"


def test_a_closed_stream_is_no_terminal() -> None:
    """Asking a closed stream is no error."""
    stream = TerminalStream()
    stream.close()
    assert choose_display(stream=stream, environ=XTERM, quiet=False, no_live=False) in {"plain", "live"}
    pipe = io.StringIO()
    pipe.close()
    assert choose_display(stream=pipe, environ=XTERM, quiet=False, no_live=False) == "plain"


def test_each_name_has_its_display() -> None:
    """The three names lead to the three displays, and the silent one says nothing."""
    stream = TerminalStream()
    assert isinstance(make_display("live", RunState(), stream, XTERM), LiveDisplay)
    assert isinstance(make_display("plain", RunState(), stream, XTERM), PlainDisplay)
    silent = make_display("none", RunState(), stream, XTERM)
    assert isinstance(silent, NoDisplay)
    with silent:
        silent.line("nobody hears this")
        assert silent.rows(stream) is stream
    silent.close()
    assert not stream.getvalue()
