"""How a run is asked to stop: by a signal, or by a limit that the user set."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mellea_cli.errors import ExitCode

_SIGNALS = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HUNG_UP}

_FINISHING = "items in flight may finish; once more stops at once"


class Stop:
    """Carries the wish to stop to the pool.

    The first request to stop lets the items in flight finish; the second gives them up.

    Args:
        tell: told in a few words what happens now, each time a signal comes.

    Attributes:
        asked: set when the run should take no new items.
        now: set when it should not wait for those in flight either.
        reason: why, in a few words; empty while nobody asked.
        exit_code: what the process should end with because of it.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self._tell = tell
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.reason = ""
        self.exit_code: ExitCode | None = None

    def ask(self, reason: str, exit_code: ExitCode) -> None:
        """Ask to stop; asking again means at once."""
        if self.asked.is_set():
            self.now.set()
            return
        self.reason = reason
        self.exit_code = exit_code
        self.asked.set()

    def _on_signal(self, reason: str, exit_code: ExitCode) -> None:
        again = self.asked.is_set()
        self.ask(reason, exit_code)
        self._tell("stopping now; answered items are kept" if again else f"{reason}: {_FINISHING}")

    def ask_once(self, reason: str, exit_code: ExitCode) -> None:
        """Ask to stop unless somebody has: a limit that is reached while the run stops must not hurry it."""
        if not self.asked.is_set():
            self.ask(reason, exit_code)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask to stop on SIGINT, SIGTERM and SIGHUP while this is open; what was there before comes back after."""
        loop = asyncio.get_running_loop()
        caught: list[tuple[signal.Signals, Any]] = []
        for name, exit_code in _SIGNALS.items():
            number = getattr(signal, name, None)
            # A process started under nohup has SIGHUP ignored on purpose.
            if number is None or (before := signal.getsignal(number)) is signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._on_signal, f"stopped by {name}", exit_code)
            except (NotImplementedError, RuntimeError, ValueError):
                # Windows' loops, and threads other than the main one, cannot: Ctrl-C then raises as usual.
                continue
            caught.append((number, before))
        try:
            yield
        finally:
            for number, before in caught:
                loop.remove_signal_handler(number)
                signal.signal(number, before)
