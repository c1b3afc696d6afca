"""One task group, N workers, each pulls its own next item."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from mellea_cli.errors import ExitCode

# How a run is asked to stop: by a signal, or by a limit that the user set.

_SIGNALS = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HUNG_UP}

_FINISHING = "items in flight may finish; once more stops at once"


class Stop:
    """Carries the wish to stop to the pool.

    The first request to stop lets the items in flight finish; the second gives them up.

    Args:
        tell: told in a few words what happens now, each time a signal comes.

    Attributes:
        asked: set when the run should take no new items.
        now: set when it should not wait for those in flight either.
        reason: why, in a few words; empty while nobody asked.
        exit_code: what the process should end with because of it.
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

    def _on_signal(self, reason: str, exit_code: ExitCode) -> None:
        again = self.asked.is_set()
        self.ask(reason, exit_code)
        self._tell("stopping now; answered items are kept" if again else f"{reason}: {_FINISHING}")

    def ask_once(self, reason: str, exit_code: ExitCode) -> None:
        """Ask to stop unless somebody has: a limit that is reached while the run stops must not hurry it."""
        if not self.asked.is_set():
            self.ask(reason, exit_code)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask to stop on SIGINT, SIGTERM and SIGHUP while this is open; what was there before comes back after."""
        loop = asyncio.get_running_loop()
        caught: list[tuple[signal.Signals, Any]] = []
        for name, exit_code in _SIGNALS.items():
            number = getattr(signal, name, None)
            # A process started under nohup has SIGHUP ignored on purpose.
            if number is None or (before := signal.getsignal(number)) is signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._on_signal, f"stopped by {name}", exit_code)
            except (NotImplementedError, RuntimeError, ValueError):
                # Windows' loops, and threads other than the main one, cannot: Ctrl-C then raises as usual.
                continue
            caught.append((number, before))
        try:
            yield
        finally:
            for number, before in caught:
                loop.remove_signal_handler(number)
                signal.signal(number, before)


# Pulls items from a plain iterator in a thread, so that a slow pipe never holds up the answers that stream.

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Executor the items of an iterator to coroutines, each item once, in order.

    A thread of its own reads at most `ahead` items before they are asked for, so memory stays flat however long the
    input is. An error in the iterator is raised to whoever asks next. Use it as an async context manager: leaving it
    stops the thread.

    Args:
        items: the iterator; only the feed's thread touches it.
        ahead: items that are read ahead at most, at least 1.
        stop: makes an iterator that waits for input end; called when the feed is closed.
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
        self._thread = threading.Thread(target=self._read, name="mellea-feed", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Prefetcher[T]:
        self._loop = asyncio.get_running_loop()
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
        """Tell whoever waits for an item that there is none just now; what is left is kept until `resume`."""
        self._interrupted = True
        self._arrived.set()

    def resume(self) -> None:
        """Hand out items again after `interrupt`."""
        self._interrupted = False

    def left(self, total: int | None) -> int | None:
        """How many items are still to be taken, or `None` while nobody knows.

        Args:
            total: how many there are in all, where that is known before their end has been seen.
        """
        if self._ended:
            return len(self._ready)
        return None if total is None else max(0, total - self._taken)

    async def next(self) -> T | None:
        """The next item, or `None` when there is none left.

        Raises:
            Exception: what the iterator raised.
        """
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
        except BaseException as error:  # noqa: BLE001 - carried to the coroutine that asks next, where it is raised
            self._error = error
        finally:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker: the thread starts after it is set
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            # The loop has closed: nobody is waiting any more.
            return


class WorkerSlots(Protocol):
    """Says how many workers may have work."""

    async def room(self, number: int) -> None:
        """Wait until the worker of that number, counted from 0, may take an item."""

    def release(self) -> None:
        """Let every worker that waits go: there is nothing more to take."""


class _AllAtOnce:
    """Lets every worker have work."""

    async def room(self, number: int) -> None:
        """Wait for nothing."""

    def release(self) -> None:
        """Nobody waits."""


async def run_pool(
    feed: Prefetcher[T],
    work: Callable[[T], Awaitable[None]],
    *,
    workers: int,
    stop: Stop,
    grace_s: float,
    rooms: WorkerSlots | None = None,
) -> bool:
    """Call `work` on every item of `feed`, `workers` at a time, until the feed ends or `stop` is asked for.

    Args:
        feed: where the items come from.
        work: takes one item to its end. An exception from it ends the pool.
        workers: items that are worked on at once, at most.
        rooms: how many of them, from moment to moment; `None` for all.
        stop: when asked, no new item is taken; what is left in the feed stays there.
        grace_s: how long the items in flight may go on after that, in seconds.

    Returns:
        Whether every item that was taken has been finished.

    Raises:
        Exception: the first that `work` raised, bare; the other workers are cancelled first. Or what the feed raised:
            then the items in flight have been finished before.
    """
    broken: list[Exception] = []
    try:
        async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
            crew = _Crew(feed, work, stop, rooms or _AllAtOnce(), broken)
            tasks = [group.create_task(crew.worker(number)) for number in range(workers)]
            guard = group.create_task(_guard(crew, deadline, grace_s))
            await asyncio.wait(tasks, return_when=asyncio.ALL_COMPLETED)
            guard.cancel()
    except TimeoutError:
        if not stop.asked.is_set():
            raise
        return False
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    if broken:
        raise broken[0]
    return True


@dataclass(frozen=True, slots=True)
class _Crew(Generic[T]):
    """What the workers of one pool share."""

    feed: Prefetcher[T]
    work: Callable[[T], Awaitable[None]]
    stop: Stop
    rooms: WorkerSlots
    broken: list[Exception]

    async def worker(self, number: int) -> None:
        """Take one item after the other while there are any, and room for this worker."""
        try:
            while not self.stop.asked.is_set():
                await self.rooms.room(number)
                try:
                    item = await self.feed.next()
                except Exception as error:  # noqa: BLE001 - raised once the items in flight are done: they are paid for
                    self.broken.append(error)
                    return
                if item is None:
                    return
                await self.work(item)
        finally:
            # One that ends means that there is nothing more to take.
            self.rooms.release()


async def _guard(crew: _Crew[T], deadline: asyncio.Timeout, grace_s: float) -> None:
    stop = crew.stop
    await stop.asked.wait()
    crew.feed.interrupt()
    crew.rooms.release()
    loop = asyncio.get_running_loop()
    deadline.reschedule(loop.time() + grace_s)
    await stop.now.wait()
    deadline.reschedule(loop.time())


def _first(failures: BaseExceptionGroup) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
