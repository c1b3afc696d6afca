"""An answer on a screen: finished blocks are printed once, whatever the model writes."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.ui.chat_stream import AnswerView, CodeLines, Typesetter

ENVIRON = {"TERM": "xterm-256color", "FORCE_COLOR": "1", "COLUMNS": "80", "LINES": "24"}


def shown(text: str, step: int = 7) -> tuple[str, str]:
    """Stream `text` into a view that is drawn after each piece; what is on the screen, and what was written."""
    stream = io.StringIO()
    view = AnswerView(stream, ENVIRON)
    for at in range(0, len(text), step):
        view.feed(text[at : at + step])
        view.draw()
    view.finish()
    screen = pyte.HistoryScreen(80, 24, history=1000)
    pyte.Stream(screen).feed(stream.getvalue())
    gone = ["".join(line[x].data for x in sorted(line)) for line in screen.history.top]
    return "\n".join(row.rstrip() for row in [*gone, *screen.display]).rstrip(), stream.getvalue()


def test_it_looks_the_same_however_it_came() -> None:
    """An answer that is drawn after every letter leaves the same screen as one that comes at once."""
    text = "# T\n\nSome **bold** text.\n\n- one\n- two\n\n```py\ndef f():\n    return 1\n```\n\n| a |\n|--|\n| 1 |\n"
    assert shown(text, 1)[0] == shown(text, 10_000)[0]
    assert shown(text)[0].splitlines()[:6] == ["T", "", "Some bold text.", "", " • one", " • two"]


def test_a_block_that_is_higher_than_the_screen_comes_whole() -> None:
    """Only its end is drawn while it grows, and all of it stands there in the end, once."""
    text = " ".join(f"word{number}" for number in range(600))
    seen, written = shown(text, 40)
    assert seen.split() == text.split()
    assert written.count("word3 ") < 20


def test_every_line_of_code_is_written_once() -> None:
    """Finished lines of a long code block are not repainted."""
    _, written = shown("```text\n" + "".join(f"line{number}.\n" for number in range(100)) + "```\n", 3)
    assert [number for number in range(100) if written.count(f"line{number}.\r\n") != 1] == []


@pytest.mark.parametrize(
    "evil",
    ["\x1b[2Jgone", "\x1b]52;c;aGk=\x07", "\x9b31m", "a\x1b", "\x1b]8;;http://x\x07link\x1b]8;;\x07", "\u202egnorw"],
)
def test_the_model_cannot_move_the_terminal(evil: str) -> None:
    """Escape sequences are neutralised wherever they stand: in text, in lists, in code, in the language of a fence."""
    for text in (
        f"x {evil} y",
        f"- x {evil}",
        f"```py\nx = '{evil}'\n```",
        f"```{evil}\nx\n```",
        f"[l](http://x{evil})",
    ):
        _, written = shown(text, 1)
        for own in ("\x1b[?25l", "\x1b[?25h", "\x1b[?7l", "\x1b[?7h", "\x1b[J", "\x1b[K"):
            written = written.replace(own, "")
        assert "\x1b[2J" not in written
        assert "\x1b]" not in written
        assert not set(written) & {"\x07", "\x9b", "\u202e"}


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab*_`#>-+1.|[]()!<&\\~\n \t\"'", max_size=120))
def test_nothing_that_is_written_breaks_the_view(text: str) -> None:
    """Whatever the markup, the view lives and no letter that counts is lost."""
    seen, _ = shown(text, 5)
    if not set(text) & set("[]()!<&\\`~|>"):
        assert [one for one in seen if one in "ab"] == [one for one in text if one in "ab"]


def test_html_and_line_breaks_are_kept() -> None:
    """Tags are text, and lines of a verse stay lines."""
    assert shown("Use <b>this</b>\nand <div>that")[0] == "Use <b>this</b>\nand <div>that"


def test_code_keeps_its_colours_line_by_line() -> None:
    """Given out line by line, code has the words it had, and a keyword is coloured."""
    code = CodeLines("python", Typesetter(io.StringIO(), ENVIRON))
    lines = [
        *code.lines(["def f():"]),
        *code.lines(['    """Text', "    more"]),
        *code.lines(['    """', "    return 1"]),
    ]
    assert "\x1b[" in lines[0]
    assert all("\x1b[33m" in line for line in lines[1:3])  # a string goes on over lines that were given out before
    unknown = CodeLines("no-such-language", Typesetter(io.StringIO(), ENVIRON))
    assert unknown.lines(["a  b"]) == ["a  b"]
