"""Lines about a run: its progress in words or as the line above live panels, what went wrong (`-v`), the event log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread
from typing import IO, Any, Self

from mellea_cli.errors import OutputError
from mellea_cli.events import (
    AttemptFailed,
    Counted,
    Event,
    ItemFinished,
    ItemStarted,
    Paused,
    RetryScheduled,
    RunFinished,
    StepFinished,
    TokensReceived,
)
from mellea_cli.ui.console import clean, count, duration, money, plural, rate, remaining, say
from mellea_cli.ui.run_state import Progress, RunState, Snapshot
from mellea_cli.ui.terminal import Writable
from mellea_cli.ui.theme import Line, Palette, Role, Span, width

_INTERVAL_S = 5.0
_FIRST_S = 1.0
# After so many intervals without any change, the line is printed nevertheless, as a sign of life.
_HEARTBEAT = 12


class PlainDisplay:
    """Prints a line of progress every `interval_s`, the first after a second. A context manager around the run."""

    def __init__(self, state: RunState, stream: IO[str], interval_s: float = _INTERVAL_S) -> None:
        self._state = state
        self._stream = stream
        self._interval_s = interval_s
        self._writing = Lock()
        self._stop = Flag()
        self._thread = Thread(target=self._print_regularly, name="mellea-plain", daemon=True)
        self._printed: tuple[object, ...] = ()
        self._unchanged = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop at once and print the remaining notes. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._print_notes()

    def line(self, text: str) -> None:
        """Print one line. `text` may come from anywhere."""
        with self._writing:
            try:
                say(self._stream, text)
            except (OSError, ValueError):  # the stream is closed: the run continues without messages
                self._stop.set()

    def rows(self, stream: IO[str]) -> Writable:
        return stream

    def refresh(self) -> None:
        """Print what is new: notes, and a line of progress when the numbers have changed."""
        self._print_notes()
        snapshot = self._state.snapshot()
        progress = snapshot.progress
        if not snapshot.started:
            return
        facts = (progress.finished, progress.failed, progress.total, progress.retries, snapshot.paused)
        self._unchanged = self._unchanged + 1 if facts == self._printed else 0
        if facts != self._printed or self._unchanged >= _HEARTBEAT:
            self._printed, self._unchanged = facts, 0
            self.line(plain_line(snapshot))

    def _print_notes(self) -> None:
        for note in self._state.take_notes():
            self.line(note)

    def _print_regularly(self) -> None:
        pause = min(_FIRST_S, self._interval_s)
        while not self._stop.wait(pause):
            self.refresh()
            pause = self._interval_s


def plain_line(snapshot: Snapshot) -> str:
    """The run's progress in words: `120/500 done, 3 failed, 2.4 items/s, 310 tok/s, 2m 38s left`."""
    progress = snapshot.progress
    of = f"/{count(progress.total)}" if progress.total is not None else ""
    parts = [f"{count(progress.finished)}{of} done"]
    if progress.failed:
        parts.append(f"{count(progress.failed)} failed")
    if progress.reused:
        parts.append(f"{count(progress.reused)} reused")
    if progress.retries:
        parts.append(plural(progress.retries, "retry", "retries"))
    parts += [f"{rate(progress.items_per_s)} items/s", f"{rate(progress.tokens_per_s)} tok/s"]
    if progress.cost is not None:
        parts.append(f"cost {money(progress.cost, progress.currency)}")
    if snapshot.held:
        parts.append(f"paused: {clean(snapshot.paused)}")
    elif snapshot.paused:
        parts.append(f"paused {snapshot.paused_s}s: {clean(snapshot.paused)}")
    elif progress.left_s is not None:
        at = f" until {progress.finish_at}" if progress.finish_at else ""
        parts.append(f"{remaining(progress.left_s)} left{at}")
    else:
        parts.append(f"{duration(progress.elapsed_s)} so far")
    return ", ".join(parts)


_GAP = 2
_LONGEST_BAR = 60


def progress_line(progress: Progress, columns: int, palette: Palette, *, paused_s: int = 0, held: bool = False) -> Line:
    """Bar, counts, rates, time left and failures in at most `columns` cells.

    What matters least is left out first: a zero count of retries, the rates, at last the bar. `paused_s`, and that the
    user has paused the run (`held`), are shown in place of the time left.
    """
    parts = _progress_parts(progress, paused_s, held=held)
    shortest_bar = 0 if progress.total is None or columns < 24 else 6 if columns < 60 else 8

    def taken() -> int:
        return sum(width(part) for _, part in parts) + _GAP * (len(parts) - 1)

    while len(parts) > 1 and taken() + (shortest_bar + _GAP if shortest_bar else 0) > columns:
        parts.remove(min(parts, key=lambda part: part[0]))
    line: list[Span] = []
    room = columns - taken() - _GAP
    if shortest_bar and room >= shortest_bar:
        line += _progress_bar(progress, min(room, _LONGEST_BAR), palette)
    for _, part in parts:
        if line:
            line.append(("plain", " " * _GAP))
        line += part
    return tuple(line) if width(line) <= columns else (("strong", _counts(progress)[:columns]),)


