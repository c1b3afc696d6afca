"""One batch run: items from a source through the executor into the journal, and rows in input order into the sink."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from mellea_cli.engine.endpoint import EndpointFigures
from mellea_cli.engine.workers import Prefetcher, Stop, run_workers
from mellea_cli.errors import ExitCode, MelleaError, UsageError, first_error
from mellea_cli.events import Counted, ItemFinished, Observer, RunFinished, RunStarted
from mellea_cli.io.journal import Answers
from mellea_cli.items import Failure, Item, Outcome, Row, Success
from mellea_cli.messages import Usage
from mellea_cli.run.answer_cache import AnswerCache, Claim, UnitAnswers, completed, row_answers
from mellea_cli.run.executor import Executor, LocalExecutor, Servers
from mellea_cli.run.plan import Budget, RunPlan

_SHOWN_IDS = 5
# Between the steps of an item there is no request in flight for a moment, so it is looked more than once.
_WAIT_S, _WAITS = 0.1, 4
_SIGNALLED = (ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.HUNG_UP)
_FIRST_ROWS = (20, 50)
# Messages that differ in every row, such as those about a model's bad answers, must not fill the memory.
_MOST_MESSAGES = 50
# Group commit: one sync for all outcomes of this time, in seconds. One for each would halve the speed.
_GROUP_S = 0.06
_FULL_GROUP = 512
# Outcomes that wait to be written; with more of them the workers wait for the disk.
_MOST_WAITING = 4_096


Answer = Callable[[Item], Awaitable[Outcome | None]]
"""Answers an item; `None` when it was given back because the run is stopping."""


class Items(Protocol):
    """Source of a run's items."""

    @property
    def skipped(self) -> int:
        """Rows that could not be read and were left out."""

    def __iter__(self) -> Iterator[Item]:
        """The items in order, positions counted from 0."""

    def stop(self) -> None:
        """End an iteration that waits for input."""


class Rows(Protocol):
    """Where rows go, in any order."""

    def add(self, row: Row) -> None:
        """Take one row."""

    def flush(self) -> None:
        """Make the rows that were taken visible to others."""


class OrderedRows(Rows, Protocol):
    """Sink of a run's rows."""

    def finish(self) -> None:
        """Put the output into its place: no more rows will come."""

    def close(self) -> None:
        """Close the output; without `finish` before, an earlier output stays as it was."""


class LiveRun(Protocol):
    """A run that goes on, as its control sees it."""

    tally: Tally
    executor: Executor
    observer: Observer
    total: int | None

    def raise_workers(self, number: int) -> None:
        """Let so many items be worked on at once, if there are fewer workers."""


class Control(Protocol):
    """What a run is controlled by from outside while it goes on."""

    async def serve(self, run: LiveRun) -> None:
        """Take requests until cancelled; must not raise."""


class NothingAnswered(MelleaError):
    """None of the first rows was answered, and all failed alike: the rest would, too."""

    exit_code = ExitCode.STOPPED_EARLY
    kind = "nothing-answered"


class FirstRows:
    """The first rows that are asked about: when all of them fail alike, the run has no purpose."""

    def __init__(self, concurrency: int) -> None:
        self._rows = min(max(_FIRST_ROWS[0], 2 * concurrency), _FIRST_ROWS[1])
        self._failed = 0
        self._kind = ""
        self._over = False
        self._some_known = False

    def known(self, outcome: Outcome) -> None:
        """Take the outcome of a row that an earlier run has asked about."""
        self._some_known = self._some_known or isinstance(outcome, Success)

    def asked(self, outcome: Outcome, *, failed_before: bool) -> NothingAnswered | None:
        """Take the outcome of a row that was asked about.

        Returns:
            What ends the run, if this was the last of the first rows and all have failed alike.
        """
        # Where others have their answers, a row that fails once more says nothing about the rest.
        if self._over or not outcome.attempts or (failed_before and self._some_known):
            return None
        if isinstance(outcome, Success) or self._kind not in ("", outcome.kind):
            self._over = True
            return None
        self._kind = outcome.kind
        self._failed += 1
        if self._failed < self._rows:
            return None
        self._over = True
        return NothingAnswered(
            f"none of the first {self._failed} rows was answered, and all failed alike ({outcome.kind}):"
            f" {outcome.message}",
            hint="correct the cause, then type the same command again: it asks these rows again",
        )


