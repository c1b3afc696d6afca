"""Progress where there is no terminal to draw on: a line now and then, without a single escape."""

from __future__ import annotations

from threading import Event, Lock, Thread
from types import TracebackType
from typing import IO, Self

from mellea_cli.ui.display import Writable
from mellea_cli.ui.figures import count, duration, rate, remaining
from mellea_cli.ui.plaintext import clean, encodable
from mellea_cli.ui.view import RunView, Snapshot

_EVERY_S = 5.0
_FIRST_S = 1.0
_HEARTBEAT = 12
"""After so many times without any change, the line is printed all the same."""


class PlainDisplay:
    """Prints a line every few seconds while a run goes on. A context manager.

    Args:
        view: what to show; an observer of the run.
        stream: where to print, usually stderr.
        every_s: seconds from line to line; the first comes after a second.
    """

    def __init__(self, view: RunView, stream: IO[str], every_s: float = _EVERY_S) -> None:
        self._view = view
        self._stream = stream
        self._every_s = every_s
        self._writing = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._tick, name="mellea-plain", daemon=True)
        self._told: tuple[object, ...] = ()
        self._silent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop at once; notes that nobody has read yet are printed. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._tell_notes()

    def line(self, text: str) -> None:
        """Print one line. `text` may come from anywhere."""
        with self._writing:
            try:
                told = f"mellea: {clean(text)}\n"
                self._stream.write(encodable(told, getattr(self._stream, "encoding", None) or "utf-8"))
                self._stream.flush()
            except (OSError, ValueError):  # nobody listens any more: the run goes on without talk
                self._stop.set()

    def rows(self, stream: IO[str]) -> Writable:
        """The stream itself: lines do not disturb each other."""
        return stream

    def refresh(self) -> None:
        """Print what is new: notes, and a line of progress when the numbers have changed."""
        self._tell_notes()
        snapshot = self._view.snapshot()
        progress = snapshot.progress
        if not snapshot.started:
            return
        facts = (progress.settled, progress.failed, progress.total, progress.retried, snapshot.paused)
        self._silent = self._silent + 1 if facts == self._told else 0
        if facts != self._told or self._silent >= _HEARTBEAT:
            self._told, self._silent = facts, 0
            self.line(plain_line(snapshot))

    def _tell_notes(self) -> None:
        for note in self._view.take_notes():
            self.line(note)

    def _tick(self) -> None:
        pause = min(_FIRST_S, self._every_s)
        while not self._stop.wait(pause):
            self.refresh()
            pause = self._every_s


def plain_line(snapshot: Snapshot) -> str:
    """The run's progress in words: `120/500 done, 3 failed, 2.4 items/s, 310 tok/s, 2m 38s left`."""
    progress = snapshot.progress
    of = f"/{count(progress.total)}" if progress.total is not None else ""
    parts = [f"{count(progress.settled)}{of} done"]
    if progress.failed:
        parts.append(f"{count(progress.failed)} failed")
    if progress.reused:
        parts.append(f"{count(progress.reused)} reused")
    if progress.retried:
        parts.append(f"{count(progress.retried)} retried")
    parts += [f"{rate(progress.items_per_s)} items/s", f"{rate(progress.tokens_per_s)} tok/s"]
    if snapshot.paused:
        parts.append(f"paused {snapshot.paused_s}s: {clean(snapshot.paused)}")
    elif progress.left_s is not None:
        parts.append(f"{remaining(progress.left_s)} left")
    else:
        parts.append(f"{duration(progress.elapsed_s)} so far")
    return ", ".join(parts)
