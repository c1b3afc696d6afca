"""One batch run: items from a source through the engine into the journal, and rows in input order into the sink."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from mellea_cli.engine.endpoint import EndpointFigures
from mellea_cli.engine.workers import Prefetcher, Stop, run_pool
from mellea_cli.errors import ExitCode, MelleaError
from mellea_cli.events import Observer, RunFinished, RunStarted
from mellea_cli.items import Failure, Item, Outcome, Row, Success
from mellea_cli.messages import Usage
from mellea_cli.run.answer_cache import AnswerCache, Answers, Claim
from mellea_cli.run.executor import Executor, LocalExecutor, Servers
from mellea_cli.run.plan import Budget, RunPlan
from mellea_cli.run.recorder import Commits, Finished, Recorder, telling

# The two ends of a run: where its items come from and where its rows and answers go.


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

    def flush(self) -> None:
        """Let others see the rows that were taken."""

    def finish(self) -> None:
        """All rows that there will be are there: put the output in its place."""

    def close(self) -> None:
        """Let go of the output; without `finish` before, an earlier output stays as it was."""


class AnswerStore(Answers, Commits, Protocol):
    """Where answers are kept: what a run needs of the journal."""

    def facts(self) -> dict[str, str]:
        """What is noted about the runs that wrote the answers."""

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something for later runs; other facts stay."""


def nothing_carried(_: Item) -> Outcome | None:
    """Know no answer but those to the question itself: the default."""
    return None


