"""What driver and worker send each other: a worker's setup on the way there, reports on the way back."""

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

# Limits for the driver, whatever the number of workers: reports a second, and pieces of text a second, which only a
# screen needs.
_REPORTS_PER_S = 200
_MIN_DELAY_S, _MAX_DELAY_S = 0.02, 1.0
_TEXTS_PER_S = 1_000
_MIN_TEXT_INTERVAL_S = 0.1
# Items that wait at a worker, relative to those in flight: the next one must be there when a slot is free.
_READ_AHEAD = 0.25

ItemResult = Outcome | MelleaError | None
"""What a worker returns for an item: its outcome, an error that ends the run, or `None` for an item not started."""


@dataclass(frozen=True, slots=True)
class ReportIntervals:
    """How often a worker reports."""

    delay_s: float = _MIN_DELAY_S  # From an outcome to its report; later outcomes within them join the report
    text_s: float = _MIN_TEXT_INTERVAL_S  # Between reports with pieces of text

    @classmethod
    def for_workers(cls, workers: int, concurrency: int) -> ReportIntervals:
        """The intervals that bound the driver's work with so many workers and requests in flight."""
        delay_s = min(_MAX_DELAY_S, max(_MIN_DELAY_S, workers / _REPORTS_PER_S))
        return cls(delay_s, max(_MIN_TEXT_INTERVAL_S, delay_s, concurrency / _TEXTS_PER_S))


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Everything that one worker needs for a run, as plain data that can be pickled."""

    pipeline: Any  # Its name, or what it is made from: driver and worker have the same code
    plan_fields: Mapping[str, Any]  # The other fields of the worker's `RunPlan`, with its part of the limits
    settings: BackendSettings  # With network policy and API key: a setup is sent to its own worker only
    pull: bool  # Whether to download the embedded model where it is missing
    intervals: ReportIntervals
    inputs: tuple[str, ...] = ()  # The columns besides the text that prompts show

    @property
    def capacity(self) -> int:
        """Items that the worker holds at once: those in flight and the next few."""
        concurrency: int = self.plan_fields["concurrency"]
        return concurrency + math.ceil(concurrency * _READ_AHEAD)

    def plan(self) -> RunPlan:
        """The worker's own plan. Raises `UsageError` when the pipeline cannot be made there."""
        from mellea_cli.pipelines.confidence import for_model
        from mellea_cli.pipelines.own_fields import pipeline_of

        fields = self.plan_fields
        return RunPlan(for_model(pipeline_of(self.pipeline), fields["backend"], fields["model"]), **fields)


def split_plan(plan: RunPlan, settings: BackendSettings, workers: int, *, pull: bool) -> list[WorkerSetup]:
    """Split a run's limits among workers, so that all of them together keep what the user set.

    Requests in flight are split as evenly as possible, requests and tokens per minute in proportion to them. Limits of
    the whole run (failed items, tokens, cost, time) are counted by the driver and not split.
    """
    # More workers than there are requests in flight would be idle.
    workers = min(workers, plan.concurrency)
    intervals = ReportIntervals.for_workers(workers, plan.concurrency)
    setups = []
    for number in range(workers):
        concurrency = plan.concurrency // workers + (number < plan.concurrency % workers)
        part = concurrency / plan.concurrency
        own = dataclasses.replace(
            plan,
            concurrency=concurrency,
            rpm=plan.rpm * part if plan.rpm else None,
            tpm=plan.tpm * part if plan.tpm else None,
        )
        fields = {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.name != "pipeline"}
        own_settings = dataclasses.replace(settings, concurrency=concurrency)
        pipeline = plan.pipeline.source or plan.pipeline.name
        setups.append(WorkerSetup(pipeline, fields, own_settings, pull, intervals, plan.pipeline.inputs))
    return setups


def pack(value: Any) -> bytes:
    """Serialize a message. Ray passes bytes on as they are, and takes twice as long over objects."""
    return pickle.dumps(value, protocol=5)


def unpack(data: bytes) -> Any:
    """The message that `pack` serialized."""
    return pickle.loads(data)  # noqa: S301 - from a worker of this very run


@dataclass(slots=True)
class Report:
    """What has happened at a worker since its last report."""

    events: list[Event] = field(default_factory=list)  # In order; they come before the results
    results: list[tuple[int, ItemResult]] = field(default_factory=list)  # Finished items, by position
    retries: int = 0  # Retries of requests, over the worker's life
    peak_in_flight: int = 0  # Maximum number of requests in flight so far


class Reporter:
    """Collects a worker's report; as an observer it takes the engine's events.

    Pieces of text are joined: one event for each answer and report. An item's own text is left out, because the driver
    has it.
    """

    def __init__(self, intervals: ReportIntervals) -> None:
        self._intervals = intervals
        self._report = Report()
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._last_text_s = 0.0
        self._not_empty = asyncio.Event()
        self._has_result = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self._not_empty.set()
        if isinstance(event, TokensReceived):
            self._pieces.setdefault((event.position, event.step), []).append(event.text)
            return
        if isinstance(event, ItemStarted):
            event = ItemStarted(event.position, event.id, "")
        else:
            # Text that arrived before this event is reported before it.
            self._add_text(getattr(event, "position", None), getattr(event, "step", None))
        self._report.events.append(event)

    def finish(self, position: int, result: ItemResult) -> None:
        """Add the result of an item."""
        self._report.results.append((position, result))
        self._not_empty.set()
        self._has_result.set()

    async def next(self) -> Report:
        """Wait until there is something to report, and a moment longer for what can join it.

        Cancelling the wait loses nothing.
        """
        await self._not_empty.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_result.wait(), self._intervals.text_s)
        if self._has_result.is_set():
            await asyncio.sleep(self._intervals.delay_s)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._last_text_s >= self._intervals.text_s:
            self._last_text_s = now_s
            for position, step in list(self._pieces):
                self._add_text(position, step)
        report, self._report = self._report, Report()
        self._has_result.clear()
        if not self._pieces:
            self._not_empty.clear()
        return report

    def _add_text(self, position: int | None, step: str | None) -> None:
        if position is not None and step is not None and (pieces := self._pieces.pop((position, step), None)):
            self._report.events.append(TokensReceived(position, step, "".join(pieces)))
