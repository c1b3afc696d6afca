"""The live panels on a pseudo-terminal, as a real process draws them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.terminal]

REPLAY = Path(__file__).parents[1] / "ui" / "replay.py"
TIMEOUT_S = 60.0
PANEL = "╭╮╰╯│"


class Screen(pyte.HistoryScreen):
    """Keeps the text around the cursor when it is resized, as terminals do.

    Rows go away below the cursor first, then at the top; columns are cut off, as xterm does it.
    """

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        rows = lines or self.lines
        above = max(0, self.cursor.y + 1 - rows)
        if above:
            self.buffer = type(self.buffer)(
                self.buffer.default_factory, {y - above: line for y, line in self.buffer.items() if y >= above}
            )
            self.cursor.y -= above
        for y in [y for y in self.buffer if y >= rows]:
            del self.buffer[y]
        self.lines = rows
        super().resize(rows, columns)


class Process:
    """A program on a pseudo-terminal, and what its terminal shows."""

    def __init__(self, arguments: list[str], columns: int, rows: int, environ: dict[str, str]) -> None:
        self.screen = Screen(columns, rows, history=2000)
        self._emulator = pyte.ByteStream(self.screen)
        self.written = b""
        self._main, side = pty.openpty()
        self._set_size(columns, rows)
        self._program = subprocess.Popen(
            [sys.executable, str(REPLAY), *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the only way to its own terminal
        )
        os.close(side)

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(row.rstrip() for row in self.screen.display)

    def wait(self, state: Callable[[str], bool]) -> None:
        """Read until the screen is in this state."""
        deadline = time.monotonic() + TIMEOUT_S
        while not state(self.text):
            assert time.monotonic() < deadline, f"it never came to that:\n{self.text}"
            if not self._read():
                assert state(self.text), f"the program ended before:\n{self.text}"
                return

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size while the program runs."""
        while select.select([self._main], [], [], 0)[0] and self._read():
            pass
        self._set_size(columns, rows)
        self.screen.resize(rows, columns)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._main, keys)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._main)[3] & termios.ECHO)

    def end(self) -> int:
        """Read all that is left; returns the exit code."""
        while self._read():
            pass
        return self._program.wait(TIMEOUT_S)

    def close(self) -> None:
        """Make sure that nothing is left running."""
        if self._program.poll() is None:
            self._program.kill()
            self._program.wait()
        os.close(self._main)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._main], [], [], TIMEOUT_S)
        try:
            data = os.read(self._main, 65_536) if ready else b""
        except OSError:  # Linux says so when the other side is closed
            data = b""
        self.written += data
        self._emulator.feed(data)
        return bool(data)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def running(*arguments: str, columns: int = 80, rows: int = 24, **more: str) -> Iterator[Process]:
    environ = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "COLUMNS", "LINES"}}
    environ |= {"TERM": "xterm-256color", "PYTHONUTF8": "1", **more}
    process = Process(list(arguments), columns, rows, environ)
    try:
        yield process
    finally:
        process.close()


def is_clean(process: Process) -> None:
    """The live area is gone, the closing table is whole, and the terminal is as it was."""
    text = process.text
    assert not set(text) & set(PANEL), text
    assert " left " not in text
    assert not process.screen.cursor.hidden
    assert pyte.modes.DECAWM in process.screen.mode
    assert process.screen.cursor.x == 0
    assert b"\x1b[?1049h" not in process.written
    assert process.echoes


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (200, 50)])
def test_panels_come_and_go(columns: int, rows: int) -> None:
    """Panels are seen while the run goes on, and nothing but the closing table is left of them."""
    with running("--items", "12", "-c", "4", "--speed", "2", columns=columns, rows=rows) as process:
        process.wait(lambda text: "╭─ 1 " in text and "╰" in text and "/12" in text)
        process.wait(lambda text: "sentiment" in text and "/12" in text)
        assert process.screen.cursor.hidden
        assert process.end() == 0
        is_clean(process)
        assert "urgency" in process.text
        shown = process.text if rows > 20 else "".join(row_text(line) for line in process.screen.history.top)
        assert "of 12 items answered in" in shown
        if rows > 20:
            assert "the answer goes to 'summary_2'" in process.text


def row_text(line: dict[int, pyte.screens.Char]) -> str:
    return "".join(line[x].data for x in sorted(line))


