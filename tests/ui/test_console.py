"""The console: text from outside may say anything and do nothing; messages and tables."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.console import (
    clean,
    count,
    duration,
    encodable,
    make_console,
    print_table,
    rate,
    remaining,
    say,
    say_error,
)
from memorystreams import TerminalStream


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]0;never closed", "a]0;never closed"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1b(0b", "ab"),
        ("\x1bc reset", "c reset"),
        ("a\x00\x07\x08\x7f\x85b\x8dc", "a bc"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("a\u2066b\u2069c\u200fd\u061ce", "abcde"),
        ("pay\u200bpal \ufeffx\u00ad", "paypal x"),
        ("tag\U000e0041\U000e0042ged", "tagged"),
        ("zalgo e" + "\u0301" * 40 + "!", "zalgo e\u0301\u0301!"),
        ("lone \udc80 surrogate", "lone \ufffd surrogate"),
        ("one\n two\t\r\nthree\u2028four", "one two three four"),
        ("[red]markup[/red] :smile:", "[red]markup[/red] :smile:"),
        ("中文 emoji 🎉 é", "中文 emoji 🎉 é"),
    ],
)
def test_nothing_of_it_is_obeyed(text: str, shown: str) -> None:
    """Escapes, controls, direction marks and invisible characters go; everything that can be read stays."""
    assert clean(text) == shown


def test_line_feeds_stay_when_wanted() -> None:
    """Text of several lines keeps its lines and nothing else that moves a cursor."""
    assert clean("a\r\nb\tc\x0bd\re", one_line=False) == "a\nb c d e"


@given(st.text() | st.text(st.sampled_from("\x1b[]0;m\x9b\x07\\AJ\u202e\n \t\ud800x")))
def test_no_control_survives(text: str) -> None:
    """Whatever comes in: no control, no direction mark, no surrogate comes out, and cleaning twice changes nothing."""
    shown = clean(text)
    assert not [character for character in shown if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert clean(shown) == shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "ä→🎉"), ("latin-1", "ä??"), ("ascii", "???"), ("no-such", "???")]
)
def test_characters_an_encoding_lacks_become_question_marks(encoding: str, shown: str) -> None:
    """What a terminal cannot show is replaced before its width is measured."""
    assert encodable("ä→🎉", encoding) == shown


XTERM = {"TERM": "xterm-256color"}


def test_a_console_obeys_no_markup() -> None:
    """What looks like markup or an emoji name is printed as it is."""
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
        (TerminalStream(), XTERM, True),
        (TerminalStream(), {**XTERM, "NO_COLOR": "1"}, False),
        (TerminalStream(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        (io.StringIO(), {"TTY_COMPATIBLE": "1", "TERM": "xterm"}, True),
        (TerminalStream(), {**XTERM, "TTY_COMPATIBLE": "0"}, False),
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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (-1, "0.0s"),
        (4.23, "4.2s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (158, "2m 38s"),
        (3599.7, "1h 00m"),
        (3900, "1h 05m"),
        (183_600, "2d 3h"),
    ],
)
def test_durations_get_coarser(seconds: float, shown: str) -> None:
    """Two units are shown at most, and none of them ever reads 60."""
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "1s"), (0.2, "1s"), (37.1, "38s"), (61, "1m 01s"), (301, "5m 10s"), (4000, "1h 06m")]
)
def test_time_left_is_never_nothing(seconds: float, shown: str) -> None:
    """What is left is rounded up: as long as there is work, it does not read 0."""
    assert remaining(seconds) == shown


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(0, "0.0"), (0.034, "0.03"), (2.44, "2.4"), (9.96, "10"), (310.2, "310"), (12345, "12,345")],
)
def test_rates_have_two_figures_that_mean_something(per_second: float, shown: str) -> None:
    """Slow rates keep decimals, fast ones do not."""
    assert rate(per_second) == shown


def test_counts_have_their_thousands_set_apart() -> None:
    """Large counts can be read at a glance."""
    assert count(1_234_567) == "1,234,567"
