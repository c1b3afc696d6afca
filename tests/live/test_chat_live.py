"""`mellea chat` with the small embedded model, on a pseudo-terminal: one long conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from terminals import Terminal, mellea_on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.terminal]


def at_prompt(text: str) -> bool:
    lines = [line for line in text.splitlines() if line]
    return len(lines) > 1 and " tokens" in lines[-1] and lines[-2] == ">"


def say(terminal: Terminal, text: str) -> str:
    """Send a text and wait until it has been dealt with."""
    terminal.wait(at_prompt)
    terminal.type(text)
    terminal.wait(lambda shown: not at_prompt(shown))
    terminal.type("\r")
    return terminal.wait(at_prompt)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
def test_ten_turns(small_model: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """Ten turns with a paste, a stop, a resize, /undo, /export and a return; all of it is kept."""
    with mellea_on_terminal("chat", "-b", "local", "-m", str(small_model), folder=tmp_path, size=size) as terminal:
        say(terminal, "/set max_tokens 24")
        say(terminal, "/set seed 7")
        for number in range(6):
            say(terminal, f"Name a fruit, number {number}.")
        terminal.paste("Repeat:\nfirst\nsecond")
        terminal.wait(lambda shown: "> Repeat:\n  first\n  second" in shown)
        terminal.type("\r")
        terminal.wait(at_prompt)
        say(terminal, "/set max_tokens 400")
        # Without it the small model soon repeats itself, which would end the answer before the key does.
        say(terminal, "/set temperature 0.9")
        for ending in ("stop", "resize"):
            terminal.type("Write a long story about a ship, in many chapters.\r")
            terminal.wait(lambda shown: "waiting for the model" in shown)
            terminal.wait(lambda shown: "waiting for the model" not in shown and not at_prompt(shown))
            if ending == "resize":
                terminal.resize(60, 20)
                terminal.resize(*size)
            terminal.type(b"\x03")
            terminal.wait(at_prompt)
        say(terminal, "/set max_tokens 16")
        say(terminal, "What is 2+2?")
        terminal.type("/undo\r")
        terminal.wait(lambda shown: "question is below" in shown and shown.rstrip().count("What is 2+2?") >= 2)
        terminal.type(b"\x03")
        say(terminal, f"/export {tmp_path / 'out.md'}")
        terminal.type(b"\x04")
        assert terminal.end() == 0
    exported = (tmp_path / "out.md").read_text()
    assert exported.count("## You") == 9
    assert "Repeat:\nfirst\nsecond" in exported
    assert "2+2" not in exported
    with mellea_on_terminal(
        "chat", "-c", "-b", "local", "-m", str(small_model), folder=tmp_path, size=size
    ) as terminal:
        shown = terminal.wait(at_prompt)
        assert "of 9 turns" in terminal.all, shown
        assert "> Write a long story about a ship" in terminal.all
