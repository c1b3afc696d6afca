"""An event loop in a thread of its own: where a session's requests run, whoever calls and from wherever."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_TASKS_S = 5.0
"""Seconds that cancelled tasks may take to end: one that refuses must not hold up the rest."""
_THREAD_S = 30.0
"""Seconds that the thread may take to end: an embedded server has to be stopped on the way."""


class _Room:
    """What the thread itself holds. It does not know the portal, so that a portal nobody holds can go."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self._run, name="mellea-session", daemon=True)
        self._stop: asyncio.Event | None = None
        # Reentrant: the collector may drop a thunk, which makes a call, in the middle of a call.
        self._lock = threading.RLock()
        self._open = True
        self._woken = False
        self._calls: list[tuple[contextvars.Context, Callable[..., object], tuple[Any, ...]]] = []
        self._exiting = False

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        finally:
            if not self._exiting:
                atexit.unregister(self.exit)

    async def _live(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()
        await self._stop.wait()
        with self._lock:
            self._open = False
        # One turn of the loop for the calls that were let in before: their tasks must be among the cancelled.
        self._take_calls()
        await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_TASKS_S)
        for closer in self.closers:
            try:
                await closer()
            except Exception:  # noqa: BLE001 - one connection that will not close must not keep the others open
                _LOG.debug("closing a session's connection failed", exc_info=True)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in the loop, soon. Raises `RuntimeError` when the loop is about to end."""
        context = contextvars.copy_context()
        with self._lock:
            if not self._open or self.loop is None:
                raise RuntimeError("this session has been closed")
            self._calls.append((context, function, args))
            # Waking the loop is by far the dearest part of a call, so it is woken once for all that come together.
            if not self._woken:
                self._woken = True
                self.loop.call_soon_threadsafe(self._take_calls)

    def _take_calls(self) -> None:
        with self._lock:
            # First this, then that: a call that comes in between wakes the loop once too often, not once too little.
            self._woken = False
            calls, self._calls = self._calls, []
        loop = asyncio.get_running_loop()
        for context, function, args in calls:
            loop.call_soon(function, *args, context=context)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` in the loop. Raises `RuntimeError` when the loop is about to end."""
        with self._lock:
            if self._open and self.loop is not None:
                return asyncio.run_coroutine_threadsafe(work, self.loop)
        work.close()
        raise RuntimeError("this session has been closed")

    def leave(self) -> None:
        """Ask the thread to end; does not wait for it."""
        if self._stop is not None:
            with suppress(RuntimeError):
                self.call(self._stop.set)

    def exit(self) -> None:
        """The interpreter ends: the thread goes first, so that nothing is left open."""
        self._exiting = True
        self.leave()
        self.thread.join(_THREAD_S)


class EventLoopThread:
    """The way into a session's event loop, from any thread and from inside any other loop.

    The thread starts with the first call. It ends when every owner has closed the portal, when nobody holds the portal
    any more, and when the interpreter ends; what still runs then is cancelled and the connections are closed.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._room: _Room | None = None
        self._owners = 1
        self._closed = False
        self._pid = os.getpid()

    def share(self) -> EventLoopThread:
        """Count one more owner, who closes it as well."""
        with self._lock:
            self._owners += 1
        return self

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Call `closer` in the loop when it ends; `closer` must not hold the portal. Call this in the loop."""
        # Also while the portal is closing: what was opened last must be closed as well.
        if self._room is not None:
            self._room.closers.append(closer)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in the loop, soon, in a copy of this context; calls keep their order.

        Raises:
            RuntimeError: the session has been closed.
        """
        self._running().call(function, *args)

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine in the loop; cancelling the future cancels it.

        Raises:
            RuntimeError: the session has been closed.
        """
        return self._running().submit(work())

    def inside(self) -> bool:
        """Whether this is the loop's own thread, in which nothing may wait for the loop."""
        return self._room is not None and self._room.thread is threading.current_thread()

    def wait(self, future: Future[T]) -> T:
        """Block this thread until `future` has its result.

        Raises:
            RuntimeError: this is the loop's own thread, which would wait for itself.
        """
        if self.inside():
            raise RuntimeError("this would wait for itself: in a validator, await the a-method instead")
        if _in_a_loop():
            _LOG.debug("waiting for an answer blocks the running event loop; awaiting it would not")
        return future.result()

    def close(self) -> None:
        """Give up one ownership; the last one ends the thread and waits for it."""
        with self._lock:
            self._owners -= 1
            if self._owners > 0:
                return
            self._closed, room = True, self._room
        if room is not None:
            room.leave()
            if not self.inside():
                room.thread.join(_THREAD_S)

    def _running(self) -> _Room:
        room = self._room
        if room is not None and not self._closed and os.getpid() == self._pid:
            return room
        with self._lock:
            if self._closed:
                raise RuntimeError("this session has been closed")
            if os.getpid() != self._pid:
                raise RuntimeError("a session does not go along with a fork; start one in the child process")
            if self._room is None:
                self._room = self._started()
            return self._room

    def _started(self) -> _Room:
        room = _Room()
        room.thread.start()
        room.ready.wait()
        atexit.register(room.exit)
        # At the interpreter's end `exit` does this and waits as well.
        weakref.finalize(self, room.leave).atexit = False
        return room


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
