"""Worker pool: one task group, N workers, each takes its own next item until the items end or the run is stopped."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar

from mellea_cli.engine.concurrency import WorkerSlots
from mellea_cli.errors import ExitCode, first_error

T = TypeVar("T")

_SIGNALS = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HUNG_UP}


class Stop:
    """Carries a request to stop to the workers.

    The first request lets the items in flight finish, the second one gives them up.

    Args:
        tell: receives a sentence for the user each time a signal comes.

    Attributes:
        asked: set when the run should take no new items.
        now: set when it should not wait for items in flight either.
        reason: why, in a few words; empty while nothing has asked.
        exit_code: exit code of the process because of it.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self._tell = tell
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.reason = ""
        self.exit_code: ExitCode | None = None

    def ask(self, reason: str, exit_code: ExitCode) -> None:
        """Ask to stop; asking again means at once."""
        if self.asked.is_set():
            self.now.set()
            return
        self.reason = reason
        self.exit_code = exit_code
        self.asked.set()

    def ask_once(self, reason: str, exit_code: ExitCode) -> None:
        """Ask to stop unless that has been done: a limit that is reached during the stop must not hurry it."""
        if not self.asked.is_set():
            self.ask(reason, exit_code)

    def _on_signal(self, reason: str, exit_code: ExitCode) -> None:
        again = self.asked.is_set()
        self.ask(reason, exit_code)
        if again:
            self._tell("stopping now; finished items are kept")
        else:
            self._tell(f"{reason}: finishing the items in flight; press Ctrl-C again to stop now")

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask to stop on SIGINT, SIGTERM and SIGHUP while this is open; restore the old handlers afterwards."""
        loop = asyncio.get_running_loop()
        caught: list[tuple[signal.Signals, Any]] = []
        for name, exit_code in _SIGNALS.items():
            number = getattr(signal, name, None)
            # A process started under nohup ignores SIGHUP on purpose.
            if number is None or (before := signal.getsignal(number)) is signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._on_signal, f"stopped by {name}", exit_code)
            except (NotImplementedError, RuntimeError, ValueError):
                # Loops on Windows and in other threads cannot do it: Ctrl-C then raises as usual.
                continue
            caught.append((number, before))
        try:
            yield
        finally:
            for number, before in caught:
                loop.remove_signal_handler(number)
                signal.signal(number, before)


class Prefetcher(Generic[T]):
    """Reads an iterator ahead in a thread, so that a slow pipe does not hold up answers that stream.

    Memory stays flat: the thread is at most `ahead` items in front. An error of the iterator is raised to the next
    caller. Use it as an async context manager; its end stops the thread.

    Args:
        items: the iterator; only the thread touches it.
        ahead: items that are read ahead at most, at least 1.
        stop: ends an iterator that waits for input; called at the end.
    """

    def __init__(self, items: Iterator[T], *, ahead: int, stop: Callable[[], None] = lambda: None) -> None:
        self._items = items
        self._stop_source = stop
        self._room = threading.Semaphore(ahead)
        # Room is given back for several items at a time: waking the thread costs more than reading a row.
        self._batch = max(1, ahead // 4)
        self._owed = 0
        self._ready: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._stopping = False
        self._interrupted = False
        self._taken = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="mellea-prefetcher", daemon=True)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Prefetcher[T]:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._stop_source()
        self._room.release()
        await asyncio.to_thread(self._thread.join, 5.0)

    def interrupt(self) -> None:
        """Give no more items until `resume`; waiting callers get `None`."""
        self._interrupted = True
        self._arrived.set()

    def resume(self) -> None:
        """Give items again after `interrupt`."""
        self._interrupted = False

    def remaining(self, total: int | None) -> int | None:
        """Items that have not been taken, or `None` while that is unknown.

        Args:
            total: all items, where that is known before the end of the iterator.
        """
        if self._ended:
            return len(self._ready)
        return None if total is None else max(0, total - self._taken)

    async def next(self) -> T | None:
        """The next item, or `None` at the end. Raises what the iterator raised."""
        while self._interrupted or not self._ready:
            if self._interrupted:
                return None
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._arrived.clear()
            # The thread may have added an item, or ended, before the flag was cleared.
            if not (self._ready or self._ended or self._interrupted):
                await self._arrived.wait()
        item = self._ready.popleft()
        self._taken += 1
        self._owed += 1
        if self._owed == self._batch:
            self._room.release(self._batch)
            self._owed = 0
        return item

    def _read(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._stopping:
                    return
                self._ready.append(item)
                if len(self._ready) == 1:
                    self._wake()
        except BaseException as error:  # noqa: BLE001 - carried to the next caller, where it is raised
            self._error = error
        finally:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            # The loop has closed, so no caller waits.
            return


class _WorkerTasks:
    """The tasks of the workers, whose number may grow."""

    def __init__(self, group: asyncio.TaskGroup, worker: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        self._group = group
        self._worker = worker
        self._tasks: list[asyncio.Task[None]] = []

    def raise_to(self, number: int) -> None:
        """Start workers until there are so many; once all have ended there is nothing left to do."""
        if not self._tasks or self._running():
            group, new = self._group, range(len(self._tasks), number)
            self._tasks.extend(group.create_task(self._worker(one)) for one in new)

    async def end(self) -> None:
        """Wait until all have ended, those that were added meanwhile included."""
        while running := self._running():
            await asyncio.wait(running)

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if not task.done()]


async def run_workers(
    items: Prefetcher[T],
    work: Callable[[T], Awaitable[None]],
    *,
    workers: int,
    stop: Stop,
    grace_s: float,
    slots: WorkerSlots | None = None,
    on_start: Callable[[Callable[[int], None]], None] = lambda _: None,
) -> bool:
    """Call `work` on every item, `workers` at a time, until the items end or `stop` is asked for.

    Args:
        items: the items.
        work: handles one item to its end. An exception from it ends the pool.
        workers: highest number of items at a time.
        stop: when asked, no new item is taken; the rest stays in `items`.
        grace_s: how long items in flight may go on after that, in seconds.
        slots: which workers may take items; `None` for all.
        on_start: gets a function that raises the number of workers while the pool works.

    Returns:
        Whether every item that was taken has been finished.

    Raises:
        Exception: the first that `work` raised; the other workers are cancelled first. Or what the items raised: then
            the items in flight have been finished.
    """
    broken: list[Exception] = []

    async def worker(number: int) -> None:
        try:
            while not stop.asked.is_set():
                if slots is not None:
                    await slots.wait(number)
                try:
                    item = await items.next()
                except Exception as error:  # noqa: BLE001 - raised once the items in flight, which are paid for, are done
                    broken.append(error)
                    return
                if item is None:
                    return
                await work(item)
        finally:
            # A worker ends when there are no more items, so the waiting ones can end as well.
            if slots is not None:
                slots.release()

    async def watch_for_stop(deadline: asyncio.Timeout) -> None:
        await stop.asked.wait()
        items.interrupt()
        if slots is not None:
            slots.release()
        loop = asyncio.get_running_loop()
        deadline.reschedule(loop.time() + grace_s)
        await stop.now.wait()
        deadline.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
            tasks = _WorkerTasks(group, worker)
            tasks.raise_to(workers)
            on_start(tasks.raise_to)
            watching = group.create_task(watch_for_stop(deadline))
            await tasks.end()
            watching.cancel()
    except TimeoutError:
        if not stop.asked.is_set():
            raise
        return False
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None
    if broken:
        raise broken[0]
    return True
