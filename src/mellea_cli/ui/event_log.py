"""Event log: every event of a run as a line of JSON (`--log-file`)."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from mellea_cli.errors import OutputError
from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    RunFinished,
    StepFinished,
    TokensReceived,
)

_FLUSH_INTERVAL_S = 1.0


class EventLog:
    """An observer that writes each event as a line of JSON. A context manager.

    A line has `time` (UTC), `t` (seconds since the log was opened), `event` (the event's name), and the event's own
    fields. Feedback and answers are not logged: of an item's text only the length is written, and streamed chunks are
    counted and written with the end of their step.

    Args:
        path: the file; an existing file is appended to.

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
        """Why the log ended before the run did, such as a full disk. The run continues without it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if now - self._flushed >= _FLUSH_INTERVAL_S or isinstance(event, RunFinished):
                self._file.flush()
                self._flushed = now
        except OSError as error:
            self.fault = error

    def close(self) -> None:
        """Close the file. May be called twice."""
        try:
            self._file.close()
        except OSError as error:
            self.fault = self.fault or error
