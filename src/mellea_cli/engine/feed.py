"""Pulls items from a plain iterator in a thread, so that a slow pipe never holds up the answers that stream."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Hands the items of an iterator to coroutines, each item once, in order.

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

    async def __aenter__(self) -> Feed[T]:
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
