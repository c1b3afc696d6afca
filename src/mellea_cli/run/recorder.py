"""Where a run's rows leave it: in input order into the output, failed ones into the dead letters as well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.events import ItemFinished, Observer
from mellea_cli.items import Failure, Item, Outcome, Row
from mellea_cli.messages import Usage

# Makes outcomes durable in groups, then writes their rows, then tells the screen: in this order, always.

# One sync for all outcomes of this long: a sync for each would halve the speed.
_GROUP_S = 0.06
_FULL_GROUP = 512
# Outcomes that wait to be written; beyond it the workers wait for the disk.
_MOST_WAITING = 4_096


class Commits(Protocol):
    """Where outcomes become durable."""

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store all `records` or none; return when they are safe."""


class Rows(Protocol):
    """Where rows go, in whatever order they come."""

    def add(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Let others see the rows that were taken."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An item, its outcome and the answer's key; a reused outcome is stored already, `same` when it was in this run."""

    item: Item
    outcome: Outcome
    key: bytes
    reused: bool
    same: bool = False


class Recorder:
    """Takes finished items and writes them down in groups, in a thread.

    Args:
        journal: where outcomes become durable.
        rows: where their rows go after that.
        to_row: makes an item's row of its outcome.
        announce: told of each group when it is safe, in the loop.
        leeway: outcomes that may be on their way to the disk before whoever brings one more waits for them: what a
            crash or a full disk may cost is this many answers and those in flight.
    """

    def __init__(
        self,
        journal: Commits,
        rows: Rows,
        to_row: Callable[[Item, Outcome], Row],
        announce: Callable[[Sequence[Finished]], None],
        *,
        leeway: int = _FULL_GROUP,
    ) -> None:
        self._journal = journal
        self._rows = rows
        self._to_row = to_row
        self._announce = announce
        self._leeway = leeway
        self._unsafe = 0
        self._waiting: list[Finished] = []
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def put(self, finished: Finished) -> None:
        """Hand over a finished item, at once; then wait while the disk is behind."""
        self._waiting.append(finished)
        self._unsafe += not finished.reused
        self._some.set()
        # It is begun at half of that, so that nobody has to wait while the disk keeps up.
        if len(self._waiting) >= _FULL_GROUP or 2 * self._unsafe >= self._leeway:
            self._hurry.set()
        self._make_room()
        await self._room.wait()

    def close(self) -> None:
        """Nothing more will come: write what is left and let `run` return."""
        self._closed = True
        self._some.set()
        self._hurry.set()

    async def run(self) -> None:
        """Write groups until closed.

        Raises:
            OutputError: a group could not be written; nothing of it has been announced.
        """
        while True:
            await self._some.wait()
            if not self._waiting and self._closed:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), _GROUP_S)
            group, self._waiting = self._waiting, []
            self._make_room()
            if not self._closed:
                self._some.clear()
                self._hurry.clear()
            await _uninterrupted(self._write, group)
            self._unsafe -= sum(not one.reused for one in group)
            self._make_room()
            self._announce(group)

    def _make_room(self) -> None:
        """Let those that bring outcomes go on, or make them wait."""
        if self._unsafe < self._leeway and len(self._waiting) < _MOST_WAITING:
            self._room.set()
        else:
            self._room.clear()

    def _write(self, group: Sequence[Finished]) -> None:
        records = [(one.key, one.outcome) for one in group if not one.reused]
        if records:
            self._journal.commit(records)
        for one in group:
            self._rows.add(self._to_row(one.item, one.outcome))
        self._rows.flush()


def finished_event(finished: Finished) -> ItemFinished:
    """The event that tells observers of a durable outcome."""
    outcome = finished.outcome
    failed = isinstance(outcome, Failure)
    return ItemFinished(
        position=finished.item.position,
        id=str(finished.item.id),
        ok=not failed,
        kind=outcome.kind if isinstance(outcome, Failure) else "",
        message=outcome.message if isinstance(outcome, Failure) else "",
        usage=Usage() if finished.reused else outcome.usage,
        latency_s=outcome.latency_s,
        reused=finished.reused,
    )


def telling(observer: Observer) -> Callable[[Sequence[Finished]], None]:
    """An announcement that passes each finished item on as an event."""

    def announce(group: Sequence[Finished]) -> None:
        for finished in group:
            observer(finished_event(finished))

    return announce


async def _uninterrupted(write: Callable[[Sequence[Finished]], None], group: Sequence[Finished]) -> None:
    """Run `write` in a thread to its end, also when this task is cancelled meanwhile: a half-written group is none."""
    future = asyncio.get_running_loop().run_in_executor(None, write, group)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if (error := future.exception()) is not None:
            raise error from None
        raise
