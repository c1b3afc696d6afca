"""Which display a run gets, and what a console obeys."""

from __future__ import annotations

import io

import pytest

from mellea_cli.ui.console import NoDisplay, choose_display, make_console, make_display, print_table, say, say_error
from mellea_cli.ui.live_panels import LiveDisplay
from mellea_cli.ui.plain_lines import PlainDisplay
from mellea_cli.ui.run_state import RunState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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
    assert choose_display(stream=Terminal(), environ=environ, quiet=False, no_live=False) == expected
    assert choose_display(stream=Terminal(), environ=environ, quiet=False, no_live=True) == "plain"
    assert choose_display(stream=Terminal(), environ=environ, quiet=True, no_live=False) == "none"


@pytest.mark.parametrize("environ", [{}, XTERM, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_what_is_no_terminal_gets_lines(environ: dict[str, str]) -> None:
    """A file or a pipe is never drawn on, whatever the environment says about colours."""
    assert choose_display(stream=io.StringIO(), environ=environ, quiet=False, no_live=False) == "plain"


def test_a_closed_stream_is_no_terminal() -> None:
    """Asking a closed stream is no error."""
    stream = Terminal()
    stream.close()
    assert choose_display(stream=stream, environ=XTERM, quiet=False, no_live=False) in {"plain", "live"}
    pipe = io.StringIO()
    pipe.close()
    assert choose_display(stream=pipe, environ=XTERM, quiet=False, no_live=False) == "plain"


def test_each_name_has_its_display() -> None:
    """The three names lead to the three displays, and the silent one says nothing."""
    stream = Terminal()
    assert isinstance(make_display("live", RunState(), stream, XTERM), LiveDisplay)
    assert isinstance(make_display("plain", RunState(), stream, XTERM), PlainDisplay)
    silent = make_display("none", RunState(), stream, XTERM)
    assert isinstance(silent, NoDisplay)
    with silent:
        silent.line("nobody hears this")
        assert silent.rows(stream) is stream
    silent.close()
    assert not stream.getvalue()


def test_a_console_obeys_no_markup() -> None:
    """What looks like markup or an emoji name is printed as it stands."""
    stream = io.StringIO()
    make_console(stream, {}).print("[red]x[/red] :smile:")
    assert stream.getvalue() == "[red]x[/red] :smile:\n"


def test_errors_are_one_line_and_a_hint() -> None:
    """Off a terminal an error is plain text; whatever is in it, it stays two lines."""
    stream = io.StringIO()
    say_error(stream, {}, "in.csv:7: bad\nrow \x1b[2J", "try\n--encoding cp1252")
    assert stream.getvalue() == "mellea: error: in.csv:7: bad row\nmellea: try: try --encoding cp1252\n"
    say(stream, "using \x1b]0;evil\x07granite")
    assert stream.getvalue().endswith("mellea: using granite\n")


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal(), XTERM, True),
        (Terminal(), {**XTERM, "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        (io.StringIO(), {"TTY_COMPATIBLE": "1", "TERM": "xterm"}, True),
        (Terminal(), {**XTERM, "TTY_COMPATIBLE": "0"}, False),
    ],
)
def test_colour_follows_the_environment(stream: io.StringIO, environ: dict[str, str], coloured: bool) -> None:
    """NO_COLOR, FORCE_COLOR, TTY_COMPATIBLE and TERM=dumb decide about colour, for errors and for tables."""
    say_error(stream, environ, "no")
    assert ("\x1b[31m" in stream.getvalue()) == coloured
    stream.truncate(0)
    print_table([[("good", "yes"), "x"]], stream=stream, environ=environ)
    assert ("\x1b[32m" in stream.getvalue()) == coloured


def test_a_table_is_plain_and_whole_in_a_file() -> None:
    """Off a terminal, columns are aligned and nothing is cut, folded or coloured."""
    stream = io.StringIO()
    print_table(
        [["a", "x" * 200], [("bad", "longer"), "y\x1b[1m"]], headers=["name", "what"], stream=stream, environ={}
    )
    assert stream.getvalue() == f"name    what\na       {'x' * 200}\nlonger  y\n"


def test_a_table_may_be_empty() -> None:
    """No rows and no headers print nothing; headers alone print themselves."""
    stream = io.StringIO()
    print_table([], stream=stream, environ={})
    assert stream.getvalue() == ""
    print_table([], headers=["name"], stream=stream, environ={})
    assert stream.getvalue() == "name\n"
