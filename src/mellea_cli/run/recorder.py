"""Recorder: makes outcomes durable in groups, then writes their rows, then publishes them, always in this order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.events import ItemFinished
from mellea_cli.items import Failure, Item, Outcome, Row, Success
from mellea_cli.messages import Usage

# Group commit: one sync for all outcomes of this time, in seconds. One for each would halve the speed.
_GROUP_S = 0.06
_FULL_GROUP = 512
# Outcomes that wait to be written; with more of them the workers wait for the disk.
_MOST_WAITING = 4_096


class Commits(Protocol):
    """Where outcomes become durable."""

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        """Store all `records` or none; they are on the disk when this returns."""


class Rows(Protocol):
    """Where rows go, in any order."""

    def add(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Make the rows that were taken visible to others."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An item, its outcome and the answer's key.

    A `reused` outcome is stored already; `same` says that it was stored in this run, `alike` that it is the one of a
    nearly identical text. `shared` is the key that such texts share, where it is another one.
    """

    item: Item
    outcome: Outcome
    key: bytes
    reused: bool
    same: bool = False
    alike: bool = False
    shared: bytes = b""


class Recorder:
    """Takes finished items and writes them in groups, in a thread.

    Args:
        journal: where outcomes become durable.
        rows: where their rows go after that.
        to_row: makes an item's row of its outcome.
        announce: receives each group once it is durable, in the event loop.
        at_risk: outcomes that may be on their way to the disk before `put` waits: a crash or a full disk costs at most
            these answers and those in flight.
    """

    def __init__(
        self,
        journal: Commits,
        rows: Rows,
        to_row: Callable[[Item, Outcome], Row],
        announce: Callable[[Sequence[Finished]], None],
        *,
        at_risk: int = _FULL_GROUP,
    ) -> None:
        self._journal = journal
        self._rows = rows
        self._to_row = to_row
        self._announce = announce
        self._most_at_risk = at_risk
        self._at_risk = 0
        self._waiting: list[Finished] = []
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def put(self, finished: Finished) -> None:
        """Take a finished item at once; then wait while the disk is behind."""
        self._waiting.append(finished)
        self._at_risk += not finished.reused
        self._some.set()
        # The commit begins at half of the limit, so that no worker has to wait while the disk keeps up.
        if len(self._waiting) >= _FULL_GROUP or 2 * self._at_risk >= self._most_at_risk:
            self._hurry.set()
        if self._at_risk >= self._most_at_risk or len(self._waiting) >= _MOST_WAITING:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """Let `run` write the rest and return."""
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
            self._at_risk -= sum(not one.reused for one in group)
            self._make_room()
            self._announce(group)

    def _make_room(self) -> None:
        if self._at_risk < self._most_at_risk and len(self._waiting) < _MOST_WAITING:
            self._room.set()

    def _write(self, group: Sequence[Finished]) -> None:
        records = [(key, one.outcome) for one in group if not one.reused for key in (one.key, one.shared) if key]
        if records:
            self._journal.commit(records)
        for one in group:
            self._rows.add(self._to_row(one.item, one.outcome))
        self._rows.flush()


def finished_event(finished: Finished) -> ItemFinished:
    """The event for a durable outcome."""
    outcome = finished.outcome
    failure = outcome if isinstance(outcome, Failure) else None
    return ItemFinished(
        position=finished.item.position,
        id=str(finished.item.id),
        ok=failure is None,
        kind=failure.kind if failure is not None else "",
        message=failure.message if failure is not None else "",
        usage=Usage() if finished.reused else outcome.usage,
        latency_s=outcome.latency_s,
        reused=finished.reused,
        values=outcome.values if isinstance(outcome, Success) else {},
    )


async def _uninterrupted(write: Callable[[Sequence[Finished]], None], group: Sequence[Finished]) -> None:
    """Run `write` in a thread to its end, also when this task is cancelled meanwhile: no group is half written."""
    future = asyncio.get_running_loop().run_in_executor(None, write, group)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if (error := future.exception()) is not None:
            raise error from None
        raise