def _counts(progress: Progress) -> str:
    if progress.total is None:
        return f"{count(progress.finished)} done"
    total = count(progress.total)
    return f"{count(progress.finished):>{len(total)}}/{total}"


def _progress_parts(progress: Progress, paused_s: int, *, held: bool) -> list[tuple[int, Line]]:
    """The parts in their order, each with its importance."""
    if held:
        time_left: Line = (("warn", "paused"),)
    elif paused_s:
        time_left = (("warn", f"paused {remaining(paused_s)}"),)
    elif progress.left_s is None:
        elapsed = duration(float(int(progress.elapsed_s))).replace(".0s", "s")
        time_left = (("plain", elapsed), ("quiet", " so far"))
    else:
        time_left = (("plain", remaining(progress.left_s)), ("quiet", " left"))
    failed: Role = "bad" if progress.failed else "quiet"
    retries: Role = "warn" if progress.retries else "quiet"
    finish: Line = (("quiet", "until "), ("plain", progress.finish_at))
    cost: Line = (("quiet", "cost "), ("plain", money(progress.cost or 0.0, progress.currency)))
    return [
        (9, (("strong", _counts(progress)),)),
        (5, (("plain", f"{rate(progress.items_per_s):>3}"), ("quiet", " items/s"))),
        (4, (("plain", f"{rate(progress.tokens_per_s):>3}"), ("quiet", " tok/s"))),
        (8, time_left),
        *([(2, finish)] if progress.finish_at else []),
        *([(6, cost)] if progress.cost is not None else []),
        (7 if progress.failed else 1, ((failed, f"{count(progress.failed)} failed"),)),
        (3 if progress.retries else 0, ((retries, plural(progress.retries, "retry", "retries")),)),
    ]


def _progress_bar(progress: Progress, cells: int, palette: Palette) -> Line:
    glyphs, total = palette.glyphs, max(1, progress.total or 0)
    filled = min(cells, int(cells * progress.finished / total))
    failed = min(filled, max(1, round(cells * progress.failed / total))) if progress.failed else 0
    end = 1 if 0 < progress.finished < total and filled < cells else 0
    return (
        ("done", glyphs.bar * (filled - failed)),
        ("bad", glyphs.bar * failed),
        ("done", glyphs.bar_end * end),
        ("rest", glyphs.bar_rest * (cells - filled - end)),
    )


class TroubleLines:
    """An observer that prints a line for each failed attempt, retry, pause and failed item (`-v`)."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._ids: dict[int, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case TokensReceived():
                return
            case ItemStarted():
                self._ids[event.position] = event.id
            case AttemptFailed():
                self._say(f"{self._id(event.position)} {event.step}: {event.kind}: {event.message}")
            case RetryScheduled():
                when = f"in {duration(event.delay_s)}" if event.delay_s > 0 else "at once"
                what = "re-prompt" if event.reprompt else "retry"
                self._say(f"{self._id(event.position)} {event.step}: {what} {when}, attempt {event.attempt}")
            case Paused():
                self._say(f"paused for {duration(event.delay_s)}: {event.reason}")
            case ItemFinished():
                self._ids.pop(event.position, None)
                if not event.ok:
                    self._say(f"{event.id} failed: {event.kind}: {event.message}")
            case _:
                pass

    def _id(self, position: int) -> str:
        return self._ids.get(position, f"#{position + 1}")


_FLUSH_INTERVAL_S = 1.0


class EventLog:
    """An observer that appends each event to a file as a line of JSON (`--log-file`). A context manager.

    A line has `time` (UTC), `t` (seconds since the log was opened), `event` (the event's name), and the event's own
    fields. Feedback and answers are not logged: of an item's text only the length is written, and streamed chunks are
    counted and written with the end of their step.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(
                f"{path}: cannot write the log: {error.strerror or error}", hint="choose another --log-file"
            ) from error
        self._started = self._flushed = time.monotonic()
        self._streams: dict[tuple[int, str], list[float]] = {}
        # Why the log ended before the run did, such as a full disk. The run continues without it.
        self.fault: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        if self.fault is not None or self._file.closed or isinstance(event, Counted):
            return
        now = time.monotonic()
        if isinstance(event, TokensReceived):
            stream = self._streams.setdefault((event.position, event.step), [0, 0, now])
            stream[0] += 1
            stream[1] += len(event.text)
            return
        record: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "t": round(now - self._started, 3),
            "event": type(event).__name__,
            **asdict(event),
        }
        if isinstance(event, ItemStarted):
            record["text"] = len(event.text)
        elif isinstance(event, AttemptFailed | StepFinished):
            pieces, chars, first = self._streams.pop((event.position, event.step), (0, 0, now))
            record |= {"pieces": pieces, "chars": chars, "streamed_s": round(now - first, 3)}
        elif isinstance(event, ItemFinished):
            del record["values"]
            for key in [key for key in self._streams if key[0] == event.position]:
                del self._streams[key]
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if now - self._flushed >= _FLUSH_INTERVAL_S or isinstance(event, RunFinished):
                self._file.flush()
                self._flushed = now
        except OSError as error:
            self.fault = error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.fault = self.fault or error