@dataclass(frozen=True)
class RunIO:
    """Source, sink and journal of a run.

    Args:
        source: where items come from.
        rows: where rows go.
        to_row: makes an item's row of its outcome.
        answers: where answers are kept.
        total: number of items, when it is known.
        can_sweep: whether the source ends by itself, so that a run which stops early may read the rest of it for
            answers that are known already.
        retry_failed: whether items that failed in an earlier run are asked again.
        replaces: whether there is an output of an earlier run, which must not be replaced by fewer rows.
        carried: finds an answer that need not be asked for: to an earlier question that also answers this one, or one
            that a person has filled in; `None` from it means to ask.
        edited: the cells that a person has changed in the output, by the position of the item and the column.
        counted: the outcome as the output has it, where people have changed or corrected rows.
        check: raises when so many rows must not be put into the place of an earlier output.
        reading: answers an item by the full reading, which it gets before the item, or by a cheaper one; `None` for
            always the full one.
    """

    source: Items
    rows: OrderedRows
    to_row: Callable[[Item, Outcome], Row]
    answers: Answers
    total: int | None = None
    can_sweep: bool = False
    retry_failed: bool = True
    replaces: bool = False
    carried: Callable[[Item], Outcome | None] | None = None
    edited: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    counted: Callable[[Item, Outcome], Outcome] | None = None
    check: Callable[[int], None] = lambda _: None
    reading: Callable[[Answer, Item], Awaitable[Outcome | None]] | None = None


