"""Markdown that arrives in pieces is cut into blocks that never change again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.chat_stream import Blocks, Piece

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


def cut(text: str, places: list[int]) -> list[Piece]:
    blocks = Blocks()
    pieces: list[Piece] = []
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    for start, end in pairwise(bounds):
        pieces += blocks.feed(text[start:end])
    return pieces + blocks.end()


def test_blocks_are_what_a_reader_would_say() -> None:
    """Paragraphs, items with all that is in them, code line by line, tables whole; gaps but inside tight lists."""
    assert cut(ANSWER, []) == [
        Piece("text", "# Title", gap=False),
        Piece("text", "A paragraph\nof two lines.", gap=True),
        Piece("item", "- one", gap=True),
        Piece("item", "- two\n\n  still two\n\n      code of two", gap=False),
        Piece("item", "- three\ntext that belongs to three", gap=False),
        Piece("text", "After the list.", gap=True),
        Piece("open", "python", gap=True),
        Piece("code", "x = 1"),
        Piece("code", ""),
        Piece("code", "y = 2"),
        Piece("close", ""),
        Piece("item", "1. first\n   ```sh\n   ls\n\n   - no item\n   ```", gap=True),
        Piece("item", "2. second", gap=False),
        Piece("text", "| a | b |\n|---|---|\n| 1 | 2 |", gap=True),
        Piece("text", "---", gap=True),
        Piece("text", "The end", gap=True),
    ]


@given(places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=30))
def test_where_the_pieces_are_cut_does_not_matter(places: list[int]) -> None:
    """However the answer is split on the wire, the blocks are the same."""
    assert cut(ANSWER, places) == cut(ANSWER, [])


@given(text=st.text(alphabet="ab -*`#\n1.|>\t~", max_size=200))
def test_nothing_is_lost(text: str) -> None:
    """Every word of the text is in one block, in order, whatever the markup."""
    blocks = Blocks()
    pieces = [*blocks.feed(text), *blocks.end()]
    shown = "".join(piece.text for piece in pieces)
    wanted = [letter for letter in text if letter in "ab"]
    assert [letter for letter in shown if letter in "ab"] == wanted
    assert blocks.tail is None


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("Half a para", Piece("text", "Half a para")),
        ("Done.\n\nHalf", Piece("text", "Half", gap=True)),
        ("- one\n- tw", Piece("item", "- one\n- tw")),
        ("```py\nx =", Piece("code", "x =")),
        ("```py\n", None),
        ("Done.\n\n", None),
    ],
)
def test_the_tail_is_what_is_not_finished(text: str, tail: Piece | None) -> None:
    """What has come of the block that is open can be seen at any moment."""
    blocks = Blocks()
    blocks.feed(text)
    assert blocks.tail == tail


def test_code_that_is_never_closed_ends_with_the_answer() -> None:
    """An answer that was cut off inside a code block still ends it."""
    assert cut("```\nx", []) == [Piece("open", ""), Piece("code", "x"), Piece("close", "")]
