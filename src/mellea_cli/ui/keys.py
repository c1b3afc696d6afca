"""Keeps what is typed during a run from being echoed into the panels."""

from __future__ import annotations

import os
from typing import IO, Any


class Unechoed:
    """Turns the terminal's echo off between `start` and `stop`. What is typed waits for the shell; Ctrl-C works.

    Does nothing where there is no such terminal, or while the process is in the background: changing the terminal
    from there would stop the process.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._before: list[Any] | None = None

    def start(self) -> None:
        """Turn it off."""
        try:
            import termios
        except ImportError:  # Windows
            return
        try:
            if in_foreground(self._stream):
                before = termios.tcgetattr(self._stream.fileno())
                changed = [*before]
                changed[3] = before[3] & ~termios.ECHO
                termios.tcsetattr(self._stream.fileno(), termios.TCSANOW, changed)
                self._before = before
        except (OSError, ValueError, termios.error):  # not a terminal
            return

    def stop(self) -> None:
        """Put it back as it was. May be called twice."""
        before, self._before = self._before, None
        if before is None:
            return
        import termios

        try:
            if in_foreground(self._stream):
                termios.tcsetattr(self._stream.fileno(), termios.TCSANOW, before)
        except (OSError, ValueError, termios.error):  # the terminal is gone
            return


def in_foreground(stream: IO[str]) -> bool:
    """Whether this process may draw on the terminal: it has not been sent to the background.

    True also where the question makes no sense.
    """
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return True
