"""`mellea show` and commands without arguments on a pseudo-terminal of 80x24."""

from __future__ import annotations

from pathlib import Path

import pytest

from resultrows import result_rows
from rowfiles import write_rows
from terminals import mellea_on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.terminal]

DOWN, PAGE_DOWN, ESCAPE, BACKSPACE = "\x1b[B", "\x1b[6~", "\x1b", "\x7f"


def test_rows_are_paged_searched_and_selected(tmp_path: Path) -> None:
    """Keys move, a condition selects, Enter shows a row, q gives the terminal back as it was."""
    write_rows(tmp_path / "out.jsonl", result_rows(60, themed=True))
    with mellea_on_terminal("show", "out.jsonl", folder=tmp_path) as terminal:
        shown = terminal.wait(lambda text: "q quit" in text)
        assert "row 1 of 60" in shown
        assert shown.splitlines()[1].split()[:2] == ["id", "text"]
        terminal.type(PAGE_DOWN)
        terminal.wait(lambda text: "row 1 of" not in text.splitlines()[0])
        terminal.type("w")
        terminal.wait(lambda text: text.endswith("where:"))
        terminal.type('urgncy == "high"\r')
        terminal.wait(lambda text: "did you mean urgency?" in text)
        # The line stays open to be corrected: "ency" takes the place of the last letters of the name.
        terminal.type(BACKSPACE * len('ncy == "high"') + 'ency == "high"\r')
        terminal.wait(lambda text: 'where urgency == "high"' in text.splitlines()[0])
        terminal.type(DOWN + "\r")
        whole = terminal.wait(lambda text: "text" in text and "urgency  high" in text)
        assert "row 2 of" in whole
        terminal.type(ESCAPE)
        terminal.wait(lambda text: text.splitlines()[1].split()[:2] == ["id", "text"])
        terminal.resize(200, 50)
        terminal.wait(lambda text: len(text.splitlines()[1]) > 80)
        terminal.type("q")
        assert terminal.end() == 0
    assert b"\x1b[?1049l" in terminal.written


@pytest.mark.parametrize("arguments", [(), ("summarise",), ("run",), ("themes",)], ids=" ".join)
def test_a_command_alone_says_what_it_does(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """About ten lines with three examples, and success."""
    with mellea_on_terminal(*arguments, folder=tmp_path) as terminal:
        assert terminal.end() == 0
        lines = terminal.all.strip().splitlines()
    assert 8 <= len(lines) <= 11
    assert sum(line.startswith("  mellea ") for line in lines) == 3
