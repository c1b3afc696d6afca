"""One batch run: items from a source through the engine into the journal, and rows in input order into the sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.engine.feed import Feed
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.outage import Outage
from mellea_cli.engine.pool import run_pool
from mellea_cli.engine.sender import Sender
from mellea_cli.engine.stop import Stop
from mellea_cli.engine.worker import Worker
from mellea_cli.errors import ExitCode, MelleaError
from mellea_cli.events import Observer, RunFinished, RunStarted
from mellea_cli.items import Item, Outcome, Row
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.record import Commits, Finished, Recorder, telling
from mellea_cli.run.reuse import Answers, Claim, Reuse
from mellea_cli.run.tally import RunResult, Tally


class Items(Protocol):
    """Where items come from: what a run needs of a source."""

    @property
    def skipped(self) -> int:
        """Rows that could not be read and were left out."""

    def __iter__(self) -> Iterator[Item]:
        """The items, in order, positions counted from 0."""

    def stop(self) -> None:
        """Make an iteration that waits for input end."""


class OrderedRows(Protocol):
    """Where rows go: what a run needs of the way to its sink."""

    def add(self, row: Row) -> None:
        """Take one row; rows may come in any order."""

    def finish(self) -> None:
        """All rows that there will be are there: put the output in its place."""

    def close(self) -> None:
        """Let go of the output; without `finish` before, an earlier output stays as it was."""


class AnswerStore(Answers, Commits, Protocol):
    """Where answers are kept: what a run needs of the journal."""


@dataclass(frozen=True)
class Ends:
    """The two ends of a run, and what it remembers.

    Args:
        source: where items come from.
        rows: where rows go.
        to_row: makes an item's row of its outcome.
        answers: where answers are kept.
        total: number of items, when it is known.
        can_sweep: whether the source ends by itself, so that a run which stops early may go through the rest of it
            for answers that are there already.
        retry_failed: whether items that failed in an earlier run are asked again.
    """

    source: Items
    rows: OrderedRows
    to_row: Callable[[Item, Outcome], Row]
    answers: AnswerStore
    total: int | None = None
    can_sweep: bool = False
    retry_failed: bool = True


async def run_batch(plan: RunPlan, backend: Backend, ends: Ends, *, observer: Observer, stop: Stop) -> RunResult:
    """Run the plan over every item of the source.

    The output is finished on every orderly end, also when the run stops early, unless nothing new was answered by
    then. Whatever was answered is in the journal.

    Returns:
        How it ended. An error that ended the run early is in there; it has been dealt with and is not raised.

    Raises:
        OutputError: nothing more can be written.
    """
    run = _Run(plan, backend, ends, observer, stop)
    return await run.to_end()


class _Run:
    """The parts of one run, wired together."""

    def __init__(self, plan: RunPlan, backend: Backend, ends: Ends, observer: Observer, stop: Stop) -> None:
        self._plan = plan
        self._ends = ends
        self._observer = observer
        self._stop = stop
        self._error: MelleaError | None = None
        self._new = 0
        self._tally = Tally()
        self._tell = telling(observer)
        self._reuse = Reuse(ends.answers, retry_failed=ends.retry_failed)
        self._recorder = Recorder(ends.answers, ends.rows, ends.to_row, self._announce)
        self._sender = Sender(
            backend,
            Limiter(plan.concurrency),
            policy=plan.policy,
            deadlines=plan.deadlines,
            outage=Outage(max_wait_s=plan.max_wait_s, observer=observer),
            observer=observer,
        )
        self._worker = Worker(
            plan.pipeline, plan.model, plan.options, self._sender, observer=observer, budget=plan.budget
        )

    async def to_end(self) -> RunResult:
        """Run, record, finish the output."""
        clock = asyncio.get_running_loop().time
        start = clock()
        plan = self._plan
        self._observer(
            RunStarted(
                plan.pipeline.name,
                plan.pipeline.step_names,
                plan.model,
                plan.backend,
                plan.concurrency,
                self._ends.total,
            )
        )
        await self._record_while_working()
        await asyncio.to_thread(self._finish_output)
        result = self._result(clock() - start)
        self._observer(
            RunFinished(
                result.tally.done,
                result.tally.failed,
                result.tally.reused,
                result.tally.usage,
                result.elapsed_s,
                result.stopped,
            )
        )
        return result

    async def _record_while_working(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                try:
                    await self._work_through()
                finally:
                    self._recorder.close()
        except BaseExceptionGroup as failures:
            error: BaseException = failures
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _work_through(self) -> None:
        workers = self._plan.concurrency
        source = self._ends.source
        async with Feed(iter(source), ahead=max(64, 2 * workers), stop=source.stop) as feed:
            try:
                await run_pool(
                    feed,
                    self._take,
                    workers=workers,
                    stop=self._stop,
                    grace_s=self._plan.grace_s,
                    sweep=self._ends.can_sweep,
                )
            except MelleaError as error:
                # The input broke off, or a template of ours did not render: what is done is still written.
                self._end_early(error)

    async def _take(self, item: Item) -> None:
        """One item: reuse what is there, wait for an identical text, or ask."""
        key = self._plan.key(item.text)
        while (outcome := self._reuse.known(key)) is None:
            if self._stop.asked.is_set():
                return None
            match await self._reuse.claim(key, item):
                case Claim.MINE:
                    return await self._ask(key, item)
                case Claim.PARKED:
                    return None
                case Claim.LANDED:
                    continue
        await self._recorder.put(Finished(item, outcome, key, reused=True))
        return None

    async def _ask(self, key: bytes, item: Item) -> None:
        outcome = None
        try:
            outcome = await self._worker.work(item)
            self._new += 1
            await self._recorder.put(Finished(item, outcome, key, reused=False))
        except MelleaError as error:
            self._end_early(error)
        finally:
            followers = self._reuse.settle(key, outcome)
        for follower in followers:
            await self._take(follower)

    def _announce(self, group: Sequence[Finished]) -> None:
        self._reuse.committed(one.key for one in group if not one.reused)
        for one in group:
            self._tally.count(one.outcome, reused=one.reused)
        self._tell(group)

    def _end_early(self, error: MelleaError) -> None:
        """No item can be answered any more: stop taking new ones, once, for the first reason there was."""
        if self._error is None:
            self._error = error
            if not self._stop.asked.is_set():
                self._stop.ask(error.message, error.exit_code)

    def _finish_output(self) -> None:
        # A run that could not do anything must not replace an earlier output by less.
        if not self._stop.asked.is_set() or self._new:
            self._ends.rows.finish()

    def _result(self, elapsed_s: float) -> RunResult:
        tally = self._tally
        bad_rows = self._ends.source.skipped
        exit_code = ExitCode.SOME_FAILED if tally.failed or bad_rows else ExitCode.OK
        if self._stop.exit_code is not None:
            exit_code = self._stop.exit_code
        return RunResult(
            tally=tally,
            elapsed_s=elapsed_s,
            retries=self._sender.retries,
            peak_in_flight=self._sender.limiter.peak,
            bad_rows=bad_rows,
            exit_code=exit_code,
            stopped=self._stop.reason,
            error=self._error,
        )