@pytest.mark.parametrize("size", [(40, 10), (120, 30), (60, 24), (80, 12), (12, 3)], ids=str)
def test_a_resize_leaves_no_garbage(size: tuple[int, int]) -> None:
    """After the terminal has changed in mid-run there is one frame on it, of the new size, and in the end none."""
    with running("--items", "24", "-c", "4", "--speed", "3", "--trouble", "0") as process:
        process.wait(lambda text: text.count("╭") == 4 and "praise" in text)
        process.resize(*size)
        places = {(40, 10): 1, (120, 30): 4, (60, 24): 2, (80, 12): 2, (12, 3): 0}[size]
        process.wait(
            lambda text: text.count("╭") == text.count("╯") == places and text.count("/24") == 1 and " {" not in text
        )
        process.resize(80, 24)
        process.wait(lambda text: text.count("╭") == text.count("╯") == 4 and text.count("/24") == 1)
        assert process.end() == 0
        is_clean(process)
        assert "✓ 24 of 24 items answered" in process.text


def test_an_interruption_gives_the_terminal_back() -> None:
    """Ctrl-C in mid-run removes the panels, shows the cursor and lets the terminal echo again."""
    with running("--items", "400", "-c", "4") as process:
        process.wait(lambda text: "praise" in text)
        process.type(b"\x03")
        assert process.end() == 130
        is_clean(process)
        assert process.text.rstrip().endswith("interrupted")


def test_impatient_keys_do_not_tear_the_panels() -> None:
    """What is typed during a run is neither shown nor moves anything."""
    with running("--items", "12", "-c", "4", "--speed", "4") as process:
        process.wait(lambda text: "praise" in text)
        assert not process.echoes
        process.type(b"are we there yet\n\n\n")
        assert process.end() == 0
        is_clean(process)
        assert "yet" not in process.text
        assert process.text.startswith("column 'summary'")


def test_a_terminal_of_three_rows_has_its_progress_line() -> None:
    """At 12x3 nothing breaks: the counts are there, then the closing words."""
    with running("--items", "6", "--speed", "6", columns=12, rows=3) as process:
        process.wait(lambda text: "/6" in text)
        assert process.end() == 0
        is_clean(process)


def test_no_color_draws_without_colour() -> None:
    """NO_COLOR keeps the panels and drops every colour."""
    with running("--items", "4", "--speed", "2", NO_COLOR="1") as process:
        process.wait(lambda text: "╭─ 1 " in text)
        assert process.end() == 0
        colours = {cell.fg for line in process.screen.buffer.values() for cell in line.values()}
        assert colours <= {"default"}
        assert b"\x1b[36m" not in process.written


def test_a_dumb_terminal_gets_lines() -> None:
    """With TERM=dumb not one escape is written."""
    with running("--items", "4", "--speed", "2", TERM="dumb") as process:
        assert process.end() == 0
        assert b"\x1b" not in process.written
        assert b"mellea: " in process.written
        assert b"of 4 items answered" in process.written


def test_an_ascii_locale_gets_ascii() -> None:
    """With LC_ALL=C and no UTF-8 mode the panels are drawn with what ASCII has."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    with running("--items", "7", "-c", "4", "--speed", "2", **ascii_only) as process:
        process.wait(lambda text: "+- 1 -" in text)
        assert process.end() == 0
        assert process.written.isascii()
        assert "of 7 items answered" in process.text


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_terminal_that_wraps_old_lines_again_stays_clean() -> None:
    """Where old lines are wrapped again, as in tmux, there is still exactly one frame on the screen."""
    program = shutil.which("tmux") or ""
    name = f"mellea-test-{uuid.uuid4().hex}"

    def tmux(*arguments: str) -> str:
        done = subprocess.run([program, "-L", name, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def wait(state: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not state(text := tmux("capture-pane", "-p", "-t", "run")):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    command = f"env -u CI -u NO_COLOR PYTHONUTF8=1 {sys.executable} {REPLAY} --items 30 -c 4 --speed 3 --trouble 0; cat"
    tmux("-u", "-f", "/dev/null", "new-session", "-d", "-s", "run", "-x", "100", "-y", "30", command)
    try:
        wait(lambda text: text.count("╭") == 4 and "praise" in text)
        for columns, rows, places in ((50, 30, 3), (50, 14, 1), (110, 20, 4), (40, 10, 1), (100, 30, 4)):
            tmux("resize-window", "-t", "run", "-x", str(columns), "-y", str(rows))
            wait(lambda text, places=places: text.count("╭") == text.count("╯") == places and text.count("/30") == 1)  # type: ignore[misc]  # bound now
        wait(lambda text: "✓ 30 of 30 items answered" in text and "urgency" in text)
        assert not set(tmux("capture-pane", "-p", "-t", "run")) & set(PANEL)
    finally:
        tmux("kill-server")
