"""The driver's side of a cluster: sends each item to the least loaded worker, and collects the outcomes.

The cluster decides where workers run. The driver knows which items each worker has: those of a lost worker go to the
others, and an item that was answered is never sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from mellea_cli import __version__
from mellea_cli.cluster.remote_worker import StartWorker, WorkerHandle, WorkerLost
from mellea_cli.cluster.worker_messages import ItemResult, Report, WorkerSetup, pack, unpack
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import BackendUnavailable, MelleaError, Scope, first_error
from mellea_cli.events import AttemptFailed, Event, ItemStarted, Note, Observer, Paused, StepFinished, StepStarted
from mellea_cli.items import Failure, Item, Outcome
from mellea_cli.run.executor import Executor

# A slot is closed after so many losses without an outcome in between.
_MAX_LOSSES = 3
# An item that was in flight at so many lost workers, one after the other, is taken to be the cause.
_MAX_LOSSES_OF_ITEM = 4
_CLOSE_S = 3.0
_START_NOTE_AFTER_S = 15.0
# Workers meet the same server: pauses that end within this time of each other are one pause.
_SAME_PAUSE_S = 0.05


class ClusterLost(BackendUnavailable):
    """No worker is left, and none can be started."""

    kind = "cluster-lost"
    scope = Scope.RUN


@asynccontextmanager
async def open_executor(
    setups: Sequence[WorkerSetup],
    start_worker: StartWorker,
    *,
    observer: Observer,
    stop: Stop,
    start_timeout_s: float = 300.0,
) -> AsyncIterator[ClusterExecutor]:
    """Open the executor of one run, with one worker for each setup; leaving ends the workers."""
    slots = [WorkerSlot(number, setup) for number, setup in enumerate(setups)]
    executor = ClusterExecutor(slots, start_worker, observer, stop, start_timeout_s=start_timeout_s)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(executor.run_slot(slot)) for slot in slots]
            stopping = group.create_task(executor.return_items_when_stopped())
            try:
                yield executor
            finally:
                await executor.close_workers()
                stopping.cancel()
                # Calls in flight end with their workers; cancelled, they would make Ray's client complain.
                await asyncio.wait(tasks, timeout=_CLOSE_S if executor.used else 0)
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None


class NotAnswered(Enum):
    """Why a worker has not answered an item."""

    RETURNED = "returned"  # The run stops, and the worker had not started the item
    LOST = "lost"  # The worker was lost before it started the item
    LOST_STARTED = "lost, started"  # The worker was lost after it started the item


@dataclass(slots=True)
class Assignment:
    """An item at a worker."""

    item: Item
    answer: asyncio.Future[Outcome | NotAnswered]
    started: bool = False  # Whether the worker has started the item
    steps: set[str] = field(default_factory=set)  # The steps that are in flight

    def give_back(self, why: NotAnswered) -> None:
        if not self.answer.done():
            self.answer.set_result(why)


@dataclass(slots=True, eq=False)
class WorkerSlot:
    """The place of one worker; a lost worker is replaced by another one."""

    number: int
    setup: WorkerSetup
    worker: WorkerHandle | None = None  # `None` while there is none
    node: str = ""  # The worker's machine
    closed: bool = False  # Whether no worker will be started any more
    assignments: dict[int, Assignment] = field(default_factory=dict)  # The worker's items, by position
    answered: int = 0  # Number of outcomes so far
    retries: int = 0
    peak_in_flight: int = 0
    _unsent: list[Item] = field(default_factory=list)
    _item_added: asyncio.Event = field(default_factory=asyncio.Event)
    _retries_of_lost: int = 0

    @property
    def load(self) -> float:
        """Items over capacity; at 1 and above the slot takes no items."""
        return len(self.assignments) / self.setup.capacity if self.worker is not None else 1.0

    def assign(self, item: Item) -> asyncio.Future[Outcome | NotAnswered]:
        """Give the worker an item; the future gets its outcome."""
        answer: asyncio.Future[Outcome | NotAnswered] = asyncio.get_running_loop().create_future()
        self.assignments[item.position] = Assignment(item, answer)
        # The worker gets only what the engine needs: of the row's other columns those that a prompt shows.
        shown = {name: item.fields.get(name) for name in self.setup.inputs}
        self._unsent.append(Item(item.position, str(item.id), item.text, shown, known=item.known))
        self._item_added.set()
        return answer

    async def next_items(self) -> list[Item]:
        while not self._unsent:
            self._item_added.clear()
            await self._item_added.wait()
        return self.take_unsent()

    def take_unsent(self) -> list[Item]:
        items, self._unsent = self._unsent, []
        return items

    def track(self, event: Event) -> Event:
        """Update the assignment that an event is about; returns the event with the item's text."""
        assignment = self.assignments.get(getattr(event, "position", -1))
        if assignment is None:
            return event
        match event:
            case ItemStarted():
                assignment.started = True
                return ItemStarted(event.position, event.id, assignment.item.text)
            case StepStarted():
                assignment.steps.add(event.step)
            case StepFinished():
                assignment.steps.discard(event.step)
        return event

    def finish(self, position: int, result: ItemResult) -> None:
        assignment = self.assignments.pop(position, None)
        if assignment is None or assignment.answer.done():
            return
        if isinstance(result, MelleaError):
            assignment.answer.set_exception(result)
        elif result is None:
            assignment.give_back(NotAnswered.RETURNED)
        else:
            self.answered += 1
            assignment.answer.set_result(result)

    def count(self, report: Report) -> None:
        """Add a worker's figures to those of the workers before it."""
        self.retries = self._retries_of_lost + report.retries
        self.peak_in_flight = max(self.peak_in_flight, report.peak_in_flight)

    def remove_worker(self) -> list[Assignment]:
        """Forget the worker; returns its assignments."""
        self.worker = None
        self._retries_of_lost = self.retries
        self._unsent.clear()
        assignments, self.assignments = list(self.assignments.values()), {}
        return assignments