@dataclass(frozen=True)
class RunIO:
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
        replaces: whether there is an output of an earlier run, which less than all of it must not replace.
        carried: finds an answer to an earlier question that also answers this one; `None` from it means to ask.
    """

    source: Items
    rows: OrderedRows
    to_row: Callable[[Item, Outcome], Row]
    answers: AnswerStore
    total: int | None = None
    can_sweep: bool = False
    retry_failed: bool = True
    replaces: bool = False
    carried: Callable[[Item], Outcome | None] = nothing_carried


# What a run comes to, in figures.


@dataclass(slots=True)
class Tally:
    """Counts that grow with each outcome that has become durable.

    The counts reconcile: `done + failed` is the number of rows in the output.
    """

    done: int = 0
    """Items with an answer, reused and blank ones included."""
    failed: int = 0
    reused: int = 0
    """Items with a text whose outcome was there already, by an earlier run or an identical text."""
    same: int = 0
    """Those of them that were answered with an identical text of this run."""
    blank: int = 0
    """Items without any text: nothing was asked."""
    offloaded: int = 0
    """Texts that a batch queue has answered in this run."""
    calls: int = 0
    """Requests that were sent, retries included."""
    usage: Usage = field(default_factory=Usage)
    failures: Counter[str] = field(default_factory=Counter)
    """Failed items by kind."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each value of a categorical column occurs, by column."""

    def count(self, outcome: Outcome, *, reused: bool, same: bool = False) -> None:
        """Add one item's outcome; `same` when it is that of an identical text of this run."""
        if isinstance(outcome, Success) and not outcome.attempts:
            self.blank += 1  # there was nothing to ask, so nothing was saved
        elif reused:
            self.reused += 1
            self.same += same
        else:
            self.calls += outcome.attempts
            self.usage += outcome.usage
        match outcome:
            case Failure():
                self.failed += 1
                self.failures[outcome.kind] += 1
            case Success():
                self.done += 1
                self._count_values(outcome)

    def spend(self, usage: Usage, calls: int = 0) -> None:
        """Add what was paid for without an outcome: items that were cut short, questions of our own."""
        self.usage += usage
        self.calls += calls

    def _count_values(self, outcome: Success) -> None:
        sentiment = outcome.values.get("sentiment")
        issues = outcome.values.get("issues")
        urgency = issues.get("urgency") if isinstance(issues, dict) else None
        for column, value in (("sentiment", sentiment), ("urgency", urgency)):
            if isinstance(value, str):
                self.values.setdefault(column, Counter())[value] += 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Args:
        tally: the figures.
        elapsed_s: seconds from the first item to the finished output.
        retries: requests that were sent again because of the transport.
        peak_in_flight: the most requests in flight at once.
        concurrency: requests in flight that the run was allowed, or found to be the best.
        bad_rows: input rows that could not be read and were skipped.
        exit_code: what the process should end with.
        stopped: why it ended before its input did; empty when it did not.
        error: the error that ended it, if one did.
        finished: whether the output was put into its place; if not, an earlier one stays as it was.
        endpoints: what each endpoint of a pool did; empty without a pool.
    """

    tally: Tally
    elapsed_s: float
    retries: int
    peak_in_flight: int
    concurrency: int
    bad_rows: int
    exit_code: ExitCode
    stopped: str = ""
    error: MelleaError | None = None
    finished: bool = True
    endpoints: tuple[EndpointFigures, ...] = ()


async def run_batch(plan: RunPlan, servers: Servers, ends: RunIO, *, observer: Observer, stop: Stop) -> RunResult:
    """Run the plan over every item of the source, in this process, with one model server or the endpoints of a pool.

    The output is finished on every orderly end, also when the run stops early, unless there are no rows or they would
    replace an earlier output by nothing better. Whatever was answered is in the journal.

    Returns:
        How it ended. An error that ended the run early is in there; it has been dealt with and is not raised.

    Raises:
        OutputError: nothing more can be written.
    """
    return await run_with(plan, LocalExecutor(plan, servers, observer), ends, observer=observer, stop=stop)


async def run_with(plan: RunPlan, hands: Executor, ends: RunIO, *, observer: Observer, stop: Stop) -> RunResult:
    """Do what `run_batch` does, with `hands` to answer the items, wherever they are."""
    return await _Run(plan, hands, ends, observer, stop).to_end()


class _Run:
    """The parts of one run, wired together."""

    def __init__(self, plan: RunPlan, hands: Executor, ends: RunIO, observer: Observer, stop: Stop) -> None:
        self._plan = plan
        self._hands = hands
        self._ends = ends
        self._observer = observer
        self._stop = stop
        self._error: MelleaError | None = None
        self._new = 0
        self._cut: list[Item] = []
        self._all_rows = True
        self._finished = False
        self._budget = Budget(plan.caps)
        self._tally = Tally()
        self._tell = telling(observer)
        self._reuse = AnswerCache(ends.answers, retry_failed=ends.retry_failed)
        self._recorder = Recorder(
            ends.answers, ends.rows, ends.to_row, self._announce, leeway=max(1, plan.concurrency // 4)
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
                plan.start or plan.concurrency,
                self._ends.total,
            )
        )
        with self._deadline():
            await self._record_while_working()
        self._tally.spend(*self._hands.beside)
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
                tending = group.create_task(self._hands.tend())
                try:
                    await self._work_through()
                finally:
                    tending.cancel()
                    self._recorder.close()
        except BaseExceptionGroup as failures:
            error: BaseException = failures
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _work_through(self) -> None:
        workers = self._hands.places
        source = self._ends.source
        async with Prefetcher(iter(source), ahead=max(64, 2 * workers), stop=source.stop) as feed:
            self._hands.look_ahead(lambda: self._calls_left(feed))
            try:
                await run_pool(
                    feed,
                    self._take,
                    workers=workers,
                    stop=self._stop,
                    grace_s=self._plan.grace_s,
                    rooms=self._hands.rooms,
                )
                if self._stop.asked.is_set():
                    self._all_rows = self._ends.can_sweep and await self._sweep(feed)
            except MelleaError as error:
                # The input broke off, or a template of ours did not render: what is done is still written.
                self._all_rows = False
                self._end_early(error)

    def _calls_left(self, feed: Prefetcher[Item]) -> int | None:
        items = feed.left(self._ends.total)
        return None if items is None else self._plan.calls(items)

    async def _sweep(self, feed: Prefetcher[Item]) -> bool:
        """Go through what is left of the input of a run that stops, for answers that are there already.

        Returns:
            Whether it came to the end; a second wish to stop ends it.
        """
        feed.resume()
        for item in self._cut:
            await self._take(item)
        while not self._stop.now.is_set():
            if (later := await feed.next()) is None:
                return True
            await self._take(later)
        return False

    async def _take(self, item: Item) -> None:
        """One item: reuse what is there, wait for an identical text, or ask."""
        key = self._plan.key(item.text, item.id)
        while (outcome := self._reuse.known(key) or self._ends.carried(item)) is None:
            if self._stop.asked.is_set():
                # Nothing is asked any more: an earlier run's failure is better than no row.
                outcome = self._reuse.stored(key)
                if outcome is None:
                    return None
                break
            match await self._reuse.claim(key, item):
                case Claim.MINE:
                    return await self._ask(key, item)
                case Claim.PARKED:
                    return None
                case Claim.LANDED:
                    continue
        await self._recorder.put(Finished(item, outcome, key, reused=True, same=self._reuse.settled(key)))
        return None

    async def _ask(self, key: bytes, item: Item) -> None:
        outcome, left = None, [item]
        try:
            outcome = await self._within_budget(item)
        except MelleaError as error:
            self._end_early(error)
        finally:
            # Settled before it is handed over: the commit that makes it known for good must come after this.
            left = [] if outcome is not None else left
            left += self._reuse.settle(key, outcome)
            if self._stop.asked.is_set():
                # Whoever is left over has a row all the same if its outcome is known: the sweep sees to that.
                self._cut += left
                left = []
        if outcome is not None:
            self._new += 1
            await self._recorder.put(Finished(item, outcome, key, reused=False))
        for follower in left:
            await self._take(follower)

    async def _within_budget(self, item: Item) -> Outcome | None:
        """Ask about `item`, unless that would go beyond what the user allows the run."""
        stopped = self._stop.asked.is_set()
        async with self._budget.turn():
            # The run may have been stopped while this waited for its turn.
            if self._stop.asked.is_set() and not stopped:
                return None
            if reason := self._budget.before_one():
                self._stop.ask_once(reason, ExitCode.STOPPED_EARLY)
                return None
            return await self._counted(item)

    async def _counted(self, item: Item) -> Outcome | None:
        outcome = None
        try:
            outcome = await self._hands.work(item)
        finally:
            if reason := self._budget.after_one(outcome):
                self._stop.ask_once(reason, ExitCode.STOPPED_EARLY)
        return outcome

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Ask the run to stop when its time is up."""
        seconds = self._plan.caps.deadline_s
        if seconds is None:
            yield
            return
        ask = self._stop.ask_once
        timer = asyncio.get_running_loop().call_later(
            seconds, ask, "the run's deadline has passed (--deadline)", ExitCode.STOPPED_EARLY
        )
        try:
            yield
        finally:
            timer.cancel()

    def _announce(self, group: Sequence[Finished]) -> None:
        self._reuse.committed(one.key for one in group if not one.reused)
        for one in group:
            self._tally.count(one.outcome, reused=one.reused, same=one.same)
        self._tell(group)

    def _end_early(self, error: MelleaError) -> None:
        """No item can be answered any more: stop taking new ones, once, for the first reason there was."""
        if self._error is None:
            self._error = error
            self._stop.ask_once(error.message, error.exit_code)

    def _finish_output(self) -> None:
        # A run that stops early must not replace an earlier output by less.
        less = not self._new or not self._all_rows
        rows = self._tally.done + self._tally.failed > 0
        if not self._stop.asked.is_set() or (rows and not (less and self._ends.replaces)):
            self._ends.rows.finish()
            self._finished = True

    def _result(self, elapsed_s: float) -> RunResult:
        tally = self._tally
        bad_rows = self._ends.source.skipped
        exit_code = ExitCode.SOME_FAILED if tally.failed or bad_rows else ExitCode.OK
        if self._stop.exit_code is not None:
            exit_code = self._stop.exit_code
        return RunResult(
            tally=tally,
            elapsed_s=elapsed_s,
            retries=self._hands.retries,
            peak_in_flight=self._hands.peak_in_flight,
            concurrency=self._hands.concurrency,
            bad_rows=bad_rows,
            exit_code=exit_code,
            stopped=self._stop.reason,
            error=self._error,
            finished=self._finished,
            endpoints=self._hands.endpoints,
        )
