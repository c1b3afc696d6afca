"""Durable first, then the row, then the screen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from mellea_cli.errors import OutputError
from mellea_cli.items import Failure, Item, Outcome, Row, Success
from mellea_cli.messages import Usage
from mellea_cli.run.batch import Finished, Recorder, finished_event


class Log:
    """A journal, a sink and a screen that write into one list."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.fail: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        self.entered.set()
        self.gate.wait(10)
        if self.fail is not None:
            raise self.fail
        self.log.append(("commit", len(records)))

    def add(self, row: Row) -> None:
        self.log.append(("row", row.item.position))

    def flush(self) -> None:
        """Rows are in the list at once."""

    def announce(self, group: Sequence[Finished]) -> None:
        self.log.extend(("told", one.item.position) for one in group)


def recorder(log: Log) -> Recorder:
    return Recorder(log.commit, log, lambda item, outcome: Row(item, {}), log.announce)


def finished(number: int, *, reused: bool = False) -> Finished:
    return Finished(Item(number, number, "t"), Success({}), bytes([number]), reused)


async def test_each_group_is_committed_then_written_then_told() -> None:
    """One commit for all that came together, and nothing is told before it is safe."""
    log = Log()
    record = recorder(log)
    async with asyncio.TaskGroup() as group:
        group.create_task(record.run())
        for number in range(3):
            await record.put(finished(number))
        record.close()
    assert log.log == [("commit", 3), ("row", 0), ("row", 1), ("row", 2), ("told", 0), ("told", 1), ("told", 2)]


async def test_what_is_stored_already_is_not_stored_again() -> None:
    """Reused outcomes are written and told only."""
    log = Log()
    record = recorder(log)
    async with asyncio.TaskGroup() as group:
        group.create_task(record.run())
        await record.put(finished(0, reused=True))
        record.close()
    assert log.log == [("row", 0), ("told", 0)]


async def test_a_commit_that_fails_tells_nothing() -> None:
    """The error comes through; no row, no event."""
    log = Log()
    log.fail = OutputError("disk full")
    record = recorder(log)
    await record.put(finished(0))
    record.close()
    with pytest.raises(OutputError, match="disk full"):
        await record.run()
    assert log.log == []


async def test_a_group_is_written_to_its_end_when_the_run_is_cancelled() -> None:
    """A thread in the middle of a commit is waited for: its rows follow their answers."""
    log = Log()
    log.gate.clear()
    record = recorder(log)
    running = asyncio.ensure_future(record.run())
    await record.put(finished(0))
    await asyncio.to_thread(log.entered.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    log.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log.log == [("commit", 1), ("row", 0)]


async def test_an_outcome_that_was_handed_over_is_kept_though_its_worker_is_cancelled() -> None:
    """Waiting for the disk may be cancelled; the outcome is still stored."""
    log = Log()
    record = recorder(log)
    record._unsafe = 10_000
    putting = asyncio.ensure_future(record.put(finished(0)))
    await asyncio.sleep(0)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    record.close()
    await record.run()
    assert ("commit", 1) in log.log


async def test_few_outcomes_are_on_their_way_at_once() -> None:
    """While a commit hangs only so many more can be brought; they go on when it is through."""
    log = Log()
    log.gate.clear()
    record = Recorder(log.commit, log, lambda item, outcome: Row(item, {}), log.announce, at_risk=3)
    brought = 0

    async def bring(number: int) -> None:
        nonlocal brought
        for step in range(10):
            await record.put(finished(number * 10 + step))
            brought += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(record.run())
        bringing = [group.create_task(bring(number)) for number in range(4)]
        await asyncio.to_thread(log.entered.wait, 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert record._at_risk <= 3 + 4
        assert brought <= 3
        log.gate.set()
        await asyncio.wait(bringing)
        record.close()
    assert sum(count for what, count in log.log if what == "commit") == 40


def test_events_say_what_became_of_an_item() -> None:
    """A failure carries its kind and message, a reused answer costs nothing."""
    item = Item(3, "x", "t")
    bad = finished_event(Finished(item, Failure("parse", "no", usage=Usage(5, 5)), b"k", reused=False))
    assert (bad.position, bad.id, bad.ok, bad.kind, bad.message, bad.usage) == (
        3,
        "x",
        False,
        "parse",
        "no",
        Usage(5, 5),
    )
    good = finished_event(Finished(item, Success({}, Usage(5, 5)), b"k", reused=True))
    assert (good.ok, good.usage, good.reused) == (True, Usage(), True)