@dataclass(slots=True)
class Tally:
    """Counts of durable outcomes. `done + failed` is the number of rows in the output."""

    done: int = 0  # Items with an answer, reused and blank ones included
    failed: int = 0
    reused: int = 0  # Items with a text whose outcome was known already, from an earlier run or an identical text
    same: int = 0  # Reused items that share the answer of an identical text of this run
    alike: int = 0  # Reused items that have the answer of a nearly identical text, of any run
    blank: int = 0  # Items without any text: nothing was asked
    learned: int = 0  # Items that a row model has answered in this run, without a call
    offloaded: int = 0  # Texts that a batch queue has answered in this run
    calls: int = 0  # Requests that were sent, retries included
    usage: Usage = field(default_factory=Usage)
    queue_usage: Usage = field(default_factory=Usage)  # Part of `usage` that a batch queue has taken
    failures: Counter[str] = field(default_factory=Counter)  # Failed items by kind
    messages: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each message of a failure occurs, by kind."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """How often the output has each value of a categorical column, by column."""
    edited_cells: int = 0  # Cells that a person has changed in the output
    edited_rows: int = 0  # Rows with such cells
    edited_ids: list[str] = field(default_factory=list)  # The ids of the first of them

    @property
    def asked(self) -> int:
        """Items that were sent to a model."""
        return max(0, self.done + self.failed - self.reused - self.blank - self.learned)

    def count_edited(self, item: Item, cells: Mapping[str, Any]) -> None:
        """Add the cells of a row that a person has changed."""
        if not cells:
            return
        self.edited_cells += len(cells)
        self.edited_rows += 1
        if len(self.edited_ids) < _SHOWN_IDS:
            self.edited_ids.append(str(item.id))

    def commonest_failure(self) -> tuple[str, int]:
        """The commonest message of the commonest kind of failure, and how often that kind occurred."""
        if not self.failures:
            return "", 0
        kind, number = self.failures.most_common(1)[0]
        return self.messages[kind].most_common(1)[0][0], number

    def count(self, outcome: Outcome, *, reused: bool, same: bool = False, counted: Sequence[str] = ()) -> None:
        """Add one item's outcome.

        Args:
            outcome: what became of the item.
            reused: whether it was known.
            same: whether it is that of an identical text of this run.
            counted: the categorical columns among the own fields.
        """
        by = outcome.answered_by if isinstance(outcome, Success) else ""
        if isinstance(outcome, Success) and not outcome.attempts and not outcome.asked and not by:
            self.blank += 1  # nothing would have been asked, so nothing was saved
        elif reused:
            self.reused += 1
            self.same += same
        else:
            self.learned += bool(by)
            self.calls += outcome.attempts
            self.usage += outcome.usage
        if isinstance(outcome, Failure):
            self.failed += 1
            self.failures[outcome.kind] += 1
            messages = self.messages.setdefault(outcome.kind, Counter())
            if outcome.message in messages or len(messages) < _MOST_MESSAGES:
                messages[outcome.message] += 1
            return
        self.done += 1
        issues = outcome.values.get("issues")
        urgency = issues.get("urgency") if isinstance(issues, dict) else None
        for column, value in (("sentiment", outcome.values.get("sentiment")), ("urgency", urgency)):
            # An own field of that name is counted below.
            if isinstance(value, str) and value and column not in counted:
                self.values.setdefault(column, Counter())[value] += 1
        for column in counted:
            value = outcome.values.get(column)
            for one in value if isinstance(value, list) else [value]:
                if one not in (None, ""):
                    self.values.setdefault(column, Counter())[one if isinstance(one, str) else str(one).lower()] += 1

    def spend(self, usage: Usage, calls: int = 0) -> None:
        """Add what was paid for without an outcome: items that were cut short, and probes."""
        self.usage += usage
        self.calls += calls


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Args:
        tally: the counts.
        elapsed_s: seconds from the first item to the finished output.
        retries: requests that were sent again because of the transport.
        peak_in_flight: most requests in flight at once.
        concurrency: requests in flight that were allowed, or found to be the best.
        bad_rows: input rows that could not be read and were skipped.
        exit_code: exit code of the process.
        stopped: why it ended before its input did; empty when it did not.
        error: the error that ended it, if one did.
        finished: whether the output was put into its place; if not, an earlier one stays as it was.
        endpoints: figures of each endpoint of a pool; empty without a pool.
        repairs: answers whose form had to be repaired.
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
    repairs: int = 0

    @property
    def items_per_s(self) -> float:
        """Items sent to a model, per second, over the whole run."""
        return self.tally.asked / self.elapsed_s if self.elapsed_s > 0 else 0.0


# The recorder.


@dataclass(frozen=True, slots=True)
class Finished:
    """An item, its outcome and the answer's key.

    A `reused` outcome is stored already; `same` says that it is the one of an identical text of this run, `alike` of a
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
    """Takes finished items and writes them in groups, in a thread: makes them durable, writes their rows, publishes.

    Args:
        commit: makes outcomes durable, all or none.
        rows: where their rows go after that.
        to_row: makes an item's row of its outcome.
        announce: receives each group once it is durable, in the event loop.
        at_risk: outcomes that may be on their way to the disk before `put` waits: a crash or a full disk costs at most
            these answers and those in flight.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[tuple[bytes, Outcome]]], None],
        rows: Rows,
        to_row: Callable[[Item, Outcome], Row],
        announce: Callable[[Sequence[Finished]], None],
        *,
        at_risk: int = _FULL_GROUP,
    ) -> None:
        self._commit = commit
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
            with suppress(TimeoutError):
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
            self._commit(records)
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


# The run.


async def run_batch(
    plan: RunPlan, servers: Servers, run_io: RunIO, *, observer: Observer, stop: Stop, control: Control | None = None
) -> RunResult:
    """Run the plan over every item of the source in this process, with one model server or the endpoints of a pool.

    The output is finished at every orderly end, also when the run stops early, unless there are no rows or they would
    replace an earlier output without anything new. Every answer is in the journal.

    Returns:
        How it ended. An error that ended the run early is part of it and is not raised.

    Raises:
        OutputError: nothing more can be written.
    """
    executor = LocalExecutor(plan, servers, observer)
    return await run_with(plan, executor, run_io, observer=observer, stop=stop, control=control)


async def run_with(
    plan: RunPlan, executor: Executor, run_io: RunIO, *, observer: Observer, stop: Stop, control: Control | None = None
) -> RunResult:
    """Do what `run_batch` does, with items answered by `executor`."""
    run = _Run(plan, executor, run_io, observer, stop)
    return await run.to_end(control)


class _Run:
    """State of one run."""

    def __init__(self, plan: RunPlan, executor: Executor, run_io: RunIO, observer: Observer, stop: Stop) -> None:
        self._plan = plan
        self.executor = executor
        self._io = run_io
        self.observer = observer
        self._stop = stop
        self._error: MelleaError | None = None
        self._new = 0
        self._cut: list[Item] = []
        self._all_rows = True
        self._finished = False
        self._budget = Budget(plan.caps) if plan.caps.bind_items else None
        self.tally = Tally()
        self._counted = [column.name for column in plan.pipeline.columns if column.choices or column.is_categorical]
        self.total = run_io.total
        self._raise_workers: Callable[[int], None] = lambda _: None
        self._urgent = ("", "")
        self._waits_ended = False
        self._first_rows = FirstRows(plan.concurrency)
        self._answers = row_answers(run_io.answers, plan)
        self._cache = AnswerCache(self._answers, retry_failed=run_io.retry_failed)
        # A crash or a full disk costs at most the answers on their way to the disk, so few of them may be.
        at_risk = max(1, plan.concurrency // 4)
        self._recorder = Recorder(self._answers.commit, run_io.rows, run_io.to_row, self._announce, at_risk=at_risk)

    def raise_workers(self, number: int) -> None:
        self._raise_workers(number)

    async def to_end(self, control: Control | None = None) -> RunResult:
        """Run, record, finish the output."""
        clock = asyncio.get_running_loop().time
        start = clock()
        plan = self._plan
        self.observer(
            RunStarted(
                plan.pipeline.name,
                plan.pipeline.step_names,
                plan.model,
                plan.backend,
                plan.start or plan.concurrency,
                self._io.total,
            )
        )
        with self._deadline():
            await self._record_while_working(control)
        self.tally.spend(*self.executor.unassigned)
        try:
            await asyncio.to_thread(self._finish_output)
        except UsageError as error:
            # Every answer is in the journal: with the flag that the hint names, nothing is asked again.
            self._end_early(error)
        result = self._result(clock() - start)
        tally = result.tally
        self.observer(
            RunFinished(tally.done, tally.failed, tally.reused, tally.usage, result.elapsed_s, result.stopped)
        )
        return result

    async def _record_while_working(self, control: Control | None) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                background = [group.create_task(self.executor.maintain()), group.create_task(self._end_waits())]
                if control is not None:
                    background.append(group.create_task(control.serve(self)))
                try:
                    await self._work_through()
                finally:
                    for task in background:
                        task.cancel()
                    self._recorder.close()
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None

    async def _end_waits(self) -> None:
        """Once a signal asks to stop, give items up that only wait, such as for a server that is away.

        The items of a paused run wait for nothing but the user, so any reason to stop ends them.
        """
        stop = self._stop
        await stop.asked.wait()
        waited = 0
        while (stop.exit_code in _SIGNALLED or self._is_paused()) and not stop.now.is_set():
            waited = waited + 1 if self.executor.waits else 0
            if waited == _WAITS:
                self._waits_ended = True
                stop.now.set()
            await asyncio.sleep(_WAIT_S)

    def _is_paused(self) -> bool:
        client = self.executor.client
        return client is not None and client.balancer.paused

    async def _work_through(self) -> None:
        executor, source = self.executor, self._io.source
        async with Prefetcher(iter(source), ahead=max(64, 2 * executor.places), stop=source.stop) as items:

            def remaining() -> int | None:
                left = items.remaining(self._io.total)
                return None if left is None else self._plan.calls(left)

            executor.forecast(remaining)
            try:
                await run_workers(
                    items,
                    self._take,
                    workers=executor.places,
                    stop=self._stop,
                    grace_s=self._plan.grace_s,
                    slots=executor.slots,
                    on_start=self._note_growth,
                )
                if self._waits_ended:
                    self._stop.now.clear()  # only the waits were to end at once, not what follows
                if self._stop.asked.is_set():
                    self._all_rows = self._io.can_sweep and await self._sweep(items)
            except MelleaError as error:
                # The input broke off, or a prompt could not be rendered: what is done is still written.
                self._all_rows = False
                self._end_early(error)

    def _note_growth(self, raise_workers: Callable[[int], None]) -> None:
        self._raise_workers = raise_workers

    async def _sweep(self, items: Prefetcher[Item]) -> bool:
        """Go through the rest of the input of a run that stops, for answers that are known already.

        Returns:
            Whether it came to the end; a second request to stop ends it.
        """
        items.resume()
        for item in self._cut:
            await self._take(item)
        while not self._stop.now.is_set():
            if (later := await items.next()) is None:
                return True
            await self._take(later)
        return False

    async def _take(self, item: Item) -> None:
        """Answer one item: use a known answer, wait for an identical text in flight, or ask."""
        cache, key = self._cache, self._plan.key(item.text, item.id, item.fields)
        shared = self._plan.shared_key(item, key)
        carried = self._io.carried
        while True:
            outcome = cache.known(key) or (cache.known(shared) if shared != key else None)
            if carried is not None and not isinstance(outcome, Success):
                outcome = carried(item) or outcome
            if outcome is None and self._stop.asked.is_set():
                # Nothing is asked any more; a failure of an earlier run is better than no row.
                outcome = cache.stored(key) or cache.stored(shared)
                if outcome is None:
                    return
            if outcome is not None:
                break
            claim = await cache.claim(shared, item)
            if claim is Claim.ASK:
                await self._ask(key, shared, item)
                return
            if claim is Claim.PARKED:
                return
        alike = shared != key and cache.known(key) is None and cache.known(shared) is not None
        same = cache.is_of_this_run(shared if alike else key)
        if alike and self._plan.near is not None:
            outcome = self._plan.near.answered(outcome, shared)
        if not same:
            self._first_rows.known(outcome)
        await self._recorder.put(Finished(item, outcome, key, reused=True, same=same and not alike, alike=alike))

    async def _ask(self, key: bytes, shared: bytes, item: Item) -> None:
        outcome, unanswered = None, [item]
        failed_before = self._cache.stored(key) is not None
        answer: Answer = self.executor.work
        if self._budget is not None:
            answer = partial(self._within_budget, budget=self._budget)
        if (reading := self._io.reading) is not None:
            answer = partial(reading, answer)
        try:
            if isinstance(self._answers, UnitAnswers) and (known := self._answers.known(key)):
                outcome = await answer(replace(item, known=known))
                outcome = outcome and completed(outcome, known)
            else:
                outcome = await answer(item)
        except MelleaError as error:
            self._end_early(error)
        finally:
            # The answer is settled before it is recorded: the commit that makes it durable must come afterwards.
            unanswered = [] if outcome is not None else unanswered
            unanswered += self._cache.settle(shared, outcome, key)
            if self._stop.asked.is_set():
                # The sweep gives these items a row if their outcome is known.
                self._cut += unanswered
                unanswered = []
        if outcome is not None:
            self._new += 1
            if hopeless := self._first_rows.asked(outcome, failed_before=failed_before):
                self._end_early(hopeless)
            also = shared if shared != key else b""
            await self._recorder.put(Finished(item, outcome, key, reused=False, shared=also))
        for follower in unanswered:
            await self._take(follower)

    async def _within_budget(self, item: Item, budget: Budget) -> Outcome | None:
        """Ask about `item`, unless that would exceed a limit of the user's."""
        stopping = self._stop.asked.is_set()
        async with budget.turn():
            # The run may have been stopped while this item waited for its turn.
            if self._stop.asked.is_set() and not stopping:
                return None
            if reason := budget.before_one():
                self._stop.ask_once(reason, ExitCode.STOPPED_EARLY)
                return None
            outcome = None
            try:
                outcome = await self.executor.work(item)
            finally:
                if reason := budget.after_one(outcome):
                    self._stop.ask_once(reason, ExitCode.STOPPED_EARLY)
            return outcome

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Ask the run to stop at the user's deadline."""
        seconds = self._plan.caps.deadline_s
        if seconds is None:
            yield
            return
        reason = "the run's deadline has passed (--deadline)"
        timer = asyncio.get_running_loop().call_later(seconds, self._stop.ask_once, reason, ExitCode.STOPPED_EARLY)
        try:
            yield
        finally:
            timer.cancel()

    def _announce(self, group: Sequence[Finished]) -> None:
        """Count and publish outcomes that have become durable."""
        for one in group:
            if not one.reused:
                self._cache.committed((one.key, one.shared))
            if self._io.counted is not None:
                one = replace(one, outcome=self._io.counted(one.item, one.outcome))  # noqa: PLW2901
            self.tally.count(one.outcome, reused=one.reused, same=one.same, counted=self._counted)
            self.tally.alike += one.alike
            self.tally.count_edited(one.item, self._io.edited.get(one.item.position, {}))
            self.observer(finished_event(one))
            values = one.outcome.values if isinstance(one.outcome, Success) else {}
            issues = values.get("issues")
            judged = issues if isinstance(issues, dict) else values
            if judged.get("urgency") == "high":
                why = judged.get("main_complaint") or values.get("summary") or one.item.text
                self._urgent = str(one.item.id), str(why)
        self.observer(Counted(self.tally.values, self.tally.usage, *self._urgent))

    def _end_early(self, error: MelleaError) -> None:
        """Stop taking items because none can be answered any more; the first reason counts."""
        if self._error is None:
            self._error = error
            self._stop.ask_once(error.message, error.exit_code)

    def _finish_output(self) -> None:
        # A run that stops early must not replace an earlier output by less.
        less = not self._new or not self._all_rows
        rows = self.tally.done + self.tally.failed > 0
        if not self._stop.asked.is_set() or (rows and not (less and self._io.replaces)):
            self._io.check(self.tally.done + self.tally.failed)
            self._io.rows.finish()
            self._finished = True

    def _result(self, elapsed_s: float) -> RunResult:
        tally = self.tally
        bad_rows = self._io.source.skipped
        exit_code = ExitCode.SOME_FAILED if tally.failed or bad_rows else ExitCode.OK
        if self._stop.exit_code is not None:
            exit_code = self._stop.exit_code
        return RunResult(
            tally=tally,
            elapsed_s=elapsed_s,
            retries=self.executor.retries,
            peak_in_flight=self.executor.peak_in_flight,
            concurrency=self.executor.concurrency,
            bad_rows=bad_rows,
            exit_code=exit_code,
            stopped=self._stop.reason,
            error=self._error,
            finished=self._finished,
            endpoints=self.executor.endpoints,
            repairs=self.executor.repairs,
        )
