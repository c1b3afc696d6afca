"""`mellea` on a pseudo-terminal, as a process of its own, and what its terminal shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

TIMEOUT_S = 60.0
_FOREIGN = ("CI", "NO_COLOR", "COLUMNS", "LINES", "OLLAMA_", "OPENAI_", "MELLEA_")


class Screen(pyte.HistoryScreen):
    """A terminal that answers when it is asked where its cursor is.

    Args:
        columns: its width.
        lines: its height.
        reply: takes what the terminal types.
    """

    def __init__(self, columns: int, lines: int, reply: Callable[[bytes], object]) -> None:
        super().__init__(columns, lines, history=5000)
        self._reply = reply

    def write_process_input(self, data: str) -> None:
        self._reply(data.encode())

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Keep the text around the cursor, as terminals do; columns are cut off, as xterm does it."""
        rows = lines or self.lines
        above = max(0, self.cursor.y + 1 - rows)
        for _ in range(above):
            self.history.top.append(self.buffer[0])
            self.buffer = type(self.buffer)(
                self.buffer.default_factory, {y - 1: line for y, line in self.buffer.items() if y >= 1}
            )
        self.cursor.y -= above
        for y in [y for y in self.buffer if y >= rows]:
            del self.buffer[y]
        self.lines = rows
        super().resize(rows, columns)


class Terminal:
    """A program on a pseudo-terminal.

    Args:
        command: the program and its arguments.
        size: columns and rows.
        environ: its environment.
        folder: where it runs.
    """

    def __init__(self, command: Sequence[str], size: tuple[int, int], environ: Mapping[str, str], folder: Path) -> None:
        self.screen = Screen(*size, self.type)
        self._emulator = pyte.ByteStream(self.screen)
        self.written = b""
        self._main, side = pty.openpty()
        self._set_size(*size)
        self.program = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - the only way to its own terminal
        )
        os.close(side)

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(row.rstrip() for row in self.screen.display)

    @property
    def all(self) -> str:
        """What has scrolled away, and then what the screen shows."""
        gone = ["".join(line[x].data for x in sorted(line)).rstrip() for line in self.screen.history.top]
        return "\n".join([*gone, self.text])

    def wait(self, state: Callable[[str], bool], timeout_s: float = TIMEOUT_S) -> str:
        """Read until the screen is in this state; returns what it shows."""
        deadline = time.monotonic() + timeout_s
        while not state(self.text):
            assert time.monotonic() < deadline, f"it never came to that:\n{self.text}"
            if not self._read():
                assert state(self.text), f"the program ended before:\n{self.text}"
        return self.text

    def type(self, keys: bytes | str) -> None:
        """Press keys."""
        os.write(self._main, keys.encode() if isinstance(keys, str) else keys)

    def paste(self, text: str) -> None:
        """Paste text, as terminals do for programs that ask for it."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size while the program runs."""
        while select.select([self._main], [], [], 0)[0] and self._read():
            pass
        self._set_size(columns, rows)
        self.screen.resize(rows, columns)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._main)[3] & termios.ECHO)

    def end(self) -> int:
        """Read all that is left; returns the exit code."""
        while self._read():
            pass
        return self.program.wait(TIMEOUT_S)

    def close(self) -> None:
        """Make sure that nothing is left running."""
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
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
def mellea_on_terminal(
    *arguments: str, folder: Path, size: tuple[int, int] = (80, 24), **more: str
) -> Iterator[Terminal]:
    """Run `mellea ARGUMENTS` on a terminal of its own, with state and configuration in `folder`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environ |= {"TERM": "xterm-256color", "PYTHONUTF8": "1", "INPUTRC": "/dev/null", "HF_HUB_OFFLINE": "1"}
    environ |= {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("STATE", "CONFIG", "CACHE")}
    terminal = Terminal([sys.executable, "-m", "mellea_cli", *arguments], size, environ | more, folder)
    try:
        yield terminal
    finally:
        terminal.close()
