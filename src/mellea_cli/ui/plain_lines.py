"""Progress where there is no terminal to draw on: a line now and then, without a single escape."""

from __future__ import annotations

from threading import Event, Lock, Thread
from types import TracebackType
from typing import IO, Self

from mellea_cli.ui.console import Writable, clean, encodable
from mellea_cli.ui.number_format import count, duration, rate, remaining
from mellea_cli.ui.run_state import Progress, RunState, Snapshot
from mellea_cli.ui.theme import Line, Palette, Role, Span, width

# The one line that says how far the run is, cut to the width there is.

_GAP = 2
_BAR_MOST = 60


def progress_line(progress: Progress, columns: int, palette: Palette, *, paused_s: int = 0) -> Line:
    """Bar, counts, rates, time left, failures; never wider than `columns`.

    What matters least is left out first: an empty count of retries, the rates, at last the bar.

    Args:
        progress: the numbers.
        columns: cells there are.
        palette: signs of the terminal.
        paused_s: seconds for which nothing is sent; shown in place of the time left.
    """
    parts = _parts(progress, paused_s)
    least_bar = 0 if progress.total is None or columns < 24 else 6 if columns < 60 else 8
    while len(parts) > 1 and _taken(parts) + (least_bar + _GAP if least_bar else 0) > columns:
        parts.remove(min(parts, key=lambda part: part[0]))
    line: list[Span] = []
    room = columns - _taken(parts) - _GAP
    if least_bar and room >= least_bar:
        line += _bar(progress, min(room, _BAR_MOST), palette)
    for _, part in parts:
        if line:
            line.append(("plain", " " * _GAP))
        line += part
    return tuple(line) if width(line) <= columns else (("strong", _counts(progress)[:columns]),)


def _taken(parts: list[tuple[int, Line]]) -> int:
    return sum(width(part) for _, part in parts) + _GAP * (len(parts) - 1)


def _counts(progress: Progress) -> str:
    if progress.total is None:
        return f"{count(progress.settled)} done"
    total = count(progress.total)
    return f"{count(progress.settled):>{len(total)}}/{total}"


def _parts(progress: Progress, paused_s: int) -> list[tuple[int, Line]]:
    """What can be shown, in order of place, each with its weight: the lightest is left out first."""
    failed: Role = "bad" if progress.failed else "quiet"
    retried: Role = "warn" if progress.retried else "quiet"
    return [
        (9, (("strong", _counts(progress)),)),
        (5, (("plain", f"{rate(progress.items_per_s):>3}"), ("quiet", " items/s"))),
        (4, (("plain", f"{rate(progress.tokens_per_s):>3}"), ("quiet", " tok/s"))),
        (8, _time(progress, paused_s)),
        (7 if progress.failed else 2, ((failed, f"{count(progress.failed)} failed"),)),
        (3 if progress.retried else 1, ((retried, f"{count(progress.retried)} retried"),)),
    ]


def _time(progress: Progress, paused_s: int) -> Line:
    if paused_s:
        return (("warn", f"paused {remaining(paused_s)}"),)
    if progress.left_s is None:
        return (("plain", duration(float(int(progress.elapsed_s))).replace(".0s", "s")), ("quiet", " so far"))
    return (("plain", remaining(progress.left_s)), ("quiet", " left"))


def _bar(progress: Progress, cells: int, palette: Palette) -> Line:
    glyphs, total = palette.glyphs, max(1, progress.total or 0)
    filled = min(cells, int(cells * progress.settled / total))
    failed = min(filled, max(1, round(cells * progress.failed / total))) if progress.failed else 0
    end = 1 if 0 < progress.settled < total and filled < cells else 0
    return (
        ("done", glyphs.bar * (filled - failed)),
        ("bad", glyphs.bar * failed),
        ("done", glyphs.bar_end * end),
        ("rest", glyphs.bar_rest * (cells - filled - end)),
    )


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

    def __init__(self, view: RunState, stream: IO[str], every_s: float = _EVERY_S) -> None:
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
