"""The thread that draws, on a pseudo-terminal of the test's own."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyte
import pytest

from mellea_cli.events import ItemStarted, Note, RunStarted, TokensReceived
from mellea_cli.ui.console import make_console
from mellea_cli.ui.live_panels import LiveDisplay
from mellea_cli.ui.run_state import RunState

PATIENCE_S = 30.0


class Terminal:
    """A pseudo-terminal whose other side is an emulated screen."""

    def __init__(self) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stderr: IO[str] = os.fdopen(side, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(os.dup(side), "w", encoding="utf-8")
        self.screen = pyte.Screen(80, 24)
        self._emulator = pyte.ByteStream(self.screen)

    def wait(self, state: Callable[[str], bool]) -> str:
        """Read until the screen is in this state; returns what it shows."""
        while not state(self.text):
            ready, _, _ = select.select([self._main], [], [], PATIENCE_S)
            assert ready, f"it never came to that:\n{self.text}"
            self._emulator.feed(os.read(self._main, 65_536))
        return self.text

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.screen.display).rstrip()

    def close(self) -> None:
        for stream in (self.stderr, self.stdout):
            stream.close()
        os.close(self._main)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def view() -> RunState:
    view = RunState()
    view(RunStarted("single", ("analysis",), "granite", "ollama", 2, 9))
    view(ItemStarted(0, "first", "some feedback"))
    return view


def live(view: RunState, terminal: Terminal) -> LiveDisplay:
    return LiveDisplay(view, make_console(terminal.stderr, {"TERM": "xterm-256color"}))


def test_tokens_appear_without_anybody_asking(terminal: Terminal, view: RunState) -> None:
    """The thread draws what has come in since."""
    with live(view, terminal) as display:
        terminal.wait(lambda text: "╭─ first " in text and "0/9" in text)
        view(TokensReceived(0, "analysis", '{"sentiment": "positive"'))
        terminal.wait(lambda text: "sentiment positive▌" in text)
    assert terminal.wait(lambda text: "╭" not in text) == ""
    assert not terminal.screen.cursor.hidden
    assert display.fault is None


def test_rows_and_lines_stand_above_the_panels(terminal: Terminal, view: RunState) -> None:
    """Data rows to the same terminal, notes and lines scroll above; afterwards they are what is left, in order."""
    with live(view, terminal) as display:
        rows = display.rows(terminal.stdout)
        terminal.wait(lambda text: "0/9" in text)
        rows.write('{"id": 1}\n{"id"')
        rows.flush()
        rows.write(": 2}\n")
        terminal.wait(lambda text: '{"id": 2}' in text)
        display.line("a line \x1b[2J[red]from[/red] outside")
        view(Note("a note"))
        text = terminal.wait(lambda text: "a note" in text and "0/9" in text)
        assert text.index('{"id": 2}') < text.index("a line") < text.index("a note") < text.index("0/9")
        rows.write('{"id": 3}\n')
    left = '{"id": 1}\n{"id": 2}\na line [red]from[/red] outside\na note\n{"id": 3}'
    assert terminal.wait(lambda text: text == left)
    rows.write('{"id": 4}\n')
    display.line("late")
    assert terminal.wait(lambda text: text == left + '\n{"id": 4}\nlate')


def test_rows_to_a_file_take_no_detour(terminal: Terminal, view: RunState, tmp_path: Path) -> None:
    """Only the terminal that shows the panels needs care."""
    display = live(view, terminal)
    with (tmp_path / "rows").open("w", encoding="utf-8") as file:
        assert display.rows(file) is file
    memory = io.StringIO()
    assert display.rows(memory) is memory
    other = Terminal()
    try:
        assert display.rows(other.stdout) is other.stdout
    finally:
        other.close()
    display.close()


def test_nothing_is_drawn_before_the_run_begins(terminal: Terminal) -> None:
    """While the model loads only lines appear, and the cursor stays."""
    with live(RunState(), terminal) as display:
        display.line("loading granite")
        terminal.wait(lambda text: text == "loading granite")
        display.refresh()
        assert not terminal.screen.cursor.hidden
    assert terminal.text == "loading granite"


def test_it_is_closed_once_and_for_all(terminal: Terminal, view: RunState) -> None:
    """Closing twice, or drawing after the end, changes nothing; the thread is gone."""
    before = threading.active_count()
    display = live(view, terminal)
    with display:
        terminal.wait(lambda text: "0/9" in text)
        display.close()
        display.close()
        display.refresh()
    assert threading.active_count() == before
    assert terminal.wait(lambda text: "0/9" not in text) == ""


def test_a_bug_in_drawing_does_not_reach_the_run(terminal: Terminal, view: RunState) -> None:
    """When a frame cannot be drawn the panels go, the reason is kept, and lines are still printed."""

    class Poisoned(str):
        __slots__ = ()

        def isascii(self) -> bool:
            raise RuntimeError("a bug")

    with live(view, terminal) as display:
        terminal.wait(lambda text: "╭─ first " in text)
        view(ItemStarted(1, Poisoned("bad"), "text"))
        terminal.wait(lambda text: "╭" not in text)
        display.line("one more line")
        terminal.wait(lambda text: "a bug" in text and text.endswith("one more line"))
    assert isinstance(display.fault, RuntimeError)
    assert not terminal.screen.cursor.hidden


def test_many_rows_wait_for_the_terminal(terminal: Terminal, view: RunState) -> None:
    """Twenty thousand rows at once are all printed, and not hoarded."""
    seen: list[int] = []
    with live(view, terminal) as display:
        rows = display.rows(terminal.stdout)

        def write() -> None:
            for number in range(20_000):
                rows.write(f"row {number}\n")
                if number % 1000 == 0:
                    seen.append(len(display._above))

        writer = threading.Thread(target=write)
        writer.start()
        terminal.wait(lambda text: "row 19999" in text)
        writer.join()
    assert max(seen) <= 5_000
