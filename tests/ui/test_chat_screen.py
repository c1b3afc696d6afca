"""Answers on the chat's screen: arriving Markdown is split into blocks, and each is printed once."""

from __future__ import annotations

import io
from itertools import pairwise

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.ui.chat_screen import AnswerView, Block, BlockSplitter, CodeLines, MarkdownRenderer

ANSWER = """# Title
A paragraph
of two lines.

- one
- two

  still two

      code of two
- three
text that belongs to three

After the list.
```python
x = 1

y = 2
```
1. first
   ```sh
   ls

   - no item
   ```
2. second

| a | b |
|---|---|
| 1 | 2 |

---
The end"""


def cut(text: str, places: list[int]) -> list[Block]:
    blocks = BlockSplitter()
    pieces: list[Block] = []
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    for start, end in pairwise(bounds):
        pieces += blocks.feed(text[start:end])
    return pieces + blocks.end()


def test_blocks_are_what_a_reader_would_say() -> None:
    """Paragraphs, items with all that is in them, code line by line, tables whole; gaps but inside tight lists."""
    assert cut(ANSWER, []) == [
        Block("text", "# Title", gap=False),
        Block("text", "A paragraph\nof two lines.", gap=True),
        Block("item", "- one", gap=True),
        Block("item", "- two\n\n  still two\n\n      code of two", gap=False),
        Block("item", "- three\ntext that belongs to three", gap=False),
        Block("text", "After the list.", gap=True),
        Block("open", "python", gap=True),
        Block("code", "x = 1"),
        Block("code", ""),
        Block("code", "y = 2"),
        Block("close", ""),
        Block("item", "1. first\n   ```sh\n   ls\n\n   - no item\n   ```", gap=True),
        Block("item", "2. second", gap=False),
        Block("text", "| a | b |\n|---|---|\n| 1 | 2 |", gap=True),
        Block("text", "---", gap=True),
        Block("text", "The end", gap=True),
    ]


@given(places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=30))
def test_where_the_pieces_are_cut_does_not_matter(places: list[int]) -> None:
    """However the answer is split on the wire, the blocks are the same."""
    assert cut(ANSWER, places) == cut(ANSWER, [])


@given(text=st.text(alphabet="ab -*`#\n1.|>\t~", max_size=200))
def test_nothing_is_lost(text: str) -> None:
    """Every word of the text is in one block, in order, whatever the markup."""
    blocks = BlockSplitter()
    pieces = [*blocks.feed(text), *blocks.end()]
    shown = "".join(piece.text for piece in pieces)
    wanted = [character for character in text if character in "ab"]
    assert [character for character in shown if character in "ab"] == wanted
    assert blocks.tail is None


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("Half a para", Block("text", "Half a para")),
        ("Done.\n\nHalf", Block("text", "Half", gap=True)),
        ("- one\n- tw", Block("item", "- one\n- tw")),
        ("```py\nx =", Block("code", "x =")),
        ("```py\n", None),
        ("Done.\n\n", None),
    ],
)
def test_the_tail_is_what_is_not_finished(text: str, tail: Block | None) -> None:
    """What has come of the block that is open can be seen at any moment."""
    blocks = BlockSplitter()
    blocks.feed(text)
    assert blocks.tail == tail


@pytest.mark.parametrize("line", ["word", "> quote", "| a | b |"])
def test_a_block_without_end_stays_cheap(line: str) -> None:
    """A block of thousands of lines is parsed a bounded number of times, and comes whole."""
    splitter = BlockSplitter()
    parsed: list[int] = []
    starts = splitter._starts
    splitter._starts = lambda: parsed.append(1) or starts()  # type: ignore[func-returns-value, method-assign]
    text = "\n".join([line] * 3_000)
    assert splitter.feed(f"{text}\n\n") == [Block("text", text)]
    assert len(parsed) < 250


def test_code_that_is_never_closed_ends_with_the_answer() -> None:
    """An answer that was cut off inside a code block still ends it."""
    assert cut("```\nx", []) == [Block("open", ""), Block("code", "x"), Block("close", "")]


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
    """An answer that is drawn after every character gives the same screen as one that comes at once."""
    text = "# T\n\nSome **bold** text.\n\n- one\n- two\n\n```py\ndef f():\n    return 1\n```\n\n| a |\n|--|\n| 1 |\n"
    assert shown(text, 1)[0] == shown(text, 10_000)[0]
    assert shown(text)[0].splitlines()[:6] == ["T", "", "Some bold text.", "", " • one", " • two"]


def test_a_block_that_is_higher_than_the_screen_comes_whole() -> None:
    """Only its end is drawn while it grows, and all of it is there in the end, once."""
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
    """Escape sequences are neutralised wherever they are: in text, in lists, in code, in the language of a fence."""
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
    """Whatever the markup, the view lives and no character that counts is lost."""
    seen, _ = shown(text, 5)
    if not set(text) & set("[]()!<&\\`~|>"):
        assert [one for one in seen if one in "ab"] == [one for one in text if one in "ab"]


def test_html_and_line_breaks_are_kept() -> None:
    """Tags are text, and lines of a verse stay lines."""
    assert shown("Use <b>this</b>\nand <div>that")[0] == "Use <b>this</b>\nand <div>that"


def test_code_keeps_its_colours_line_by_line() -> None:
    """Given out line by line, code has the words it had, and a keyword is coloured."""
    code = CodeLines("python", MarkdownRenderer(io.StringIO(), ENVIRON))
    lines = [
        *code.lines(["def f():"]),
        *code.lines(['    """Text', "    more"]),
        *code.lines(['    """', "    return 1"]),
    ]
    assert "\x1b[" in lines[0]
    assert all("\x1b[33m" in line for line in lines[1:3])  # a string goes on over lines that were given out before
    unknown = CodeLines("no-such-language", MarkdownRenderer(io.StringIO(), ENVIRON))
    assert unknown.lines(["a  b"]) == ["a  b"]


def test_link_definitions_and_indented_code_are_kept() -> None:
    """A definition is text, not hidden; code that is only indented ends where the indentation does."""
    assert cut("[a]: http://x\n\n    code\n    more\ntext\n", []) == [
        Block("text", "[a]: http://x"),
        Block("text", "    code\n    more", gap=True),
        Block("text", "text", gap=True),
    ]
