"""Events as lines: a few for people (`-v`), all of them for programs (`--log-file`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mellea_cli.errors import OutputError
from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Paused,
    RetryScheduled,
    RunFinished,
    StepFinished,
    TokensReceived,
)
from mellea_cli.ui.number_format import duration

_FLUSH_S = 1.0


class TroubleLines:
    """An observer that says in one line each what went wrong (`-v`).

    Args:
        say: prints a line; a display's `line`.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._ids: dict[int, str] = {}

    def __call__(self, event: Event) -> None:
        """Say it, if it is trouble."""
        match event:
            case TokensReceived():
                return
            case ItemStarted():
                self._ids[event.position] = event.id
            case AttemptFailed():
                self._say(f"{self._name(event.position)} {event.step}: {event.kind}: {event.message}")
            case RetryScheduled():
                when = f"in {duration(event.delay_s)}" if event.delay_s > 0 else "at once"
                self._say(f"{self._name(event.position)} {event.step}: attempt {event.attempt} {when}")
            case Paused():
                self._say(f"paused for {duration(event.delay_s)}: {event.reason}")
            case ItemFinished():
                self._ids.pop(event.position, None)
                if not event.ok:
                    self._say(f"{event.id} failed: {event.kind}: {event.message}")
            case _:
                pass

    def _name(self, position: int) -> str:
        return self._ids.get(position, f"#{position + 1}")


class EventLog:
    """An observer that writes each event as a line of JSON. A context manager.

    A line has `time` (UTC), `t` (seconds since the log was opened), `event` (the event's name), and the event's own
    fields. Texts stay out: of an item's text only the length is written, and tokens are counted instead of written,
    with their step's end.

    Args:
        path: the file; a file that is there is continued.

    Raises:
        OutputError: the file cannot be opened.
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
        self.fault: OSError | None = None
        """Why the log ended before the run did, such as a full disk; the run is not harmed by it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        """Write the event, or count it."""
        if self.fault is not None or self._file.closed:
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
            for key in [key for key in self._streams if key[0] == event.position]:
                del self._streams[key]
        self._write(record, flush=now - self._flushed >= _FLUSH_S or isinstance(event, RunFinished))
        self._flushed = now if now - self._flushed >= _FLUSH_S else self._flushed

    def close(self) -> None:
        """Write what is left and close the file. May be called twice."""
        try:
            self._file.close()
        except OSError as error:
            self.fault = self.fault or error

    def _write(self, record: dict[str, Any], *, flush: bool) -> None:
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if flush:
                self._file.flush()
        except OSError as error:
            self.fault = error
