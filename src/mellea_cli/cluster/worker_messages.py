"""What a worker tells the driver: outcomes, and what happened meanwhile, in few large pieces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.backends.base import BackendSettings
from mellea_cli.errors import MelleaError
from mellea_cli.events import Event, ItemStarted, TokensReceived
from mellea_cli.items import Outcome
from mellea_cli.run.plan import RunPlan

# What a worker is sent: its share of a run, as plain data that can be pickled.

# The driver reads so many reports a second at most, however many workers there are...
_REPORTS_PER_S = 200
_SOONEST_S, _LATEST_S = 0.02, 1.0
# ... and so many pieces of text, which only a screen needs.
_TEXTS_PER_S = 1_000
_TEXT_SOONEST_S = 0.1
# Items that lie ready at a worker, as a share of those it works on: the next one must be there when a place is free.
_AHEAD = 0.25


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a worker reports.

    Args:
        linger_s: from an outcome to the report with it, in seconds: those that come meanwhile share it.
        text_s: from one report with pieces of text to the next, in seconds.
    """

    linger_s: float = _SOONEST_S
    text_s: float = _TEXT_SOONEST_S

    @classmethod
    def of(cls, workers: int, concurrency: int) -> Rhythm:
        """The rhythm that keeps the driver cheap with so many workers and requests in flight."""
        linger_s = min(_LATEST_S, max(_SOONEST_S, workers / _REPORTS_PER_S))
        return cls(linger_s, max(_TEXT_SOONEST_S, linger_s, concurrency / _TEXTS_PER_S))


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's share of a run.

    Args:
        pipeline: the pipeline's name: both ends know what it stands for.
        facts: the other fields of the worker's `RunPlan`, its share of the limits among them.
        settings: what its backend is opened with, with network policy and key: a share goes nowhere but to its worker.
        pull: fetch the embedded model's file where it is missing.
        rhythm: how often it reports.
    """

    pipeline: str
    facts: Mapping[str, Any]
    settings: BackendSettings
    pull: bool
    rhythm: Rhythm

    @property
    def places(self) -> int:
        """Items that the worker holds at once: those it works on, and the next few."""
        concurrency: int = self.facts["concurrency"]
        return concurrency + math.ceil(concurrency * _AHEAD)

    def plan(self) -> RunPlan:
        """The worker's own plan.

        Raises:
            KeyError: there is no such pipeline.
        """
        from mellea_cli.pipelines.default_prompts import PIPELINES

        return RunPlan(pipeline=PIPELINES[self.pipeline], **self.facts)


def shares(plan: RunPlan, settings: BackendSettings, workers: int, *, pull: bool) -> list[Share]:
    """Split a run's limits among workers, so that all of them together keep what the user set.

    Requests in flight are split as evenly as they can be, the limits by the minute in proportion to them. What is
    counted over the whole run (failed items, tokens, money, time) is the driver's own business and not split.

    Args:
        plan: the whole run's.
        settings: what each backend is opened with.
        workers: how many there could be; more than requests in flight are of no use.
        pull: see `Share`.
    """
    workers = min(workers, plan.concurrency)
    rhythm = Rhythm.of(workers, plan.concurrency)
    split = []
    for number in range(workers):
        concurrency = plan.concurrency // workers + (number < plan.concurrency % workers)
        part = concurrency / plan.concurrency
        own = dataclasses.replace(
            plan,
            concurrency=concurrency,
            rpm=plan.rpm * part if plan.rpm else None,
            tpm=plan.tpm * part if plan.tpm else None,
        )
        facts = {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.name != "pipeline"}
        opened = dataclasses.replace(settings, concurrency=concurrency)
        split.append(Share(plan.pipeline.name, facts, opened, pull, rhythm))
    return split


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
