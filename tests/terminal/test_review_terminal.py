"""`mellea review` on a pseudo-terminal: keys, sizes, and a process that is killed in the middle."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mellea_cli.io.corrections import Corrections, read_lines
from resultrows import result_rows
from rowfiles import write_rows
from terminals import mellea_on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.terminal]

FLAGS = ("review", "out.jsonl", "-n", "6", "--seed", "1", "--who", "eva")


def _changed(shown: str) -> bool:
    return "(model:" in shown


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_rows_are_judged_by_keys(tmp_path: Path, size: tuple[int, int]) -> None:
    """A label, an edited text, an accepted row, undo, skip; the end says what was saved, and the shell is back."""
    write_rows(tmp_path / "out.jsonl", result_rows(40))
    with mellea_on_terminal(*FLAGS, folder=tmp_path, size=size) as terminal:
        shown = terminal.wait(lambda text: "1 of 6" in text)
        assert "1 positive  2 negative  3 mixed" in shown
        assert "Enter accept" in shown
        model = next(line for line in shown.splitlines() if line.startswith("→")).split()[-1]
        terminal.type("1" if model != "positive" else "2")
        terminal.wait(_changed)
        terminal.type("\x1b[B\x1b[B")
        terminal.wait(lambda text: "→  main_complaint" in text)
        terminal.type("e")
        terminal.wait(lambda text: "Enter saves" in text)
        terminal.type("\x15a wet towel\r")
        terminal.wait(lambda text: "a wet towel" in text and "Enter accept" in text)
        terminal.type("\r")
        terminal.wait(lambda text: "2 of 6" in text and "1 changed" in text)
        terminal.type("s")
        terminal.wait(lambda text: "3 of 6" in text)
        terminal.type("uu")
        terminal.wait(lambda text: "1 of 6" in text and "0 changed" in text)
        terminal.type("\r")
        terminal.wait(lambda text: "2 of 6" in text)
        terminal.type("q")
        assert terminal.end() == 0
        assert "1 of 6 rows judged, 1 changed; saved in out.jsonl.corrections.jsonl" in terminal.all
        assert terminal.echoes
    said = {one.field: one.person for one in Corrections(read_lines(tmp_path / "out.jsonl.corrections.jsonl"))}
    assert len(said) == 5
    assert said["main_complaint"] == "a wet towel"


def test_a_killed_review_loses_nothing(tmp_path: Path) -> None:
    """What the screen has shown as judged is in the file; the next review goes on with the row that was open."""
    write_rows(tmp_path / "out.jsonl", result_rows(40))
    with mellea_on_terminal(*FLAGS, folder=tmp_path) as terminal:
        terminal.wait(lambda text: "1 of 6" in text)
        for number in range(2, 5):
            terminal.type("\r")
            terminal.wait(lambda text, number=number: f"{number} of 6" in text)  # type: ignore[misc]  # a default binds it
        for key in "123":
            terminal.type(key)
        terminal.wait(lambda text: "→  sentiment" in text and "mixed" in text.split("→  sentiment")[1].splitlines()[0])
        terminal.program.send_signal(signal.SIGKILL)
        terminal.program.wait()
    lines = read_lines(tmp_path / "out.jsonl.corrections.jsonl")
    assert len(lines) == 3 * 5 + 3
    assert lines[-1].person == "mixed"
    with mellea_on_terminal(*FLAGS, folder=tmp_path) as terminal:
        shown = terminal.wait(lambda text: "4 of 6" in text)
        assert f"row {lines[-1].item} " in shown
        assert "mixed" in next(line for line in shown.splitlines() if line.startswith("→"))
        terminal.type("q")
        assert terminal.end() == 0
