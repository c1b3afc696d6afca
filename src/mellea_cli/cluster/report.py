"""What a worker tells the driver: outcomes, and what happened meanwhile, in few large pieces."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.cluster.share import Rhythm
from mellea_cli.errors import MelleaError
from mellea_cli.events import Event, ItemStarted, TokensReceived
from mellea_cli.items import Outcome

Ending = Outcome | MelleaError | None
"""How an item's visit to a worker ended: with an outcome, with an error that ends the run, or given back."""


def pack(value: Any) -> bytes:
    """The bytes of `value`: Ray passes bytes on as they are, and would take twice as long over objects."""
    return pickle.dumps(value, protocol=5)


def unpack(data: bytes) -> Any:
    """The value of bytes that `pack` made."""
    return pickle.loads(data)  # noqa: S301 - from a worker of this very run


@dataclass(slots=True)
class Report:
    """What has happened at a worker since its last report.

    Args:
        events: what observers are to hear, in order; before the endings.
        endings: items that are done with, by position.
        retries: requests sent again because of the transport, over the worker's life.
        peak_in_flight: the most requests that it ever had in flight.
    """

    events: list[Event] = field(default_factory=list)
    endings: list[tuple[int, Ending]] = field(default_factory=list)
    retries: int = 0
    peak_in_flight: int = 0


class Reporter:
    """Gathers a worker's report; as an observer it takes the engine's events.

    Pieces of text are put together: one event for each answer and report. An item's own text is left out: the driver
    has it.

    Args:
        rhythm: how often to report.
    """

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._report = Report()
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._texts_at = 0.0
        self._some = asyncio.Event()
        self._ended = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self._some.set()
        if isinstance(event, TokensReceived):
            self._pieces.setdefault((event.position, event.step), []).append(event.text)
            return
        if isinstance(event, ItemStarted):
            event = ItemStarted(event.position, event.id, "")
        else:
            # What streamed before this event is told before it.
            self._flush(getattr(event, "position", None), getattr(event, "step", None))
        self._report.events.append(event)

    def end(self, position: int, ending: Ending) -> None:
        """An item is done with."""
        self._report.endings.append((position, ending))
        self._some.set()
        self._ended.set()

    async def next(self) -> Report:
        """Wait until there is something to tell, and a moment longer for what can go with it.

        Cancelling it loses nothing.
        """
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._rhythm.text_s)
        if self._ended.is_set():
            await asyncio.sleep(self._rhythm.linger_s)
        return self._take(asyncio.get_running_loop().time())

    def _take(self, now: float) -> Report:
        if now - self._texts_at >= self._rhythm.text_s:
            self._texts_at = now
            for position, step in list(self._pieces):
                self._flush(position, step)
        report, self._report = self._report, Report()
        self._ended.clear()
        if not self._pieces:
            self._some.clear()
        return report

    def _flush(self, position: int | None, step: str | None) -> None:
        if position is not None and step is not None and (pieces := self._pieces.pop((position, step), None)):
            self._report.events.append(TokensReceived(position, step, "".join(pieces)))
