"""Folds a run's events into plain state that a display can draw whenever it likes.

Events come from the run's thread, snapshots are taken by a display's thread. There is no terminal and no Rich here.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from mellea_cli.events import (
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunFinished,
    RunStarted,
    TokensReceived,
    TotalKnown,
)
from mellea_cli.ui.itemstate import ItemState, PanelView
from mellea_cli.ui.progress import Progress, ProgressMeter
from mellea_cli.ui.slots import Slots

_NOTES_KEPT = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a display may show, at one moment."""

    started: bool
    finished: bool
    model: str
    backend: str
    concurrency: int
    progress: Progress
    panels: tuple[PanelView | None, ...]
    """One entry for each panel asked for; `None` where nothing has stood yet."""
    more: int
    """Items in flight that no panel shows."""
    paused: str
    """Why nothing is sent, or empty."""
    paused_s: int
    """Seconds until it goes on."""


class RunView:
    """An observer that remembers what a person wants to see.

    Memory is bounded: an excerpt of each item in flight, at most 16 Ki characters of each stream, a few failures.

    Args:
        clock: seconds from any origin, never falling back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._run = RunStarted("", (), "", "", 1, None)
        self._started = False
        self._finished = False
        self._meter = ProgressMeter(clock())
        self._active: dict[int, ItemState] = {}
        self._slots = Slots()
        self._pause = Paused("", 0.0)
        self._paused_until = 0.0
        self._notes: deque[str] = deque(maxlen=_NOTES_KEPT)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if type(event) is TokensReceived:  # the one kind that comes by the thousand: the shortest way for it
            with self._lock:
                item = self._active.get(event.position)
                if item is not None:
                    item.receive(event.step, event.text)
            return
        with self._lock:
            self._fold(event, self._clock())

    def _fold(self, event: Event, now: float) -> None:
        match event:
            case RunStarted():
                self._run = event
                self._started = True
                self._meter.start(now, total=event.total, concurrency=event.concurrency)
            case TotalKnown():
                self._meter.total = event.total
            case ItemStarted():
                self._active.pop(event.position, None)
                self._active[event.position] = ItemState(event.position, event.id, event.text, self._run.steps)
            case ItemFinished():
                self._finish(event, now)
            case Paused():
                self._pause = event
                self._paused_until = now + event.delay_s
            case Note():
                self._notes.append(event.message)
            case RunFinished():
                self._finished = True
            case _:
                if type(event) is RetryScheduled:
                    self._meter.retried += 1
                item = self._active.get(event.position)
                if item is not None:
                    item.fold(event, now)

    def _finish(self, event: ItemFinished, now: float) -> None:
        item = self._active.pop(event.position, None)
        self._meter.finish(event, item.streamed() if item is not None else 0.0)
        if item is not None:
            item.fold(event, now)

    def snapshot(self, panels: int | None = None) -> Snapshot:
        """What there is to show now.

        Args:
            panels: for how many items there is room; `None` looks at the numbers alone and leaves the panels as they
                are. An item stays in its panel as long as this does not shrink.
        """
        with self._lock:
            now = self._clock()
            places = self._slots.arrange(panels, self._active, now) if panels is not None else []
            shown = sum(1 for item in places if item is not None and self._active.get(item.position) is item)
            paused_s = max(0.0, self._paused_until - now)
            progress = self._meter.progress(
                now,
                in_flight=len(self._active),
                streaming=sum(item.streamed() for item in self._active.values()),
                paused_s=paused_s,
            )
            return Snapshot(
                started=self._started,
                finished=self._finished,
                model=self._run.model,
                backend=self._run.backend,
                concurrency=self._run.concurrency,
                progress=progress,
                panels=tuple(item.view(now) if item is not None else None for item in places),
                more=max(0, len(self._active) - shown),
                paused=self._pause.reason if paused_s else "",
                paused_s=math.ceil(paused_s),
            )

    def take_notes(self) -> list[str]:
        """The notes that have come since the last call, each handed out once."""
        with self._lock:
            notes = list(self._notes)
            self._notes.clear()
        return notes

    def failed_kinds(self) -> dict[str, int]:
        """Failed items by kind, the commonest first."""
        with self._lock:
            return dict(self._meter.kinds.most_common())
