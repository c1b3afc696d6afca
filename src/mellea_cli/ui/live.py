"""The live panels: a thread draws the view at a fixed rate, whatever rate the events come at."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Iterable
from threading import Event, Lock, Thread
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from mellea_cli.ui.display import Writable
from mellea_cli.ui.frame import Grid, Painter, plan
from mellea_cli.ui.keys import Unechoed
from mellea_cli.ui.paint import Palette
from mellea_cli.ui.plaintext import clean
from mellea_cli.ui.screen import Area
from mellea_cli.ui.view import RunView

if TYPE_CHECKING:
    from rich.console import Console

_FRAMES_PER_S = 8
_DUTY = 0.01
"""A frame may take this share of the time: when drawing is slower than that, frames get fewer."""
_SLOWEST_S = 0.5
"""But never fewer than this allows."""
_ASLEEP_S = 3.0
"""After a gap as long as this between two frames the process was stopped, and its shell has been writing."""
_LINES_WAITING = 5_000
"""With more lines than this to print, whoever prints waits for the terminal."""


class LiveDisplay:
    """Panels on a terminal while a run goes on. A context manager: when it is left, the terminal is as before.

    Args:
        view: what to show; an observer of the run.
        console: the terminal to show it on.
    """

    def __init__(self, view: RunView, console: Console) -> None:
        self._view = view
        self._file = console.file
        self._palette = Palette(console)
        self._painter = Painter(self._palette)
        self._area = Area(console.file, (console.width, console.height))
        self._keys = Unechoed(console.file)
        self._drawing = Lock()
        self._above: deque[str] = deque()
        self._stop = Event()
        self._thread = Thread(target=self._tick, name="mellea-live", daemon=True)
        self._wanted = 0
        self._beat = 0
        self.fault: Exception | None = None
        """What made the panels end before the run did; the run itself is not harmed by it."""

    def __enter__(self) -> Self:
        self._keys.start()
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing, take the panels away, print what is still to be printed, give the cursor back.

        May be called twice, and as a last act before the process ends in a hurry.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        with self._drawing:
            self._area.close(above=self._take_above())
        self._keys.stop()

    def line(self, text: str) -> None:
        """Print one line above the panels, with the next frame. `text` may come from anywhere."""
        self.print_lines([text])

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print several lines above the panels, with the next frame."""
        self._above.extend(self._palette.fit(clean(line, one_line=False).replace("\n", " ")) for line in lines)
        if self._stop.is_set() or len(self._above) >= _LINES_WAITING:
            with self._drawing:
                self._area.insert(self._take_above())

    def rows(self, stream: IO[str]) -> Writable:
        """A stream for writing data rows to, given the one where they should end up.

        When `stream` is the terminal that shows the panels, rows are printed above them, made harmless like any
        other text. Any other stream is returned as it is.
        """
        return _AbovePanels(self) if _same_terminal(stream, self._file) else stream

    def refresh(self) -> None:
        """Draw one frame now."""
        size = self._area.size()
        snapshot = self._view.snapshot(plan(size, self._wanted).places)
        # A run that has just begun says how many panels it can fill; they appear with the next frame.
        total = snapshot.progress.total
        self._wanted = snapshot.concurrency if total is None else min(snapshot.concurrency, total)
        grid = plan(size, self._wanted) if snapshot.panels else Grid()
        lines = self._painter.frame(snapshot, grid, size, self._beat) if snapshot.started else []
        self._beat += 1
        self._above.extend(self._palette.fit(clean(note)) for note in self._view.take_notes())
        with self._drawing:
            if not self._stop.is_set():
                self._area.draw(lines, size, above=self._take_above())

    def _take_above(self) -> str:
        lines = [self._above.popleft() for _ in range(len(self._above))]
        return "".join(f"{line}\n" for line in lines)

    def _tick(self) -> None:
        pause = 0.0
        last = time.monotonic()
        while not self._stop.wait(pause) and not self._area.gone:
            now = time.monotonic()
            if now - last > _ASLEEP_S:
                self._area.lose()
            last = now
            cost = time.thread_time()
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - a bug in the display must not cost the run its results
                self.fault = error
                self._stop.set()
                self._above.append(f"the panels end here, by a bug in them; the run goes on: {clean(repr(error))}")
                with self._drawing:
                    self._area.close(above=self._take_above())
            pause = min(max(1 / _FRAMES_PER_S, (time.thread_time() - cost) / _DUTY), _SLOWEST_S)


class _AbovePanels(io.TextIOBase):
    """Whole lines written here are printed above the panels."""

    def __init__(self, display: LiveDisplay) -> None:
        super().__init__()
        self._display = display
        self._rest = ""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._display.print_lines(lines)
        return len(text)


def _same_terminal(one: IO[str], other: IO[str]) -> bool:
    try:
        if not (one.isatty() and other.isatty()):
            return False
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):
        return False
    return first.st_rdev == second.st_rdev