class ClusterExecutor(Executor):
    """Answers items on the workers of a cluster; opened by `open_executor`."""

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        start_worker: StartWorker,
        observer: Observer,
        stop: Stop,
        *,
        start_timeout_s: float,
    ) -> None:
        self._slots = slots
        self._start_worker = start_worker
        self._observer = observer
        self._stop = stop
        self._start_timeout_s = start_timeout_s
        self._item_waits = asyncio.Event()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_error: MelleaError | None = None
        self._paused_until_s = 0.0
        self._closing = False

    @property
    def places(self) -> int:
        return sum(slot.setup.capacity for slot in self._slots)

    @property
    def slots(self) -> None:
        """No limit below `places`: each worker's setup bounds its requests in flight."""

    @property
    def concurrency(self) -> int:
        return sum(slot.setup.settings.concurrency or 0 for slot in self._slots)

    @property
    def used(self) -> bool:
        """Whether any item had to be answered."""
        return self._item_waits.is_set()

    @property
    def retries(self) -> int:
        return sum(slot.retries for slot in self._slots)

    @property
    def peak_in_flight(self) -> int:
        """The sum of the workers' peaks, which bounds the number of requests in flight so far."""
        return sum(slot.peak_in_flight for slot in self._slots)

    async def work(self, item: Item) -> Outcome | None:
        """Have a worker answer `item`; see `mellea_cli.run.executor.Executor.work`.

        The first call starts the workers: a run that finds every answer in its journal starts none.
        """
        self._item_waits.set()
        losses = 0
        while (slot := await self._least_loaded()) is not None:
            answer = await slot.assign(item)
            if not isinstance(answer, NotAnswered):
                return answer
            losses += answer is NotAnswered.LOST_STARTED
            if answer is NotAnswered.RETURNED or self._stop.asked.is_set():
                return None
            if losses >= _MAX_LOSSES_OF_ITEM:
                return Failure("worker-lost", f"{losses} workers were lost while they worked on it", attempts=losses)
        return None

    async def _least_loaded(self) -> WorkerSlot | None:
        """The least loaded slot, once one takes items; `None` when the run stops first.

        Raises:
            MelleaError: no worker is left.
        """
        while not self._stop.asked.is_set():
            if all(slot.closed for slot in self._slots):
                raise self._last_error or ClusterLost("no worker is left on the cluster")
            slot = min(self._slots, key=lambda slot: slot.load)
            if slot.load < 1:
                return slot
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        return None

    def _wake(self, count: int) -> None:
        while self._waiting and count > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    async def run_slot(self, slot: WorkerSlot) -> None:
        """Keep a worker running in a slot until the run ends or the slot is closed."""
        await self._item_waits.wait()
        losses = 0
        while not (slot.closed or self._closing or self._stop.asked.is_set()):
            worker = self._start_worker(slot.number)
            answered = slot.answered
            try:
                await self._run_worker(slot, worker)
            except WorkerLost as lost:
                losses = 1 if slot.answered > answered else losses + 1
                self._replace(slot, lost, last=lost.permanent or losses >= _MAX_LOSSES)
            except MelleaError as error:
                # The worker runs, but a fault of its machine keeps it from answering any item.
                self._close_slot(slot, error)
            finally:
                worker.kill()

    async def _run_worker(self, slot: WorkerSlot, worker: WorkerHandle) -> None:
        """Send items and collect reports until the worker is lost or reports that it cannot answer any item."""
        await self._start(worker)
        opened = unpack(await worker.call("open", __version__, pack(slot.setup)))
        if isinstance(opened, MelleaError):
            raise opened
        slot.node, slot.worker = opened, worker
        self._wake(slot.setup.capacity)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.call("run"))
                group.create_task(self._send(slot, worker))
                group.create_task(self._receive(slot, worker))
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None

    async def _start(self, worker: WorkerHandle) -> None:
        note_after_s = min(_START_NOTE_AFTER_S, self._start_timeout_s)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(worker.started(), note_after_s)
        self._observer(Note("waiting for a free CPU for a worker on the cluster (ray status shows what is in use)"))
        try:
            await asyncio.wait_for(worker.started(), self._start_timeout_s - note_after_s)
        except TimeoutError:
            why = f"the cluster had no free CPU for it within {self._start_timeout_s:.0f} s"
            raise WorkerLost(why, permanent=True) from None

    async def _send(self, slot: WorkerSlot, worker: WorkerHandle) -> None:
        while True:
            await worker.call("add_items", pack(await slot.next_items()))

    async def _receive(self, slot: WorkerSlot, worker: WorkerHandle) -> None:
        while True:
            report: Report = unpack(await worker.call("next_report"))
            for event in report.events:
                self._publish(slot, event)
            slot.count(report)
            last_slot = sum(not one.closed for one in self._slots) == 1
            unavailable: BackendUnavailable | None = None
            for position, result in report.results:
                if isinstance(result, BackendUnavailable) and not last_slot:
                    # The server of this worker is unavailable; the others may have another one, or a better route.
                    unavailable = result
                else:
                    slot.finish(position, result)
            self._wake(len(report.results))
            if unavailable is not None:
                raise unavailable

    def _publish(self, slot: WorkerSlot, event: Event) -> None:
        if isinstance(event, Paused):
            until_s = asyncio.get_running_loop().time() + event.delay_s
            if until_s <= self._paused_until_s + _SAME_PAUSE_S:
                return
            self._paused_until_s = until_s
        self._observer(slot.track(event))

    def _replace(self, slot: WorkerSlot, lost: WorkerLost, *, last: bool) -> None:
        """Give a lost worker's items to the others; close the slot unless another worker can be started."""
        slot.closed = last
        where = f" on {slot.node}" if slot.node else ""
        subject = f"the worker{where} was lost" if slot.worker else "a worker cannot start"
        what = f"{subject} ({lost.message})"
        if not (self._closing or self._stop.asked.is_set()):
            unfinished = len(slot.assignments)
            self._observer(Note(what + (f"; its {unfinished} unfinished items run elsewhere" if unfinished else "")))
        if last:
            self._last_error = ClusterLost(
                f"no worker is left on the cluster: {what}",
                hint="repair the cluster and run the same command again: finished items are kept",
            )
        for assignment in slot.remove_worker():
            for step in () if assignment.answer.done() else assignment.steps:
                self._observer(AttemptFailed(assignment.item.position, step, "worker-lost", what))
            assignment.give_back(NotAnswered.LOST_STARTED if assignment.started else NotAnswered.LOST)
        self._wake(len(self._waiting))

    def _close_slot(self, slot: WorkerSlot, error: MelleaError) -> None:
        slot.closed = True
        self._last_error = error
        if not all(one.closed for one in self._slots):
            where = f"{slot.node}: " if slot.node else "a worker cannot be used: "
            self._observer(Note(f"{where}{error.message}; the run continues without it"))
        for assignment in slot.remove_worker():
            assignment.give_back(NotAnswered.LOST)
        self._wake(len(self._waiting))

    async def return_items_when_stopped(self) -> None:
        """When the run is asked to stop, take back the items that no worker has started."""
        await self._stop.asked.wait()
        self._wake(len(self._waiting))
        for slot in self._slots:
            for item in slot.take_unsent():
                slot.finish(item.position, None)
            if slot.worker is not None:
                with contextlib.suppress(WorkerLost):
                    await slot.worker.call("return_unstarted")

    async def close_workers(self) -> None:
        """Give every worker a moment to stop its backend, then end it. No worker is started any more."""
        self._closing = True
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(worker.call("close") for worker in workers), return_exceptions=True)
        for worker in workers:
            worker.kill()
